"""Reading back what was written: keys and bytes come back as they went in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mcp_tasks.errors import InvalidKeyError, RecordNotFoundError
from mcp_tasks.storage.base import StoredRecord
from mcp_tasks.storage.keys import MAX_KEY_BYTES, Keys


if TYPE_CHECKING:
    from mcp_tasks.storage.base import StorageBackend


TOO_LONG = f"ada:{'t' * MAX_KEY_BYTES}"
NO_TEXT = "ada:\ud800"
BAD_KEYS = ("", ":", "ada", "ada:", ":t1", "ada:t1:x", "ada::t1", TOO_LONG, NO_TEXT)
BAD_PREFIXES = ("", ":", "ada", ":t1", "ada:t1:", "ada::", NO_TEXT)


class KeyRules:
    """Rules about keys and bytes."""

    async def test_what_was_put_is_read_back(self, backend: StorageBackend) -> None:
        """The least that a store does."""
        await backend.put("ada:t1", b"one")

        assert await backend.get("ada:t1") == StoredRecord("ada:t1", b"one", 1)

    async def test_what_was_created_is_read_back(self, backend: StorageBackend) -> None:
        """A task is made by a compare-and-swap from 0."""
        await backend.put_if_version("ada:t1", b"one", 0)

        assert await backend.get("ada:t1") == StoredRecord("ada:t1", b"one", 1)

    async def test_a_missing_record_is_an_error_that_names_its_key(
        self, backend: StorageBackend
    ) -> None:
        """Nothing there is not the same as an empty record."""
        await backend.put("ada:t1", b"one")

        with pytest.raises(RecordNotFoundError) as caught:
            await backend.get("ada:t2")

        assert caught.value.key == "ada:t2"

    async def test_reading_changes_nothing(self, backend: StorageBackend) -> None:
        """A poll must not disturb the worker that writes."""
        await backend.put("ada:t1", b"one")

        seen = [await backend.get("ada:t1") for _ in range(3)]

        assert seen == [StoredRecord("ada:t1", b"one", 1)] * 3

    async def test_every_byte_survives(self, backend: StorageBackend) -> None:
        """A body may be compressed or encrypted: any byte, in any order."""
        every_byte = bytes(range(256))
        await backend.put("ada:t1", every_byte)
        await backend.put_if_version("ada:t2", every_byte[::-1], 0)

        assert (await backend.get("ada:t1")).data == every_byte
        assert (await backend.get("ada:t2")).data == every_byte[::-1]

    async def test_text_is_not_rewritten(self, backend: StorageBackend) -> None:
        """A backend never looks into the bytes: white space and key order of JSON stay."""
        text = '{"b": 1,\r\n "a" :\t"\u00e9\\u0000"}  \n'.encode()
        await backend.put("ada:t1", text)

        assert (await backend.get("ada:t1")).data == text

    async def test_empty_data_is_a_record(self, backend: StorageBackend) -> None:
        """An empty body and no body are two things."""
        await backend.put("ada:t1", b"")

        assert await backend.get("ada:t1") == StoredRecord("ada:t1", b"", 1)

    async def test_data_comes_back_as_bytes(self, backend: StorageBackend) -> None:
        """Not as a view of a driver's buffer, which could change or vanish."""
        await backend.put("ada:t1", b"one")

        assert type((await backend.get("ada:t1")).data) is bytes
        assert type((await backend.list_by_prefix("ada:")).records[0].data) is bytes

    async def test_keys_may_be_as_long_as_keys_get(self, backend: StorageBackend) -> None:
        """Owner and id of any length have a key; two that differ at the end are two."""
        front = f"{'o' * 440}:"
        long = [front + "t" * (MAX_KEY_BYTES - 1 - len(front)) + end for end in "ab"]
        for key in long:
            await backend.put(key, key.encode())

        for key in long:
            assert await backend.get(key) == StoredRecord(key, key.encode(), 1)
        assert [record.key for record in (await backend.list_by_prefix(front)).records] == long

    async def test_keys_differ_by_case(self, backend: StorageBackend) -> None:
        """`Ada` and `ada` are two owners."""
        for key in ("ada:t1", "Ada:t1", "ada:T1"):
            await backend.put(key, key.encode())

        for key in ("ada:t1", "Ada:t1", "ada:T1"):
            assert await backend.get(key) == StoredRecord(key, key.encode(), 1)

    async def test_keys_that_nearly_agree_are_different(self, backend: StorageBackend) -> None:
        """No key is trimmed, decoded, padded or read as a pattern."""
        keys = ["a.b:t", "a:b.t", "a:b", "a:b%", "a:b%25", "a:b_", "a:b*", "a:b ", "a:b~", "@a:b"]
        for key in keys:
            assert await backend.put(key, key.encode()) == 1

        for key in keys:
            assert (await backend.get(key)).data == key.encode()

    async def test_every_kind_of_our_own_keys_works(self, backend: StorageBackend) -> None:
        """Workers, sheets, blobs and index entries lie beside the tasks."""
        ours = Keys("reports")
        keys = [
            ours.task("ada@example.com", "t1"),
            ours.blob("ada@example.com", "t1", "x", 3),
            ours.roster("ada@example.com", 0),
            ours.worker("w1"),
            ours.sheet("w1", 12),
            ours.ready("t1", 2),
            ours.inbox("w1", "t1", 7),
            ours.config("seal"),
        ]
        for key in keys:
            assert await backend.put_if_version(key, key.encode(), 0) == 1

        for key in keys:
            assert (await backend.get(key)).data == key.encode()

    async def test_a_bad_key_is_refused_by_reads(self, backend: StorageBackend) -> None:
        """A key that could be taken for another's is not looked up."""
        for key in BAD_KEYS:
            with pytest.raises(InvalidKeyError):
                await backend.get(key)

    async def test_a_bad_key_is_refused_by_writes(self, backend: StorageBackend) -> None:
        """What could not be read back is not written."""
        for key in BAD_KEYS:
            with pytest.raises(InvalidKeyError):
                await backend.put(key, b"one")
            with pytest.raises(InvalidKeyError):
                await backend.put_if_version(key, b"one", 0)
            with pytest.raises(InvalidKeyError):
                await backend.delete(key)

    async def test_a_bad_prefix_is_refused(self, backend: StorageBackend) -> None:
        """A prefix without its colon would reach every owner whose name begins like it."""
        await backend.put("ada:t1", b"one")

        for prefix in BAD_PREFIXES:
            with pytest.raises(InvalidKeyError):
                await backend.list_by_prefix(prefix)

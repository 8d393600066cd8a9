"""Unconditional writes: put and delete, versions, and how large a record may be."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from mcp_tasks.errors import RecordNotFoundError, RecordTooLargeError
from mcp_tasks.storage.base import StoredRecord


if TYPE_CHECKING:
    from mcp_tasks.storage.base import StorageBackend


WRITERS = 16
_MIB = 2**20


class WriteRules:
    """Rules about put, delete and size."""

    async def test_the_first_put_makes_version_1(self, backend: StorageBackend) -> None:
        """0 means absent, so the first version is 1."""
        assert await backend.put("ada:t1", b"one") == 1
        assert (await backend.get("ada:t1")).version == 1

    async def test_every_put_raises_the_version_by_1(self, backend: StorageBackend) -> None:
        """Also when nothing changed: a version counts writes."""
        assert [await backend.put("ada:t1", b"same") for _ in range(4)] == [1, 2, 3, 4]
        assert (await backend.get("ada:t1")).version == 4

    async def test_a_put_replaces_the_whole_record(self, backend: StorageBackend) -> None:
        """Nothing of a longer record shows behind a shorter one."""
        await backend.put("ada:t1", b"a long record")
        await backend.put("ada:t1", b"short")

        assert await backend.get("ada:t1") == StoredRecord("ada:t1", b"short", 2)

    async def test_a_put_touches_no_other_record(self, backend: StorageBackend) -> None:
        """Neither a neighbour nor the same id of another owner."""
        others = ["ada:t0", "ada:t2", "bob:t1", "ad:t1"]
        for key in others:
            await backend.put(key, b"mine")

        await backend.put("ada:t1", b"one")
        await backend.put("ada:t1", b"two")

        for key in others:
            assert await backend.get(key) == StoredRecord(key, b"mine", 1)

    async def test_a_put_and_a_swap_count_together(self, backend: StorageBackend) -> None:
        """A record has one version, whoever wrote it."""
        await backend.put("ada:t1", b"one")

        assert await backend.put_if_version("ada:t1", b"two", 1) == 2
        assert await backend.put("ada:t1", b"three") == 3
        assert await backend.put_if_version("ada:t1", b"four", 3) == 4

    async def test_concurrent_puts_get_distinct_versions(self, backend: StorageBackend) -> None:
        """One atomic step: never read, add and write."""
        async with asyncio.timeout(5):
            versions = await asyncio.gather(
                *(backend.put("ada:t1", b"%d" % writer) for writer in range(WRITERS))
            )

        assert sorted(versions) == list(range(1, WRITERS + 1))
        last = versions.index(WRITERS)
        assert await backend.get("ada:t1") == StoredRecord("ada:t1", b"%d" % last, WRITERS)

    async def test_a_write_is_seen_by_the_next_read(self, backend: StorageBackend) -> None:
        """Whoever was told that it is stored can read it, at once."""
        for round_ in range(20):
            await backend.put("ada:t1", b"%d" % round_)
            assert (await backend.get("ada:t1")).data == b"%d" % round_
            page = await backend.list_by_prefix("ada:")
            assert page.records[0].data == b"%d" % round_

    async def test_a_deleted_record_is_gone(self, backend: StorageBackend) -> None:
        """From reads and from listings."""
        await backend.put("ada:t1", b"one")
        await backend.put("ada:t2", b"two")

        assert await backend.delete("ada:t1") is True

        with pytest.raises(RecordNotFoundError):
            await backend.get("ada:t1")
        assert [r.key for r in (await backend.list_by_prefix("ada:")).records] == ["ada:t2"]

    async def test_deleting_what_is_not_there_says_so(self, backend: StorageBackend) -> None:
        """Twice is as good as once, and can be told from it."""
        assert await backend.delete("ada:t1") is False
        await backend.put("ada:t1", b"one")

        assert await backend.delete("ada:t1") is True
        assert await backend.delete("ada:t1") is False

    async def test_a_delete_touches_no_other_record(self, backend: StorageBackend) -> None:
        """Not the ones that begin like it, and not those of other owners."""
        others = ["ada:t", "ada:t12", "bob:t1", "ada2:t1"]
        for key in [*others, "ada:t1"]:
            await backend.put(key, b"mine")

        await backend.delete("ada:t1")

        for key in others:
            assert await backend.get(key) == StoredRecord(key, b"mine", 1)

    async def test_a_delete_does_not_ask_for_the_version(self, backend: StorageBackend) -> None:
        """Whatever was written last is what goes."""
        for data in (b"one", b"two", b"three"):
            await backend.put("ada:t1", data)

        assert await backend.delete("ada:t1") is True

    async def test_after_a_delete_versions_start_at_1_again(self, backend: StorageBackend) -> None:
        """For put and for a swap from 0 alike."""
        for key in ("ada:t1", "ada:t2"):
            await backend.put(key, b"one")
            await backend.put(key, b"two")
            await backend.delete(key)

        assert await backend.put("ada:t1", b"new") == 1
        assert await backend.put_if_version("ada:t2", b"new", 0) == 1

    async def test_of_many_deletes_exactly_one_finds_the_record(
        self, backend: StorageBackend
    ) -> None:
        """Two that clean up can tell which of them did it."""
        await backend.put("ada:t1", b"one")

        async with asyncio.timeout(5):
            found = await asyncio.gather(*(backend.delete("ada:t1") for _ in range(WRITERS)))

        assert sorted(found) == [False] * (WRITERS - 1) + [True]

    async def test_a_large_record_survives(self, backend: StorageBackend) -> None:
        """Up to what the backend says it takes (1 MiB is tried at most)."""
        size = min(backend.capabilities.max_record_bytes, _MIB)
        data = bytes(range(251)) * (size // 251 + 1)
        await backend.put("ada:t1", data[:size])
        await backend.put_if_version("ada:t1", data[-size:], 1)

        assert (await backend.get("ada:t1")).data == data[-size:]

    async def test_a_record_over_the_limit_is_refused(self, backend: StorageBackend) -> None:
        """With its size and the limit, so that the caller can say what would fit."""
        limit = _limit(backend)
        too_large = bytes(limit + 1)

        with pytest.raises(RecordTooLargeError) as caught:
            await backend.put("ada:t1", too_large)
        assert (caught.value.key, caught.value.limit) == ("ada:t1", limit)
        assert caught.value.size >= limit + 1

        with pytest.raises(RecordTooLargeError):
            await backend.put_if_version("ada:t1", too_large, 0)

    async def test_a_refused_large_record_changes_nothing(self, backend: StorageBackend) -> None:
        """The one before it stays; where there was none, there is none."""
        too_large = bytes(_limit(backend) + 1)
        await backend.put("ada:t1", b"one")

        with pytest.raises(RecordTooLargeError):
            await backend.put("ada:t1", too_large)
        with pytest.raises(RecordTooLargeError):
            await backend.put_if_version("ada:t1", too_large, 1)
        with pytest.raises(RecordTooLargeError):
            await backend.put("ada:t2", too_large)

        assert await backend.get("ada:t1") == StoredRecord("ada:t1", b"one", 1)
        with pytest.raises(RecordNotFoundError):
            await backend.get("ada:t2")


def _limit(backend: StorageBackend) -> int:
    limit = backend.capabilities.max_record_bytes
    if limit > 256 * _MIB:
        pytest.skip(f"takes records of {limit} bytes; a larger one is too much for a test")
    return limit

"""A backend's life: what it says of itself, callers that go away, closing."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from mcp_tasks.clock import SystemClock
from mcp_tasks.errors import BackendClosedError, VersionConflictError
from mcp_tasks.storage.base import StoredRecord


if TYPE_CHECKING:
    from mcp_tasks.storage.base import StorageBackend


class LifecycleRules:
    """Rules about a backend as a whole."""

    async def test_it_says_what_it_is(self, backend: StorageBackend) -> None:
        """The store and the runner decide by it."""
        found = backend.capabilities

        assert [type(flag) for flag in (found.durable, found.shared, found.native_expiry)] == (
            [bool] * 3
        )
        assert found.max_record_bytes >= 64 * 1024  # a head, and a chunk of a payload

    async def test_its_repr_can_be_logged(self, backend: StorageBackend) -> None:
        """It shows no record and no key."""
        await backend.put("ada-lovelace:t1", b"the-contents")

        assert "the-contents" not in repr(backend)
        assert "ada-lovelace" not in repr(backend)

    async def test_a_cancelled_write_happens_whole_or_not_at_all(
        self, backend: StorageBackend
    ) -> None:
        """At whatever point the caller goes away, the record stays usable."""
        await backend.put("ada:t1", b"1")
        for turns in (0, 1, 2, 3, 5, 8, 13):
            before = await backend.get("ada:t1")
            new = b"%d" % (before.version + 1)
            write = asyncio.create_task(backend.put_if_version("ada:t1", new, before.version))
            for _ in range(turns):
                await asyncio.sleep(0)
            write.cancel()
            with suppress(asyncio.CancelledError):
                await write

            # Had it not happened until now, it still may: only a swap of our own settles it.
            with suppress(VersionConflictError):
                await backend.put_if_version("ada:t1", new, before.version)
            assert await backend.get("ada:t1") == StoredRecord("ada:t1", new, before.version + 1)

    async def test_a_cancelled_write_takes_no_other_with_it(self, backend: StorageBackend) -> None:
        """Callers that share a transaction or a round trip do not share a fate."""
        writes = [asyncio.create_task(backend.put(f"ada:t{number}", b"x")) for number in range(8)]
        await asyncio.sleep(0)
        writes[3].cancel()

        async with asyncio.timeout(5):
            outcomes = await asyncio.gather(*writes, return_exceptions=True)

        assert outcomes[:3] + outcomes[4:] == [1] * 7
        assert outcomes[3] == 1 or isinstance(outcomes[3], asyncio.CancelledError)
        for number in (0, 1, 2, 4, 5, 6, 7):
            assert (await backend.get(f"ada:t{number}")).data == b"x"

    async def test_a_busy_caller_does_not_keep_others_from_running(
        self, backend: StorageBackend
    ) -> None:
        """However quick each call is, a loop of them lets the rest of the server live."""
        await backend.put("ada:t1", b"x")
        turns = 0

        async def live() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        other = asyncio.create_task(live())
        for _ in range(500):
            await backend.put("ada:t1", b"x")
        other.cancel()

        assert turns > 1

    async def test_it_may_be_closed_twice(self, backend: StorageBackend) -> None:
        """Also before it was ever used."""
        await backend.close()
        await backend.close()

    async def test_it_may_be_closed_twice_after_use(self, backend: StorageBackend) -> None:
        """Whoever shuts down need not know who did before."""
        await backend.put("ada:t1", b"x")

        await backend.close()
        await backend.close()

    async def test_a_closed_backend_refuses_reads(self, backend: StorageBackend) -> None:
        """With an error that says so, not with "not found"."""
        await backend.put("ada:t1", b"x")
        await backend.close()

        with pytest.raises(BackendClosedError):
            await backend.get("ada:t1")
        with pytest.raises(BackendClosedError):
            await backend.get("ada:t2")
        with pytest.raises(BackendClosedError):
            await backend.list_by_prefix("ada:")

    async def test_a_closed_backend_refuses_writes(self, backend: StorageBackend) -> None:
        """It does not open itself again."""
        await backend.put("ada:t1", b"x")
        await backend.close()

        with pytest.raises(BackendClosedError):
            await backend.put("ada:t1", b"x")
        with pytest.raises(BackendClosedError):
            await backend.put_if_version("ada:t2", b"x", 0)
        with pytest.raises(BackendClosedError):
            await backend.delete("ada:t1")
        with pytest.raises(BackendClosedError):
            await backend.cleanup_expired(SystemClock().now())

    async def test_writes_under_way_end_before_it_closes(self, backend: StorageBackend) -> None:
        """No caller is left waiting, and none is told less than what happened."""
        await backend.put("ada:t0", b"x")
        writes = [
            asyncio.create_task(backend.put(f"ada:t{number}", b"x")) for number in range(1, 9)
        ]
        await asyncio.sleep(0)

        async with asyncio.timeout(5):
            await backend.close()
            outcomes = await asyncio.gather(*writes)

        assert outcomes == [1] * 8

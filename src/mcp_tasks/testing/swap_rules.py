"""Compare-and-swap: of all rules the one that everything else stands on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from mcp_tasks.errors import RecordNotFoundError, VersionConflictError
from mcp_tasks.storage.base import StoredRecord


if TYPE_CHECKING:
    from mcp_tasks.storage.base import StorageBackend


WRITERS = 16


class SwapRules:
    """Rules about put_if_version."""

    async def test_a_swap_from_0_creates(self, backend: StorageBackend) -> None:
        """0 means: only if nothing is there."""
        assert await backend.put_if_version("ada:t1", b"one", 0) == 1

    async def test_a_swap_from_0_never_replaces(self, backend: StorageBackend) -> None:
        """Two creates of one key are a conflict, not an overwrite."""
        await backend.put("ada:t1", b"one")

        with pytest.raises(VersionConflictError):
            await backend.put_if_version("ada:t1", b"two", 0)

        assert await backend.get("ada:t1") == StoredRecord("ada:t1", b"one", 1)

    async def test_a_swap_at_the_current_version_writes(self, backend: StorageBackend) -> None:
        """And each time returns the version that the next one has to name."""
        version = await backend.put_if_version("ada:t1", b"0", 0)
        for number in range(1, 5):
            version = await backend.put_if_version("ada:t1", b"%d" % number, version)
            assert version == number + 1

        assert await backend.get("ada:t1") == StoredRecord("ada:t1", b"4", 5)

    async def test_a_swap_replaces_the_whole_record(self, backend: StorageBackend) -> None:
        """It is a new record, not a patch."""
        await backend.put("ada:t1", b"a long record")
        await backend.put_if_version("ada:t1", b"short", 1)

        assert (await backend.get("ada:t1")).data == b"short"

    async def test_a_swap_from_an_old_version_is_refused(self, backend: StorageBackend) -> None:
        """Somebody else wrote since the caller read."""
        for data in (b"one", b"two", b"three"):
            await backend.put("ada:t1", data)

        for old in (1, 2):
            with pytest.raises(VersionConflictError):
                await backend.put_if_version("ada:t1", b"late", old)

    async def test_a_swap_from_a_version_yet_to_come_is_refused(
        self, backend: StorageBackend
    ) -> None:
        """Equal means equal, not "at most"."""
        await backend.put("ada:t1", b"one")

        with pytest.raises(VersionConflictError):
            await backend.put_if_version("ada:t1", b"early", 2)

    async def test_a_conflict_carries_the_true_version(self, backend: StorageBackend) -> None:
        """The caller can go on from it without another read."""
        for data in (b"one", b"two", b"three"):
            await backend.put("ada:t1", data)

        for expected in (0, 1, 2, 4, 99):
            with pytest.raises(VersionConflictError) as caught:
                await backend.put_if_version("ada:t1", b"no", expected)
            conflict = caught.value
            assert (conflict.key, conflict.expected, conflict.actual) == ("ada:t1", expected, 3)

    async def test_a_swap_of_what_is_not_there_conflicts_with_0(
        self, backend: StorageBackend
    ) -> None:
        """A missing record is version 0, on every backend."""
        with pytest.raises(VersionConflictError) as caught:
            await backend.put_if_version("ada:t1", b"one", 1)

        assert (caught.value.expected, caught.value.actual) == (1, 0)

    async def test_a_swap_after_a_delete_conflicts_with_0(self, backend: StorageBackend) -> None:
        """A late writer does not bring back what was removed."""
        await backend.put("ada:t1", b"one")
        await backend.delete("ada:t1")

        with pytest.raises(VersionConflictError) as caught:
            await backend.put_if_version("ada:t1", b"late", 1)

        assert caught.value.actual == 0
        with pytest.raises(RecordNotFoundError):
            await backend.get("ada:t1")

    async def test_a_refused_swap_changes_nothing(self, backend: StorageBackend) -> None:
        """Neither data nor version, and a later swap at the true version still works."""
        await backend.put("ada:t1", b"one")
        await backend.put("ada:t1", b"two")

        for expected in (0, 1, 3):
            with pytest.raises(VersionConflictError):
                await backend.put_if_version("ada:t1", b"no", expected)

        assert await backend.get("ada:t1") == StoredRecord("ada:t1", b"two", 2)
        assert await backend.put_if_version("ada:t1", b"three", 2) == 3

    async def test_a_refused_swap_creates_nothing(self, backend: StorageBackend) -> None:
        """Not even an empty record that a listing would show."""
        with pytest.raises(VersionConflictError):
            await backend.put_if_version("ada:t1", b"one", 7)

        with pytest.raises(RecordNotFoundError):
            await backend.get("ada:t1")
        assert not (await backend.list_by_prefix("ada:")).records
        assert await backend.put_if_version("ada:t1", b"one", 0) == 1

    async def test_a_version_can_be_used_once(self, backend: StorageBackend) -> None:
        """Whoever comes second with it is told, even with the same data."""
        await backend.put("ada:t1", b"one")
        await backend.put_if_version("ada:t1", b"same", 1)

        with pytest.raises(VersionConflictError):
            await backend.put_if_version("ada:t1", b"same", 1)

    async def test_a_conflict_stays_with_its_caller(self, backend: StorageBackend) -> None:
        """Writes that travel together fail one by one."""
        await backend.put("ada:t1", b"one")

        async with asyncio.timeout(5):
            first, conflict, second, third = await asyncio.gather(
                backend.put_if_version("ada:t2", b"new", 0),
                backend.put_if_version("ada:t1", b"late", 9),
                backend.put_if_version("ada:t1", b"two", 1),
                backend.put("ada:t3", b"new"),
                return_exceptions=True,
            )

        assert (first, second, third) == (1, 2, 1)
        assert isinstance(conflict, VersionConflictError)
        assert (await backend.get("ada:t1")).data == b"two"

    async def test_of_many_writers_with_one_version_exactly_one_wins(
        self, backend: StorageBackend
    ) -> None:
        """Two workers never both believe that they claimed the same task."""
        await backend.put("ada:t1", b"free")

        won, refused = await _race(backend, expected=1)

        assert (len(won), refused) == (1, [2] * (WRITERS - 1))
        assert await backend.get("ada:t1") == StoredRecord("ada:t1", b"%d" % won[0], 2)

    async def test_of_many_creators_exactly_one_wins(self, backend: StorageBackend) -> None:
        """An id, a lock or a tombstone is made once."""
        won, refused = await _race(backend, expected=0)

        assert (len(won), refused) == (1, [1] * (WRITERS - 1))
        assert await backend.get("ada:t1") == StoredRecord("ada:t1", b"%d" % won[0], 1)

    async def test_no_update_is_lost(self, backend: StorageBackend) -> None:
        """Sixteen writers that read, add and swap until it holds count right."""
        rounds = 5
        met: list[int] = []  # by how much each swap found, or made, the version higher
        await backend.put("ada:t1", b"0")

        async def count() -> None:
            for _ in range(rounds):
                while True:
                    seen = await backend.get("ada:t1")
                    more = b"%d" % (int(seen.data) + 1)
                    try:
                        version = await backend.put_if_version("ada:t1", more, seen.version)
                    except VersionConflictError as conflict:
                        met.append(conflict.actual - seen.version)
                    else:
                        met.append(version - seen.version)
                        break

        async with asyncio.timeout(30), asyncio.TaskGroup() as writers:
            for _ in range(WRITERS):
                writers.create_task(count())

        assert min(met) >= 1
        total = WRITERS * rounds
        assert await backend.get("ada:t1") == StoredRecord("ada:t1", b"%d" % total, total + 1)

    async def test_writers_of_different_keys_do_not_disturb_one_another(
        self, backend: StorageBackend
    ) -> None:
        """Nobody is refused because somebody else wrote elsewhere."""

        async def write(key: str) -> None:
            version = 0
            for number in range(5):
                version = await backend.put_if_version(key, b"%d" % number, version)

        keys = [f"{owner}:t{number}" for owner in ("ada", "bob") for number in range(8)]
        async with asyncio.timeout(10), asyncio.TaskGroup() as writers:
            for key in keys:
                writers.create_task(write(key))

        for key in keys:
            assert await backend.get(key) == StoredRecord(key, b"4", 5)


async def _race(backend: StorageBackend, *, expected: int) -> tuple[list[int], list[int]]:
    """Let many swap from one version at once; return who won, and the versions others met."""
    start = asyncio.Event()
    won: list[int] = []
    refused: list[int] = []

    async def claim(writer: int) -> None:
        await start.wait()
        try:
            await backend.put_if_version("ada:t1", b"%d" % writer, expected)
        except VersionConflictError as conflict:
            refused.append(conflict.actual)
        else:
            won.append(writer)

    async with asyncio.timeout(5), asyncio.TaskGroup() as writers:
        for writer in range(WRITERS):
            writers.create_task(claim(writer))
        start.set()
    return won, refused

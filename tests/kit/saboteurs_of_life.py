"""Backends that misbehave when callers go away, when they are closed, opened twice or watched."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.kit.registry import breaks

from mcp_tasks.errors import BackendClosedError, RecordNotFoundError
from mcp_tasks.storage.memory import MemoryBackend


if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

    from mcp_tasks.storage.base import StoredRecord


@breaks("it_says_what_it_is")
class TakesOnlySmallRecords(MemoryBackend):
    """Has no room for the head of a task."""

    capabilities = MemoryBackend.capabilities._replace(max_record_bytes=1024)


@breaks("its_repr_can_be_logged")
class ShowsItself(MemoryBackend):
    """Is a dataclass, so to say."""

    def __repr__(self) -> str:
        return f"ShowsItself({self._entries!r})"


@breaks("a_cancelled_write_happens_whole_or_not_at_all")
class WritesInTwoSteps(MemoryBackend):
    """Counts first, and then writes."""

    async def put_if_version(
        self, key: str, data: bytes, expected_version: int, *, expires_at: datetime | None = None
    ) -> int:
        """Leave room for an end between them."""
        old = self._entries[key][0] if key in self._entries else b""
        version = await super().put_if_version(key, old, expected_version, expires_at=expires_at)
        await asyncio.sleep(0)
        return self._write(key, data, version, expires_at)


@breaks("a_cancelled_write_takes_no_other_with_it")
class SharesOneFuture(MemoryBackend):
    """Lets all writes of a turn wait for one future, which the first who leaves cancels."""

    def __init__(self) -> None:
        super().__init__()
        self._batch: asyncio.Future[None] | None = None

    async def put(self, key: str, data: bytes, *, expires_at: datetime | None = None) -> int:
        """Wait for the batch."""
        if self._batch is None or self._batch.done():
            loop = asyncio.get_running_loop()
            self._batch = loop.create_future()
            loop.call_later(0.0005, self._end, self._batch)
        await self._batch
        return await super().put(key, data, expires_at=expires_at)

    @staticmethod
    def _end(batch: asyncio.Future[None]) -> None:
        if not batch.done():
            batch.set_result(None)


@breaks("a_busy_caller_does_not_keep_others_from_running")
class NeverPauses(MemoryBackend):
    """Keeps the loop to itself."""

    async def put(self, key: str, data: bytes, *, expires_at: datetime | None = None) -> int:
        """Write on."""
        return self._write(key, data, self._version(key) + 1, expires_at)


@breaks("it_may_be_closed_twice")
class ClosesWhatItNeverOpened(MemoryBackend):
    """Expects to have been used."""

    async def close(self) -> None:
        """Trip over nothing."""
        if not self._entries:
            message = "nothing to close"
            raise RuntimeError(message)


@breaks("it_may_be_closed_twice_after_use")
class ClosesOnce(MemoryBackend):
    """Expects to be closed by one."""

    async def close(self) -> None:
        """Trip over itself."""
        self._check_open()
        await super().close()


@breaks("a_closed_backend_refuses_reads")
class ReadsEmptyWhenClosed(MemoryBackend):
    """Takes closed for empty."""

    async def get(self, key: str) -> StoredRecord:
        """Find nothing."""
        try:
            return await super().get(key)
        except BackendClosedError:
            raise RecordNotFoundError(key) from None


@breaks("a_closed_backend_refuses_writes")
class OpensAgain(MemoryBackend):
    """Opens at first use, and at the next first use too."""

    async def put(self, key: str, data: bytes, *, expires_at: datetime | None = None) -> int:
        """Open."""
        self._closed = False
        return await super().put(key, data, expires_at=expires_at)


@breaks("writes_under_way_end_before_it_closes")
class DropsWhatWaits(MemoryBackend):
    """Closes at once, whoever waits."""

    async def put(self, key: str, data: bytes, *, expires_at: datetime | None = None) -> int:
        """Take two turns."""
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return await super().put(key, data, expires_at=expires_at)


# --- opened twice --------------------------------------------------------------------------------


class Shared(MemoryBackend):
    """Can be opened a second time, over the same dict. As it stands it is right."""

    def reopen(self) -> MemoryBackend:
        """Share everything but being closed."""
        second = type(self)()
        second._entries = self._entries  # noqa: SLF001 - its own kind
        second._sorted = self._sorted  # noqa: SLF001
        second._watchers = self._watchers  # noqa: SLF001
        return second

    async def get(self, key: str) -> StoredRecord:
        """Look whether it was closed, for what it shares is not emptied then."""
        self._check_open()
        return await super().get(key)

    def _version(self, key: str) -> int:
        self._check_open()
        return super()._version(key)

    async def close(self) -> None:
        """Leave the records to the others."""
        self._closed = True
        self._announce()


@breaks("a_second_one_shares_the_records")
class OpensAnother(Shared):
    """Opens an empty one."""

    def reopen(self) -> MemoryBackend:
        """Share nothing."""
        return type(self)()


@breaks("a_second_one_lives_on_its_own")
class ClosesBoth(Shared):
    """Takes what it shares with it."""

    async def close(self) -> None:
        """Empty it."""
        await super().close()
        self._entries.clear()


@breaks("a_second_one_works_on_another_loop")
class KeepsItsLoop(Shared):
    """Has made its futures for the loop it began with."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()

    async def put(self, key: str, data: bytes, *, expires_at: datetime | None = None) -> int:
        """Refuse another loop."""
        if asyncio.get_running_loop() is not self._loop:
            message = "attached to a different loop"
            raise RuntimeError(message)
        return await super().put(key, data, expires_at=expires_at)


# --- watched -------------------------------------------------------------------------------------


@breaks("whoever_watches_hears_of_a_change")
class TellsNobody(MemoryBackend):
    """Has a watch that never wakes."""

    async def watch(self) -> AsyncIterator[None]:
        """Wait for ever."""
        await asyncio.Event().wait()
        yield


@breaks("whoever_watches_hears_of_changes_made_elsewhere")
class TellsOnlyItsOwn(Shared):
    """Knows of its own writes alone."""

    def reopen(self) -> MemoryBackend:
        """Share the records, and not who watches."""
        second = super().reopen()
        second._watchers = set()  # noqa: SLF001 - its own kind
        return second


@breaks("all_who_watch_hear_of_a_change")
class TellsOneOnly(Shared):
    """Hands each hint to whoever asks first."""

    def _announce(self) -> None:
        for changed in list(self._watchers)[:1]:
            changed.set()


@breaks("a_change_while_the_last_one_is_looked_at_is_not_lost")
class ForgetsWhatComesMeanwhile(Shared):
    """Begins to listen when it is asked, and not before."""

    async def watch(self) -> AsyncIterator[None]:
        """Clear what came while nobody waited."""
        changed = asyncio.Event()
        self._watchers.add(changed)
        while True:
            changed.clear()
            await changed.wait()
            yield


@breaks("one_who_watches_may_go_away")
class MissesThoseWhoLeave(Shared):
    """Counts on everybody to stay."""

    _is_missing_one = False

    async def watch(self) -> AsyncIterator[None]:
        """Note that somebody has gone."""
        try:
            async for _ in super().watch():
                yield
        finally:
            self._is_missing_one = True

    def _announce(self) -> None:
        if self._is_missing_one:
            message = "deque mutated"
            raise RuntimeError(message)
        super()._announce()


@breaks("closing_ends_the_watching")
class KeepsThemWaiting(Shared):
    """Wakes nobody when it is closed."""

    async def close(self) -> None:
        """Close, and tell no one."""
        self._closed = True

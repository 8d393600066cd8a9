"""Backends that keep records too long, or not long enough."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from tests.kit.registry import breaks
from tests.kit.saboteurs_of_listings import SimpleListing

from mcp_tasks.clock import SystemClock
from mcp_tasks.errors import RecordNotFoundError, VersionConflictError
from mcp_tasks.storage.base import Page, StoredRecord
from mcp_tasks.storage.memory import MemoryBackend


class Moves(MemoryBackend):
    """Stores another expiry than it was given."""

    def moved(self, expires_at: datetime) -> datetime:
        """Return what is stored instead of `expires_at`."""
        return expires_at

    def _write(self, key: str, data: bytes, version: int, expires_at: datetime | None) -> int:
        moved = None if expires_at is None else self.moved(expires_at)
        return super()._write(key, data, version, moved)


@breaks("a_time_without_a_zone_is_refused")
class TakesAnyTime(Moves):
    """Takes every time for one in UTC."""

    def moved(self, expires_at: datetime) -> datetime:
        """Say that it is."""
        return expires_at.replace(tzinfo=UTC)


@breaks("an_expired_record_is_not_found")
class ReadsTheExpired(MemoryBackend):
    """Leaves expiry to the clean-up."""

    async def get(self, key: str) -> StoredRecord:
        """Show what is there."""
        entry = self._entries.get(key)
        return await super().get(key) if entry is None else StoredRecord(key, *entry[:2])


@breaks("an_expired_record_is_not_listed")
class ListsTheExpired(SimpleListing):
    """Does so in its listing."""

    def is_alive(self, key: str) -> bool:
        """Think so."""
        return True


@breaks("expired_records_take_no_place_on_a_page")
class FiltersThePage(SimpleListing):
    """Fetches a page, and leaves the expired out of it."""

    async def list_by_prefix(
        self, prefix: str, *, limit: int = 100, after: str | None = None, reverse: bool = False
    ) -> Page:
        """Filter too late."""
        keys = [key for key in sorted(self._entries) if key.startswith(prefix)]
        keys = [key for key in keys if after is None or key > after]
        page = [self.shown(key) for key in keys[:limit] if self.is_alive(key)]
        return Page(page, self.next_of(keys[:limit], keys[limit:]))


@breaks("a_record_with_time_left_is_there")
class HidesWhatWillExpire(MemoryBackend):
    """Takes any expiry for a past one."""

    async def get(self, key: str) -> StoredRecord:
        """Look whether it has one."""
        found = await super().get(key)
        if self._entries[key][2] is not None:
            raise RecordNotFoundError(key)
        return found


@breaks("a_record_is_gone_from_its_millisecond_on")
class KnowsOnlySeconds(Moves):
    """Rounds up to whole seconds."""

    def moved(self, expires_at: datetime) -> datetime:
        """Round."""
        return expires_at.replace(microsecond=0) + timedelta(seconds=1)


@breaks("the_time_zone_of_an_expiry_counts")
class DropsTheTimeZone(Moves):
    """Stores what the clock on the wall said."""

    def moved(self, expires_at: datetime) -> datetime:
        """Call it UTC."""
        return expires_at.replace(tzinfo=UTC)


@breaks("the_end_of_time_is_a_time")
class Overflows(Moves):
    """Counts in 32 bits."""

    def moved(self, expires_at: datetime) -> datetime:
        """Wrap round."""
        return expires_at.replace(year=1970) if expires_at.year > 2300 else expires_at


@breaks(
    "a_put_over_an_expired_record_starts_at_1",
    "a_swap_from_0_over_an_expired_record_creates",
    "a_late_swap_does_not_revive_an_expired_record",
    "deleting_an_expired_record_finds_nothing",
)
class KeepsVersions(MemoryBackend):
    """Compares with what is stored, whether or not it has expired."""

    def _version(self, key: str) -> int:
        entry = self._entries.get(key)
        return super()._version(key) if entry is None else entry[1]


@breaks("a_put_replaces_the_expiry")
class PutKeepsTheExpiry(MemoryBackend):
    """Lets the first expiry stand."""

    async def put(self, key: str, data: bytes, *, expires_at: datetime | None = None) -> int:
        """Keep it."""
        entry = self._entries.get(key)
        kept = expires_at if entry is None else entry[2]
        return await super().put(key, data, expires_at=kept)


@breaks("a_swap_replaces_the_expiry")
class SwapKeepsTheExpiry(MemoryBackend):
    """Lets an expiry stand where none is given."""

    async def put_if_version(
        self, key: str, data: bytes, expected_version: int, *, expires_at: datetime | None = None
    ) -> int:
        """Keep it."""
        entry = self._entries.get(key)
        kept = entry[2] if entry is not None and expires_at is None else expires_at
        return await super().put_if_version(key, data, expected_version, expires_at=kept)


@breaks("a_refused_swap_does_not_change_the_expiry")
class SetsTheExpiryFirst(MemoryBackend):
    """Sets the expiry in a call of its own."""

    async def put_if_version(
        self, key: str, data: bytes, expected_version: int, *, expires_at: datetime | None = None
    ) -> int:
        """Set it, and then compare."""
        actual = self._version(key)
        if actual:
            self._entries[key] = (*self._entries[key][:2], expires_at)
        if actual != expected_version:
            raise VersionConflictError(key, expected_version, actual)
        return self._write(key, data, actual + 1, expires_at)


@breaks("cleaning_up_removes_what_has_expired")
class NeverCleansUp(MemoryBackend):
    """Says that all is clean."""

    async def cleanup_expired(self, now: datetime) -> int:
        """Do nothing."""
        return 0


@breaks("cleaning_up_leaves_the_rest")
class CleansUpTooMuch(MemoryBackend):
    """Removes whatever has an expiry."""

    async def cleanup_expired(self, now: datetime) -> int:
        """Be thorough."""
        return await super().cleanup_expired(datetime.max.replace(tzinfo=UTC))


@breaks("cleaning_up_goes_by_the_time_it_is_given")
class CleansUpByItsOwnClock(MemoryBackend):
    """Knows better what time it is."""

    async def cleanup_expired(self, now: datetime) -> int:
        """Look at the clock."""
        return await super().cleanup_expired(SystemClock().now())


@breaks("cleaning_up_removes_many")
class CleansUpALittle(MemoryBackend):
    """Leaves the rest for another day."""

    async def cleanup_expired(self, now: datetime) -> int:
        """Stop after a hundred."""
        expired = [k for k, (_, _, at) in self._entries.items() if at and at <= now]
        for key in expired[:100]:
            self._remove(key)
        return len(expired[:100])


@breaks("writers_go_on_while_others_clean_up")
class CleansUpByKey(MemoryBackend):
    """Looks for the expired, and then removes what lies there."""

    async def cleanup_expired(self, now: datetime) -> int:
        """Lose the race on purpose."""
        expired = [k for k, (_, _, at) in self._entries.items() if at and at <= now]
        await asyncio.sleep(0)
        for key in expired:
            self._remove(key)
        return len(expired)

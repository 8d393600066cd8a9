"""Backends that mistreat keys, bytes or versions."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote

from tests.kit.registry import breaks

from mcp_tasks.errors import (
    InvalidKeyError,
    RecordNotFoundError,
    RecordTooLargeError,
    VersionConflictError,
)
from mcp_tasks.storage.base import Page, StoredRecord
from mcp_tasks.storage.memory import MemoryBackend


if TYPE_CHECKING:
    from datetime import datetime


# --- what comes back -----------------------------------------------------------------------------


class Rewrites(MemoryBackend):
    """Stores something else than it was given."""

    def rewritten(self, data: bytes) -> bytes:
        """Return what is stored instead of `data`."""
        return data

    def _write(self, key: str, data: bytes, version: int, expires_at: datetime | None) -> int:
        return super()._write(key, self.rewritten(data), version, expires_at)


class Renames(MemoryBackend):
    """Stores and reads under another key than it was given."""

    def renamed(self, key: str) -> str:
        """Return the key that is used instead of `key`."""
        return key

    async def get(self, key: str) -> StoredRecord:
        """Look in the wrong place."""
        return (await super().get(self.renamed(key)))._replace(key=key)

    async def put(self, key: str, data: bytes, *, expires_at: datetime | None = None) -> int:
        """Write to the wrong place."""
        return await super().put(self.renamed(key), data, expires_at=expires_at)


@breaks("what_was_put_is_read_back")
class ForgetsPuts(MemoryBackend):
    """Says yes and does nothing."""

    async def put(self, key: str, data: bytes, *, expires_at: datetime | None = None) -> int:
        """Nod."""
        return 1


@breaks("what_was_created_is_read_back")
class CreatesEmpty(MemoryBackend):
    """Makes the record, and leaves the data for later."""

    async def put_if_version(
        self, key: str, data: bytes, expected_version: int, *, expires_at: datetime | None = None
    ) -> int:
        """Lose what a new record was to hold."""
        kept = data if expected_version else b""
        return await super().put_if_version(key, kept, expected_version, expires_at=expires_at)


@breaks("a_missing_record_is_an_error_that_names_its_key")
class FindsWhatIsMissing(MemoryBackend):
    """Returns an empty record for none."""

    async def get(self, key: str) -> StoredRecord:
        """Make one up."""
        try:
            return await super().get(key)
        except RecordNotFoundError:
            return StoredRecord(key, b"", 0)


@breaks("reading_changes_nothing")
class CountsReads(MemoryBackend):
    """Takes a read for a change."""

    async def get(self, key: str) -> StoredRecord:
        """Raise the version."""
        found = await super().get(key)
        self._write(key, found.data, found.version + 1, None)
        return found


@breaks("every_byte_survives")
class StoresText(Rewrites):
    """Takes every body for UTF-8."""

    def rewritten(self, data: bytes) -> bytes:
        """Replace what is none."""
        return data.decode("utf-8", "replace").encode()


@breaks("text_is_not_rewritten")
class StoresJson(Rewrites):
    """Keeps a JSON column, which has an order of its own."""

    def rewritten(self, data: bytes) -> bytes:
        """Parse and print."""
        try:
            return json.dumps(json.loads(data), sort_keys=True).encode()
        except ValueError:
            return data


@breaks("empty_data_is_a_record")
class TakesEmptyForNone(MemoryBackend):
    """Thinks `if data` means `if data is not None`."""

    async def get(self, key: str) -> StoredRecord:
        """Find nothing where nothing is in it."""
        found = await super().get(key)
        if not found.data:
            raise RecordNotFoundError(key)
        return found


@breaks("data_comes_back_as_bytes")
class LendsItsBuffer(MemoryBackend):
    """Returns what the driver gave it."""

    async def get(self, key: str) -> StoredRecord:
        """Hand out a view."""
        found = await super().get(key)
        return found._replace(data=cast("bytes", memoryview(found.data)))


@breaks("keys_may_be_as_long_as_keys_get")
class CutsKeys(Renames):
    """Has a column of 255 characters."""

    def renamed(self, key: str) -> str:
        """Cut."""
        return key[:255]


@breaks("keys_differ_by_case")
class IgnoresCase(Renames):
    """Has the collation of its country."""

    def renamed(self, key: str) -> str:
        """Fold."""
        return key.lower()


@breaks("keys_that_nearly_agree_are_different")
class DecodesKeys(Renames):
    """Takes a key for a URL."""

    def renamed(self, key: str) -> str:
        """Decode."""
        return unquote(key)


@breaks("every_kind_of_our_own_keys_works")
class WantsPlainKeys(MemoryBackend):
    """Has ideas of its own about keys."""

    def _write(self, key: str, data: bytes, version: int, expires_at: datetime | None) -> int:
        if "@" in key:
            raise InvalidKeyError(key, "too fancy")
        return super()._write(key, data, version, expires_at)


@breaks("a_bad_key_is_refused_by_reads")
class LooksUpAnything(MemoryBackend):
    """Takes a key that it could not have written for one that is not there."""

    async def get(self, key: str) -> StoredRecord:
        """Look."""
        try:
            return await super().get(key)
        except InvalidKeyError:
            raise RecordNotFoundError(key) from None


@breaks("a_bad_key_is_refused_by_writes")
class WritesAnything(MemoryBackend):
    """Thinks that a key is a key."""

    async def put(self, key: str, data: bytes, *, expires_at: datetime | None = None) -> int:
        """Write."""
        try:
            return await super().put(key, data, expires_at=expires_at)
        except InvalidKeyError:
            return 1


@breaks("a_bad_prefix_is_refused")
class ListsAnything(MemoryBackend):
    """Takes a prefix as it comes."""

    async def list_by_prefix(
        self, prefix: str, *, limit: int = 100, after: str | None = None, reverse: bool = False
    ) -> Page:
        """List whatever begins like it."""
        try:
            return await super().list_by_prefix(prefix, limit=limit, after=after, reverse=reverse)
        except InvalidKeyError:
            return Page([StoredRecord(k, *entry[:2]) for k, entry in self._entries.items()], None)


# --- put and delete ------------------------------------------------------------------------------


@breaks("the_first_put_makes_version_1")
class CountsFrom0(MemoryBackend):
    """Counts like a programmer."""

    async def put(self, key: str, data: bytes, *, expires_at: datetime | None = None) -> int:
        """Count the writes before this one."""
        return await super().put(key, data, expires_at=expires_at) - 1


@breaks("every_put_raises_the_version_by_1")
class SkipsWhatIsTheSame(MemoryBackend):
    """Saves a write where nothing changes."""

    async def put(self, key: str, data: bytes, *, expires_at: datetime | None = None) -> int:
        """Compare first."""
        entry = self._entries.get(key)
        if entry is not None and entry[0] == data:
            return entry[1]
        return await super().put(key, data, expires_at=expires_at)


class WritesOver(MemoryBackend):
    """Puts the new bytes over the old ones, and cuts nothing off."""

    def over(self, key: str, data: bytes) -> bytes:
        """Return the new bytes, and what is left of the old."""
        entry = self._entries.get(key)
        return data + (entry[0][len(data) :] if entry is not None else b"")


@breaks("a_put_replaces_the_whole_record")
class PutsOver(WritesOver):
    """Does so on put."""

    async def put(self, key: str, data: bytes, *, expires_at: datetime | None = None) -> int:
        """Overlay."""
        return await super().put(key, self.over(key, data), expires_at=expires_at)


@breaks("a_swap_replaces_the_whole_record")
class SwapsOver(WritesOver):
    """Does so on a swap."""

    async def put_if_version(
        self, key: str, data: bytes, expected_version: int, *, expires_at: datetime | None = None
    ) -> int:
        """Overlay."""
        over = self.over(key, data)
        return await super().put_if_version(key, over, expected_version, expires_at=expires_at)


@breaks("a_put_touches_no_other_record")
class WritesToAllOwners(MemoryBackend):
    """Has left the owner out of its WHERE."""

    async def put(self, key: str, data: bytes, *, expires_at: datetime | None = None) -> int:
        """Write to every record of this id."""
        sort = key.partition(":")[2]
        for other in [k for k in self._entries if k.partition(":")[2] == sort and k != key]:
            await super().put(other, data)
        return await super().put(key, data, expires_at=expires_at)


@breaks("a_put_and_a_swap_count_together")
class CountsPutsAlone(MemoryBackend):
    """Has a counter for puts."""

    def __init__(self) -> None:
        super().__init__()
        self._puts = 0

    async def put(self, key: str, data: bytes, *, expires_at: datetime | None = None) -> int:
        """Go by that counter."""
        self._puts += 1
        return self._write(key, data, self._puts, expires_at)


@breaks("concurrent_puts_get_distinct_versions")
class ReadsAddsAndWrites(MemoryBackend):
    """Puts in two steps, with room for another writer between them."""

    async def put(self, key: str, data: bytes, *, expires_at: datetime | None = None) -> int:
        """Lose the race on purpose."""
        version = self._version(key)
        await asyncio.sleep(0)
        return self._write(key, data, version + 1, expires_at)


@breaks("a_write_is_seen_by_the_next_read")
class ReadsFromAReplica(MemoryBackend):
    """Reads what was there a moment ago."""

    def __init__(self) -> None:
        super().__init__()
        self._before: dict[str, StoredRecord] = {}

    async def get(self, key: str) -> StoredRecord:
        """Read the old record once more."""
        found = await super().get(key)
        return self._before.get(key, found)

    def _write(self, key: str, data: bytes, version: int, expires_at: datetime | None) -> int:
        if key in self._entries:
            self._before[key] = StoredRecord(key, *self._entries[key][:2])
        return super()._write(key, data, version, expires_at)


@breaks("a_deleted_record_is_gone")
class OnlyMarks(MemoryBackend):
    """Deletes some other day."""

    async def delete(self, key: str) -> bool:
        """Nod."""
        return key in self._entries


@breaks("deleting_what_is_not_there_says_so")
class AlwaysDeletes(MemoryBackend):
    """Does not look whether there was anything."""

    async def delete(self, key: str) -> bool:
        """Say yes."""
        await super().delete(key)
        return True


@breaks("a_delete_touches_no_other_record")
class DeletesByPrefix(MemoryBackend):
    """Takes a key for the beginning of keys."""

    async def delete(self, key: str) -> bool:
        """Delete all of them."""
        return any([await super().delete(k) for k in list(self._entries) if k.startswith(key)])


@breaks("a_delete_does_not_ask_for_the_version")
class DeletesOnlyTheFirst(MemoryBackend):
    """Knows only the version that it made."""

    async def delete(self, key: str) -> bool:
        """Refuse later ones."""
        return await super().delete(key) if self._version(key) <= 1 else False


@breaks("after_a_delete_versions_start_at_1_again")
class RemembersVersions(MemoryBackend):
    """Counts on where a deleted record ended."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, int] = {}

    async def delete(self, key: str) -> bool:
        """Keep the version."""
        self._last[key] = self._version(key)
        return await super().delete(key)

    async def put(self, key: str, data: bytes, *, expires_at: datetime | None = None) -> int:
        """Go on from it."""
        version = self._version(key) or self._last.get(key, 0)
        return self._write(key, data, version + 1, expires_at)


@breaks("of_many_deletes_exactly_one_finds_the_record")
class LooksThenDeletes(MemoryBackend):
    """Deletes in two steps."""

    async def delete(self, key: str) -> bool:
        """Lose the race on purpose."""
        was_there = self._version(key) > 0
        await asyncio.sleep(0)
        await super().delete(key)
        return was_there


@breaks("a_large_record_survives")
class CutsData(Rewrites):
    """Has a column of 64 KiB, and says nothing."""

    def rewritten(self, data: bytes) -> bytes:
        """Cut."""
        return data[: 2**16]


@breaks("a_record_over_the_limit_is_refused")
class HasNoLimit(MemoryBackend):
    """Names a limit, and takes whatever comes."""

    def _write(self, key: str, data: bytes, version: int, expires_at: datetime | None) -> int:
        return super()._write(key, data[:10], version, expires_at)


@breaks("a_refused_large_record_changes_nothing")
class RefusesTooLate(MemoryBackend):
    """Looks at the size when half of it is written."""

    def _write(self, key: str, data: bytes, version: int, expires_at: datetime | None) -> int:
        limit = self.capabilities.max_record_bytes
        super()._write(key, data[:limit], version, expires_at)
        if len(data) > limit:
            raise RecordTooLargeError(key, len(data), limit)
        return version


# --- compare-and-swap ----------------------------------------------------------------------------


@breaks("a_swap_from_0_creates")
class NeverCreates(MemoryBackend):
    """Has an UPDATE and no INSERT."""

    async def put_if_version(
        self, key: str, data: bytes, expected_version: int, *, expires_at: datetime | None = None
    ) -> int:
        """Refuse what is not there."""
        if expected_version == 0:
            raise VersionConflictError(key, 0, 0)
        return await super().put_if_version(key, data, expected_version, expires_at=expires_at)


@breaks("a_swap_from_0_never_replaces")
class TakesZeroForAny(MemoryBackend):
    """Compares nothing when it is given 0."""

    async def put_if_version(
        self, key: str, data: bytes, expected_version: int, *, expires_at: datetime | None = None
    ) -> int:
        """Overwrite."""
        if expected_version == 0:
            return await self.put(key, data, expires_at=expires_at)
        return await super().put_if_version(key, data, expected_version, expires_at=expires_at)


@breaks("a_swap_at_the_current_version_writes")
class ReturnsTheOldVersion(MemoryBackend):
    """Returns what it compared with."""

    async def put_if_version(
        self, key: str, data: bytes, expected_version: int, *, expires_at: datetime | None = None
    ) -> int:
        """Be one behind."""
        await super().put_if_version(key, data, expected_version, expires_at=expires_at)
        return max(expected_version, 1)


@breaks("a_swap_from_an_old_version_is_refused")
class AcceptsOlder(MemoryBackend):
    """Writes `<=` for `=`."""

    async def put_if_version(
        self, key: str, data: bytes, expected_version: int, *, expires_at: datetime | None = None
    ) -> int:
        """Accept a late writer."""
        expected = max(expected_version, self._version(key)) if expected_version else 0
        return await super().put_if_version(key, data, expected, expires_at=expires_at)


@breaks("a_swap_from_a_version_yet_to_come_is_refused")
class AcceptsNewer(MemoryBackend):
    """Writes `>=` for `=`."""

    async def put_if_version(
        self, key: str, data: bytes, expected_version: int, *, expires_at: datetime | None = None
    ) -> int:
        """Accept an early writer."""
        expected = min(expected_version, self._version(key))
        return await super().put_if_version(key, data, expected, expires_at=expires_at)


class WordsConflicts(MemoryBackend):
    """Words a conflict in its own way."""

    def conflict(self, key: str, expected: int, actual: int) -> Exception:
        """Return what is raised instead."""
        return VersionConflictError(key, expected, actual)

    async def put_if_version(
        self, key: str, data: bytes, expected_version: int, *, expires_at: datetime | None = None
    ) -> int:
        """Raise something else."""
        try:
            return await super().put_if_version(key, data, expected_version, expires_at=expires_at)
        except VersionConflictError as error:
            raise self.conflict(key, expected_version, error.actual) from None


@breaks("a_conflict_carries_the_true_version")
class GuessesTheVersion(WordsConflicts):
    """Saves the read that would tell."""

    def conflict(self, key: str, expected: int, actual: int) -> Exception:
        """Guess."""
        return VersionConflictError(key, expected, expected + 1 if actual else 0)


@breaks("a_swap_of_what_is_not_there_conflicts_with_0")
class HasAnotherErrorForMissing(WordsConflicts):
    """Answers like some databases do."""

    def conflict(self, key: str, expected: int, actual: int) -> Exception:
        """Say "not found"."""
        return super().conflict(key, expected, actual) if actual else RecordNotFoundError(key)


@breaks("a_swap_after_a_delete_conflicts_with_0")
class RevivesTheDeleted(MemoryBackend):
    """Upserts."""

    async def put_if_version(
        self, key: str, data: bytes, expected_version: int, *, expires_at: datetime | None = None
    ) -> int:
        """Bring it back."""
        expected = expected_version if key in self._entries else 0
        return await super().put_if_version(key, data, expected, expires_at=expires_at)


@breaks("a_refused_swap_changes_nothing")
class WritesThenCompares(MemoryBackend):
    """Rolls nothing back."""

    async def put_if_version(
        self, key: str, data: bytes, expected_version: int, *, expires_at: datetime | None = None
    ) -> int:
        """Write first."""
        actual = self._version(key)
        self._write(key, data, actual + 1, expires_at)
        if actual != expected_version:
            raise VersionConflictError(key, expected_version, actual)
        return actual + 1


@breaks("a_refused_swap_creates_nothing")
class MakesRoomFirst(MemoryBackend):
    """Inserts an empty row, so that there is one to update."""

    async def put_if_version(
        self, key: str, data: bytes, expected_version: int, *, expires_at: datetime | None = None
    ) -> int:
        """Insert."""
        if expected_version and key not in self._entries:
            self._write(key, b"", 1, None)
            raise VersionConflictError(key, expected_version, 0)
        return await super().put_if_version(key, data, expected_version, expires_at=expires_at)


@breaks("a_version_can_be_used_once")
class ForgivesTheSame(MemoryBackend):
    """Takes the same data for the same write."""

    async def put_if_version(
        self, key: str, data: bytes, expected_version: int, *, expires_at: datetime | None = None
    ) -> int:
        """Forgive."""
        entry = self._entries.get(key)
        if entry is not None and entry[:2] == (data, expected_version + 1):
            return entry[1]
        return await super().put_if_version(key, data, expected_version, expires_at=expires_at)


@breaks("a_conflict_stays_with_its_caller")
class FailsTheWholeBatch(MemoryBackend):
    """Lets one conflict end the transaction of all."""

    def __init__(self) -> None:
        super().__init__()
        self._conflict: VersionConflictError | None = None

    async def put_if_version(
        self, key: str, data: bytes, expected_version: int, *, expires_at: datetime | None = None
    ) -> int:
        """Pass a conflict on."""
        if self._conflict is not None:
            raise self._conflict
        try:
            return await super().put_if_version(key, data, expected_version, expires_at=expires_at)
        except VersionConflictError as error:
            self._conflict = error
            raise


@breaks("of_many_writers_with_one_version_exactly_one_wins", "no_update_is_lost")
class ReadsThenWrites(MemoryBackend):
    """Compares and writes in two steps, with room for another writer between them."""

    async def put_if_version(
        self, key: str, data: bytes, expected_version: int, *, expires_at: datetime | None = None
    ) -> int:
        """Lose the race on purpose."""
        actual = self._version(key)
        await asyncio.sleep(0)
        if actual != expected_version:
            raise VersionConflictError(key, expected_version, actual)
        return await self.put(key, data, expires_at=expires_at)


@breaks("of_many_creators_exactly_one_wins")
class LooksThenCreates(MemoryBackend):
    """Does so only where nothing is there yet."""

    async def put_if_version(
        self, key: str, data: bytes, expected_version: int, *, expires_at: datetime | None = None
    ) -> int:
        """Lose the race on purpose."""
        if expected_version == 0 and self._version(key) == 0:
            await asyncio.sleep(0)
            return self._write(key, data, 1, expires_at)
        return await super().put_if_version(key, data, expected_version, expires_at=expires_at)


@breaks("writers_of_different_keys_do_not_disturb_one_another")
class LocksTheTable(MemoryBackend):
    """Refuses everybody while one writes."""

    def __init__(self) -> None:
        super().__init__()
        self._busy = False

    async def put_if_version(
        self, key: str, data: bytes, expected_version: int, *, expires_at: datetime | None = None
    ) -> int:
        """Be busy for a turn."""
        if self._busy:
            raise VersionConflictError(key, expected_version, self._version(key))
        self._busy = True
        try:
            version = await super().put_if_version(
                key, data, expected_version, expires_at=expires_at
            )
            await asyncio.sleep(0)
            return version
        finally:
            self._busy = False


@breaks("histories_are_linearizable")
class AsksACopyNowAndThen(MemoryBackend):
    """Every third read is answered by a copy that is one write behind."""

    def __init__(self) -> None:
        super().__init__()
        self._behind: dict[str, StoredRecord] = {}
        self._reads = 0

    def _write(self, key: str, data: bytes, version: int, expires_at: datetime | None) -> int:
        if key in self._entries:
            self._behind[key] = StoredRecord(key, *self._entries[key][:2])
        return super()._write(key, data, version, expires_at)

    async def get(self, key: str) -> StoredRecord:
        """Read here or there."""
        self._reads += 1
        here = await super().get(key)
        return self._behind.get(key, here) if self._reads % 3 == 0 else here

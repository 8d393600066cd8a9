"""Backends that list too much, too little, or in the wrong order."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.kit.registry import breaks

from mcp_tasks.errors import RecordNotFoundError
from mcp_tasks.storage.base import Page, StoredRecord
from mcp_tasks.storage.keys import split_prefix
from mcp_tasks.storage.memory import MemoryBackend


if TYPE_CHECKING:
    from collections.abc import Iterable


class SimpleListing(MemoryBackend):
    """Lists step by step, so that each step can be done wrong. As it stands it is right."""

    async def list_by_prefix(
        self, prefix: str, *, limit: int = 100, after: str | None = None, reverse: bool = False
    ) -> Page:
        """Select, sort, skip, cut."""
        self._check_open()
        self.check(limit)
        split_prefix(prefix)
        keys = self.in_order(self.selected(prefix, after), reverse=reverse)
        keys = [key for key in keys if after is None or self.is_behind(key, after, reverse=reverse)]
        page = keys[:limit]
        return Page([self.shown(key) for key in page], self.next_of(page, keys[limit:]))

    def check(self, limit: int) -> None:
        """Refuse a page of nothing."""
        if limit < 1:
            raise ValueError(limit)

    def is_alive(self, key: str) -> bool:
        """Tell whether it has not expired."""
        return self._version(key) > 0

    def begins(self, key: str, prefix: str, after: str | None) -> bool:
        """Tell whether a key belongs under a prefix."""
        return key.startswith(prefix)

    def selected(self, prefix: str, after: str | None) -> list[str]:
        """Return all keys under a prefix, in the order they were made."""
        return [k for k in self._entries if self.begins(k, prefix, after) and self.is_alive(k)]

    def in_order(self, keys: Iterable[str], *, reverse: bool) -> list[str]:
        """Sort."""
        return sorted(keys, reverse=reverse)

    def is_behind(self, key: str, after: str, *, reverse: bool) -> bool:
        """Tell whether a key comes after a cursor."""
        return key < after if reverse else key > after

    def shown(self, key: str) -> StoredRecord:
        """Return the record as it is listed."""
        return StoredRecord(key, *self._entries[key][:2])

    def next_of(self, page: list[str], rest: list[str]) -> str | None:
        """Return the cursor that a page ends with."""
        return page[-1] if rest else None


# --- which records -------------------------------------------------------------------------------


@breaks("nothing_there_is_an_empty_page")
class WantsSomething(SimpleListing):
    """Thinks that an owner without records is a mistake."""

    def selected(self, prefix: str, after: str | None) -> list[str]:
        """Complain."""
        found = super().selected(prefix, after)
        if not found:
            raise RecordNotFoundError(prefix)
        return found


@breaks("owners_that_look_alike_see_only_their_own")
class ForgetsTheColon(SimpleListing):
    """Takes the owner's name for a prefix."""

    def begins(self, key: str, prefix: str, after: str | None) -> bool:
        """Reach into the owners whose name begins like it."""
        return key.startswith(prefix.rstrip(":"))


@breaks("a_prefix_may_reach_into_the_sort")
class KnowsOnlyPartitions(SimpleListing):
    """Lists a whole partition or nothing."""

    def begins(self, key: str, prefix: str, after: str | None) -> bool:
        """Compare the partition alone."""
        return key.partition(":")[0] == prefix.partition(":")[0]


@breaks("a_whole_key_is_a_prefix_of_itself")
class WantsMoreThanThePrefix(SimpleListing):
    """Writes `>` for `>=`."""

    def begins(self, key: str, prefix: str, after: str | None) -> bool:
        """Leave the key itself out."""
        return key.startswith(prefix) and key != prefix


@breaks("a_prefix_is_not_a_pattern")
class ListsLike(SimpleListing):
    """Uses LIKE."""

    def begins(self, key: str, prefix: str, after: str | None) -> bool:
        """Take `%` and `_` for wildcards."""
        pattern = re.escape(prefix).replace("%", ".*").replace("_", ".")
        return re.match(pattern, key) is not None


@breaks("the_case_of_a_prefix_counts")
class ListsInAnyCase(SimpleListing):
    """Uses LIKE as SQLite has it."""

    def begins(self, key: str, prefix: str, after: str | None) -> bool:
        """Fold."""
        return key.lower().startswith(prefix.lower())


@breaks("records_are_listed_whole")
class ListsKeysAlone(SimpleListing):
    """Saves the data."""

    def shown(self, key: str) -> StoredRecord:
        """Leave it out."""
        return super().shown(key)._replace(data=b"")


# --- in which order ------------------------------------------------------------------------------


@breaks("records_come_in_the_order_of_their_keys")
class ListsAsWritten(SimpleListing):
    """Has no order but that of its table."""

    def in_order(self, keys: Iterable[str], *, reverse: bool) -> list[str]:
        """Leave it at that."""
        return list(keys)[:: -1 if reverse else 1]


@breaks("order_is_by_byte")
class ListsAsADictionaryDoes(SimpleListing):
    """Has the collation of its country."""

    def in_order(self, keys: Iterable[str], *, reverse: bool) -> list[str]:
        """Mix upper and lower case."""
        return sorted(keys, key=lambda key: (key.lower(), key), reverse=reverse)


@breaks("reverse_is_the_same_list_from_the_end")
class IgnoresReverse(SimpleListing):
    """Knows one direction."""

    def in_order(self, keys: Iterable[str], *, reverse: bool) -> list[str]:
        """Sort up."""
        return sorted(keys)


@breaks("reverse_begins_with_the_last")
class ReversesThePage(MemoryBackend):
    """Takes the first page, and turns it round."""

    async def list_by_prefix(
        self, prefix: str, *, limit: int = 100, after: str | None = None, reverse: bool = False
    ) -> Page:
        """Turn too late."""
        page = await super().list_by_prefix(prefix, limit=limit, after=after)
        return Page(page.records[:: -1 if reverse else 1], page.next)


# --- page by page --------------------------------------------------------------------------------


@breaks("a_page_holds_no_more_than_its_limit")
class IgnoresTheLimit(MemoryBackend):
    """Returns everything."""

    async def list_by_prefix(
        self, prefix: str, *, limit: int = 100, after: str | None = None, reverse: bool = False
    ) -> Page:
        """Ask for more."""
        return await super().list_by_prefix(prefix, limit=10**6, after=after, reverse=reverse)


@breaks("a_page_holds_100_records_unless_told")
class HasALargerPage(MemoryBackend):
    """Has another default."""

    async def list_by_prefix(
        self, prefix: str, *, limit: int = 1000, after: str | None = None, reverse: bool = False
    ) -> Page:
        """Return more."""
        return await super().list_by_prefix(prefix, limit=limit, after=after, reverse=reverse)


@breaks("the_last_page_has_no_next")
class AlwaysGoesOn(SimpleListing):
    """Finds out on the next page that there was none."""

    def next_of(self, page: list[str], rest: list[str]) -> str | None:
        """Name the last key."""
        return page[-1] if page else None


@breaks("pages_hold_every_record_once")
class NamesTheNextKey(SimpleListing):
    """Returns the first key of the next page, which `after` then leaves out."""

    def next_of(self, page: list[str], rest: list[str]) -> str | None:
        """Be one too far."""
        return rest[0] if rest else None


@breaks("many_pages_stay_in_their_partition")
class GoesOnForEver(SimpleListing):
    """Has only a lower bound from the second page on."""

    def begins(self, key: str, prefix: str, after: str | None) -> bool:
        """Run into the next owner."""
        return key.startswith(prefix) or after is not None


@breaks("pages_stay_within_a_longer_prefix")
class ForgetsTheSort(SimpleListing):
    """Goes on in the partition from the second page on."""

    def begins(self, key: str, prefix: str, after: str | None) -> bool:
        """Compare the partition alone."""
        return key.startswith(prefix if after is None else prefix.partition(":")[0] + ":")


@breaks("after_leaves_its_own_key_out")
class ShowsAfterAgain(SimpleListing):
    """Writes `>=` for `>`."""

    def is_behind(self, key: str, after: str, *, reverse: bool) -> bool:
        """Include it."""
        return key == after or super().is_behind(key, after, reverse=reverse)


@breaks("after_need_not_exist")
class WantsToKnowAfter(SimpleListing):
    """Begins anew when it does not know the cursor."""

    def is_behind(self, key: str, after: str, *, reverse: bool) -> bool:
        """Look for it."""
        return after not in self._entries or super().is_behind(key, after, reverse=reverse)


@breaks("after_outside_of_the_prefix_does_not_widen_it")
class BeginsAtAfter(SimpleListing):
    """Lets the cursor say where the range begins."""

    def begins(self, key: str, prefix: str, after: str | None) -> bool:
        """Take what lies between the cursor and the prefix too."""
        return key.startswith(prefix) or (after is not None and after < key < prefix)


@breaks("after_in_reverse_means_before")
class GoesUpInReverse(SimpleListing):
    """Skips in one direction only."""

    def is_behind(self, key: str, after: str, *, reverse: bool) -> bool:
        """Skip what is below."""
        return key > after


@breaks("deleting_what_was_listed_skips_nothing")
class CountsRecords(SimpleListing):
    """Has offsets for cursors."""

    def __init__(self) -> None:
        super().__init__()
        self._offset = 0

    async def list_by_prefix(
        self, prefix: str, *, limit: int = 100, after: str | None = None, reverse: bool = False
    ) -> Page:
        """Skip as many as were shown."""
        skip = self._offset if after is not None else 0
        keys = self.in_order(self.selected(prefix, None), reverse=reverse)[skip:]
        self._offset = skip + limit
        return Page([self.shown(key) for key in keys[:limit]], self.next_of(keys, keys[limit:]))


@breaks("a_page_of_nothing_is_refused")
class GivesAPageOfNothing(SimpleListing):
    """Does what it is asked."""

    def check(self, limit: int) -> None:
        """Take any."""

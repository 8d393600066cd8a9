"""Listing: one owner's records and nobody else's, in order, page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mcp_tasks.storage.base import StoredRecord
from mcp_tasks.storage.keys import Keys


if TYPE_CHECKING:
    from mcp_tasks.storage.base import StorageBackend


class ListingRules:
    """Rules about list_by_prefix."""

    async def test_nothing_there_is_an_empty_page(self, backend: StorageBackend) -> None:
        """An owner without tasks is no error."""
        await backend.put("bob:t1", b"one")

        page = await backend.list_by_prefix("ada:")

        assert (list(page.records), page.next) == ([], None)

    async def test_records_come_in_the_order_of_their_keys(self, backend: StorageBackend) -> None:
        """Whatever the order they were written or changed in."""
        for sort in ("c", "a", "d", "b"):
            await backend.put(f"ada:{sort}", b"x")
        await backend.put("ada:a", b"again")

        assert await _sorts(backend, "ada:") == ["a", "b", "c", "d"]

    async def test_order_is_by_byte(self, backend: StorageBackend) -> None:
        """Not by the rules of a language, which would mix upper and lower case."""
        sorts = ["b", "B", "a-", "a.", "a0", "aA", "a_", "aa", "a~", "A", "10", "9", "~x", "-x"]
        for sort in sorts:
            await backend.put(f"ada:{sort}", b"x")

        assert await _sorts(backend, "ada:") == sorted(sorts)

    async def test_records_are_listed_whole(self, backend: StorageBackend) -> None:
        """With data and version as `get` returns them."""
        await backend.put("ada:t1", b"\x00one")
        await backend.put("ada:t1", b"\x00two")
        await backend.put("ada:t2", b"")

        page = await backend.list_by_prefix("ada:")

        assert list(page.records) == [
            StoredRecord("ada:t1", b"\x00two", 2),
            StoredRecord("ada:t2", b"", 1),
        ]

    async def test_owners_that_look_alike_see_only_their_own(self, backend: StorageBackend) -> None:
        """No name reaches into another's partition, whatever it begins with."""
        keys = Keys()
        owners = ["ada", "ad", "ada2", "adaa", "Ada", "ada ", "ada.", "ada%", "ada_", "ada*", "ad_"]
        owners += ["ada:t1", "ada/x", "/ada", "@ada", "~ada", "%61da", "ada\x00", "äda", "[a]da"]
        for owner in owners:
            await backend.put(keys.task(owner, "t1"), owner.encode())

        for owner in owners:
            page = await backend.list_by_prefix(keys.tasks(owner))
            assert [record.data for record in page.records] == [owner.encode()]

    async def test_a_prefix_may_reach_into_the_sort(self, backend: StorageBackend) -> None:
        """The chunks of one task's payload, for example."""
        for sort in ("t1", "t1.a.0", "t1.a.1", "t1.b.0", "t10.a.0", "t2"):
            await backend.put(f"ada:{sort}", b"x")
        await backend.put("bob:t1.a.0", b"x")

        assert await _sorts(backend, "ada:t1.") == ["t1.a.0", "t1.a.1", "t1.b.0"]
        assert await _sorts(backend, "ada:t1.a.") == ["t1.a.0", "t1.a.1"]
        assert await _sorts(backend, "ada:t3") == []

    async def test_a_whole_key_is_a_prefix_of_itself(self, backend: StorageBackend) -> None:
        """Beginning with it includes being it."""
        for sort in ("t", "t1", "t10", "t2"):
            await backend.put(f"ada:{sort}", b"x")

        assert await _sorts(backend, "ada:t1") == ["t1", "t10"]

    async def test_a_prefix_is_not_a_pattern(self, backend: StorageBackend) -> None:
        """Encoded keys hold `%` and `_`, which databases like to take for wildcards."""
        for sort in ("a_1", "ab1", "a%1", "a%251", "axx1", "a*1", "a?1", "[a]1"):
            await backend.put(f"ada:{sort}", b"x")

        assert await _sorts(backend, "ada:a_") == ["a_1"]
        assert await _sorts(backend, "ada:a%") == ["a%1", "a%251"]
        assert await _sorts(backend, "ada:a*") == ["a*1"]
        assert await _sorts(backend, "ada:a?") == ["a?1"]
        assert await _sorts(backend, "ada:[a]") == ["[a]1"]

    async def test_a_page_of_nothing_is_refused(self, backend: StorageBackend) -> None:
        """Whoever pages by it would never come to an end."""
        await backend.put("ada:t1", b"one")

        for limit in (0, -1):
            with pytest.raises(ValueError, match=str(limit)):
                await backend.list_by_prefix("ada:", limit=limit)

    async def test_the_case_of_a_prefix_counts(self, backend: StorageBackend) -> None:
        """As it does in keys."""
        for key in ("ada:T1", "ada:t1", "Ada:t1"):
            await backend.put(key, b"x")

        assert await _sorts(backend, "ada:t") == ["t1"]
        assert await _sorts(backend, "Ada:") == ["t1"]

    async def test_a_page_holds_no_more_than_its_limit(self, backend: StorageBackend) -> None:
        """And says where the next one begins."""
        await _fill(backend, 5)

        page = await backend.list_by_prefix("ada:", limit=2)

        assert [record.key for record in page.records] == ["ada:t000", "ada:t001"]
        assert page.next is not None

    async def test_a_page_holds_100_records_unless_told(self, backend: StorageBackend) -> None:
        """No caller fetches everything by leaving a word out."""
        await _fill(backend, 101)

        page = await backend.list_by_prefix("ada:")

        assert len(page.records) == 100
        assert page.next is not None

    async def test_the_last_page_has_no_next(self, backend: StorageBackend) -> None:
        """Also where it is exactly full."""
        await _fill(backend, 4)

        for limit in (4, 5, 100):
            page = await backend.list_by_prefix("ada:", limit=limit)
            assert (len(page.records), page.next) == (4, None)

    async def test_pages_hold_every_record_once(self, backend: StorageBackend) -> None:
        """Whatever the size of a page."""
        keys = await _fill(backend, 7)

        for limit in (1, 2, 3, 6, 7, 8):
            assert await _walk(backend, "ada:", limit=limit) == keys
            assert await _walk(backend, "ada:", limit=limit, reverse=True) == keys[::-1]

    async def test_many_pages_stay_in_their_partition(self, backend: StorageBackend) -> None:
        """The last page of one owner does not run into the next owner."""
        keys = await _fill(backend, 5)
        for other in ("ad:t001", "ada.:t001", "ada0:t001", "adb:t001"):
            await backend.put(other, b"x")

        assert await _walk(backend, "ada:", limit=2) == keys
        assert await _walk(backend, "ada:", limit=2, reverse=True) == keys[::-1]

    async def test_pages_stay_within_a_longer_prefix(self, backend: StorageBackend) -> None:
        """Forwards and backwards."""
        for sort in ("a9", "b0", "b1", "b2", "b3", "b4", "c0"):
            await backend.put(f"ada:{sort}", b"x")
        inside = [f"ada:b{number}" for number in range(5)]

        assert await _walk(backend, "ada:b", limit=2) == inside
        assert await _walk(backend, "ada:b", limit=2, reverse=True) == inside[::-1]

    async def test_after_leaves_its_own_key_out(self, backend: StorageBackend) -> None:
        """Whoever has seen a record does not see it again."""
        await _fill(backend, 4)

        assert await _sorts(backend, "ada:", after="ada:t001") == ["t002", "t003"]
        assert await _sorts(backend, "ada:", after="ada:t003") == []

    async def test_after_need_not_exist(self, backend: StorageBackend) -> None:
        """The record that a page ended with may have been deleted since."""
        await _fill(backend, 4)
        await backend.delete("ada:t001")

        assert await _sorts(backend, "ada:", after="ada:t001") == ["t002", "t003"]
        assert await _sorts(backend, "ada:", after="ada:t0015") == ["t002", "t003"]
        assert await _sorts(backend, "ada:", after="ada:a") == ["t000", "t002", "t003"]
        assert await _sorts(backend, "ada:", after="ada:z") == []

    async def test_after_outside_of_the_prefix_does_not_widen_it(
        self, backend: StorageBackend
    ) -> None:
        """A made-up cursor reaches nothing that the prefix does not."""
        await _fill(backend, 3)
        await backend.put("ad:t000", b"x")
        await backend.put("bob:t000", b"x")

        assert await _sorts(backend, "ada:", after="ad:a") == ["t000", "t001", "t002"]
        assert await _sorts(backend, "ada:", after="bob:t000") == []
        assert await _sorts(backend, "ada:", after="bob:t000", reverse=True) == [
            "t002",
            "t001",
            "t000",
        ]
        assert await _sorts(backend, "ada:", after="ad:a", reverse=True) == []

    async def test_reverse_is_the_same_list_from_the_end(self, backend: StorageBackend) -> None:
        """The newest task first."""
        keys = await _fill(backend, 5)

        page = await backend.list_by_prefix("ada:", reverse=True)

        assert [record.key for record in page.records] == keys[::-1]
        assert page.next is None

    async def test_reverse_begins_with_the_last(self, backend: StorageBackend) -> None:
        """A page of the newest, not the oldest in reverse."""
        await _fill(backend, 5)

        page = await backend.list_by_prefix("ada:", limit=2, reverse=True)

        assert [record.key for record in page.records] == ["ada:t004", "ada:t003"]

    async def test_after_in_reverse_means_before(self, backend: StorageBackend) -> None:
        """Exclusive there too, and it need not exist either."""
        await _fill(backend, 4)

        assert await _sorts(backend, "ada:", after="ada:t002", reverse=True) == ["t001", "t000"]
        assert await _sorts(backend, "ada:", after="ada:t0015", reverse=True) == ["t001", "t000"]
        assert await _sorts(backend, "ada:", after="ada:t000", reverse=True) == []

    async def test_deleting_what_was_listed_skips_nothing(self, backend: StorageBackend) -> None:
        """A clean-up that lists, deletes and lists on meets every record."""
        keys = await _fill(backend, 6)
        seen: list[str] = []
        after: str | None = None
        while True:
            page = await backend.list_by_prefix("ada:", limit=2, after=after)
            for record in page.records:
                seen.append(record.key)
                await backend.delete(record.key)
            after = page.next
            if after is None:
                break

        assert seen == keys
        assert not (await backend.list_by_prefix("ada:")).records


async def _fill(backend: StorageBackend, count: int) -> list[str]:
    keys = [f"ada:t{number:03d}" for number in range(count)]
    for key in keys:
        await backend.put(key, b"x")
    return keys


async def _sorts(
    backend: StorageBackend, prefix: str, *, after: str | None = None, reverse: bool = False
) -> list[str]:
    page = await backend.list_by_prefix(prefix, after=after, reverse=reverse)
    return [record.key.partition(":")[2] for record in page.records]


async def _walk(
    backend: StorageBackend, prefix: str, *, limit: int, reverse: bool = False
) -> list[str]:
    """Return the keys of all pages, one after the other."""
    keys: list[str] = []
    after: str | None = None
    for _ in range(20):
        page = await backend.list_by_prefix(prefix, limit=limit, after=after, reverse=reverse)
        assert len(page.records) <= limit
        keys += [record.key for record in page.records]
        after = page.next
        if after is None:
            return keys
    message = f"the pages never end: {keys}"
    raise AssertionError(message)

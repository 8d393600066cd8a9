"""Expiry: a record past its time does not exist, whether or not it was removed yet.

No test waits for time to pass, but one, and that for milliseconds: the others write records that
have expired before they are written.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

from mcp_tasks.clock import SystemClock
from mcp_tasks.errors import RecordNotFoundError, VersionConflictError
from mcp_tasks.storage.base import StoredRecord


if TYPE_CHECKING:
    from mcp_tasks.storage.base import StorageBackend


LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)
FAR_AHEAD = datetime(2200, 1, 1, tzinfo=UTC)


class ExpiryRules:
    """Rules about `expires_at` and clean-up."""

    async def test_an_expired_record_is_not_found(self, backend: StorageBackend) -> None:
        """Written by put or by a swap."""
        await backend.put("ada:t1", b"one", expires_at=LONG_AGO)
        await backend.put_if_version("ada:t2", b"two", 0, expires_at=LONG_AGO)

        for key in ("ada:t1", "ada:t2"):
            with pytest.raises(RecordNotFoundError):
                await backend.get(key)

    async def test_an_expired_record_is_not_listed(self, backend: StorageBackend) -> None:
        """In either direction."""
        await backend.put("ada:t1", b"one")
        await backend.put("ada:t2", b"two", expires_at=LONG_AGO)
        await backend.put("ada:t3", b"three")

        for reverse in (False, True):
            page = await backend.list_by_prefix("ada:", reverse=reverse)
            assert sorted(record.key for record in page.records) == ["ada:t1", "ada:t3"]
            assert page.next is None

    async def test_expired_records_take_no_place_on_a_page(self, backend: StorageBackend) -> None:
        """A reader that stops at a short page must not stop in the middle."""
        for number in range(12):
            expires_at = None if number % 4 == 3 else LONG_AGO
            await backend.put(f"ada:t{number:02d}", b"x", expires_at=expires_at)

        first = await backend.list_by_prefix("ada:", limit=2)
        rest = await backend.list_by_prefix("ada:", limit=2, after=first.next)

        assert [record.key for record in first.records] == ["ada:t03", "ada:t07"]
        assert [record.key for record in rest.records] == ["ada:t11"]
        assert rest.next is None

    async def test_a_record_with_time_left_is_there(self, backend: StorageBackend) -> None:
        """An expiry ahead changes nothing yet."""
        await backend.put("ada:t1", b"one", expires_at=FAR_AHEAD)
        await backend.put_if_version("ada:t2", b"two", 0, expires_at=FAR_AHEAD)

        assert await backend.get("ada:t1") == StoredRecord("ada:t1", b"one", 1)
        assert len((await backend.list_by_prefix("ada:")).records) == 2
        assert await backend.put_if_version("ada:t2", b"more", 1, expires_at=FAR_AHEAD) == 2
        assert await backend.put("ada:t1", b"more", expires_at=FAR_AHEAD) == 2
        assert await backend.delete("ada:t1") is True

    async def test_a_record_is_gone_from_its_millisecond_on(self, backend: StorageBackend) -> None:
        """Not from the next second, and not once somebody has cleaned up."""
        clock = SystemClock()
        deadline = clock.now() + timedelta(milliseconds=20)
        await backend.put("ada:t1", b"one", expires_at=deadline)
        await asyncio.sleep(0.03)
        assert clock.now() > deadline

        with pytest.raises(RecordNotFoundError):
            await backend.get("ada:t1")
        assert not (await backend.list_by_prefix("ada:")).records

    async def test_the_time_zone_of_an_expiry_counts(self, backend: StorageBackend) -> None:
        """The same moment, however it is written down."""
        now = SystemClock().now()
        east, west = timezone(timedelta(hours=14)), timezone(timedelta(hours=-11))
        hour = timedelta(hours=1)
        await backend.put("ada:past", b"x", expires_at=(now - hour).astimezone(east))
        await backend.put("ada:ahead", b"x", expires_at=(now + hour).astimezone(west))

        assert [r.key for r in (await backend.list_by_prefix("ada:")).records] == ["ada:ahead"]

    async def test_the_end_of_time_is_a_time(self, backend: StorageBackend) -> None:
        """A very long time to live does not overflow into the past."""
        await backend.put("ada:t1", b"one", expires_at=datetime.max.replace(tzinfo=UTC))

        assert (await backend.get("ada:t1")).data == b"one"

    async def test_a_put_over_an_expired_record_starts_at_1(self, backend: StorageBackend) -> None:
        """What does not exist has no version."""
        for _ in range(3):
            await backend.put("ada:t1", b"old", expires_at=FAR_AHEAD)
        await backend.put("ada:t1", b"old", expires_at=LONG_AGO)

        assert await backend.put("ada:t1", b"new") == 1
        assert await backend.get("ada:t1") == StoredRecord("ada:t1", b"new", 1)

    async def test_a_swap_from_0_over_an_expired_record_creates(
        self, backend: StorageBackend
    ) -> None:
        """With version 1, and with the new expiry."""
        await backend.put("ada:t1", b"old")
        await backend.put("ada:t1", b"old", expires_at=LONG_AGO)

        assert await backend.put_if_version("ada:t1", b"new", 0, expires_at=FAR_AHEAD) == 1
        assert await backend.get("ada:t1") == StoredRecord("ada:t1", b"new", 1)

    async def test_a_late_swap_does_not_revive_an_expired_record(
        self, backend: StorageBackend
    ) -> None:
        """It conflicts with 0, as if the record had been deleted."""
        await backend.put("ada:t1", b"old", expires_at=LONG_AGO)

        for late in (1, 2):
            with pytest.raises(VersionConflictError) as caught:
                await backend.put_if_version("ada:t1", b"late", late, expires_at=FAR_AHEAD)
            assert caught.value.actual == 0

        with pytest.raises(RecordNotFoundError):
            await backend.get("ada:t1")

    async def test_deleting_an_expired_record_finds_nothing(self, backend: StorageBackend) -> None:
        """And leaves nothing."""
        await backend.put("ada:t1", b"old", expires_at=LONG_AGO)

        assert await backend.delete("ada:t1") is False
        assert await backend.put_if_version("ada:t1", b"new", 0) == 1

    async def test_a_put_replaces_the_expiry(self, backend: StorageBackend) -> None:
        """By an earlier one, and by none."""
        await backend.put("ada:t1", b"one", expires_at=FAR_AHEAD)
        await backend.put("ada:t1", b"two", expires_at=LONG_AGO)
        await backend.put("ada:t2", b"one", expires_at=FAR_AHEAD)
        await backend.put("ada:t2", b"two")

        with pytest.raises(RecordNotFoundError):
            await backend.get("ada:t1")
        await backend.cleanup_expired(FAR_AHEAD + timedelta(days=1))
        assert await backend.get("ada:t2") == StoredRecord("ada:t2", b"two", 2)

    async def test_a_swap_replaces_the_expiry(self, backend: StorageBackend) -> None:
        """As a put does: whoever writes says how long it lasts."""
        await backend.put("ada:t1", b"one")
        await backend.put_if_version("ada:t1", b"two", 1, expires_at=LONG_AGO)
        await backend.put("ada:t2", b"one", expires_at=FAR_AHEAD)
        await backend.put_if_version("ada:t2", b"two", 1)

        with pytest.raises(RecordNotFoundError):
            await backend.get("ada:t1")
        await backend.cleanup_expired(FAR_AHEAD + timedelta(days=1))
        assert await backend.get("ada:t2") == StoredRecord("ada:t2", b"two", 2)

    async def test_a_refused_swap_does_not_change_the_expiry(self, backend: StorageBackend) -> None:
        """Otherwise a loser could end a winner's record."""
        await backend.put("ada:t1", b"one", expires_at=FAR_AHEAD)

        with pytest.raises(VersionConflictError):
            await backend.put_if_version("ada:t1", b"no", 7, expires_at=LONG_AGO)

        assert await backend.get("ada:t1") == StoredRecord("ada:t1", b"one", 1)

    async def test_a_time_without_a_zone_is_refused(self, backend: StorageBackend) -> None:
        """Nobody can say when that is; and nothing is written meanwhile."""
        somewhere = FAR_AHEAD.replace(tzinfo=None)
        await backend.put("ada:t1", b"one")

        with pytest.raises(TypeError):
            await backend.put("ada:t1", b"two", expires_at=somewhere)
        with pytest.raises(TypeError):
            await backend.put_if_version("ada:t1", b"two", 1, expires_at=somewhere)
        with pytest.raises(TypeError):
            await backend.put_if_version("ada:t2", b"two", 0, expires_at=somewhere)

        assert await backend.get("ada:t1") == StoredRecord("ada:t1", b"one", 1)
        assert len((await backend.list_by_prefix("ada:")).records) == 1

    async def test_cleaning_up_removes_what_has_expired(self, backend: StorageBackend) -> None:
        """And says how many it removed, unless the database does that by itself."""
        for number in range(5):
            await backend.put(f"ada:t{number}", b"x", expires_at=LONG_AGO)

        removed = await backend.cleanup_expired(SystemClock().now())

        if not backend.capabilities.native_expiry:
            assert removed == 5
        assert await backend.cleanup_expired(SystemClock().now()) == 0

    async def test_cleaning_up_leaves_the_rest(self, backend: StorageBackend) -> None:
        """What has time left, and what never expires."""
        await backend.put("ada:gone", b"x", expires_at=LONG_AGO)
        await backend.put("ada:t1", b"one", expires_at=FAR_AHEAD)
        await backend.put("ada:t2", b"two")

        await backend.cleanup_expired(SystemClock().now())

        assert list((await backend.list_by_prefix("ada:")).records) == [
            StoredRecord("ada:t1", b"one", 1),
            StoredRecord("ada:t2", b"two", 1),
        ]

    async def test_cleaning_up_goes_by_the_time_it_is_given(self, backend: StorageBackend) -> None:
        """One that lies before an expiry spares the record."""
        await backend.put("ada:t1", b"x", expires_at=LONG_AGO)

        assert await backend.cleanup_expired(LONG_AGO - timedelta(milliseconds=1)) == 0

    async def test_cleaning_up_removes_many(self, backend: StorageBackend) -> None:
        """More than fit into one step of it."""
        for number in range(450):
            expires_at = FAR_AHEAD if number % 10 == 0 else LONG_AGO
            await backend.put(f"ada:t{number:03d}", b"x", expires_at=expires_at)

        removed = await backend.cleanup_expired(SystemClock().now())

        if not backend.capabilities.native_expiry:
            assert removed == 405
        assert len((await backend.list_by_prefix("ada:")).records) == 45

    async def test_writers_go_on_while_others_clean_up(self, backend: StorageBackend) -> None:
        """And none of what they write is taken for what has expired."""
        for number in range(100):
            await backend.put(f"ada:t{number:02d}", b"old", expires_at=LONG_AGO)

        async with asyncio.timeout(10):
            results = await asyncio.gather(
                backend.cleanup_expired(SystemClock().now()),
                *(backend.put(f"ada:t{number:02d}", b"new") for number in range(0, 100, 2)),
            )

        assert results[1:] == [1] * 50
        listed = (await backend.list_by_prefix("ada:")).records
        assert [record.data for record in listed] == [b"new"] * 50

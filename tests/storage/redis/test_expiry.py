"""Records that expire: to the millisecond, by the server's clock, and out of the indexes too."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from mcp_tasks.clock import SystemClock, epoch_ms


if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.storage.redis.witness import Witness

    from mcp_tasks.storage.redis import RedisBackend, RedisOptions
    from mcp_tasks.storage.redis.driver import Connection


LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)
FAR_AHEAD = datetime(2200, 1, 1, tzinfo=UTC)


async def test_a_record_is_there_until_its_millisecond(
    backend: RedisBackend, options: RedisOptions, wire: Connection
) -> None:
    """Not in it, by the server's own clock, for a read and for a listing."""
    expires_at = SystemClock().now() + timedelta(milliseconds=150)
    await backend.put("ada:t1", b"x", expires_at=expires_at)
    end = epoch_ms(expires_at)
    record = f"{options.prefix}:{{ada}}:r:t1"
    look = [("TIME",), ("EXISTS", record), ("TIME",)]
    there = gone = 0
    async with asyncio.timeout(5):
        while gone < 20:
            before, found, after = await wire.ask(look)
            if found:
                assert _ms(before) < end
                there += 1
            else:
                assert _ms(after) >= end
                gone += 1

    assert there > 20
    assert (await backend.list_by_prefix("ada:")).records == []


async def test_the_clock_of_the_server_decides(backend: RedisBackend) -> None:
    """A client whose clock is ahead takes nothing out of the listings of others."""
    await backend.put("ada:t1", b"x", expires_at=SystemClock().now() + timedelta(hours=1))

    await backend.cleanup_expired(FAR_AHEAD)

    assert len((await backend.list_by_prefix("ada:")).records) == 1
    assert (await backend.get("ada:t1")).version == 1


async def test_the_end_of_the_calendar_is_a_time(backend: RedisBackend) -> None:
    """Also where its UTC is beyond it; and the beginning is one, long past."""
    west = timezone(timedelta(hours=-9))
    for number, hour in enumerate((0, 20)):
        end = datetime(9999, 12, 31, hour, 59, 59, 999999, tzinfo=west)
        await backend.put(f"ada:e{number}", b"x", expires_at=end)
    await backend.put("ada:e9", b"x", expires_at=datetime.min.replace(tzinfo=UTC))

    assert len((await backend.list_by_prefix("ada:e")).records) == 2


async def test_a_time_without_a_zone_is_a_mistake(backend: RedisBackend) -> None:
    """It would mean another moment on every machine."""
    with pytest.raises(TypeError, match="time zone"):
        await backend.put("ada:t1", b"x", expires_at=datetime(2030, 1, 1))  # noqa: DTZ001


async def test_a_listing_removes_the_dead_that_it_meets(
    backend: RedisBackend, wire: Connection, options: RedisOptions, index: Callable[[], Any]
) -> None:
    """However many there are before the first that is alive; none is shown."""
    await _let_die(backend, wire, options, 2500)
    await backend.put("ada:live", b"x")

    page = await backend.list_by_prefix("ada:", limit=10)

    assert [record.key for record in page.records] == ["ada:live"]
    assert page.next is None
    assert await index() == [[b"live"], []]


async def test_a_listing_backwards_removes_them_too(
    backend: RedisBackend, wire: Connection, options: RedisOptions, index: Callable[[], Any]
) -> None:
    """From the other end."""
    await backend.put("ada:alive", b"x")
    await _let_die(backend, wire, options, 2500)

    page = await backend.list_by_prefix("ada:", limit=1, reverse=True)

    assert [record.key for record in page.records] == ["ada:alive"]
    assert page.next is None
    assert await index() == [[b"alive"], []]


async def test_a_listing_of_many_dead_goes_in_steps(
    watched: RedisBackend, wire: Connection, options: RedisOptions, witness: Witness
) -> None:
    """The server does nothing else while a script runs."""
    await _let_die(watched, wire, options, 2500)
    witness.forget()

    assert len((await watched.list_by_prefix("ada:")).records) == 1
    assert witness.exchanges == 3


@pytest.mark.parametrize("last", [True, False])
async def test_a_full_page_says_truly_whether_there_is_more(
    backend: RedisBackend, wire: Connection, options: RedisOptions, *, last: bool
) -> None:
    """However many dead lie between it and the next record, or the end."""
    await backend.put("ada:a", b"x")
    await _let_die(backend, wire, options, 2500)
    if last:
        await backend.put("ada:z", b"x")

    page = await backend.list_by_prefix("ada:", limit=1)

    assert [record.key for record in page.records] == ["ada:a"]
    assert page.next == ("ada:a" if last else None)


async def test_creates_remove_the_dead_faster_than_they_add(
    backend: RedisBackend, index: Callable[[], Any]
) -> None:
    """An owner who only ever creates, and never lists, does not fill the server."""
    for number in range(100):
        await backend.put(f"ada:dead{number:03d}", b"x", expires_at=LONG_AGO)
    for number in range(10):
        await backend.put(f"ada:live{number}", b"x", expires_at=FAR_AHEAD)

    members, deadlines = await index()
    assert members == deadlines == [f"live{number}".encode() for number in range(10)]


async def test_cleaning_up_empties_the_indexes_of_who_never_comes_back(
    backend: RedisBackend, wire: Connection, options: RedisOptions, index: Callable[[], Any]
) -> None:
    """In steps, whatever else lies on the server."""
    await _let_die(backend, wire, options, 1200)
    await asyncio.gather(
        *(backend.put(f"bob:t{number}", b"x") for number in range(10)),
        *(backend.put(f"owner{number}:t", b"x", expires_at=FAR_AHEAD) for number in range(1500)),
    )
    assert len((await index())[0]) == 1200

    assert await backend.cleanup_expired(SystemClock().now()) == 0

    assert await index() == [[], []]
    assert len((await backend.list_by_prefix("bob:")).records) == 10


@pytest.mark.parametrize("older", [0, 50])
@pytest.mark.parametrize("expires_at", [None, FAR_AHEAD])
async def test_a_record_created_anew_is_not_taken_for_the_dead_one(
    backend: RedisBackend,
    wire: Connection,
    options: RedisOptions,
    expires_at: datetime | None,
    older: int,
) -> None:
    """The deadline of the old one may still be noted; it must not end the new one's listing."""
    deadlines = f"{options.prefix}:{{ada}}:x"
    await wire.ask([("ZADD", deadlines, 0, f"d{number}") for number in range(older)])
    await wire.ask([("ZADD", deadlines, 1, "t1")])
    await backend.put("ada:t1", b"new", expires_at=expires_at)

    for number in range(20):
        await backend.put(f"ada:u{number:02d}", b"x")
    await backend.cleanup_expired(SystemClock().now())

    assert len((await backend.list_by_prefix("ada:")).records) == 21


async def test_deleting_leaves_nothing(
    backend: RedisBackend, wire: Connection, options: RedisOptions
) -> None:
    """No key of the partition, also for a record that had expired before."""
    await backend.put("ada:t1", b"x", expires_at=FAR_AHEAD)
    await backend.put("ada:t2", b"x")
    await backend.put("ada:t3", b"x", expires_at=LONG_AGO)
    assert [await backend.delete(f"ada:t{number}") for number in (1, 2, 3)] == [True, True, False]

    assert (await wire.ask([("KEYS", f"{options.prefix}:*")])) == [[]]


async def _let_die(
    backend: RedisBackend, wire: Connection, options: RedisOptions, count: int
) -> None:
    """Leave behind what the expiry of so many records leaves, without waiting for one."""
    names = [f"dead{number:04d}" for number in range(count)]
    await asyncio.gather(
        *(backend.put(f"ada:{name}", b"x", expires_at=FAR_AHEAD) for name in names)
    )
    partition = f"{options.prefix}:{{ada}}"
    await wire.ask([("DEL", f"{partition}:r:{name}") for name in names])
    await wire.ask([("ZADD", f"{partition}:x", "XX", 1, name) for name in names])


def _ms(time: list[bytes]) -> int:
    """Return an answer to TIME in milliseconds."""
    return int(time[0]) * 1000 + int(time[1]) // 1000

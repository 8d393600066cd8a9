"""The Redis backend: the contract, and what is its own."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from tests.storage.redis.witness import Witness

from mcp_tasks.clock import SystemClock, epoch_ms
from mcp_tasks.errors import (
    BackendClosedError,
    ConfigurationError,
    InvalidKeyError,
    RecordNotFoundError,
    RecordTooLargeError,
    VersionConflictError,
)
from mcp_tasks.storage.redis import RedisBackend
from mcp_tasks.storage.redis.backend import MAX_RECORD_BYTES
from mcp_tasks.storage.redis.driver import BROKEN, Connection
from mcp_tasks.storage.redis.options import parse
from mcp_tasks.testing import StorageBackendContract, TaskStoreContract
from mcp_tasks.testing.servers.redis import RedisCluster


if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from mcp_tasks.storage.redis import RedisOptions
    from mcp_tasks.testing.servers.redis import RedisServer


LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)
FAR_AHEAD = datetime(2200, 1, 1, tzinfo=UTC)


class TestRedisBackend(StorageBackendContract):
    """The contract over one server."""

    @pytest.fixture
    async def backend(
        self, redis_server: RedisServer, options: RedisOptions
    ) -> AsyncIterator[RedisBackend]:
        """Give an empty backend."""
        backend = RedisBackend(parse(redis_server.url)[0], options)
        yield backend
        await backend.close()


class TestStoreOverRedis(TaskStoreContract):
    """The rules about tasks over one server."""

    @pytest.fixture
    async def backend(
        self, redis_server: RedisServer, options: RedisOptions
    ) -> AsyncIterator[RedisBackend]:
        """Give an empty backend."""
        backend = RedisBackend(parse(redis_server.url)[0], options)
        yield backend
        await backend.close()


class TestRedisCluster(StorageBackendContract):
    """The contract over a cluster of three."""

    @pytest.fixture(scope="class")
    @classmethod
    def cluster(cls) -> Iterator[RedisCluster]:
        """Give a cluster."""
        with RedisCluster() as cluster:
            yield cluster

    @pytest.fixture
    async def backend(
        self, cluster: RedisCluster, options: RedisOptions
    ) -> AsyncIterator[RedisBackend]:
        """Give an empty backend."""
        backend = RedisBackend(parse(cluster.url)[0], options)
        yield backend
        await backend.close()


@pytest.fixture
def index(wire: Connection, options: RedisOptions) -> Callable[[], Any]:
    """Give what reads the two sets of Ada's partition as they are stored."""

    async def read() -> list[list[bytes]]:
        front = f"{options.prefix}:{{ada}}:"
        return await wire.ask([("ZRANGE", f"{front}i", 0, -1), ("ZRANGE", f"{front}x", 0, -1)])

    return read


@pytest.fixture
async def witness(redis_server: RedisServer) -> AsyncIterator[Witness]:
    """Stand between backend and server, and see what goes by."""
    async with Witness("127.0.0.1", redis_server.port) as witness:
        yield witness


@pytest.fixture
async def watched(witness: Witness, options: RedisOptions) -> AsyncIterator[RedisBackend]:
    """Give a connected backend whose wire is watched."""
    backend = RedisBackend.from_url(f"redis://127.0.0.1:{witness.port}?prefix={options.prefix}")
    await backend.put("ada:t0", b"x")
    witness.forget()
    yield backend
    await backend.close()


# --- one connection ------------------------------------------------------------------------------


async def test_calls_of_one_turn_go_out_together(watched: RedisBackend, witness: Witness) -> None:
    """However many callers there are, of whatever kind, and also those of tasks started then."""
    async with asyncio.TaskGroup() as tasks:
        for number in range(1, 20):
            tasks.create_task(watched.put(f"ada:t{number}", b"x"))
            tasks.create_task(watched.put_if_version(f"ada:u{number}", b"x", 0))
            tasks.create_task(watched.delete(f"ada:v{number}"))
            tasks.create_task(watched.list_by_prefix(f"ada:w{number}"))
        assert (await watched.get("ada:t0")).version == 1

    assert witness.exchanges == 1
    assert witness.connections == 1


async def test_callers_who_come_at_different_times_find_together(
    watched: RedisBackend, witness: Witness
) -> None:
    """Those who were just answered go out with those who waited: fewer flushes for the server."""

    async def write(owner: int) -> None:
        for _ in range(20):
            await watched.put(f"{owner}:t1", b"x")

    async with asyncio.TaskGroup() as tasks:
        for owner in range(16):
            if owner == 8:
                async with asyncio.timeout(5):
                    await witness.request_seen()
            tasks.create_task(write(owner))

    assert witness.exchanges <= 25


async def test_a_call_is_one_round_trip(watched: RedisBackend, witness: Witness) -> None:
    """Those that are refused too: the version in the way comes back with the refusal."""
    await watched.put("ada:t0", b"x")
    await watched.get("ada:t0")
    for expected, actual in ((0, 2), (1, 2), (3, 2)):
        with pytest.raises(VersionConflictError) as caught:
            await watched.put_if_version("ada:t0", b"y", expected)
        assert caught.value.actual == actual
    await watched.put_if_version("ada:t0", b"y", 2, expires_at=FAR_AHEAD)
    await watched.list_by_prefix("ada:")
    await watched.delete("ada:t0")

    assert witness.exchanges == 8


async def test_writers_of_one_record_go_one_after_the_other(backend: RedisBackend) -> None:
    """Each sees what the one before it left, in the order in which they came."""
    outcomes = await asyncio.gather(
        backend.put_if_version("ada:t0", b"a", 0),
        backend.put_if_version("ada:t0", b"b", 1),
        backend.put_if_version("ada:t0", b"c", 1),
        backend.put_if_version("ada:t0", b"d", 2),
        return_exceptions=True,
    )

    assert [outcomes[0], outcomes[1], outcomes[3]] == [1, 2, 3]
    assert isinstance(outcomes[2], VersionConflictError)
    assert outcomes[2].actual == 2
    assert (await backend.get("ada:t0")).data == b"d"


async def test_many_and_large_calls_are_several_batches(
    watched: RedisBackend, witness: Witness
) -> None:
    """None grows without limit, so that no caller waits long for the others of its batch."""
    versions = await asyncio.gather(
        *(watched.put(f"ada:t{number:04d}", b"x") for number in range(1, 1001)),
    )
    assert versions == [1] * 1000
    assert witness.exchanges == 4

    await asyncio.gather(*(watched.put(f"ada:large{n}", bytes(2**20)) for n in range(9)))
    assert len((await watched.get("ada:large8")).data) == 2**20
    assert 4 + 3 + 1 <= witness.exchanges <= 20


async def test_the_largest_record_is_taken_and_one_byte_more_is_not(backend: RedisBackend) -> None:
    """Before anything is sent."""
    assert await backend.put("ada:t1", bytes(MAX_RECORD_BYTES)) == 1
    with pytest.raises(RecordTooLargeError, match="nothing was written"):
        await backend.put("ada:t1", bytes(MAX_RECORD_BYTES + 1))

    assert len((await backend.get("ada:t1")).data) == MAX_RECORD_BYTES
    await backend.delete("ada:t1")


async def test_a_cancelled_caller_may_write_and_leaves_no_trace(
    watched: RedisBackend, witness: Witness, wire: Connection
) -> None:
    """Before it was sent, it never is; after, it happens as a whole; nobody gets its answer."""
    before = asyncio.create_task(watched.put("ada:t1", b"x"))
    await asyncio.sleep(0)
    before.cancel()
    assert await watched.put("ada:t1", b"y") == 1

    await wire.ask([("CLIENT", "PAUSE", 200)])
    witness.forget()
    after = asyncio.create_task(watched.put("ada:t2", b"x"))
    async with asyncio.timeout(5):
        await witness.request_seen()
    after.cancel()
    await asyncio.wait([after])
    assert after.cancelled()
    assert (await watched.get("ada:t1")).key == "ada:t1"
    assert (await watched.get("ada:t2")).data == b"x"
    assert witness.connections == 1


async def test_scripts_that_the_server_forgot_are_loaded_again(
    backend: RedisBackend, wire: Connection
) -> None:
    """A failover to a server that never had them, or somebody's SCRIPT FLUSH."""
    await backend.put("ada:t1", b"x")
    await wire.ask([("SCRIPT", "FLUSH")])

    assert await asyncio.gather(*(backend.put("ada:t1", b"y") for _ in range(20))) == [
        *range(2, 22)
    ]


async def test_versions_stay_whole_numbers(
    backend: RedisBackend, options: RedisOptions, wire: Connection
) -> None:
    """Where a script that writes them as it pleases would say 1e+14."""
    large = 10**15 + 7
    await backend.put("ada:t1", b"x")
    await wire.ask([("HSET", f"{options.prefix}:{{ada}}:r:t1", "version", large)])

    assert (await backend.get("ada:t1")).version == large
    assert await backend.put_if_version("ada:t1", b"y", large) == large + 1
    assert await backend.put("ada:t1", b"y") == large + 2
    with pytest.raises(VersionConflictError) as caught:
        await backend.put_if_version("ada:t1", b"y", large)
    assert caught.value.actual == large + 2


# --- expiry --------------------------------------------------------------------------------------


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
    backend: RedisBackend, index: Callable[[], Any]
) -> None:
    """However many there are before the first that is alive; none is shown."""
    await asyncio.gather(
        *(backend.put(f"ada:dead{number:04d}", b"x", expires_at=_soon()) for number in range(2500))
    )
    await backend.put("ada:live", b"x")
    await asyncio.sleep(0.4)

    page = await backend.list_by_prefix("ada:", limit=10)

    assert [record.key for record in page.records] == ["ada:live"]
    assert page.next is None
    assert await index() == [[b"live"], []]


async def test_a_listing_backwards_removes_them_too(
    backend: RedisBackend, index: Callable[[], Any]
) -> None:
    """From the other end."""
    await backend.put("ada:alive", b"x")
    await asyncio.gather(
        *(backend.put(f"ada:dead{number:04d}", b"x", expires_at=_soon()) for number in range(2500))
    )
    await asyncio.sleep(0.4)

    page = await backend.list_by_prefix("ada:", limit=1, reverse=True)

    assert [record.key for record in page.records] == ["ada:alive"]
    assert page.next is None
    assert await index() == [[b"alive"], []]


async def test_a_listing_of_many_dead_goes_in_steps(
    watched: RedisBackend, witness: Witness
) -> None:
    """The server does nothing else while a script runs."""
    await asyncio.gather(
        *(watched.put(f"ada:dead{number:04d}", b"x", expires_at=_soon()) for number in range(2500))
    )
    await asyncio.sleep(0.4)
    witness.forget()

    assert len((await watched.list_by_prefix("ada:")).records) == 1
    assert witness.exchanges == 3


@pytest.mark.parametrize("last", [True, False])
async def test_a_full_page_says_truly_whether_there_is_more(
    backend: RedisBackend, *, last: bool
) -> None:
    """However many dead lie between it and the next record, or the end."""
    await backend.put("ada:a", b"x")
    await asyncio.gather(
        *(backend.put(f"ada:dead{number:04d}", b"x", expires_at=_soon()) for number in range(2500))
    )
    if last:
        await backend.put("ada:z", b"x")
    await asyncio.sleep(0.4)

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
    backend: RedisBackend, index: Callable[[], Any]
) -> None:
    """In steps, whatever else lies on the server."""
    await asyncio.gather(
        *(backend.put(f"ada:t{number:04d}", b"x", expires_at=_soon()) for number in range(1200)),
        *(backend.put(f"bob:t{number}", b"x") for number in range(10)),
        *(backend.put(f"owner{number}:t", b"x", expires_at=FAR_AHEAD) for number in range(1500)),
    )
    await asyncio.sleep(0.4)
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


# --- names ---------------------------------------------------------------------------------------


async def test_two_prefixes_share_a_server_and_nothing_else(
    redis_server: RedisServer, backend: RedisBackend, options: RedisOptions, wire: Connection
) -> None:
    """Not even the clean-up, whatever letters the prefix has."""
    strange = replace(options, prefix="[t]est-*")
    other = RedisBackend(parse(redis_server.url)[0], strange)
    for each in (backend, other):
        await each.put("ada:t1", repr(each).encode(), expires_at=_soon())
        await each.put("ada:t2", repr(each).encode())
    await asyncio.sleep(0.4)
    await other.cleanup_expired(FAR_AHEAD)

    noted = [("ZCARD", f"{prefix}:{{ada}}:x") for prefix in (options.prefix, strange.prefix)]
    assert await wire.ask(noted) == [1, 0]
    for each in (backend, other):
        assert (await each.get("ada:t2")).data == repr(each).encode()
        assert len((await each.list_by_prefix("ada:")).records) == 1
    await other.delete("ada:t2")
    await other.close()


@pytest.mark.parametrize(
    ("one", "other"), [("a}", "a%7D"), ("a}b", "a}c"), ("a{", "a"), ("}", "%")]
)
async def test_partitions_stay_apart_whatever_they_are_called(
    backend: RedisBackend, one: str, other: str
) -> None:
    """Braces mean something to a cluster, and nothing to a caller."""
    await backend.put(f"{one}:t1", b"one")
    await backend.put(f"{other}:t2", b"other")

    assert [record.key for record in (await backend.list_by_prefix(f"{one}:")).records] == [
        f"{one}:t1"
    ]
    assert (await backend.get(f"{other}:t2")).data == b"other"


async def test_what_is_no_text_is_no_key(backend: RedisBackend) -> None:
    """It is refused before it reaches a batch."""
    key = "ada:\ud800"
    calls: list[Any] = [
        backend.get(key),
        backend.put(key, b"x"),
        backend.put_if_version(key, b"x", 0),
        backend.delete(key),
        backend.list_by_prefix(key),
        backend.list_by_prefix("ada:", after=key),
    ]
    for call in calls:
        with pytest.raises(InvalidKeyError):
            await call


# --- loops, closing ------------------------------------------------------------------------------


def test_several_loops_may_use_it_one_after_the_other(
    redis_server: RedisServer, options: RedisOptions
) -> None:
    """As tests do, and scripts that call `asyncio.run` twice; nothing is left open."""
    backend = RedisBackend(parse(redis_server.url)[0], options)

    assert [asyncio.run(backend.put("ada:t1", b"x")) for _ in range(3)] == [1, 2, 3]
    assert asyncio.run(backend.get("ada:t1")).version == 3
    asyncio.run(backend.close())
    gc.collect()


def test_a_loop_that_ends_in_mid_write_leaves_no_trace(
    redis_server: RedisServer, options: RedisOptions
) -> None:
    """The next loop finds the record whole, and nothing is left open."""
    backend = RedisBackend(parse(redis_server.url)[0], options)

    async def leave(turns: int) -> None:
        with pytest.raises(RecordNotFoundError):
            await backend.get("ada:none")
        task = asyncio.create_task(backend.put("ada:t1", b"x"))
        for _ in range(turns):
            await asyncio.sleep(0)
        # Forgotten on purpose: the end of the loop cancels it.
        del task

    async def look() -> int:
        async with asyncio.timeout(5):
            return await backend.put("ada:t1", b"y")

    version = asyncio.run(backend.put("ada:t1", b"x"))
    for turns in range(8):
        asyncio.run(leave(turns))
        found = asyncio.run(look())
        assert found in (version + 1, version + 2)
        version = found
    asyncio.run(backend.close())
    gc.collect()


async def test_a_forgotten_backend_closes_its_connection(witness: Witness) -> None:
    """Whoever never closes it still leaks nothing."""
    await RedisBackend.from_url(f"redis://127.0.0.1:{witness.port}").delete("ada:t1")
    assert witness.open == 1

    async with asyncio.timeout(5):
        while witness.open:
            gc.collect()
            await asyncio.sleep(0.01)


async def test_whoever_cancels_everything_gets_no_wrong_answers(
    watched: RedisBackend, witness: Witness, wire: Connection
) -> None:
    """Answers that were still to come are not taken for those of later calls."""
    mine = asyncio.current_task()
    standing = asyncio.all_tasks()
    await wire.ask([("CLIENT", "PAUSE", 200)])
    witness.forget()
    writes = [asyncio.create_task(watched.put(f"ada:t{number}", b"y")) for number in range(5)]
    async with asyncio.timeout(5):
        await witness.request_seen()
    for task in asyncio.all_tasks() - standing - {mine}:
        task.cancel()
    await asyncio.wait(writes)

    assert all(write.cancelled() for write in writes)
    with pytest.raises(RecordNotFoundError):
        await watched.get("ada:none")
    found = await watched.get("ada:t0")
    assert (found.data, found.version) in ((b"x", 1), (b"y", 2))


async def test_a_dropped_connection_is_not_opened_again(redis_server: RedisServer) -> None:
    """The driver would, and send what was meant for another."""
    connection = Connection(("127.0.0.1", redis_server.port), {}, 5)
    await connection.open()
    connection.drop()

    with pytest.raises(BROKEN):
        await connection.send([("PING",)])
    with pytest.raises(BROKEN):
        await connection.receive()
    assert not connection.is_alive


async def test_a_second_running_loop_is_told_to_reopen(backend: RedisBackend) -> None:
    """Two loops at once would give each other's futures away."""
    await backend.put("ada:t1", b"x")
    with pytest.raises(ConfigurationError, match=r"reopen\(\)"):
        await asyncio.to_thread(asyncio.run, _put(backend))


async def test_reopened_it_serves_another_loop(backend: RedisBackend) -> None:
    """With the same records, and closed apart."""
    await backend.put("ada:t2", b"x")
    second = backend.reopen()

    assert await asyncio.to_thread(asyncio.run, _put(second)) == 2
    await second.close()
    assert await backend.put("ada:t2", b"y") == 3


async def test_closing_waits_for_what_is_under_way(
    redis_server: RedisServer, options: RedisOptions
) -> None:
    """Every call has its answer; those that come later are refused, and the wire is closed."""
    backend = RedisBackend(parse(redis_server.url)[0], options)
    writes = [asyncio.ensure_future(backend.put(f"ada:t{n}", b"x")) for n in range(300)]
    await asyncio.sleep(0)
    await backend.close()
    await backend.close()

    assert await asyncio.gather(*writes) == [1] * 300
    with pytest.raises(BackendClosedError):
        await backend.get("ada:t1")
    with pytest.raises(BackendClosedError):
        await backend.check()


async def test_its_repr_shows_no_address() -> None:
    """It is logged at start."""
    shown = repr(RedisBackend.from_url("redis://ada:secret@redis.example.com/3"))

    assert shown == "RedisBackend(single, prefix='mcp_tasks')"
    assert "secret" not in repr(parse("redis://ada:secret@redis.example.com/3"))


# --- hints ---------------------------------------------------------------------------------------


async def test_a_refused_write_says_nothing(
    backend: RedisBackend, options: RedisOptions, wire: Connection
) -> None:
    """Only what changed something is announced: once for each write, within the write itself."""
    await wire.ask([("SUBSCRIBE", f"{options.prefix}:changes")])
    await backend.put("ada:t1", b"x")
    with pytest.raises(VersionConflictError):
        await backend.put_if_version("ada:t1", b"x", 7)
    await backend.delete("ada:none")
    await backend.delete("ada:t1")
    await wire.send([("PING", "the-end")])

    heard = 0
    async with asyncio.timeout(5):
        while (await wire.receive())[1] != b"the-end":
            heard += 1
    assert heard == 2


async def test_without_hints_nothing_is_announced(
    redis_server: RedisServer, options: RedisOptions, wire: Connection
) -> None:
    """For a server on which messages cost too much."""
    backend = RedisBackend(parse(redis_server.url)[0], replace(options, hints=False))
    await wire.ask([("SUBSCRIBE", f"{options.prefix}:changes")])
    await backend.put("ada:t1", b"x")
    await backend.delete("ada:t1")
    await wire.send([("PING", "the-end")])

    assert (await wire.receive())[1] == b"the-end"
    await backend.close()


async def test_closing_ends_those_who_watch(
    redis_server: RedisServer, options: RedisOptions
) -> None:
    """A server that shuts down is not held up by them."""
    backend = RedisBackend(parse(redis_server.url)[0], options)
    heard = asyncio.Event()

    async def watch() -> None:
        async for _ in backend.watch():
            heard.set()

    watching = asyncio.create_task(watch())
    async with asyncio.timeout(5):
        await heard.wait()
        await backend.close()
        await watching


def _soon() -> datetime:
    return SystemClock().now() + timedelta(milliseconds=300)


def _ms(time: list[bytes]) -> int:
    """Return an answer to TIME in milliseconds."""
    return int(time[0]) * 1000 + int(time[1]) // 1000


async def _put(backend: RedisBackend) -> int:
    return await backend.put("ada:t2", b"x")

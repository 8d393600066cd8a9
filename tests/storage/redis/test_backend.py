"""The Redis backend: its one connection, its names, its loops, its hints."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from mcp_tasks.clock import SystemClock
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


if TYPE_CHECKING:
    from tests.storage.redis.witness import Witness

    from mcp_tasks.storage.redis import RedisOptions
    from mcp_tasks.testing.servers.redis import RedisServer


LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)
FAR_AHEAD = datetime(2200, 1, 1, tzinfo=UTC)


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
    await asyncio.sleep(1.1)
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


async def test_its_repr_says_where_it_is_and_shows_no_password() -> None:
    """It is logged at start."""
    shown = repr(RedisBackend.from_url("redis://ada:secret@redis.example.com/3"))

    assert shown == "RedisBackend(single redis.example.com:6379/3, prefix='mcp_tasks')"
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
    return SystemClock().now() + timedelta(seconds=1)


async def _put(backend: RedisBackend) -> int:
    return await backend.put("ada:t2", b"x")

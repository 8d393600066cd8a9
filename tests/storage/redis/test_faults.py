"""What the backend says when network or server fail, and that it says no more than that."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from tests.faults.lost_replies import write_with_lost_replies
from tests.faults.proxy import Proxy

from mcp_tasks.errors import (
    ConfigurationError,
    OutcomeUnknownError,
    RecordNotFoundError,
    StorageCorruptError,
    StorageError,
    StorageFullError,
    StorageReadOnlyError,
    StorageUnavailableError,
    VersionConflictError,
)
from mcp_tasks.storage.base import StoredRecord
from mcp_tasks.storage.redis import RedisBackend
from mcp_tasks.store import TaskStore
from mcp_tasks.testing.servers.redis import RedisServer


if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from mcp_tasks.storage.redis import RedisOptions
    from mcp_tasks.storage.redis.driver import Connection


ACKNOWLEDGED = 10_000
FAR_AHEAD = datetime(2200, 1, 1, tzinfo=UTC)
QUICK = "connect_timeout=1&timeout=1"


@pytest.fixture
async def proxy(redis_server: RedisServer) -> AsyncIterator[Proxy]:
    """Give the wire to the server."""
    async with Proxy("127.0.0.1", redis_server.port) as proxy:
        yield proxy


@pytest.fixture
async def direct(redis_server: RedisServer, options: RedisOptions) -> AsyncIterator[RedisBackend]:
    """Give a backend beside that wire."""
    backend = RedisBackend.from_url(f"{redis_server.url}?prefix={options.prefix}")
    yield backend
    await backend.close()


@pytest.fixture
async def backend(proxy: Proxy, options: RedisOptions) -> AsyncIterator[RedisBackend]:
    """Give a connected backend on that wire, with little patience."""
    url = f"redis://127.0.0.1:{proxy.port}?prefix={options.prefix}&{QUICK}"
    backend = RedisBackend.from_url(url)
    await backend.put("ada:t0", b"x")
    yield backend
    await backend.close()


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    """Give a server that may be killed, or made difficult."""
    with RedisServer() as server:
        yield server


# --- the network ---------------------------------------------------------------------------------


async def test_a_write_whose_reply_is_lost_has_an_unknown_outcome(
    backend: RedisBackend, direct: RedisBackend, proxy: Proxy
) -> None:
    """It happened, once, and the backend neither says so nor sends it again."""
    await backend.put("ada:gone", b"x")
    for call in (
        lambda: backend.put("ada:put", b"x"),
        lambda: backend.put_if_version("ada:create", b"x", 0),
        lambda: backend.put_if_version("ada:t0", b"y", 1),
        lambda: backend.delete("ada:gone"),
    ):
        await backend.get("ada:t0")  # connected, and what comes back next is the answer
        proxy.lose_reply = lambda _: True
        with pytest.raises(OutcomeUnknownError, match="may or may not have happened: Redis: the c"):
            await call()
        proxy.lose_reply = lambda _: False

    assert proxy.replies_lost == 4
    assert await direct.get("ada:put") == StoredRecord("ada:put", b"x", 1)
    assert await direct.get("ada:create") == StoredRecord("ada:create", b"x", 1)
    assert await direct.get("ada:t0") == StoredRecord("ada:t0", b"y", 2)
    with pytest.raises(RecordNotFoundError):
        await direct.get("ada:gone")
    assert await backend.put_if_version("ada:t0", b"z", 2) == 3


async def test_of_a_batch_each_write_has_its_own_error(
    backend: RedisBackend, direct: RedisBackend, proxy: Proxy
) -> None:
    """With its key; and the reads among them are answered all the same."""
    left = 1

    def lose_one(_: bytes) -> bool:
        nonlocal left
        left -= 1
        return left >= 0

    proxy.lose_reply = lose_one
    keys = [f"ada:w{number}" for number in range(20)]
    outcomes = await asyncio.gather(
        *(backend.put(key, b"x") for key in keys),
        *(backend.get("ada:t0") for _ in range(20)),
        return_exceptions=True,
    )

    assert [error.key for error in outcomes if isinstance(error, OutcomeUnknownError)] == keys
    assert outcomes[20:] == [StoredRecord("ada:t0", b"x", 1)] * 20
    assert [(await direct.get(key)).version for key in keys] == [1] * 20


async def test_a_write_that_never_arrived_has_an_unknown_outcome_too(
    backend: RedisBackend, direct: RedisBackend, proxy: Proxy
) -> None:
    """From here it looks the same."""
    proxy.lose_request = lambda _: True
    with pytest.raises(OutcomeUnknownError):
        await backend.put("ada:t0", b"y")
    proxy.lose_request = lambda _: False

    assert (await direct.get("ada:t0")).version == 1
    assert await backend.put("ada:t0", b"y") == 2


async def test_a_read_is_sent_again_on_a_new_connection(
    backend: RedisBackend, proxy: Proxy
) -> None:
    """Reading twice does no harm, and a server that was restarted costs no error."""
    left = 1

    def lose_one(_: bytes) -> bool:
        nonlocal left
        left -= 1
        return left >= 0

    proxy.lose_reply = lose_one
    assert (await backend.get("ada:t0")).data == b"x"
    left = 1
    assert len((await backend.list_by_prefix("ada:")).records) == 1
    assert proxy.replies_lost == 2


async def test_a_connection_cut_while_idle_is_replaced(backend: RedisBackend, proxy: Proxy) -> None:
    """Nothing was sent on it, so nothing is unknown."""
    proxy.cut()
    await asyncio.sleep(0.05)  # the end of the connection arrives

    assert await backend.put("ada:t0", b"y") == 2
    assert (await backend.get("ada:t0")).data == b"y"


async def test_without_a_server_nothing_is_sent(backend: RedisBackend, proxy: Proxy) -> None:
    """The caller is told that nothing happened, within `connect_timeout`."""
    proxy.refusing = True
    proxy.cut()
    await asyncio.sleep(0.05)
    began = time.monotonic()

    for call in (
        backend.put("ada:t0", b"y"),
        backend.put_if_version("ada:t0", b"y", 1),
        backend.delete("ada:t0"),
        backend.get("ada:t0"),
        backend.list_by_prefix("ada:"),
    ):
        with pytest.raises(StorageUnavailableError, match="nothing was written"):
            await call
    assert time.monotonic() - began < 10

    proxy.refusing = False
    assert await backend.get("ada:t0") == StoredRecord("ada:t0", b"x", 1)


async def test_it_waits_for_a_server_that_comes_back(backend: RedisBackend, proxy: Proxy) -> None:
    """A restart of the server takes a moment, and then goes on where it was."""
    proxy.refusing = True
    proxy.cut()
    await asyncio.sleep(0.05)
    write = asyncio.create_task(backend.put("ada:t0", b"y"))
    await asyncio.sleep(0.2)
    assert not write.done()

    proxy.refusing = False
    assert await write == 2


async def test_a_server_that_is_dark_ends_in_an_error(
    backend: RedisBackend, direct: RedisBackend, proxy: Proxy
) -> None:
    """A network that swallows everything and never says so."""
    proxy.silent = True
    async with asyncio.timeout(10):
        with pytest.raises(OutcomeUnknownError, match="no answer in time"):
            await backend.put("ada:t0", b"y")
        with pytest.raises(StorageUnavailableError, match="no answer in time"):
            await backend.get("ada:t0")
    proxy.silent = False
    proxy.cut()

    assert await backend.put_if_version("ada:t0", b"z", (await direct.get("ada:t0")).version)


async def test_lost_replies_have_no_double_effects_and_make_no_false_conflicts(
    redis_server: RedisServer, options: RedisOptions, proxy: Proxy
) -> None:
    """A thousand writes, a second writer on each record, and one reply of four that never comes."""
    mine = RedisBackend.from_url(f"redis://127.0.0.1:{proxy.port}?prefix={options.prefix}")
    theirs = RedisBackend.from_url(f"{redis_server.url}?prefix={options.prefix}")
    store, other = TaskStore(mine), TaskStore(theirs)

    tally = await write_with_lost_replies(store, other, proxy, writes=1000, chance=0.25)

    await mine.close()
    await theirs.close()
    assert tally.replies_lost >= 30, tally
    assert (tally.writes, tally.double, tally.missing) == (1000, 0, 0), tally
    assert (tally.false_conflicts, tally.unsettled) == (0, 0), tally


async def test_who_watches_goes_on_when_the_connection_was_cut(
    redis_server: RedisServer, options: RedisOptions, proxy: Proxy
) -> None:
    """A hint may be lost with it, so it begins with one."""
    watching = RedisBackend.from_url(f"redis://127.0.0.1:{proxy.port}?prefix={options.prefix}")
    writing = RedisBackend.from_url(f"{redis_server.url}?prefix={options.prefix}")
    await writing.put("ada:t1", b"x")
    hints = watching.watch()
    async with asyncio.timeout(10):
        await anext(hints)
        proxy.cut()
        await anext(hints)  # it was cut
        await anext(hints)  # there is another
        await writing.put("ada:t1", b"y")
        await anext(hints)
    await watching.close()
    await writing.close()


# --- the server ----------------------------------------------------------------------------------


async def test_what_was_acknowledged_survives_kill_9_of_the_server(own_server: RedisServer) -> None:
    """With `appendfsync always`; and no write is half there."""
    backend = RedisBackend.from_url(f"{own_server.url}?{QUICK}")
    acknowledged: dict[str, int] = {}

    async def write(caller: int) -> None:
        for number in range(10**9):
            key = f"ada:t{caller:02d}-{number % 50:02d}"
            try:
                acknowledged[key] = await backend.put(key, b"x" * 500)
            except StorageError:
                return

    callers = [asyncio.create_task(write(caller)) for caller in range(16)]
    while sum(acknowledged.values()) < ACKNOWLEDGED:  # noqa: ASYNC110 - of sixteen callers
        await asyncio.sleep(0.005)
    own_server.kill()
    await asyncio.gather(*callers)
    own_server.start()

    missing = 0
    for key, version in acknowledged.items():
        found = await backend.get(key)
        missing += max(version - found.version, 0)
        assert found.data == b"x" * 500
    listed = [record.key for record in (await backend.list_by_prefix("ada:", limit=900)).records]
    await backend.close()
    assert sum(acknowledged.values()) >= ACKNOWLEDGED
    assert missing == 0
    assert listed == sorted(acknowledged)


async def test_it_finds_its_way_back_to_a_restarted_server(own_server: RedisServer) -> None:
    """By itself, with what was there, and with the scripts, which a restart forgets."""
    backend = RedisBackend.from_url(own_server.url)
    await backend.put("ada:t1", b"x")
    for end, version in ((own_server.kill, 1), (own_server.stop, 2)):
        end()
        own_server.start()
        assert (await backend.get("ada:t1")).version == version
        assert await backend.put_if_version("ada:t1", b"y", version) == version + 1
    await backend.close()


async def test_a_full_memory_refuses_writes_and_lets_go_of_records(own_server: RedisServer) -> None:
    """Nothing of a refused write is there, and deleting makes room."""
    backend = RedisBackend.from_url(f"{own_server.url}?{QUICK}")
    keys = ["ada:t1", *(f"ada:large{number}" for number in range(8))]
    for key in keys:
        await backend.put(key, bytes(2**18), expires_at=FAR_AHEAD)
    before = await backend.list_by_prefix("ada:")
    own_server.ask("CONFIG", "SET", "maxmemory", "1mb")

    for write in (
        lambda: backend.put("ada:new", b"x"),
        lambda: backend.put("ada:new", b"x", expires_at=FAR_AHEAD),
        lambda: backend.put_if_version("ada:new", b"x", 0),
        lambda: backend.put("ada:t1", b"y"),
        lambda: backend.put_if_version("ada:t1", b"y", 1),
    ):
        with pytest.raises(StorageFullError, match=r"OOM.*nothing was written"):
            await write()
    with pytest.raises(VersionConflictError):
        await backend.put_if_version("ada:t1", b"y", 9)
    assert await backend.list_by_prefix("ada:") == before
    assert own_server.ask("ZCARD", "mcp_tasks:{ada}:i").startswith(f":{len(keys)}\r")

    own_server.ask("CONFIG", "SET", "maxmemory", "3mb")
    for key in keys[1:]:
        assert await backend.delete(key) is True
    assert await backend.put_if_version("ada:t1", b"y", 1) == 2
    assert len((await backend.list_by_prefix("ada:")).records) == 1
    await backend.close()


async def test_a_replica_is_read_only(own_server: RedisServer) -> None:
    """It says so at start; a write is refused after trying whether it becomes a primary."""
    with RedisServer(settings={"replicaof": f"127.0.0.1 {own_server.port}"}) as replica:
        backend = RedisBackend.from_url(f"{replica.url}?{QUICK}")
        with pytest.raises(ConfigurationError, match="is a replica, which takes no writes"):
            await backend.check()
        for write in (backend.put("ada:t1", b"x"), backend.delete("ada:t1")):
            with pytest.raises(StorageReadOnlyError, match=r"READONLY.*nothing was written"):
                await write

        waiting = asyncio.create_task(backend.put("ada:t1", b"x"))
        await asyncio.sleep(0.1)
        replica.ask("REPLICAOF", "NO", "ONE")
        assert await waiting == 1
        await backend.close()


async def test_a_server_that_cannot_save_takes_no_writes() -> None:
    """Its snapshots fail (no room, no right): it keeps what it has, and refuses more."""
    with RedisServer(settings={"save": "1000000 1", "dbfilename": "snapshot.rdb"}) as server:
        backend = RedisBackend.from_url(f"{server.url}?{QUICK}")
        await backend.put("ada:t1", b"x")
        (server.folder / "snapshot.rdb").mkdir()  # no file can be renamed to that
        server.ask("BGSAVE")
        async with asyncio.timeout(10):
            while "rdb_last_bgsave_status:err" not in server.ask("INFO", "persistence"):  # noqa: ASYNC110 - the server's
                await asyncio.sleep(0.02)

        with pytest.raises(StorageReadOnlyError, match="MISCONF"):
            await backend.put("ada:t1", b"y")
        assert (await backend.get("ada:t1")).data == b"x"
        await backend.close()
        server.kill()  # it would not end in order, for it cannot save


async def test_a_server_that_loads_is_waited_for(own_server: RedisServer) -> None:
    """It answers already, and knows nothing yet."""
    backend = RedisBackend.from_url(own_server.url)
    await asyncio.gather(*(backend.put(f"ada:t{number:04d}", b"x") for number in range(3000)))
    own_server.stop()
    with (own_server.folder / "server.conf").open("a") as config:
        config.write("key-load-delay 100\n")  # microseconds, for each command that was kept
    starting = asyncio.create_task(asyncio.to_thread(own_server.start))
    async with asyncio.timeout(20):
        while not (await _ping(own_server)).startswith("-LOADING"):  # noqa: ASYNC110 - the server's
            await asyncio.sleep(0.01)
    write = asyncio.create_task(backend.put("ada:t0000", b"y"))
    read = asyncio.create_task(backend.get("ada:t0001"))

    assert (await _ping(own_server)).startswith("-LOADING")
    await starting
    assert await write == 2
    assert (await read).version == 1
    await backend.close()


async def test_a_busy_server_is_waited_for(own_server: RedisServer) -> None:
    """Somebody's slow script holds everything up; what it refuses meanwhile was not done."""
    backend = RedisBackend.from_url(own_server.url)
    await backend.put("ada:t0", b"x")
    own_server.ask("CONFIG", "SET", "lua-time-limit", "50")
    slow = asyncio.create_task(asyncio.to_thread(own_server.ask, "EVAL", "while true do end", "0"))
    async with asyncio.timeout(10):
        while not (await _ping(own_server)).startswith("-BUSY"):  # noqa: ASYNC110 - the server's
            await asyncio.sleep(0.01)
    write = asyncio.create_task(backend.put("ada:t0", b"y"))
    await asyncio.sleep(0.2)
    assert not write.done()

    own_server.ask("SCRIPT", "KILL")
    assert await write == 2
    assert (await slow).startswith("-")
    await backend.close()


async def test_a_connection_that_the_server_closes_leaves_the_outcome_open(
    direct: RedisBackend, wire: Connection
) -> None:
    """As an administrator does it, or a limit of the server."""
    await direct.put("ada:t1", b"x")
    await wire.ask([("CLIENT", "PAUSE", 300, "WRITE")])
    write = asyncio.create_task(direct.put("ada:t1", b"y"))
    await asyncio.sleep(0.05)
    await wire.ask([("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")])
    with pytest.raises(OutcomeUnknownError):
        await write

    assert await direct.put("ada:t1", b"y") in (2, 3)


async def test_a_key_that_is_something_else_is_not_touched(
    direct: RedisBackend, options: RedisOptions, wire: Connection
) -> None:
    """Somebody uses the prefix for something of their own."""
    front = f"{options.prefix}:{{ada}}:"
    await wire.ask([("SET", f"{front}r:t1", "theirs"), ("SET", f"{options.prefix}:{{bob}}:i", "x")])

    for call in (
        direct.get("ada:t1"),
        direct.put("ada:t1", b"x"),
        direct.put("bob:t1", b"x"),
        direct.list_by_prefix("bob:"),
    ):
        with pytest.raises(StorageCorruptError, match="a key of ours holds something else"):
            await call
    assert await wire.ask([("GET", f"{front}r:t1"), ("GET", f"{options.prefix}:{{bob}}:i")]) == [
        b"theirs",
        b"x",
    ]
    with pytest.raises(RecordNotFoundError):
        await direct.get("bob:t1")


async def test_a_refused_call_of_a_batch_fails_alone(
    direct: RedisBackend, options: RedisOptions, wire: Connection
) -> None:
    """Whatever is wrong with one, the others are done."""
    await wire.ask([("SET", f"{options.prefix}:{{ada}}:r:t1", "theirs")])

    outcomes = await asyncio.gather(
        direct.put("ada:t0", b"x"),
        direct.put("ada:t1", b"x"),
        direct.put_if_version("ada:t2", b"x", 9),
        direct.put("ada:t3", b"x"),
        return_exceptions=True,
    )

    assert (outcomes[0], outcomes[3]) == (1, 1)
    assert isinstance(outcomes[1], StorageCorruptError)
    assert isinstance(outcomes[2], VersionConflictError)


# --- who may come in -----------------------------------------------------------------------------


async def test_a_wrong_password_is_said_at_once(own_server: RedisServer) -> None:
    """It will not become right by waiting; and it is not shown."""
    own_server.ask("ACL", "SETUSER", "default", ">hunter2")
    for user in ("", ":hunter3@", "nobody:hunter3@"):
        backend = RedisBackend.from_url(f"redis://{user}127.0.0.1:{own_server.port}")
        for call in (backend.put("ada:t1", b"x"), backend.get("ada:t1"), backend.check()):
            began = time.monotonic()
            with pytest.raises(ConfigurationError, match="does not let this user in") as caught:
                await call
            assert "hunter" not in f"{caught.value} {caught.value.__cause__}"
            assert time.monotonic() - began < 1
        await backend.close()

    backend = RedisBackend.from_url(f"redis://:hunter2@127.0.0.1:{own_server.port}")
    assert await backend.put("ada:t1", b"x") == 1
    await backend.close()


async def test_a_user_who_lacks_a_right_is_told_which(own_server: RedisServer) -> None:
    """In the server's words; nothing was changed."""
    rights = ["on", ">pw", "~mcp_tasks:*", "+@all", "-hset"]
    own_server.ask("ACL", "SETUSER", "app", *rights)
    backend = RedisBackend.from_url(f"redis://app:pw@127.0.0.1:{own_server.port}")

    with pytest.raises(ConfigurationError, match=r"'hset' command|can't run this command"):
        await backend.put("ada:t1", b"x")
    with pytest.raises(RecordNotFoundError):
        await backend.get("ada:t1")
    await backend.close()


async def _ping(server: RedisServer) -> str:
    with suppress(OSError):
        return await asyncio.to_thread(server.ask, "PING")
    return ""

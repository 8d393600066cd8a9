"""What the backend says when network or server fail, and that it says no more than that."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.faults.lost_replies import write_with_lost_replies
from tests.faults.proxy import Proxy

from mcp_tasks.errors import (
    OutcomeUnknownError,
    RecordNotFoundError,
    StorageError,
    StorageUnavailableError,
    VersionConflictError,
)
from mcp_tasks.storage.base import StoredRecord
from mcp_tasks.storage.postgres import NotifyingPostgresBackend, PostgresBackend, PostgresOptions
from mcp_tasks.store import TaskStore
from mcp_tasks.testing.servers.postgres import PostgresServer


if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from mcp_tasks.storage.postgres.driver import Connection


QUICK = PostgresOptions(connect_timeout=1.0, timeout=1.0)
ACKNOWLEDGED = 2_000


@pytest.fixture
async def proxy(postgres_server: PostgresServer) -> AsyncIterator[Proxy]:
    """Give the wire to the server."""
    async with Proxy("127.0.0.1", postgres_server.port) as proxy:
        yield proxy


@pytest.fixture
async def direct(
    postgres_server: PostgresServer, options: PostgresOptions
) -> AsyncIterator[PostgresBackend]:
    """Give a backend beside that wire."""
    backend = PostgresBackend(postgres_server.url, options)
    yield backend
    await backend.close()


def through(proxy: Proxy) -> str:
    """Return the URL of the server behind a proxy."""
    return f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres"


@pytest.fixture
async def backend(proxy: Proxy, options: PostgresOptions) -> AsyncIterator[PostgresBackend]:
    """Give a connected backend on that wire, with little patience."""
    quick = replace(options, connect_timeout=1.0, timeout=1.0)
    backend = PostgresBackend(through(proxy), quick)
    await backend.put("ada:t0", b"x")
    yield backend
    await backend.close()


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """Give a server that may be killed."""
    with PostgresServer() as server:
        yield server


# --- the network ---------------------------------------------------------------------------------


async def test_a_write_whose_reply_is_lost_has_an_unknown_outcome(
    backend: PostgresBackend, direct: PostgresBackend, proxy: Proxy
) -> None:
    """It happened, and the backend neither says so nor sends it again."""
    proxy.lose_reply = lambda _: True
    calls = (
        backend.put("ada:put", b"x"),
        backend.put_if_version("ada:create", b"x", 0),
        backend.put_if_version("ada:t0", b"y", 1),
        backend.delete("ada:none"),
    )
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    proxy.lose_reply = lambda _: False

    # The first on the wire lost its reply; those that had to connect for it could not.
    unknown = [outcome for outcome in outcomes if isinstance(outcome, OutcomeUnknownError)]
    assert unknown
    assert all(isinstance(outcome, StorageError) for outcome in outcomes)
    for error in unknown:
        if error.key in ("ada:put", "ada:create"):
            assert (await direct.get(error.key)).version == 1


async def test_every_kind_of_write_can_lose_its_reply(
    backend: PostgresBackend, direct: PostgresBackend, proxy: Proxy
) -> None:
    """One at a time, so that each is the first on its connection."""
    await backend.put("ada:gone", b"x")
    for call in (
        lambda: backend.put("ada:put", b"x"),
        lambda: backend.put_if_version("ada:create", b"x", 0),
        lambda: backend.put_if_version("ada:t0", b"y", 1),
        lambda: backend.delete("ada:gone"),
    ):
        await backend.get("ada:t0")  # connected, and the statement after it is the next
        await _prepare_all(backend)
        proxy.lose_reply = lambda _: True
        with pytest.raises(OutcomeUnknownError, match="may or may not have happened"):
            await call()
        proxy.lose_reply = lambda _: False

    assert await direct.get("ada:put") == StoredRecord("ada:put", b"x", 1)
    assert await direct.get("ada:create") == StoredRecord("ada:create", b"x", 1)
    assert await direct.get("ada:t0") == StoredRecord("ada:t0", b"y", 2)
    with pytest.raises(RecordNotFoundError):
        await direct.get("ada:gone")
    assert await backend.put_if_version("ada:t0", b"z", 2) == 3


async def test_a_write_that_never_arrived_has_an_unknown_outcome_too(
    backend: PostgresBackend, direct: PostgresBackend, proxy: Proxy
) -> None:
    """From here it looks the same."""
    proxy.lose_request = lambda _: True
    with pytest.raises(OutcomeUnknownError):
        await backend.put("ada:t0", b"y")
    proxy.lose_request = lambda _: False

    assert (await direct.get("ada:t0")).version == 1
    assert await backend.put("ada:t0", b"y") == 2


async def test_a_read_is_sent_again_on_a_new_connection(
    backend: PostgresBackend, proxy: Proxy
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


async def test_a_connection_cut_while_idle_is_replaced(
    backend: PostgresBackend, proxy: Proxy
) -> None:
    """Nothing was sent on it, so nothing is unknown."""
    proxy.cut()
    await asyncio.sleep(0.05)  # the end of the connection arrives

    assert await backend.put("ada:t0", b"y") == 2
    assert (await backend.get("ada:t0")).data == b"y"


async def test_without_a_server_nothing_is_sent(backend: PostgresBackend, proxy: Proxy) -> None:
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


async def test_it_waits_for_a_server_that_comes_back(
    backend: PostgresBackend, proxy: Proxy
) -> None:
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
    backend: PostgresBackend, direct: PostgresBackend, proxy: Proxy
) -> None:
    """A network that swallows everything and never says so."""
    proxy.silent = True
    async with asyncio.timeout(10):
        with pytest.raises(OutcomeUnknownError, match="may or may not"):
            await backend.put("ada:t0", b"y")
        with pytest.raises(StorageUnavailableError):
            await backend.get("ada:t0")
    proxy.silent = False
    proxy.cut()

    assert await backend.put_if_version("ada:t0", b"z", (await direct.get("ada:t0")).version)


async def test_lost_replies_have_no_double_effects_and_make_no_false_conflicts(
    postgres_server: PostgresServer, options: PostgresOptions, proxy: Proxy
) -> None:
    """A thousand writes, a second writer on each record, and one reply of ten that never comes."""
    mine = PostgresBackend(through(proxy), options)
    theirs = PostgresBackend(postgres_server.url, options)
    store, other = TaskStore(mine), TaskStore(theirs)

    tally = await write_with_lost_replies(store, other, proxy, writes=1000)

    await mine.close()
    await theirs.close()
    assert tally.replies_lost >= 30, tally
    assert (tally.writes, tally.double, tally.missing) == (1000, 0, 0), tally
    assert (tally.false_conflicts, tally.unsettled) == (0, 0), tally


async def test_who_watches_goes_on_when_the_connection_was_cut(
    postgres_server: PostgresServer, options: PostgresOptions, proxy: Proxy
) -> None:
    """A hint may be lost with it, so it begins with one."""
    watching = NotifyingPostgresBackend(through(proxy), options)
    writing = NotifyingPostgresBackend(postgres_server.url, options)
    await writing.put("ada:t1", b"x")
    hints = watching.watch()
    async with asyncio.timeout(10):
        await anext(hints)
        proxy.cut()
        await anext(hints)
        await writing.put("ada:t1", b"y")
        await anext(hints)
    await watching.close()
    await writing.close()


# --- the server ----------------------------------------------------------------------------------


async def test_what_was_acknowledged_survives_kill_9_of_the_server(
    own_server: PostgresServer,
) -> None:
    """With the durability it has by default; and no write is half there."""
    backend = PostgresBackend(own_server.url, QUICK)
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
    await backend.close()
    assert sum(acknowledged.values()) >= ACKNOWLEDGED
    assert missing == 0


async def test_it_finds_its_way_back_to_a_restarted_server(own_server: PostgresServer) -> None:
    """By itself, and with what was there."""
    backend = PostgresBackend(own_server.url)
    await backend.put("ada:t1", b"x")
    own_server.kill()
    own_server.start()

    assert (await backend.get("ada:t1")).data == b"x"
    assert await backend.put_if_version("ada:t1", b"y", 1) == 2
    await backend.close()


async def test_a_backend_process_that_is_terminated_leaves_the_outcome_open(
    direct: PostgresBackend, options: PostgresOptions, database: Connection
) -> None:
    """As a database administrator does it, or a failover."""
    await direct.put("ada:t1", b"x")
    await database.execute(f'BEGIN; LOCK TABLE "{options.table}"')
    write = asyncio.create_task(direct.put("ada:t1", b"y"))
    await asyncio.sleep(0.1)
    await database.fetch(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'mcp-tasks' AND query LIKE '%' || $1 || '%'",
        options.table,
    )
    with pytest.raises(OutcomeUnknownError):
        await write
    await database.execute("ROLLBACK")

    assert await direct.put("ada:t1", b"y") == 2


# --- other transactions --------------------------------------------------------------------------


async def test_a_row_that_somebody_holds_keeps_only_its_own_writer(
    postgres_server: PostgresServer,
    options: PostgresOptions,
    database: Connection,
    hold: Callable[[str], Awaitable[object]],
) -> None:
    """An open psql session must not stop the server: the others of the batch go on alone."""
    backend = PostgresBackend(postgres_server.url, replace(options, timeout=1.0))
    for number in range(8):
        await backend.put(f"ada:t{number}", b"x")
    await database.execute("BEGIN")
    await hold("ada:t3")
    outcomes = await asyncio.gather(
        *(backend.put_if_version(f"ada:t{number}", b"y", 1) for number in range(8)),
        return_exceptions=True,
    )
    await database.execute("ROLLBACK")

    assert isinstance(outcomes.pop(3), StorageUnavailableError)
    assert outcomes == [2] * 7
    assert await backend.put_if_version("ada:t3", b"y", 1) == 2
    await backend.close()


async def test_two_batches_that_meet_on_many_rows_do_not_deadlock(
    postgres_server: PostgresServer, options: PostgresOptions, database: Connection
) -> None:
    """They lock rows in one order; the server counts deadlocks."""
    count = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    before = (await database.fetch(count))[0][0]
    backends = [PostgresBackend(postgres_server.url, options) for _ in range(4)]
    keys = [f"ada:t{number:02d}" for number in range(40)]

    async def write(backend: PostgresBackend, step: int) -> None:
        for _ in range(10):
            order = keys[::step]
            await asyncio.gather(*(backend.put(key, b"x") for key in order))

    await asyncio.gather(
        *(write(backend, step) for backend, step in zip(backends, (1, -1, 3, -3), strict=True))
    )
    versions = [(await backends[0].get(key)).version for key in keys]
    for backend in backends:
        await backend.close()

    assert sum(versions) == 10 * (40 + 40 + 14 + 14)
    assert (await database.fetch(count))[0][0] == before


async def test_a_deadlock_with_others_is_tried_again(
    direct: PostgresBackend, database: Connection, hold: Callable[[str], Awaitable[object]]
) -> None:
    """The server has undone the write, so sending it anew is no guess."""
    await direct.put("ada:t1", b"x")
    await direct.put("ada:t2", b"x")
    await database.execute("SET deadlock_timeout = '10s'")
    await database.execute("BEGIN")
    await hold("ada:t2")

    write = asyncio.gather(direct.put("ada:t1", b"y"), direct.put("ada:t2", b"y"))
    await asyncio.sleep(0.2)  # it holds t1 by now, and waits for t2
    await hold("ada:t1")
    await database.execute("COMMIT")

    assert await write == [2, 2]
    await database.execute("RESET deadlock_timeout")


async def test_a_statement_that_takes_too_long_is_known_not_to_have_happened(
    postgres_server: PostgresServer, options: PostgresOptions, database: Connection
) -> None:
    """The server ends it before the client gives up."""
    quick = replace(options, timeout=0.4)
    backend = PostgresBackend(f"{postgres_server.url}?lock_timeout=0", quick)
    await backend.put("ada:t1", b"x")
    await database.execute(f'BEGIN; LOCK TABLE "{options.table}"')

    with pytest.raises(StorageUnavailableError, match="statement timeout"):
        await backend.put("ada:t1", b"y")
    await database.execute("ROLLBACK")

    assert await backend.put("ada:t1", b"y") == 2
    await backend.close()


async def test_a_row_that_the_table_refuses_fails_alone(
    direct: PostgresBackend, options: PostgresOptions, database: Connection
) -> None:
    """Whatever is wrong with one record of a batch, the others are written."""
    await direct.put("ada:t0", b"x")
    await database.execute(f'ALTER TABLE "{options.table}" ADD CHECK (length(data) < 100)')

    outcomes = await asyncio.gather(
        direct.put("ada:t1", b"x"),
        direct.put("ada:t2", b"x" * 100),
        direct.put("ada:t3", b"x"),
        return_exceptions=True,
    )

    assert (outcomes[0], outcomes[2]) == (1, 1)
    assert isinstance(outcomes[1], StorageError)
    assert "xxx" not in str(outcomes[1])
    with pytest.raises(RecordNotFoundError):
        await direct.get("ada:t2")


async def test_a_conflict_tells_the_true_version_even_of_a_write_just_now(
    postgres_server: PostgresServer, options: PostgresOptions
) -> None:
    """Also when the winner commits while the loser waits for it."""
    backends = [PostgresBackend(postgres_server.url, options) for _ in range(4)]
    for number in range(30):
        outcomes = await asyncio.gather(
            *(backend.put_if_version(f"ada:t{number}", b"x", 0) for backend in backends),
            return_exceptions=True,
        )
        lost = [found for found in outcomes if isinstance(found, VersionConflictError)]
        assert outcomes.count(1) == 1
        assert [(error.expected, error.actual) for error in lost] == [(0, 1)] * 3
    for backend in backends:
        await backend.close()


async def _prepare_all(backend: PostgresBackend) -> None:
    """Have each statement prepared on the connection, so that a call is one round trip."""
    await backend.put("ada:prepared", b"x")
    await backend.delete("ada:prepared")
    await backend.put_if_version("ada:prepared", b"x", 0)
    await backend.put_if_version("ada:prepared", b"x", 1)
    await backend.delete("ada:prepared")

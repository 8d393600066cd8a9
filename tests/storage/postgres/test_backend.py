"""The PostgreSQL backend: the contract, and what is its own."""

from __future__ import annotations

import asyncio
import gc
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from tests.storage.postgres.witness import Witness

from mcp_tasks.clock import SystemClock
from mcp_tasks.errors import ConfigurationError, InvalidKeyError, VersionConflictError
from mcp_tasks.storage.postgres import NotifyingPostgresBackend, PostgresBackend, PostgresOptions
from mcp_tasks.storage.postgres.driver import connect
from mcp_tasks.testing import (
    ChangeSourceContract,
    ReopenableContract,
    StorageBackendContract,
    TaskStoreContract,
)
from mcp_tasks.testing.servers.postgres import PostgresServer, packaged


if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from mcp_tasks.storage.postgres.driver import Connection


LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)
FAR_AHEAD = datetime(2200, 1, 1, tzinfo=UTC)


class TestPostgresBackend(StorageBackendContract, ReopenableContract, ChangeSourceContract):
    """The contract over a table, with hints."""

    @pytest.fixture
    async def backend(
        self, postgres_server: PostgresServer, options: PostgresOptions
    ) -> AsyncIterator[PostgresBackend]:
        """Give an empty table."""
        backend = NotifyingPostgresBackend(postgres_server.url, options)
        yield backend
        await backend.close()


class TestWithoutPreparedStatements(StorageBackendContract, ReopenableContract):
    """The contract with the settings for a proxy that shares connections."""

    @pytest.fixture
    async def backend(
        self, postgres_server: PostgresServer, options: PostgresOptions
    ) -> AsyncIterator[PostgresBackend]:
        """Give an empty table."""
        backend = PostgresBackend(postgres_server.url, replace(options, prepared=False))
        yield backend
        await backend.close()


class TestOnTheOldestServer(StorageBackendContract, ReopenableContract):
    """The contract on the oldest server that the package brings."""

    @pytest.fixture(scope="class")
    @classmethod
    def old_server(cls) -> Iterator[PostgresServer]:
        """Give that server."""
        with PostgresServer(binaries=packaged()[-1]) as server:
            yield server

    @pytest.fixture
    async def backend(self, old_server: PostgresServer) -> AsyncIterator[PostgresBackend]:
        """Give an empty table."""
        backend = PostgresBackend(old_server.url)
        yield backend
        await backend.close()
        connection = await connect(old_server.url)
        await connection.execute("DROP TABLE IF EXISTS mcp_tasks")
        await connection.close()


class TestStoreOverPostgres(TaskStoreContract):
    """The rules about tasks over a table."""

    @pytest.fixture
    async def backend(
        self, postgres_server: PostgresServer, options: PostgresOptions
    ) -> AsyncIterator[PostgresBackend]:
        """Give an empty table."""
        backend = PostgresBackend(postgres_server.url, options)
        yield backend
        await backend.close()


@pytest.fixture
def witness() -> Witness:
    """See every statement that the backend of this test sends."""
    return Witness()


@pytest.fixture
async def backend(
    postgres_server: PostgresServer, options: PostgresOptions, witness: Witness
) -> AsyncIterator[PostgresBackend]:
    """Give an empty table, watched."""
    backend = PostgresBackend(postgres_server.url, options, connect=witness.connect)
    await backend.put("ada:t0", b"x")
    witness.statements.clear()
    yield backend
    await backend.close()


# --- batches -------------------------------------------------------------------------------------


async def test_calls_of_one_turn_are_one_statement_of_each_kind(
    backend: PostgresBackend, witness: Witness
) -> None:
    """However many callers there are, and also those of tasks started in that turn."""
    async with asyncio.TaskGroup() as tasks:
        for number in range(1, 20):
            tasks.create_task(backend.put(f"ada:t{number}", b"x"))
            tasks.create_task(backend.put_if_version(f"ada:u{number}", b"x", 0))
        await backend.put("ada:t20", b"x")
    await asyncio.gather(*(backend.get(f"ada:t{number}") for number in range(20)))
    await asyncio.gather(*(backend.put_if_version(f"ada:t{n}", b"x", 1) for n in range(20)))
    await asyncio.gather(*(backend.delete(f"ada:t{number}") for number in range(20)))

    assert len(witness.statements) == 5


async def test_a_call_is_one_round_trip(backend: PostgresBackend, witness: Witness) -> None:
    """Those that are refused too: the version in the way comes back with the refusal."""
    await backend.put("ada:t1", b"x")
    await backend.put("ada:t1", b"x")
    witness.statements.clear()

    await backend.get("ada:t1")
    for expected, actual in ((0, 2), (1, 2), (3, 2)):
        with pytest.raises(VersionConflictError) as caught:
            await backend.put_if_version("ada:t1", b"y", expected)
        assert caught.value.actual == actual
    with pytest.raises(VersionConflictError):
        await backend.put_if_version("ada:t9", b"y", 1)
    await backend.put_if_version("ada:t1", b"y", 2)
    await backend.list_by_prefix("ada:")
    await backend.delete("ada:t1")

    assert len(witness.statements) == 8


async def test_readers_of_one_record_share_a_statement(
    backend: PostgresBackend, witness: Witness
) -> None:
    """A hundred clients that poll one task are one read."""
    found = await asyncio.gather(*(backend.get("ada:t0") for _ in range(100)))

    assert [record.data for record in found] == [b"x"] * 100
    assert len(witness.statements) == 1


async def test_writers_of_one_record_go_one_after_the_other(backend: PostgresBackend) -> None:
    """Each sees what the one before it left, in the order in which they came."""
    outcomes = await asyncio.gather(
        backend.put_if_version("ada:t0", b"a", 1),
        backend.put_if_version("ada:t0", b"b", 2),
        backend.put_if_version("ada:t0", b"c", 2),
        backend.put_if_version("ada:t0", b"d", 3),
        return_exceptions=True,
    )

    assert [outcomes[0], outcomes[1], outcomes[3]] == [2, 3, 4]
    assert isinstance(outcomes[2], VersionConflictError)
    assert outcomes[2].actual == 3
    assert (await backend.get("ada:t0")).data == b"d"


async def test_many_and_large_records_are_several_statements(
    backend: PostgresBackend, witness: Witness
) -> None:
    """No statement grows without limit."""
    versions = await asyncio.gather(
        *(backend.put(f"ada:t{number:04d}", b"x") for number in range(1, 1001)),
        *(backend.put(f"ada:large{number}", bytes(2**20)) for number in range(10)),
    )

    assert versions == [1] * 1010
    assert 6 <= len(witness.statements) <= 12
    assert len((await backend.get("ada:large9")).data) == 2**20


async def test_one_slow_statement_does_not_hold_up_the_others(
    backend: PostgresBackend, database: Connection, hold: Callable[[str], Awaitable[object]]
) -> None:
    """After a moment others go out beside it."""
    await database.execute("BEGIN")
    await hold("ada:t0")
    stuck = asyncio.create_task(backend.put("ada:t0", b"y"))
    await asyncio.sleep(0.01)

    async with asyncio.timeout(1):
        for number in range(5):
            await asyncio.gather(backend.put("ada:t1", b"x"), backend.put(f"ada:u{number}", b"x"))
    assert not stuck.done()

    await database.execute("COMMIT")
    assert await stuck == 2


async def test_a_cancelled_caller_may_write_and_leaves_no_trace(
    backend: PostgresBackend, witness: Witness
) -> None:
    """Before it was sent, it never is; after, it happens; the connection stays good."""
    before = asyncio.create_task(backend.put("ada:t1", b"x"))
    await asyncio.sleep(0)
    before.cancel()
    listing = asyncio.create_task(backend.list_by_prefix("ada:"))
    for _ in range(3):
        await asyncio.sleep(0)
    listing.cancel()
    await asyncio.gather(before, listing, return_exceptions=True)

    assert await backend.put("ada:t1", b"y") == 1
    assert witness.opened <= 2


# --- expiry --------------------------------------------------------------------------------------


async def test_the_clock_of_the_server_decides(
    postgres_server: PostgresServer, options: PostgresOptions
) -> None:
    """A client whose clock is ahead does not remove what others still read."""
    backend = PostgresBackend(postgres_server.url, options)
    await backend.put("ada:t1", b"x", expires_at=SystemClock().now() + timedelta(hours=1))

    assert await backend.cleanup_expired(FAR_AHEAD) == 0
    assert (await backend.get("ada:t1")).version == 1
    await backend.close()


async def test_the_end_of_the_calendar_is_a_time(backend: PostgresBackend) -> None:
    """Also where its UTC is beyond it."""
    west = timezone(timedelta(hours=-9))
    for number, hour in enumerate((0, 20)):
        end = datetime(9999, 12, 31, hour, 59, 59, 999999, tzinfo=west)
        await backend.put(f"ada:e{number}", b"x", expires_at=end)

    assert len((await backend.list_by_prefix("ada:e")).records) == 2


async def test_a_time_without_a_zone_is_a_mistake(backend: PostgresBackend) -> None:
    """It would mean another moment on every machine."""
    with pytest.raises(TypeError, match="time zone"):
        await backend.put("ada:t1", b"x", expires_at=datetime(2030, 1, 1))  # noqa: DTZ001


async def test_cleaning_up_leaves_what_a_writer_holds(
    backend: PostgresBackend, database: Connection, hold: Callable[[str], Awaitable[object]]
) -> None:
    """It neither waits for it nor takes it away."""
    for number in range(5):
        await backend.put(f"ada:t{number}", b"x", expires_at=LONG_AGO)
    await database.execute("BEGIN")
    await hold("ada:t3")

    async with asyncio.timeout(1):
        assert await backend.cleanup_expired(SystemClock().now()) == 4
    await database.execute("COMMIT")
    assert await backend.cleanup_expired(SystemClock().now()) == 1


async def test_cleaning_up_goes_in_steps(backend: PostgresBackend, witness: Witness) -> None:
    """Many expired records are several short transactions, none of which blocks for long."""
    await asyncio.gather(
        *(backend.put(f"ada:t{number}", b"x", expires_at=LONG_AGO) for number in range(1200))
    )
    witness.statements.clear()

    assert await backend.cleanup_expired(SystemClock().now()) == 1200
    assert len(witness.statements) == 3


# --- the plan ------------------------------------------------------------------------------------


async def test_reads_and_clean_up_use_the_indexes(
    backend: PostgresBackend, options: PostgresOptions, database: Connection
) -> None:
    """A page costs the same among ten records and ten million."""
    await asyncio.gather(
        *(
            backend.put(f"ada:t{number:05d}", b"x", expires_at=FAR_AHEAD if number % 9 else None)
            for number in range(3000)
        )
    )
    await database.execute(f"ANALYZE {options.identifier}")
    statements = backend.statements
    for statement, arguments in (
        (statements.get, "'{ada:t1}'"),
        (statements.forward, "'ada:', 'ada;', 'ada:t00100', 51"),
        (statements.backward, "'ada:', 'ada;', '', 51"),
        (statements.clean_up, "now(), 500"),
        (statements.swap, "'{ada:t1}', '{NULL}', '{x}', '{1}'"),
        (statements.delete, "'{ada:t1}'"),
    ):
        await database.execute(f"PREPARE planned AS {statement}")
        await database.execute("SET plan_cache_mode = force_generic_plan")
        plan = "\n".join(
            row[0] for row in await database.fetch(f"EXPLAIN EXECUTE planned({arguments})")
        )
        await database.execute("DEALLOCATE planned")
        await database.execute("RESET plan_cache_mode")
        assert f"Seq Scan on {options.table}" not in plan, plan
        assert "Index Scan" in plan, plan
        assert " Sort" not in plan.split("Function Scan")[0], plan


async def test_a_change_that_keeps_its_expiry_leaves_the_indexes_alone(
    backend: PostgresBackend, options: PostgresOptions, database: Connection
) -> None:
    """Most writes are such; the row stays on its page."""
    await backend.put("ada:t1", b"x" * 500, expires_at=FAR_AHEAD)
    for version in range(1, 40):
        await backend.put_if_version("ada:t1", b"y" * 500, version, expires_at=FAR_AHEAD)
    await backend.close()

    count = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = $1"
    async with asyncio.timeout(5):
        while (await database.fetch(count, options.table))[0][0] < 39:  # noqa: ASYNC110 - the server's
            await asyncio.sleep(0.05)
    updates, in_place = (await database.fetch(count, options.table))[0]
    assert in_place >= 0.9 * updates


# --- keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["ada:\0", "ada:t\0x", "ada:\ud800"])
async def test_what_is_no_text_of_the_database_is_no_key(
    backend: PostgresBackend, key: str
) -> None:
    """It is refused before it reaches a batch."""
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


# --- connections, loops, closing -----------------------------------------------------------------


async def test_there_are_never_more_connections_than_the_pool_has(
    postgres_server: PostgresServer, options: PostgresOptions, witness: Witness
) -> None:
    """However much is asked for at once."""
    backend = PostgresBackend(
        postgres_server.url, replace(options, pool=2), connect=witness.connect
    )
    await asyncio.gather(
        *(backend.put(f"ada:t{number}", b"x") for number in range(50)),
        *(backend.list_by_prefix("ada:") for _ in range(50)),
        *(backend.delete(f"ada:u{number}") for number in range(50)),
    )
    await backend.close()

    assert witness.opened == 2
    assert witness.closed == 2


def test_several_loops_may_use_it_one_after_the_other(
    postgres_server: PostgresServer,
) -> None:
    """As tests do, and scripts that call `asyncio.run` twice; nothing is left open."""
    backend = PostgresBackend(postgres_server.url, PostgresOptions(table="loops"))

    assert [asyncio.run(backend.put("ada:t1", b"x")) for _ in range(3)] == [1, 2, 3]
    assert asyncio.run(backend.get("ada:t1")).version == 3
    asyncio.run(_drop(postgres_server.url, "loops"))
    asyncio.run(backend.close())
    gc.collect()


def test_a_loop_that_ends_in_mid_write_leaves_no_trace(postgres_server: PostgresServer) -> None:
    """The next loop finds the record whole, and nothing is left open."""
    backend = PostgresBackend(postgres_server.url, PostgresOptions(table="ended"))

    async def leave(turns: int) -> None:
        await backend.get("ada:t1")
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
    asyncio.run(_drop(postgres_server.url, "ended"))
    asyncio.run(backend.close())
    gc.collect()


async def test_a_forgotten_backend_closes_its_connections(
    postgres_server: PostgresServer, options: PostgresOptions, witness: Witness
) -> None:
    """Whoever never closes it still leaks nothing."""
    await PostgresBackend(postgres_server.url, options, connect=witness.connect).put("a:t", b"x")

    async with asyncio.timeout(5):
        while not witness.all_are_closed:
            gc.collect()
            await asyncio.sleep(0.01)


async def test_a_second_running_loop_is_told_to_reopen(backend: PostgresBackend) -> None:
    """Two loops at once would give each other's futures away."""
    with pytest.raises(ConfigurationError, match=r"reopen\(\)"):
        await asyncio.to_thread(asyncio.run, _put(backend))


async def test_a_password_can_be_fetched_for_each_connection(
    postgres_server: PostgresServer, options: PostgresOptions
) -> None:
    """As clouds give them out, for minutes at a time."""
    asked = 0

    async def token() -> str:
        nonlocal asked
        asked += 1
        return "token"

    backend = PostgresBackend(
        postgres_server.url, options, connect=partial(connect, password=token)
    )
    assert await backend.put("ada:t1", b"x") == 1
    await backend.close()
    # The server here asks for none; that it is handed on is all that can be seen.
    assert asked <= 1


async def test_its_repr_says_where_it_is_and_shows_no_password() -> None:
    """It is logged at start."""
    shown = repr(PostgresBackend("postgresql://ada:secret@db.example.com/tasks"))

    assert shown == "PostgresBackend(db.example.com:5432/tasks, table='mcp_tasks')"


# --- hints ---------------------------------------------------------------------------------------


async def test_a_batch_is_announced_once(
    postgres_server: PostgresServer, options: PostgresOptions, witness: Witness
) -> None:
    """And after it was written: whoever reads on hearing of it finds it."""
    backend = NotifyingPostgresBackend(postgres_server.url, options, connect=witness.connect)
    await backend.put("ada:t0", b"x")
    await asyncio.sleep(0.05)
    witness.statements.clear()

    await asyncio.gather(*(backend.put(f"ada:t{number}", b"x") for number in range(100)))
    await backend.close()

    assert len([said for said in witness.statements if "pg_notify" in said]) == 1


async def test_closing_ends_those_who_watch(
    postgres_server: PostgresServer, options: PostgresOptions
) -> None:
    """A server that shuts down is not held up by them."""
    backend = NotifyingPostgresBackend(postgres_server.url, options)
    heard = 0

    async def watch() -> None:
        nonlocal heard
        async for _ in backend.watch():
            heard += 1

    watching = asyncio.create_task(watch())
    async with asyncio.timeout(5):
        while not heard:  # noqa: ASYNC110 - an event would be heard too early
            await asyncio.sleep(0.005)
        await backend.close()
        await watching


def test_hints_need_connections_that_stay() -> None:
    """A proxy that shares them would deliver nothing, without a word."""
    with pytest.raises(ConfigurationError, match="prepared=false"):
        NotifyingPostgresBackend(None, PostgresOptions(prepared=False))


async def _put(backend: PostgresBackend) -> int:
    return await backend.put("ada:t2", b"x")


async def _drop(url: str, table: str) -> None:
    connection = await connect(url)
    await connection.execute(f"DROP TABLE {table}")
    await connection.close()


if shutil.which("pgbouncer"):
    from tests.storage.postgres.bouncer import PgBouncer

    class TestBehindPgBouncer(StorageBackendContract, ReopenableContract):
        """The contract through a proxy that gives every transaction another connection."""

        @pytest.fixture(scope="class")
        @classmethod
        def bouncer(cls, postgres_server: PostgresServer) -> Iterator[PgBouncer]:
            """Give that proxy."""
            with PgBouncer(postgres_server) as bouncer:
                yield bouncer

        @pytest.fixture
        async def backend(
            self, bouncer: PgBouncer, options: PostgresOptions
        ) -> AsyncIterator[PostgresBackend]:
            """Give an empty table."""
            backend = PostgresBackend(bouncer.url, replace(options, prepared=False))
            yield backend
            await backend.close()

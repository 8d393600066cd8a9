"""The SQLite backend: the contract, and what is its own."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import apsw
import pytest

from mcp_tasks.errors import (
    ConfigurationError,
    OutcomeUnknownError,
    StorageError,
    StorageFullError,
    StorageUnavailableError,
)
from mcp_tasks.storage.base import StoredRecord
from mcp_tasks.storage.sqlite import SqliteBackend
from mcp_tasks.storage.sqlite.backend import BACKWARD, FORWARD
from mcp_tasks.storage.sqlite.file import DriverErrors, mapped_exceptions
from mcp_tasks.testing import (
    ChangeSourceContract,
    ReopenableContract,
    StorageBackendContract,
)


if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator
    from pathlib import Path


LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)


class TestSqliteBackend(StorageBackendContract, ReopenableContract, ChangeSourceContract):
    """The contract over a file."""

    @pytest.fixture
    async def backend(self, tmp_path: Path) -> AsyncIterator[SqliteBackend]:
        """Give an empty file."""
        backend = SqliteBackend(tmp_path / "tasks.db")
        yield backend
        await backend.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file will be."""
    return tmp_path / "tasks.db"


@pytest.fixture
async def backend(path: Path) -> AsyncIterator[SqliteBackend]:
    """Give an empty file."""
    backend = SqliteBackend(path)
    yield backend
    await backend.close()


class Witness:
    """Sees every connection that is opened, and can make its commits fail."""

    def __init__(self) -> None:
        self.connections: list[apsw.Connection] = []
        self.commits = 0
        self.refusing = False

    def meet(self, connection: apsw.Connection) -> None:
        """Watch a new connection."""
        self.connections.append(connection)
        connection.set_commit_hook(self._committing)

    def _committing(self) -> bool:
        self.commits += 1
        return self.refusing


@pytest.fixture
def witness(monkeypatch: pytest.MonkeyPatch) -> Witness:
    """Watch the connections of this test."""
    witness = Witness()
    monkeypatch.setattr(apsw, "connection_hooks", [witness.meet])
    return witness


@contextmanager
def another_process_writes(path: Path) -> Generator[None]:
    """Hold the lock for writing, as another process would in its transaction."""
    other = apsw.Connection(str(path))
    other.execute("BEGIN IMMEDIATE").fetchall()
    try:
        yield
    finally:
        other.execute("ROLLBACK").fetchall()
        other.close()


# --- group commit --------------------------------------------------------------------------------


async def test_writes_of_one_turn_are_one_commit(backend: SqliteBackend, witness: Witness) -> None:
    """What belongs to one step of a task costs one flush of the disk."""
    await backend.put("ada:t0", b"x")
    witness.commits = 0

    await asyncio.gather(
        backend.put("ada:t1", b"x"),
        backend.put_if_version("ada:t2", b"x", 0),
        backend.delete("ada:t0"),
    )

    assert witness.commits == 1


async def test_writes_of_tasks_started_in_one_turn_are_one_commit(
    backend: SqliteBackend, witness: Witness
) -> None:
    """Also where a write is the first thing that a new task does."""
    await backend.put("ada:t0", b"x")
    witness.commits = 0

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(backend.put("ada:t1", b"x"))
        tasks.create_task(backend.put("ada:t2", b"x"))
        await backend.put("ada:t3", b"x")

    assert witness.commits == 1


async def test_writes_that_wait_for_a_commit_share_the_next(
    backend: SqliteBackend, path: Path, witness: Witness
) -> None:
    """However many turns they came in."""
    await backend.put("ada:t0", b"x")
    with another_process_writes(path):
        witness.commits = 0
        writes = [asyncio.create_task(backend.put("ada:t1", b"x"))]
        for number in range(2, 12):
            await asyncio.sleep(0.001)
            writes.append(asyncio.create_task(backend.put(f"ada:t{number}", b"x")))

    await asyncio.gather(*writes)

    assert witness.commits == 2


async def test_a_lone_caller_does_not_wait_for_company(path: Path) -> None:
    """Lingering is for the crowd: one write after the other goes out at once."""
    backend = SqliteBackend(path, linger=30)
    async with asyncio.timeout(5):
        for _ in range(3):
            await backend.put("ada:t1", b"x")
            await asyncio.gather(backend.put("ada:t2", b"x"), backend.put("ada:t3", b"x"))
        await backend.close()


async def test_large_batches_are_written_as_small_ones_are(backend: SqliteBackend) -> None:
    """Many writes at once, and large ones, take another way to the same end."""
    large = bytes(300_000)

    versions = await asyncio.gather(
        *(backend.put(f"ada:t{number:04d}", b"x") for number in range(1500)),
        backend.put("ada:large", large),
    )

    assert versions == [1] * 1501
    assert (await backend.get("ada:large")).data == large


async def test_an_acknowledged_write_is_committed(backend: SqliteBackend, path: Path) -> None:
    """Whoever is told can tell anybody, who then finds it by a connection of their own."""
    await backend.put("ada:t1", b"x")
    other = apsw.Connection(str(path))
    for version in range(2, 40):
        await backend.put("ada:t1", b"x")
        seen = other.execute("SELECT version FROM records").fetchall()
        assert seen == [(version,)]
    other.close()


async def test_commits_are_flushed_to_the_disk(backend: SqliteBackend, witness: Witness) -> None:
    """A write-ahead log, flushed with each commit: what is acknowledged survives a power loss."""
    await backend.put("ada:t1", b"x")

    writer = witness.connections[0]
    assert writer.pragma("journal_mode") == "wal"
    assert writer.pragma("synchronous") == 2
    assert writer.pragma("mmap_size") in (None, 0)


def test_the_sqlite_inside_is_one_without_the_wal_reset_bug() -> None:
    """Before 3.51.3 two processes that wrote at once could damage the file."""
    assert tuple(map(int, apsw.sqlite_lib_version().split("."))) >= (3, 51, 3)


# --- failures ------------------------------------------------------------------------------------


async def test_the_writer_survives_a_failing_commit(
    backend: SqliteBackend, witness: Witness
) -> None:
    """Every caller of the transaction is told, and the next transaction is a new one."""
    await backend.put("ada:t1", b"one")
    witness.refusing = True
    async with asyncio.timeout(5):
        outcomes = await asyncio.gather(
            backend.put("ada:t1", b"two"),
            backend.put_if_version("ada:t2", b"two", 0),
            backend.put_if_version("ada:t1", b"two", 99),
            return_exceptions=True,
        )
    witness.refusing = False

    assert [type(outcome) for outcome in outcomes] == [OutcomeUnknownError] * 3
    assert await backend.put("ada:t1", b"three") == 2
    assert await backend.put_if_version("ada:t2", b"new", 0) == 1


async def test_a_commit_of_unknown_outcome_names_the_key(
    backend: SqliteBackend, witness: Witness
) -> None:
    """And has the driver's error as its cause."""
    await backend.put("ada:t1", b"one")
    witness.refusing = True

    with pytest.raises(OutcomeUnknownError) as caught:
        await backend.put("ada:t2", b"two")

    assert caught.value.key == "ada:t2"
    assert isinstance(caught.value.__cause__, apsw.Error)


async def test_a_write_waits_for_another_process(backend: SqliteBackend, path: Path) -> None:
    """And reads go on meanwhile."""
    await backend.put("ada:t1", b"one")
    with another_process_writes(path):
        write = asyncio.create_task(backend.put("ada:t1", b"two"))
        for _ in range(20):
            await asyncio.sleep(0.001)
            assert await backend.get("ada:t1") == StoredRecord("ada:t1", b"one", 1)
        assert not write.done()

    async with asyncio.timeout(5):
        assert await write == 2


async def test_a_database_locked_for_too_long_is_not_available(path: Path) -> None:
    """Nothing was written then, and it works again when the lock is gone."""
    backend = SqliteBackend(path, busy_timeout=0.05)
    await backend.put("ada:t1", b"one")
    with another_process_writes(path):
        async with asyncio.timeout(5):
            outcomes = await asyncio.gather(
                backend.put("ada:t1", b"two"), backend.delete("ada:t1"), return_exceptions=True
            )

    assert [type(outcome) for outcome in outcomes] == [StorageUnavailableError] * 2
    assert await backend.get("ada:t1") == StoredRecord("ada:t1", b"one", 1)
    assert await backend.put("ada:t1", b"two") == 2
    await backend.close()


async def test_a_full_disk_is_said_to_be_full(
    backend: SqliteBackend, witness: Witness, path: Path
) -> None:
    """Nothing was written, reads go on, and so do writes once there is room."""
    await backend.put("ada:t1", b"one")
    writer = witness.connections[0]
    writer.pragma("max_page_count", 8)

    with pytest.raises(StorageFullError, match=r"tasks\.db is full") as caught:
        await backend.put("ada:t2", bytes(100_000))

    assert caught.value.where == str(path)
    assert await backend.get("ada:t1") == StoredRecord("ada:t1", b"one", 1)
    assert await backend.put_if_version("ada:t2", b"two", 0) == 1


def test_every_exception_of_the_driver_has_its_meaning() -> None:
    """A new one is looked at before it reaches a user as something else."""
    public = {
        found
        for found in vars(apsw).values()
        if isinstance(found, type) and issubclass(found, apsw.Error) and found is not apsw.Error
    }

    # ExecTraceAbort and others are errors of the driver too, without a code of SQLite.
    assert public - set(mapped_exceptions()) == set()


def test_a_driver_error_becomes_one_of_ours(path: Path) -> None:
    """Whatever it is, with the file's name and the driver's words."""
    errors = DriverErrors(path)
    for kind in mapped_exceptions():
        with pytest.raises(StorageError) as caught, errors:
            raise kind("the driver's words")
        assert isinstance(caught.value.__cause__, kind)


# --- loops, threads, closing ---------------------------------------------------------------------


def test_several_loops_may_use_it_one_after_the_other(path: Path) -> None:
    """As tests do, and scripts that call `asyncio.run` twice."""
    backend = SqliteBackend(path)

    assert [asyncio.run(backend.put("ada:t1", b"x")) for _ in range(3)] == [1, 2, 3]
    assert asyncio.run(backend.get("ada:t1")).version == 3
    asyncio.run(backend.close())


def test_a_loop_that_ends_in_mid_write_leaves_no_trace(path: Path) -> None:
    """The next loop finds the record whole, and the writer idle."""
    backend = SqliteBackend(path)

    async def leave(turns: int) -> None:
        task = asyncio.create_task(backend.put("ada:t1", b"x"))
        for _ in range(turns):
            await asyncio.sleep(0)
        # Forgotten on purpose: the end of the loop cancels it.
        del task

    async def look() -> int:
        async with asyncio.timeout(5):
            return await backend.put("ada:t1", b"y")

    version = asyncio.run(backend.put("ada:t1", b"x"))
    for turns in range(6):
        asyncio.run(leave(turns))
        found = asyncio.run(look())
        assert found in (version + 1, version + 2)
        version = found
    asyncio.run(backend.close())


async def test_a_second_running_loop_is_told_to_reopen(backend: SqliteBackend) -> None:
    """Two loops at once would give each other's futures away."""
    await backend.put("ada:t1", b"x")

    with pytest.raises(ConfigurationError, match=r"reopen\(\)"):
        await asyncio.to_thread(asyncio.run, _put(backend))


async def test_a_forgotten_backend_takes_its_thread_with_it(path: Path) -> None:
    """Whoever never closes it still leaks nothing."""
    before = threading.active_count()
    await SqliteBackend(path).put("ada:t1", b"x")
    gc.collect()

    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        await asyncio.sleep(0.005)
        gc.collect()
    assert threading.active_count() == before


async def test_closing_leaves_one_file(backend: SqliteBackend, path: Path) -> None:
    """The log is folded into the database, so that a copy of the one file is a copy of all."""
    await backend.put("ada:t1", b"x")
    await backend.close()

    assert [file.name for file in path.parent.iterdir()] == ["tasks.db"]


async def test_cleaning_up_lets_writers_through(backend: SqliteBackend, witness: Witness) -> None:
    """Many expired records go in several transactions, none of which is long."""
    await asyncio.gather(
        *(backend.put(f"ada:t{number}", b"x", expires_at=LONG_AGO) for number in range(900))
    )
    witness.commits = 0

    assert await backend.cleanup_expired(datetime(2002, 1, 1, tzinfo=UTC)) == 900
    assert witness.commits >= 3


async def test_listing_reads_the_index_and_no_more(backend: SqliteBackend, path: Path) -> None:
    """A page costs the same among ten records and ten million."""
    await backend.put("ada:t1", b"x")
    seen: list[str] = []
    other = apsw.Connection(str(path))
    for statement in (FORWARD, BACKWARD):
        plan = other.execute(f"EXPLAIN QUERY PLAN {statement}", ("ada:", "ada;", 0, 10))
        seen += [str(row[3]) for row in plan.fetchall()]
    other.close()

    assert len(seen) == 2
    for step in seen:
        assert step.startswith("SEARCH records USING INDEX")
        assert "key>? AND key<?" in step


async def _put(backend: SqliteBackend) -> int:
    return await backend.put("ada:t2", b"x")

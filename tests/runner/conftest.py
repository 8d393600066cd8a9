"""A stand for runners: a store, bodies as plain functions, and links that can be cut.

Several runners on one stand are like several processes: each has a `TaskStore` of its own, and its
own link to the database. So what one of them does reaches the others only by what is stored.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any, Literal

import pytest
from msgspec import Raw

from mcp_tasks.domain.record import Call, Policy, inline
from mcp_tasks.errors import MCPTasksError, OutcomeUnknownError, StorageUnavailableError
from mcp_tasks.jsonio import from_json, to_json
from mcp_tasks.runner import Completed, Runner, RunnerConfig
from mcp_tasks.storage.base import Capabilities
from mcp_tasks.storage.memory import MemoryBackend
from mcp_tasks.storage.sqlite import SqliteBackend
from mcp_tasks.store import StoreConfig, TaskStore


if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime, timedelta
    from pathlib import Path

    from mcp_tasks.clock import Clock
    from mcp_tasks.context import TaskContext
    from mcp_tasks.domain.record import TaskRecord
    from mcp_tasks.runner import Body, Outcome, TaskRun
    from mcp_tasks.storage.base import Page, StorageBackend, StoredRecord

    Kind = Literal["memory", "shared", "sqlite"]


OWNER = "ada"
LIMIT = 20.0
"""Seconds after which a wait has failed."""

FAST = RunnerConfig(
    beat=0.2,
    fence=0.5,
    lease=1.0,
    scan=0.2,
    look=0.05,
    cancel_grace=0.3,
    drain=5.0,
    get_hold=0.05,
    progress_every=0.2,
)
"""The usual proportions, in tenths of a second."""

CLIENT = inline(to_json({"elicitation": {}, "sampling": {}}, what="x", max_bytes=99)).inline


class SharedMemory(MemoryBackend):
    """Memory that says of itself that it is a shared database, so that workers hold leases."""

    capabilities = Capabilities(
        durable=True, shared=True, max_record_bytes=400_000, native_expiry=False
    )


class Link:
    """One process's connection to a database, which a test can disturb.

    Attributes:
        before: Called with the operation's name and key before it is passed on; may wait or raise.
        after: The same afterwards, before the caller hears of it.
        calls: Every operation so far.
    """

    def __init__(self, inner: StorageBackend, folder: Path) -> None:
        self._inner = inner
        self.capabilities = inner.capabilities
        self.lock_directory = folder
        self.before: Callable[[str, str], Awaitable[None]] | None = None
        self.after: Callable[[str, str], Awaitable[None]] | None = None
        self.calls: list[tuple[str, str]] = []
        self._restored = asyncio.Event()
        self._restored.set()

    def hang(self) -> None:
        """Answer nothing from now on, as if the process were stopped or the network cut."""
        self._restored.clear()

    def restore(self) -> None:
        """Answer again; what waited goes through now."""
        self._restored.set()

    def fail(self) -> None:
        """Refuse everything from now on."""

        async def refuse(_operation: str, _key: str) -> None:
            raise StorageUnavailableError("the link is cut")

        self.before = refuse

    def lose_replies(self, part: str, times: int = 1) -> None:
        """Carry the next swaps of keys with `part` out, and say that nobody answered."""
        left = times

        async def lose(operation: str, key: str) -> None:
            nonlocal left
            if left and operation == "put_if_version" and part in key:
                left -= 1
                raise OutcomeUnknownError(key, "the reply was lost")

        self.after = lose

    def heal(self) -> None:
        """Disturb nothing any more."""
        self.before = self.after = None
        self.restore()

    async def _around(self, operation: str, key: str, act: Callable[[], Awaitable[Any]]) -> Any:
        self.calls.append((operation, key))
        await asyncio.sleep(0)  # memory answers at once; a database does not
        await self._restored.wait()
        if self.before is not None:
            await self.before(operation, key)
        result = await act()
        if self.after is not None:
            await self.after(operation, key)
        return result

    async def get(self, key: str) -> StoredRecord:
        """Pass on."""
        return await self._around("get", key, lambda: self._inner.get(key))

    async def put(self, key: str, data: bytes, *, expires_at: datetime | None = None) -> int:
        """Pass on."""
        put = self._inner.put
        return await self._around("put", key, lambda: put(key, data, expires_at=expires_at))

    async def put_if_version(
        self, key: str, data: bytes, expected_version: int, *, expires_at: datetime | None = None
    ) -> int:
        """Pass on."""
        put = self._inner.put_if_version
        return await self._around(
            "put_if_version", key, lambda: put(key, data, expected_version, expires_at=expires_at)
        )

    async def delete(self, key: str) -> bool:
        """Pass on."""
        return await self._around("delete", key, lambda: self._inner.delete(key))

    async def list_by_prefix(
        self, prefix: str, *, limit: int = 100, after: str | None = None, reverse: bool = False
    ) -> Page:
        """Pass on."""
        listing = self._inner.list_by_prefix
        return await self._around(
            "list", prefix, lambda: listing(prefix, limit=limit, after=after, reverse=reverse)
        )

    async def cleanup_expired(self, now: datetime) -> int:
        """Pass on."""
        return await self._inner.cleanup_expired(now)

    async def close(self) -> None:
        """Leave the database open: it is the stand's."""


class Stand:
    """One database, and as many runners on it as a test wants.

    Attributes:
        store: The test's own store, as of a process that only serves.
        log: What bodies wrote down, in order.
    """

    owner = OWNER
    fast = FAST
    rerun = Policy(on_worker_loss="rerun")
    resumable = Policy(resumable=True)

    def __init__(self, kind: Kind, folder: Path) -> None:
        self.folder = folder
        self.log: list[Any] = []
        self.config = StoreConfig(max_active=5000, settle=2.0)
        self._kind = kind
        self._bodies: dict[str, Body] = {}
        self._runners: dict[Runner, Link | None] = {}
        self._stack = AsyncExitStack()
        self.backend: StorageBackend
        if kind == "sqlite":
            self.backend = SqliteBackend(folder / "tasks.db")
        else:
            self.backend = SharedMemory() if kind == "shared" else MemoryBackend()
        self.store = TaskStore(self.backend, config=self.config)

    # --- bodies ----------------------------------------------------------------------------------

    def tool(self, fn: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """Register a coroutine function of a context and arguments as a tool."""

        async def body(run: TaskRun) -> Outcome:
            return Completed({"value": await fn(run.task, **run.arguments)})

        self._bodies[fn.__name__] = body
        return fn

    def body(self, name: str, body: Body) -> None:
        """Register a body as it is."""
        self._bodies[name] = body

    # --- runners ---------------------------------------------------------------------------------

    async def runner(
        self,
        *,
        config: RunnerConfig = FAST,
        without: tuple[str, ...] = (),
        around: Callable[[TaskContext], AbstractAsyncContextManager[Any]] | None = None,
        worker: bool = True,
        store: TaskStore | None = None,
        clock: Clock | None = None,
    ) -> Runner:
        """Start one more runner, with a store and a link of its own where there are several."""
        link: Link | None = None
        if store is None and self._kind == "memory":
            store = self.store
        elif store is None:
            backend = self.backend
            if isinstance(backend, SqliteBackend):
                backend = backend.reopen()
                self._stack.push_async_callback(backend.close)
            else:
                backend = link = Link(backend, self.folder)
            store = TaskStore(backend, config=self.config, clock=clock)
        runner = Runner(
            store,
            lambda name: None if name in without else self._bodies.get(name),
            config=config,
            around=around,
            worker=worker,
        )
        await runner.start()
        self._runners[runner] = link
        return runner

    def link(self, runner: Runner) -> Link:
        """Return the link of a runner."""
        link = self._runners[runner]
        assert link is not None
        return link

    async def stop(self, runner: Runner) -> None:
        """Stop a runner now."""
        del self._runners[runner]
        await runner.drain(0)
        await runner.stop()
        await runner.store.close()

    async def close(self) -> None:
        """Stop everything."""
        for runner, link in list(self._runners.items()):
            if link is not None:
                link.heal()
            await self.stop(runner)
        await self.store.close()
        await self._stack.aclose()
        await self.backend.close()

    # --- tasks -----------------------------------------------------------------------------------

    def call(self, tool: str, **arguments: Any) -> Call:
        """Make a call of a client that can be asked things."""
        encoded = self.store.encode(arguments, what="arguments")
        return Call(tool, encoded, client_capabilities=CLIENT)

    async def create(
        self,
        on: Runner | None,
        tool: str,
        *,
        policy: Policy | None = None,
        ttl: timedelta | None = None,
        **arguments: Any,
    ) -> str:
        """Create a task at a runner, or by a process that runs nothing; returns its id."""
        call, policy = self.call(tool, **arguments), policy or Policy()
        if on is None:
            return (await self.store.create(OWNER, call, policy=policy, ttl=ttl)).task_id
        return (await on.create(OWNER, call, policy=policy, ttl=ttl)).task_id

    async def get(self, task_id: str) -> TaskRecord:
        """Return a task as a process that only serves sees it."""
        return await self.store.get(OWNER, task_id)

    async def value(self, task_id: str) -> Any:
        """Wait for a task to complete and return what its body did."""
        record = await self.ended(task_id)
        assert record.status == "completed", record.error
        return (await self.store.get_result(OWNER, task_id))["value"]

    async def ended(self, task_id: str) -> TaskRecord:
        """Wait until a task has ended."""
        return await self.reached(task_id, lambda record: record.is_terminal)

    async def reached(self, task_id: str, is_there: Callable[[TaskRecord], bool]) -> TaskRecord:
        """Wait until a task's record is as wanted."""
        deadline = time.monotonic() + LIMIT
        while True:
            with suppress(MCPTasksError):
                record = await self.get(task_id)
                if is_there(record):
                    return record
                assert time.monotonic() < deadline, record
            await asyncio.sleep(0.005)

    @staticmethod
    def error_data(record: TaskRecord) -> dict[str, Any]:
        """Return the data of the error that a task ended with."""
        assert record.error is not None
        assert isinstance(record.error.data, Raw)
        return from_json(record.error.data)

    async def until(self, is_true: Callable[[], bool]) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + LIMIT
        while not is_true():
            assert time.monotonic() < deadline, self.log
            await asyncio.sleep(0.005)

    async def keys(self, part: str) -> list[str]:
        """Return the keys of one of our own partitions, such as `@ready`."""
        if part.startswith(("@runs", "@inbox")):
            workers = await self.keys("@workers:")
            found: list[str] = []
            for worker in workers:
                page = await self.backend.list_by_prefix(f"{part}.{worker.partition(':')[2]}:")
                found += [record.key for record in page.records]
            return found
        page = await self.backend.list_by_prefix(part)
        return [record.key for record in page.records]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Runners are asyncio's."""
    return "asyncio"


@pytest.fixture(params=["memory", "shared", "sqlite"])
async def stand(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stand]:
    """Make a stand without a worker's lease, with one, and with one in a file."""
    stand = Stand(request.param, tmp_path)
    yield stand
    await stand.close()


@pytest.fixture
async def alone(tmp_path: Path) -> AsyncIterator[Stand]:
    """Make a stand in memory, where nobody else can be."""
    stand = Stand("memory", tmp_path)
    yield stand
    await stand.close()


@pytest.fixture
async def shared(tmp_path: Path) -> AsyncIterator[Stand]:
    """Make a stand whose links can be disturbed."""
    stand = Stand("shared", tmp_path)
    yield stand
    await stand.close()

"""The life of store and runner: from the first connection on an event loop to the last.

A lifespan is entered once by HTTP servers, and once for each connection on stdio and in process. So
the first entry starts everything, further entries are counted, and the last exit drains and stops.

All of it lives in a task of its own, for what is entered there (the server's own lifespan, above
all) must be left by the task that entered it. The runner holds that entry of the lifespan, since
tasks outlive connections; the first connection shares it, which makes it the only one on HTTP and
on stdio, and further connections enter their own.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR

from mcp_tasks.errors import StorageUnavailableError, StoreUnavailableError
from mcp_tasks.runner import Runner
from mcp_tasks.server.execution import Execution
from mcp_tasks.server.owners import is_local
from mcp_tasks.server.places import ENVIRONMENT
from mcp_tasks.server.shutdown import TermSignal
from mcp_tasks.storage.base import Checkable


if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager

    from mcp_tasks.context import TaskContext
    from mcp_tasks.runner import Body, RunnerConfig
    from mcp_tasks.server.execution import CallHandler
    from mcp_tasks.server.places import Place
    from mcp_tasks.storage.base import StorageBackend
    from mcp_tasks.store import TaskStore

    EnterLifespan = Callable[[], AbstractAsyncContextManager[Any]]


_log = logging.getLogger("mcp_tasks.server")

STDIO_DRAIN = 1.0
"""Seconds to drain without HTTP. Clients close stdin, wait two seconds, and kill."""

only_runs: ContextVar[list[Host] | None] = ContextVar("only_runs", default=None)
"""Set in a process that serves nobody: its hosts run tasks whatever `worker` says, drain for the
whole time that is configured, and are noted here when they have started."""


@dataclass(frozen=True)
class Setup:
    """What a host is made of.

    Attributes:
        place: Where the tasks are.
        handler: What serves `tools/call`.
        has_tool: Tells whether the server has a tool.
        serves_http: Tells whether an HTTP application was made of the server.
        config: Of the runner.
        worker: Whether tasks are run here.
        around: Entered around every run of a tool.
        signals: Whether SIGTERM starts the drain.
    """

    place: Place
    handler: CallHandler
    has_tool: Callable[[str], bool]
    serves_http: Callable[[], bool]
    config: RunnerConfig
    worker: bool
    around: Callable[[TaskContext], AbstractAsyncContextManager[Any]] | None
    signals: bool


class Host:
    """Store and runner on one event loop.

    Attributes:
        store: The store.
        runner: The runner, started.
        is_local: The store is on this machine.
        is_http: Some request came over HTTP, or may.
    """

    def __init__(self, setup: Setup, store: TaskStore, lifespan_context: Any) -> None:
        hosts = only_runs.get()
        self.store = store
        self.is_local = is_local(store.backend)
        self.is_http = setup.serves_http()
        self.lifespan_context = lifespan_context
        self._config = setup.config
        self._only_runs = hosts is not None
        self._execution = Execution(
            setup.handler,
            lifespan_context,
            limiter=lambda: self.runner.limiter,
            max_result_bytes=store.config.max_payload_bytes,
        )
        self._has_tool = setup.has_tool
        self.runner = Runner(
            store,
            self._find_body,
            config=setup.config,
            around=setup.around,
            worker=setup.worker or hosts is not None,
        )
        if hosts is not None:
            hosts.append(self)

    def _find_body(self, tool: str) -> Body | None:
        return self._execution if self._has_tool(tool) else None

    async def drain(self) -> None:
        """Let running tasks finish for the time there is, and hand back the others."""
        seconds = self._config.drain
        if not (self.is_http or self._only_runs):
            seconds = min(STDIO_DRAIN, seconds)
        await self.runner.drain(seconds)


class Hosts:
    """The hosts of one server, by event loop.

    Args:
        setup: Called when the first transport starts.
    """

    def __init__(self, setup: Callable[[], Setup]) -> None:
        self._setup = setup
        self._lives: dict[asyncio.AbstractEventLoop, _Life] = {}

    def find(self) -> Host | None:
        """Return the host of the running loop, if it was started."""
        life = self._lives.get(asyncio.get_running_loop())
        return None if life is None else life.host

    def current(self) -> Host:
        """Return the host of the running loop.

        Raises:
            MCPError: Nothing was started.
        """
        host = self.find()
        if host is None:
            raise MCPError(
                INTERNAL_ERROR,
                "tasks are not started on this server: pass lifespan=tasks.lifespan() to "
                "MCPServer, or use Tasks.install(server)",
            )
        return host

    @asynccontextmanager
    async def entered(self, lifespan: EnterLifespan) -> AsyncGenerator[Any]:
        """Be one connection: yields what the server's own lifespan yields for it."""
        loop = asyncio.get_running_loop()
        life = self._lives.get(loop)
        is_first = life is None
        if life is None:
            life = self._lives[loop] = _Life(self._setup, lifespan)
        life.entries += 1
        try:
            host = await asyncio.shield(life.started)
            if is_first:
                yield host.lifespan_context
            else:
                async with lifespan() as value:
                    yield value
        finally:
            life.entries -= 1
            if life.entries == 0:
                del self._lives[loop]
                with anyio.CancelScope(shield=True):
                    await life.end()


async def _look_at(backend: StorageBackend) -> None:
    """Find out now, and not at the first task, what is wrong with the database.

    Raises:
        ConfigurationError: It cannot work.
        StorageUnavailableError: It did not answer.
    """
    if isinstance(backend, Checkable):
        for warning in await backend.check():
            _log.warning("%s", warning)


def _named(error: Exception, place: Place) -> Exception:
    """Return it for whoever starts a server: where it is, what to do, and no frames of ours."""
    _log.debug("the database cannot be reached", exc_info=error)
    if isinstance(error.__cause__, StorageUnavailableError):
        error = error.__cause__
    error.add_note(
        f"This server keeps its tasks in {place}. Start that database, or name another store with "
        f"store=… or {ENVIRONMENT}."
    )
    return error.with_traceback(None)


class _Life:
    """One host, in its own task, for as long as there are entries."""

    def __init__(self, setup: Callable[[], Setup], lifespan: EnterLifespan) -> None:
        self.entries = 0
        self.host: Host | None = None
        self.started: asyncio.Future[Host] = asyncio.get_running_loop().create_future()
        self._over = asyncio.Event()
        self._task = asyncio.create_task(self._live(setup, lifespan), name="mcp-tasks host")

    async def end(self) -> None:
        """Stop, and wait for it."""
        self._over.set()
        await self._task

    async def _live(self, make_setup: Callable[[], Setup], lifespan: EnterLifespan) -> None:
        try:
            setup = make_setup()
            async with lifespan() as value:
                await self._serve(setup, value)
        except BaseException as error:
            if self.started.done():
                raise
            self.started.set_exception(error)

    async def _serve(self, setup: Setup, lifespan_context: Any) -> None:
        place = setup.place
        host = Host(setup, place.open(), lifespan_context)
        _log.info("tasks are kept in %s", place)
        term = TermSignal(host.drain)
        try:
            try:
                await _look_at(host.store.backend)
                await host.runner.start()
            except (StorageUnavailableError, StoreUnavailableError) as error:
                raise _named(error, place) from None
            try:
                if setup.signals:
                    term.install()
                self.host = host
                self.started.set_result(host)
                await self._over.wait()
            finally:
                await host.drain()
                await host.runner.stop()
                term.remove()
        finally:
            await place.close()

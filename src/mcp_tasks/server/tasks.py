"""`Tasks`: what people who write servers use of this library."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Self, TypeVar, overload

from mcp.server.extension import ToolBinding, compose_tool_call_handler
from mcp.server.mcpserver import MCPServer

from mcp_tasks.errors import ConfigurationError
from mcp_tasks.runner import RunnerConfig
from mcp_tasks.server.arguments import check_arguments, check_server
from mcp_tasks.server.extension import TasksExtension
from mcp_tasks.server.hosts import Hosts, Setup
from mcp_tasks.server.middleware import call_handler, has_tool, install, middleware, serves_http
from mcp_tasks.server.options import TaskTool
from mcp_tasks.server.places import Place, caller_file
from mcp_tasks.server.tools import wrap
from mcp_tasks.store import StoreConfig, TaskStore


if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import timedelta

    from mcp.server.context import ServerMiddleware
    from mcp.server.lowlevel import Server
    from mcp_types import Icon, ToolAnnotations

    from mcp_tasks.context import TaskContext
    from mcp_tasks.server.execution import CallHandler
    from mcp_tasks.server.middleware import AnyServer, Lifespan
    from mcp_tasks.server.owners import OwnerOf
    from mcp_tasks.storage.base import StorageBackend

    AroundRun = Callable[[TaskContext], AbstractAsyncContextManager[Any]]

F = TypeVar("F", bound="Callable[..., Any]")
P = ParamSpec("P")
R = TypeVar("R")
LifespanT = TypeVar("LifespanT")


class Tasks(TasksExtension):
    """Durable tasks for a server made with the official SDK.

    For a server that exists, one line: `tasks = Tasks.install(server, store="sqlite:///tasks.db")`.
    With public API of the SDK alone, for a new `MCPServer`:

    ```python
    tasks = Tasks(store="sqlite:///tasks.db")
    mcp = MCPServer(
        "reports",
        extensions=[tasks],
        middleware=[tasks.middleware],
        lifespan=tasks.lifespan(),
    )
    ```

    Nothing is opened before a transport starts.

    Args:
        store: A URL (`sqlite:///tasks.db`, `memory://`, `redis://…`), a backend, or a `TaskStore`.
            `None`: `$MCP_TASKS_STORE`, else the file `mcp-tasks/<namespace>.db` in the user's data
            directory. What was passed as an object is not closed.
        namespace: Whose tasks these are, when several servers share a store. By default the
            server's name; renaming the server then hides its tasks from it. A server without a
            name is told from others, in the default store, by the file that makes it.
        worker: Run tasks in this process; otherwise only serve them, and another one runs them.
        owner_of: A plain function that returns the owner of a request's tasks, or `None` for the
            rule of this library. A request for which it returns an empty name, or one of that
            rule's own (`anonymous`, `local`, `9:principal:…`), is refused.
        around_run: Entered around every run of a tool, as an async context manager given the
            `TaskContext`: for tracing, sessions, credentials.
        signals: Begin to drain when SIGTERM arrives. The handler that was there is called too.
        config: Limits and times of the store.
        runner_config: Limits and times of the runs.

    Raises:
        ConfigurationError: A setting that cannot work.
    """

    def __init__(
        self,
        store: str | StorageBackend | TaskStore | None = None,
        *,
        namespace: str | None = None,
        worker: bool = True,
        owner_of: OwnerOf | None = None,
        around_run: AroundRun | None = None,
        signals: bool = True,
        config: StoreConfig | None = None,
        runner_config: RunnerConfig | None = None,
    ) -> None:
        check_arguments(
            store=store,
            namespace=namespace,
            worker=worker,
            owner_of=owner_of,
            around_run=around_run,
            signals=signals,
            config=config,
            runner_config=runner_config,
        )
        super().__init__(Hosts(self._setup), owner_of)
        self._store = store
        self._namespace = namespace
        self._worker = worker
        self._around_run = around_run
        self._signals = signals
        self._config = config
        self._runner_config = runner_config or RunnerConfig()
        limits = store.config if isinstance(store, TaskStore) else config or StoreConfig()
        self._max_ttl = limits.max_ttl
        self._file = caller_file()
        self._server: AnyServer | None = None
        self._handler: CallHandler | None = None
        self._place: Place | None = None
        self._early_tools: list[ToolBinding] = []
        self._is_read = False

    @classmethod
    def install(
        cls,
        server: AnyServer,
        store: str | StorageBackend | TaskStore | None = None,
        *,
        namespace: str | None = None,
        worker: bool = True,
        owner_of: OwnerOf | None = None,
        around_run: AroundRun | None = None,
        signals: bool = True,
        config: StoreConfig | None = None,
        runner_config: RunnerConfig | None = None,
    ) -> Self:
        """Add tasks to a server that exists, an `MCPServer` or a low-level `Server`.

        Args:
            server: A low-level server must have its handler for `tools/call` by now.
            store: As in the constructor, like all that follows.
            namespace: See there.
            worker: See there.
            owner_of: See there.
            around_run: See there.
            signals: See there.
            config: See there.
            runner_config: See there.

        Raises:
            ConfigurationError: A setting that cannot work. The server was not changed.
        """
        check_server(server)
        tasks = cls(
            store,
            namespace=namespace,
            worker=worker,
            owner_of=owner_of,
            around_run=around_run,
            signals=signals,
            config=config,
            runner_config=runner_config,
        )
        tasks._bind(server, call_handler(server))
        return tasks

    # --- being part of a server ------------------------------------------------------------------

    @property
    def middleware(self) -> ServerMiddleware[Any]:
        """For `MCPServer(middleware=[…])`. `install` adds it by itself."""
        return middleware

    @overload
    def lifespan(self) -> Callable[[MCPServer[Any]], AbstractAsyncContextManager[Any]]: ...

    @overload
    def lifespan(
        self, lifespan: Callable[[MCPServer[LifespanT]], AbstractAsyncContextManager[LifespanT]]
    ) -> Callable[[MCPServer[LifespanT]], AbstractAsyncContextManager[LifespanT]]: ...

    def lifespan(
        self, lifespan: Callable[[MCPServer[Any]], AbstractAsyncContextManager[Any]] | None = None
    ) -> Callable[[MCPServer[Any]], AbstractAsyncContextManager[Any]]:
        """For `MCPServer(lifespan=…)`: starts and stops the tasks. `install` adds it by itself.

        Args:
            lifespan: The server's own. It is entered once for the tasks and the first connection
                together, and once more for every further connection.
        """
        inner = lifespan or _no_lifespan

        @asynccontextmanager
        async def entered(server: MCPServer[Any]) -> AsyncGenerator[Any]:
            if self._server is not server:
                self._adopt(server, call_handler(server))
            async with self._hosts.entered(lambda: inner(server)) as value:
                yield value

        return entered

    def tools(self) -> Sequence[ToolBinding]:
        """Hand the tools that were declared before the server was made over to it."""
        self._is_read = True
        return self._early_tools

    def _bind(self, server: AnyServer, handler: CallHandler) -> None:
        self._adopt(server, handler)

        def around(inner: Lifespan) -> Lifespan:
            @asynccontextmanager
            async def entered(target: Server[Any]) -> AsyncGenerator[Any]:
                async with self._hosts.entered(lambda: inner(target)) as value:
                    yield value

            return entered

        install(server, self, compose_tool_call_handler([self], handler), around)

    def _adopt(self, server: AnyServer, handler: CallHandler) -> None:
        if self._server is not None:
            raise ConfigurationError(
                f"these Tasks belong to the server {self._server.name!r}; make one for each server"
            )
        self._place = Place(
            self._store,
            namespace=self._namespace,
            server=server.name,
            file=self._file,
            config=self._config,
        )
        self._server = server
        self._handler = handler

    def _setup(self) -> Setup:
        server, handler, place = self._server, self._handler, self._place
        if server is None or handler is None or place is None:
            raise ConfigurationError("these Tasks belong to no server")
        return Setup(
            place=place,
            handler=handler,
            has_tool=lambda name: has_tool(server, name),
            serves_http=lambda: serves_http(server),
            config=self._runner_config,
            worker=self._worker,
            around=self._around_run,
            signals=self._signals,
        )

    # --- tools -----------------------------------------------------------------------------------

    def tool(
        self,
        name: str | None = None,
        *,
        title: str | None = None,
        description: str | None = None,
        annotations: ToolAnnotations | None = None,
        icons: list[Icon] | None = None,
        meta: dict[str, Any] | None = None,
        structured_output: bool | None = None,
        required: bool = False,
        ttl: timedelta | None = None,
        poll_interval: timedelta | None = None,
        resumable: bool = False,
        on_worker_loss: Literal["fail", "rerun"] = "fail",
        max_attempts: int = 3,
        external: bool = False,
        timeout: float | None = None,
    ) -> Callable[[F], F]:
        """Register a function as a tool that may run as a task, and return it unchanged.

        A parameter annotated `TaskContext` (`SyncTaskContext` in a plain `def`) is filled in and
        does not show in the tool's schema; the SDK's `Context` and `Resolve` work as ever.

        Args:
            name: The tool's name; the function's by default.
            title: As `MCPServer.tool` takes it, like all up to `structured_output`.
            description: See there.
            annotations: See there.
            icons: See there.
            meta: See there.
            structured_output: See there.
            required: Refuse clients that do not declare the extension. Otherwise they get the
                plain result, and the tool runs without a task.
            ttl: How long a task lives from its creation, at most `StoreConfig.max_ttl`.
            poll_interval: What clients are told to wait between polls.
            resumable: After a crash run the tool again from the top, where `task.step` and
                `task.elicit` return what was recorded.
            on_worker_loss: `fail` ends a task whose worker was lost, for the tool may have had
                effects; `rerun` runs the tool again.
            max_attempts: How many runs may be lost before the task is given up.
            external: The tool only starts work elsewhere, with `task.owner` and `task.task_id`.
                When it returns the task goes on `working` without a worker, what it returned is
                dropped, and any program finishes it through `TaskStore`. If it raises, that is the
                task's end. It implies `required`.
            timeout: Seconds that one run of the tool may take. Time in which the task waits for a
                person does not count, and the run after one that was lost has all of it again. The
                tool is then cancelled as by `tasks/cancel`, and the task ends `failed`: -32603,
                data `{"reason": "timed_out", …}`. It is not run again. What the tool returns all
                the same while it is being stopped is its result. A plain `def` goes on in its
                thread, and what it still writes is refused. Holds for calls without a task too.

        Raises:
            ConfigurationError: The function's signature or an option cannot work, or the
                parentheses are missing. Nothing was registered.
        """
        if callable(name):
            raise ConfigurationError("write @tasks.tool() with parentheses; nothing was registered")

        def register(fn: F) -> F:
            self.add_tool(
                fn,
                name,
                title=title,
                description=description,
                annotations=annotations,
                icons=icons,
                meta=meta,
                structured_output=structured_output,
                required=required,
                ttl=ttl,
                poll_interval=poll_interval,
                resumable=resumable,
                on_worker_loss=on_worker_loss,
                max_attempts=max_attempts,
                external=external,
                timeout=timeout,
            )
            return fn

        return register

    def add_tool(
        self,
        fn: Callable[..., Any],
        name: str | None = None,
        *,
        title: str | None = None,
        description: str | None = None,
        annotations: ToolAnnotations | None = None,
        icons: list[Icon] | None = None,
        meta: dict[str, Any] | None = None,
        structured_output: bool | None = None,
        required: bool = False,
        ttl: timedelta | None = None,
        poll_interval: timedelta | None = None,
        resumable: bool = False,
        on_worker_loss: Literal["fail", "rerun"] = "fail",
        max_attempts: int = 3,
        external: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Register a function, a bound method or a callable object as a tool. As `tool`."""
        name = name or getattr(fn, "__name__", None)
        wrapper = wrap(
            fn,
            TaskTool(
                name,
                required=required,
                ttl=ttl,
                max_ttl=self._max_ttl,
                poll_interval=poll_interval,
                resumable=resumable,
                on_worker_loss=on_worker_loss,
                max_attempts=max_attempts,
                external=external,
                timeout=timeout,
            ),
        )
        self._register(
            wrapper,
            {
                "name": name,
                "title": title,
                "description": description,
                "annotations": annotations,
                "icons": icons,
                "structured_output": structured_output,
            },
            meta,
        )

    def _register(
        self, fn: Callable[..., Any], options: dict[str, Any], meta: dict[str, Any] | None
    ) -> None:
        if isinstance(self._server, MCPServer):
            self._server.add_tool(fn, meta=meta, **options)
        elif self._server is not None:
            raise ConfigurationError(
                "a low-level Server has no list of tools: put @tasks.task() on the function that "
                "its handler for tools/call calls"
            )
        elif self._is_read:
            raise ConfigurationError(
                "the server was made before this tool, and takes no more of its extensions' tools: "
                "put @mcp.tool() and, below it, @tasks.task() on the function, or use Tasks.install"
            )
        else:
            self._early_tools.append(ToolBinding(fn, meta, options))

    def task(
        self,
        fn: None = None,
        /,
        *,
        required: bool = False,
        ttl: timedelta | None = None,
        poll_interval: timedelta | None = None,
        resumable: bool = False,
        on_worker_loss: Literal["fail", "rerun"] = "fail",
        max_attempts: int = 3,
        external: bool = False,
        timeout: float | None = None,
    ) -> TaskDecorator:
        """Let a function run as a task under a plain `@mcp.tool()`, or in a low-level handler.

        ```python
        @mcp.tool()
        @tasks.task(resumable=True)
        async def build_report(folder: str, task: TaskContext) -> str: ...
        ```

        The wrapped function is a coroutine function, whatever it was. Options are those of `tool`.

        Raises:
            ConfigurationError: The function's signature or an option cannot work, or the
                parentheses are missing.
        """
        if fn is not None:
            raise ConfigurationError("write @tasks.task() with parentheses; nothing was changed")
        tool = TaskTool(
            None,
            required=required,
            ttl=ttl,
            max_ttl=self._max_ttl,
            poll_interval=poll_interval,
            resumable=resumable,
            on_worker_loss=on_worker_loss,
            max_attempts=max_attempts,
            external=external,
            timeout=timeout,
        )
        return TaskDecorator(tool)


class TaskDecorator:
    """What `Tasks.task` returns: decorates one function or many."""

    def __init__(self, tool: TaskTool) -> None:
        self._tool = tool

    @overload
    def __call__(self, fn: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]: ...

    @overload
    def __call__(self, fn: Callable[P, R]) -> Callable[P, Coroutine[Any, Any, R]]: ...

    def __call__(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function."""
        return wrap(fn, self._tool)


@asynccontextmanager
async def _no_lifespan(_: MCPServer[Any]) -> AsyncGenerator[dict[str, Any]]:
    yield {}

"""What the library, its servers and its clients say when something is wrong, by doing it wrong."""

# ruff: noqa: TC001 - what tools are annotated with is read at run time

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import anyio
import httpx2
import pytest
from mcp import Client
from mcp.server import MCPServer
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult
from pydantic import BaseModel

from mcp_tasks import (
    Call,
    ConfigurationError,
    MCPTasksError,
    Policy,
    RunnerConfig,
    StoreConfig,
    SyncTaskContext,
    TaskContext,
    TaskHandle,
    Tasks,
    TasksClient,
    TaskStore,
    client,
    errors,
    open_backend,
    reconnecting_http,
)
from mcp_tasks.client.handle import tool_result
from mcp_tasks.storage.memory import MemoryBackend
from mcp_tasks.store import LOCAL

from .wire import browse, post


if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Desk


MADE: list[MCPTasksError] = [
    errors.RecordNotFoundError("a:b"),
    errors.VersionConflictError("a:b", 3, 5),
    errors.RecordTooLargeError("a:b", 20, 10),
    errors.InvalidKeyError("ab", "no colon"),
    errors.OutcomeUnknownError("a:b", "time is up"),
    errors.StorageUnavailableError("tasks.db: database is locked"),
    errors.StorageFullError("tasks.db", "no room"),
    errors.StorageReadOnlyError("tasks.db", "the file is read-only"),
    errors.StorageCorruptError("tasks.db", "no header"),
    errors.StorageFormatError("tasks.db", 3, 2),
    errors.BackendClosedError(),
    errors.TaskNotFoundError(),
    errors.InvalidTransitionError("working", "submitted"),
    errors.TaskTerminalError("failed", "working"),
    errors.TaskExpiredError(),
    errors.NotReadyError("working"),
    errors.QuotaExceededError(100),
    errors.InvalidValueError("the result", "too large"),
    errors.VariablesTooLargeError(20, 10),
    errors.InvalidAnswerError("q", "Name", 2),
    errors.InvalidTtlError(-1.0, 1000.0),
    errors.InvalidCursorError(),
    errors.QuestionKeyError("q"),
    errors.JournalMismatchError("k", "load", "save"),
    errors.IdempotencyKeyError(),
    errors.OwnerActiveError(3),
    errors.JournalFullError("entries", 10),
    errors.LeaseLostError(2),
    errors.NotDurableError("asking the client"),
    errors.ClientCapabilityError("elicitation"),
    errors.ContentionError(16),
    errors.RecordFormatError("it is damaged"),
    errors.StoreUnavailableError(happened=None),
    client.TaskCancelledError("01m88"),
    client.TaskUnreachableError("mcp-task:1:01m88", 60.0, "Connection closed"),
    client.InvalidHandleError("it names no task"),
]


class Confirm(BaseModel):
    """What is asked for."""

    go: bool


class Odd:
    """What no step can return."""


def refused(act: Callable[[], Any]) -> str:
    """Return the text of a setting that cannot work."""
    with pytest.raises(ConfigurationError) as caught:
        act()
    return str(caught.value)


def at_start() -> list[str]:
    """Make servers that cannot work."""
    twice: MCPServer[Any] = MCPServer("twice")
    tasks = Tasks.install(twice, "memory://", signals=False)
    unnamed: MCPServer[Any] = MCPServer()

    async def handler(ctx: Any, params: Any) -> CallToolResult:
        return CallToolResult(content=[])

    low: Server[Any] = Server("low", on_call_tool=handler)
    empty: Server[Any] = Server("empty")

    def plain(task: TaskContext) -> str:
        return ""

    async def coroutine(task: SyncTaskContext) -> str:
        return ""

    def hidden(other: Any, task: Any) -> str:
        return ""

    hidden.__annotations__ = {"other": "Missing", "task": "TaskContext"}
    return [
        refused(lambda: Tasks.install(twice, "memory://")),
        refused(lambda: Tasks.install(unnamed, "sqlite:///tasks.db")),
        refused(lambda: Tasks.install(empty, "memory://")),
        refused(lambda: Tasks.install(low, "memory://").tool()(handler)),
        refused(lambda: tasks.tool()(coroutine)),
        refused(lambda: tasks.tool()(plain)),
        refused(lambda: tasks.tool()(hidden)),
        refused(lambda: open_backend("tasks.db")),
        refused(lambda: open_backend("sqlite://tasks.db")),
        refused(lambda: open_backend("mongodb://somewhere")),
        refused(lambda: RunnerConfig(beat=20)),
        refused(lambda: StoreConfig(max_active=1.5)),  # pyright: ignore[reportArgumentType] - so it is
        refused(lambda: tasks.tool(ttl=timedelta(days=30))(handler)),
        refused(lambda: Tasks.install(twice.streamable_http_app())),  # pyright: ignore[reportArgumentType] - so it is
        refused(lambda: tasks.tool(timeout=0)(plain)),
    ]


def server() -> MCPServer[Any]:
    """Make a server whose tools go wrong."""
    mcp: MCPServer[Any] = MCPServer("wrong", log_level="CRITICAL")
    config = StoreConfig(poll_interval=timedelta(milliseconds=10), max_active=1)
    tasks = Tasks.install(mcp, "memory://", signals=False, config=config)

    def one() -> int:
        return 1

    def odd() -> Odd:
        return Odd()

    @tasks.tool(required=True)
    async def needs_a_task() -> str:
        return ""

    @tasks.tool()
    async def asks(task: TaskContext) -> str:
        await task.elicit("go", "Go?", Confirm)
        return ""

    @tasks.tool()
    async def waits() -> str:
        await anyio.sleep_forever()
        return ""

    @tasks.tool(resumable=True)
    async def returns_odd(task: TaskContext) -> str:
        await task.step("odd", odd)
        return ""

    @tasks.tool(resumable=True)
    async def repeats(task: TaskContext) -> str:
        await task.step("one", one)
        await task.step("one", one)
        return ""

    @tasks.tool()
    async def lives_too_long(task: TaskContext) -> str:
        await task.extend(timedelta(days=30))
        return ""

    @tasks.tool()
    async def keeps_much(task: TaskContext) -> str:
        await task.set_variables({str(number): "x" * 60_000 for number in range(20)})
        return ""

    @tasks.tool(timeout=0.05)
    async def takes_too_long() -> str:
        await anyio.sleep_forever()
        return ""

    _ = (needs_a_task, asks, waits, returns_odd, repeats, lives_too_long, keeps_much)
    _ = takes_too_long
    return mcp


async def call(client: Client, tool: str, arguments: dict[str, Any] | None = None) -> str:
    """Return the text with which a call fails."""
    with pytest.raises((MCPError, MCPTasksError)) as caught:
        await client.call_tool(tool, arguments or {})
    return str(caught.value)


async def from_a_server() -> list[str]:
    """Call such tools."""
    said: list[str] = []
    mcp = server()
    async with Client(mcp) as plain:
        said += [await call(plain, tool) for tool in ("needs_a_task", "asks")]
    async with Client(mcp, mode="legacy") as old:
        said.append(await call(old, "needs_a_task"))
    tasks = TasksClient()
    async with Client(mcp, extensions=[tasks]) as client:
        for tool in (
            "asks",
            "returns_odd",
            "repeats",
            "lives_too_long",
            "keeps_much",
            "takes_too_long",
        ):
            said.append(await call(client, tool))
        handle = await tasks.start(client, "waits")
        said.append(await call(client, "waits"))
        await handle.cancel()
        with pytest.raises(MCPTasksError) as cancelled:
            await handle.result()
        with pytest.raises(MCPError) as unknown:
            await TaskHandle.resume(client, "mcp-task:1:nothing").poll()
        with pytest.raises(MCPTasksError) as damaged:
            TaskHandle.resume(client, "nothing")
    return [*said, *(str(caught.value) for caught in (cancelled, unknown, damaged))]


async def from_a_low_level_server() -> list[str]:
    """Call a handler that raises, and one that returns nothing."""

    async def handler(ctx: Any, params: Any) -> CallToolResult:
        return await (breaks() if params.name == "breaks" else forgets())

    low: Server[Any] = Server("low", on_call_tool=handler)
    tasks = Tasks.install(low, "memory://", signals=False)

    @tasks.task()
    async def breaks(task: TaskContext | None = None) -> CallToolResult:
        assert task is not None
        raise ValueError("no")

    @tasks.task()
    async def forgets() -> Any:
        return None

    async with Client(low, extensions=[TasksClient()]) as client:
        return [await call(client, "breaks"), await call(client, "forgets")]


def from_another_server() -> list[str]:
    """Read the result of a task from a server that keeps anything there."""
    with pytest.raises(MCPError) as caught:
        tool_result({})
    return [str(caught.value)]


async def from_a_server_of_others() -> list[str]:
    """Announce a task in a form that none has."""

    async def handler(ctx: Any, params: Any) -> Any:
        return {"resultType": "task", "taskId": 5}

    low: Server[Any] = Server("low", on_call_tool=handler)
    async with Client(low, extensions=[TasksClient()]) as client:
        return [await call(client, "breaks")]


async def from_a_rule_for_owners() -> list[str]:
    """Let it name one that others share."""
    mcp: MCPServer[Any] = MCPServer("tenants", log_level="CRITICAL")
    tasks = Tasks.install(mcp, "memory://", signals=False, owner_of=lambda _: "anonymous")

    @tasks.tool()
    async def ping() -> None:
        """Do nothing."""

    async with Client(mcp, extensions=[TasksClient()]) as client:
        return [await call(client, "ping")]


async def over_http() -> list[str]:
    """Ask a server that was not started, and without the header."""
    tasks = Tasks("memory://", signals=False)
    mcp: MCPServer[Any] = MCPServer(
        "unstarted", extensions=[tasks], middleware=[tasks.middleware], log_level="ERROR"
    )
    app = mcp.streamable_http_app(json_response=True)
    said: list[str] = []
    async with app.router.lifespan_context(app), browse(app) as http:
        for named in ("x", None):
            reply = await post(http, "tasks/get", {"taskId": "x"}, mcp_name=named)
            said.append(reply.json()["error"]["message"])
    return said


async def after_deaths(desk: Desk) -> list[str]:
    """Kill a server under two tools, one of which may be started once more."""
    (desk.folder / "dies.py").write_text(f"""
import anyio
from mcp.server import MCPServer
from mcp_tasks import Tasks

mcp = MCPServer("dies", log_level="ERROR")
tasks = Tasks.install(mcp)

async def wait() -> str:
    await anyio.sleep_forever()

tasks.add_tool(wait, "once")
tasks.add_tool(wait, "again", on_worker_loss="rerun", max_attempts=1)
mcp.run("streamable-http", port={desk.port})
""")
    tasks = TasksClient()
    said: list[str] = []
    with desk.server("dies.py") as process:
        async with Client(desk.url, extensions=[tasks]) as client:
            saved = [(await tasks.start(client, tool)).save() for tool in ("once", "again")]
            with pytest.raises(MCPError) as caught:
                await client.call_tool("once", {"text": "x" * 5_000_000})
            said.append(str(caught.value))
        process.kill()
        process.wait()
    with pytest.RaisesGroup(httpx2.ConnectError, flatten_subgroups=True) as refusal:
        async with Client(desk.url):
            pass
    said += [str(error) for error in leaves(refusal.value)]
    with pytest.RaisesGroup(MCPError, flatten_subgroups=True) as group:
        async with Client(reconnecting_http(desk.url)):
            pass
    said += [str(error) for error in leaves(group.value)]
    with desk.server("dies.py"):
        async with Client(desk.url, extensions=[tasks]) as client:
            for text in saved:
                with pytest.raises(MCPError) as caught:
                    await TaskHandle.resume(client, text).result()
                said.append(str(caught.value))
    return said


def leaves(error: Exception) -> list[Exception]:
    """Return what a group holds, and what the groups in it hold."""
    inner: tuple[Exception, ...] = getattr(error, "exceptions", ())
    return [leaf for one in inner for leaf in leaves(one)] or [error]


async def past_its_time() -> list[str]:
    """Look at tasks that nobody has run, one of which is no worker's."""
    store = TaskStore(MemoryBackend())
    call = Call(tool="t", arguments=store.encode({}, what="arguments"))
    said: list[str] = []
    for external in (False, True):
        brief = timedelta(milliseconds=1)
        made = await store.create(LOCAL, call, ttl=brief, policy=Policy(external=external))
        await anyio.sleep(0.01)
        record = await store.get(LOCAL, made.task_id)
        assert record.error is not None
        said.append(record.error.message)
    return said

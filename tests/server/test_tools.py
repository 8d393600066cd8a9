"""What a function may look like to be a tool that runs as a task, and what the world sees of it."""

# ruff: noqa: TC001, TC002 - what tools are annotated with is read at run time

from __future__ import annotations

import functools
import re
import sys
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, cast

import anyio
import pytest
from mcp.client import Client
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.resolve import Elicit, Resolve
from mcp_types import Icon, ToolAnnotations
from pydantic import BaseModel, Field

from mcp_tasks import (
    ConfigurationError,
    RunnerConfig,
    StoreConfig,
    SyncTaskContext,
    TaskContext,
    Tasks,
    TasksClient,
    TaskStore,
)
from mcp_tasks.runner import InlineOperations
from mcp_tasks.storage.memory import MemoryBackend


if TYPE_CHECKING:
    from .conftest import Serve, Stage


class Report(BaseModel):
    """What a tool makes."""

    path: str
    size: int = Field(description="in bytes")


async def ask_report() -> Elicit[Report]:
    """Ask for a report before the tool runs."""
    return Elicit("Which?", Report)


async def schema_of(server: MCPServer[Any], name: str) -> Any:
    """Return a tool as clients see it."""
    return next(tool for tool in await server.list_tools() if tool.name == name)


async def test_the_task_does_not_show_in_the_schema_and_all_else_does(stage: Stage) -> None:
    """A model must not try to fill in a task."""

    @stage.tasks.tool()
    async def with_task(
        task: TaskContext,
        path: Annotated[str, Field(description="where")],
        ctx: Context,
        size: int = 3,
        *,
        flag: bool = False,
    ) -> Report:
        """Make a report."""
        del task, ctx, flag
        return Report(path=path, size=size)

    @stage.server.tool()
    async def without(
        path: Annotated[str, Field(description="where")],
        ctx: Context,
        size: int = 3,
        *,
        flag: bool = False,
    ) -> Report:
        """Make a report."""
        del ctx, flag
        return Report(path=path, size=size)

    ours, theirs = [await schema_of(stage.server, name) for name in ("with_task", "without")]
    for shown in (ours, theirs):
        del shown.input_schema["title"]
    assert ours.input_schema == theirs.input_schema
    assert ours.output_schema == theirs.output_schema
    assert ours.description == theirs.description == "Make a report."


async def test_a_tool_takes_all_that_the_sdk_takes(stage: Stage) -> None:
    """Nothing is lost by taking `tasks.tool` for `mcp.tool`."""

    @stage.tasks.tool(
        "renamed",
        title="Title",
        description="Words",
        annotations=ToolAnnotations(read_only_hint=True),
        icons=[Icon(src="https://example.com/i.png")],
        meta={"a": 1},
        structured_output=False,
    )
    async def tool() -> int:
        return 1

    shown = await schema_of(stage.server, "renamed")
    assert (shown.title, shown.description, shown.meta) == ("Title", "Words", {"a": 1})
    assert shown.annotations.read_only_hint
    assert shown.icons[0].src == "https://example.com/i.png"
    assert shown.output_schema is None
    assert await tool() == 1


async def test_a_registered_function_is_returned_unchanged(stage: Stage) -> None:
    """It can still be called and tested as what it is."""

    async def tool(task: TaskContext) -> int:
        return task.attempt

    assert stage.tasks.tool()(tool) is tool


async def test_every_kind_of_callable_runs(stage: Stage, serve: Serve) -> None:
    """Functions, bound methods, callable objects and partials, blocking or not."""

    class Service:
        def __init__(self, factor: int) -> None:
            self.factor = factor

        async def method(self, n: int, task: TaskContext) -> int:
            assert task.durable
            return n * self.factor

        async def __call__(self, n: int, task: TaskContext | None = None) -> int:
            assert task is not None
            return n * self.factor

    class Decorated:
        @stage.tasks.task()
        async def method(self, n: int, task: TaskContext) -> int:
            assert task.durable
            return n * 7

    def blocking(factor: int, n: int, task: Annotated[SyncTaskContext, "ours"]) -> int:
        assert task.durable
        assert threading.current_thread() is not threading.main_thread()
        return n * factor

    stage.tasks.add_tool(Service(2).method)
    stage.tasks.add_tool(Service(3), "object")
    stage.tasks.add_tool(functools.partial(blocking, 5), "partial")
    stage.server.add_tool(Decorated().method, "decorated")

    async with serve(stage.server) as wire:
        for name, product in (("method", 2), ("object", 3), ("partial", 5), ("decorated", 7)):
            task = await wire.outcome(await wire.create(name, {"n": 10}))
            assert task["result"]["structuredContent"] == {"result": 10 * product}, name


async def test_resolved_parameters_and_both_contexts_work_together(
    stage: Stage, serve: Serve
) -> None:
    """Everything that the SDK injects is injected in the task's own run too."""

    @stage.server.tool()
    @stage.tasks.task()
    async def tool(
        n: int, report: Annotated[Report, Resolve(ask_report)], task: TaskContext, ctx: Context
    ) -> str:
        assert ctx.request_context.request_id == task.task_id
        return f"{n} {report.path} {task.attempt}"

    async with serve(stage.server) as wire:
        first = (await wire.call("tool", {"n": 1})).result
        (key,) = first["inputRequests"]
        content = {"path": "/x", "size": 1}
        second = await wire.call(
            "tool",
            {"n": 1},
            inputResponses={key: {"action": "accept", "content": content}},
            requestState=first["requestState"],
        )
        task = await wire.outcome(second.result["taskId"])
    assert task["result"]["content"][0]["text"] == "1 /x 1"


@pytest.mark.parametrize("extensions", [[], [TasksClient()]], ids=["plain", "tasks"])
async def test_plain_functions_share_our_threads_with_a_task_and_without(
    extensions: list[TasksClient],
) -> None:
    """Nobody's calls use up the threads that the SDK's own tools share."""
    server: MCPServer[Any] = MCPServer("threads", log_level="ERROR")
    config = RunnerConfig(max_threads=1)
    tasks = Tasks.install(server, "memory://", signals=False, runner_config=config)
    running: list[int] = []
    most: list[int] = []

    @tasks.tool()
    def blocks() -> None:
        running.append(1)
        most.append(len(running))
        time.sleep(0.05)
        running.pop()

    @tasks.tool()
    async def calls_another() -> None:
        await server.call_tool("blocks", {})

    _ = (blocks, calls_another)
    async with Client(server, extensions=extensions) as client, anyio.create_task_group() as calls:
        for tool in ("blocks", "blocks", "calls_another", "calls_another"):
            calls.start_soon(client.call_tool, tool)

    assert most == [1, 1, 1, 1]


async def test_a_function_can_be_called_without_a_server(stage: Stage) -> None:
    """A unit test needs no client; it may bring a context or be given one that keeps nothing."""

    @stage.tasks.task()
    async def tool(n: int, task: TaskContext) -> str:
        return f"{n} {task.task_id or 'none'}"

    brought = TaskContext(InlineOperations(), task_id="mine")
    assert await tool(1, brought) == "1 mine"
    assert await tool(1, task=brought) == "1 mine"
    assert await tool(1) == "1 none"  # pyright: ignore[reportCallIssue]


def _twice(a: TaskContext, b: TaskContext) -> None:
    """Wants two."""


async def _variadic(*tasks: TaskContext) -> None:
    """Wants many."""


async def _keywords(**tasks: TaskContext) -> None:
    """Wants many."""


async def _positional(task: TaskContext, /) -> None:
    """Cannot be given it by name."""


async def _inside(tasks: list[TaskContext]) -> None:
    """Wants a list."""


async def _union(task: TaskContext | str) -> None:
    """Wants one or something else."""


def _without_import() -> Any:
    """Make a function whose annotation was imported for type checkers alone."""
    names: dict[str, Any] = {}
    code = "async def _hidden(task: TaskContext | None = None) -> None: ..."
    exec(f"from __future__ import annotations\n{code}", names)  # noqa: S102 - a module of its own
    return names["_hidden"]


async def _misspelt(task: TaskContexts) -> None:  # noqa: F821 # pyright: ignore[reportUndefinedVariable, reportUnknownParameterType]
    """Its annotation does not exist."""


async def _blocking_context(task: SyncTaskContext) -> None:
    """Would block the event loop."""


def _async_context(task: TaskContext) -> None:
    """Could not await it."""


async def _twice_async(a: TaskContext, b: TaskContext) -> None:
    """Wants two."""


MISPLACED: list[tuple[Any, str]] = [
    (_twice_async, "keep one of them"),
    (_variadic, "make it an ordinary parameter"),
    (_keywords, "make it an ordinary parameter"),
    (_positional, "make it an ordinary parameter"),
    (_inside, "annotate it with TaskContext itself"),
    (_union, "annotate it with TaskContext itself"),
    (_without_import(), "not under TYPE_CHECKING"),
    (_misspelt, "Import TaskContext"),
    (_blocking_context, "annotate it with TaskContext"),
    (_async_context, "annotate it with SyncTaskContext"),
    (_twice, "annotate it with SyncTaskContext"),
]


@pytest.mark.parametrize(
    ("fn", "remedy"), MISPLACED, ids=[fn.__name__.strip("_") for fn, _ in MISPLACED]
)
def test_a_misplaced_context_is_refused_with_the_remedy(stage: Stage, fn: Any, remedy: str) -> None:
    """At registration, where the author sees it, and not at the first call."""
    with pytest.raises(ConfigurationError, match=remedy) as refusal:
        stage.tasks.tool()(fn)

    assert fn.__name__ in str(refusal.value)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"ttl": timedelta(0)}, "ttl=datetime.timedelta(0) is less than a millisecond"),
        ({"ttl": timedelta(seconds=-1)}, "is less than a millisecond"),
        ({"ttl": 5}, "ttl is 5; it must be a timedelta"),
        ({"ttl": timedelta(days=8)}, "ttl=datetime.timedelta(days=8) is over StoreConfig.max_ttl"),
        ({"poll_interval": timedelta(0)}, "is less than a millisecond"),
        ({"poll_interval": 1.5}, "poll_interval is 1.5; it must be a timedelta"),
        ({"on_worker_loss": "retry"}, "on_worker_loss='retry' is not 'fail' or 'rerun'"),
        ({"max_attempts": 0}, "max_attempts=0 is less than 1"),
        ({"max_attempts": 2.5}, "max_attempts is 2.5; it must be a whole number"),
        ({"max_attempts": True}, "max_attempts is True; it must be a whole number"),
        ({"resumable": "yes"}, "resumable is 'yes'; it must be True or False"),
        ({"required": 1}, "required is 1; it must be True or False"),
        ({"external": None}, "external is None; it must be True or False"),
        ({"name": 5}, "name is 5; it must be a string"),
    ],
    ids=str,
)
def test_an_option_that_cannot_work_is_refused(stage: Stage, options: Any, problem: str) -> None:
    """At registration too, and not by each task."""
    with pytest.raises(ConfigurationError, match=re.escape(problem)):
        stage.tasks.tool(**options)(lambda: None)
    if "name" not in options:
        with pytest.raises(ConfigurationError, match=re.escape(problem)):
            stage.tasks.task(**options)


@pytest.mark.requirement("T-086")
async def test_a_tool_that_calls_exit_does_not_end_the_server(stage: Stage, serve: Serve) -> None:
    """Others have tasks on it; a call of the tool ends alike with a task and without one."""

    @stage.tasks.tool()
    async def leave() -> str:
        sys.exit(1)

    @stage.tasks.tool()
    def leave_thread() -> str:
        sys.exit(1)

    async with serve(stage.server) as wire:
        for tool in ("leave", "leave_thread"):
            plain = (await wire.undeclared().call(tool)).result
            task = await wire.outcome(await wire.create(tool))
            assert plain["isError"], plain
            assert task["result"]["content"] == plain["content"]


def test_a_ttl_may_be_as_long_as_the_store_allows() -> None:
    """Whoever gave the store its limits."""
    config = StoreConfig(max_ttl=timedelta(days=30))
    store = TaskStore(MemoryBackend(), namespace="long", config=config)
    for tasks in (Tasks("memory://", config=config), Tasks(store)):
        tasks.task(ttl=timedelta(days=30))
        with pytest.raises(ConfigurationError, match="is over StoreConfig"):
            tasks.task(ttl=timedelta(days=31))


@pytest.mark.requirement("T-016")
@pytest.mark.requirement("T-017")
async def test_times_of_a_tool_are_those_of_its_tasks(stage: Stage, serve: Serve) -> None:
    """Set on the tool, shown to the client."""

    @stage.tasks.tool(ttl=timedelta(minutes=5), poll_interval=timedelta(milliseconds=250))
    async def quick() -> None:
        """Do nothing."""

    async with serve(stage.server) as wire:
        created = (await wire.call("quick")).result

    assert (created["ttlMs"], created["pollIntervalMs"]) == (300_000, 250)


def test_a_low_level_server_has_no_tools_to_add_to() -> None:
    """The error names what to use there."""

    async def call(*_: Any) -> Any:
        return {"content": []}

    tasks = Tasks.install(Server("low", on_call_tool=call), "memory://")

    with pytest.raises(ConfigurationError, match=r"@tasks.task\(\)"):
        tasks.tool()(call)


def test_a_server_that_was_built_takes_no_more_tools_of_its_extensions() -> None:
    """Otherwise the tool would silently be missing."""
    tasks = Tasks("memory://")

    @tasks.tool()
    async def early() -> None:
        """Be declared before the server."""

    mcp: MCPServer[Any] = MCPServer(
        "late", extensions=[tasks], middleware=[tasks.middleware], lifespan=tasks.lifespan()
    )
    with pytest.raises(ConfigurationError, match=r"@mcp.tool\(\)"):
        tasks.tool()(early)
    assert anyio.run(mcp.list_tools)[0].name == "early"


async def test_long_blocking_tools_leave_the_threads_of_the_sdk_alone(serve: Serve) -> None:
    """Ordinary blocking tools go on while every thread of ours is taken."""
    server: MCPServer[Any] = MCPServer("threads", log_level="ERROR")
    config = RunnerConfig(max_threads=1, drain=1)
    tasks = Tasks.install(server, "memory://", runner_config=config, signals=False)
    release = threading.Event()

    @tasks.tool()
    def block() -> str:
        release.wait(10)
        return "released"

    @server.tool()
    def plain() -> str:
        return "plain"

    async with serve(server) as wire:
        ids = [await wire.create("block") for _ in range(60)]
        with anyio.fail_after(5):
            assert (await wire.call("plain")).result["content"][0]["text"] == "plain"
        release.set()
        for task_id in ids:
            assert (await wire.outcome(task_id))["status"] == "completed"


def test_forgotten_parentheses_are_an_error(stage: Stage) -> None:
    """Without one the server would start, and have no such tool."""

    async def work() -> None: ...

    with pytest.raises(ConfigurationError, match=r"@tasks\.tool\(\) with parentheses"):
        stage.tasks.tool(cast("Any", work))
    with pytest.raises(ConfigurationError, match=r"@tasks\.task\(\) with parentheses"):
        stage.tasks.task(cast("Any", work))

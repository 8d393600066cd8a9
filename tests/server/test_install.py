"""The ways in: one line for a server that exists, public API for a new one, and mounted apps."""

# ruff: noqa: TC001, TC002 - what tools are annotated with is read at run time

from __future__ import annotations

import subprocess
import sys
import traceback
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import anyio
import httpx
import platformdirs
import pytest
from mcp.client import Client, ClientRequestContext
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import Context, MCPServer
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    ElicitRequestParams,
    ElicitResult,
    EmptyResult,
    ListToolsResult,
    TextContent,
    Tool,
)
from starlette.applications import Starlette
from starlette.routing import Mount

from mcp_tasks import (
    ConfigurationError,
    RunnerConfig,
    StoreConfig,
    TaskContext,
    Tasks,
    TasksClient,
    TaskStore,
)
from mcp_tasks.server.places import Place, caller_file, default_file
from mcp_tasks.storage.memory import MemoryBackend
from mcp_tasks.storage.sqlite import SqliteBackend

from .conftest import Wire


if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from .conftest import Serve


def text(result: CallToolResult) -> str:
    """Return the text of a result."""
    content = result.content[0]
    assert isinstance(content, TextContent)
    return content.text


async def test_the_public_way_serves_tasks(serve: Serve) -> None:
    """Nothing private of the SDK is needed to make a server with tasks."""
    tasks = Tasks("memory://", signals=False)
    server: MCPServer[Any] = MCPServer(
        "public",
        extensions=[tasks],
        middleware=[tasks.middleware],
        lifespan=tasks.lifespan(),
        log_level="ERROR",
    )

    @server.tool()
    @tasks.task()
    async def add(a: int, b: int, task: TaskContext) -> int:
        assert task.durable
        return a + b

    async with serve(server) as wire:
        task = await wire.outcome(await wire.create("add", {"a": 1, "b": 2}))
        assert task["result"]["structuredContent"] == {"result": 3}
        listen: dict[str, Any] = {"notifications": {"taskIds": []}}
        undeclared = wire.undeclared()
        assert (await undeclared.post("subscriptions/listen", listen)).error["code"] == -32021


async def test_a_forgotten_lifespan_is_named(serve: Serve) -> None:
    """The public way has three parts, and an error that names the missing one."""
    tasks = Tasks("memory://")
    server: MCPServer[Any] = MCPServer("forgot", extensions=[tasks], log_level="ERROR")

    @server.tool()
    @tasks.task()
    async def ping() -> None:
        """Do nothing."""

    async with serve(server) as wire:
        error = (await wire.call("ping")).error

    assert error["code"] == -32603
    assert "lifespan=tasks.lifespan()" in error["message"]


def low_level(*, tasks: list[Tasks]) -> Server[Any]:
    """Make a low-level server whose one tool runs as a task."""

    async def list_tools(*_: Any) -> ListToolsResult:
        return ListToolsResult(tools=[Tool(name="greet", input_schema={"type": "object"})])

    async def call(ctx: Any, params: CallToolRequestParams) -> CallToolResult:
        return await greet(ctx, params)

    server: Server[Any] = Server("low", on_call_tool=call, on_list_tools=list_tools)
    tasks.append(Tasks.install(server, "memory://", signals=False))

    @tasks[0].task()
    async def greet(
        ctx: Any, params: CallToolRequestParams, task: TaskContext | None = None
    ) -> CallToolResult:
        assert task is not None
        assert task.durable
        how = (params.arguments or {}).get("how")
        if how == "crash":
            raise ValueError("secret")
        if how == "error":
            raise MCPError(-32050, "not today")
        schema = {"type": "object", "properties": {"name": {"type": "string"}}}
        answer = await ctx.session.elicit_form("Who?", schema, ctx.request_id)
        return CallToolResult(content=[TextContent(type="text", text=str(answer.content))])

    return server


async def test_a_low_level_server_runs_tasks(serve: Serve) -> None:
    """The same extension, without a list of tools or a context of the SDK's."""
    async with serve(low_level(tasks=[])) as wire:
        task_id = await wire.create("greet")
        (key,) = (await wire.until(task_id, "input_required"))["inputRequests"]
        await wire.answer(task_id, {key: {"action": "accept", "content": {"name": "Ada"}}})
        task = await wire.outcome(task_id)
        assert task["result"]["content"][0]["text"] == "{'name': 'Ada'}"
        assert task["result"]["resultType"] == "complete"
        assert (await wire.post("tasks/list", {})).error["code"] == -32601


@pytest.mark.requirement("T-078")
async def test_an_exception_on_a_low_level_server_fails_the_task(serve: Serve) -> None:
    """There, an exception is an internal error of the request; its text stays on the server."""
    async with serve(low_level(tasks=[])) as wire:
        task = await wire.outcome(await wire.create("greet", {"how": "crash"}))
        assert (task["status"], task["error"]["code"]) == ("failed", -32603)
        assert "secret" not in str(task)
        task = await wire.outcome(await wire.create("greet", {"how": "error"}))
        assert task["error"] == {"code": -32050, "message": "not today"}


@pytest.mark.requirement("T-086")
@pytest.mark.parametrize(
    ("returned", "problem"),
    [
        (None, "a value of type NoneType"),
        ([], "a value of type list"),
        ("text", "a value of type str"),
        ({}, "content: Field required"),
        (EmptyResult(), "content: Field required"),
        ({"content": [], "resultType": 5}, "resultType"),
        ({"content": [], "resultType": "task", "taskId": "x"}, "resultType is 'task'"),
        ({"resultType": "input_required", "inputRequests": 5}, "inputRequests: "),
    ],
    ids=repr,
)
async def test_what_is_no_result_fails_the_task_and_says_why(
    serve: Serve, returned: Any, problem: str
) -> None:
    """A low-level handler may return anything, and its client must not be the one to find out."""

    async def call(*_: Any) -> Any:
        return await odd()

    server: Server[Any] = Server("odd", on_call_tool=call)
    tasks = Tasks.install(server, "memory://", signals=False)

    @tasks.task()
    async def odd() -> Any:
        return returned

    async with serve(server) as wire:
        task = await wire.outcome(await wire.create("odd"))

    assert (task["status"], task["error"]["code"]) == ("failed", -32603)
    text = task["error"]["message"]
    assert text.startswith("the handler of the tool returned no CallToolResult: ")
    assert problem in text


async def test_a_result_may_be_a_dictionary(serve: Serve) -> None:
    """As low-level handlers may return one; what the SDK does not know of is kept."""

    async def call(*_: Any) -> Any:
        return await plain()

    server: Server[Any] = Server("plain", on_call_tool=call)
    tasks = Tasks.install(server, "memory://", signals=False)

    @tasks.task()
    async def plain() -> Any:
        return {"content": [], "own": 1}

    async with serve(server) as wire:
        task = await wire.outcome(await wire.create("plain"))

    assert task["result"] == {"content": [], "own": 1, "resultType": "complete"}


def test_installing_twice_is_refused() -> None:
    """Two workers of one server would look like one."""
    server: MCPServer[Any] = MCPServer("twice")
    tasks = Tasks.install(server, "memory://")

    with pytest.raises(ConfigurationError, match="install it once"):
        Tasks.install(server, "memory://")
    with pytest.raises(ConfigurationError, match="make one for each server"):
        anyio.run(_enter, tasks, MCPServer("other"))


async def _enter(tasks: Tasks, server: MCPServer[Any]) -> None:
    async with tasks.lifespan()(server):
        pass


def test_a_server_without_a_handler_says_so() -> None:
    """There would be no tool to run."""
    with pytest.raises(ConfigurationError, match="on_call_tool"):
        Tasks.install(Server("empty"), "memory://")


async def async_rule(_: Any) -> str:
    """Return an owner, too late."""
    return "physics"


async def bare_around(_: TaskContext) -> AsyncGenerator[None]:
    """Lack the decorator."""
    yield


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"namespace": 5}, "namespace is 5; it must be a string"),
        ({"worker": "no"}, "worker is 'no'; it must be True or False"),
        ({"signals": 1}, "signals is 1; it must be True or False"),
        ({"owner_of": 5}, "owner_of is 5; it must be a plain def from a request to an owner"),
        ({"owner_of": async_rule}, ", an async def; it must be a plain def"),
        ({"around_run": 5}, "around_run is 5; it must be a function from a TaskContext"),
        ({"around_run": bare_around}, ", an async def; it must be a function from a TaskContext"),
        ({"config": RunnerConfig()}, "config is RunnerConfig("),
        ({"config": RunnerConfig()}, "; it must be a StoreConfig"),
        ({"runner_config": StoreConfig()}, "; it must be a RunnerConfig"),
        ({"store": b"redis://ada:secret@host"}, "store is a bytes; pass a URL"),
    ],
)
def test_an_argument_that_cannot_work_is_refused_by_its_name(arguments: Any, problem: str) -> None:
    """At once, and the server is as it was."""
    server: MCPServer[Any] = MCPServer("strict")
    given: dict[str, Any] = {"store": "memory://", **arguments}
    with pytest.raises(ConfigurationError) as refused:
        Tasks.install(server, **given)
    with pytest.raises(ConfigurationError):
        Tasks(**given)

    assert problem in str(refused.value)
    assert "secret" not in str(refused.value)
    Tasks.install(server, "memory://")


@pytest.mark.parametrize("server", [5, MCPServer("made").streamable_http_app()], ids=["5", "app"])
def test_what_is_no_server_is_refused(server: Any) -> None:
    """The application that was made of it is what people have at hand."""
    kind = type(server).__name__
    with pytest.raises(ConfigurationError, match=f"a {kind} is no server; pass the MCPServer"):
        Tasks.install(server, "memory://")


@pytest.mark.parametrize("store", ["postgrs://x", "memory", "sqlite://x"])
def test_a_store_that_cannot_be_is_refused_at_once(store: str) -> None:
    """Not when the first client comes."""
    server: MCPServer[Any] = MCPServer("early")
    with pytest.raises(ConfigurationError):
        Tasks.install(server, store)
    Tasks.install(server, "memory://")


async def test_it_is_mounted_in_another_application() -> None:
    """As people mount MCP servers in FastAPI and Starlette: the host runs the lifespan."""
    server: MCPServer[Any] = MCPServer("mounted", log_level="ERROR")
    tasks = Tasks.install(server, "memory://", signals=False)

    @tasks.tool()
    async def ping() -> str:
        return "pong"

    inner = server.streamable_http_app(streamable_http_path="/mcp", json_response=True)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        async with server.session_manager.run():
            yield

    app = Starlette(routes=[Mount("/", app=inner)], lifespan=lifespan)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8000"
        ) as http,
    ):
        wire = Wire(http)
        assert (await wire.outcome(await wire.create("ping")))["status"] == "completed"


@dataclass
class Resource:
    """What a lifespan yields.

    Attributes:
        number: Which entry of the lifespan this is.
        is_open: False after it was left.
    """

    number: int
    is_open: bool = True


async def test_the_lifespan_outlives_the_connection_that_started_it() -> None:
    """A task goes on after its client left, with what the server's lifespan gave it."""
    entered: list[Resource] = []
    gate, started = anyio.Event(), anyio.Event()
    seen: list[Resource] = []

    @asynccontextmanager
    async def lifespan(_: MCPServer[Resource]) -> AsyncGenerator[Resource]:
        resource = Resource(len(entered))
        entered.append(resource)
        async with anyio.create_task_group():  # must be left by the task that entered it
            yield resource
        resource.is_open = False

    server = MCPServer[Resource]("lives", lifespan=lifespan, log_level="ERROR")
    tasks = Tasks.install(server, "memory://", signals=False)

    @tasks.tool()
    async def hold(ctx: Context[Resource, Any]) -> None:
        started.set()
        await gate.wait()
        resource = ctx.request_context.lifespan_context
        assert resource.is_open
        seen.append(resource)

    @server.tool()
    async def plain(ctx: Context[Resource, Any]) -> int:
        return ctx.request_context.lifespan_context.number

    async with Client(server) as second:
        assert text(await second.call_tool("plain", {})) == "0"
        async with Client(server, extensions=[TasksClient()]) as first:
            assert text(await first.call_tool("plain", {})) == "1"
            await first.session.call_tool("hold", {}, allow_claimed=True)
            with anyio.fail_after(5):
                await started.wait()
        assert [resource.is_open for resource in entered] == [True, False]
        gate.set()

    assert seen == [entered[0]]
    assert [resource.is_open for resource in entered] == [False, False]


async def test_a_lifespan_that_fails_says_why_and_can_be_tried_again() -> None:
    """The first connection gets the server's own error, and no half-started runner is left."""
    tries: list[int] = []

    @asynccontextmanager
    async def lifespan(_: MCPServer[int]) -> AsyncGenerator[int]:
        tries.append(1)
        if len(tries) == 1:
            raise RuntimeError("no database yet")
        yield 1

    server = MCPServer[int]("fails", lifespan=lifespan, log_level="ERROR")
    Tasks.install(server, "memory://", signals=False)

    with pytest.raises(RuntimeError, match="no database yet"):
        async with Client(server):
            pass
    async with Client(server) as client:
        assert (await client.list_tools()).tools == []


class Doubtful(MemoryBackend):
    """A database that says what is wrong with it."""

    problem: Exception | None = None

    async def check(self) -> list[str]:
        """Say it."""
        if self.problem is not None:
            raise self.problem
        return ["The server keeps nothing on disk."]


async def test_what_is_risky_about_the_database_is_logged_at_the_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Once, where operators look."""
    server = MCPServer("reports")
    Tasks.install(server, Doubtful())

    async with Client(server):
        pass

    said = [r for r in caplog.records if r.getMessage() == "The server keeps nothing on disk."]
    assert [(r.levelname, r.name) for r in said] == [("WARNING", "mcp_tasks.server")]


async def test_a_database_that_cannot_work_stops_the_start() -> None:
    """Nobody should find out at the first task."""
    server = MCPServer("reports")
    backend = Doubtful()
    backend.problem = ConfigurationError("there is no table")
    Tasks.install(server, backend)

    with pytest.raises(BaseException) as failed:  # noqa: PT011 - the SDK wraps it in groups
        async with Client(server):
            pass

    assert "there is no table" in "".join(traceback.format_exception(failed.value))


@pytest.mark.parametrize("transport", ["stdio", "streamable-http"])
def test_a_database_that_is_away_is_named_at_the_end_with_what_to_do(
    tmp_path: Path, transport: str
) -> None:
    """Who starts a server reads its last lines, and not the frames of a driver."""
    (tmp_path / "away.py").write_text(f"""
from mcp.server import MCPServer
from mcp_tasks import Tasks

mcp = MCPServer("away", log_level="ERROR")
Tasks.install(mcp, "redis://ada:secret@127.0.0.1:1/3", signals=False)
mcp.run({transport!r}, **({{}} if {transport!r} == "stdio" else {{"port": 0}}))
""")

    done = subprocess.run(
        [sys.executable, "away.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode != 0
    assert "not available: Redis: Connection refused" in done.stderr
    note = (
        "This server keeps its tasks in RedisBackend(single 127.0.0.1:1/3, prefix='mcp_tasks'), "
        "namespace 'away'. Start that database, or name another store with store=… or "
        "MCP_TASKS_STORE."
    )
    last = [line.strip(" |") for line in done.stderr.splitlines()]
    assert note in last[-4:]
    assert "redis/asyncio" not in done.stderr
    assert "direct cause" not in done.stderr
    assert "secret" not in done.stderr


async def test_tasks_in_memory_outlive_a_connection_in_process() -> None:
    """Two clients one after the other are one server to the person who tries it."""
    server: MCPServer[Any] = MCPServer("memory", log_level="ERROR")
    tasks = Tasks.install(server, "memory://", signals=False)

    @tasks.tool()
    async def ping() -> str:
        return "pong"

    async with Client(server, extensions=[TasksClient()]) as client:
        created = await client.session.call_tool("ping", {}, allow_claimed=True)
        await client.call_tool("ping", {})
    from mcp_tasks import TaskHandle  # noqa: PLC0415

    async with Client(server, extensions=[TasksClient()]) as client:
        handle = TaskHandle(client.session, cast("Any", created).task_id)
        with anyio.fail_after(5):
            assert text(await handle.result()) == "pong"


async def test_a_store_that_was_passed_in_is_not_closed(tmp_path: Path) -> None:
    """Who opened it closes it; a store of ours can be used again after the last client left."""
    backend = SqliteBackend(tmp_path / "mine.db")
    url = f"sqlite:///{(tmp_path / 'ours.db').as_posix()}"
    for store in (backend, TaskStore(backend, namespace="other"), url):
        server: MCPServer[Any] = MCPServer("keeps", log_level="ERROR")
        tasks = Tasks.install(server, store, signals=False)

        @tasks.tool()
        async def ping() -> str:
            return "pong"

        for _ in range(2):
            async with Client(server, extensions=[TasksClient()]) as client:
                assert text(await client.call_tool("ping", {})) == "pong"
    await backend.put("a:b", b"still open")
    await backend.close()


async def test_a_process_that_serves_does_not_run(serve: Serve) -> None:
    """`worker=False` leaves the work to another process; the task waits as a row."""
    backend = MemoryBackend()
    served, ran = [MCPServer[Any]("split", log_level="ERROR") for _ in range(2)]
    for server, worker in ((served, False), (ran, True)):
        config = RunnerConfig(look=0.05, scan=0.05)
        tasks = Tasks.install(server, backend, worker=worker, signals=False, runner_config=config)

        @tasks.tool()
        async def ping() -> str:
            return "pong"

    async with serve(served) as wire:
        task_id = await wire.create("ping")
        await anyio.sleep(0.1)
        assert (await wire.get(task_id)).result["status"] == "working"
        async with serve(ran):
            assert (await wire.outcome(task_id))["status"] == "completed"


@pytest.mark.requirement("X-AROUND")
async def test_around_run_surrounds_every_run(serve: Serve) -> None:
    """Where users set up sessions and tracing, with the task at hand."""
    seen: list[str] = []

    @asynccontextmanager
    async def around(task: TaskContext) -> AsyncGenerator[None]:
        seen.append(f"enter {task.attempt}")
        yield
        seen.append("leave")

    server: MCPServer[Any] = MCPServer("around", log_level="ERROR")
    tasks = Tasks.install(server, "memory://", around_run=around, signals=False)

    @tasks.tool()
    async def ping() -> None:
        seen.append("run")

    async with serve(server) as wire:
        await wire.outcome(await wire.create("ping"))

    assert seen == ["enter 1", "run", "leave"]


async def test_the_sdk_client_drives_a_task_in_process() -> None:
    """The whole way with real parts, without a socket."""
    server: MCPServer[Any] = MCPServer("whole", log_level="ERROR")
    tasks = Tasks.install(server, "memory://", signals=False, config=StoreConfig())

    @tasks.tool(resumable=True)
    async def greet(ctx: Context) -> str:
        from pydantic import BaseModel  # noqa: PLC0415

        class Name(BaseModel):
            name: str

        answer = await ctx.elicit("Who?", Name)
        return answer.data.name if answer.action == "accept" else ""

    async def elicit(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        del context, params
        return ElicitResult(action="accept", content={"name": "Ada"})

    async with Client(server, extensions=[TasksClient()], elicitation_callback=elicit) as client:
        with anyio.fail_after(10):
            assert text(await client.call_tool("greet", {})) == "Ada"


# --- where tasks are kept -----------------------------------------------------------------------


def place(store: Any = None, *, server: str = "mine", **options: Any) -> Place:
    """Find the place of a server's tasks."""
    settings: dict[str, Any] = {"namespace": None, "file": "/app/server.py", "config": None}
    return Place(store, server=server, **{**settings, **options})


def test_the_default_store_is_a_file_of_the_user_named_by_the_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Clients start servers in folders that nobody chose, so the folder does not matter."""
    monkeypatch.delenv("MCP_TASKS_STORE", raising=False)
    monkeypatch.chdir(tmp_path)
    folder = platformdirs.user_data_path("mcp-tasks", appauthor=False)

    assert str(folder / "mine.db") in str(place())
    assert default_file("a/b:c") == folder / "a%2Fb%3Ac.db"


def test_servers_without_a_name_are_told_apart_by_their_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The default store needs no decision, and must not mix what has nothing in common."""
    monkeypatch.delenv("MCP_TASKS_STORE", raising=False)
    one, again, other = [
        str(place(server="mcp-server", file=file)) for file in ("/a.py", "/a.py", "/b.py")
    ]

    assert one == again
    assert one != other
    assert caller_file() == __file__


def test_the_environment_names_the_store_where_the_code_does_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An operator moves tasks to another database without touching the server."""
    monkeypatch.setenv("MCP_TASKS_STORE", f"sqlite:///{(tmp_path / 'env.db').as_posix()}")

    assert "env.db" in str(place())
    assert "memory" in str(place("memory://")).lower()


@pytest.mark.parametrize("store", [Path("tasks.db"), MCPServer("reports"), 7])
def test_what_is_no_store_is_refused_at_once(store: Any) -> None:
    """And not when the first task is created."""
    with pytest.raises(ConfigurationError, match="a backend or a TaskStore"):
        Tasks(store)
    with pytest.raises(ConfigurationError, match=f"store is a {type(store).__name__}"):
        Tasks.install(MCPServer("reports"), store)


def test_a_store_with_its_own_settings_takes_no_others() -> None:
    """Two answers to one question are a mistake."""
    store = TaskStore(MemoryBackend(), namespace="a")
    with pytest.raises(ConfigurationError, match="leave one out"):
        place(store, namespace="b")
    with pytest.raises(ConfigurationError, match="leave config= out"):
        place(store, config=StoreConfig(max_active=1))
    assert place(store, namespace="a").open() is store

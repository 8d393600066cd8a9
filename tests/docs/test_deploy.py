"""What `docs/deploy.md` says, done to servers as they are deployed."""

# ruff: noqa: ASYNC240 - what other processes leave behind is looked at

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import anyio.to_thread
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.server import MCPServer
from mcp.server.mcpserver.resolve import Elicit, Resolve
from mcp.server.request_state import RequestStateSecurity
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPError
from pydantic import BaseModel

from mcp_tasks import (
    Call,
    StoreConfig,
    TaskHandle,
    Tasks,
    TasksClient,
    TaskStore,
    reconnecting_http,
)
from mcp_tasks.storage.sqlite import SqliteBackend
from mcp_tasks.store import ANONYMOUS

from .pages import ROOT, pattern, rows, sections
from .wire import browse, post


if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from .conftest import Desk


SECRET = "0123456789abcdef0123456789abcdef"  # noqa: S105 - a test's
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows ends processes otherwise")


class Name(BaseModel):
    """What is asked for before the task."""

    name: str


@pytest.fixture
def deployed(desk: Desk) -> Desk:
    """Give the folder in which `deploy_app.py` can be run."""
    desk.environment["REPORTS_STORE"] = desk.environment["MCP_TASKS_STORE"]
    desk.environment["REPORTS_KEY"] = SECRET
    return desk


def uvicorn(desk: Desk, *arguments: str, app: str = "deploy_app") -> tuple[str, ...]:
    """Return how the page starts uvicorn."""
    return ("-m", "uvicorn", f"{app}:app", "--port", str(desk.port), *arguments)


def client_of(desk: Desk, tasks: TasksClient) -> Client:
    """Make a client that is not bound to one connection, and so to one process."""
    return Client(desk.url, extensions=[tasks])


async def pids(desk: Desk, tasks: TasksClient, calls: int) -> set[str]:
    """Return which processes ran the tool, on as many connections as there are calls."""
    found: set[str] = set()

    async def call() -> None:
        async with client_of(desk, tasks) as client:
            result = await client.call_tool("build", {"seconds": 0.3})
        assert result.structured_content is not None
        found.add(re.findall(r"built by (\d+)", result.structured_content["result"])[0])

    async with anyio.create_task_group() as group:
        for _ in range(calls):
            group.start_soon(call)
    return found


async def test_any_of_several_processes_serves_any_task(deployed: Desk) -> None:
    """Three workers, and the one that runs the task is killed."""
    tasks = TasksClient()
    server, place = deployed.folder / "deploy_app.py", deployed.folder / "pid"
    note = f"""    with open(f"{place}-{{task.attempt}}", "w") as file:
        file.write(str(os.getpid()))"""
    server.write_text(server.read_text().replace('    """Take some time."""', note))
    with deployed.server(*uvicorn(deployed, "--workers", "3")) as parent:
        with anyio.fail_after(30):
            while len(await pids(deployed, tasks, 12)) < 2:
                pass
        Path(f"{place}-1").unlink()
        async with client_of(deployed, tasks) as client:
            saved = (await tasks.start(client, "build", {"seconds": 3})).save()
        await anyio.to_thread.run_sync(
            deployed.until, lambda: Path(f"{place}-1").exists() and Path(f"{place}-1").read_text()
        )
        os.kill(int(Path(f"{place}-1").read_text()), signal.SIGKILL)
        # Another connection, to a process that is still there.
        async with Client(reconnecting_http(deployed.url), extensions=[tasks]) as client:
            result = await TaskHandle.resume(client, saved).result()
        assert result.structured_content is not None
        assert "on attempt 2" in result.structured_content["result"]
        parent.terminate()
        parent.wait(30)


async def test_a_server_may_freeze_what_it_loaded(deployed: Desk) -> None:
    """It is the same server."""
    with deployed.server(*uvicorn(deployed, app="deploy_frozen")) as server:
        assert await pids(deployed, TasksClient(), 1) == {str(server.pid)}


async def test_sigterm_lets_short_work_finish_and_hands_on_the_rest(deployed: Desk) -> None:
    """The next start goes on at once."""
    tasks = TasksClient()
    short = deployed.folder / "deploy_app.py"
    short.write_text(
        short.read_text()
        .replace("from mcp_tasks import", "from mcp_tasks import RunnerConfig,")
        .replace('store=os.environ["REPORTS_STORE"]', "runner_config=RunnerConfig(drain=1)")
        + """
@tasks.tool()
async def once(seconds: float) -> str:
    await anyio.sleep(seconds)
    return "finished"
"""
    )
    with deployed.server(*uvicorn(deployed)) as server:
        async with client_of(deployed, tasks) as client:
            saved = {
                name: (await tasks.start(client, tool, {"seconds": seconds})).save()
                for name, tool, seconds in (
                    ("short", "once", 0.5),
                    ("long", "once", 60),
                    ("again", "build", 2),
                )
            }
        server.terminate()
        server.wait(20)
    with deployed.server(*uvicorn(deployed)):
        async with client_of(deployed, tasks) as client:
            found = {name: TaskHandle.resume(client, text) for name, text in saved.items()}
            assert (await found["short"].result()).structured_content == {"result": "finished"}
            again = (await found["again"].result()).structured_content
            assert again is not None
            assert "on attempt 2" in again["result"]
            with pytest.raises(MCPError) as caught:
                await found["long"].result()
            assert caught.value.error.data["reason"] == "worker_stopped"
            assert f"`{caught.value}`" in sections("troubleshooting.md")


async def test_a_mounted_server_is_served_beside_the_application_s_own_routes(
    load: Callable[[str], ModuleType],
) -> None:
    """And with its tasks started, by the application's lifespan."""
    app = load("deploy_mounted").app
    async with (
        app.router.lifespan_context(app),
        browse(app) as http,
    ):
        assert (await http.get("/health")).text == "ok"
        assert (
            '"resultType":"task"'
            in (await post(http, "tools/call", {"name": "hello", "arguments": {}})).text
        )


async def test_a_mounted_server_without_its_lifespan_says_what_to_run(
    load: Callable[[str], ModuleType],
) -> None:
    """The text that troubleshooting explains."""
    app = load("deploy_mounted").mcp_app
    async with browse(app) as http:
        with pytest.raises(RuntimeError) as caught:
            await post(http, "tools/call", {"name": "hello", "arguments": {}})

    assert f"`{caught.value}`" in sections("troubleshooting.md")


async def test_a_name_of_its_own_has_to_be_allowed() -> None:
    """Else the SDK refuses it with 421."""
    mcp: MCPServer[Any] = MCPServer("named", log_level="ERROR")
    Tasks.install(mcp, "memory://", signals=False)
    settings = TransportSecuritySettings(allowed_hosts=["mcp.example.com"])

    async def status(app: Any) -> int:
        async with (
            app.router.lifespan_context(app),
            browse(app, "mcp.example.com") as http,
        ):
            return (await post(http, "tasks/get", {"taskId": "x"})).status_code

    assert await status(mcp.streamable_http_app()) == 421
    mcp = MCPServer("named", log_level="ERROR")
    Tasks.install(mcp, "memory://", signals=False)
    assert await status(mcp.streamable_http_app(transport_security=settings)) == 400


async def ask_name() -> Elicit[Name]:
    """Ask before the task."""
    return Elicit("Who?", Name)


def asking(key: str | None) -> Any:
    """Make one of several processes."""
    security = None if key is None else RequestStateSecurity(keys=[key])
    mcp: MCPServer[Any] = MCPServer("asks", log_level="ERROR", request_state_security=security)
    tasks = Tasks.install(mcp, "memory://", signals=False)

    @tasks.tool()
    async def greet(name: Annotated[Name, Resolve(ask_name)]) -> str:
        return name.name

    _ = greet
    return mcp.streamable_http_app(json_response=True)


@pytest.mark.parametrize("key", [None, SECRET], ids=["no key", "one key"])
async def test_an_answer_before_the_task_may_come_to_another_process(key: str | None) -> None:
    """With one key; without it, the text that troubleshooting explains."""
    one, other = asking(key), asking(key)
    async with (
        one.router.lifespan_context(one),
        other.router.lifespan_context(other),
        browse(one) as first,
        browse(other) as second,
    ):
        params: dict[str, Any] = {"name": "greet", "arguments": {}}
        asked = (await post(first, "tools/call", params)).json()["result"]
        (question,) = asked["inputRequests"]
        params["inputResponses"] = {question: {"action": "accept", "content": {"name": "ada"}}}
        params["requestState"] = asked["requestState"]
        reply = (await post(second, "tools/call", params)).json()

    if key is None:
        assert f"`{reply['error']['message']}`" in sections("troubleshooting.md")
    else:
        assert reply["result"]["resultType"] == "task"


async def test_a_proxy_s_tenant_owns_the_task(load: Callable[[str], ModuleType]) -> None:
    """Another tenant does not find it."""
    app = load("deploy_owner").app
    async with (
        app.router.lifespan_context(app),
        browse(app) as http,
    ):
        call: dict[str, Any] = {"name": "hello", "arguments": {}}
        made = await post(http, "tools/call", call, x_tenant="red")
        (task_id,) = re.findall(r'"taskId":"(\w+)"', made.text)
        for tenant, found in (("red", True), ("blue", False)):
            seen = await post(http, "tasks/get", {"taskId": task_id}, x_tenant=tenant)
            assert ("task not found" not in seen.text) == found


def stdio(desk: Desk, script: str, data: Path) -> StdioServerParameters:
    """Say how a desktop client starts a server of the page."""
    kept = {key: value for key, value in os.environ.items() if key != "MCP_TASKS_STORE"}
    file = desk.folder / f"stdio_{script}.py"
    file.write_text(f"import {script}\n{script}.mcp.run()\n")
    environment = {**kept, "HOME": str(desk.folder), "XDG_DATA_HOME": str(data)}
    return StdioServerParameters(command=sys.executable, args=[str(file)], env=environment, cwd="/")


async def test_on_stdio_the_store_is_in_the_user_s_data_directory(desk: Desk) -> None:
    """One file for each server, by its name."""
    data = desk.folder / "data"
    server = stdio_client(stdio(desk, "deploy_mounted", data))
    async with Client(server, extensions=[TasksClient()]) as client:
        result = await client.call_tool("hello", {})

    assert result.structured_content == {"result": "hello"}
    assert [file.relative_to(data).as_posix() for file in data.rglob("*.db")] == [
        "mcp-tasks/mounted.db"
    ]


async def test_on_stdio_a_store_that_cannot_be_written_ends_the_server(desk: Desk) -> None:
    """With the reason on its standard error, and `Connection closed` for the client."""
    (desk.folder / "file").write_text("no folder")
    parameters = stdio(desk, "deploy_mounted", desk.folder / "file")
    with (desk.folder / "errors.log").open("w") as errors:
        server = stdio_client(parameters, errlog=errors)

        with pytest.RaisesGroup(MCPError, flatten_subgroups=True) as caught:
            async with Client(server, extensions=[TasksClient()]):
                pass

    assert "Connection closed" in repr(caught.value)
    assert "the task database is not available" in desk.errors()


async def test_expired_tasks_take_room_until_they_are_purged(tmp_path: Path) -> None:
    """What the page says of the command, its text included."""
    url = f"sqlite:///{(tmp_path / 'tasks.db').as_posix()}"
    brief = StoreConfig(grace=timedelta(milliseconds=1))
    async with TaskStore.open(url, namespace="reports", config=brief) as store:
        arguments = store.encode({}, what="arguments")
        ttl = timedelta(milliseconds=1)
        await store.create(ANONYMOUS, Call(tool="build", arguments=arguments), ttl=ttl)
    await anyio.sleep(0.05)

    def purge() -> str:
        command = [Path(sys.executable).with_name("mcp-tasks"), "purge", "--store", url]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    removed = re.fullmatch(r"removed (\d+) expired records\n", purge())
    assert removed is not None
    assert int(removed[1]) > 0
    assert purge() == "removed 0 expired records\n"


async def test_a_running_store_can_be_backed_up_by_sqlite(deployed: Desk) -> None:
    """By a program of its own, as the `sqlite3` command does it."""
    program = (
        "import sqlite3; a = sqlite3.connect('tasks.db'); b = sqlite3.connect('copy.db'); "
        "a.backup(b); b.close(); a.close()"
    )
    tasks = TasksClient()
    with deployed.server(*uvicorn(deployed)):
        async with client_of(deployed, tasks) as client:
            handle = await tasks.start(client, "build", {"seconds": 0})
            await handle.result()
            assert (deployed.folder / "tasks.db-wal").exists()
            deployed.output("-c", program)
    url = f"sqlite:///{(deployed.folder / 'copy.db').as_posix()}"
    async with TaskStore.open(url, namespace="reports") as store:
        assert (await store.get(ANONYMOUS, handle.task_id)).status == "completed"


def test_every_line_of_the_log_that_is_explained_is_written_somewhere() -> None:
    """Operators search for these words."""
    levels: dict[str, str] = {}
    for file in (ROOT / "src" / "mcp_tasks").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="_log"), attr=level),
                    args=[ast.Constant(value=str(text)), *_],
                ):
                    levels[text] = level
                case _:
                    pass

    for shown, level, _ in rows(sections("deploy.md")["Logs"]):
        words = pattern(shown.strip("`"))
        found = {there for text, there in levels.items() if words.fullmatch(text)}
        assert found == {level}, shown


def test_the_page_says_where_the_store_is() -> None:
    """The line that is to be read at start, in the form that it has."""
    backend = SqliteBackend("/srv/reports/tasks.db")

    assert f"tasks are kept in {backend!r}, namespace 'reports'" in (
        ROOT / "docs" / "deploy.md"
    ).read_text(encoding="utf-8")

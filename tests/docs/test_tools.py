"""What `docs/tools.md` says about tools, done to tools."""

# ruff: noqa: TC001 - what tools are annotated with is read at run time

from __future__ import annotations

import asyncio
import gzip
import hashlib
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest
from mcp import Client
from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.shared.exceptions import MCPError
from mcp_types import ElicitResult, TextContent
from pydantic import BaseModel

from mcp_tasks import (
    InvalidValueError,
    NotDurableError,
    RunnerConfig,
    StoreConfig,
    SyncTaskContext,
    TaskCancelledError,
    TaskContext,
    Tasks,
    TasksClient,
)

from .wire import browse, post


if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

    from mcp.client import ClientRequestContext
    from mcp_types import CallToolResult, ElicitRequestParams

    from .conftest import Desk


class Confirm(BaseModel):
    """What is asked for."""

    go: bool


@pytest.fixture
def tasks() -> Tasks:
    """Give tasks in memory, with clients that poll often."""
    server: MCPServer[Any] = MCPServer("tools", log_level="CRITICAL")
    config = StoreConfig(poll_interval=timedelta(milliseconds=10))
    runner = RunnerConfig(drain=0.2, cancel_grace=0.5)
    return Tasks.install(server, "memory://", signals=False, config=config, runner_config=runner)


async def agree(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
    """Say yes to everything."""
    return ElicitResult(action="accept", content={"go": True})


def server_of(tasks: Tasks) -> MCPServer[Any]:
    """Return the server that `tasks` belong to."""
    server = tasks._server  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - made above
    assert isinstance(server, MCPServer)
    return server


def client_of(tasks: Tasks, **options: Any) -> Client:
    """Make a client of that server."""
    return Client(server_of(tasks), **options)


def said(result: CallToolResult) -> str:
    """Return the text of a result."""
    (block,) = result.content
    assert isinstance(block, TextContent)
    return block.text


def test_the_page_s_own_test_passes(desk: Desk) -> None:
    """The example of testing is a test."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "tools_testing.py"],
        cwd=desk.folder,
        env={**os.environ, **desk.environment, "MCP_TASKS_STORE": "memory://"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert run.returncode == 0, run.stdout


def test_a_killed_tool_goes_on_after_its_last_step(desk: Desk) -> None:
    """The first example, killed after its answer, does not ask or compress again."""
    letters = desk.folder / "letters"
    letters.mkdir()
    for number in range(3):
        (letters / f"{number}.txt").write_text("x" * number)
    # The last file cannot be compressed on the first run: its place is taken by a folder.
    (letters / "2.txt.gz").mkdir()
    with desk.server("tools_compress.py") as server:
        saved = desk.output("clients_start.py", str(letters)).strip()
        with desk.python("clients_resume.py", saved, "yes") as client:
            desk.until((letters / "1.txt.gz").is_file)
            server.kill()
            server.wait()
            (letters / "0.txt.gz").write_bytes(b"not made again")
            (letters / "2.txt.gz").rmdir()
            with desk.server("tools_compress.py"):
                printed, _ = client.communicate(timeout=60)

    assert printed.splitlines() == ["Compress 3 files?", "{'result': '3 files, 3 bytes'}"]
    assert (letters / "0.txt.gz").read_bytes() == b"not made again"
    assert gzip.decompress((letters / "2.txt.gz").read_bytes()) == b"xx"


async def test_a_key_that_stays_the_same_charges_once(load: Callable[[str], ModuleType]) -> None:
    """The second example: what stands in for the payment service sees the task's own key."""
    module = load("tools_rerun")
    tasks = TasksClient()
    async with Client(module.mcp, extensions=[tasks]) as client:
        handle = await tasks.start(client, "pay", {"cents": 5})
        assert said(await handle.result()) == "5 cents"

        assert module.charged == {handle.task_id: 5}


async def test_a_plain_function_sees_that_it_is_cancelled(
    tasks: Tasks, load: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    """The third example, and a thread that looks."""
    file = tmp_path / "file"
    file.write_bytes(b"x")
    module = load("tools_def")
    async with Client(module.mcp, extensions=[TasksClient()]) as client:
        result = await client.call_tool("checksum", {"file": str(file)})
    assert said(result).startswith("2d711642")
    started, ended = threading.Event(), threading.Event()

    @tasks.tool()
    def busy(task: SyncTaskContext) -> str:
        started.set()
        while not task.cancel_requested:
            ended.wait(0.01)
        ended.set()
        return "too late"

    ours = TasksClient()
    async with client_of(tasks, extensions=[ours]) as client:
        handle = await ours.start(client, "busy")
        assert await anyio.to_thread.run_sync(started.wait, 5)
        await handle.cancel()
        with pytest.raises(TaskCancelledError), anyio.fail_after(5):
            await handle.result()
        assert await anyio.to_thread.run_sync(ended.wait, 5)


async def test_a_program_that_a_tool_runs_ends_with_its_time(
    load: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    """With a task and without one: nobody writes into the pipe that it reads."""
    mcp = load("tools_timeout").mcp
    (tmp_path / "file").write_bytes(b"abc")
    os.mkfifo(tmp_path / "pipe")
    for extensions in ([TasksClient()], []):
        async with Client(mcp, extensions=extensions) as client:
            with anyio.fail_after(10):
                known = await client.call_tool("checksum", {"file": str(tmp_path / "file")})
                assert known.structured_content == {"result": hashlib.sha256(b"abc").hexdigest()}
                with pytest.raises(MCPError, match="it may run for 2 s") as caught:
                    await client.call_tool("checksum", {"file": str(tmp_path / "pipe")})
        assert caught.value.error.code == -32603
        assert caught.value.error.data["reason"] == "timed_out"
        with pytest.raises(OSError, match="No such device"):  # nobody reads it any more
            os.open(tmp_path / "pipe", os.O_WRONLY | os.O_NONBLOCK)


async def test_a_call_without_a_task_runs_the_same_function(tasks: Tasks) -> None:
    """Steps run, variables last, asking is refused, and `required=True` refuses it all."""

    def one() -> int:
        return 1

    @tasks.tool()
    async def inline(task: TaskContext) -> str:
        await task.set_variables({"a": await task.step("one", one)})
        await task.progress(1)
        with pytest.raises(NotDurableError):
            await task.elicit("go", "Go?", Confirm)
        return f"{task.durable} {await task.variables()}"

    @tasks.tool(required=True)
    async def needs_one() -> str:
        return "never"

    async with client_of(tasks) as client:
        assert said(await client.call_tool("inline", {})) == "False {'a': 1}"
        with pytest.raises(MCPError) as caught:
            await client.call_tool("needs_one", {})
        assert caught.value.error.code == -32021


async def test_a_tool_that_a_tool_calls_is_a_part_of_it(tasks: Tasks) -> None:
    """One call, one task."""

    @tasks.task()
    async def inner(task: TaskContext | None = None) -> bool:
        assert task is not None
        return task.durable

    @tasks.tool()
    async def outer(task: TaskContext) -> str:
        return f"{task.durable} {await inner()}"

    async with client_of(tasks, extensions=[TasksClient()]) as client:
        assert said(await client.call_tool("outer", {})) == "True False"


async def test_how_a_tool_ends_is_how_its_task_ends(tasks: Tasks) -> None:
    """The table at the end of the page."""

    @tasks.tool()
    async def raises() -> str:
        raise ValueError("a secret")

    @tasks.tool()
    async def says() -> str:
        raise ToolError("for the client")

    @tasks.tool()
    async def refuses() -> str:
        raise MCPError(-32050, "not today")

    @tasks.tool()
    async def lets_through(task: TaskContext) -> str:
        await task.set_variables({"no": float("nan")})
        return "never"

    @tasks.tool()
    async def too_much() -> str:
        return "x" * 5 * 2**20

    async with client_of(tasks, extensions=[TasksClient()]) as client:
        result = await client.call_tool("raises", {})
        assert result.is_error
        assert said(result) == "Error executing tool raises"
        result = await client.call_tool("says", {})
        assert result.is_error
        assert "for the client" in said(result)
        for tool, code in (("refuses", -32050), ("lets_through", -32602), ("too_much", -32603)):
            with pytest.raises(MCPError) as caught:
                await client.call_tool(tool, {})
            assert caught.value.error.code == code
    _ = (raises, says, refuses, lets_through, too_much)


async def test_an_answer_that_does_not_fit_raises_and_a_new_key_asks_again(tasks: Tasks) -> None:
    """The first answer under a key counts, fit or not."""

    @tasks.tool(resumable=True)
    async def ask(task: TaskContext) -> str:
        for number in range(5):
            try:
                answer = await task.elicit(f"go-{number}", "Go?", Confirm)
            except InvalidValueError:
                continue
            return f"{answer.action} after {number}"
        return "never"

    answers: list[Any] = ["perhaps", {}, True]

    async def reply(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        return ElicitResult(action="accept", content={"go": answers.pop(0)})

    answers[1] = "maybe"
    async with client_of(tasks, extensions=[TasksClient()], elicitation_callback=reply) as client:
        assert said(await client.call_tool("ask", {})) == "accept after 2"


@pytest.mark.parametrize("resumable", [False, True])
async def test_a_timeout_around_a_question_ends_it_unless_the_tool_is_parked(
    tasks: Tasks, *, resumable: bool
) -> None:
    """A resumable tool is not there while a person thinks, and neither is its clock."""

    @tasks.tool(resumable=resumable)
    async def ask(task: TaskContext) -> str:
        try:
            async with asyncio.timeout(0.1):
                return (await task.elicit("go", "Go?", Confirm)).action
        except TimeoutError:
            return "too late"

    async def think(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        await anyio.sleep(0.3)
        return ElicitResult(action="accept", content={"go": True})

    ours = TasksClient()
    async with client_of(tasks, extensions=[ours], elicitation_callback=think) as client:
        handle = await ours.start(client, "ask")
        assert said(await handle.result()) == ("accept" if resumable else "too late")
        assert (await handle.poll()).questions == {}


async def test_names_that_begin_with_an_underscore_stay_here(tasks: Tasks) -> None:
    """A client sees the other variables."""

    @tasks.tool()
    async def keeps(task: TaskContext) -> str:
        await task.set_variables({"_secret": 1, "shown": 2, "gone": 3})
        await task.set_variables({"gone": None})
        return f"{await task.variables()}"

    ours = TasksClient()
    async with client_of(tasks, extensions=[ours]) as client:
        handle = await ours.start(client, "keeps")
        assert said(await handle.result()) == "{'_secret': 1, 'shown': 2}"
        assert (await handle.poll()).variables == {"shown": 2}


async def test_asking_extends_a_life_but_not_that_of_a_stranger(tasks: Tasks) -> None:
    """A person may take days."""

    @tasks.tool(resumable=True, ttl=timedelta(minutes=5))
    async def ask(task: TaskContext) -> str:
        await task.elicit("go", "Go?", Confirm)
        return "gone"

    ours = TasksClient()
    async with client_of(tasks, extensions=[ours], elicitation_callback=agree) as client:
        handle = await ours.start(client, "ask")
        task = await handle.wait()
        assert task.ttl is not None
        assert task.ttl > timedelta(days=6)
    app = server_of(tasks).streamable_http_app(json_response=True)
    async with app.router.lifespan_context(app), browse(app) as http:
        made = (await post(http, "tools/call", {"name": "ask", "arguments": {}})).json()["result"]
        with anyio.fail_after(5):
            while made["status"] != "input_required":
                made = (await post(http, "tasks/get", {"taskId": made["taskId"]})).json()["result"]
    assert made["ttlMs"] == 300_000


@dataclass
class Size:
    """What a step may return."""

    width: int


async def test_a_step_returns_what_its_annotation_says(tasks: Tasks) -> None:
    """Plain values, dataclasses and models, as themselves and not as dictionaries."""

    def plain() -> dict[str, list[int]]:
        return {"a": [1]}

    def data() -> Size:
        return Size(2)

    async def model() -> Confirm:
        return Confirm(go=True)

    @tasks.tool(resumable=True)
    async def takes(task: TaskContext) -> str:
        first = await task.step("plain", plain)
        second = await task.step("data", data)
        third = await task.step("model", model)
        return f"{first} {second} {third}"

    async with client_of(tasks, extensions=[TasksClient()]) as client:
        result = await client.call_tool("takes", {})
    assert said(result) == "{'a': [1]} Size(width=2) go=True"


async def test_a_tool_that_ignores_its_cancellation_is_cut_off(tasks: Tasks) -> None:
    """And a tool that cleans up is left to it."""
    cleaned, over = anyio.Event(), anyio.Event()

    @tasks.tool()
    async def cleans() -> str:
        try:
            await anyio.sleep_forever()
        finally:
            cleaned.set()
        return "never"

    @tasks.tool()
    async def ignores() -> str:
        while not over.is_set():
            try:
                await anyio.sleep(0.05)
            except anyio.get_cancelled_exc_class():
                continue
        return "too late"

    ours = TasksClient()
    async with client_of(tasks, extensions=[ours]) as client:
        for tool in ("cleans", "ignores"):
            handle = await ours.start(client, tool)
            await handle.cancel()
            with pytest.raises(TaskCancelledError), anyio.fail_after(5):
                await handle.result()
        over.set()
    assert cleaned.is_set()

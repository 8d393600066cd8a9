"""Every error is explained, under the text that it really has."""

from __future__ import annotations

import asyncio
import inspect
import re
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from mcp import Client
from mcp.server import MCPServer
from mcp.shared.exceptions import MCPError

from mcp_tasks import (
    ConfigurationError,
    MCPTasksError,
    TaskHandle,
    Tasks,
    TasksClient,
    client,
    errors,
)
from mcp_tasks.storage.sqlite import SqliteBackend

from .pages import pattern, sections
from .said import (
    MADE,
    after_deaths,
    at_start,
    from_a_low_level_server,
    from_a_rule_for_owners,
    from_a_server,
    from_a_server_of_others,
    from_another_server,
    over_http,
    past_its_time,
    server,
)
from .wire import browse, post


if TYPE_CHECKING:
    from .conftest import Desk


PAGE = "troubleshooting.md"
EXPLAINED = {
    heading.strip("`"): body
    for heading, body in sections(PAGE).items()
    if heading.startswith("`") and heading.endswith("`")
}

# Raised, and compared with their headings, where deployment is tested.
ELSEWHERE = {
    "Task group is not initialized. Make sure to use run().",
    "Invalid or expired requestState",
    "the worker that ran this task was stopped; the tool may have run, and is not run again",
}


def heading_of(said: str) -> str:
    """Return the heading under which a text is explained; the test fails without one."""
    found = [heading for heading in EXPLAINED if pattern(heading).fullmatch(said)]
    assert found, f"not explained: {said}"
    # The one that says most of it: some are forms of others.
    return max(found, key=len)


def test_every_class_is_made() -> None:
    """A new error is explained too."""
    abstract = {MCPTasksError, errors.StorageError, errors.TaskError, ConfigurationError}
    modules = [errors, inspect.getmodule(client.TaskCancelledError)]
    known = {
        value
        for module in modules
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, MCPTasksError)
    }

    assert known - abstract == {type(error) for error in MADE}


@pytest.mark.parametrize("error", MADE, ids=lambda error: type(error).__name__)
def test_an_error_is_explained_under_its_text_with_its_code(error: MCPTasksError) -> None:
    """Who searches for a part of the text finds the class, and the code that a client sees."""
    body = EXPLAINED[heading_of(str(error))]

    assert f"`{type(error).__name__}`" in body
    for code in re.findall(r"-32\d{3}", body)[:1]:
        assert isinstance(error, errors.TaskError)
        assert error.code == int(code)


async def test_every_text_is_a_real_one(desk: Desk) -> None:
    """Nothing is explained that nobody sees, and what is seen is explained."""
    said = [
        *(str(error) for error in MADE),
        *at_start(),
        *await from_a_server(),
        *await from_a_low_level_server(),
        *await from_a_server_of_others(),
        *await from_a_rule_for_owners(),
        *from_another_server(),
        *await over_http(),
        *await past_its_time(),
        *await after_deaths(desk),
    ]

    seen = {heading_of(text) for text in said}

    assert seen | ELSEWHERE == set(EXPLAINED)


async def test_a_larger_body_is_taken_where_the_server_says_so() -> None:
    """Up to the limit of the store, which is the next one."""
    app = server().streamable_http_app(json_response=True, max_request_body_size=8 * 2**20)
    params = {"name": "waits", "arguments": {"text": "x" * 5_000_000}}
    async with app.router.lifespan_context(app), browse(app) as http:
        reply = (await post(http, "tools/call", params)).json()

    assert heading_of(reply["error"]["message"]) == "… cannot be accepted: …; nothing was stored"
    small = server().streamable_http_app(json_response=True)
    async with small.router.lifespan_context(small), browse(small) as http:
        assert (await post(http, "tools/call", params)).status_code == 413


async def test_a_writer_that_is_stopped_keeps_others_out(desk: Desk) -> None:
    """`database is locked`, until it goes on or ends."""
    program = (
        "import sqlite3, time; db = sqlite3.connect('tasks.db', isolation_level=None); "
        "db.execute('BEGIN IMMEDIATE'); print('locked', flush=True); time.sleep(60)"
    )
    backend = SqliteBackend(desk.folder / "tasks.db", busy_timeout=0.2)
    await backend.put("a:b", b"{}")

    with desk.python("-c", program) as other:
        assert other.stdout is not None
        await asyncio.to_thread(other.stdout.readline)
        with pytest.raises(errors.StorageUnavailableError, match="database is locked"):
            await backend.put("a:b", b"{}")
    assert await backend.put("a:b", b"{}") == 2
    await backend.close()


async def test_a_worker_without_the_tool_leaves_its_task_alone(desk: Desk) -> None:
    """It stays `working`, until a worker that has the tool comes."""
    url = desk.environment["MCP_TASKS_STORE"]

    def make(tool: str, *, worker: bool) -> MCPServer[Any]:
        async def hello() -> str:
            return "hello"

        mcp: MCPServer[Any] = MCPServer("parts", log_level="ERROR")
        Tasks.install(mcp, url, worker=worker, signals=False).add_tool(hello, tool)
        return mcp

    tasks = TasksClient()
    async with Client(make("hello", worker=False), extensions=[tasks]) as client:
        handle = await tasks.start(client, "hello")
        async with Client(make("other", worker=True)):
            await anyio.sleep(1.5)  # it looks once a second
            assert (await handle.poll()).status == "working"
        async with Client(make("hello", worker=True)):
            assert (await handle.result()).structured_content == {"result": "hello"}


async def test_a_renamed_server_does_not_find_its_tasks(desk: Desk) -> None:
    """Unless it keeps the old name as its namespace."""
    url = desk.environment["MCP_TASKS_STORE"]

    def make(name: str, namespace: str | None = None) -> MCPServer[Any]:
        async def hello() -> str:
            return "hello"

        mcp: MCPServer[Any] = MCPServer(name, log_level="ERROR")
        Tasks.install(mcp, url, namespace=namespace, signals=False).add_tool(hello)
        return mcp

    tasks = TasksClient()
    async with Client(make("old"), extensions=[tasks]) as client:
        handle = await tasks.start(client, "hello")
        await handle.result()
    saved = f"mcp-task:1:{handle.task_id}"
    async with Client(make("new"), extensions=[tasks]) as client:
        with pytest.raises(MCPError, match="task not found"):
            await TaskHandle.resume(client, saved).poll()
    async with Client(make("new", "old"), extensions=[tasks]) as client:
        assert (await TaskHandle.resume(client, saved).poll()).status == "completed"

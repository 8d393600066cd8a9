"""A server with tools that wait for the test, and clients of it."""

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import anyio
import pytest
from mcp.server.mcpserver import MCPServer
from mcp.shared.exceptions import MCPError
from pydantic import BaseModel

from mcp_tasks import StoreConfig, TaskContext, Tasks


class Name(BaseModel):
    """What the questions ask for."""

    name: str


@dataclass
class Stage:
    """What a test and the tools of its server share.

    Attributes:
        started: Set when `held` runs.
        gate: `held` waits for it.
        stopped: Set when `held` was cancelled.
        heard: What came back for questions.
    """

    server: MCPServer
    tasks: Tasks
    started: anyio.Event = field(default_factory=anyio.Event)
    gate: anyio.Event = field(default_factory=anyio.Event)
    stopped: anyio.Event = field(default_factory=anyio.Event)
    heard: list[Any] = field(default_factory=list[Any])


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The SDK's HTTP path is asyncio."""
    return "asyncio"


@pytest.fixture
def stage() -> Stage:
    """Make a server in memory, for clients in this process."""
    server = MCPServer("stage", log_level="WARNING")
    config = StoreConfig(poll_interval=timedelta(milliseconds=20))
    tasks = Tasks.install(server, store="memory://", config=config, signals=False)
    stage = Stage(server, tasks)

    @server.tool()
    async def plain(text: str) -> str:
        return text

    @tasks.tool()
    async def echo(text: str) -> str:
        return text

    @tasks.tool()
    async def held(text: str = "released") -> str:
        """Wait for the test."""
        stage.started.set()
        try:
            await stage.gate.wait()
        except asyncio.CancelledError:
            stage.stopped.set()
            raise
        return text

    @tasks.tool()
    async def broken() -> str:
        raise ValueError("no such thing")

    @tasks.tool()
    async def refused() -> str:
        raise MCPError(-32050, "not today", {"try": "tomorrow"})

    @tasks.tool()
    async def ask(task: TaskContext) -> str:
        """Ask for one name."""
        answer = await task.elicit("who", "Who are you?", Name)
        stage.heard.append(answer)
        return answer.data.name if answer.data else answer.action

    @tasks.tool()
    async def ask_two(task: TaskContext) -> str:
        """Ask for two names at once."""
        first, second = await asyncio.gather(
            task.elicit("first", "First?", Name), task.elicit("second", "Second?", Name)
        )
        return f"{first.data and first.data.name} {second.data and second.data.name}"

    @tasks.tool()
    async def think(task: TaskContext) -> str:
        """Ask the client's model, and for its roots."""
        message = {"role": "user", "content": {"type": "text", "text": "2 + 2"}}
        thought = await task.request(
            "sampling/createMessage", {"messages": [message], "maxTokens": 10}, key="thought"
        )
        roots = await task.request("roots/list", {}, key="roots")
        return f"{thought['content']['text']} in {roots['roots'][0]['uri']}"

    _ = (plain, echo, held, broken, refused, ask, ask_two, think)
    return stage

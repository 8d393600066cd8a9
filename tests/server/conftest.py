"""A server, and a raw wire to it: HTTP without a network, so that no client tidies what is sent."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest
from mcp.server.mcpserver import MCPServer

from mcp_tasks import RunnerConfig, Tasks


if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager

    from mcp.server.lowlevel import Server
    from starlette.applications import Starlette

    Serve = Callable[[MCPServer[Any] | Server[Any] | Starlette], AbstractAsyncContextManager[Any]]

VERSION = "2026-07-28"
EXTENSION = "io.modelcontextprotocol/tasks"
PREFIX = "io.modelcontextprotocol"
DECLARED: dict[str, Any] = {"elicitation": {}, "sampling": {}, "extensions": {EXTENSION: {}}}


@dataclass
class Reply:
    """What came back.

    Attributes:
        status: Of HTTP.
        body: The bytes.
    """

    status: int
    body: bytes

    @property
    def result(self) -> dict[str, Any]:
        """The result; the test fails without one."""
        message = json.loads(self.body)
        assert "result" in message, message
        return message["result"]

    @property
    def error(self) -> dict[str, Any]:
        """The error; the test fails without one."""
        message = json.loads(self.body)
        assert "error" in message, message
        return message["error"]


@dataclass
class Wire:
    """Sends requests as they are written.

    Attributes:
        http: Talks to the application.
        capabilities: What requests declare.
        headers: Sent with each request.
    """

    http: httpx.AsyncClient
    capabilities: dict[str, Any] = field(default_factory=lambda: dict(DECLARED))
    headers: dict[str, str] = field(default_factory=dict[str, str])

    def undeclared(self) -> Wire:
        """Return a wire whose requests do not declare the extension."""
        return Wire(self.http, {"elicitation": {}}, self.headers)

    def bearer(self, token: str) -> Wire:
        """Return a wire whose requests carry a token."""
        return Wire(self.http, self.capabilities, {"Authorization": f"Bearer {token}"})

    async def post(
        self, method: str, params: dict[str, Any], name: str | None = None, **headers: str
    ) -> Reply:
        """Send a request; `name` becomes `Mcp-Name`, keywords become further headers."""
        meta = {
            f"{PREFIX}/protocolVersion": VERSION,
            f"{PREFIX}/clientInfo": {"name": "wire", "version": "1"},
            f"{PREFIX}/clientCapabilities": self.capabilities,
            **params.get("_meta", {}),
        }
        body = {"jsonrpc": "2.0", "id": 7, "method": method, "params": {**params, "_meta": meta}}
        sent = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": VERSION,
            "Mcp-Method": method,
            **self.headers,
            **{key.replace("_", "-"): value for key, value in headers.items()},
        }
        if name is not None:
            sent["Mcp-Name"] = name
        reply = await self.http.post("/mcp", content=json.dumps(body), headers=sent)
        return Reply(reply.status_code, reply.content)

    async def call(self, tool: str, arguments: Any = None, **more: Any) -> Reply:
        """Call a tool."""
        params: dict[str, Any] = {"name": tool, "arguments": arguments or {}, **more}
        return await self.post("tools/call", params, tool)

    async def create(self, tool: str, arguments: Any = None) -> str:
        """Call a tool that becomes a task, and return the task's id."""
        result = (await self.call(tool, arguments)).result
        assert result["resultType"] == "task", result
        return result["taskId"]

    async def get(self, task_id: str) -> Reply:
        """Poll a task."""
        return await self.post("tasks/get", {"taskId": task_id}, task_id)

    async def cancel(self, task_id: str) -> Reply:
        """Cancel a task."""
        return await self.post("tasks/cancel", {"taskId": task_id}, task_id)

    async def answer(self, task_id: str, responses: Any) -> Reply:
        """Answer questions of a task."""
        params = {"taskId": task_id, "inputResponses": responses}
        return await self.post("tasks/update", params, task_id)

    async def until(self, task_id: str, *statuses: str) -> dict[str, Any]:
        """Poll until the task has one of these statuses."""
        with anyio.fail_after(10):
            while True:
                task = (await self.get(task_id)).result
                if task["status"] in statuses:
                    return task
                await anyio.sleep(0.01)

    async def outcome(self, task_id: str) -> dict[str, Any]:
        """Poll until the task has ended."""
        return await self.until(task_id, "completed", "failed", "cancelled")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The SDK's HTTP path is asyncio."""
    return "asyncio"


@pytest.fixture
def serve() -> Serve:
    """Return a context manager that serves a server, or an application with one at `/mcp`."""

    @asynccontextmanager
    async def serving(
        server: MCPServer[Any] | Server[Any] | Starlette,
    ) -> AsyncGenerator[Wire]:
        app: Any = server
        if hasattr(server, "streamable_http_app"):
            app = app.streamable_http_app(json_response=True)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8000"
            ) as http,
        ):
            yield Wire(http)

    return serving


@dataclass
class Stage:
    """A server without tools, in memory, and its tasks."""

    server: MCPServer[Any]
    tasks: Tasks


@pytest.fixture
def stage() -> Stage:
    """Make a server for a test to put its tools on."""
    server: MCPServer[Any] = MCPServer("stage", log_level="ERROR")
    return Stage(
        server,
        Tasks.install(server, "memory://", signals=False, runner_config=RunnerConfig(drain=0.5)),
    )

"""Servers as they are really run: over stdio, under uvicorn with several workers, and ended."""

# ruff: noqa: ASYNC110, ASYNC240 - what other processes do can only be polled for

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import anyio
import httpx
import msgspec
import pytest
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp.server.mcpserver import MCPServer
from mcp_types import CallToolResult

from mcp_tasks import Tasks, TasksClient, TaskStatus, TaskStore

from .conftest import Wire


if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from mcp_tasks import TaskRecord

SCRIPT = Path(__file__).with_name("process_server.py")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows ends processes otherwise")


def settings(folder: Path) -> dict[str, str]:
    """Return an environment in which a process keeps its tasks below `folder`."""
    kept = {key: value for key, value in os.environ.items() if key != "MCP_TASKS_STORE"}
    return {**kept, "HOME": str(folder), "XDG_DATA_HOME": str(folder / "data")}


@asynccontextmanager
async def store_of(folder: Path) -> AsyncGenerator[TaskStore]:
    """Look at what such a process stored."""
    files = list(folder.rglob("process.db"))
    assert len(files) == 1, files
    async with TaskStore.open(f"sqlite:///{files[0].as_posix()}", namespace="process") as store:
        yield store


async def only_task(folder: Path, owner: str) -> TaskRecord:
    """Return the one task that such a process stored."""
    async with store_of(folder) as store:
        (task,) = (await store.list(owner)).tasks
    return task


def unwritable(folder: Path) -> Path:
    """Return a folder that nobody can write to, root included."""
    if Path("/proc/self").exists():
        return Path("/proc/self")
    closed = folder / "closed"
    closed.mkdir()
    closed.chmod(0o555)
    return closed


def stdio(folder: Path) -> StdioServerParameters:
    """Say how a client starts the server."""
    return StdioServerParameters(
        command=sys.executable,
        args=[str(SCRIPT), "stdio"],
        env=settings(folder),
        cwd=unwritable(folder),
    )


async def test_a_desktop_client_can_start_it_in_any_folder(tmp_path: Path) -> None:
    """Tasks are kept in the user's data directory, not where the process happens to be."""
    async with Client(stdio(tmp_path), extensions=[TasksClient()]) as client:
        with anyio.fail_after(20):
            result = await client.call_tool("where", {})
    assert isinstance(result, CallToolResult)
    task = await only_task(tmp_path, "local")

    assert task.status is TaskStatus.COMPLETED


@pytest.mark.parametrize(("tool", "status"), [("once", "failed"), ("resumed", "working")])
async def test_the_end_of_stdio_gives_tasks_back_before_the_client_kills(
    tmp_path: Path, tool: str, status: str
) -> None:
    """A client closes stdin, waits two seconds and kills: nobody must wait for a lease then."""
    async with Client(stdio(tmp_path), extensions=[TasksClient()]) as client:
        with anyio.fail_after(20):
            await client.session.call_tool(tool, {}, allow_claimed=True)
    task = await only_task(tmp_path, "local")

    assert (task.status.value, task.worker) == (status, None)
    if tool == "once":
        assert task.error is not None
        assert b"worker_stopped" in msgspec.json.encode(task.error.data)
    async with Client(stdio(tmp_path), extensions=[TasksClient()]):
        with anyio.fail_after(20):
            while not (task := await only_task(tmp_path, "local")).is_terminal:
                await anyio.sleep(0.05)
    assert task.status.value == ("failed" if tool == "once" else "completed")


@contextmanager
def process(folder: Path, *arguments: str) -> Generator[subprocess.Popen[bytes]]:
    """Run a process that keeps its tasks below `folder`."""
    child = subprocess.Popen(
        [sys.executable, *arguments],
        env=settings(folder),
        cwd=SCRIPT.parent,
        stdin=subprocess.PIPE,
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@asynccontextmanager
async def connected(port: int) -> AsyncGenerator[Wire]:
    """Talk to a server as soon as it answers."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as http:
        with anyio.fail_after(30):
            while True:
                try:
                    await http.post("/", json={})
                except httpx.TransportError:
                    await anyio.sleep(0.05)
                else:
                    break
        yield Wire(http)


async def ended(child: subprocess.Popen[bytes]) -> int:
    """Wait for a process."""
    with anyio.fail_after(15):
        while child.poll() is None:
            await anyio.sleep(0.02)
    return child.returncode


async def test_sigterm_starts_the_drain_though_a_stream_holds_the_server(tmp_path: Path) -> None:
    """The HTTP server waits for open responses; tasks must not wait with it."""
    port = free_port()
    with process(tmp_path, str(SCRIPT), "http", str(port)) as child:
        async with connected(port) as wire:
            await wire.create("resumed")
            listening = anyio.Event()

            async def listen() -> None:
                params = {"notifications": {"toolsListChanged": True}}
                async with stream(wire, params) as lines:
                    await anext(lines)
                    listening.set()
                    await anyio.sleep_forever()

            async with anyio.create_task_group() as group:
                group.start_soon(listen)
                with anyio.fail_after(10):
                    await listening.wait()
                child.send_signal(signal.SIGTERM)
                with anyio.fail_after(10):
                    while (await only_task(tmp_path, "anonymous")).worker is not None:
                        await anyio.sleep(0.05)
                assert child.poll() is None, "the open stream still holds the server"
                group.cancel_scope.cancel()
        await ended(child)


@asynccontextmanager
async def stream(wire: Wire, params: dict[str, Any]) -> AsyncGenerator[Any]:
    """Open a response that does not end."""
    body = message("subscriptions/listen", params)
    headers = {
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "subscriptions/listen",
    }
    async with wire.http.stream("POST", "/mcp", json=body, headers=headers) as reply:
        yield reply.aiter_lines()


async def test_sigterm_ends_a_process_that_has_no_handler_as_before(tmp_path: Path) -> None:
    """Over stdio the default action would end it at once; it does, once tasks are given back."""
    with process(tmp_path, str(SCRIPT), "stdio") as child:
        # By hand, for a client would end the process itself.
        call = message("tools/call", {"name": "once", "arguments": {}})
        assert child.stdin is not None
        child.stdin.write(json.dumps(call).encode() + b"\n")
        child.stdin.flush()
        with anyio.fail_after(20):
            while not await is_running(tmp_path):
                await anyio.sleep(0.05)
        child.send_signal(signal.SIGTERM)
        assert await ended(child) == -signal.SIGTERM
    task = await only_task(tmp_path, "local")

    assert task.status is TaskStatus.FAILED


async def is_running(folder: Path) -> bool:
    """Tell whether such a process runs a task by now."""
    if not list(folder.rglob("process.db")):
        return False
    async with store_of(folder) as store:
        return any(task.worker for task in (await store.list("local")).tasks)


def message(method: str, params: dict[str, Any]) -> dict[str, Any]:
    """Make a request."""
    prefix = "io.modelcontextprotocol"
    meta: dict[str, Any] = {
        f"{prefix}/protocolVersion": "2026-07-28",
        f"{prefix}/clientInfo": {"name": "process", "version": "1"},
        f"{prefix}/clientCapabilities": {"extensions": {f"{prefix}/tasks": {}}},
    }
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}


async def test_four_workers_serve_one_another_s_tasks(tmp_path: Path) -> None:
    """`uvicorn --workers 4` on one file: whichever process answers knows every task."""
    port = free_port()
    command = ["-m", "uvicorn", "process_server:app", "--workers", "4", "--port", str(port)]
    with process(tmp_path, *command, "--log-level", "error") as child:
        async with connected(port) as wire:
            pids: set[int] = set()
            for _ in range(100):
                # A connection for each request, so that the kernel picks a process for each.
                async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
                    task_id = await Wire(http).create("where")
                task = await wire.outcome(task_id)
                pids.add(task["result"]["structuredContent"]["result"])
                if len(pids) > 1:
                    break
        assert len(pids) > 1
        child.send_signal(signal.SIGTERM)
        await ended(child)


@pytest.mark.parametrize("signals", [True, False])
async def test_the_handler_that_was_there_is_called_and_put_back(*, signals: bool) -> None:
    """Another library's SIGTERM is not ours to swallow, and `signals=False` touches nothing."""
    heard: list[int] = []
    server: MCPServer[Any] = MCPServer("signals", log_level="ERROR")
    tasks = Tasks.install(server, "memory://", signals=signals)

    @tasks.tool()
    async def ping() -> str:
        return "pong"

    def handler(number: int, _: object) -> None:
        heard.append(number)

    before = signal.signal(signal.SIGTERM, handler)
    try:
        async with Client(server, extensions=[TasksClient()]) as client:
            assert (signal.getsignal(signal.SIGTERM) is handler) is not signals
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0.1)
            assert heard == [signal.SIGTERM]
            created = await client.session.call_tool("ping", {}, allow_claimed=True)
            await asyncio.sleep(0.1)
            # While draining, a task waits for another worker.
            host = tasks._hosts.current()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
            record = await host.store.get("local", cast("Any", created).task_id)
            assert record.is_terminal is not signals
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)

"""A client over HTTP outlives its server; a task outlives its client."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest
from mcp.client import Client
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, ElicitResult

from mcp_tasks.client import TaskHandle, TasksClient, reconnecting_http


if TYPE_CHECKING:
    from collections.abc import Iterator

    from mcp.client import ClientRequestContext
    from mcp_types import ElicitRequestParams


HERE = Path(__file__).parent


class Server:
    """The server in `restarting_server.py`, on one port and one store."""

    def __init__(self, folder: Path, port: int, *flags: str) -> None:
        self.folder = folder
        self.url = f"http://127.0.0.1:{port}/mcp"
        self._port = port
        self._flags = flags
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start it and wait until it takes connections."""
        store = f"sqlite:///{(self.folder / 'tasks.db').as_posix()}"
        script = str(HERE / "restarting_server.py")
        command = [sys.executable, script, str(self._port), store, str(self.folder), *self._flags]
        self._process = subprocess.Popen(command)  # noqa: ASYNC220 - returns at once
        with anyio.fail_after(20):
            while True:
                assert self._process.poll() is None
                try:
                    stream = await anyio.connect_tcp("127.0.0.1", self._port)
                except OSError:
                    await anyio.sleep(0.05)
                else:
                    await stream.aclose()
                    return

    def kill(self) -> None:
        """Kill it, without a word."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def reached(self, attempt: int) -> None:
        """Wait until an attempt has taken its first two steps."""
        with anyio.fail_after(20):
            while not (self.folder / f"attempt-{attempt}").exists():  # noqa: ASYNC110
                await anyio.sleep(0.02)  # another process makes it

    def steps(self) -> list[str]:
        """Return the steps that ran, in order."""
        return (self.folder / "steps.txt").read_text().split()


@pytest.fixture(params=["sse", "json"])
def server(request: pytest.FixtureRequest, tmp_path: Path, free_tcp_port: int) -> Iterator[Server]:
    """Give a server that is not started yet."""
    flags = ["--json"] if request.param == "json" else []
    server = Server(tmp_path, free_tcp_port, *flags)
    yield server
    server.kill()


async def test_a_call_outlives_the_server(server: Server) -> None:
    """Killed in the middle and started again: the caller gets the result, no step ran twice."""
    asked: list[str] = []

    async def elicit(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        asked.append(params.message)
        return ElicitResult(action="accept", content={"go": True})

    async def restart() -> None:
        await server.reached(1)
        server.kill()
        await anyio.sleep(0.3)  # some polls meet nobody
        await server.start()

    await server.start()
    async with Client(
        reconnecting_http(server.url), extensions=[TasksClient()], elicitation_callback=elicit
    ) as client:
        with anyio.fail_after(40):
            async with anyio.create_task_group() as group:
                group.start_soon(restart)
                result = await client.call_tool("journey", {"ask": True})
                assert result.structured_content == {"result": 6}

    assert server.steps() == ["1", "2", "3"]
    assert asked == ["Go on?"]


@pytest.mark.requirement("T-032")
async def test_a_saved_task_is_resumed_in_another_process(server: Server) -> None:
    """Client and server may both be gone in between."""
    tasks = TasksClient()
    await server.start()
    async with Client(reconnecting_http(server.url), extensions=[tasks]) as client:
        with anyio.fail_after(20):
            saved = (await tasks.start(client, "journey")).save()
            await server.reached(1)
    server.kill()
    await server.start()

    with anyio.fail_after(40):
        command = [sys.executable, str(HERE / "resuming_client.py"), server.url, saved]
        done = await anyio.run_process(command, check=False)

    assert done.stdout.decode().strip() == "{'result': 6}", done.stderr.decode()


async def test_a_request_that_meets_nobody_fails_alone(server: Server) -> None:
    """The SDK's own transport would end the whole client; here the next request connects anew."""
    await server.start()
    async with Client(reconnecting_http(server.url), extensions=[TasksClient()]) as client:
        with anyio.fail_after(40):
            await client.list_tools()
            server.kill()
            with pytest.raises(MCPError) as caught:
                await client.call_tool("journey", {})
            assert caught.value.code == CONNECTION_CLOSED
            assert "may or may not" in caught.value.message
            await server.start()
            assert [tool.name for tool in (await client.list_tools()).tools] == ["journey"]


async def test_a_task_that_the_server_does_not_know_is_an_error_at_once(server: Server) -> None:
    """Patience is for servers that are away."""
    await server.start()
    async with Client(reconnecting_http(server.url), extensions=[TasksClient()]) as client:
        with anyio.fail_after(10), pytest.raises(MCPError, match="not found"):
            await TaskHandle.resume(client, f"mcp-task:1:{'0' * 36}").poll()

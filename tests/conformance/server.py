"""The fixture server of `make conformance`: the tools that the official suite calls, over HTTP.

Usage: python tests/conformance/server.py PORT [--json] [--store STORE]

Serves 127.0.0.1 only; answers are SSE unless `--json`, tasks are kept in memory unless `--store`.
Names, arguments and behaviour of the tools are the suite's.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from typing import Annotated

import anyio
import uvicorn
from mcp.server import MCPServer
from mcp.server.mcpserver import Context  # noqa: TC002 - the SDK reads the annotation
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.resolve import Elicit, Resolve
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, MISSING_REQUIRED_CLIENT_CAPABILITY
from pydantic import BaseModel

from mcp_tasks import RunnerConfig, TaskContext, Tasks  # noqa: TC001 - read from annotations
from mcp_tasks.storage.base import Initializable
from mcp_tasks.storage.urls import open_backend
from mcp_tasks.testing.servers import NAMES, server_named


class Confirm(BaseModel):
    """A yes or no."""

    confirm: bool


class Name(BaseModel):
    """Somebody's name."""

    name: str


async def ask_name() -> Elicit[Name]:
    """Ask for a name before the tool runs."""
    return Elicit("Your name?", Name)


def make_server(store: str) -> MCPServer:
    """Make the server, with its tasks in `store`."""
    mcp = MCPServer("mcp-tasks-conformance", version="1", log_level="WARNING")
    tasks = Tasks.install(mcp, store, runner_config=RunnerConfig(drain=0.5))
    _add_task_tools(mcp, tasks)
    _add_diagnostic_tools(mcp)

    @mcp.prompt()
    def greeting(name: str) -> str:
        """Ask for a greeting."""
        return f"Greet {name}."

    @mcp.resource("fixture://about")
    def about() -> str:
        """Say what this server is."""
        return "A fixture for the conformance suite."

    return mcp


def _add_task_tools(mcp: MCPServer, tasks: Tasks) -> None:
    @mcp.tool()
    async def greet(name: str) -> str:
        """Greet somebody, never as a task."""
        return f"Hello, {name}!"

    @tasks.tool()
    async def slow_compute(task: TaskContext, seconds: float, label: str = "") -> str:
        """Take a number of seconds."""
        tenths = int(seconds * 10)
        for tenth in range(tenths):
            await task.progress(tenth, tenths)
            await anyio.sleep(0.1)
        return f"computed {label} in {seconds} s"

    @tasks.tool(required=True)
    async def failing_job() -> str:
        """End in an error of the tool's own, and only as a task."""
        await anyio.sleep(1)
        raise ToolError("the job failed")

    @mcp.tool()
    @tasks.task()
    async def protocol_error_job() -> str:
        """End in a protocol error."""
        await anyio.sleep(0.3)
        raise MCPError(INTERNAL_ERROR, "the job broke the protocol")

    @tasks.tool(resumable=True)
    async def confirm_delete(filename: str, task: TaskContext) -> str:
        """Ask before something is deleted."""
        answer = await task.elicit("confirm", f"Delete {filename}?", Confirm)
        is_confirmed = answer.data is not None and answer.data.confirm
        return f"deleted {filename}" if is_confirmed else f"kept {filename}"

    @mcp.tool()
    @tasks.task()
    async def multi_input(ctx: Context) -> str:
        """Ask two questions at the same time."""
        first, second = await asyncio.gather(
            ctx.elicit("The first name?", Name), ctx.elicit("The second name?", Name)
        )
        return f"{first.action} {second.action}"

    @mcp.tool()
    @tasks.task(required=True)
    async def test_tool_with_task(name: Annotated[Name, Resolve(ask_name)]) -> str:
        """Ask on the call itself, and run as a task from then on."""
        await anyio.sleep(0.2)
        return f"Hello, {name.name}!"


def _add_diagnostic_tools(mcp: MCPServer) -> None:
    @mcp.tool()
    async def test_missing_capability(ctx: Context) -> str:
        """Refuse clients without sampling."""
        capabilities = ctx.client_capabilities
        if capabilities is None or capabilities.sampling is None:
            raise MCPError(
                MISSING_REQUIRED_CLIENT_CAPABILITY,
                "this tool samples",
                {"requiredCapabilities": {"sampling": {}}},
            )
        return "sampling is declared"

    @mcp.tool()
    async def test_streaming_elicitation() -> str:
        """Send no request on the response stream."""
        return "nothing was asked"

    @mcp.tool()
    async def test_logging_tool() -> str:
        """Send no log message that was not asked for."""
        return "nothing was logged"

    @mcp.tool()
    async def test_trigger_tool_change(ctx: Context) -> str:
        """Tell listeners that the tools changed."""
        await ctx.notify_tools_changed()
        return "told"

    @mcp.tool()
    async def test_trigger_prompt_change(ctx: Context) -> str:
        """Tell listeners that the prompts changed."""
        await ctx.notify_prompts_changed()
        return "told"


def main() -> None:
    """Serve until a signal comes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--json", action="store_true", help="answer in JSON, not SSE")
    parser.add_argument("--store", default="memory://", help="a URL, or the name of a server")
    options = parser.parse_args()
    if options.store in NAMES:
        # uvicorn passes the signal on when it has ended; the default would end us in here.
        signal.signal(signal.SIGTERM, end)
        with server_named(options.store) as server:
            os.environ.update(server.environment)
            asyncio.run(set_up(server.url))
            serve(server.url, options)
    else:
        serve(options.store, options)


def end(_number: int, _frame: object) -> None:
    """Leave by an exception, so that what was started is ended."""
    sys.exit(0)


async def set_up(url: str) -> None:
    """Make what the store wants to find."""
    backend = open_backend(url)
    if isinstance(backend, Initializable):
        await backend.initialize()
    await backend.close()


def serve(store: str, options: argparse.Namespace) -> None:
    """Serve from a store until a signal comes."""
    app = make_server(store).streamable_http_app(json_response=options.json)
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=options.port,
        log_level="warning",
        # httptools leaves the whitespace around header values in place, which fails the suite's
        # check of a padded Mcp-Name (RFC 9110, 5.5, wants it trimmed).
        http="h11",
        # An open subscription would keep the server from ending.
        timeout_graceful_shutdown=2,
    )


if __name__ == "__main__":
    main()

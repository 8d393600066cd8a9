"""A server of a fleet: several processes share a store.

Usage: python fleet_server.py PORT NAMESPACE          (the store: `$MCP_TASKS_STORE`)
"""

from __future__ import annotations

import os
import sys
from datetime import timedelta

import anyio
import uvicorn
from mcp.server.mcpserver import MCPServer
from pydantic import BaseModel

from mcp_tasks import (
    RunnerConfig,
    StoreConfig,
    TaskContext,  # noqa: TC001 - read from annotations
    Tasks,
)


port, namespace = int(sys.argv[1]), sys.argv[2]
mcp = MCPServer("fleet", log_level="ERROR")
tasks = Tasks.install(
    mcp,
    namespace=namespace,
    config=StoreConfig(max_active_anonymous=3, retention=timedelta(minutes=5)),
    runner_config=RunnerConfig(beat=0.3, fence=1.0, lease=2.0, scan=0.3, look=0.3, drain=0.5),
)


class Answer(BaseModel):
    """What is asked for."""

    name: str


@tasks.tool()
async def where() -> str:
    """Say which process and application this is."""
    return f"{namespace} {os.getpid()}"


@tasks.tool()
async def forever() -> str:
    """Wait until cancelled."""
    await anyio.sleep_forever()
    return "never"


@tasks.tool(resumable=True)
async def asking(task: TaskContext) -> str:
    """Ask for a name."""
    answer = await task.elicit("name", "Your name?", Answer)
    return f"{answer.data.name if answer.data is not None else 'nobody'} at {namespace}"


@tasks.tool(resumable=True)
async def resumed(task: TaskContext) -> str:
    """Wait on the first run, and end on the second."""
    if task.attempt == 1:
        await anyio.sleep_forever()
    return f"{namespace} attempt {task.attempt}"


if __name__ == "__main__":
    app = mcp.streamable_http_app(json_response=True, max_request_body_size=8 * 2**20)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error")

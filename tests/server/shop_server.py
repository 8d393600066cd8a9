"""A server that writes down how often its tools began.

Usage: python shop_server.py PORT WITNESS          (the store: `$MCP_TASKS_STORE`)
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import anyio
import uvicorn
from mcp.server.mcpserver import MCPServer

from mcp_tasks import RunnerConfig, TaskContext, Tasks  # noqa: TC001 - read from annotations


port, witness = int(sys.argv[1]), Path(sys.argv[2])
mcp = MCPServer("shop", log_level="ERROR")
tasks = Tasks.install(
    mcp,
    runner_config=RunnerConfig(beat=0.3, fence=1.0, lease=2.0, scan=0.3, look=0.3, drain=0.5),
)


def note(number: int) -> None:
    """Write a number down."""
    file = os.open(witness, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, b"%d\n" % number)
    os.close(file)


@tasks.tool()
async def order(number: int) -> int:
    """Place an order, and never twice."""
    note(number)
    return number


@tasks.tool(timeout=2, on_worker_loss="rerun")
async def bake(seconds: float, task: TaskContext) -> int:
    """Take some time, on the first run for ever."""
    note(task.attempt)
    await anyio.sleep(60 if task.attempt == 1 else seconds)
    return task.attempt


if __name__ == "__main__":
    app = mcp.streamable_http_app(json_response=True)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error")

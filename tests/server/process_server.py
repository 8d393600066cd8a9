"""A server for tests that need a process of its own.

Usage: python process_server.py stdio | http PORT          (also: uvicorn process_server:app)

The store is the default one, so `$MCP_TASKS_STORE` and the user's data directory decide.
"""

from __future__ import annotations

import os
import sys

import anyio
import uvicorn
from mcp.server.mcpserver import MCPServer

from mcp_tasks import RunnerConfig, TaskContext, Tasks  # noqa: TC001 - read from annotations


mcp = MCPServer("process", log_level="ERROR")
tasks = Tasks.install(mcp, runner_config=RunnerConfig(drain=0.5))


@tasks.tool()
async def where() -> int:
    """Say which process this is."""
    return os.getpid()


@tasks.tool()
async def once() -> str:
    """Wait, and never be run again."""
    await anyio.sleep_forever()
    return "never"


@tasks.tool(resumable=True)
async def resumed(task: TaskContext) -> str:
    """Wait on the first run, and end on the second."""
    if task.attempt == 1:
        await anyio.sleep_forever()
    return f"attempt {task.attempt}"


app = mcp.streamable_http_app(json_response=True)

if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        mcp.run("stdio")
    else:
        uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="error")

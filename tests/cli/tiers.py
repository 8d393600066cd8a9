"""A server whose web processes only serve: `uvicorn tiers:app`, and `mcp-tasks worker tiers:mcp`.

Environment: `MCP_TASKS_STORE`, and `WITNESS`, a file to which every run of `note` adds a line.
"""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

import anyio
from mcp.server.mcpserver import MCPServer

from mcp_tasks import RunnerConfig, StoreConfig, Tasks


WITNESS = Path(os.environ["WITNESS"])

mcp = MCPServer("tiers", log_level="ERROR")
tasks = Tasks.install(
    mcp,
    worker=False,
    config=StoreConfig(max_active_anonymous=2_000),
    runner_config=RunnerConfig(drain=1.0),
)


def witness(call: str) -> None:
    """Write down that a call was run, when (the system's monotonic clock) and where."""
    with WITNESS.open("a") as file:
        file.write(f"{call} {time.monotonic()} {os.getpid()}\n")


@tasks.tool(poll_interval=timedelta(milliseconds=100))
async def note(number: int, seconds: float = 0.0) -> str:
    """Be noted, and take some time."""
    witness(str(number))
    await anyio.sleep(seconds)
    return f"{number} by {os.getpid()}"


@tasks.tool(on_worker_loss="rerun")
async def forever() -> str:
    """End only when it is stopped."""
    witness("forever")
    await anyio.sleep_forever()
    return "never"


app = mcp.streamable_http_app(json_response=True)

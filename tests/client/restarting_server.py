"""A server for tests to kill: `restarting_server.py PORT STORE_URL FOLDER`."""

import asyncio
import sys
from pathlib import Path

import uvicorn
from mcp.server.mcpserver import MCPServer
from pydantic import BaseModel

from mcp_tasks import TaskContext, Tasks


port, store, place = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
mcp = MCPServer("restarting", log_level="ERROR")
tasks = Tasks.install(mcp, store=store)


class Go(BaseModel):
    """What the tool asks for."""

    go: bool


def note(step: int) -> int:
    """Write down that a step ran."""
    with (place / "steps.txt").open("a") as file:
        file.write(f"{step}\n")
    return step


@tasks.tool(resumable=True)
async def journey(task: TaskContext, ask: bool = False) -> int:  # noqa: FBT001, FBT002
    """Take three steps; after the second, wait for ever on the first attempt."""
    total = await task.step("one", note, 1) + await task.step("two", note, 2)
    (place / f"attempt-{task.attempt}").touch()
    if task.attempt == 1:
        await asyncio.sleep(3600)
    if ask:
        await task.elicit("go", "Go on?", Go)
    return total + await task.step("three", note, 3)


json = "--json" in sys.argv
app = mcp.streamable_http_app(json_response=json)
uvicorn.run(app, host="127.0.0.1", port=port, log_level="error")

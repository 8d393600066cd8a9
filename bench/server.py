"""The server that is measured: `python -m bench.server PORT [STORE [frozen]]`. JSON, one worker.

`add` is a plain tool, `add_task` the same work as a task. `/usage` tells what it has used.
"""

import asyncio
import gc
import os
import sys
import time
from pathlib import Path

import uvicorn
from mcp.server.mcpserver import MCPServer
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mcp_tasks import RunnerConfig, StoreConfig, TaskContext, Tasks


def resident_bytes() -> int:
    """Return how much memory this process holds now; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def note(path: Path, line: str) -> None:
    """Append a line to the file at `path`."""
    with path.open("a") as file:
        file.write(line + "\n")


def build(store: str) -> MCPServer:
    """Make the server on the store behind the URL `store`."""
    server = MCPServer("bench", log_level="WARNING")
    # A thousand tasks asleep, and some room for the others.
    config = StoreConfig(max_active_anonymous=2_000)
    tasks = Tasks.install(
        server, store=store, config=config, runner_config=RunnerConfig(max_running=2_000)
    )

    @server.tool()
    async def add(a: int, b: int) -> int:
        return a + b

    @tasks.tool()
    async def add_task(a: int, b: int) -> int:
        return a + b

    @tasks.tool()
    async def nap(seconds: float, load: str = "") -> str:
        await asyncio.sleep(seconds)
        return f"slept, {len(load)} characters in hand"

    @tasks.tool(resumable=True)
    async def walk(steps: int, task: TaskContext) -> list[float]:
        """Take `steps` steps of 100 bytes and return the CPU seconds after each 500th."""
        value = "x" * 98

        async def one() -> str:
            return value

        marks = [time.process_time()]
        for number in range(steps):
            await task.step(f"step-{number}", one)
            if (number + 1) % 500 == 0:
                marks.append(time.process_time())
        return marks

    @tasks.tool(resumable=True)
    async def tick(path: str, task: TaskContext) -> str:
        """Say in the file at `path` when this attempt began, and go on for a minute."""
        note(Path(path), f"{task.attempt} {time.time()}")
        await asyncio.sleep(60)
        return "done"

    @server.custom_route("/usage", methods=["GET"])
    async def usage(_request: Request) -> Response:
        return JSONResponse({"cpu": time.process_time(), "resident": resident_bytes()})

    _ = (add, add_task, nap, walk, tick, usage)
    return server


def main() -> None:
    """Serve until stopped."""
    port = int(sys.argv[1])
    store = sys.argv[2] if len(sys.argv) > 2 else "memory://"  # noqa: PLR2004
    app = build(store).streamable_http_app(json_response=True, max_request_body_size=8 * 2**20)
    if sys.argv[3:] == ["frozen"]:  # as docs/deploy.md says
        gc.collect()
        gc.freeze()
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()

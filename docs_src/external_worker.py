"""The other side: does what lies in the folder, and finishes the tasks. It knows no MCP server."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from mcp_tasks import TaskExpiredError, TaskNotFoundError, TaskStore, TaskTerminalError


JOBS = Path("jobs")


async def render(store: TaskStore, job: dict[str, Any]) -> None:
    """Do one job and finish its task."""
    owner, task_id, frames = job["owner"], job["task_id"], job["frames"]
    for frame in range(1, frames + 1):
        task = await store.progress(owner, task_id, frame, frames)
        if task.is_terminal:  # cancelled, or this job was here before
            return
        await asyncio.sleep(0.1)  # the work
    text = f"{job['scene']}: {frames} frames"
    result = {
        "resultType": "complete",
        "content": [{"type": "text", "text": text}],
        "structuredContent": {"result": text},
    }
    await store.complete_with_result(owner, task_id, result)


async def take(store: TaskStore, file: Path) -> None:
    """Do the job in a file; the file goes when its task has ended, and not before."""
    job = json.loads(file.read_text())
    try:
        await render(store, job)
    except (TaskNotFoundError, TaskExpiredError, TaskTerminalError):
        print(f"{job['task_id']} is over already")
    except ArithmeticError as error:  # what your work may raise: the client is told
        await store.fail(job["owner"], job["task_id"], -32603, f"not rendered: {error}")
    file.unlink()


async def main() -> None:
    """Look for jobs, for ever."""
    async with TaskStore.open(os.environ["MCP_TASKS_STORE"], namespace="render") as store:
        while True:
            for file in sorted(JOBS.glob("*.json")):
                await take(store, file)
            await asyncio.sleep(0.1)


if __name__ == "__main__":
    asyncio.run(main())

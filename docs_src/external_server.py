"""A server whose tool only starts work: whoever watches the folder does it."""

import json
from pathlib import Path

from mcp.server import MCPServer

from mcp_tasks import SyncTaskContext, Tasks


mcp = MCPServer("render")
tasks = Tasks.install(mcp, namespace="render")
JOBS = Path("jobs")


@tasks.tool(external=True)
def render(scene: str, frames: int, task: SyncTaskContext) -> str:
    """Render a scene."""
    JOBS.mkdir(exist_ok=True)
    job = {"owner": task.owner, "task_id": task.task_id, "scene": scene, "frames": frames}
    part = JOBS / f"{task.task_id}.part"
    part.write_text(json.dumps(job))
    part.rename(JOBS / f"{task.task_id}.json")  # whole, or not there
    return "queued"


app = mcp.streamable_http_app()

"""The same tool with Amazon SQS: it sends a message, and returns."""

import json
import os
from typing import Any

from aiobotocore.session import AioSession
from mcp.server import MCPServer

from mcp_tasks import TaskContext, Tasks


mcp = MCPServer("render")
tasks = Tasks.install(mcp, namespace="render")


@tasks.tool(external=True, on_worker_loss="rerun")
async def render(scene: str, frames: int, task: TaskContext) -> str:
    """Render a scene."""
    job = {"owner": task.owner, "task_id": task.task_id, "scene": scene, "frames": frames}
    session: Any = AioSession()
    async with session.create_client("sqs") as sqs:
        await sqs.send_message(QueueUrl=os.environ["RENDER_QUEUE"], MessageBody=json.dumps(job))
    return "queued"

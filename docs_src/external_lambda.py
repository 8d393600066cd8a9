"""An AWS Lambda function behind that queue: each message is the work of one task."""

import asyncio
import json
import os
from typing import Any

from mcp_tasks import (
    StoreUnavailableError,
    TaskExpiredError,
    TaskNotFoundError,
    TaskStore,
    TaskTerminalError,
)


async def render(store: TaskStore, job: dict[str, Any]) -> None:
    """Do one job and finish its task."""
    owner, task_id = job["owner"], job["task_id"]
    task = await store.progress(owner, task_id, 0, job["frames"], "rendering")
    if task.is_terminal:  # cancelled, or this message was here before
        return
    text = f"{job['scene']}: {job['frames']} frames"  # the work
    result = {
        "resultType": "complete",
        "content": [{"type": "text", "text": text}],
        "structuredContent": {"result": text},
    }
    await store.complete_with_result(owner, task_id, result)


async def take(event: dict[str, Any]) -> dict[str, Any]:
    """Do a batch of messages; those whose task could not be written come again."""
    again: list[dict[str, str]] = []
    async with TaskStore.open(os.environ["MCP_TASKS_STORE"], namespace="render") as store:
        for message in event["Records"]:
            try:
                await render(store, json.loads(message["body"]))
            except (TaskNotFoundError, TaskExpiredError, TaskTerminalError):
                continue  # nobody waits for it any more
            except StoreUnavailableError:
                again.append({"itemIdentifier": message["messageId"]})
    return {"batchItemFailures": again}


def handler(event: dict[str, Any], _: object) -> dict[str, Any]:
    """Be called by Lambda."""
    return asyncio.run(take(event))

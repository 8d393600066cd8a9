"""A client for tests to run: `resuming_client.py URL SAVED` prints the result of a saved task."""

import sys

import anyio
from mcp.client import Client

from mcp_tasks.client import TaskHandle, TasksClient, reconnecting_http


async def main() -> None:
    """Take up the task and print its result."""
    url, saved = sys.argv[1:]
    async with Client(reconnecting_http(url), extensions=[TasksClient()]) as client:
        with anyio.fail_after(30):
            result = await TaskHandle.resume(client, saved).result()
    sys.stdout.write(f"{result.structured_content}\n")


anyio.run(main)

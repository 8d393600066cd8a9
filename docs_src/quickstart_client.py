"""Call the quickstart's tool and wait for its result, through a crash of the server."""

import sys

import anyio
from mcp import Client

from mcp_tasks import TasksClient
from mcp_tasks.client import TaskSnapshot, reconnecting_http


def show(task: TaskSnapshot) -> None:
    print(task.task_id, task.status, task.message or "")


async def main(folder: str) -> None:
    # reconnecting_http: with the SDK's own transport the client ends with its server.
    server = reconnecting_http("http://127.0.0.1:8000/mcp")
    async with Client(server, extensions=[TasksClient(on_status=show)]) as client:
        result = await client.call_tool("fingerprint", {"folder": folder})
    for block in result.content:
        if block.type == "text":
            print(block.text)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])

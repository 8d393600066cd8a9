"""Call a tool, see how far it is, and answer what it asks."""

import sys

import anyio
from mcp import Client
from mcp.client import ClientRequestContext
from mcp_types import ElicitRequestParams, ElicitResult

from mcp_tasks import TasksClient, TaskSnapshot, reconnecting_http


def show(task: TaskSnapshot) -> None:
    print(task.status, task.message or "")


async def answer(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
    print(params.message)  # a real app asks a person here
    return ElicitResult(action="accept", content={"go": True})


async def main(folder: str) -> None:
    server = reconnecting_http("http://127.0.0.1:8000/mcp")
    tasks = TasksClient(on_status=show)
    async with Client(server, extensions=[tasks], elicitation_callback=answer) as client:
        result = await client.call_tool("compress", {"folder": folder})
    for block in result.content:
        if block.type == "text":
            print(block.text)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])

"""Start a task and leave: print where to find it again."""

import sys

import anyio
from mcp import Client
from mcp.client import ClientRequestContext
from mcp_types import ElicitRequestParams, ElicitResult

from mcp_tasks import TasksClient, reconnecting_http


async def later(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
    # That there is a callback tells the server that this client can be asked.
    return ElicitResult(action="cancel")


async def main(folder: str) -> None:
    server = reconnecting_http("http://127.0.0.1:8000/mcp")
    tasks = TasksClient()
    async with Client(server, extensions=[tasks], elicitation_callback=later) as client:
        handle = await tasks.start(client, "compress", {"folder": folder})
        print(handle.save())


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])

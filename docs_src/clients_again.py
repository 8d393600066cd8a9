"""Make a call that may have to be made again, in this process or by running it again.

`python clients_again.py KEY FOLDER`, with a key for this call alone: `$(uuidgen)`.
"""

import sys

import anyio
from mcp import Client
from mcp.client import ClientRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, ElicitRequestParams, ElicitResult

from mcp_tasks import TasksClient, reconnecting_http


async def answer(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
    print(params.message)
    return ElicitResult(action="accept", content={"go": True})


async def main(key: str, folder: str) -> None:
    server = reconnecting_http("http://127.0.0.1:8000/mcp")
    tasks = TasksClient()
    async with Client(server, extensions=[tasks], elicitation_callback=answer) as client:
        for _ in range(60):
            try:
                handle = await tasks.start(
                    client, "compress", {"folder": folder}, idempotency_key=key
                )
                break
            except MCPError as error:
                if error.code != CONNECTION_CLOSED:
                    raise
                await anyio.sleep(1)  # was there a task? The next call finds out
        else:
            sys.exit("the server is away")
        result = await handle.result()
    print(result.structured_content)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2])

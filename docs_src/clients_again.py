"""Make a call that may have to be made again, in this process or by running it again.

`python clients_again.py KEY FOLDER`, with a key for this call alone: `$(uuidgen)`.
"""

import sys

import anyio
from mcp import Client
from mcp.client import ClientRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, CallToolResult, ElicitRequestParams, ElicitResult

from mcp_tasks import TasksClient, reconnecting_http


async def answer(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
    print(params.message)
    return ElicitResult(action="accept", content={"go": True})


def is_final(error: BaseException) -> bool:
    return isinstance(error, MCPError) and error.code != CONNECTION_CLOSED


async def attempt(key: str, folder: str) -> CallToolResult | None:
    server = reconnecting_http("http://127.0.0.1:8000/mcp")
    tasks = TasksClient()
    try:
        async with Client(server, extensions=[tasks], elicitation_callback=answer) as client:
            handle = await tasks.start(client, "compress", {"folder": folder}, idempotency_key=key)
            return await handle.result()
    except* MCPError as errors:
        if errors.subgroup(is_final):
            raise
    return None  # is there a task? The next call finds out


async def main(key: str, folder: str) -> None:
    for _ in range(60):
        if result := await attempt(key, folder):
            print(result.structured_content)
            return
        await anyio.sleep(1)
    sys.exit("the server is away")


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2])

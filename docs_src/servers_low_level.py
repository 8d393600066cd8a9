"""A low-level `Server`: the function that its handler for `tools/call` calls runs as a task."""

from typing import Any

import anyio
import uvicorn
from mcp.server import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
)

from mcp_tasks import TaskContext, Tasks


Ctx = ServerRequestContext[Any, Any]
WAIT = Tool(
    name="wait",
    description="Wait for some seconds.",
    input_schema={"type": "object", "properties": {"seconds": {"type": "number"}}},
)


async def list_tools(ctx: Ctx, params: PaginatedRequestParams | None) -> ListToolsResult:
    return ListToolsResult(tools=[WAIT])


async def call_tool(ctx: Ctx, params: CallToolRequestParams) -> CallToolResult:
    if params.name == WAIT.name:
        return await wait(**params.arguments or {})
    raise MCPError(INVALID_PARAMS, f"there is no tool {params.name!r}")


server = Server("waiting", on_list_tools=list_tools, on_call_tool=call_tool)
tasks = Tasks.install(server)


@tasks.task(resumable=True)
async def wait(seconds: float, task: TaskContext | None = None) -> CallToolResult:
    assert task is not None  # it is filled in
    await task.step("wait", anyio.sleep, seconds)
    return CallToolResult(content=[TextContent(type="text", text=f"attempt {task.attempt}")])


app = server.streamable_http_app()

if __name__ == "__main__":
    uvicorn.run(app, port=8000)

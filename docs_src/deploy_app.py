"""One server, in as many processes as you like: `uvicorn deploy_app:app --workers 4`."""

import os

import anyio
from mcp.server import MCPServer
from mcp.server.request_state import RequestStateSecurity

from mcp_tasks import TaskContext, Tasks


mcp = MCPServer(
    "reports",
    # The same in every process; only needed for tools that ask before their task exists.
    request_state_security=RequestStateSecurity(keys=[os.environ["REPORTS_KEY"]]),
)
tasks = Tasks.install(mcp, store=os.environ["REPORTS_STORE"])


@tasks.tool(resumable=True)
async def build(seconds: float, task: TaskContext) -> str:
    """Take some time."""
    await anyio.sleep(seconds)
    return f"built by {os.getpid()} on attempt {task.attempt}"


app = mcp.streamable_http_app()

"""Whose task it is, where a proxy in front of the server knows the caller."""

from typing import Any

from mcp.server import MCPServer
from mcp.server.context import ServerRequestContext

from mcp_tasks import Tasks


def tenant(ctx: ServerRequestContext[Any, Any]) -> str | None:
    """Return the tenant that the proxy has checked; `None` leaves the usual rule in place."""
    return None if ctx.request is None else ctx.request.headers.get("x-tenant")


mcp = MCPServer("tenants")
tasks = Tasks.install(mcp, owner_of=tenant)


@tasks.tool()
async def hello() -> str:
    """Say hello."""
    return "hello"


app = mcp.streamable_http_app()

"""An MCP server as a part of a Starlette application, with the application's own routes."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from mcp.server import MCPServer
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from mcp_tasks import Tasks


mcp = MCPServer("mounted")
tasks = Tasks.install(mcp)


@tasks.tool()
async def hello() -> str:
    """Say hello."""
    return "hello"


async def health(_: Request) -> PlainTextResponse:
    return PlainTextResponse("ok")


mcp_app = mcp.streamable_http_app()


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncGenerator[None]:
    # A mounted application's own lifespan is not run: this starts the server, and its tasks.
    async with mcp.session_manager.run():
        yield


app = Starlette(routes=[Route("/health", health), Mount("/", mcp_app)], lifespan=lifespan)

"""A server with tasks through public API of the SDK alone, and with a lifespan of its own."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from mcp.server import MCPServer
from mcp.server.mcpserver import Context

from mcp_tasks import TaskContext, Tasks


@dataclass
class Dictionary:
    """What the tools need, opened once for the server."""

    words: dict[str, str]


tasks = Tasks()


@tasks.tool(resumable=True)
async def translate(text: str, ctx: Context[Dictionary], task: TaskContext) -> str:
    """Translate a text word by word."""
    words = ctx.request_context.lifespan_context.words
    done: list[str] = []
    for number, word in enumerate(text.split()):
        done.append(await task.step(f"word-{number}", words.get, word, word))
    return " ".join(done)


@asynccontextmanager
async def dictionary(_: MCPServer[Dictionary]) -> AsyncGenerator[Dictionary]:
    yield Dictionary({"good": "buon", "day": "giorno"})


mcp = MCPServer(
    "translations",
    extensions=[tasks],
    middleware=[tasks.middleware],
    lifespan=tasks.lifespan(dictionary),
)


@mcp.tool()
@tasks.task()
async def count(text: str) -> int:
    """Count words."""
    return len(text.split())


if __name__ == "__main__":
    mcp.run("streamable-http", port=8000)

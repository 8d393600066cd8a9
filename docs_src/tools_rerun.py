"""A tool that may run again from the top, because the other side knows it by its key."""

import anyio
from mcp.server import MCPServer

from mcp_tasks import TaskContext, Tasks


mcp = MCPServer("payments")
tasks = Tasks.install(mcp)

charged: dict[str, int] = {}


async def charge(cents: int, key: str) -> int:
    """Stand in for a payment service that ignores a key that it has seen."""
    await anyio.sleep(0.01)
    return charged.setdefault(key, cents)


@tasks.tool(on_worker_loss="rerun", max_attempts=5)
async def pay(cents: int, task: TaskContext) -> str:
    """Charge once, however often the tool runs."""
    return f"{await charge(cents, task.idempotency_key)} cents"

"""A plain `def` tool: it runs in a thread, and looks for its cancellation by itself."""

import hashlib
from pathlib import Path

from mcp.server import MCPServer

from mcp_tasks import SyncTaskContext, Tasks


mcp = MCPServer("checksums")
tasks = Tasks.install(mcp)


@tasks.tool()
def checksum(file: str, task: SyncTaskContext) -> str:
    """Return the SHA-256 of a file."""
    total = hashlib.sha256()
    size = Path(file).stat().st_size
    with Path(file).open("rb") as source:
        while chunk := source.read(1 << 20):
            if task.cancel_requested:
                return "cancelled"
            total.update(chunk)
            task.progress(source.tell(), size)
    return total.hexdigest()

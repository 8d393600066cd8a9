"""A server that writes down how often its tool began.

Usage: python once_server.py PORT WITNESS          (the store: `$MCP_TASKS_STORE`)
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import uvicorn
from mcp.server.mcpserver import MCPServer

from mcp_tasks import RunnerConfig, Tasks


port, witness = int(sys.argv[1]), Path(sys.argv[2])
mcp = MCPServer("once", log_level="ERROR")
tasks = Tasks.install(
    mcp,
    runner_config=RunnerConfig(beat=0.3, fence=1.0, lease=2.0, scan=0.3, look=0.3, drain=0.5),
)


@tasks.tool()
async def order(number: int) -> int:
    """Place an order, and never twice."""
    file = os.open(witness, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, b"%d\n" % number)
    os.close(file)
    return number


if __name__ == "__main__":
    app = mcp.streamable_http_app(json_response=True)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error")

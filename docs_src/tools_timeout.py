"""A tool that runs another program, for two seconds at most."""

import asyncio
from asyncio.subprocess import PIPE

from mcp.server import MCPServer

from mcp_tasks import Tasks


mcp = MCPServer("checksums")
tasks = Tasks.install(mcp)


@tasks.tool(timeout=2)
async def checksum(file: str) -> str:
    """Return the SHA-256 of a file."""
    program = await asyncio.create_subprocess_exec("sha256sum", "--", file, stdout=PIPE)
    try:
        output, _ = await program.communicate()
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()
    return output.decode().partition(" ")[0]

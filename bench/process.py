"""Start and stop the bench server, and read what it has used."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bench.raw_client import Connection


if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


ROOT = Path(__file__).resolve().parent.parent


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ServerProcess:
    """A running bench server.

    Attributes:
        port: Where it listens.
        process: Its process, for those who want to kill it.
    """

    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        self.port = port
        self.process = process

    async def connect(self) -> Connection:
        """Open one more connection to it."""
        return await Connection.open(self.port)

    async def cpu(self) -> float:
        """Return the CPU seconds it has used, all threads together."""
        async with await self.connect() as connection:
            return float((await connection.fetch("/usage"))["cpu"])

    async def resident(self) -> int:
        """Return the bytes of memory it holds; 0 where the system does not say."""
        async with await self.connect() as connection:
            return int((await connection.fetch("/usage"))["resident"])


async def start(store: str, *, port: int | None = None, frozen: bool = False) -> ServerProcess:
    """Start a server on `store` and return once it answers.

    Raises:
        RuntimeError: It ended, or did not answer for 30 seconds.
    """
    port = port or free_port()
    command = [sys.executable, "-m", "bench.server", str(port), store, *["frozen"] * frozen]
    process = subprocess.Popen(command, cwd=ROOT)  # noqa: ASYNC220, S603 - our own server
    server = ServerProcess(port, process)
    try:
        async with asyncio.timeout(30):
            await _answering(server)
    except BaseException:
        process.kill()
        raise
    return server


async def _answering(server: ServerProcess) -> None:
    while True:
        if server.process.poll() is not None:
            raise RuntimeError(f"the bench server ended with {server.process.returncode}")
        try:
            await server.cpu()
        except OSError:
            await asyncio.sleep(0.02)
        else:
            return


@asynccontextmanager
async def running(store: str, *, frozen: bool = False) -> AsyncGenerator[ServerProcess]:
    """Run a server on `store` for the length of a block."""
    server = await start(store, frozen=frozen)
    try:
        yield server
    finally:
        server.process.kill()  # nothing that it still does is wanted
        server.process.wait()

"""A folder in which servers share a store, and write down what they ran."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import httpx

from mcp_tasks import TaskStore
from mcp_tasks.testing.servers import free_port

from .conftest import Wire


if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


SCRIPT = Path(__file__).with_name("shop_server.py")


class Shop:
    """One store, any number of servers, and a list of what they ran.

    Args:
        folder: For the files.
    """

    def __init__(self, folder: Path) -> None:
        self._witness = folder / "orders"
        self._store = f"sqlite:///{(folder / 'tasks.db').as_posix()}"

    @property
    def orders(self) -> list[int]:
        """The numbers of all runs."""
        text = self._witness.read_text() if self._witness.exists() else ""
        return [int(line) for line in text.splitlines()]

    async def task_ids(self) -> list[str]:
        """Return the ids of all tasks."""
        async with TaskStore.open(self._store, namespace="shop") as store:
            return [task.task_id for task in (await store.list("anonymous", limit=500)).tasks]

    @asynccontextmanager
    async def server(self, failpoint: str = "") -> AsyncGenerator[Wire]:
        """Run a server, and kill it at the end."""
        port = free_port()
        failing = {"MCP_TASKS_FAILPOINT": failpoint} if failpoint else {}
        process = subprocess.Popen(  # noqa: ASYNC220 - returns at once
            [sys.executable, str(SCRIPT), str(port), str(self._witness)],
            env={**os.environ, "MCP_TASKS_STORE": self._store, **failing},
            cwd=SCRIPT.parent,
        )
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as http:
                with anyio.fail_after(30):
                    while True:
                        try:
                            await http.post("/", json={})
                        except httpx.TransportError:
                            assert process.poll() is None, "it did not start"
                            await anyio.sleep(0.05)
                        else:
                            break
                yield Wire(http)
        finally:
            process.kill()
            process.wait()

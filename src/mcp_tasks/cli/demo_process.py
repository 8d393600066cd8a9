"""The demo's server, in a process of its own that can be killed and started again."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread


if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mcp_tasks.cli.demo_store import DemoStore


_RECORDED = re.compile(r"recorded batch (\d+) of (\d+)")
_START = 20.0


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class DemoServer:
    """The manifest server on one store and one port, started as often as needed.

    Args:
        folder: Where the witness file goes.
        store: Where tasks are kept.

    Attributes:
        url: Where it answers.
        pids: Of every process started so far.
        batches: How many batches the tool makes, once it said so.
        done: How many of them it said are recorded.
    """

    def __init__(self, folder: Path, store: DemoStore) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/mcp"
        self.store = store
        self.witness = folder / "witness.txt"
        self.pids: list[int] = []
        self.batches = 0
        self.done = 0
        self._log: list[str] = []
        self._news = threading.Condition()
        self._process: subprocess.Popen[str] | None = None

    async def start(self) -> None:
        """Start the process and return once it takes connections.

        Raises:
            RuntimeError: It ended, or took too long.
        """
        command = [sys.executable, "-m", "mcp_tasks.cli.manifest_server", str(self.port)]
        environment = {
            **os.environ,
            **self.store.environment,
            "MCP_TASKS_STORE": self.store.url,
            "MANIFEST_WITNESS": str(self.witness),
            "PYTHONUNBUFFERED": "1",
        }
        self._process = subprocess.Popen(  # noqa: ASYNC220, S603 - our own server; returns at once
            command, env=environment, stderr=subprocess.PIPE, text=True, encoding="utf-8"
        )
        self.pids.append(self._process.pid)
        threading.Thread(target=self._listen, args=(self._process,), daemon=True).start()
        with anyio.move_on_after(_START):
            while self._process.poll() is None:
                try:
                    stream = await anyio.connect_tcp("127.0.0.1", self.port)
                except OSError:
                    await anyio.sleep(0.05)
                else:
                    await stream.aclose()
                    return
        self.kill()
        raise RuntimeError("the server did not start:\n" + "".join(self._log[-20:]))

    def kill(self) -> None:
        """End the process in the middle of whatever it does: SIGKILL, or what Windows has."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def recorded(self, enough: Callable[[int, int], bool]) -> int:
        """Wait until enough batches are recorded; return how many are.

        The tool is then between two steps: it rests after each batch.

        Args:
            enough: Called with how many are recorded, and how many there are.
        """

        def wait() -> int:
            def reached() -> bool:
                return self.done > 0 and enough(self.done, self.batches)

            with self._news:
                if not self._news.wait_for(reached, timeout=60):
                    raise RuntimeError("no batch was recorded:\n" + "".join(self._log[-20:]))
                return self.done

        return await anyio.to_thread.run_sync(wait, abandon_on_cancel=True)

    def steps(self) -> list[str]:
        """Return what the witness file says: one line for each step that did its work."""
        return self.witness.read_text().split() if self.witness.exists() else []

    def log(self) -> str:
        """Return the last lines that the server wrote."""
        return "".join(self._log[-20:])

    def _listen(self, process: subprocess.Popen[str]) -> None:
        stream = process.stderr
        if stream is None:
            return
        with stream:
            for line in stream:
                with self._news:
                    self._log.append(line)
                    if found := _RECORDED.match(line):
                        self.done, self.batches = int(found[1]), int(found[2])
                    self._news.notify_all()

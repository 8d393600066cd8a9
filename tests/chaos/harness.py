"""The tests' side of the fork server: processes to start, to wait for, and to send signals to."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping


ROOT = Path(__file__).parents[2]
LIMIT = 60.0
"""Seconds after which a wait for a process has failed."""


class Child:
    """One process of the fork server's."""

    def __init__(self, pid: int, log: Path) -> None:
        self.pid = pid
        self.log = log
        self.has_stopped = asyncio.Event()
        self.has_ended = asyncio.Event()
        self.code: int | None = None

    def send(self, number: int) -> None:
        """Send it a signal, if it is still there."""
        if not self.has_ended.is_set():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def ended(self, seconds: float = LIMIT) -> int:
        """Wait until it has ended, and return how."""
        async with asyncio.timeout(seconds):
            await self.has_ended.wait()
        assert self.code is not None
        return self.code

    async def struck(self, seconds: float = LIMIT) -> None:
        """Wait until it has stopped or ended."""
        waits = [asyncio.create_task(one.wait()) for one in (self.has_stopped, self.has_ended)]
        _, left = await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for wait in left:
            wait.cancel()
        assert len(left) < len(waits), f"nothing happened to process {self.pid}"

    @property
    def last_words(self) -> str:
        """What it wrote to its log in the end."""
        return self.log.read_text()[-3000:]

    async def kill(self) -> None:
        """End it without a word, stopped or not."""
        self.send(signal.SIGKILL)
        await self.ended()


class Nursery:
    """The fork server, and all that it has brought into the world."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._children: dict[int, Child] = {}
        self._forks: dict[int, tuple[Path, asyncio.Future[Child]]] = {}
        self._jobs = 0
        self._reading = asyncio.create_task(self._read())

    async def fork(self, role: str, log: Path, **job: Any) -> Child:
        """Start a process.

        Args:
            role: Module and function, such as `cast.victim`.
            log: Where it writes what it would write to the terminal.
            **job: What the function is told.
        """
        self._jobs += 1
        forked: asyncio.Future[Child] = asyncio.get_running_loop().create_future()
        self._forks[self._jobs] = (log, forked)
        job.setdefault("name", role.rpartition(".")[2])
        line = {**job, "number": self._jobs, "role": role, "log": str(log)}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(line).encode() + b"\n")
        async with asyncio.timeout(LIMIT):
            return await forked

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            said = json.loads(line)
            if said["event"] == "forked":
                log, forked = self._forks.pop(said["job"])
                child = self._children[said["pid"]] = Child(said["pid"], log)
                if not forked.done():
                    forked.set_result(child)
            elif said["event"] == "stopped":
                self._children[said["pid"]].has_stopped.set()
            elif said["event"] == "ended":
                child = self._children.pop(said["pid"])
                child.code = said["code"]
                child.has_ended.set()

    async def close(self) -> None:
        """End the fork server and all that is left of its children."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        async with asyncio.timeout(LIMIT):
            await self._process.wait()
            await self._reading


@asynccontextmanager
async def nursery(environment: Mapping[str, str]) -> AsyncGenerator[Nursery]:
    """Start a fork server for as long as the block runs.

    Args:
        environment: Added to its own, and so to that of every process.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.chaos.nursery",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, **environment},
    )
    server = Nursery(process)
    try:
        yield server
    finally:
        await server.close()

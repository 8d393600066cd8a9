"""Servers whose database goes away while they run tasks, and the ways in which it goes."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tests.chaos.crowd import begun, end
from tests.chaos.scene import FOR_EVER, ONCE, RESUMABLE, TOOLS

from mcp_tasks.errors import MCPTasksError


if TYPE_CHECKING:
    from tests.chaos.scene import Scene

    from mcp_tasks.context import TaskContext
    from mcp_tasks.testing.servers import ServerProcess


AFTER = 1.5
"""Seconds after the return of the database in which the last bodies end."""

_gone = asyncio.Event()
_away = 0.0


async def host(job: dict[str, Any]) -> None:
    """Run tasks whose bodies end when the database is away, and after; make some more meanwhile.

    SIGUSR1 says that it goes now, for `job["away"]` seconds.
    """
    global _away  # noqa: PLW0603 - a process of its own
    _away = job["away"]
    scene, over = await begun(job)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, _gone.set)
    kinds = (("outlasts", ONCE), ("outlasts", FOR_EVER), ("steps_over", RESUMABLE))
    for number in range(job["tasks"]):
        await scene.create(*kinds[number % len(kinds)])
    asking = asyncio.create_task(_create(scene))
    await over.wait()
    asking.cancel()
    await end(scene)


async def _create(scene: Scene) -> None:
    """Create tasks when the database is away. What is promised counts, what is refused does not."""
    await _gone.wait()
    for _ in range(10):
        with suppress(MCPTasksError):
            await scene.create("quick", ONCE)
        await asyncio.sleep(_away / 10)


async def _outlasts(scene: Scene, task: TaskContext) -> dict[str, Any]:
    """End when the database is away, or soon after; when run again, at once."""
    scene.note(task, "waits")
    if task.attempt == 1:
        await _gone.wait()
        soon = random.random() < 0.6  # noqa: S311
        first, last = (0, _away) if soon else (_away, _away + AFTER)
        await asyncio.sleep(random.uniform(first, last))  # noqa: S311
    return {}


async def _steps_over(scene: Scene, task: TaskContext) -> dict[str, Any]:
    """Take a step when the database is away, or soon after, and one before that."""

    async def run(name: str) -> str:
        scene.note(task, "ran", step=name)
        if name == "over":
            await _outlasts(scene, task)
        return f"{name} of attempt {task.attempt}"

    for name in ("before", "over"):
        scene.note(task, "got", step=name, value=await task.step(name, run, name))
    return {}


TOOLS["outlasts"] = _outlasts
TOOLS["steps_over"] = _steps_over


def freeze(server: ServerProcess) -> list[int]:
    """Stop a server with all of its processes; return them."""
    os.kill(server.pid, signal.SIGSTOP)  # first, so that it has no further children
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="],  # noqa: S607 - wherever the system has it
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [line.split() for line in listed.stdout.splitlines()]
    children = [int(pid) for pid, parent in rows if int(parent) == server.pid]
    for pid in children:
        os.kill(pid, signal.SIGSTOP)
    return [server.pid, *children]


def thaw(pids: list[int]) -> None:
    """Let a stopped server go on."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

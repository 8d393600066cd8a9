"""Processes that do what servers do, many at once and at random, until something ends them."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.chaos.scene import FOR_EVER, ONCE, POISON, RESUMABLE, Scene, until

from mcp_tasks.domain.status import TaskStatus
from mcp_tasks.errors import MCPTasksError


if TYPE_CHECKING:
    from mcp_tasks.domain.record import Policy


KINDS: list[tuple[str, Policy]] = [
    ("quick", ONCE),
    ("work", ONCE),
    ("work", FOR_EVER),
    ("steps", RESUMABLE),
    ("asks", RESUMABLE),
    ("asks", ONCE),
    ("hold", ONCE),
]


async def begun(job: dict[str, Any]) -> tuple[Scene, asyncio.Event]:
    """Start a worker; the event says that it should end in order."""
    scene = Scene(job)
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    await scene.runner.start()
    assert scene.runner.worker is not None
    scene.say("started", worker=scene.runner.worker.name)
    return scene, over


async def end(scene: Scene) -> None:
    """End a worker in order."""
    await scene.runner.stop()
    await scene.store.close()


async def member(job: dict[str, Any]) -> None:
    """Create some tasks, and answer and cancel whosever they are; run what there is to run."""
    scene, over = await begun(job)
    dice = random.Random(job["seed"])  # noqa: S311
    left: int = job["creates"]
    is_done = False
    kinds = [(tool, policy) for tool, policy in KINDS if tool != scene.lacks]
    while not over.is_set():
        try:
            if left and dice.random() < 0.8:
                left -= 1
                tool, policy = dice.choice(kinds)
                await scene.create(tool, policy, here=dice.random() < 0.7)
            else:
                await _ask_somebody(scene, dice)
        except MCPTasksError as error:
            scene.say("failed", error=f"{type(error).__name__}: {error}")
        if not left and not is_done:
            is_done = True
            scene.say("created all")
        with suppress(TimeoutError):
            async with asyncio.timeout(dice.uniform(0, 0.01 if left else 0.2)):
                await over.wait()
    await end(scene)


async def _ask_somebody(scene: Scene, dice: random.Random) -> None:
    """Answer or cancel one of the latest tasks."""
    page = await scene.store.list("ada", limit=30)
    for record in dice.sample(page.tasks, len(page.tasks)):
        if record.status is TaskStatus.INPUT_REQUIRED:
            await scene.answer(record.task_id)
            return
        if record.call.tool == "hold" and not record.is_terminal:
            await scene.cancel(record.task_id)
            return


async def holder(job: dict[str, Any]) -> None:
    """Run some tasks that never end on their first attempt, and say so."""
    scene, over = await begun(job)
    for _ in range(job["tasks"]):
        await scene.create("hold", FOR_EVER)
    scene.say("holding", pid=os.getpid())
    await over.wait()
    await end(scene)


async def helper(job: dict[str, Any]) -> None:
    """Run what there is to run."""
    scene, over = await begun(job)
    await over.wait()
    await end(scene)


async def writer(job: dict[str, Any]) -> None:
    """At each SIGUSR1 create tasks that write their record again and again."""
    scene, over = await begun(job)
    again = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, again.set)
    scene.say("ready")
    waits = asyncio.create_task(over.wait())
    while not over.is_set():
        asked = asyncio.create_task(again.wait())
        await asyncio.wait([asked, waits], return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if again.is_set():
            again.clear()
            for _ in range(job["tasks"]):
                with suppress(MCPTasksError):
                    await scene.create("writes", FOR_EVER)
    await end(scene)


async def many(job: dict[str, Any]) -> None:
    """Have very many tasks that run or wait, and say what memory they take."""
    scene, over = await begun(job)
    tool = job["tool"]
    policy = RESUMABLE if tool == "asks" else ONCE

    async def create(number: int) -> None:
        for _ in range(number // 50):
            await scene.create(tool, policy)

    # First what is made once and kept: code, caches, connections, room for fifty callers.
    await asyncio.gather(*(create(500) for _ in range(50)))
    await asyncio.sleep(1)
    idle, began = _memory(), time.monotonic()
    await asyncio.gather(*(create(job["tasks"]) for _ in range(50)))

    async def is_done() -> bool:
        return tool != "asks" or not scene.runner.attempts

    await until(is_done, 60)
    seconds = time.monotonic() - began
    await asyncio.sleep(2)
    assert scene.runner.worker is not None
    name = scene.runner.worker.name
    scene.say("ready", idle=idle, used=_memory(), seconds=seconds, worker=name)
    await over.wait()
    await end(scene)


def _memory() -> int:
    """Return the bytes of memory that this process takes, after the garbage was collected."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def maker(job: dict[str, Any]) -> None:
    """Create tasks for others, and end."""
    scene = Scene(job)
    for tool in job["kinds"]:
        await scene.create(tool, POISON if tool == "poison" else FOR_EVER, here=False)
    await scene.store.close()

"""Processes that do what servers do, many at once and at random, until something ends them."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tests.chaos.scene import FOR_EVER, ONCE, RESUMABLE, Scene

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
    await scene.runner.stop()
    await scene.store.close()


async def member(job: dict[str, Any]) -> None:
    """Create some tasks, and answer and cancel whosever they are; run what there is to run."""
    scene, over = await begun(job)
    dice = random.Random(job["seed"])  # noqa: S311
    left: int = job["creates"]
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


async def starter(job: dict[str, Any]) -> None:
    """Start many tasks at once, half of which may run again, and run them to their end."""
    scene, over = await begun(job)
    for number in range(job["tasks"]):
        await (scene.create("steps", RESUMABLE) if number % 2 else scene.create("work", ONCE))
    scene.say("ready")
    await over.wait()
    await end(scene)


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

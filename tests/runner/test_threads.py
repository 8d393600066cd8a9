"""Threads for plain functions: there are so many, and one that hangs is one of them."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
import pytest

from mcp_tasks.domain.record import Policy
from mcp_tasks.runner.threads import Place


if TYPE_CHECKING:
    from mcp_tasks.context import TaskContext
    from mcp_tasks.runner import Runner

    from .conftest import Stand


class Hanging:
    """Functions that ignore their cancellation until the gate opens."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.began = 0
        self.ended = 0

    def hang(self) -> str:
        """Wait for the gate."""
        self.began += 1
        self.gate.wait(10)
        self.ended += 1
        return "hung"


async def prepared(stand: Stand, threads: int) -> tuple[Runner, Hanging]:
    """Start a runner with so many threads and the tools `hang` and `quick`."""
    hanging = Hanging()

    async def hang(task: TaskContext) -> str:
        return await task.run_sync(hanging.hang, whole=True)

    async def quick(task: TaskContext) -> str:
        return await task.run_sync(lambda: "quick", whole=True)

    stand.tool(hang)
    stand.tool(quick)
    return await stand.runner(config=replace(stand.fast, max_threads=threads)), hanging


async def test_a_thread_that_ignores_its_cancellation_counts_until_it_ends(alone: Stand) -> None:
    """Tools that hang, are cancelled and called again must not fill the process with threads."""
    runner, hanging = await prepared(alone, 2)
    for _ in range(2):
        task_id = await alone.create(runner, "hang")
        began = hanging.began
        await alone.until(lambda began=began: hanging.began > began)
        await alone.store.cancel(alone.owner, task_id)
        assert (await alone.ended(task_id)).status == "cancelled"

    waiting = await alone.create(runner, "quick")
    await asyncio.sleep(0.2)
    assert (await alone.get(waiting)).status == "working"
    assert runner.limiter.borrowed_tokens == 2
    hanging.gate.set()

    assert await alone.value(waiting) == "quick"
    await alone.until(lambda: runner.limiter.borrowed_tokens == 0)
    assert hanging.ended == 2


async def test_one_that_times_out_counts_too(alone: Stand) -> None:
    """Its task has ended; the thread has not."""
    runner, hanging = await prepared(alone, 1)
    task_id = await alone.create(runner, "hang", policy=Policy(timeout=0.2))
    assert (await alone.ended(task_id)).status == "failed"

    assert runner.limiter.borrowed_tokens == 1
    hanging.gate.set()
    assert await alone.value(await alone.create(runner, "quick")) == "quick"


async def test_the_time_of_waiting_for_a_thread_is_not_the_tool_s(alone: Stand) -> None:
    """It has not begun; to say that it took too long would be wrong."""
    runner, hanging = await prepared(alone, 1)
    first = await alone.create(runner, "hang")
    await alone.until(lambda: hanging.began == 1)
    task_id = await alone.create(runner, "quick", policy=Policy(timeout=0.2))
    await asyncio.sleep(0.5)
    hanging.gate.set()

    assert await alone.value(task_id) == "quick"
    assert await alone.value(first) == "hung"


async def test_the_time_of_a_part_that_waits_for_a_thread_is_the_tool_s(alone: Stand) -> None:
    """Its other parts may hang meanwhile."""
    runner, hanging = await prepared(alone, 1)

    async def later(task: TaskContext) -> None:
        await alone.until(lambda: hanging.began == 1)
        await task.run_sync(hanging.hang)

    async def parts(task: TaskContext) -> None:
        await asyncio.gather(task.run_sync(hanging.hang), later(task), later(task))

    alone.tool(parts)
    task_id = await alone.create(runner, "parts", policy=Policy(timeout=0.2))

    assert alone.error_data(await alone.ended(task_id))["reason"] == "timed_out"
    hanging.gate.set()
    await alone.until(lambda: runner.limiter.borrowed_tokens == 0)
    assert hanging.began == 1


async def test_there_are_as_many_as_configured(alone: Stand) -> None:
    """More than the 40 that anyio gives to everybody together."""
    runner, hanging = await prepared(alone, 50)
    made = [await alone.create(runner, "hang") for _ in range(50)]

    async with asyncio.timeout(8):
        await alone.until(lambda: hanging.began == 50)
    hanging.gate.set()
    for task_id in made:
        assert await alone.value(task_id) == "hung"


@pytest.mark.parametrize("turns", range(8))
async def test_a_cancellation_at_any_moment_loses_no_place(turns: int) -> None:
    """Before the thread begins, while it runs, and at its end."""
    limiter, ran = anyio.CapacityLimiter(1), 0

    def count() -> None:
        nonlocal ran
        ran += 1

    for _ in range(50):

        async def use() -> None:
            place = await Place.take(limiter)
            await place.run(count)

        using = asyncio.create_task(use())
        for _ in range(turns):
            await asyncio.sleep(0)
        using.cancel()
        await asyncio.wait([using])
    async with asyncio.timeout(5):
        async with limiter:  # free again as soon as the last thread has ended
            pass
    assert limiter.borrowed_tokens == 0
    assert ran <= 50


async def test_a_function_that_was_cancelled_before_it_began_does_not_run() -> None:
    """And gives its place back at once."""
    limiter, ran = anyio.CapacityLimiter(1), threading.Event()

    async def use() -> None:
        place = await Place.take(limiter)
        await place.run(ran.set)

    using = asyncio.create_task(use())
    for _ in range(3):
        if not limiter.borrowed_tokens:
            await asyncio.sleep(0)
    assert limiter.borrowed_tokens == 1
    using.cancel()
    await asyncio.wait([using])

    assert using.cancelled()
    assert limiter.borrowed_tokens == 0
    await asyncio.to_thread(time.sleep, 0.05)
    assert not ran.is_set()

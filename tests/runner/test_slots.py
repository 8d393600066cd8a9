"""Slots: so many bodies at once, the rest waits as rows; and whatever a queue delivers is safe."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import BaseModel


if TYPE_CHECKING:
    from mcp_tasks.context import TaskContext

    from .conftest import Stand


class Name(BaseModel):
    """What is asked for."""

    name: str


class Meter:
    """Counts what runs at once."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def __enter__(self) -> None:
        self.now += 1
        self.most = max(self.most, self.now)

    def __exit__(self, *exc: object) -> None:
        self.now -= 1


async def test_no_more_bodies_run_than_there_are_slots(stand: Stand) -> None:
    """However many are created, submitted, found as rows and delivered at once."""
    meter = Meter()

    async def nap(task: TaskContext) -> None:
        with meter:
            await asyncio.sleep(0.001)

    stand.tool(nap)
    rows = [await stand.create(None, "nap") for _ in range(40)]
    runner = await stand.runner(config=replace(stand.fast, max_running=5))

    async def deliver(task_id: str) -> None:
        await runner.run_task(stand.owner, task_id)

    for task_id in rows:
        runner.submit(stand.owner, task_id)
    created = await asyncio.gather(*(stand.create(runner, "nap") for _ in range(60)))
    await asyncio.gather(*(deliver(task_id) for task_id in rows + created))
    for task_id in rows + created:
        await stand.value(task_id)

    assert meter.most == 5
    await stand.until(lambda: runner._slots.taken == 0)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]


async def test_a_thousand_sleeping_tasks_all_finish(stand: Stand) -> None:
    """128 run, the others wait as rows and follow."""

    async def nap(task: TaskContext) -> None:
        await asyncio.sleep(0.1)

    stand.tool(nap)
    runner = await stand.runner(config=replace(stand.fast, max_running=128))

    ids = [await stand.create(runner, "nap") for _ in range(1000)]

    for task_id in ids:
        await stand.value(task_id)


async def test_rows_of_a_dead_process_are_taken_page_after_page(shared: Stand) -> None:
    """More than one page of entries does not wait for more than one look."""

    async def quick(task: TaskContext) -> None:
        shared.log.append(task.task_id)

    shared.tool(quick)
    ids = [await shared.create(None, "quick") for _ in range(350)]

    await shared.runner(config=replace(shared.fast, look=5.0))

    await shared.until(lambda: len(shared.log) == 350)
    assert sorted(shared.log) == sorted(ids)


async def test_a_body_that_waits_for_a_person_takes_no_slot(stand: Stand) -> None:
    """Waiting in the process costs a coroutine, not a slot."""

    async def ask(task: TaskContext) -> None:
        await task.elicit("who", "?", Name)

    async def quick(task: TaskContext) -> str:
        return "done"

    stand.tool(ask)
    stand.tool(quick)
    runner = await stand.runner(config=replace(stand.fast, max_running=1))
    waiting = await stand.create(runner, "ask")
    await stand.reached(waiting, lambda record: record.status == "input_required")

    assert await stand.value(await stand.create(runner, "quick")) == "done"

    await stand.store.answer(stand.owner, waiting, {"who": {"action": "decline"}})
    await stand.value(waiting)
    # The record may say so before the runner has heard that its last write is done.
    await stand.until(lambda: runner._slots.taken == 0)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]


async def test_a_tool_that_is_missing_here_waits_for_a_worker_that_has_it(shared: Stand) -> None:
    """A process of an older release must not fail new tools, nor hide other tasks behind them."""

    async def fresh(task: TaskContext) -> str:
        return "fresh"

    async def known(task: TaskContext) -> str:
        return "known"

    shared.tool(fresh)
    shared.tool(known)
    old = await shared.runner(without=("fresh",))
    unknown = [await shared.create(old, "fresh") for _ in range(150)]
    row = await shared.create(None, "known")
    assert await shared.value(row) == "known"
    assert (await shared.get(unknown[0])).attempt == 0

    await shared.runner()

    for task_id in unknown:
        assert await shared.value(task_id) == "fresh"


async def test_what_a_queue_delivers_twice_and_out_of_order_runs_once(shared: Stand) -> None:
    """The record decides, so any at-least-once queue is safe, on any number of processes."""

    async def note(task: TaskContext) -> None:
        shared.log.append(task.task_id)
        await asyncio.sleep(random.uniform(0, 0.01))  # noqa: S311

    shared.tool(note)
    runners = [await shared.runner(), await shared.runner()]
    ids = [await shared.create(None, "note") for _ in range(100)]
    deliveries = [(runner, task_id) for task_id in ids * 2 for runner in runners]
    random.shuffle(deliveries)

    ran = await asyncio.gather(
        *(runner.run_task(shared.owner, task_id) for runner, task_id in deliveries)
    )

    for task_id in ids:
        await shared.value(task_id)
    assert sorted(shared.log) == sorted(ids)
    assert sum(ran) <= 100


async def test_a_queue_may_deliver_what_does_not_exist(stand: Stand) -> None:
    """Late is harmless, and so is nonsense."""
    runner = await stand.runner()

    runner.submit(stand.owner, "0" * 36)
    assert await runner.run_task(stand.owner, "0" * 36) is False
    assert await runner.run_task("nobody", "no id") is False
    await stand.until(lambda: runner._slots.taken == 0)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]

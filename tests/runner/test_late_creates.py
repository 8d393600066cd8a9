"""A create that is overtaken: its worker is declared dead before the create is whole."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from mcp_tasks.errors import StoreUnavailableError
from mcp_tasks.runner.recovery import Reaper
from mcp_tasks.runner.worker import read_worker


if TYPE_CHECKING:
    from mcp_tasks.context import TaskContext

    from .conftest import Stand


async def test_a_create_that_a_takeover_was_faster_than_promises_nothing(shared: Stand) -> None:
    """Its task has ended as never started, so nobody may be given its id as of one that runs."""

    async def quick(task: TaskContext) -> int:
        return task.attempt

    shared.tool(quick)
    runner = await shared.runner()
    link = shared.link(runner)
    goes_on = asyncio.Event()

    async def hold_the_roster_up(operation: str, key: str) -> None:
        if operation == "put_if_version" and "@rosters" in key:
            await goes_on.wait()

    link.before = hold_the_roster_up
    creating = asyncio.create_task(shared.create(runner, "quick", policy=shared.rerun))
    assert runner.worker is not None
    name = runner.worker.name
    reaper = Reaper(shared.store, runner.config)
    await asyncio.sleep(0.2)  # record and sheet are there
    assert await shared.keys("@runs")
    found = await read_worker(shared.store, name)
    assert found is not None
    while not await reaper.take(name, *found):  # it beats meanwhile
        found = await read_worker(shared.store, name)
        assert found is not None
    await shared.until(lambda: runner.worker is None or runner.worker.name != name)
    goes_on.set()

    with pytest.raises(StoreUnavailableError):
        await creating


async def test_a_worker_that_was_taken_over_forgets_no_task_before_it_is_freed(
    shared: Stand,
) -> None:
    """Its body has stopped, but its record still names it: the entry on the sheet must stay."""

    async def hold(task: TaskContext) -> None:
        await asyncio.Event().wait()

    shared.tool(hold)
    runner = await shared.runner()
    link = shared.link(runner)
    goes_on = asyncio.Event()

    async def hold_the_takeover_up(operation: str, key: str) -> None:
        if operation == "list" and "@runs" in key:
            await goes_on.wait()

    task_id = await shared.create(runner, "hold")
    assert runner.worker is not None
    sheet = runner.worker.sheet
    assert sheet is not None
    link.before = hold_the_takeover_up
    runner.worker.lose()
    await shared.until(lambda: not runner.attempts)
    sheet.drop(task_id)  # as a second delivery does that finds nothing to claim
    sheet.trim()  # as a look that is under way does
    await sheet.settle()
    goes_on.set()

    ended = await shared.ended(task_id)
    assert shared.error_data(ended)["reason"] == "worker_lost"

"""A tool that keeps the event loop from turning is named, with the line at which it does."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mcp_tasks.ids import short
from mcp_tasks.runner import RunnerConfig


if TYPE_CHECKING:
    from mcp_tasks.context import TaskContext

    from .conftest import Stand


WATCHED = RunnerConfig(loop_watch=0.1)


def block() -> None:
    """Do what no coroutine may do."""
    time.sleep(0.5)


def warnings(caplog: pytest.LogCaptureFixture, about: str) -> list[str]:
    """Return what was said of the loop; a busy machine may give cause for more."""
    said = [record.getMessage() for record in caplog.records]
    return [text for text in said if text.startswith("the event loop") and about in text]


async def test_a_tool_that_blocks_is_named_with_its_stack(
    alone: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    """Once for each time, and again when the loop turns, with how long it took."""

    async def rude(_: TaskContext) -> None:
        block()

    alone.tool(rude)
    runner = await alone.runner(config=WATCHED)

    for count in (1, 2):
        caplog.clear()
        task_id = await alone.create(runner, "rude")
        await alone.ended(task_id)
        about = f"tool 'rude', task {short(task_id)} attempt 1"
        await alone.until(lambda a=about: len(warnings(caplog, a)) == 2)

        blocked, over = warnings(caplog, about)
        assert "test_loop_watch.py" in blocked
        assert "in block" in blocked
        assert "time.sleep(0.5)" in blocked
        assert "turns again, after 0." in over
        assert runner.loop_blocks["rude"] == count


async def test_what_is_no_tools_own_is_shown_too(
    alone: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    """The stack says where."""
    runner = await alone.runner(config=WATCHED)
    await asyncio.sleep(0)

    block()
    await alone.until(lambda: bool(warnings(caplog, "in block")))

    assert "code outside a tool's own asyncio task" in warnings(caplog, "in block")[0]
    assert runner.loop_blocks[""] >= 1


async def test_a_tool_that_only_takes_long_is_none_of_it(
    alone: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither one that waits nor a plain `def` one in its thread."""

    async def patient(_: TaskContext) -> None:
        await asyncio.sleep(0.3)
        await asyncio.to_thread(time.sleep, 0.3)

    alone.tool(patient)
    runner = await alone.runner(config=replace(WATCHED, loop_watch=0.25))
    await alone.value(await alone.create(runner, "patient"))

    assert not warnings(caplog, "patient")
    assert "patient" not in runner.loop_blocks


@pytest.mark.parametrize("seconds", [0.0, 1.0])
async def test_no_thread_outlives_its_runner(alone: Stand, seconds: float) -> None:
    """Nor is there one when nobody wants a watch."""

    def watches() -> int:
        return sum(thread.name == "mcp-tasks-loop-watch" for thread in threading.enumerate())

    before = watches()
    runner = await alone.runner(config=RunnerConfig(loop_watch=seconds))
    assert watches() - before == bool(seconds)

    await alone.stop(runner)

    await alone.until(lambda: watches() == before)

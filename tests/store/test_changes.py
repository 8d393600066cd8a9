"""Word of changes inside one process."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mcp_tasks.testing.task_samples import CALL


if TYPE_CHECKING:
    from mcp_tasks.store import TaskStore


async def test_who_waits_for_a_task_wakes_with_its_next_change(store: TaskStore) -> None:
    """A poll that is held answers as soon as there is something to say."""
    task = await store.create("ada", CALL)
    waiting = [asyncio.create_task(store.changes.wait(task.task_id, 60)) for _ in range(2)]
    await asyncio.sleep(0)

    await store.progress("ada", task.task_id, 1)

    async with asyncio.timeout(5):
        await asyncio.gather(*waiting)


async def test_a_change_of_another_task_wakes_nobody(store: TaskStore) -> None:
    """A thousand polls must not wake for one task."""
    task, other = await store.create("ada", CALL), await store.create("ada", CALL)
    waiting = asyncio.create_task(store.changes.wait(task.task_id, 60))
    await asyncio.sleep(0)

    await store.progress("ada", other.task_id, 1)
    await asyncio.sleep(0)

    assert not waiting.done()
    waiting.cancel()


async def test_waiting_ends_with_its_time(store: TaskStore) -> None:
    """The hint may never come."""
    async with asyncio.timeout(5):
        await store.changes.wait("0" * 36, 0.001)


async def test_a_refused_change_tells_nobody(store: TaskStore) -> None:
    """Only what is written happened."""
    task = await store.create("ada", CALL)
    await store.cancel("ada", task.task_id)
    heard: list[object] = []
    store.changes.listeners.append(heard.append)

    results = await asyncio.gather(
        store.set_result("ada", task.task_id, 1),
        store.set_variables("ada", task.task_id, {"a": 1}),
        return_exceptions=True,
    )

    assert all(isinstance(result, Exception) for result in results)
    assert heard == []

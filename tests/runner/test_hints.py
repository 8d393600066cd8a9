"""Hints of changes: word from other processes comes at once, and as often as is good."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest

from mcp_tasks.errors import StorageUnavailableError
from mcp_tasks.runner import RunnerConfig
from mcp_tasks.store import TaskStore

from .conftest import Link, Stand


if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from mcp_tasks.context import TaskContext

    from .conftest import SharedMemory


@pytest.fixture
async def file(tmp_path: Path) -> AsyncIterator[Stand]:
    """Make a stand on a file, which says when it was changed."""
    stand = Stand("sqlite", tmp_path)
    yield stand
    await stand.close()


class Telling(Link):
    """A link that passes hints on, and notes that they were taken."""

    def __init__(self, inner: SharedMemory, folder: Path) -> None:
        super().__init__(inner, folder)
        self.memory = inner
        self.failures = 0
        self.taken = 0

    async def watch(self) -> AsyncIterator[None]:
        """Fail so often as wanted, then pass on."""
        if self.failures:
            self.failures -= 1
            reason = "the link is cut"
            raise StorageUnavailableError(reason)
        async for _ in self.memory.watch():
            self.taken += 1
            yield


def telling(stand: Stand) -> tuple[Telling, TaskStore]:
    """Give a store of another process that hears of changes."""
    link = Telling(cast("SharedMemory", stand.backend), stand.folder)
    return link, TaskStore(link, config=stand.config)


async def test_word_and_waiting_tasks_are_found_at_once(file: Stand) -> None:
    """Without hints this worker would look again after a minute."""

    async def wait(task: TaskContext) -> None:
        file.log.append("began")
        await asyncio.Event().wait()

    file.tool(wait)
    await file.runner(config=replace(file.fast, look=60.0))
    task_id = await file.create(None, "wait")
    await file.until(lambda: file.log == ["began"])

    await file.store.cancel(file.owner, task_id)

    assert (await file.ended(task_id)).status == "cancelled"


async def test_many_changes_make_few_looks(shared: Stand) -> None:
    """A busy database would otherwise be listed after every write of anybody."""
    link, store = telling(shared)
    await shared.runner(config=RunnerConfig(look=60.0), store=store)
    await shared.until(lambda: link.taken > 0 or bool(link.calls))
    link.calls.clear()
    loop = asyncio.get_running_loop()
    began = loop.time()
    while loop.time() < began + 0.5:
        await shared.backend.put("somebody:else", b"x")
        await asyncio.sleep(0)

    looks = [key for operation, key in link.calls if operation == "list" and "@ready" in key]
    assert 1 <= len(looks) <= 7


async def test_without_hints_the_looking_goes_on(shared: Stand) -> None:
    """And hints are taken again when there are some."""

    async def quick(task: TaskContext) -> str:
        return "done"

    shared.tool(quick)
    link, store = telling(shared)
    link.failures = 2
    await shared.runner(store=store)

    assert await shared.value(await shared.create(None, "quick")) == "done"
    await shared.until(lambda: link.taken > 0)
    assert link.failures == 0

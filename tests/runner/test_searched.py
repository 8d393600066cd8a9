"""What the search of the protocol found in the code: each was a window of one write's width.

The planted mistakes of the same meaning are in `tests/model/mistakes.py`; their names are given.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from mcp_tasks.domain.record import Call, inline
from mcp_tasks.errors import OutcomeUnknownError, StoreUnavailableError
from mcp_tasks.runner.config import RunnerConfig
from mcp_tasks.runner.recovery import Reaper
from mcp_tasks.runner.worker import WorkerRecord, encode_worker, read_worker
from mcp_tasks.storage.memory import MemoryBackend
from mcp_tasks.store import StoreConfig, TaskStore
from mcp_tasks.testing.clocks import ManualClock


if TYPE_CHECKING:
    from datetime import datetime

    from mcp_tasks.context import TaskContext
    from mcp_tasks.storage.base import Page

    from .conftest import Stand


class Name(BaseModel):
    """What is asked for."""

    name: str


async def test_a_claim_that_was_taken_away_since_starts_nothing(shared: Stand) -> None:
    """`claim_unheld`: its reply was lost, and another worker runs the task by now."""
    may_end = asyncio.Event()

    async def work(task: TaskContext) -> None:
        shared.log.append(task.attempt)
        await may_end.wait()

    shared.tool(work)
    first = await shared.runner()
    link = shared.link(first)
    task_ids: list[str] = []

    async def lose_and_hang(operation: str, key: str) -> None:
        if operation == "put_if_version" and task_ids and task_ids[0] in key:
            link.after = None
            link.hang()  # the claim holds; its reply is lost, and the process is cut off
            raise OutcomeUnknownError(key, "nobody answered")

    async def beat_late(_: str, key: str) -> None:
        if "@workers" in key:
            await asyncio.sleep(1)

    link.after = lose_and_hang
    task_ids.append(await shared.create(None, "work", policy=shared.rerun))
    await shared.reached(task_ids[0], lambda record: record.worker is not None)
    await shared.runner()
    await shared.until(lambda: bool(shared.log))  # taken over, and run again
    assert shared.log == [2]

    link.before = beat_late  # it does not know yet that it was taken over ...
    link.restore()  # ... when it finds out what became of its claim
    await asyncio.sleep(1)
    may_end.set()
    await shared.ended(task_ids[0])

    assert shared.log == [2]


async def test_a_cancel_on_top_of_an_unanswered_claim_reaches_the_body(shared: Stand) -> None:
    """`news_of_old_ignored`: the record that the attempt begins with has it already."""

    async def hang(_: TaskContext) -> None:
        shared.log.append("began")
        await asyncio.Event().wait()

    shared.tool(hang)
    runner = await shared.runner()
    link = shared.link(runner)
    task_ids: list[str] = []

    async def lose(operation: str, key: str) -> None:
        if operation == "put_if_version" and task_ids and task_ids[0] in key:
            link.after = None
            await shared.store.cancel(shared.owner, task_ids[0])  # by another process
            raise OutcomeUnknownError(key, "nobody answered")

    link.after = lose
    task_ids.append(await shared.create(None, "hang"))

    record = await shared.ended(task_ids[0])

    assert (record.status, shared.log) == ("cancelled", [])


@pytest.mark.parametrize("what", ["answer", "cancel"])
async def test_word_of_an_unanswered_write_reaches_the_body_in_its_own_process(
    shared: Stand, what: str
) -> None:
    """`word_of_mouth_only`: the caller gave up, the write holds, and no inbox says so."""

    async def ask(task: TaskContext) -> str:
        answer = await task.elicit("who", "Who?", Name)
        return answer.action

    shared.tool(ask)
    runner = await shared.runner()
    runner.store.config = StoreConfig(settle=0.2)
    link = shared.link(runner)
    task_id = await shared.create(runner, "ask")
    await shared.reached(task_id, lambda record: record.status == "input_required")

    async def lose(operation: str, key: str) -> None:
        if operation == "put_if_version" and task_id in key:
            link.before = lose  # nor is any that is sent again, and none of those arrives
            raise OutcomeUnknownError(key, "nobody answered")

    link.after = lose  # the first one holds
    answer = {"action": "accept", "content": {"name": "Ada"}}
    store, owner = runner.store, shared.owner
    word = (
        store.answer(owner, task_id, {"who": answer})
        if what == "answer"
        else store.cancel(owner, task_id)
    )
    with pytest.raises(StoreUnavailableError):
        await word
    link.heal()

    record = await shared.ended(task_id)

    assert record.status == ("completed" if what == "answer" else "cancelled")


class HeldUp(MemoryBackend):
    """A database to which one write takes long.

    Attributes:
        hold: The end of the key whose next swap is held up.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hold = ""
        self.held = asyncio.Event()
        self.go = asyncio.Event()

    async def put_if_version(
        self, key: str, data: bytes, expected_version: int, *, expires_at: datetime | None = None
    ) -> int:
        """Write, late."""
        if self.hold and key.endswith(self.hold) and expected_version:
            self.hold = ""
            self.held.set()
            await self.go.wait()
        return await super().put_if_version(key, data, expected_version, expires_at=expires_at)


async def test_a_task_that_its_roster_dropped_does_not_live_on() -> None:
    """`prune_unended`: an extension was under way when its time was up and its place was given."""
    backend, clock = HeldUp(), ManualClock()
    store = TaskStore(backend, config=StoreConfig(max_active=1), clock=clock)
    call = Call("tool", inline(b"{}"))
    first = await store.create("ada", call, ttl=timedelta(seconds=60))
    clock.advance(timedelta(seconds=59))
    backend.hold = first.task_id
    longer = asyncio.create_task(store.extend("ada", first.task_id, timedelta(seconds=600)))
    await backend.held.wait()
    clock.advance(timedelta(seconds=2))

    second = await store.create("ada", call, ttl=timedelta(seconds=600))
    backend.go.set()
    await asyncio.wait([longer])

    ended = [(await store.get("ada", t.task_id)).is_terminal for t in (first, second)]
    assert ended == [True, False]
    assert longer.exception() is not None


class SlowLook(MemoryBackend):
    """A database whose first listing takes long, and in which a worker beats at its end."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self._clock_of_test = clock
        self.beats = ""

    async def list_by_prefix(self, prefix: str, **options: Any) -> Page:
        """List, late."""
        if self.beats:
            key, self.beats = self.beats, ""
            self._clock_of_test.advance(timedelta(seconds=5.5))
            await self.put_if_version(key, encode_worker(WorkerRecord()), 1)
        return await super().list_by_prefix(prefix, **options)


async def test_a_worker_is_not_taken_within_a_lease_of_its_last_beat() -> None:
    """`seen_when_asked`: the look that saw the beat had begun long before it."""
    clock, config = ManualClock(), RunnerConfig()
    backend = SlowLook(clock)
    store = TaskStore(backend, clock=clock)
    key = store.keys.worker("w")
    await backend.put_if_version(key, encode_worker(WorkerRecord()), 0)
    backend.beats = key
    reaper = Reaper(store, config)
    await reaper.look(())
    beaten = clock.elapsed()

    for pause in (0.1, 2.4, 2.4, 2.4, 2.4):
        clock.advance(timedelta(seconds=pause))
        await reaper.look(())
        assert await read_worker(store, "w") is not None, clock.elapsed() - beaten

    assert clock.elapsed() - beaten < config.fence

"""Stopping: what runs may finish, the rest is handed back, and nobody waits for a lease."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import BaseModel

from mcp_tasks.domain.record import Policy


if TYPE_CHECKING:
    import pytest

    from mcp_tasks.context import TaskContext

    from .conftest import Stand


class Name(BaseModel):
    """What is asked for."""

    name: str


async def test_running_bodies_finish_within_the_drain(stand: Stand) -> None:
    """A deployment does not cost the work of the last second."""

    async def nap(task: TaskContext) -> str:
        await asyncio.sleep(0.2)
        return "slept"

    stand.tool(nap)
    runner = await stand.runner()
    task_id = await stand.create(runner, "nap")

    started = time.monotonic()
    await runner.drain()

    assert time.monotonic() - started < 2
    assert (await stand.get(task_id)).status == "completed"


async def test_what_may_run_again_is_handed_back_at_once(shared: Stand) -> None:
    """Another worker goes on without waiting for a lease, and no attempt counts as lost."""

    async def wait(task: TaskContext) -> int:
        if task.attempt == 1:
            await asyncio.Event().wait()
        return task.attempt

    shared.tool(wait)
    first = await shared.runner()
    ids = [await shared.create(first, "wait", policy=p) for p in (shared.rerun, shared.resumable)]
    await shared.runner()

    started = time.monotonic()
    await shared.stop(first)
    values = [await shared.value(task_id) for task_id in ids]

    assert values == [2, 2]
    assert time.monotonic() - started < 0.9 * shared.fast.lease
    assert [(await shared.get(task_id)).lost for task_id in ids] == [0, 0]


async def test_hand_backs_are_free(shared: Stand) -> None:
    """Restarting a server often must not use up the attempts."""

    async def wait(task: TaskContext) -> int:
        if task.attempt < 6:
            await asyncio.Event().wait()
        return task.attempt

    shared.tool(wait)
    runner = await shared.runner()
    task_id = await shared.create(
        runner, "wait", policy=Policy(on_worker_loss="rerun", max_attempts=2)
    )
    for attempt in range(1, 6):
        await shared.reached(task_id, lambda r, n=attempt: r.attempt == n and r.worker is not None)
        await shared.stop(runner)
        runner = await shared.runner()

    assert await shared.value(task_id) == 6


async def test_a_started_task_that_may_run_once_says_that_it_was_stopped(stand: Stand) -> None:
    """It may have had effects, and is not started again."""
    started = asyncio.Event()

    async def wait(task: TaskContext) -> None:
        started.set()
        stand.log.append(task.attempt)
        await asyncio.Event().wait()

    stand.tool(wait)
    runner = await stand.runner()
    task_id = await stand.create(runner, "wait")
    await started.wait()

    await stand.stop(runner)

    record = await stand.get(task_id)
    assert record.status == "failed"
    assert record.error is not None
    assert record.error.code == -32603
    data = stand.error_data(record)
    assert (data["reason"], data["mayHaveRun"]) == ("worker_stopped", True)
    await stand.runner()
    await asyncio.sleep(0.1)
    assert stand.log == [1]


async def test_a_task_whose_body_did_not_begin_is_handed_back_in_any_mode(shared: Stand) -> None:
    """The worker knows, so nothing is lost."""

    async def note(task: TaskContext) -> int:
        shared.log.append(task.attempt)
        return task.attempt

    shared.tool(note)
    first = await shared.runner()
    call = shared.call("note")
    record = await first.create(shared.owner, call, policy=Policy())
    attempt = first.attempts[record.task_id]
    assert not attempt.started

    await shared.stop(first)

    if not shared.log:
        await shared.runner()
    assert await shared.value(record.task_id) == shared.log[0]


async def test_a_task_that_waits_for_an_answer_is_parked_by_the_drain(stand: Stand) -> None:
    """Its question stays, and its step is not lost."""
    gate = asyncio.Event()

    async def both(task: TaskContext) -> str:
        answer, _ = await asyncio.gather(
            task.elicit("who", "?", Name), task.step("work", gate.wait)
        )
        return answer.action

    stand.tool(both)
    runner = await stand.runner()
    task_id = await stand.create(runner, "both", policy=stand.resumable)
    await stand.reached(task_id, lambda record: record.status == "input_required")

    await stand.stop(runner)

    record = await stand.get(task_id)
    assert (record.status, record.worker) == ("input_required", None)
    gate.set()
    await stand.runner()
    await stand.store.answer(stand.owner, task_id, {"who": {"action": "decline"}})
    assert await stand.value(task_id) == "decline"


async def test_a_cancelled_task_ends_cancelled_when_it_is_handed_back(shared: Stand) -> None:
    """Whoever takes a task from a worker looks at the flag first."""
    started = asyncio.Event()

    async def deaf(task: TaskContext) -> None:
        started.set()
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if len(shared.log) > 1:
                    raise
                shared.log.append("ignored")

    shared.tool(deaf)
    runner = await shared.runner(config=replace(shared.fast, cancel_grace=30.0))
    task_id = await shared.create(runner, "deaf", policy=shared.rerun)
    await started.wait()
    await shared.store.cancel(shared.owner, task_id)
    await shared.until(lambda: shared.log == ["ignored"])

    await shared.stop(runner)

    assert (await shared.get(task_id)).status == "cancelled"


async def test_a_body_that_does_not_stop_is_handed_back_all_the_same(shared: Stand) -> None:
    """Its later writes are refused by the fence."""
    gate = asyncio.Event()

    async def deaf(task: TaskContext) -> int:
        while task.attempt == 1 and not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                shared.log.append("ignored")
        return task.attempt

    shared.tool(deaf)
    first = await shared.runner()
    task_id = await shared.create(first, "deaf", policy=shared.rerun)
    await asyncio.sleep(0.02)
    await shared.runner()

    await shared.stop(first)
    gate.set()

    assert await shared.value(task_id) == 2


async def test_an_orderly_end_leaves_no_trace(shared: Stand) -> None:
    """Sheets, inbox and record are gone, the record last."""

    async def nap(task: TaskContext) -> None:
        await asyncio.sleep(0.05)

    shared.tool(nap)
    runner = await shared.runner()
    link = shared.link(runner)
    for _ in range(5):
        await shared.create(runner, "nap")

    await shared.stop(runner)

    assert await shared.keys("@workers:") == []
    deleted = [key for operation, key in link.calls if operation == "delete"]
    assert "@workers:" in deleted[-1]
    assert any("@runs" in key for key in deleted)
    assert list(shared.folder.glob("*.lock")) == []


async def test_creates_during_the_drain_wait_for_another_worker(shared: Stand) -> None:
    """They are taken, and not begun by a process that is about to end."""
    gate = asyncio.Event()

    async def wait(task: TaskContext) -> int:
        if task.attempt == 0:
            raise AssertionError
        await gate.wait()
        return task.attempt

    shared.tool(wait)
    first = await shared.runner()
    running = await shared.create(first, "wait")
    draining = asyncio.create_task(first.drain())
    await asyncio.sleep(0.02)

    late = await shared.create(first, "wait")

    assert (await shared.get(late)).worker is None
    assert not await first.run_task(shared.owner, late)
    gate.set()
    await draining
    assert await shared.value(running) == 1
    await shared.runner()
    assert await shared.value(late) == 1


async def test_a_create_under_way_when_the_drain_begins_is_handed_back(shared: Stand) -> None:
    """The drain waits for it, so that its task is left with nobody's name on it."""

    async def note(task: TaskContext) -> int:
        return task.attempt

    shared.tool(note)
    first = await shared.runner()
    link = shared.link(first)
    held = asyncio.Event()

    async def hold(_operation: str, key: str) -> None:
        if f"{shared.owner}:" in key and "@" not in key:
            await held.wait()

    link.before = hold
    creating = asyncio.create_task(shared.create(first, "note"))
    await asyncio.sleep(0.02)
    draining = asyncio.create_task(first.drain())
    await asyncio.sleep(0.05)
    assert not draining.done()
    held.set()

    task_id = await creating
    await draining

    record = await shared.get(task_id)
    assert (record.status, record.worker) == ("working", None)
    await shared.runner()
    assert await shared.value(task_id) == 2


async def test_tasks_that_cannot_be_handed_back_are_left_to_others(
    shared: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the database away, the worker's record and sheet stay, so that its tasks are found."""

    async def wait(task: TaskContext) -> int:
        if task.attempt == 1:
            await asyncio.Event().wait()
        return task.attempt

    shared.tool(wait)
    monkeypatch.setattr("mcp_tasks.runner.runner._PATIENCE", 0.3)
    first = await shared.runner()
    link = shared.link(first)
    task_id = await shared.create(first, "wait", policy=shared.rerun)
    await asyncio.sleep(0.02)

    async def refuse_the_task(operation: str, key: str) -> None:
        if task_id in key:
            raise OSError  # not even an error that a backend should raise

    link.before = refuse_the_task
    await first.drain(0)
    link.heal()

    assert len(await shared.keys("@workers:")) == 1
    await shared.runner()
    assert await shared.value(task_id) == 2


async def test_the_last_of_several_users_stops_the_runner(stand: Stand) -> None:
    """Connections come and go; tasks outlive them."""

    async def nap(task: TaskContext) -> str:
        await asyncio.sleep(0.05)
        return "slept"

    stand.tool(nap)
    runner = await stand.runner()
    await runner.start()
    task_id = await stand.create(runner, "nap")

    await runner.stop()

    assert not runner.is_closed
    assert await stand.value(task_id) == "slept"

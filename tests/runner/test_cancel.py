"""Cancelling: what waits ends at once, what runs is asked, what does not listen is cut off."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

from pydantic import BaseModel

from mcp_tasks.errors import LeaseLostError


if TYPE_CHECKING:
    from mcp_tasks.context import TaskContext

    from .conftest import Stand


class Name(BaseModel):
    """What is asked for."""

    name: str


async def test_a_task_that_waits_for_a_worker_is_cancelled_at_once(stand: Stand) -> None:
    """Nobody runs it, so there is nobody to ask, and nobody starts it afterwards."""

    async def note(task: TaskContext) -> None:
        stand.log.append(task.task_id)

    stand.tool(note)
    task_id = await stand.create(None, "note")

    assert (await stand.store.cancel(stand.owner, task_id)).status == "cancelled"

    runner = await stand.runner()
    assert await runner.run_task(stand.owner, task_id) is False
    assert stand.log == []


async def test_a_parked_task_is_cancelled_at_once(stand: Stand) -> None:
    """It has no coroutine either; a late answer changes nothing."""

    async def ask(task: TaskContext) -> None:
        stand.log.append(task.attempt)
        await task.elicit("who", "?", Name)

    stand.tool(ask)
    runner = await stand.runner()
    task_id = await stand.create(runner, "ask", policy=stand.resumable)
    await stand.reached(task_id, lambda r: r.status == "input_required" and r.worker is None)

    assert (await stand.store.cancel(stand.owner, task_id)).status == "cancelled"
    await stand.store.answer(stand.owner, task_id, {"who": {"action": "decline"}})

    assert (await stand.get(task_id)).status == "cancelled"
    assert stand.log == [1]


async def test_a_running_body_is_cancelled_and_may_clean_up(stand: Stand) -> None:
    """Cooperatively: the task is `cancelled` when the body has ended."""
    started = asyncio.Event()

    async def wait(task: TaskContext) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            stand.log.append(task.cancel_requested)
            await task.set_variable("cleaned", value=True)

    stand.tool(wait)
    runner = await stand.runner()
    task_id = await stand.create(runner, "wait")
    await started.wait()

    acknowledged = await stand.store.cancel(stand.owner, task_id)
    record = await stand.ended(task_id)

    assert acknowledged.cancel is not None
    assert (record.status, record.result) == ("cancelled", None)
    assert stand.log == [True]
    assert await stand.store.get_variables(stand.owner, task_id) == {"cleaned": True}


async def test_a_body_that_waits_for_an_answer_is_cancelled(stand: Stand) -> None:
    """Waiting in the process is running too."""

    async def ask(task: TaskContext) -> None:
        await task.elicit("who", "?", Name)

    stand.tool(ask)
    runner = await stand.runner()
    task_id = await stand.create(runner, "ask")
    await stand.reached(task_id, lambda record: record.status == "input_required")

    await stand.store.cancel(stand.owner, task_id)

    assert (await stand.ended(task_id)).status == "cancelled"


async def test_a_body_that_ignores_cancellation_is_cut_off(stand: Stand) -> None:
    """After the grace the task is `cancelled`, and the body's writes are refused."""
    started, gate = asyncio.Event(), asyncio.Event()

    async def deaf(task: TaskContext) -> str:
        started.set()
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                stand.log.append("ignored")
        try:
            await task.set_variable("late", 1)
        except LeaseLostError as error:
            stand.log.append(type(error).__name__)
        return "late"

    stand.tool(deaf)
    runner = await stand.runner()
    task_id = await stand.create(runner, "deaf")
    await started.wait()

    await stand.store.cancel(stand.owner, task_id)
    record = await stand.ended(task_id)
    gate.set()
    await stand.until(lambda: len(stand.log) == 2)
    await asyncio.sleep(0.05)

    assert record.status == "cancelled"
    assert stand.log == ["ignored", "LeaseLostError"]
    assert await stand.get(task_id) == record


async def test_a_slot_is_free_again_after_a_body_was_cut_off(shared: Stand) -> None:
    """Tools that do not listen must not use the slots up, nor free one twice."""
    gate = asyncio.Event()

    async def deaf(task: TaskContext) -> None:
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                shared.log.append("ignored")

    shared.tool(deaf)
    runner = await shared.runner()
    for _ in range(3):
        task_id = await shared.create(runner, "deaf")
        await shared.store.cancel(shared.owner, task_id)
        assert (await shared.ended(task_id)).status == "cancelled"
    gate.set()
    await asyncio.sleep(0.05)

    await shared.until(lambda: runner._slots.taken == 0)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]


async def test_a_blocking_tool_in_a_thread_is_let_go(stand: Stand) -> None:
    """A thread cannot be stopped; it can look at `cancel_requested`."""
    started, stop = threading.Event(), threading.Event()

    async def plain(task: TaskContext) -> str:
        def block() -> str:
            started.set()
            while not task.cancel_requested:
                stop.wait(0.005)
            stand.log.append("seen")
            return "late"

        return await task.run_sync(block)

    stand.tool(plain)
    runner = await stand.runner()
    task_id = await stand.create(runner, "plain")
    await stand.until(started.is_set)

    await stand.store.cancel(stand.owner, task_id)

    assert (await stand.ended(task_id)).status == "cancelled"
    await stand.until(lambda: stand.log == ["seen"])


async def test_cancelling_twice_and_late_changes_nothing(stand: Stand) -> None:
    """Requests may be repeated; what has ended stays as it is."""

    async def quick(task: TaskContext) -> str:
        return "done"

    stand.tool(quick)
    runner = await stand.runner()
    task_id = await stand.create(runner, "quick")
    await stand.value(task_id)

    before = await stand.get(task_id)
    for _ in range(2):
        assert await stand.store.cancel(stand.owner, task_id) == before


async def test_a_cancel_that_races_with_the_end_has_one_winner(stand: Stand) -> None:
    """Result or `cancelled`, and once `cancelled` was seen never a result."""
    gates: dict[str, asyncio.Event] = {}

    async def wait(task: TaskContext) -> str:
        await gates.setdefault(task.task_id, asyncio.Event()).wait()
        return "done"

    stand.tool(wait)
    runner = await stand.runner()
    statuses: list[str] = []
    for number in range(60):
        task_id = await stand.create(runner, "wait")
        gate = gates.setdefault(task_id, asyncio.Event())
        await asyncio.sleep(0)

        async def open_gate(turns: int = number % 6, gate: asyncio.Event = gate) -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            gate.set()

        seen, _ = await asyncio.gather(stand.store.cancel(stand.owner, task_id), open_gate())
        record = await stand.ended(task_id)
        statuses.append(record.status)
        assert (record.result is None) == (record.status == "cancelled")
        if seen.status == "cancelled":
            assert record == seen
    assert set(statuses) <= {"completed", "cancelled"}


async def test_a_cancel_before_the_first_step_of_the_body(alone: Stand) -> None:
    """The body never begins, and the task ends."""
    stand = alone

    async def note(task: TaskContext) -> None:
        stand.log.append("ran")
        await asyncio.Event().wait()

    stand.tool(note)
    runner = await stand.runner()
    record = await runner.create(stand.owner, stand.call("note"), policy=stand.resumable)
    # Memory answers without a turn of the loop, in which the body would begin.
    await stand.store.cancel(stand.owner, record.task_id)

    assert (await stand.ended(record.task_id)).status == "cancelled"
    assert stand.log == []


async def test_a_cancel_while_the_claim_is_under_way_is_not_lost(shared: Stand) -> None:
    """The flag lands behind the claim, before the worker knows that it has the task."""

    async def wait(task: TaskContext) -> None:
        await asyncio.Event().wait()

    shared.tool(wait)
    task_id = await shared.create(None, "wait")
    runner = await shared.runner(worker=True)
    link = shared.link(runner)
    done: list[str] = []

    async def cancel_first(operation: str, key: str) -> None:
        if operation == "put_if_version" and task_id in key and not done:
            done.append(key)
            await shared.store.cancel(shared.owner, task_id)
            # Its inbox is looked at in between, too.
            await asyncio.sleep(4 * shared.fast.look)

    link.after = cancel_first

    assert (await shared.ended(task_id)).status == "cancelled"


async def test_a_cancel_while_the_end_is_written_waits_for_it(shared: Stand) -> None:
    """A body that has ended has a last write to make."""
    seen: list[str] = []

    async def quick(task: TaskContext) -> str:
        await asyncio.sleep(0.01)
        return "done"

    shared.tool(quick)
    runner = await shared.runner()
    link = shared.link(runner)
    task_id = await shared.create(runner, "quick")

    async def cancel_meanwhile(operation: str, key: str) -> None:
        if operation == "put_if_version" and task_id in key and not seen:
            seen.append(key)
            await shared.store.cancel(shared.owner, task_id)
            await asyncio.sleep(4 * shared.fast.look)

    link.before = cancel_meanwhile

    assert await shared.value(task_id) == "done"
    assert seen


async def test_a_cancel_in_another_process_is_heard_through_the_inbox(shared: Stand) -> None:
    """One listing a second, whatever runs; the entry is removed when it was read."""
    started = asyncio.Event()

    async def wait(task: TaskContext) -> None:
        started.set()
        await asyncio.Event().wait()

    shared.tool(wait)
    runner = await shared.runner()
    task_id = await shared.create(runner, "wait")
    await started.wait()

    await shared.store.cancel(shared.owner, task_id)
    assert await shared.keys("@inbox")

    assert (await shared.ended(task_id)).status == "cancelled"
    deadline = time.monotonic() + 5
    while await shared.keys("@inbox"):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_an_answer_and_a_cancel_at_once(stand: Stand) -> None:
    """Either the body goes on with the answer and is cancelled, or it never sees it."""

    async def ask(task: TaskContext) -> None:
        await task.elicit("who", "?", Name)
        await asyncio.Event().wait()

    stand.tool(ask)
    runner = await stand.runner()
    for policy in (stand.resumable, stand.rerun):
        for _ in range(10):
            task_id = await stand.create(runner, "ask", policy=policy)
            await stand.reached(task_id, lambda record: record.status == "input_required")
            await asyncio.gather(
                stand.store.answer(stand.owner, task_id, {"who": {"action": "decline"}}),
                stand.store.cancel(stand.owner, task_id),
            )
            assert (await stand.ended(task_id)).status == "cancelled"

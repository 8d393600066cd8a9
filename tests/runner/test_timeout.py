"""Tools that take too long: stopped like cancelled ones, and ended with an error that says so."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from mcp_tasks.context import SyncTaskContext
from mcp_tasks.domain.record import Policy
from mcp_tasks.errors import LeaseLostError, StorageUnavailableError
from mcp_tasks.runner import Completed, Failed


if TYPE_CHECKING:
    from mcp_tasks.context import TaskContext
    from mcp_tasks.runner import Outcome, TaskRun

    from .conftest import Stand


SHORT = Policy(timeout=0.2)
LONG = Policy(timeout=30.0)


class Name(BaseModel):
    """What is asked for."""

    name: str


ADA = {"action": "accept", "content": {"name": "Ada"}}


async def test_a_tool_that_takes_too_long_is_stopped(stand: Stand) -> None:
    """It may clean up first, as when it is cancelled, and the error says what happened."""

    async def slow(task: TaskContext) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stand.log.append(task.cancel_requested)
            await task.set_variable("cleaned", value=True)

    stand.tool(slow)
    runner = await stand.runner()
    began = time.monotonic()
    record = await stand.ended(await stand.create(runner, "slow", policy=SHORT))
    took = time.monotonic() - began

    assert record.status == "failed"
    assert record.error is not None
    assert record.error.code == -32603
    assert record.error.message == (
        "the tool was stopped: it may run for 0.2 s, and had not ended by then"
    )
    assert stand.error_data(record) == {
        "reason": "timed_out",
        "timeout": 0.2,
        "attempt": 1,
        "mayHaveRun": True,
    }
    assert stand.log == [True]
    assert 0.2 <= took < 2
    assert await stand.store.get_variables(stand.owner, record.task_id) == {"cleaned": True}


async def test_it_is_not_run_again(stand: Stand) -> None:
    """`rerun` is for workers that are lost; the same tool would take as long again."""

    async def slow(task: TaskContext) -> None:
        stand.log.append(task.attempt)
        await asyncio.Event().wait()

    stand.tool(slow)
    runner = await stand.runner()
    for policy in (
        Policy(timeout=0.1, on_worker_loss="rerun"),
        Policy(timeout=0.1, resumable=True),
    ):
        record = await stand.ended(await stand.create(runner, "slow", policy=policy))
        assert stand.error_data(record)["reason"] == "timed_out"
    await asyncio.sleep(0.3)

    assert stand.log == [1, 1]
    assert await stand.keys("@ready:") == []


async def test_a_tool_that_is_in_time_is_left_alone(stand: Stand) -> None:
    """Also afterwards."""

    async def quick(task: TaskContext) -> str:
        await asyncio.sleep(0.05)
        return task.task_id

    stand.tool(quick)
    runner = await stand.runner()
    task_id = await stand.create(runner, "quick", policy=Policy(timeout=0.6))

    assert await stand.value(task_id) == task_id
    await asyncio.sleep(0.7)
    assert (await stand.get(task_id)).status == "completed"


async def test_waiting_for_a_person_does_not_count(stand: Stand) -> None:
    """People take their time; what the tool does before and after is what is limited."""

    async def ask(task: TaskContext, after: float) -> str:
        await asyncio.sleep(0.3)
        answer = await task.elicit("who", "?", Name)
        await asyncio.sleep(after)
        return answer.action

    stand.tool(ask)
    runner = await stand.runner()
    policy = Policy(timeout=1.0)
    made = [await stand.create(runner, "ask", policy=policy, after=after) for after in (0.2, 0.85)]
    for task_id in made:
        await stand.reached(task_id, lambda record: record.status == "input_required")
    await asyncio.sleep(1.0)
    for task_id in made:
        await stand.store.answer(stand.owner, task_id, {"who": ADA})

    assert await stand.value(made[0]) == "accept"
    # And the rest of the time counts again.
    assert stand.error_data(await stand.ended(made[1]))["reason"] == "timed_out"


async def test_a_parked_task_has_all_its_time_when_it_goes_on(stand: Stand) -> None:
    """It is a new run of the tool."""

    async def ask(task: TaskContext) -> str:
        await asyncio.sleep(0.5)
        answer = await task.elicit("who", "?", Name)
        return answer.action

    stand.tool(ask)
    runner = await stand.runner()
    task_id = await stand.create(runner, "ask", policy=Policy(timeout=0.8, resumable=True))
    await stand.reached(task_id, lambda r: r.status == "input_required" and r.worker is None)
    await asyncio.sleep(0.3)
    await stand.store.answer(stand.owner, task_id, {"who": ADA})

    assert await stand.value(task_id) == "accept"


async def test_another_worker_s_run_has_all_its_time(stand: Stand) -> None:
    """Time that went with a worker is nobody's fault."""

    async def work(task: TaskContext) -> int:
        stand.log.append(task.attempt)
        await asyncio.sleep(30 if task.attempt == 1 else 0.6)
        return task.attempt

    stand.tool(work)
    first = await stand.runner()
    task_id = await stand.create(first, "work", policy=Policy(timeout=1.0, on_worker_loss="rerun"))
    await asyncio.sleep(0.7)
    await stand.stop(first)
    await stand.runner()

    assert await stand.value(task_id) == 2
    assert stand.log == [1, 2]


async def test_a_tool_that_does_not_listen_is_cut_off(stand: Stand) -> None:
    """After the grace the task is failed, and the tool's writes are refused."""
    gate = asyncio.Event()

    async def deaf(task: TaskContext) -> str:
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
    record = await stand.ended(await stand.create(runner, "deaf", policy=SHORT))
    gate.set()
    await stand.until(lambda: len(stand.log) == 2)
    await asyncio.sleep(0.05)

    assert stand.error_data(record)["reason"] == "timed_out"
    assert stand.log == ["ignored", "LeaseLostError"]
    assert await stand.get(record.task_id) == record
    assert runner.attempts == {}


async def test_a_thread_that_goes_on_is_fenced(stand: Stand) -> None:
    """It cannot be stopped; it can see that it had better end, and nothing it writes gets in."""
    gate, seen = threading.Event(), threading.Event()

    def blocking(task: SyncTaskContext) -> str:
        while not task.cancel_requested:
            time.sleep(0.01)
        seen.set()
        gate.wait(10)
        try:
            task.set_variables({"late": 1})
        except LeaseLostError as error:
            stand.log.append(type(error).__name__)
        return "late"

    async def thread(task: TaskContext) -> str:
        return await task.run_sync(lambda: blocking(SyncTaskContext(task)))

    stand.tool(thread)
    runner = await stand.runner()
    record = await stand.ended(await stand.create(runner, "thread", policy=SHORT))
    assert seen.wait(5)
    gate.set()
    await stand.until(lambda: bool(stand.log))

    assert stand.error_data(record)["reason"] == "timed_out"
    assert stand.log == ["LeaseLostError"]
    assert await stand.get(record.task_id) == record


async def test_what_a_tool_returns_while_it_is_stopped_is_its_result(stand: Stand) -> None:
    """It may have something to show for its time."""

    async def partly(_task: TaskContext) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "3 of 10"
        return "10 of 10"

    stand.tool(partly)
    runner = await stand.runner()

    assert await stand.value(await stand.create(runner, "partly", policy=SHORT)) == "3 of 10"


async def test_an_error_of_a_tool_that_is_stopped_does_not_hide_why(stand: Stand) -> None:
    """Torn-down connections raise all kinds of things."""

    async def torn(_run: TaskRun) -> Outcome:
        try:
            await asyncio.Event().wait()
        finally:
            raise RuntimeError("connection reset")
        return Completed({})

    async def failing(_run: TaskRun) -> Outcome:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return Failed(-32050, "not today")
        return Completed({})

    stand.body("torn", torn)
    stand.body("failing", failing)
    runner = await stand.runner()
    for tool in ("torn", "failing"):
        record = await stand.ended(await stand.create(runner, tool, policy=SHORT))
        assert stand.error_data(record)["reason"] == "timed_out"


async def test_a_timeout_of_the_tool_s_own_is_its_own(stand: Stand) -> None:
    """As long as there is time left."""

    async def impatient(_run: TaskRun) -> Outcome:
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()
        return Completed({})

    stand.body("impatient", impatient)
    runner = await stand.runner()
    record = await stand.ended(await stand.create(runner, "impatient", policy=LONG))

    assert record.error is not None
    assert record.error.message == "internal error while the tool ran"


async def test_a_task_that_was_to_be_cancelled_is_cancelled(stand: Stand) -> None:
    """Whoever asked for it need not know that time was up as well."""
    gate = asyncio.Event()

    async def slow(_task: TaskContext) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await gate.wait()

    stand.tool(slow)
    runner = await stand.runner(config=replace(stand.fast, cancel_grace=5.0))
    task_id = await stand.create(runner, "slow", policy=SHORT)
    attempt = runner.attempts[task_id]
    await stand.until(lambda: attempt.is_stopping)
    await stand.store.cancel(stand.owner, task_id)
    gate.set()

    assert (await stand.ended(task_id)).status == "cancelled"


async def test_the_time_until_the_end_is_recorded_does_not_count(shared: Stand) -> None:
    """The database may be away; the work was done in time."""

    async def work(task: TaskContext) -> int:
        shared.link(runner).before = refuse
        return task.attempt

    async def refuse(operation: str, key: str) -> None:
        if operation == "put_if_version" and key.startswith(f"{shared.owner}:"):
            raise StorageUnavailableError("it is away")

    shared.tool(work)
    runner = await shared.runner()
    task_id = await shared.create(runner, "work", policy=SHORT)
    await asyncio.sleep(0.4)
    shared.link(runner).heal()

    assert await shared.value(task_id) == 1


async def test_the_time_until_the_tool_begins_does_not_count(shared: Stand) -> None:
    """Reading what earlier runs recorded may take a while."""

    async def work(task: TaskContext, text: str) -> int:
        return task.attempt + len(text)

    async def slow(operation: str, key: str) -> None:
        if operation == "get" and "@blobs" in key:
            await asyncio.sleep(0.4)

    shared.tool(work)
    task_id = await shared.create(None, "work", policy=SHORT, text="x" * 10_000)
    runner = await shared.runner()
    shared.link(runner).before = slow
    runner.submit(shared.owner, task_id)

    assert await shared.value(task_id) == 10_001


async def test_a_slot_is_free_again(stand: Stand) -> None:
    """What hangs must not fill the server up."""

    async def slow(_task: TaskContext) -> None:
        await asyncio.Event().wait()

    async def quick(_task: TaskContext) -> str:
        return "ran"

    stand.tool(slow)
    stand.tool(quick)
    runner = await stand.runner(config=replace(stand.fast, max_running=1))
    await stand.ended(await stand.create(runner, "slow", policy=SHORT))

    assert await stand.value(await stand.create(runner, "quick")) == "ran"


@pytest.mark.parametrize("policy", [Policy(), SHORT])
async def test_a_record_says_how_long_its_tool_may_run(alone: Stand, policy: Policy) -> None:
    """So a worker needs no more than the record, also one that never served the call."""
    task_id = await alone.create(None, "any", policy=policy)
    stored: Any = await alone.backend.get(alone.store.keys.task(alone.owner, task_id))

    assert (await alone.get(task_id)).policy.timeout == policy.timeout
    assert (b"timeout" in stored.data) is (policy.timeout is not None)

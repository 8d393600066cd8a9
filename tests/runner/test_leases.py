"""Leases: who is alive, who is dead, and that the dead write nothing any more."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from mcp_tasks.domain.record import Policy
from mcp_tasks.errors import (
    LeaseLostError,
    OutcomeUnknownError,
    StorageUnavailableError,
    StoreUnavailableError,
)
from mcp_tasks.runner.recovery import Reaper
from mcp_tasks.runner.sheet import RunSheet, decode_entries
from mcp_tasks.store import TaskStore


if TYPE_CHECKING:
    from mcp_tasks.context import TaskContext
    from mcp_tasks.runner import Runner

    from .conftest import Stand


# pyright: reportPrivateUsage=false
# ruff: noqa: SLF001 - what is looked at here is not for users


class Name(BaseModel):
    """What is asked for."""

    name: str


def name_of(runner: Runner) -> str:
    """Return the incarnation of a runner's worker."""
    assert runner._worker is not None
    return runner._worker.name


async def wait_for_ever(task: TaskContext) -> int:
    """Wait on the first attempt."""
    if task.attempt == 1:
        await asyncio.Event().wait()
    return task.attempt


async def test_a_worker_costs_one_write_a_beat_whatever_it_runs(shared: Stand) -> None:
    """Ten thousand running tasks must not cost ten thousand writes."""
    shared.tool(wait_for_ever)
    runner = await shared.runner()
    for _ in range(300):
        await shared.create(runner, "wait_for_ever", policy=shared.rerun)
    link = shared.link(runner)
    link.calls.clear()

    await asyncio.sleep(1.0)

    writes = [key for operation, key in link.calls if operation.startswith("put")]
    assert {key.partition(":")[0] for key in writes} == {"@workers"}
    assert 3 <= len(writes) <= 6


async def test_a_silent_workers_tasks_are_taken_over_after_its_lease(shared: Stand) -> None:
    """At most once is failed with its reason, what may run again runs, what waits is parked."""

    async def ask(task: TaskContext) -> str:
        answer, _ = await asyncio.gather(
            task.elicit("who", "?", Name), task.step("work", asyncio.Event().wait)
        )
        return answer.action

    shared.tool(wait_for_ever)
    shared.tool(ask)
    first = await shared.runner()
    once = await shared.create(first, "wait_for_ever")
    rerun = await shared.create(first, "wait_for_ever", policy=shared.rerun)
    asks = await shared.create(first, "ask", policy=shared.resumable)
    await shared.reached(asks, lambda record: record.status == "input_required")
    await shared.runner(without=("ask",))

    shared.link(first).hang()
    started = time.monotonic()
    record = await shared.ended(once)

    assert record.error is not None
    assert (record.status, record.error.code) == ("failed", -32603)
    data = shared.error_data(record)
    assert (data["reason"], data["attempt"], data["mayHaveRun"]) == ("worker_lost", 1, True)
    assert time.monotonic() - started > 0.5 * shared.fast.lease
    assert await shared.value(rerun) == 2
    parked = await shared.reached(asks, lambda record: record.worker is None)
    assert parked.status == "input_required"


async def test_a_live_worker_is_not_taken_over(shared: Stand) -> None:
    """However long its tasks run."""
    gate = asyncio.Event()

    async def wait(task: TaskContext) -> int:
        await gate.wait()
        return task.attempt

    shared.tool(wait)
    first = await shared.runner()
    task_id = await shared.create(first, "wait", policy=shared.rerun)
    await shared.runner()

    await asyncio.sleep(2 * shared.fast.lease)
    gate.set()

    assert await shared.value(task_id) == 1


async def test_a_zombie_changes_nothing_in_several_rounds(shared: Stand) -> None:
    """No write of attempt n lands after attempt n+1 was claimed."""

    async def work(task: TaskContext) -> str:
        try:
            for number in range(10_000):
                await task.set_variables({f"by-{task.attempt}": number})
                await asyncio.sleep(0.01)
                if task.attempt == 4 and number == 20:
                    break
        except LeaseLostError:
            shared.log.append(("lost", task.attempt))
            raise
        except asyncio.CancelledError:
            shared.log.append(("stopped", task.attempt))
            raise
        return f"attempt {task.attempt}"

    shared.tool(work)
    runners = [await shared.runner() for _ in range(3)]
    task_id = await shared.create(
        runners[0], "work", policy=Policy(on_worker_loss="rerun", max_attempts=9)
    )
    for attempt in (1, 2, 3):
        record = await shared.reached(
            task_id,
            lambda r, n=attempt: (
                r.attempt == n and r.worker is not None and r.variables is not None
            ),
        )
        running = next(r for r in runners if name_of(r) == record.worker)
        shared.link(running).hang()
        await shared.reached(
            task_id, lambda r, n=attempt: r.attempt == n + 1 and r.worker is not None
        )
        # The zombie wakes up and goes on with what it knew.
        shared.link(running).restore()
        await shared.until(
            lambda n=attempt: ("lost", n) in shared.log or ("stopped", n) in shared.log
        )
        before = (await shared.store.get_variables(shared.owner, task_id)).get(f"by-{attempt}")
        await asyncio.sleep(0.05)
        after = (await shared.store.get_variables(shared.owner, task_id)).get(f"by-{attempt}")
        assert before == after
        await shared.until(
            lambda r=running, n=record.worker: r._worker is not None and name_of(r) != n
        )

    assert await shared.value(task_id) == "attempt 4"


async def test_a_worker_that_was_taken_over_goes_on_as_a_new_one(shared: Stand) -> None:
    """An old incarnation never becomes good again; the process does."""
    shared.tool(wait_for_ever)

    async def quick(task: TaskContext) -> str:
        return "done"

    shared.tool(quick)
    first = await shared.runner()
    old = name_of(first)
    task_id = await shared.create(first, "wait_for_ever", policy=shared.rerun)
    second = await shared.runner(without=("wait_for_ever",))
    shared.link(first).hang()
    await shared.reached(task_id, lambda record: record.worker is None)

    shared.link(first).restore()

    assert await shared.value(task_id) == 2
    assert name_of(first) != old
    assert await shared.value(await shared.create(first, "quick")) == "done"
    workers = {key.partition(":")[2] for key in await shared.keys("@workers:")}
    assert workers == {name_of(first), name_of(second)}


async def test_an_incarnation_that_is_taken_frees_its_own_tasks_at_once(shared: Stand) -> None:
    """Alone in the world, nobody else would do it."""
    shared.tool(wait_for_ever)
    runner = await shared.runner(config=replace(shared.fast, lease=60.0))
    task_id = await shared.create(runner, "wait_for_ever", policy=shared.rerun)
    old = (await shared.keys("@workers:"))[0]
    found = await shared.backend.get(old)

    started = time.monotonic()
    taken = found.data.replace(b"{", b'{"state":"taken",', 1)
    await shared.backend.put(old, taken)

    assert await shared.value(task_id) == 2
    assert time.monotonic() - started < 2
    assert old not in await shared.keys("@workers:")


async def test_a_fenced_worker_stops_what_others_could_start(shared: Stand) -> None:
    """Without a good beat a restartable body stops; one that may run once goes on."""
    gate = asyncio.Event()

    async def wait(task: TaskContext, name: str) -> str:
        try:
            await gate.wait()
        except asyncio.CancelledError:
            shared.log.append(name)
            raise
        return name

    shared.tool(wait)
    runner = await shared.runner()
    worker = name_of(runner)
    once = await shared.create(runner, "wait", name="once")
    rerun = await shared.create(runner, "wait", name="rerun", policy=shared.rerun)
    shared.link(runner).fail()

    await shared.until(lambda: shared.log == ["rerun"])
    assert not runner._worker.is_good  # type: ignore[union-attr]
    shared.link(runner).heal()
    gate.set()

    assert await shared.value(once) == "once"
    assert await shared.value(rerun) == "rerun"
    assert name_of(runner) == worker
    assert (await shared.get(rerun)).lost == 0


async def test_an_outage_kills_nobody(shared: Stand) -> None:
    """A reaper's observation counts only while its own reads succeed."""
    gate = asyncio.Event()

    async def wait(task: TaskContext) -> int:
        await gate.wait()
        return task.attempt

    shared.tool(wait)
    runners = [await shared.runner(), await shared.runner()]
    ids = [await shared.create(runner, "wait") for runner in runners]
    for runner in runners:
        shared.link(runner).fail()

    await asyncio.sleep(2 * shared.fast.lease)
    for runner in runners:
        shared.link(runner).heal()
    await asyncio.sleep(0.5 * shared.fast.lease)
    gate.set()

    assert [await shared.value(task_id) for task_id in ids] == [1, 1]


async def test_a_lost_reply_to_a_beat_is_no_loss(shared: Stand) -> None:
    """The same swap again conflicts with its own copy, and is recognised."""
    gate = asyncio.Event()

    async def wait(task: TaskContext) -> int:
        await gate.wait()
        return task.attempt

    shared.tool(wait)
    runner = await shared.runner()
    worker = name_of(runner)
    task_id = await shared.create(runner, "wait")
    for _ in range(3):
        shared.link(runner).lose_replies("@workers")
        await asyncio.sleep(1.5 * shared.fast.beat)
    gate.set()

    assert await shared.value(task_id) == 1
    assert name_of(runner) == worker


async def test_a_beat_that_hangs_is_noticed_in_time(shared: Stand) -> None:
    """The fence falls when the last good beat is too old, not when the hanging one gives up."""
    shared.tool(wait_for_ever)
    config = replace(shared.fast, beat=0.4, fence=0.6, lease=3.0)
    runner = await shared.runner(config=config)
    task_id = await shared.create(runner, "wait_for_ever", policy=shared.rerun)
    fenced: list[float] = []
    worker = runner._worker
    assert worker is not None
    original = runner._fence

    def fence() -> None:
        fenced.append(time.monotonic())
        original()

    heartbeat: Any = worker._heartbeat
    heartbeat._on_fence = fence
    started = time.monotonic()
    shared.link(runner).hang()

    await shared.until(lambda: bool(fenced))
    assert fenced[0] - started < 1.0
    shared.link(runner).restore()
    assert await shared.value(task_id) == 2


async def test_a_claim_looks_at_the_lease_again_after_a_conflict(shared: Stand) -> None:
    """A stopped claim meets the touch of a reaper, reads anew, and must not claim then."""

    async def note(task: TaskContext) -> int:
        shared.log.append(task.attempt)
        return task.attempt

    shared.tool(note)
    task_id = await shared.create(None, "note")
    runner = await shared.runner(config=replace(shared.fast, lease=30.0, fence=20.0))
    link = shared.link(runner)
    worker = runner._worker
    assert worker is not None
    touched: list[str] = []

    async def stop_before_the_swap(operation: str, key: str) -> None:
        if operation == "put_if_version" and task_id in key and not touched:
            touched.append(key)
            # Meanwhile: the lease passed, a reaper touched the task, and this process wakes up.
            worker._lost = True
            found = await shared.backend.get(key)
            await shared.backend.put_if_version(key, found.data, found.version)

    link.before = stop_before_the_swap
    await shared.until(lambda: bool(touched))
    await asyncio.sleep(0.2)

    assert shared.log == []
    assert (await shared.get(task_id)).worker is None
    worker._lost = False
    assert await shared.value(task_id) == 1


async def test_a_claim_whose_reply_is_lost_is_run_once(shared: Stand) -> None:
    """Nothing is settled until it is definite."""

    async def note(task: TaskContext) -> int:
        shared.log.append(task.attempt)
        return task.attempt

    shared.tool(note)
    task_id = await shared.create(None, "note")
    other = await shared.runner(without=("note",))
    runner = await shared.runner()
    shared.link(runner).lose_replies(task_id, times=1)

    assert await shared.value(task_id) == 1
    assert shared.log == [1]
    assert name_of(other) != name_of(runner)


async def test_a_claim_that_nobody_answers_for_long_is_not_forgotten(shared: Stand) -> None:
    """It may have landed, and then nobody else will ever run the task."""
    shared.config = replace(shared.config, settle=0.1)

    async def note(task: TaskContext) -> int:
        shared.log.append(task.attempt)
        return task.attempt

    shared.tool(note)
    task_id = await shared.create(None, "note")
    runner = await shared.runner()
    link = shared.link(runner)
    until = time.monotonic() + 0.6

    async def lose(operation: str, key: str) -> None:
        if operation == "put_if_version" and task_id in key and time.monotonic() < until:
            raise OutcomeUnknownError(key, "no answer")

    link.after = lose

    assert await shared.value(task_id) == 1
    assert shared.log == [1]


# --- the sheet -----------------------------------------------------------------------------------


async def test_a_sheet_whose_swap_went_unanswered_is_not_taken_for_lost(shared: Stand) -> None:
    """One writer: what lies there is its own."""
    shared.config = replace(shared.config, settle=0.05)
    gate = asyncio.Event()

    async def wait(task: TaskContext) -> int:
        await gate.wait()
        return task.attempt

    shared.tool(wait)
    runner = await shared.runner()
    worker = name_of(runner)
    first = await shared.create(runner, "wait")
    link = shared.link(runner)

    async def answer_nothing(operation: str, key: str) -> None:
        if "@runs" in key:
            raise OutcomeUnknownError(key, "no answer")

    link.before = answer_nothing
    with pytest.raises(StoreUnavailableError):
        await shared.create(runner, "wait")
    link.heal()
    link.lose_replies("@runs", times=1)
    await shared.create(runner, "wait")
    link.heal()
    # One that was given up lands late.
    sheet = (await shared.keys("@runs"))[0]
    found = await shared.backend.get(sheet)
    await shared.backend.put_if_version(sheet, b"[]", found.version)

    second = await shared.create(runner, "wait")
    gate.set()

    assert [await shared.value(first), await shared.value(second)] == [1, 1]
    assert name_of(runner) == worker


async def test_a_sheet_that_is_gone_means_taken_over(shared: Stand) -> None:
    """It is a second fence, before the first beat that notices."""

    async def quick(task: TaskContext) -> str:
        return "done"

    shared.tool(quick)
    runner = await shared.runner(config=replace(shared.fast, beat=5.0, fence=10.0, lease=15.0))
    old = name_of(runner)
    await shared.value(await shared.create(runner, "quick"))
    sheet = (await shared.keys("@runs"))[0]
    await shared.backend.delete(sheet)

    with pytest.raises(LeaseLostError):
        await shared.create(runner, "quick")

    await shared.until(lambda: runner._worker is not None and name_of(runner) != old)
    assert await shared.value(await shared.create(runner, "quick")) == "done"


async def test_a_sheet_has_as_many_blocks_as_it_needs(shared: Stand) -> None:
    """Entries come and go in any order, and each is on the sheet once while it counts."""
    lost: list[str] = []
    sheet = RunSheet(shared.store, "w", lambda: lost.append("lost"))

    await asyncio.gather(*(sheet.add("ada", f"t{n}", 1) for n in range(250)))
    assert await names(shared) == sorted(f"t{n}" for n in range(250))
    for number in range(0, 250, 2):
        sheet.drop(f"t{number}")
    sheet.drop("unknown")
    added = sheet.add("ada", "t0", 2)
    sheet.drop("t0")  # before it is written
    await added
    for _ in range(4):
        sheet.trim()
        await sheet.settle()

    assert await names(shared) == sorted(f"t{n}" for n in range(1, 250, 2))
    assert lost == []


async def names(stand: Stand) -> list[str]:
    """Return the ids on the sheet of worker `w`."""
    page = await stand.backend.list_by_prefix("@runs.w:")
    return sorted(e.task_id for record in page.records for e in decode_entries(record.data))


# --- reapers -------------------------------------------------------------------------------------


async def leave_tasks(stand: Stand, count: int) -> tuple[Runner, list[str]]:
    """Make a worker that hangs for ever, with tasks."""
    stand.tool(wait_for_ever)
    runner = await stand.runner()
    ids = [
        await stand.create(runner, "wait_for_ever", policy=policy)
        for policy in (stand.rerun, Policy())
        for _ in range(count)
    ]
    stand.link(runner).hang()
    return runner, ids


async def check_taken(stand: Stand, runner: Runner, ids: list[str]) -> None:
    """Every task is freed or failed once, and no trace of the worker is left."""
    half = len(ids) // 2
    for task_id in ids[:half]:
        record = await stand.get(task_id)
        assert (record.status, record.worker, record.lost) == ("working", None, 1)
    for task_id in ids[half:]:
        assert (await stand.get(task_id)).status == "failed"
    assert not any(name_of(runner) in key for key in await stand.keys("@workers:"))
    page = await stand.backend.list_by_prefix(f"@runs.{name_of(runner)}:")
    assert page.records == []
    ready = await stand.keys("@ready:")
    assert sorted(ready) == sorted(f"@ready:{task_id}~2" for task_id in ids[:half])


class StoppedError(Exception):
    """Stands for the death of a reaper."""


async def test_a_reaper_that_dies_anywhere_is_finished_by_the_next(shared: Stand) -> None:
    """Each step can be done again, so every place to die is tried."""
    config = replace(shared.fast, lease=0.001, beat=0.0002, fence=0.0005)
    died = 0
    for writes in range(40):
        runner, ids = await leave_tasks(shared, 2)
        link = type(shared.link(runner))(shared.backend, shared.folder)
        left = writes

        async def die(operation: str, _key: str) -> None:
            nonlocal left
            if operation in ("put", "put_if_version", "delete"):
                left -= 1
                if left < 0:
                    raise StoppedError

        link.before = die
        reaper = Reaper(TaskStore(link, config=shared.config), config)
        stopped = False
        try:
            for _ in range(3):
                await reaper.look(())
                await asyncio.sleep(0.002)
        except StoppedError:
            stopped = True
        died += stopped

        link.before = None
        second = Reaper(TaskStore(link, config=shared.config), config)
        for _ in range(3):
            await second.look(())
            await asyncio.sleep(0.002)
        await check_taken(shared, runner, ids)
        for task_id in ids:
            await shared.store.cancel(shared.owner, task_id)
        for key in await shared.keys("@ready:"):
            await shared.backend.delete(key)
        if not stopped:
            break
    assert died >= 9


async def test_two_reapers_at_once_are_harmless(shared: Stand) -> None:
    """Whoever is second finds nothing to do, or does the same."""
    config = replace(shared.fast, lease=0.001, beat=0.0002, fence=0.0005)
    runner, ids = await leave_tasks(shared, 50)
    reapers = [
        Reaper(
            TaskStore(
                type(shared.link(runner))(shared.backend, shared.folder), config=shared.config
            ),
            config,
        )
        for _ in range(3)
    ]
    for _ in range(3):
        await asyncio.gather(*(reaper.look(()) for reaper in reapers))
        await asyncio.sleep(0.002)

    await check_taken(shared, runner, ids)


async def test_a_task_that_nobody_has_is_touched(shared: Stand) -> None:
    """A stopped claim that was read before the takeover then conflicts."""
    task_id = await shared.create(None, "wait_for_ever")
    before = await shared.store.read(shared.owner, task_id)
    sheet = RunSheet(shared.store, "dead", lambda: None)
    await sheet.add(shared.owner, task_id, 1)
    await shared.backend.put("@workers:dead", b'{"state":"taken"}')

    await Reaper(shared.store, shared.fast).look(())

    after = await shared.store.read(shared.owner, task_id)
    assert after.version == before.version + 1
    assert replace_writes(after.record) == replace_writes(before.record)


def replace_writes(record: Any) -> Any:
    """Return a record without the ids of its writes."""
    return type(record)(
        **{name: getattr(record, name) for name in record.__struct_fields__} | {"writes": ()}
    )


async def test_one_poisoned_task_does_not_keep_the_others(
    shared: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    """A damaged record hurts only itself."""
    caplog.set_level(logging.CRITICAL)
    first, ids = await leave_tasks(shared, 3)
    await shared.backend.put(f"{shared.owner}:{ids[1]}", b"{damaged")
    await shared.backend.put("@workers:odd", b"damaged")
    await shared.backend.put("@ready:odd", b"\xff")
    await shared.backend.put(f"@ready:{'0' * 36}~x", b"ada")
    await shared.runner()

    assert await shared.value(ids[0]) == 2
    assert await shared.value(ids[2]) == 2
    assert (await shared.ended(ids[3])).status == "failed"
    assert name_of(first)


async def test_a_task_that_was_never_admitted_is_not_run(shared: Stand) -> None:
    """Its create died between record and roster, and nobody was told its id."""
    first, ids = await leave_tasks(shared, 1)
    roster = (await shared.keys("@rosters:"))[0]
    await shared.backend.put(roster, b"[]")
    await shared.runner()

    record = await shared.ended(ids[0])

    assert shared.error_data(record)["reason"] == "never_started"
    assert name_of(first)


async def test_lost_attempts_are_counted_and_limited(shared: Stand) -> None:
    """A tool that kills its worker must not kill all of them for ever."""

    async def poison(task: TaskContext) -> None:
        shared.log.append(task.attempt)
        await asyncio.Event().wait()

    shared.tool(poison)
    runner = await shared.runner()
    task_id = await shared.create(
        runner, "poison", policy=Policy(on_worker_loss="rerun", max_attempts=2)
    )
    for attempt in (1, 2):
        await shared.until(lambda n=attempt: shared.log[-1:] == [n])
        shared.link(runner).hang()
        runner = await shared.runner()

    record = await shared.ended(task_id)

    data = shared.error_data(record)
    assert (data["reason"], data["lost"], data["mayHaveRun"]) == ("attempts_exhausted", 2, True)
    assert shared.log == [1, 2]


# --- the database away ---------------------------------------------------------------------------


async def test_the_last_write_is_made_again_until_the_database_is_back(shared: Stand) -> None:
    """The work is done; an outage must not cost it."""
    gate = asyncio.Event()

    async def wait(task: TaskContext) -> str:
        await gate.wait()
        return "done"

    shared.tool(wait)
    runner = await shared.runner()
    task_id = await shared.create(runner, "wait")
    shared.link(runner).fail()
    gate.set()
    await asyncio.sleep(0.3)
    assert (await shared.get(task_id)).status == "working"

    shared.link(runner).heal()

    assert await shared.value(task_id) == "done"


@pytest.mark.parametrize("error", [StorageUnavailableError("away"), OSError("odd"), TimeoutError()])
async def test_steps_and_questions_wait_for_the_database(shared: Stand, error: Exception) -> None:
    """A blip between two steps is no failure of the tool, and no step runs twice for it."""

    def note(number: int) -> int:
        shared.log.append(number)
        return number

    async def journey(task: TaskContext) -> list[Any]:
        total = await task.step("one", note, 1)
        await task.set_variable("a", total)
        answer = await task.elicit("who", "?", Name)
        total += await task.step("two", note, 2)
        return [answer.action, total]

    shared.tool(journey)
    runner = await shared.runner()
    link = shared.link(runner)
    failures = 0

    async def fail_sometimes(operation: str, key: str) -> None:
        nonlocal failures
        if f"{shared.owner}:" in key and "@" not in key and operation.startswith("put"):
            failures += 1
            if failures % 3:
                raise error

    task_id = await shared.create(runner, "journey", policy=shared.resumable)
    link.before = fail_sometimes
    await shared.reached(task_id, lambda r: r.status == "input_required" and r.worker is None)
    await shared.store.answer(shared.owner, task_id, {"who": {"action": "decline"}})

    assert await shared.value(task_id) == ["decline", 3]
    assert shared.log == [1, 2]


async def test_replies_lost_at_every_write_of_a_task_cost_nothing(shared: Stand) -> None:
    """Each write recognises itself, so nothing happens twice and nothing is missing."""

    def note(number: int) -> int:
        shared.log.append(number)
        return number

    async def journey(task: TaskContext) -> list[Any]:
        total = await task.step("one", note, 1)
        await task.set_variables({"a": total})
        answer = await task.elicit("who", "?", Name)
        return [answer.action, total + await task.step("two", note, 2)]

    shared.tool(journey)
    runner = await shared.runner()
    link = shared.link(runner)
    swaps = 0

    async def lose(operation: str, key: str) -> None:
        nonlocal swaps
        if operation == "put_if_version" and "@workers" not in key:
            swaps += 1
            if swaps % 2:
                raise OutcomeUnknownError(key, "the reply was lost")

    link.after = lose
    task_id = await shared.create(runner, "journey", policy=shared.resumable)
    await shared.reached(task_id, lambda r: r.status == "input_required" and r.worker is None)
    await shared.store.answer(shared.owner, task_id, {"who": {"action": "decline"}})

    assert await shared.value(task_id) == ["decline", 3]
    assert shared.log == [1, 2]
    assert (await shared.get(task_id)).attempt == 2


async def test_a_cancel_found_behind_an_own_lost_write_is_heard(shared: Stand) -> None:
    """The record that shows one's own write may show a flag as well."""

    async def wait(task: TaskContext) -> None:
        await task.set_variable("a", 1)
        await asyncio.Event().wait()

    shared.tool(wait)
    runner = await shared.runner(config=replace(shared.fast, look=30.0))
    link = shared.link(runner)
    gate = asyncio.Event()

    async def held(task: TaskContext) -> None:
        await gate.wait()
        await wait(task)

    shared.tool(held)
    task_id = await shared.create(runner, "held")
    done: list[str] = []

    async def lose_and_cancel(operation: str, key: str) -> None:
        if operation == "put_if_version" and task_id in key and not done:
            done.append(key)
            await shared.store.cancel(shared.owner, task_id)
            raise OutcomeUnknownError(key, "the reply was lost")

    link.after = lose_and_cancel
    gate.set()

    assert (await shared.ended(task_id)).status == "cancelled"


async def test_the_looking_goes_on_after_any_error(shared: Stand) -> None:
    """A worker whose loop stopped would take nothing over, and hear of no cancel."""

    async def quick(task: TaskContext) -> str:
        return "done"

    shared.tool(quick)
    runner = await shared.runner()
    link = shared.link(runner)
    failures: list[str] = []

    async def fail_listings(operation: str, key: str) -> None:
        if operation == "list" and len(failures) < 6:
            failures.append(key)
            raise RuntimeError

    link.before = fail_listings
    await shared.until(lambda: len(failures) == 6)
    task_id = await shared.create(None, "quick")

    assert await shared.value(task_id) == "done"

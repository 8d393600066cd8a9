"""The life of a task that nothing disturbs: created, run, ended, read."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import threading
import time
import weakref
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any

import pytest

from mcp_tasks.domain.record import Policy
from mcp_tasks.errors import (
    InvalidValueError,
    LeaseLostError,
    QuotaExceededError,
    StoreUnavailableError,
    TaskError,
)
from mcp_tasks.runner import Completed, Failed
from mcp_tasks.store import StoreConfig


if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from mcp_tasks.context import TaskContext
    from mcp_tasks.runner import Outcome, TaskRun

    from .conftest import Stand


LETTER: contextvars.ContextVar[str] = contextvars.ContextVar("LETTER", default="none")


async def test_a_task_is_durable_before_its_id_is_returned(stand: Stand) -> None:
    """Whoever has the id can read the task, from any process."""
    gate = asyncio.Event()

    async def wait(task: TaskContext) -> None:
        await gate.wait()

    stand.tool(wait)
    runner = await stand.runner()

    task_id = await stand.create(runner, "wait")

    record = await stand.get(task_id)
    assert (record.status, record.attempt) == ("working", 1)
    gate.set()
    await stand.value(task_id)


async def test_record_sheet_and_roster_are_all_written_before_the_answer(shared: Stand) -> None:
    """A kill right after the answer leaves a task that others find."""

    async def wait(task: TaskContext) -> None:
        await asyncio.Event().wait()

    shared.tool(wait)
    runner = await shared.runner()
    link = shared.link(runner)
    held = asyncio.Event()

    async def hold(_operation: str, key: str) -> None:
        if "@runs" in key:
            await held.wait()

    link.before = hold
    creating = asyncio.create_task(shared.create(runner, "wait"))
    done, _ = await asyncio.wait([creating], timeout=0.1)

    assert not done
    held.set()
    task_id = await creating
    sheets = await shared.keys("@runs")
    assert len(sheets) == 1
    assert task_id.encode() in (await shared.backend.get(sheets[0])).data


async def test_two_writes_of_the_record_bring_a_short_task_to_its_end(shared: Stand) -> None:
    """From call to completed there is one round trip to create and one to finish."""

    async def add(task: TaskContext, a: int, b: int) -> int:
        return a + b

    shared.tool(add)
    runner = await shared.runner()
    link = shared.link(runner)
    link.calls.clear()

    task_id = await shared.create(runner, "add", a=1, b=2)
    assert await shared.value(task_id) == 3

    of_record = [operation for operation, key in link.calls if task_id in key]
    assert of_record == ["put_if_version", "put_if_version"]


async def test_what_a_body_sees_of_itself_is_exact(stand: Stand) -> None:
    """Attempt, key and arguments come from the record."""

    async def look(task: TaskContext, word: str) -> list[Any]:
        return [task.task_id, task.attempt, task.idempotency_key, task.durable, word]

    stand.tool(look)
    runner = await stand.runner()

    task_id = await stand.create(runner, "look", word="hello")

    assert await stand.value(task_id) == [task_id, 1, task_id, True, "hello"]


async def test_a_body_runs_in_empty_surroundings(stand: Stand) -> None:
    """What the caller's request carries must not leak into a run that others repeat."""

    async def letter(task: TaskContext) -> str:
        return LETTER.get()

    stand.tool(letter)
    runner = await stand.runner()
    token = LETTER.set("secret")
    try:
        task_id = await stand.create(runner, "letter")
        assert await stand.value(task_id) == "none"
    finally:
        LETTER.reset(token)


async def test_around_run_is_entered_around_every_body(stand: Stand) -> None:
    """Users set up tracing and sessions there, and it knows the task."""

    @asynccontextmanager
    async def around(task: TaskContext) -> AsyncGenerator[None]:
        stand.log.append(("enter", task.task_id))
        LETTER.set("from around")
        try:
            yield
        finally:
            stand.log.append(("leave", task.task_id))

    async def letter(task: TaskContext) -> str:
        return LETTER.get()

    stand.tool(letter)
    runner = await stand.runner(around=around)

    task_id = await stand.create(runner, "letter")

    assert await stand.value(task_id) == "from around"
    assert stand.log == [("enter", task_id), ("leave", task_id)]


async def test_around_run_that_swallows_an_error_is_no_result(stand: Stand) -> None:
    """A task never ends without an outcome."""

    @asynccontextmanager
    async def around(task: TaskContext) -> AsyncGenerator[None]:
        try:
            yield
        except ValueError:
            stand.log.append("swallowed")

    async def broken(task: TaskContext) -> None:
        raise ValueError

    stand.tool(broken)
    runner = await stand.runner(around=around)

    record = await stand.ended(await stand.create(runner, "broken"))

    assert (record.status, stand.log) == ("failed", ["swallowed"])


class Odd(BaseException):
    """Not an `Exception`."""


@pytest.mark.parametrize("error", [ValueError("secret"), Odd("secret"), SystemExit(3)])
async def test_whatever_a_body_raises_ends_only_its_task(
    stand: Stand, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """A tool that calls `sys.exit` must not end the server, and its text may be a secret."""

    async def broken(task: TaskContext) -> None:
        raise error

    async def fine(task: TaskContext) -> str:
        return "fine"

    stand.tool(broken)
    stand.tool(fine)
    runner = await stand.runner()

    record = await stand.ended(await stand.create(runner, "broken"))

    assert record.status == "failed"
    assert record.error is not None
    assert (record.error.code, "secret" in record.error.message) == (-32603, False)
    assert "failed" in caplog.text
    assert await stand.value(await stand.create(runner, "fine")) == "fine"


async def test_a_body_that_cancels_itself_fails(stand: Stand) -> None:
    """Cancellation that nobody asked for is an error of the tool, not a task without an end."""

    async def lone(task: TaskContext) -> None:
        current = asyncio.current_task()
        assert current is not None
        current.cancel()
        await asyncio.sleep(10)

    async def inherited(task: TaskContext) -> None:
        raise asyncio.CancelledError

    stand.tool(lone)
    stand.tool(inherited)
    runner = await stand.runner()

    for name in ("lone", "inherited"):
        record = await stand.ended(await stand.create(runner, name))
        assert record.error is not None
        assert (record.status, record.error.message) == ("failed", "the tool cancelled itself")


async def test_an_error_of_the_request_becomes_the_tasks_error(stand: Stand) -> None:
    """Code, message and data of a JSON-RPC error stay as they are."""

    async def refuse(run: TaskRun) -> Outcome:
        return Failed(-32050, "not today", {"try": "tomorrow"})

    stand.body("refuse", refuse)
    runner = await stand.runner()

    record = await stand.ended(await stand.create(runner, "refuse"))

    assert record.error is not None
    assert (record.error.code, record.error.message) == (-32050, "not today")
    assert stand.error_data(record) == {"try": "tomorrow"}


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        ({"value": float("nan")}, "NaN"),
        ({"value": object()}, "object"),
        ({"value": "\ud800"}, "surrogate"),
        ({1: 2}, "key"),
        ({"value": 2**80}, "64 bits"),
        ({"value": "x" * 5_000_000}, "bytes of JSON"),
    ],
    ids=["nan", "object", "surrogate", "key", "integer", "size"],
)
async def test_a_result_that_cannot_be_stored_is_an_error_that_says_so(
    stand: Stand, result: Any, problem: str
) -> None:
    """The task is never left working."""

    async def bad(run: TaskRun) -> Outcome:
        return Completed(result)

    stand.body("bad", bad)
    runner = await stand.runner()

    record = await stand.ended(await stand.create(runner, "bad"))

    assert record.status == "failed"
    assert record.error is not None
    assert "the tool's result" in record.error.message
    assert problem in record.error.message


async def test_large_arguments_and_results_go_through(stand: Stand) -> None:
    """4 MiB fit on every backend, beside the record."""

    async def echo(task: TaskContext, text: str) -> str:
        return text

    stand.tool(echo)
    runner = await stand.runner()
    text = "x" * 4_000_000

    task_id = await stand.create(runner, "echo", text=text)

    assert await stand.value(task_id) == text


async def test_large_arguments_are_written_once_and_go_with_the_end(shared: Stand) -> None:
    """However often the task writes meanwhile; and a worker that just created it reads none."""

    async def walk(task: TaskContext, text: str) -> int:
        for number in range(3):
            await task.step(f"step-{number}", lambda: 1)
        return len(text)

    shared.tool(walk)
    runner = await shared.runner()
    link = shared.link(runner)
    link.calls.clear()

    text = "x" * 1_000_000
    task_id = await shared.create(runner, "walk", policy=shared.resumable, text=text)
    assert await shared.value(task_id) == 1_000_000

    pieces = [operation for operation, key in link.calls if "@blobs" in key]
    assert pieces[:4] == ["put_if_version"] * 4
    assert set(pieces[4:]) <= {"delete"}
    async with asyncio.timeout(5):
        while await shared.keys("@blobs.ada:"):  # noqa: ASYNC110 - deleted behind the end
            await asyncio.sleep(0.01)


async def test_a_failing_error_body_is_dropped_not_fatal(stand: Stand) -> None:
    """Data that JSON does not have must not keep a task from ending."""

    async def refuse(run: TaskRun) -> Outcome:
        return Failed(-32050, "no \ud800", {"bad": float("inf")})

    stand.body("refuse", refuse)
    runner = await stand.runner()

    record = await stand.ended(await stand.create(runner, "refuse"))

    assert record.status == "failed"
    assert "dropped" in stand.error_data(record)


async def test_progress_is_written_at_most_once_a_period(shared: Stand) -> None:
    """A tool in a tight loop must not write in one."""
    gate = asyncio.Event()

    async def count(task: TaskContext) -> None:
        for number in range(1000):
            await task.progress(number, 1000)
        stand.log.append("counted")
        await gate.wait()

    stand = shared
    stand.tool(count)
    runner = await stand.runner()
    link = stand.link(runner)
    task_id = await stand.create(runner, "count")
    await stand.until(lambda: bool(stand.log))
    link.calls.clear()

    record = await stand.reached(task_id, lambda record: record.message == "999 of 1000")

    assert record.progress is not None
    writes = [call for call in link.calls if call[0] == "put_if_version" and task_id in call[1]]
    assert len(writes) == 1
    gate.set()
    await stand.ended(task_id)


async def test_progress_rides_on_other_writes(shared: Stand) -> None:
    """Where the record is written anyway, progress costs nothing."""
    gate = asyncio.Event()

    async def ride(task: TaskContext) -> None:
        await task.progress(1)
        await task.progress(2)
        await task.set_variable("a", 1)
        shared.log.append("set")
        await gate.wait()

    shared.tool(ride)
    runner = await shared.runner()
    task_id = await shared.create(runner, "ride")
    await shared.until(lambda: bool(shared.log))

    record = await shared.get(task_id)

    assert record.progress is not None
    assert record.progress.current == 2
    gate.set()
    await shared.ended(task_id)


async def test_progress_that_is_no_number_is_refused(stand: Stand) -> None:
    """NaN must not get into a record."""

    async def odd(task: TaskContext) -> str:
        with pytest.raises(InvalidValueError):
            await task.progress(float("nan"))
        return "refused"

    stand.tool(odd)
    runner = await stand.runner()

    assert await stand.value(await stand.create(runner, "odd")) == "refused"


class Stage(Enum):
    """Where a tool stands."""

    FIRST = "first"


@dataclass
class Place:
    """Where a tool is."""

    file: str
    line: int


@pytest.mark.parametrize(
    ("saved", "kind", "read"),
    [
        ({"file": "a", "line": 3}, Place, Place("a", 3)),
        ("2026-01-01T00:00:00Z", datetime, datetime(2026, 1, 1, tzinfo=UTC)),
        ("first", Stage, Stage.FIRST),
        ([1, 2], tuple[int, int], (1, 2)),
        ("3", int, None),
        (None, int, None),
    ],
)
async def test_a_variable_is_read_as_what_it_was(
    alone: Stand, saved: Any, kind: Any, read: Any
) -> None:
    """Whatever has a form as JSON; a wrong type gives nothing."""

    async def keep(task: TaskContext) -> bool:
        await task.set_variable("v", saved)
        return await task.get_variable("v", kind) == read

    alone.tool(keep)
    runner = await alone.runner()

    assert await alone.value(await alone.create(runner, "keep"))


async def test_variables_are_saved_and_merged(stand: Stand) -> None:
    """They are the memory that outlives an attempt, and other programs see them."""

    async def remember(task: TaskContext) -> Any:
        await task.set_variables({"a": 1, "b": {"c": 2}})
        await task.set_variable("d", [1])
        await task.delete_variable("a")
        assert await task.get_variable("d", list[int]) == [1]
        assert await task.get_variable("d", str) is None
        return await task.variables()

    stand.tool(remember)
    runner = await stand.runner()

    task_id = await stand.create(runner, "remember")

    assert await stand.value(task_id) == {"b": {"c": 2}, "d": [1]}
    assert await stand.store.get_variables(stand.owner, task_id) == {"b": {"c": 2}, "d": [1]}


async def test_writes_that_wait_together_become_one(shared: Stand) -> None:
    """Branches of a body do not queue for one round trip each."""

    async def many(task: TaskContext) -> Any:
        await asyncio.gather(*(task.set_variable(f"v{n}", n) for n in range(20)))
        return len(await task.variables())

    shared.tool(many)
    runner = await shared.runner()
    link = shared.link(runner)

    task_id = await shared.create(runner, "many")

    assert await shared.value(task_id) == 20
    writes = [call for call in link.calls if call[0] == "put_if_version" and task_id in call[1]]
    assert len(writes) <= 4


async def test_a_refused_write_among_others_stops_only_itself(stand: Stand) -> None:
    """Writes that share a swap keep their own outcomes."""

    async def many(task: TaskContext) -> Any:
        done = await asyncio.gather(
            task.set_variable("a", 1),
            task.set_variable("b", float("nan")),
            task.set_variable("c", 3),
            return_exceptions=True,
        )
        return [type(error).__name__ for error in done], await task.variables()

    stand.tool(many)
    runner = await stand.runner()

    names, variables = await stand.value(await stand.create(runner, "many"))

    assert names == ["NoneType", "InvalidValueError", "NoneType"]
    assert variables == {"a": 1, "c": 3}


async def test_a_plain_function_runs_in_a_thread_of_ours(stand: Stand) -> None:
    """A blocking tool must not block the loop."""

    async def block(task: TaskContext) -> bool:
        return await task.run_sync(lambda: threading.current_thread() is threading.main_thread())

    stand.tool(block)
    runner = await stand.runner()

    assert await stand.value(await stand.create(runner, "block")) is False


async def test_nothing_is_written_after_the_end(stand: Stand) -> None:
    """A branch that a body forgot cannot change a task that has ended."""
    gate = asyncio.Event()
    errors: list[TaskError] = []
    branches: list[asyncio.Task[None]] = []

    async def forgetful(task: TaskContext) -> None:
        async def later() -> None:
            await gate.wait()
            ask = task.request("roots/list", {})
            for act in (task.set_variable("a", 1), task.progress(1), ask):
                try:
                    await act
                except TaskError as error:
                    errors.append(error)

        branches.append(asyncio.create_task(later()))

    stand.tool(forgetful)
    runner = await stand.runner()
    task_id = await stand.create(runner, "forgetful")
    before = await stand.ended(task_id)
    gate.set()
    await branches[0]

    assert [type(error) for error in errors] == [LeaseLostError] * 3
    assert await stand.get(task_id) == before


async def test_get_waits_a_moment_for_a_short_task(stand: Stand) -> None:
    """A short task needs one poll, not a poll interval."""

    async def short(task: TaskContext) -> None:
        await asyncio.sleep(0.01)

    stand.tool(short)
    runner = await stand.runner()

    task_id = await stand.create(runner, "short")

    assert (await runner.get(stand.owner, task_id)).status == "completed"


async def test_get_of_a_long_task_does_not_wait_long(stand: Stand) -> None:
    """The hold is bounded."""
    gate = asyncio.Event()

    async def wait(task: TaskContext) -> None:
        await gate.wait()

    stand.tool(wait)
    runner = await stand.runner()
    task_id = await stand.create(runner, "wait")
    started = time.monotonic()

    assert (await runner.get(stand.owner, task_id)).status == "working"
    assert time.monotonic() - started < 1
    gate.set()


async def test_a_running_task_is_extended_at_half_of_its_life(stand: Stand) -> None:
    """A tool may take longer than anybody guessed."""
    gate = asyncio.Event()

    async def wait(task: TaskContext) -> None:
        await gate.wait()

    stand.tool(wait)
    runner = await stand.runner()
    task_id = await stand.create(runner, "wait", ttl=timedelta(seconds=0.6))

    record = await stand.reached(task_id, lambda record: record.ttl > timedelta(seconds=1.2))

    assert record.status == "working"
    gate.set()
    await stand.value(task_id)


async def test_a_task_beyond_its_maximum_life_is_stopped(shared: Stand) -> None:
    """What nobody can read any more need not run on."""
    shared.config = StoreConfig(
        default_ttl=timedelta(seconds=0.3), max_ttl=timedelta(seconds=0.5), max_active=10
    )
    stopped = asyncio.Event()

    async def wait(task: TaskContext) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    shared.tool(wait)
    runner = await shared.runner()

    record = await shared.ended(await shared.create(runner, "wait"))

    assert record.status == "failed"
    assert shared.error_data(record)["reason"] == "expired"
    async with asyncio.timeout(5):
        await stopped.wait()


async def test_a_refused_create_leaves_no_slot_and_no_entry(shared: Stand) -> None:
    """Refusals are cheap and leave nothing behind."""
    shared.config = StoreConfig(max_active=1)
    gate = asyncio.Event()

    async def wait(task: TaskContext) -> None:
        await gate.wait()

    shared.tool(wait)
    runner = await shared.runner()
    await shared.create(runner, "wait")
    shared.store.quota  # noqa: B018 - the runner's own store refuses
    for _ in range(3):
        runner.store.quota._rosters.clear()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(QuotaExceededError):
            await shared.create(runner, "wait")
    gate.set()

    sheet = (await shared.keys("@runs"))[0]
    deadline = time.monotonic() + 5
    while (await shared.backend.get(sheet)).data != b"[]":
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_a_create_that_fails_starts_nothing(shared: Stand) -> None:
    """No id, no run."""

    async def note(task: TaskContext) -> None:
        shared.log.append(task.task_id)

    shared.tool(note)
    runner = await shared.runner()
    shared.link(runner).fail()

    with pytest.raises(StoreUnavailableError):
        await shared.create(runner, "note")

    shared.link(runner).heal()
    task_id = await shared.create(runner, "note")
    await shared.value(task_id)
    assert shared.log == [task_id]


async def test_a_create_whose_reply_is_lost_is_settled(shared: Stand) -> None:
    """The same swap again finds its own record, and the body runs once."""

    async def note(task: TaskContext) -> None:
        shared.log.append(task.task_id)

    shared.tool(note)
    runner = await shared.runner()
    shared.link(runner).lose_replies(f"{shared.owner}:")

    task_id = await shared.create(runner, "note")

    await shared.value(task_id)
    assert shared.log == [task_id]


async def test_an_external_task_is_left_to_others(stand: Stand) -> None:
    """Nobody here runs it, and whoever has the store finishes it."""

    async def note(task: TaskContext) -> None:
        stand.log.append(task.task_id)

    stand.tool(note)
    runner = await stand.runner()

    task_id = await stand.create(runner, "note", policy=Policy(external=True))
    runner.submit(stand.owner, task_id)
    assert await runner.run_task(stand.owner, task_id) is False
    await stand.store.complete_with_result(stand.owner, task_id, {"value": "elsewhere"})

    assert await stand.value(task_id) == "elsewhere"
    assert stand.log == []


async def test_a_runner_that_does_not_work_leaves_tasks_to_one_that_does(shared: Stand) -> None:
    """Serving and running are apart."""

    async def note(task: TaskContext) -> str:
        return "done"

    shared.tool(note)
    front = await shared.runner(worker=False)
    task_id = await shared.create(front, "note")
    assert (await shared.get(task_id)).attempt == 0

    await shared.runner()

    assert await shared.value(task_id) == "done"


async def test_a_runner_can_be_started_again_on_another_loop(shared: Stand) -> None:
    """Servers in tests come and go on loops of their own."""

    async def note(task: TaskContext) -> str:
        return "done"

    shared.tool(note)
    runner = await shared.runner()
    await shared.value(await shared.create(runner, "note"))
    await runner.stop()

    async def again() -> str:
        shared.link(runner).heal()
        await runner.start()
        try:
            task_id = await shared.create(runner, "note")
            return await shared.value(task_id)
        finally:
            await runner.stop()

    assert await asyncio.to_thread(asyncio.run, again()) == "done"
    await runner.start()
    assert await shared.value(await shared.create(runner, "note")) == "done"


async def test_many_tasks_leave_nothing_behind(
    shared: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    """A server lives long: no object, no row and no warning may stay per task."""
    asyncio.get_running_loop().set_debug(True)
    caplog.set_level(logging.WARNING)
    seen: list[weakref.ref[TaskContext]] = []

    async def busy(task: TaskContext) -> None:
        seen.append(weakref.ref(task))
        await task.progress(1)
        await task.step("one", int)
        await task.set_variable("a", 1)

    shared.tool(busy)
    runner = await shared.runner()
    ids = [await shared.create(runner, "busy", policy=shared.resumable) for _ in range(200)]
    for task_id in ids:
        await shared.value(task_id)
    asyncio.get_running_loop().set_debug(False)
    await asyncio.sleep(0.2)
    gc.collect()

    assert len(seen) == 200
    assert [ref for ref in seen if ref() is not None] == []
    assert await shared.keys("@ready:") == []
    assert not [entry for entry in caplog.records if "never" in entry.getMessage()]

"""`task.step`: done once in the life of a task, and the same value on every run."""

from __future__ import annotations

import asyncio
import functools
import sqlite3
from collections.abc import Awaitable  # noqa: TC003 - read when the step runs
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from mcp_tasks.context import Retry, SyncTaskContext, TaskContext
from mcp_tasks.errors import InvalidValueError, JournalMismatchError, NotDurableError, TaskError
from mcp_tasks.runner import InlineOperations
from mcp_tasks.store import StoreConfig


if TYPE_CHECKING:
    from mcp_tasks.runner import Runner

    from .conftest import Stand


class Part(BaseModel):
    """A value with types that JSON does not have."""

    at: datetime
    size: int


@dataclass
class Pair:
    """A dataclass."""

    left: tuple[int, ...]
    right: set[str]


NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


async def part(size: int) -> Part:
    """Return a model."""
    return Part(at=NOON, size=size)


def pair() -> Pair:
    """Return a dataclass, from a thread."""
    return Pair((1, 2), {"a"})


def wrong() -> int:
    """Return what the annotation does not say."""
    return "text"  # type: ignore[return-value]


def connect() -> sqlite3.Connection:
    """Return what has no form as JSON."""
    return sqlite3.connect(":memory:")


def not_a_number() -> float:
    """Return a float that JSON does not have."""
    return float("nan")


def later() -> Awaitable[Part]:
    """Return an awaitable of a model."""
    return part(3)


class Counter:
    """Has a method, and is called."""

    def __init__(self) -> None:
        self.count = 0

    def up(self) -> int:
        """Count."""
        self.count += 1
        return self.count

    async def __call__(self, by: int) -> int:
        """Count by more."""
        self.count += by
        return self.count

    __hash__ = None  # type: ignore[assignment]  # cannot be a key of a cache


async def hand_over(stand: Stand, runner: Runner, **more: Any) -> Runner:
    """Stop a runner and start another one, which goes on with its tasks."""
    await stand.stop(runner)
    return await stand.runner(**more)


async def test_a_value_goes_through_its_annotation_on_the_first_run_too(stand: Stand) -> None:
    """Otherwise a tool would work until its first crash."""

    async def values(task: TaskContext) -> list[Any]:
        counter = Counter()
        made = await task.step("part", part, 1)
        two = await task.step("pair", pair)
        return [
            [type(made).__name__, made.at == NOON, type(two).__name__, list(two.left)],
            await task.step("partial", functools.partial(counter.up)),
            await task.step("call", counter, 5),
            (await task.step("later", later)).size,
            await task.step("lambda", lambda: [1, (2, 3)]),
        ]

    stand.tool(values)
    runner = await stand.runner()

    for policy in (None, stand.resumable):
        task_id = await stand.create(runner, "values", policy=policy)
        assert await stand.value(task_id) == [
            ["Part", True, "Pair", [1, 2]],
            1,
            6,
            3,
            [1, [2, 3]],
        ]


@pytest.mark.parametrize("fn", [wrong, connect, not_a_number, object])
async def test_a_value_without_a_form_as_json_is_refused_with_the_steps_name(
    stand: Stand, fn: Any
) -> None:
    """The author learns which step it was."""

    async def odd(task: TaskContext) -> str:
        with pytest.raises(InvalidValueError, match="'the-step'"):
            await task.step("the-step", fn)
        return "refused"

    stand.tool(odd)
    runner = await stand.runner()

    for policy in (None, stand.resumable):
        assert await stand.value(await stand.create(runner, "odd", policy=policy)) == "refused"


async def test_a_recorded_step_does_not_run_again(stand: Stand) -> None:
    """The whole point of a resumable task."""
    gate = asyncio.Event()

    async def note(word: str) -> str:
        stand.log.append(word)
        return word

    async def journey(task: TaskContext) -> list[Any]:
        words = [await task.step("one", note, "one"), await task.step("two", note, "two")]
        if task.attempt == 1:
            gate.set()
            await asyncio.Event().wait()
        return [*words, await task.step("three", note, "three"), task.attempt]

    stand.tool(journey)
    runner = await stand.runner()
    task_id = await stand.create(runner, "journey", policy=stand.resumable)
    await gate.wait()

    await hand_over(stand, runner)

    assert await stand.value(task_id) == ["one", "two", "three", 2]
    assert stand.log == ["one", "two", "three"]


async def test_a_long_journal_is_found_again(stand: Stand) -> None:
    """Sealed parts of it are read like the rest."""
    gate = asyncio.Event()

    async def journey(task: TaskContext) -> int:
        total = 0
        for number in range(120):
            text = await task.step(f"s{number}", lambda n=number: note(n))
            total += len(text)
        if task.attempt == 1:
            gate.set()
            await asyncio.Event().wait()
        return total

    def note(number: int) -> str:
        stand.log.append(number)
        return "x" * 500

    stand.tool(journey)
    runner = await stand.runner()
    task_id = await stand.create(runner, "journey", policy=stand.resumable)
    await gate.wait()
    assert (await stand.get(task_id)).journal.sealed

    await hand_over(stand, runner)

    assert await stand.value(task_id) == 60_000
    assert sorted(stand.log) == list(range(120))


async def test_a_step_that_names_other_work_fails_the_task(stand: Stand) -> None:
    """A journal that does not fit the code must not be guessed at, whatever the tool catches."""
    gate = asyncio.Event()

    def first() -> int:
        return 1

    def second() -> int:
        return 2

    async def changed(task: TaskContext) -> str:
        try:
            await task.step("the-step", first if task.attempt == 1 else second)
        except JournalMismatchError:
            return "swallowed"
        gate.set()
        await asyncio.Event().wait()
        return "never"

    stand.tool(changed)
    runner = await stand.runner()
    task_id = await stand.create(runner, "changed", policy=stand.resumable)
    await gate.wait()
    await hand_over(stand, runner)

    record = await stand.ended(task_id)

    assert record.status == "failed"
    assert record.error is not None
    assert "step 'the-step' was recorded as" in record.error.message
    assert "first" in record.error.message


async def test_a_key_that_is_used_twice_fails_the_task(stand: Stand) -> None:
    """Two steps under one key would return each other's value after a crash."""

    async def twice(task: TaskContext) -> None:
        await task.step("a", int)
        await task.step("a", int)

    stand.tool(twice)
    runner = await stand.runner()

    record = await stand.ended(await stand.create(runner, "twice", policy=stand.resumable))

    assert record.error is not None
    assert record.error.message.startswith("step 'a' runs twice in one run of the tool, both times")


async def test_a_step_that_failed_may_be_tried_again_by_the_tool(stand: Stand) -> None:
    """Nothing was recorded, so its key is still free."""

    def sometimes() -> int:
        stand.log.append(1)
        if len(stand.log) < 3:
            raise ValueError
        return 7

    async def stubborn(task: TaskContext) -> int:
        while True:
            try:
                return await task.step("s", sometimes)
            except ValueError:
                pass

    stand.tool(stubborn)
    runner = await stand.runner()

    assert await stand.value(await stand.create(runner, "stubborn", policy=stand.resumable)) == 7


async def test_retry_tries_again_and_gives_up(stand: Stand) -> None:
    """Only for exceptions that are named, and only so often."""

    async def fails(kind: type[Exception]) -> int:
        stand.log.append(kind.__name__)
        raise kind("again")

    async def persistent(task: TaskContext) -> str:
        retry = Retry(attempts=3, delay=0.001, on=(OSError,))
        with pytest.raises(OSError, match="again"):
            await task.step("a", fails, OSError, retry=retry)
        with pytest.raises(ValueError, match="again"):
            await task.step("b", fails, ValueError, retry=retry)
        with pytest.raises(InvalidValueError):
            await task.step("c", not_a_number, retry=Retry(delay=0))
        many = Retry(attempts=1100, delay=1, max_delay=0)
        with pytest.raises(KeyError, match="again"):
            await task.step("d", fails, KeyError, retry=many)
        return "done"

    stand.tool(persistent)
    runner = await stand.runner()

    task_id = await stand.create(runner, "persistent", policy=stand.resumable)

    assert await stand.value(task_id) == "done"
    assert stand.log == ["OSError"] * 3 + ["ValueError"] + ["KeyError"] * 1100


async def test_too_many_steps_fail_the_task(shared: Stand) -> None:
    """A tool in an endless loop must not fill the store, whatever it catches."""
    shared.config = StoreConfig(max_steps=10)

    async def endless(task: TaskContext) -> str:
        try:
            for number in range(100):
                await task.step(str(number), int)
        except TaskError:
            return "swallowed"
        return "never"

    shared.tool(endless)
    runner = await shared.runner()

    record = await shared.ended(await shared.create(runner, "endless", policy=shared.resumable))

    assert record.error is not None
    assert "the journal holds 10 entries" in record.error.message


async def test_steps_of_branches_are_recorded_together(stand: Stand) -> None:
    """Order between branches does not matter, only keys do."""

    def double(number: int) -> int:
        return 2 * number

    async def branches(task: TaskContext) -> list[int]:
        return await asyncio.gather(*(task.step(f"s{n}", double, n) for n in range(20)))

    stand.tool(branches)
    runner = await stand.runner()

    task_id = await stand.create(runner, "branches", policy=stand.resumable)

    assert await stand.value(task_id) == [2 * n for n in range(20)]


async def test_a_plain_tool_uses_the_context_from_its_thread(stand: Stand) -> None:
    """The same methods, blocking."""

    def blocking(task: SyncTaskContext) -> list[Any]:
        task.progress(1, 2)
        task.set_variables({"a": 1})
        task.set_variable("b", 2)
        task.delete_variable("a")
        made = task.step("part", lambda: 5)
        return [made, task.variables(), task.get_variable("b", int), task.attempt, task.durable]

    async def plain(task: TaskContext) -> list[Any]:
        return await task.run_sync(functools.partial(blocking, SyncTaskContext(task)))

    stand.tool(plain)
    runner = await stand.runner()

    task_id = await stand.create(runner, "plain", policy=stand.resumable)

    assert await stand.value(task_id) == [5, {"b": 2}, 2, 1, True]


async def test_without_a_task_steps_just_run() -> None:
    """A client that cannot be given a task gets the same tool, not durable."""
    task = TaskContext(InlineOperations())

    assert not task.durable
    assert (await task.step("part", part, 1)).at == NOON
    assert (await task.step("part", part, 2)).size == 2
    await task.progress(1)
    assert await task.set_variables({"a": 1, "b": 2}) == {"a": 1, "b": 2}
    await task.delete_variable("a")
    assert await task.variables() == {"b": 2}
    with pytest.raises(NotDurableError, match="or it was no client that called"):
        await task.elicit("who", "Who?", Part)
    with pytest.raises(InvalidValueError):
        await task.step("odd", not_a_number)

"""What a tool gets wrong ends the tool, and nothing else: no hanging, no record nobody can read."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from mcp_tasks.domain.record import Call, inline
from mcp_tasks.errors import InvalidValueError
from mcp_tasks.ids import short
from mcp_tasks.runner import Failed, RunnerConfig
from mcp_tasks.store import TaskStore


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mcp_tasks.context import TaskContext
    from mcp_tasks.runner import Outcome, TaskRun

    from .conftest import Stand


class Name(BaseModel):
    """What is asked for."""

    name: str


class Text(str):
    """A text of a type of its own."""

    __slots__ = ()


def wrong(value: Any) -> Any:
    """Pass for what is wanted."""
    return value


async def nothing() -> int:
    """Do a step."""
    return 1


# pyright: reportPrivateUsage=false
# ruff: noqa: SLF001 - the moment that is looked for is inside

SLIPS: dict[str, Callable[[TaskContext], Awaitable[Any]]] = {
    "a numbered step": lambda t: t.step(wrong(5), nothing),
    "a numbered question": lambda t: t.elicit(wrong(5), "?", Name),
    "a numbered request": lambda t: t.request("elicitation/create", {}, key=wrong(5)),
    "a step with a long name": lambda t: t.step("k" * 256, nothing),
    "a question with a long name": lambda t: t.elicit("k" * 256, "?", Name),
    "variables in pairs": lambda t: t.set_variables(wrong([("a", 1)])),
    "progress in words": lambda t: t.progress(wrong("3"), wrong("10"), "words"),
    "progress of nothing": lambda t: t.progress(wrong(None), None, "words"),
}


@pytest.mark.parametrize("slip", SLIPS)
async def test_a_slip_of_type_is_an_error_in_the_tool(stand: Stand, slip: str) -> None:
    """At once, where it was made; the tool may catch it and go on."""

    async def slips(task: TaskContext) -> str:
        try:
            await SLIPS[slip](task)
        except Exception as error:  # noqa: BLE001 - whatever it is
            return str(error)
        return "no error"

    stand.tool(slips)
    runner = await stand.runner()

    said = await stand.value(await stand.create(runner, "slips", policy=stand.resumable))

    assert said != "no error"


async def test_a_key_may_have_a_length_and_no_more(stand: Stand) -> None:
    """Else the record would be too large, and nobody could tell why."""

    async def names(task: TaskContext) -> str:
        await task.step("k" * 255, nothing)
        try:
            await task.step("k" * 256, nothing)
        except InvalidValueError as error:
            return str(error)
        return "no error"

    stand.tool(names)
    runner = await stand.runner()

    said = await stand.value(await stand.create(runner, "names", policy=stand.resumable))

    assert said == (
        "the key 'kkkkkkkkkkkkkkkkkkkk'… cannot be accepted: 256 characters, 255 are allowed; "
        "nothing was stored"
    )


async def test_a_text_of_a_type_of_its_own_is_a_text(stand: Stand) -> None:
    """`numpy.str_` and `Markup` are such."""

    async def odd(task: TaskContext) -> list[Any]:
        await task.progress(1, 2, Text("half"))
        await task.set_variables({"a": 1})
        return [await task.step(Text("one"), nothing), await task.step("two", nothing)]

    stand.tool(odd)
    runner = await stand.runner()
    task_id = await stand.create(runner, "odd", policy=stand.resumable)

    assert await stand.value(task_id) == [1, 1]
    assert [type(entry.key) for entry in (await stand.get(task_id)).journal.tail] == [str, str]


async def test_an_error_without_a_code_ends_the_task_all_the_same(stand: Stand) -> None:
    """A low-level handler may raise anything."""

    async def odd(_: TaskRun) -> Outcome:
        return Failed(wrong("E42"), "odd")

    stand.body("odd", odd)
    runner = await stand.runner()

    record = await stand.ended(await stand.create(runner, "odd"))

    assert record.error is not None
    assert (record.status, record.error.code, record.error.message) == ("failed", -32603, "odd")


async def test_what_other_programs_set_is_seen_while_the_tool_runs(stand: Stand) -> None:
    """Also where it is so large that what the tool had set is gone."""

    async def watch(task: TaskContext) -> list[Any]:
        await task.set_variables({"mine": "x" * 9000})
        stand.log.append(task.task_id)
        async with asyncio.timeout(10):
            while True:
                if await task.get_variable("go"):
                    break
                await asyncio.sleep(0.005)
        return sorted(await task.variables())

    stand.tool(watch)
    runner = await stand.runner()
    task_id = await stand.create(runner, "watch")
    await stand.until(lambda: bool(stand.log))

    await stand.store.set_variables(stand.owner, task_id, {"theirs": "y" * 9000, "go": True})

    assert await stand.value(task_id) == ["go", "mine", "theirs"]


async def test_a_consumer_that_gives_up_gives_its_slot_back(
    alone: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in the very moment in which it gets one."""
    gate = asyncio.Event()

    async def wait(_: TaskContext) -> int:
        await gate.wait()
        return 1

    alone.tool(wait)
    runner = await alone.runner(config=RunnerConfig(max_running=1))
    other = TaskStore(alone.backend)  # whose tasks this runner does not hear of
    ids = [(await other.create("ada", Call("wait", inline(b"{}")))).task_id for _ in range(2)]
    first = asyncio.create_task(runner.run_task("ada", ids[0]))
    await alone.until(lambda: not runner.has_slot)
    second = asyncio.create_task(runner.run_task("ada", ids[1]))
    await asyncio.sleep(0)
    give_back = runner._slots.give_back

    def free_and_cancel() -> None:
        give_back()
        second.cancel()

    monkeypatch.setattr(runner._slots, "give_back", free_and_cancel)
    gate.set()
    await first
    await asyncio.wait([second])

    assert second.cancelled()
    assert runner.has_slot


async def test_a_record_that_cannot_be_read_is_told_of_once(
    shared: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    """And not at every look, by every worker, until it expires."""
    record = await shared.store.create(shared.owner, shared.call("any"))
    key = shared.store.keys.task(shared.owner, record.task_id)
    await shared.backend.put(key, b'{"format": 1}')
    runner = await shared.runner()
    looks = len(shared.link(runner).calls)

    await shared.until(lambda: len(shared.link(runner).calls) > looks + 60)

    told = [r.getMessage() for r in caplog.records if short(record.task_id) in r.getMessage()]
    assert len(told) == 1
    assert "missing required field" in told[0]

"""An answer counts for what was asked, and for nothing else."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from mcp_tasks.errors import InvalidValueError, JournalMismatchError
from mcp_tasks.jsonio import from_json


if TYPE_CHECKING:
    from mcp_tasks.context import TaskContext
    from mcp_tasks.domain.record import TaskRecord

    from .conftest import Stand


class Yes(BaseModel):
    """What is asked for."""

    yes: bool


YES = {"action": "accept", "content": {"yes": True}}


def shown(record: TaskRecord) -> dict[str, str]:
    """Return what the person reads, by key."""
    assert all(question.params.blob is None for question in record.questions)
    return {
        question.key: from_json(question.params.inline)["message"]  # pyright: ignore[reportArgumentType] - checked above
        for question in record.questions
    }


def parked(record: TaskRecord) -> bool:
    """Tell whether a task waits without a worker."""
    return record.status == "input_required" and record.worker is None


async def test_an_answer_to_another_text_is_no_consent(
    stand: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    """A run that asks for something else asks the person again, under a new key."""
    amounts = iter([100, 999, 999])

    async def pay(task: TaskContext) -> str:
        amount = next(amounts)
        answer = await task.elicit("ok", f"Pay {amount}?", Yes)
        return f"paid {amount}: {answer.action}"

    stand.tool(pay)
    runner = await stand.runner()
    task_id = await stand.create(runner, "pay", policy=stand.resumable)
    record = await stand.reached(task_id, parked)
    assert shown(record) == {"ok": "Pay 100?"}

    with caplog.at_level(logging.WARNING):
        await stand.store.answer(stand.owner, task_id, {"ok": YES})
        record = await stand.reached(task_id, lambda r: parked(r) and r.attempt == 2)
    assert shown(record) == {"ok~2": "Pay 999?"}
    assert "asks something else under the key 'ok'" in caplog.text

    await stand.store.answer(stand.owner, task_id, {"ok~2": YES})
    assert await stand.value(task_id) == "paid 999: accept"


async def test_a_question_that_nobody_answered_gives_way_to_a_changed_one(shared: Stand) -> None:
    """The old text is not left for a person to say yes to."""
    texts = iter(["old", "new", "new"])

    async def ask(task: TaskContext) -> str:
        text = next(texts)
        answer, _ = await asyncio.gather(
            task.elicit("ok", text, Yes), task.step("work", work, task.attempt)
        )
        return f"{text}: {answer.action}"

    async def work(attempt: int) -> None:
        if attempt == 1:
            await asyncio.Event().wait()  # not parked, so that the worker is lost with it

    shared.tool(ask)
    first = await shared.runner()
    task_id = await shared.create(first, "ask", policy=shared.resumable)
    await shared.reached(task_id, lambda record: bool(record.questions))
    await shared.stop(first)
    # What is parked is not run again by itself: an answer starts the next run.
    assert shown(await shared.reached(task_id, parked)) == {"ok": "old"}
    await shared.runner()
    await shared.store.answer(shared.owner, task_id, {"ok": YES})

    record = await shared.reached(task_id, lambda r: parked(r) and r.attempt == 2)

    assert shown(record) == {"ok~2": "new"}
    await shared.store.answer(shared.owner, task_id, {"ok": YES, "ok~2": YES})
    assert await shared.value(task_id) == "new: accept"


async def test_another_kind_of_question_under_the_key_ends_the_task(stand: Stand) -> None:
    """As a step of another function does."""
    runs = iter([1, 2])

    async def ask(task: TaskContext) -> None:
        if next(runs) == 1:
            await task.elicit("ok", "?", Yes)
        else:
            await task.request("sampling/createMessage", {"messages": []}, key="ok")

    stand.tool(ask)
    runner = await stand.runner()
    task_id = await stand.create(runner, "ask", policy=stand.resumable)
    await stand.reached(task_id, parked)
    await stand.store.answer(stand.owner, task_id, {"ok": YES})

    record = await stand.ended(task_id)

    expected = JournalMismatchError("ok", "elicitation/create", "sampling/createMessage")
    assert record.error is not None
    assert record.error.message == str(expected)


async def test_a_question_that_the_tool_gave_up_is_withdrawn(stand: Stand) -> None:
    """A person must not answer into the void; a late answer changes nothing."""
    gate = asyncio.Event()

    async def impatient(task: TaskContext) -> list[Any]:
        said: list[Any] = []
        try:
            async with asyncio.timeout(0.05):
                await task.elicit("slow", "?", Yes)
        except TimeoutError:
            said.append("nobody answered")
        await gate.wait()
        return said

    stand.tool(impatient)
    runner = await stand.runner()
    task_id = await stand.create(runner, "impatient")
    await stand.reached(task_id, lambda record: record.status == "input_required")

    record = await stand.reached(task_id, lambda record: record.status == "working")
    assert record.questions == ()
    late = await stand.store.answer(stand.owner, task_id, {"slow": YES})
    assert late.journal.count == 0
    gate.set()

    assert await stand.value(task_id) == ["nobody answered"]


async def test_one_of_several_questions_is_withdrawn_alone(stand: Stand) -> None:
    """The others stay with the person."""

    async def two(task: TaskContext) -> str:
        async def brief() -> str:
            try:
                async with asyncio.timeout(0.05):
                    return (await task.elicit("brief", "?", Yes)).action
            except TimeoutError:
                return "given up"

        first, second = await asyncio.gather(task.elicit("long", "?", Yes), brief())
        return f"{first.action}, {second}"

    stand.tool(two)
    runner = await stand.runner()
    task_id = await stand.create(runner, "two")
    await stand.reached(task_id, lambda record: len(record.questions) == 2)

    record = await stand.reached(task_id, lambda record: len(record.questions) == 1)

    assert (record.status, record.questions[0].key) == ("input_required", "long")
    await stand.store.answer(stand.owner, task_id, {"long": YES})
    assert await stand.value(task_id) == "accept, given up"


async def test_a_key_that_a_later_run_could_make_is_refused(alone: Stand) -> None:
    """Else the answer to one question could be taken for that to another."""

    async def ask(task: TaskContext) -> str:
        with pytest.raises(InvalidValueError, match="kept for what later runs ask"):
            await task.elicit("ok~2", "?", Yes)
        return "refused"

    alone.tool(ask)
    runner = await alone.runner()

    assert await alone.value(await alone.create(runner, "ask")) == "refused"

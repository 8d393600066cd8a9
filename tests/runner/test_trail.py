"""The log tells the whole story of a task, and nothing that anybody said."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from mcp_tasks.errors import LeaseLostError
from mcp_tasks.ids import short
from mcp_tasks.runner import Failed
from mcp_tasks.store import trail


if TYPE_CHECKING:
    from collections.abc import Iterator

    from mcp_tasks.context import TaskContext
    from mcp_tasks.runner import Outcome, TaskRun

    from .conftest import Stand


SECRET = "hunter2"  # noqa: S105 - what must not be seen


class Name(BaseModel):
    """What is asked for."""

    name: str


class Story:
    """What was logged, by task."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    def events(self, task_id: str) -> list[tuple[str, int]]:
        """Return what happened to a task, each with the attempt, in order."""
        return [(line.event, line.attempt) for line in self.lines(task_id)]

    def lines(self, task_id: str) -> list[Any]:
        """Return the log records of a task; none shows its whole id."""
        assert task_id not in self._caplog.text
        return [r for r in self._caplog.records if getattr(r, "task", "") == short(task_id)]


@pytest.fixture
def story(caplog: pytest.LogCaptureFixture) -> Iterator[Story]:
    """Listen to everything; at the end, look whether anybody's words are in it."""
    with caplog.at_level(logging.DEBUG, logger="mcp_tasks"):
        yield Story(caplog)
    for line in caplog.records:
        assert SECRET not in f"{line.getMessage()} {vars(line)}"
    for line in caplog.records:
        assert line.name != TASKS or vars(line)["task"] in line.getMessage()


TASKS = trail.log.name


async def test_a_question_its_answer_and_a_cancel_are_told(stand: Stand, story: Story) -> None:
    """From the creation to the end, across attempts."""

    async def ask(task: TaskContext, password: str) -> str:
        await task.elicit("who", password, Name)
        await task.set_variables({"password": password})
        await asyncio.Event().wait()
        return password

    stand.tool(ask)
    runner = await stand.runner()
    task_id = await stand.create(runner, "ask", policy=stand.resumable, password=SECRET)
    await stand.reached(task_id, lambda r: r.status == "input_required" and r.worker is None)

    await stand.store.answer(
        stand.owner, task_id, {"who": {"action": "accept", "content": {"name": SECRET}}}
    )
    await stand.reached(task_id, lambda record: record.variables is not None)
    await stand.store.cancel(stand.owner, task_id)
    await stand.ended(task_id)

    events = [
        ("created", 1),
        ("claimed", 1),
        ("asked", 1),
        ("parked", 1),
        ("answered", 1),
        ("claimed", 2),
        ("cancel_requested", 2),
        ("cancelled", 2),
    ]
    await stand.until(lambda: len(story.events(task_id)) == len(events))
    assert story.events(task_id) == events
    assert {line.tool for line in story.lines(task_id)} == {"ask"}


async def test_a_lost_worker_and_its_late_write_are_told(shared: Stand, story: Story) -> None:
    """Which worker had it, which has it now, and that the first one changed nothing more."""

    async def work(task: TaskContext) -> int:
        if task.attempt == 1:
            try:
                while True:
                    await task.set_variables({"password": SECRET})
            except (LeaseLostError, asyncio.CancelledError):
                shared.log.append("refused")
                raise
        return task.attempt

    shared.tool(work)
    first = await shared.runner()
    task_id = await shared.create(first, "work", policy=shared.rerun)
    await shared.reached(task_id, lambda record: record.variables is not None)
    await shared.runner()

    shared.link(first).hang()
    assert await shared.value(task_id) == 2
    shared.link(first).restore()
    await shared.until(lambda: ("refused", 1) in story.events(task_id))

    events = [event for event in story.events(task_id) if event[0] != "refused"]
    assert events == [("created", 1), ("claimed", 1), ("lost", 1), ("claimed", 2), ("completed", 2)]
    workers = {event: line.worker for line in story.lines(task_id) if (event := line.event)}
    assert workers["lost"] == workers["refused"]
    assert workers["lost"] != workers["claimed"]


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (Failed(-32000, SECRET, {"reason": SECRET}), "failed after 1 attempts: error -32000"),
        (None, "failed after 1 attempts: error -32603, worker_stopped"),
    ],
    ids=["its own", "ours"],
)
async def test_a_failure_is_told_without_its_words(
    shared: Stand, story: Story, outcome: Failed | None, said: str
) -> None:
    """Its code, and the reason where that is one of ours."""

    async def fail(_run: TaskRun) -> Outcome:
        shared.log.append("began")
        if outcome is None:
            await asyncio.Event().wait()
        return outcome or Failed(0, "")

    shared.body("fail", fail)
    runner = await shared.runner()
    task_id = await shared.create(runner, "fail")
    await shared.until(lambda: shared.log == ["began"])
    if outcome is None:
        await shared.stop(runner)
    await shared.ended(task_id)

    assert story.lines(task_id)[-1].getMessage() == f"task {short(task_id)}: {said}"

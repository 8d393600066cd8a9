"""Questions: parking, answers from anywhere, several at once."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from mcp_tasks.context import SyncTaskContext
from mcp_tasks.domain.record import Call
from mcp_tasks.errors import ClientCapabilityError, InvalidValueError, QuestionKeyError


if TYPE_CHECKING:
    from mcp_tasks.context import TaskContext
    from mcp_tasks.domain.record import TaskRecord

    from .conftest import Stand


class Name(BaseModel):
    """What is asked for."""

    name: str


def yes(name: str) -> dict[str, Any]:
    """Accept."""
    return {"action": "accept", "content": {"name": name}}


def is_parked(record: TaskRecord) -> bool:
    """Tell whether a task waits without a worker."""
    return record.status == "input_required" and record.worker is None


async def ask(task: TaskContext) -> list[Any]:
    """Ask for a name."""
    answer = await task.elicit("who", "Who?", Name)
    return [answer.action, answer.data.name if answer.data else None, task.attempt]


async def test_a_resumable_task_is_parked_while_it_waits(stand: Stand) -> None:
    """No coroutine, no slot, and run again from the top when the answer is there."""
    stand.tool(ask)
    runner = await stand.runner()
    task_id = await stand.create(runner, "ask", policy=stand.resumable)

    record = await stand.reached(task_id, is_parked)

    assert [question.key for question in record.questions] == ["who"]
    await stand.until(lambda: not runner.attempts)
    await stand.store.answer(stand.owner, task_id, {"who": yes("Ada")})
    assert await stand.value(task_id) == ["accept", "Ada", 2]


async def test_another_task_waits_in_the_process(stand: Stand) -> None:
    """What cannot be run again keeps its coroutine; its question is answered all the same."""
    stand.tool(ask)
    runner = await stand.runner()
    task_id = await stand.create(runner, "ask")
    record = await stand.reached(task_id, lambda record: record.status == "input_required")
    assert record.worker is not None

    await stand.store.answer(stand.owner, task_id, {"who": yes("Ada")})

    assert await stand.value(task_id) == ["accept", "Ada", 1]


@pytest.mark.parametrize("action", ["decline", "cancel"])
async def test_a_no_is_an_answer(stand: Stand, action: str) -> None:
    """Declined and closed dialogs reach the tool."""
    stand.tool(ask)
    runner = await stand.runner()
    task_id = await stand.create(runner, "ask", policy=stand.resumable)
    await stand.reached(task_id, is_parked)

    await stand.store.answer(stand.owner, task_id, {"who": {"action": action}})

    assert await stand.value(task_id) == [action, None, 2]


async def test_a_parked_task_outlives_every_worker(stand: Stand) -> None:
    """It is answered while nobody runs, and goes on when somebody does."""
    stand.tool(ask)
    runner = await stand.runner()
    task_id = await stand.create(runner, "ask", policy=stand.resumable)
    await stand.reached(task_id, is_parked)
    await stand.stop(runner)

    await stand.store.answer(stand.owner, task_id, {"who": yes("Ada")})
    assert (await stand.get(task_id)).status == "working"
    await stand.runner()

    assert await stand.value(task_id) == ["accept", "Ada", 2]


async def test_several_questions_at_once_are_one_write(shared: Stand) -> None:
    """Branches that ask at the same moment are asked and parked together."""

    async def ask_three(task: TaskContext) -> list[Any]:
        answers = await asyncio.gather(*(task.elicit(key, "?", Name) for key in "abc"))
        shared.log.append(task.attempt)
        return [answer.data.name if answer.data else None for answer in answers]

    shared.tool(ask_three)
    runner = await shared.runner()
    link = shared.link(runner)

    task_id = await shared.create(runner, "ask_three", policy=shared.resumable)
    record = await shared.reached(task_id, is_parked)

    assert [question.key for question in record.questions] == ["a", "b", "c"]
    assert sum(call[0] == "put_if_version" and task_id in call[1] for call in link.calls) == 2
    await shared.store.answer(shared.owner, task_id, {"b": yes("B"), "none": yes("X")})
    assert is_parked(await shared.get(task_id))
    await shared.store.answer(shared.owner, task_id, {"a": yes("A"), "b": yes("late")})
    await shared.store.answer(shared.owner, task_id, {"c": yes("C")})
    assert await shared.value(task_id) == ["A", "B", "C"]
    assert shared.log == [2]


async def test_partial_answers_reach_a_task_that_waits_in_the_process(stand: Stand) -> None:
    """Each branch goes on with its own answer."""

    async def ask_two(task: TaskContext) -> list[Any]:
        async def one(key: str) -> str:
            answer = await task.elicit(key, "?", Name)
            stand.log.append(key)
            return answer.data.name if answer.data else ""

        return list(await asyncio.gather(one("a"), one("b")))

    stand.tool(ask_two)
    runner = await stand.runner()
    task_id = await stand.create(runner, "ask_two")
    await stand.reached(task_id, lambda record: len(record.questions) == 2)

    await stand.store.answer(stand.owner, task_id, {"b": yes("B")})
    await stand.until(lambda: stand.log == ["b"])
    await stand.store.answer(stand.owner, task_id, {"a": yes("A")})

    assert await stand.value(task_id) == ["A", "B"]


async def test_one_question_after_another(stand: Stand) -> None:
    """Recorded answers come back at once; the next question is asked under its own key."""

    async def two(task: TaskContext) -> list[Any]:
        first = await task.elicit("first", "?", Name)
        second = await task.elicit("second", "?", Name)
        assert first.data
        assert second.data
        return [first.data.name, second.data.name, task.attempt]

    stand.tool(two)
    runner = await stand.runner()
    task_id = await stand.create(runner, "two", policy=stand.resumable)

    for key in ("first", "second"):
        await stand.reached(task_id, lambda r, key=key: is_parked(r) and r.questions[0].key == key)
        await stand.store.answer(stand.owner, task_id, {key: yes(key.upper())})

    assert await stand.value(task_id) == ["FIRST", "SECOND", 3]


async def test_a_step_that_runs_is_not_cut_by_parking(stand: Stand) -> None:
    """Work under way is recorded first; then the task is parked."""
    gate = asyncio.Event()

    async def work() -> str:
        stand.log.append("work")
        await gate.wait()
        return "worked"

    async def both(task: TaskContext) -> list[Any]:
        answer, worked = await asyncio.gather(
            task.elicit("who", "?", Name), task.step("work", work)
        )
        return [answer.action, worked, task.attempt]

    stand.tool(both)
    runner = await stand.runner()
    task_id = await stand.create(runner, "both", policy=stand.resumable)
    record = await stand.reached(task_id, lambda record: record.status == "input_required")
    assert record.worker is not None

    gate.set()
    await stand.reached(task_id, is_parked)
    await stand.store.answer(stand.owner, task_id, {"who": yes("Ada")})

    assert await stand.value(task_id) == ["accept", "worked", 2]
    assert stand.log == ["work"]


async def test_an_answer_during_a_step_saves_the_parking(stand: Stand) -> None:
    """The coroutine is still there, so it just goes on."""
    gate = asyncio.Event()

    async def work() -> str:
        await gate.wait()
        return "worked"

    async def both(task: TaskContext) -> list[Any]:
        answer, worked = await asyncio.gather(
            task.elicit("who", "?", Name), task.step("work", work)
        )
        return [answer.action, worked, task.attempt]

    stand.tool(both)
    runner = await stand.runner()
    task_id = await stand.create(runner, "both", policy=stand.resumable)
    await stand.reached(task_id, lambda record: record.status == "input_required")

    await stand.store.answer(stand.owner, task_id, {"who": yes("Ada")})
    gate.set()

    assert await stand.value(task_id) == ["accept", "worked", 1]


async def test_an_answer_that_comes_before_the_parking_is_noticed_is_not_lost(
    shared: Stand,
) -> None:
    """The park write has landed, and its own worker is the last to know."""
    shared.tool(ask)
    runner = await shared.runner()
    link = shared.link(runner)
    task_ids: list[str] = []
    others: list[asyncio.Task[Any]] = []

    async def answer_first(operation: str, key: str) -> None:
        if operation == "put_if_version" and task_ids and task_ids[0] in key and not others:
            record = await shared.get(task_ids[0])
            if is_parked(record):
                answers = {"who": yes("Ada")}
                others.append(
                    asyncio.create_task(shared.store.answer(shared.owner, task_ids[0], answers))
                )
                await others[0]
                await asyncio.sleep(0.1)

    link.after = answer_first
    gate = asyncio.Event()

    async def held(task: TaskContext) -> list[Any]:
        await gate.wait()
        return await ask(task)

    shared.tool(held)
    task_ids.append(await shared.create(runner, "held", policy=shared.resumable))
    gate.set()

    assert await shared.value(task_ids[0]) == ["accept", "Ada", 2]
    assert others


async def test_another_worker_that_answers_and_claims_makes_the_first_one_stop(
    shared: Stand,
) -> None:
    """The body that parked must not go on with an answer that started another run."""
    shared.tool(ask)

    async def held(task: TaskContext) -> list[Any]:
        await gate.wait()
        try:
            return await ask(task)
        finally:
            shared.log.append(task.attempt)

    gate = asyncio.Event()
    shared.tool(held)
    first = await shared.runner()
    link = shared.link(first)
    task_id = await shared.create(first, "held", policy=shared.resumable)
    second = await shared.runner()
    seen: list[TaskRecord] = []

    async def overtake(operation: str, key: str) -> None:
        if operation == "put_if_version" and task_id in key and not seen:
            seen.append(await shared.get(task_id))
            await second.store.answer(shared.owner, task_id, {"who": yes("Ada")})
            await shared.ended(task_id)

    link.after = overtake
    gate.set()

    assert await shared.value(task_id) == ["accept", "Ada", 2]
    await shared.until(lambda: sorted(shared.log) == [1, 2])


async def test_a_thousand_parked_tasks_cost_only_rows(stand: Stand) -> None:
    """Ten thousand waiting people must not cost ten thousand coroutines."""
    stand.tool(ask)
    runner = await stand.runner()
    before = len(asyncio.all_tasks())

    ids = [await stand.create(runner, "ask", policy=stand.resumable) for _ in range(1000)]
    for task_id in ids:
        await stand.reached(task_id, is_parked)
    await asyncio.sleep(0.05)

    assert len(asyncio.all_tasks()) <= before + 10  # what the worker itself does beside
    await asyncio.gather(
        *(stand.store.answer(stand.owner, task_id, {"who": yes("Ada")}) for task_id in ids)
    )
    for task_id in ids:
        assert (await stand.value(task_id))[:2] == ["accept", "Ada"]


async def test_an_answer_in_another_process_reaches_the_worker(shared: Stand) -> None:
    """Through its inbox; nothing is polled per task."""
    shared.tool(ask)
    runner = await shared.runner()
    task_id = await shared.create(runner, "ask")
    await shared.reached(task_id, lambda record: record.status == "input_required")

    await shared.store.answer(shared.owner, task_id, {"who": yes("Ada")})

    assert await shared.value(task_id) == ["accept", "Ada", 1]
    deadline = time.monotonic() + 5
    while await shared.keys("@inbox"):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_a_question_key_is_used_once(stand: Stand) -> None:
    """Keys are unique over the life of a task."""

    async def twice(task: TaskContext) -> str:
        first = asyncio.ensure_future(task.elicit("who", "?", Name))
        await asyncio.sleep(0)
        with pytest.raises(QuestionKeyError):
            await task.elicit("who", "?", Name)
        await first
        return "refused"

    stand.tool(twice)
    runner = await stand.runner()
    task_id = await stand.create(runner, "twice")
    await stand.reached(task_id, lambda record: record.status == "input_required")
    await stand.store.answer(stand.owner, task_id, {"who": yes("Ada")})

    assert await stand.value(task_id) == "refused"


async def test_a_client_that_did_not_declare_it_is_not_asked(stand: Stand) -> None:
    """The request's own capabilities decide, also on a later run."""

    async def odd(task: TaskContext) -> str:
        with pytest.raises(ClientCapabilityError):
            await task.elicit("who", "?", Name)
        with pytest.raises(ClientCapabilityError):
            await task.request("roots/list", {})
        with pytest.raises(InvalidValueError):
            await task.request("tools/list", {})
        return "refused"

    stand.tool(odd)
    runner = await stand.runner()
    bare = Call("odd", stand.store.encode({}, what="arguments"))

    record = await runner.create(stand.owner, bare, policy=stand.resumable)

    assert await stand.value(record.task_id) == "refused"


async def test_an_answer_that_does_not_fit_is_an_error_of_that_question(stand: Stand) -> None:
    """A client may send anything."""

    async def odd(task: TaskContext) -> str:
        with pytest.raises(InvalidValueError, match="'who'"):
            await task.elicit("who", "?", Name)
        return "refused"

    stand.tool(odd)
    runner = await stand.runner()
    task_id = await stand.create(runner, "odd", policy=stand.resumable)
    await stand.reached(task_id, is_parked)

    answer = {"action": "accept", "content": {"other": 1}}
    await stand.store.answer(stand.owner, task_id, {"who": answer})

    assert await stand.value(task_id) == "refused"


async def test_requests_without_a_key_are_numbered(stand: Stand) -> None:
    """The SDK's own `ctx.elicit` has no keys; the same order gives the same ones."""

    async def unnamed(task: TaskContext) -> list[Any]:
        params: dict[str, Any] = {"messages": [], "maxTokens": 1}
        one = await task.request("sampling/createMessage", params)
        two = await task.request("sampling/createMessage", params)
        return [one, two]

    stand.tool(unnamed)
    runner = await stand.runner()
    task_id = await stand.create(runner, "unnamed", policy=stand.resumable)

    for number in (1, 2):
        key = f"sampling-{number}"
        await stand.reached(task_id, lambda r, key=key: is_parked(r) and r.questions[0].key == key)
        await stand.store.answer(stand.owner, task_id, {key: {"n": number}})

    assert await stand.value(task_id) == [{"n": 1}, {"n": 2}]


async def test_a_rerun_asks_anew_under_another_key(stand: Stand) -> None:
    """What is not resumable has no recorded answers, and no key is used twice."""
    stand.tool(ask)
    runner = await stand.runner()
    task_id = await stand.create(runner, "ask", policy=stand.rerun)
    first = await stand.reached(task_id, lambda record: record.status == "input_required")
    await stand.stop(runner)
    await stand.runner()

    second = await stand.reached(
        task_id, lambda record: record.status == "input_required" and record.attempt == 2
    )

    assert first.questions[0].key != second.questions[0].key
    await stand.store.answer(stand.owner, task_id, {second.questions[0].key: yes("Ada")})
    assert await stand.value(task_id) == ["accept", "Ada", 2]


async def test_a_plain_tool_that_parks_gives_its_thread_back(stand: Stand) -> None:
    """A thread is a coroutine's body too."""

    def blocking(task: SyncTaskContext) -> list[Any]:
        answer = task.elicit("who", "?", Name)
        return [answer.data.name if answer.data else None, task.attempt]

    async def plain(task: TaskContext) -> list[Any]:
        def run() -> list[Any]:
            try:
                return blocking(SyncTaskContext(task))
            finally:
                stand.log.append(threading.current_thread().name)

        return await task.run_sync(functools.partial(run))

    stand.tool(plain)
    runner = await stand.runner()
    task_id = await stand.create(runner, "plain", policy=stand.resumable)
    await stand.reached(task_id, is_parked)
    await stand.until(lambda: len(stand.log) == 1)

    await stand.store.answer(stand.owner, task_id, {"who": yes("Ada")})

    assert await stand.value(task_id) == ["Ada", 2]


async def test_a_question_given_up_before_it_was_asked_is_not_asked(stand: Stand) -> None:
    """A body that went on must not be parked for it."""

    async def impatient(task: TaskContext) -> str:
        asking = asyncio.ensure_future(task.elicit("who", "?", Name))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.sleep(0.1)
        return "went on"

    stand.tool(impatient)
    runner = await stand.runner()

    task_id = await stand.create(runner, "impatient", policy=stand.resumable)

    assert await stand.value(task_id) == "went on"
    assert (await stand.get(task_id)).asked == 0

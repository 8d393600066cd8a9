"""How a task ends, and what its client is asked meanwhile."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from msgspec import Raw

from mcp_tasks.domain.status import TaskStatus
from mcp_tasks.errors import (
    InvalidValueError,
    NotReadyError,
    QuestionKeyError,
    TaskTerminalError,
)
from mcp_tasks.store import StoreConfig, TaskStore
from mcp_tasks.testing.task_samples import ACCEPT, ASK, CALL, DECLINE, QUESTION, raw


if TYPE_CHECKING:
    from mcp_tasks.storage.base import StorageBackend
    from mcp_tasks.testing.clocks import ManualClock


class OutcomeRules:
    """Results, failures, questions and answers."""

    @pytest.mark.parametrize("result", [None, False, 0, "", [], {}, {"content": [], "n": 1.5}])
    async def test_a_result_comes_back_as_it_was_even_null(
        self, store: TaskStore, result: Any
    ) -> None:
        """No result and the result null are two things."""
        task = await store.create("ada", CALL)
        with pytest.raises(NotReadyError, match="is 'working'; it has no result"):
            await store.get_result("ada", task.task_id)

        done = await store.complete_with_result("ada", task.task_id, result, "all done")

        assert (done.status, done.message) == (TaskStatus.COMPLETED, "all done")
        found = await store.get_result("ada", task.task_id)
        assert (type(found), found) == (type(result), result)

    async def test_of_many_outcomes_exactly_one_is_taken(
        self, backend: StorageBackend, clock: ManualClock
    ) -> None:
        """Two workers that both believe to run a task must not both be right."""
        stores = [TaskStore(backend, clock=clock) for _ in range(8)]
        task = await stores[0].create("ada", CALL)

        outcomes = await asyncio.gather(
            *(store.set_result("ada", task.task_id, n) for n, store in enumerate(stores)),
            return_exceptions=True,
        )

        won = [n for n, outcome in enumerate(outcomes) if not isinstance(outcome, BaseException)]
        assert len(won) == 1
        assert await stores[0].get_result("ada", task.task_id) == won[0]
        assert sum(isinstance(outcome, TaskTerminalError) for outcome in outcomes) == 7

    @pytest.mark.parametrize(
        "bad", [float("nan"), float("inf"), "\ud800", 2**63, object(), {1: 2}, "x" * 2**22]
    )
    async def test_a_result_that_cannot_be_stored_leaves_the_task_as_it_was(
        self, store: TaskStore, bad: Any
    ) -> None:
        """The caller can still say so and end the task otherwise."""
        task = await store.create("ada", CALL)
        before = await raw(store, task)

        with pytest.raises(InvalidValueError, match="the result cannot be accepted"):
            await store.complete_with_result("ada", task.task_id, [bad])

        assert await raw(store, task) == before
        assert (await store.fail("ada", task.task_id, -32603, "bad result")).is_terminal

    async def test_a_failure_keeps_its_code_text_and_data(self, store: TaskStore) -> None:
        """They are what a client is shown."""
        task = await store.create("ada", CALL)

        failed = await store.fail("ada", task.task_id, -32001, "no", {"why": [1, None]})

        assert (failed.status, failed.message) == (TaskStatus.FAILED, "no")
        assert failed.error is not None
        assert (failed.error.code, failed.error.message) == (-32001, "no")
        assert isinstance(failed.error.data, Raw)
        assert bytes(failed.error.data) == b'{"why":[1,null]}'
        with pytest.raises(NotReadyError, match="is 'failed'; it has no result"):
            await store.get_result("ada", task.task_id)

    # --- questions -----------------------------------------------------------------------------

    async def test_a_question_waits_for_its_answer_and_the_first_one_wins(
        self, store: TaskStore
    ) -> None:
        """A client that sends its answer again, or another one, must not change what was heard."""
        task = await store.create("ada", CALL)
        asked = await store.ask("ada", task.task_id, "q", ASK, QUESTION)
        assert asked.status is TaskStatus.INPUT_REQUIRED
        assert [question.key for question in asked.questions] == ["q"]

        taken = await store.answer("ada", task.task_id, {"q": ACCEPT}, by="eve")
        before = await raw(store, task)
        again = await store.answer("ada", task.task_id, {"q": DECLINE})

        assert (taken.status, taken.questions) == (TaskStatus.WORKING, ())
        (entry,) = taken.journal.tail
        assert (entry.key, entry.kind, entry.what, entry.by) == ("q", "answer", ASK, "eve")
        assert await store.load(taken, entry.value) == ACCEPT
        assert again == taken
        assert await raw(store, task) == before

    async def test_answers_to_some_questions_leave_the_others_outstanding(
        self, store: TaskStore
    ) -> None:
        """A client may answer as its user gets to it."""
        task = await store.create("ada", CALL)
        for key in ("a", "b", "c"):
            await store.ask("ada", task.task_id, key, ASK, QUESTION)

        left = await store.answer(
            "ada", task.task_id, {"b": ACCEPT, "unknown": float("nan"), "d": DECLINE}
        )

        assert [question.key for question in left.questions] == ["a", "c"]
        assert left.status is TaskStatus.INPUT_REQUIRED
        done = await store.answer("ada", task.task_id, {"a": DECLINE, "c": ACCEPT})
        assert (done.status, done.journal.count) == (TaskStatus.WORKING, 3)

    @pytest.mark.parametrize(
        "bad",
        [None, "yes", [], {"action": "maybe"}, {}, {"action": "accept", "content": float("nan")}],
    )
    async def test_a_bad_answer_is_refused_and_takes_none_of_the_others(
        self, store: TaskStore, bad: Any
    ) -> None:
        """What a body gets as an answer has the shape that it asked for."""
        task = await store.create("ada", CALL)
        for key in ("a", "b"):
            await store.ask("ada", task.task_id, key, ASK, QUESTION)
        before = await raw(store, task)

        with pytest.raises(InvalidValueError):
            await store.answer("ada", task.task_id, {"a": ACCEPT, "b": bad})

        assert await raw(store, task) == before

    async def test_a_question_keeps_its_key_for_ever(self, store: TaskStore) -> None:
        """Asked again while it is open nothing changes; once answered its key is used up."""
        task = await store.create("ada", CALL)
        first = await store.ask("ada", task.task_id, "q", ASK, QUESTION)
        assert await store.ask("ada", task.task_id, "q", ASK, QUESTION) == first
        await store.answer("ada", task.task_id, {"q": ACCEPT})

        with pytest.raises(QuestionKeyError):
            await store.ask("ada", task.task_id, "q", ASK, QUESTION)

    async def test_a_question_gives_a_person_the_longest_time_there_is(
        self, store: TaskStore, clock: ManualClock
    ) -> None:
        """People answer after a weekend; strangers must not fill a store that way."""
        mine = await store.create("ada", CALL, ttl=timedelta(hours=1))
        strangers = await store.create("anonymous", CALL, ttl=timedelta(hours=1))
        clock.advance(timedelta(minutes=30))

        asked = await store.ask("ada", mine.task_id, "q", ASK, QUESTION)
        other = await store.ask("anonymous", strangers.task_id, "q", ASK, QUESTION)

        assert asked.ttl == store.config.max_ttl
        assert other.ttl == timedelta(hours=1)

    async def test_there_are_only_so_many_questions(
        self, backend: StorageBackend, clock: ManualClock
    ) -> None:
        """At once, and over a life: both are ways to fill a record."""
        config = StoreConfig(max_questions=2, max_questions_ever=3)
        store = TaskStore(backend, clock=clock, config=config)
        task = await store.create("ada", CALL)
        await store.ask("ada", task.task_id, "a", ASK, QUESTION)
        await store.ask("ada", task.task_id, "b", ASK, QUESTION)
        with pytest.raises(InvalidValueError, match="2 are outstanding"):
            await store.ask("ada", task.task_id, "c", ASK, QUESTION)
        await store.answer("ada", task.task_id, {"a": ACCEPT, "b": ACCEPT})
        await store.ask("ada", task.task_id, "c", ASK, QUESTION)

        with pytest.raises(InvalidValueError, match="3 were asked"):
            await store.ask("ada", task.task_id, "d", ASK, QUESTION)

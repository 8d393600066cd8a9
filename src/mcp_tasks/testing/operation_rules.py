"""Every operation of a task store: what it does, and what it refuses."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from mcp_tasks.domain.record import inline
from mcp_tasks.domain.status import TaskStatus
from mcp_tasks.errors import (
    InvalidTransitionError,
    InvalidTtlError,
    InvalidValueError,
    NotReadyError,
    QuestionKeyError,
    TaskError,
    TaskExpiredError,
    TaskNotFoundError,
    TaskTerminalError,
    VariablesTooLargeError,
)
from mcp_tasks.ids import is_task_id, new_task_id
from mcp_tasks.store import StoreConfig, TaskStore
from mcp_tasks.testing.task_samples import ACCEPT, ASK, CALL, DECLINE, QUESTION, claim, raw


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mcp_tasks.storage.base import StorageBackend
    from mcp_tasks.testing.clocks import ManualClock

    Operation = Callable[[TaskStore, str, str], Awaitable[Any]]


OPERATIONS: dict[str, Operation] = {
    "get": lambda store, owner, task_id: store.get(owner, task_id),
    "get_result": lambda store, owner, task_id: store.get_result(owner, task_id),
    "get_variables": lambda store, owner, task_id: store.get_variables(owner, task_id),
    "update_status": lambda store, owner, task_id: store.update_status(
        owner, task_id, TaskStatus.CANCELLED
    ),
    "set_variables": lambda store, owner, task_id: store.set_variables(owner, task_id, {"a": 1}),
    "set_result": lambda store, owner, task_id: store.set_result(owner, task_id, 1),
    "complete_with_result": lambda store, owner, task_id: store.complete_with_result(
        owner, task_id, {"content": []}
    ),
    "fail": lambda store, owner, task_id: store.fail(owner, task_id, -32603, "no"),
    "ask": lambda store, owner, task_id: store.ask(owner, task_id, "q", ASK, QUESTION),
    "answer": lambda store, owner, task_id: store.answer(owner, task_id, {"q": ACCEPT}),
    "cancel": lambda store, owner, task_id: store.cancel(owner, task_id),
    "progress": lambda store, owner, task_id: store.progress(owner, task_id, 1, 2),
    "extend": lambda store, owner, task_id: store.extend(owner, task_id, timedelta(days=2)),
}
"""All that can be done to a task, by name."""

CHANGES = tuple(name for name in OPERATIONS if not name.startswith("get"))

OWNERS = ("a", "a:b", "a%", "a%3A", "a_", "A", "", "~", "@runs", "a/b", "å", "日本", "x" * 4000)
"""Owners whose keys a careless encoding would mix up."""


async def refusal(call: Awaitable[Any]) -> tuple[type[TaskError], str, int]:
    """Return what a call is refused with."""
    with pytest.raises(TaskError) as caught:
        await call
    return type(caught.value), str(caught.value), caught.value.code


class OperationRules:
    """Create, read and change, one task at a time."""

    async def test_a_created_task_can_be_read_by_any_store_at_once(
        self, backend: StorageBackend, store: TaskStore, clock: ManualClock
    ) -> None:
        """Whoever is told the id may ask another server for it."""
        created = await store.create("ada", CALL, by="console")

        found = await TaskStore(backend, clock=clock).get("ada", created.task_id)

        assert found == created
        assert (found.status, found.attempt, found.worker) == (TaskStatus.WORKING, 0, None)
        assert found.created_at == found.updated_at == clock.now()
        assert (found.ttl, found.poll_interval) == (timedelta(hours=24), timedelta(seconds=1))
        assert (found.call, found.created_by) == (CALL, "console")

    async def test_ids_are_unguessable_and_sorted_by_creation(
        self, store: TaskStore, clock: ManualClock
    ) -> None:
        """The id is the only key of a stranger's task, and lists follow it."""
        created: list[str] = []
        for _ in range(20):
            created.append((await store.create("ada", CALL)).task_id)
            clock.advance(timedelta(milliseconds=1))

        assert created == sorted(set(created))
        assert all(is_task_id(task_id) for task_id in created)
        assert len({task_id[10:] for task_id in created}) == 20

    @pytest.mark.parametrize("operation", OPERATIONS)
    async def test_a_foreign_task_looks_like_none_at_all(
        self, store: TaskStore, operation: str
    ) -> None:
        """An attacker must not learn which ids exist, not even from the words of the refusal."""
        mine = await store.create("ada", CALL)
        before = await raw(store, mine)
        wanted = [
            ("eve", mine.task_id),
            ("ada", new_task_id(mine.created_at)),
            ("ada", "no-task-id"),
            ("ada", ""),
            ("ada", mine.task_id.upper()),
            ("ada", "../" + mine.task_id),
            ("", mine.task_id),
        ]

        refused = {
            await refusal(OPERATIONS[operation](store, owner, task_id)) for owner, task_id in wanted
        }

        assert refused == {(TaskNotFoundError, "task not found", -32602)}
        assert await raw(store, mine) == before

    async def test_no_owner_reaches_another_through_the_shape_of_a_name(
        self, store: TaskStore
    ) -> None:
        """Owners come from outside and may hold anything."""
        tasks = {owner: (await store.create(owner, CALL)).task_id for owner in OWNERS}

        for owner in OWNERS:
            assert [task.task_id for task in (await store.list(owner)).tasks] == [tasks[owner]]
            for other in OWNERS:
                if other != owner:
                    with pytest.raises(TaskNotFoundError):
                        await store.get(owner, tasks[other])

    async def test_namespaces_do_not_see_one_another(
        self, backend: StorageBackend, store: TaskStore, clock: ManualClock
    ) -> None:
        """Two applications may share a database and have owners and tools of the same names."""
        other = TaskStore(backend, namespace="other", clock=clock)
        mine = await store.create("ada", CALL)
        theirs = await other.create("ada", CALL)

        assert [task.task_id for task in (await store.list("ada")).tasks] == [mine.task_id]
        assert [task.task_id for task in (await other.list("ada")).tasks] == [theirs.task_id]
        with pytest.raises(TaskNotFoundError):
            await store.cancel("ada", theirs.task_id)
        with pytest.raises(TaskNotFoundError):
            await other.get("ada", mine.task_id)

    # --- status --------------------------------------------------------------------------------

    async def test_update_status_follows_the_table_and_replaces_the_message(
        self, store: TaskStore
    ) -> None:
        """A message left out is cleared, so no old one stays beside a new status."""
        task = await store.create("ada", CALL)

        asked = await store.update_status(
            "ada", task.task_id, TaskStatus.INPUT_REQUIRED, "which folder?"
        )
        working = await store.update_status("ada", task.task_id, TaskStatus.WORKING)

        assert (asked.status, asked.message) == (TaskStatus.INPUT_REQUIRED, "which folder?")
        assert (working.status, working.message) == (TaskStatus.WORKING, None)
        with pytest.raises(InvalidTransitionError, match="is already 'working'"):
            await store.update_status("ada", task.task_id, TaskStatus.WORKING)

    async def test_update_status_to_failed_leaves_an_error_that_can_be_served(
        self, store: TaskStore
    ) -> None:
        """Whoever asks a failed task for its outcome gets a JSON-RPC error, always."""
        task = await store.create("ada", CALL)

        failed = await store.update_status("ada", task.task_id, TaskStatus.FAILED, "disk full")

        assert failed.error is not None
        assert (failed.error.code, failed.error.message) == (-32603, "disk full")
        assert failed.message == "disk full"

    @pytest.mark.parametrize("operation", CHANGES)
    @pytest.mark.parametrize(
        "ended", [TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED]
    )
    async def test_nothing_about_an_ended_task_changes(
        self, store: TaskStore, clock: ManualClock, operation: str, ended: TaskStatus
    ) -> None:
        """A client may have read the outcome; it is not to become another."""
        task = await store.create("ada", CALL)
        if ended is TaskStatus.COMPLETED:
            await store.set_result("ada", task.task_id, {"content": []})
        else:
            await store.update_status("ada", task.task_id, ended)
        before = await raw(store, task)
        clock.advance(timedelta(seconds=1))

        if operation in ("answer", "cancel", "progress"):
            await OPERATIONS[operation](store, "ada", task.task_id)
        else:
            with pytest.raises(TaskTerminalError, match=f"has ended as '{ended}'"):
                await OPERATIONS[operation](store, "ada", task.task_id)

        assert await raw(store, task) == before

    async def test_the_time_of_the_last_update_never_goes_back(
        self, store: TaskStore, clock: ManualClock
    ) -> None:
        """A clock that is set back must not make a client throw a newer state away."""
        task = await store.create("ada", CALL)
        clock.advance(timedelta(minutes=1))
        later = await store.progress("ada", task.task_id, 1)
        clock.set_back(timedelta(minutes=2))

        latest = await store.progress("ada", task.task_id, 2)

        assert latest.updated_at == later.updated_at > task.updated_at

    # --- variables -----------------------------------------------------------------------------

    async def test_variables_merge_and_none_removes(self, store: TaskStore) -> None:
        """Several programs share them, so each names only what it changes."""
        task = await store.create("ada", CALL)
        await store.set_variables(
            "ada", task.task_id, {"a": 1, "b": {"deep": None}, "_c": "secret"}
        )

        merged = await store.set_variables(
            "ada", task.task_id, {"a": None, "b": [None], "d": False, "never": None}
        )

        assert merged == {"b": [None], "_c": "secret", "d": False}
        assert await store.get_variables("ada", task.task_id) == merged

    async def test_all_variables_together_may_be_as_large_as_the_limit(
        self, backend: StorageBackend, clock: ManualClock
    ) -> None:
        """Equal is allowed, one byte more is refused, and a refusal saves nothing."""
        store = TaskStore(backend, clock=clock, config=StoreConfig(max_variables_bytes=20))
        task = await store.create("ada", CALL)
        await store.set_variables("ada", task.task_id, {"a": "x" * 12})  # {"a":"xxxxxxxxxxxx"}
        before = await raw(store, task)

        with pytest.raises(VariablesTooLargeError) as refused:
            await store.set_variables("ada", task.task_id, {"a": "y" * 13})

        assert (refused.value.size, refused.value.limit) == (21, 20)
        assert await raw(store, task) == before

    async def test_a_variable_may_be_as_deep_and_its_strings_as_long_as_the_limit(
        self, store: TaskStore
    ) -> None:
        """A plain value has depth 0, so ten containers pass and eleven fail; bytes are UTF-8."""
        task = await store.create("ada", CALL)

        def deep(depth: int) -> Any:
            value: Any = 1
            for _ in range(depth):
                value = {"in": value}
            return value

        await store.set_variables("ada", task.task_id, {"deep": deep(10), "long": "é" * 32768})
        with pytest.raises(InvalidValueError, match="nested too deeply"):
            await store.set_variables("ada", task.task_id, {"deep": deep(11)})
        with pytest.raises(InvalidValueError, match="65538 bytes, 65536 are allowed"):
            await store.set_variables("ada", task.task_id, {"long": "é" * 32769})

        assert await store.get_variables("ada", task.task_id) == {
            "deep": deep(10),
            "long": "é" * 32768,
        }

    async def test_two_writers_of_different_variables_both_succeed(
        self, backend: StorageBackend, clock: ManualClock
    ) -> None:
        """A lost comparison is the store's business, not the caller's."""
        stores = [TaskStore(backend, clock=clock) for _ in range(16)]
        task = await stores[0].create("ada", CALL)

        await asyncio.gather(
            *(
                store.set_variables("ada", task.task_id, {f"v{n}": n})
                for n, store in enumerate(stores)
            )
        )

        merged = await stores[0].get_variables("ada", task.task_id)
        assert merged == {f"v{n}": n for n in range(16)}

    async def test_writers_of_large_variables_do_not_take_them_from_one_another(
        self, backend: StorageBackend, clock: ManualClock
    ) -> None:
        """The values beside a record go with the write that replaces them; who read it retries."""
        stores = [TaskStore(backend, clock=clock) for _ in range(4)]
        task = await stores[0].create("ada", CALL)
        large = "x" * 20_000

        async def write(store: TaskStore, name: str) -> None:
            for turn in range(5):
                await store.set_variables("ada", task.task_id, {name: [turn, large]})
                assert (await store.get_variables("ada", task.task_id))[name] == [turn, large]

        await asyncio.gather(*(write(store, f"v{n}") for n, store in enumerate(stores)))

        merged = await stores[0].get_variables("ada", task.task_id)
        assert merged == {f"v{n}": [4, large] for n in range(4)}

    # --- outcomes ------------------------------------------------------------------------------

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

        with pytest.raises(InvalidValueError, match="the result cannot be stored"):
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
        assert bytes(failed.error.data) == b'{"why":[1,null]}'  # type: ignore[arg-type]
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

    # --- cancelling, progress, time ------------------------------------------------------------

    async def test_a_task_that_nobody_runs_is_cancelled_at_once(self, store: TaskStore) -> None:
        """There is nobody to wait for."""
        task = await store.create("ada", CALL)

        cancelled = await store.cancel("ada", task.task_id, by="eve")

        assert cancelled.status is TaskStatus.CANCELLED
        assert cancelled.cancel is not None
        assert cancelled.cancel.by == "eve"

    async def test_a_task_that_a_worker_runs_gets_a_flag_and_may_still_finish(
        self, store: TaskStore
    ) -> None:
        """The worker stops its body first, or is just about to write the result."""
        task = await store.create("ada", CALL)
        await claim(store, task)

        flagged = await store.cancel("ada", task.task_id)
        before = await raw(store, task)
        again = await store.cancel("ada", task.task_id)

        assert (flagged.status, flagged.worker) == (TaskStatus.WORKING, "w1")
        assert flagged.cancel is not None
        assert again == flagged
        assert await raw(store, task) == before
        assert (await store.set_result("ada", task.task_id, 1)).status is TaskStatus.COMPLETED

    async def test_progress_shows_and_a_repetition_writes_nothing(self, store: TaskStore) -> None:
        """A body may report in a tight loop."""
        task = await store.create("ada", CALL)

        shown = await store.progress("ada", task.task_id, 3, 10, "third")
        before = await raw(store, task)
        await store.progress("ada", task.task_id, 3, 10, "third")

        assert shown.progress is not None
        assert (shown.progress.current, shown.progress.total) == (3, 10)
        assert shown.message == "third"
        assert await raw(store, task) == before

    @pytest.mark.parametrize("ttl", [0, -1, 0.0004, 7 * 86400 + 0.001, 10**9])
    async def test_a_time_to_live_out_of_range_is_refused_not_clamped(
        self, store: TaskStore, ttl: float
    ) -> None:
        """What is announced is what holds."""
        with pytest.raises(InvalidTtlError):
            await store.create("ada", CALL, ttl=timedelta(seconds=ttl))
        task = await store.create("ada", CALL)
        with pytest.raises(InvalidTtlError):
            await store.extend("ada", task.task_id, timedelta(seconds=ttl))

        assert [found.ttl for found in (await store.list("ada")).tasks] == [timedelta(hours=24)]

    @pytest.mark.parametrize("ttl", [timedelta(milliseconds=1), timedelta(days=7)])
    async def test_a_time_to_live_at_the_edge_is_taken(
        self, store: TaskStore, ttl: timedelta
    ) -> None:
        """The limits are allowed values."""
        assert (await store.create("ada", CALL, ttl=ttl)).ttl == ttl

    async def test_extending_counts_from_now_and_never_shortens(
        self, store: TaskStore, clock: ManualClock
    ) -> None:
        """Work that goes on asks for time ahead of it."""
        task = await store.create("ada", CALL, ttl=timedelta(hours=2))
        clock.advance(timedelta(hours=1))

        longer = await store.extend("ada", task.task_id, timedelta(hours=3))
        same = await store.extend("ada", task.task_id, timedelta(minutes=1))
        longest = await store.extend("ada", task.task_id, timedelta(days=7))

        assert [found.ttl for found in (longer, same, longest)] == [
            timedelta(hours=4),
            timedelta(hours=4),
            timedelta(days=7),
        ]

    async def test_a_task_past_its_time_reads_as_failed_and_only_so(
        self, store: TaskStore, clock: ManualClock
    ) -> None:
        """What the first reader saw stays true for all others."""
        task = await store.create("ada", CALL, ttl=timedelta(minutes=1))
        clock.advance(timedelta(minutes=1))

        found = await store.get("ada", task.task_id)
        clock.advance(timedelta(minutes=1))

        assert (found.status, found.ended_at) == (TaskStatus.FAILED, task.deadline)
        assert found.error is not None
        assert b'"expired"' in bytes(found.error.data)  # type: ignore[arg-type]
        assert await store.get("ada", task.task_id) == found
        assert (await store.list("ada")).tasks == [found]

    @pytest.mark.parametrize("operation", CHANGES)
    async def test_no_write_but_the_expiry_touches_a_task_past_its_time(
        self, store: TaskStore, clock: ManualClock, operation: str
    ) -> None:
        """Whoever comes too late must not bring it back."""
        task = await store.create("ada", CALL, ttl=timedelta(minutes=1))
        clock.advance(timedelta(minutes=1))

        if operation in ("answer", "cancel"):
            found = await OPERATIONS[operation](store, "ada", task.task_id)
            assert found.status is TaskStatus.FAILED
        else:
            with pytest.raises(TaskExpiredError):
                await OPERATIONS[operation](store, "ada", task.task_id)

        found = await store.get("ada", task.task_id)
        assert (found.status, found.ended_at) == (TaskStatus.FAILED, task.deadline)
        assert (found.variables, found.result, found.cancel) == (None, None, None)

    async def test_an_outcome_stays_readable_after_the_end(
        self, store: TaskStore, clock: ManualClock
    ) -> None:
        """A task that ends at the last moment is of no use if it is gone the next."""
        short = await store.create("ada", CALL, ttl=timedelta(hours=1))
        long = await store.create("ada", CALL, ttl=timedelta(days=7))
        clock.advance(timedelta(minutes=59))

        early = await store.set_result("ada", short.task_id, 1)
        clock.advance(timedelta(days=6))
        late = await store.set_result("ada", long.task_id, 1)

        assert early.deadline - early.updated_at == timedelta(hours=1)
        assert late.deadline - late.updated_at >= timedelta(hours=24)

    # --- large values --------------------------------------------------------------------------

    async def test_values_of_the_largest_size_come_back_whole(self, store: TaskStore) -> None:
        """Whatever the database takes in one record."""
        text = "é" * (2**21 - 64)
        call = type(CALL)("report", store.encode({"text": text}, what="arguments"))
        task = await store.create("ada", call)
        await store.ask("ada", task.task_id, "q", ASK, {"text": text})
        answered = await store.answer(
            "ada", task.task_id, {"q": {"action": "accept", "text": text}}
        )
        arguments = await store.load(task, (await store.get("ada", task.task_id)).call.arguments)
        answer = await store.load(task, answered.journal.tail[0].value)
        await store.set_result("ada", task.task_id, {"text": text})

        assert arguments == {"text": text}
        assert answer == {"action": "accept", "text": text}
        assert await store.get_result("ada", task.task_id) == {"text": text}
        assert len(await raw(store, task)) < 2048

    async def test_a_value_over_the_limit_is_refused_and_one_at_it_is_not(
        self, backend: StorageBackend, clock: ManualClock
    ) -> None:
        """Equal is allowed."""
        store = TaskStore(backend, clock=clock, config=StoreConfig(max_payload_bytes=100))
        task = await store.create("ada", CALL)

        assert store.encode("x" * 98, what="arguments") == inline(b'"' + b"x" * 98 + b'"')
        with pytest.raises(InvalidValueError, match="101 bytes of JSON, 100 are allowed"):
            store.encode("x" * 99, what="arguments")
        with pytest.raises(InvalidValueError, match="101 bytes of JSON, 100 are allowed"):
            await store.set_result("ada", task.task_id, "x" * 99)
        await store.set_result("ada", task.task_id, "x" * 98)

    @pytest.mark.parametrize("owner", ["x" * 4097, "\ud800"])
    async def test_an_owner_that_cannot_be_stored_is_refused(
        self, store: TaskStore, owner: str
    ) -> None:
        """Before anything was written for it."""
        with pytest.raises(InvalidValueError):
            await store.create(owner, CALL)

        assert (await store.list(owner)).tasks == []

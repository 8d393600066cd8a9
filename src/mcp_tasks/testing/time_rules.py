"""How long a task lives, how it is stopped, and how large its values may be."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from msgspec import Raw

from mcp_tasks.domain.record import inline
from mcp_tasks.domain.status import TaskStatus
from mcp_tasks.errors import (
    InvalidTtlError,
    InvalidValueError,
    TaskExpiredError,
)
from mcp_tasks.store import StoreConfig, TaskStore
from mcp_tasks.testing.task_samples import ASK, CALL, CHANGES, OPERATIONS, claim, raw


if TYPE_CHECKING:
    from mcp_tasks.storage.base import StorageBackend
    from mcp_tasks.testing.clocks import ManualClock


class TimeRules:
    """Cancelling, progress, times to live, and values of any size."""

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
        assert isinstance(found.error.data, Raw)
        assert b'"expired"' in bytes(found.error.data)
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

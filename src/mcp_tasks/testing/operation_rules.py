"""Creating and reading tasks, moving them by the status table, and their variables."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from mcp_tasks.domain.status import TaskStatus
from mcp_tasks.errors import (
    InvalidTransitionError,
    InvalidValueError,
    TaskError,
    TaskNotFoundError,
    TaskTerminalError,
    VariablesTooLargeError,
)
from mcp_tasks.ids import is_task_id, new_task_id
from mcp_tasks.store import StoreConfig, TaskStore
from mcp_tasks.testing.task_samples import CALL, CHANGES, OPERATIONS, raw


if TYPE_CHECKING:
    from collections.abc import Awaitable

    from mcp_tasks.storage.base import StorageBackend
    from mcp_tasks.testing.clocks import ManualClock


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

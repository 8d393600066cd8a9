"""How many active tasks an owner may have."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from mcp_tasks.errors import QuotaExceededError
from mcp_tasks.store import StoreConfig, TaskStore
from mcp_tasks.testing.task_samples import CALL


if TYPE_CHECKING:
    from mcp_tasks.domain.record import TaskRecord
    from mcp_tasks.storage.base import StorageBackend
    from mcp_tasks.testing.clocks import ManualClock


async def race(
    stores: list[TaskStore], count: int, owner: str = "ada", *, claimed: bool = False
) -> tuple[list[str], int]:
    """Create `count` tasks at once, spread over the stores; return the ids, and how many failed."""

    def note(_record: TaskRecord) -> asyncio.Future[None]:
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        written.set_result(None)
        return written

    async def create(store: TaskStore) -> str:
        if claimed:
            return (await store.create_claimed(owner, CALL, "w1", note)).record.task_id
        return (await store.create(owner, CALL)).task_id

    outcomes = await asyncio.gather(
        *(create(stores[n % len(stores)]) for n in range(count)), return_exceptions=True
    )
    refused = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert {type(error) for error in refused} <= {QuotaExceededError}
    return [outcome for outcome in outcomes if isinstance(outcome, str)], len(refused)


async def active(store: TaskStore, owner: str = "ada") -> int:
    """Count an owner's tasks that have not ended, the slow way."""
    found, cursor = 0, None
    while True:
        page = await store.list(owner, cursor=cursor, limit=500)
        found += sum(not task.is_terminal for task in page.tasks)
        cursor = page.cursor
        if cursor is None:
            return found


class QuotaRules:
    """The limit holds for every task that anybody was told of."""

    @pytest.mark.parametrize("claimed", [False, True])
    @pytest.mark.parametrize("servers", [1, 4])
    async def test_of_many_creates_at_once_exactly_as_many_as_allowed_succeed(
        self, backend: StorageBackend, clock: ManualClock, servers: int, *, claimed: bool
    ) -> None:
        """Neither one more, however many race, nor one less."""
        stores = [TaskStore(backend, clock=clock) for _ in range(servers)]

        created, refused = await race(stores, 200, claimed=claimed)

        assert (len(set(created)), refused) == (100, 100)
        assert await active(stores[0]) == 100

    async def test_a_limit_over_a_block_is_exact_too(
        self, backend: StorageBackend, clock: ManualClock
    ) -> None:
        """Anonymous callers share a larger one, which lies in several records."""
        config = StoreConfig(max_active=1, max_active_anonymous=250)
        stores = [TaskStore(backend, clock=clock, config=config) for _ in range(3)]

        created, refused = await race(stores, 300, "anonymous")

        assert (len(set(created)), refused) == (250, 50)
        assert await active(stores[0], "anonymous") == 250

    async def test_a_task_that_ended_frees_its_place_at_once(
        self, backend: StorageBackend, clock: ManualClock
    ) -> None:
        """Only active tasks count, in whatever way and process they ended."""
        config = StoreConfig(max_active=4)
        store = TaskStore(backend, clock=clock, config=config)
        other = TaskStore(backend, clock=clock, config=config)
        tasks = [await store.create("ada", CALL, ttl=timedelta(hours=1)) for _ in range(4)]

        await store.cancel("ada", tasks[0].task_id)
        await store.create("ada", CALL)
        await other.set_result("ada", tasks[1].task_id, 1)
        await other.create("ada", CALL)
        await other.fail("ada", tasks[2].task_id, -32603, "no")
        await store.create("ada", CALL)
        clock.advance(timedelta(hours=1))
        await other.create("ada", CALL)

        with pytest.raises(QuotaExceededError, match="4 tasks are active"):
            await TaskStore(backend, clock=clock, config=config).create("ada", CALL)

    async def test_owners_and_namespaces_do_not_share_a_limit(
        self, backend: StorageBackend, clock: ManualClock
    ) -> None:
        """One busy user must not lock the others out."""
        config = StoreConfig(max_active=1)
        for namespace in ("", "other"):
            store = TaskStore(backend, namespace=namespace, clock=clock, config=config)
            for owner in ("ada", "ada~000", "eve"):
                await store.create(owner, CALL)
                with pytest.raises(QuotaExceededError):
                    await store.create(owner, CALL)

    async def test_a_refused_create_leaves_nothing_behind(
        self, backend: StorageBackend, clock: ManualClock
    ) -> None:
        """Neither a task nor anything that a worker might find."""
        store = TaskStore(backend, clock=clock, config=StoreConfig(max_active=1))
        await store.create("ada", CALL)
        ready = [
            record.key for record in (await backend.list_by_prefix(store.keys.readies())).records
        ]

        for claimed in (False, True):
            created, refused = await race(
                [TaskStore(backend, clock=clock, config=store.config)], 3, claimed=claimed
            )
            assert (created, refused) == ([], 3)

        assert len((await store.list("ada")).tasks) == 1
        page = await backend.list_by_prefix(store.keys.readies())
        assert [record.key for record in page.records] == ready

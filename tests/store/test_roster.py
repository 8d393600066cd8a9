"""Rosters: exact without counting, also around tasks that are not there (yet)."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from tests.store.wrappers import Around, Watched

from mcp_tasks.domain.codec import TOMBSTONE
from mcp_tasks.errors import QuotaExceededError
from mcp_tasks.ids import new_task_id
from mcp_tasks.store import StoreConfig, TaskStore
from mcp_tasks.testing.task_samples import CALL


if TYPE_CHECKING:
    from tests.store.wrappers import Seen

    from mcp_tasks.storage.base import StorageBackend
    from mcp_tasks.store.changes import Versioned
    from mcp_tasks.testing.clocks import ManualClock

ONE = StoreConfig(max_active=1)


async def create_claimed(store: TaskStore, owner: str = "ada") -> Versioned:
    """Create a task that is born claimed."""
    noted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    noted.set_result(None)
    return await store.create_claimed(owner, CALL, "w1", lambda _: noted)


async def test_a_create_that_is_overtaken_by_a_full_roster_does_not_pass_the_limit(
    backend: StorageBackend, clock: ManualClock
) -> None:
    """Its id was there without a record; that id is made useless before its place is given away."""
    on_roster, go_on = asyncio.Event(), asyncio.Event()

    class Slow(Around):
        async def put_if_version(
            self, key: str, data: bytes, expected_version: int, **kw: Any
        ) -> int:
            if key.startswith("ada:"):
                await go_on.wait()
            version = await super().put_if_version(key, data, expected_version, **kw)
            on_roster.set()
            return version

    slow = TaskStore(Slow(backend), clock=clock, config=ONE)
    hanging = asyncio.create_task(create_claimed(slow))
    async with asyncio.timeout(5):
        await on_roster.wait()

    quick = TaskStore(backend, clock=clock, config=ONE)
    winner = await quick.create("ada", CALL)
    go_on.set()
    with pytest.raises(QuotaExceededError):
        await hanging

    assert [task.task_id for task in (await quick.list("ada")).tasks] == [winner.task_id]


async def test_a_create_takes_another_id_when_its_own_was_buried(
    backend: StorageBackend, clock: ManualClock
) -> None:
    """With room on the roster it succeeds all the same."""
    watched = Watched(backend)
    store = TaskStore(watched, clock=clock)
    buried: list[str] = []

    async def gate(seen: Seen) -> None:
        if seen.operation == "swap" and seen.key.startswith("ada:") and not buried:
            buried.append(seen.key)
            await backend.put_if_version(seen.key, TOMBSTONE, 0)

    watched.gate = gate

    created = {(await store.create("ada", CALL)).task_id}
    first = buried.pop()
    created.add((await create_claimed(store)).record.task_id)

    assert {first, *buried}.isdisjoint(store.keys.task("ada", task_id) for task_id in created)
    # A tombstone shows to nobody.
    assert {task.task_id for task in (await store.list("ada")).tasks} == created


async def test_ids_without_a_record_hold_a_place_only_till_somebody_needs_it(
    backend: StorageBackend, clock: ManualClock
) -> None:
    """A process that died between the roster and the record must not lock its owner out."""
    store = TaskStore(backend, clock=clock, config=StoreConfig(max_active=3))
    dead = [new_task_id(clock.now()) for _ in range(3)]
    for task_id in dead:
        await store.quota.enter("ada", task_id)

    for _ in range(3):
        await TaskStore(backend, clock=clock, config=store.config).create("ada", CALL)

    with pytest.raises(QuotaExceededError):
        await TaskStore(backend, clock=clock, config=store.config).create("ada", CALL)
    for task_id in dead:
        with pytest.raises(Exception, match="task not found"):
            await store.get("ada", task_id)


async def test_a_record_that_cannot_be_read_keeps_its_place(
    backend: StorageBackend, clock: ManualClock
) -> None:
    """It may be active for a release that can read it."""
    store = TaskStore(backend, clock=clock, config=ONE)
    task = await store.create("ada", CALL)
    await backend.put(store.keys.task("ada", task.task_id), b"\x01sealed")

    with pytest.raises(QuotaExceededError):
        await TaskStore(backend, clock=clock, config=ONE).create("ada", CALL)


async def test_a_roster_block_stays_small(backend: StorageBackend, clock: ManualClock) -> None:
    """A thousand ids in one record would be rewritten with each create."""
    store = TaskStore(backend, clock=clock)
    for _ in range(4):
        await asyncio.gather(*(store.create("anonymous", CALL) for _ in range(100)))

    page = await backend.list_by_prefix("@rosters:")

    assert sum(len(record.data) for record in page.records) > 400 * 36
    assert max(len(record.data) for record in page.records) <= 100 * 39 + 1


async def test_it_can_be_told_whether_a_task_was_ever_admitted(
    backend: StorageBackend, clock: ManualClock
) -> None:
    """A task that nobody was told of is not run after its worker died."""
    store = TaskStore(backend, clock=clock)
    task = await store.create("ada", CALL)
    other = TaskStore(backend, clock=clock)

    assert await other.quota.holds("ada", task.task_id)
    assert not await other.quota.holds("ada", new_task_id(clock.now()))
    assert not await other.quota.holds("eve", task.task_id)


async def test_a_roster_outlives_the_tasks_on_it(
    backend: StorageBackend, clock: ManualClock
) -> None:
    """It would otherwise forget tasks that are still active."""
    store = TaskStore(backend, clock=clock, config=ONE)
    task = await store.create("ada", CALL, ttl=timedelta(days=7))
    clock.advance(timedelta(days=7) - timedelta(milliseconds=1))
    assert not (await store.get("ada", task.task_id)).is_terminal

    with pytest.raises(QuotaExceededError):
        await TaskStore(backend, clock=clock, config=ONE).create("ada", CALL)


async def test_a_client_that_gives_up_does_not_break_the_create_of_another(
    backend: StorageBackend, clock: ManualClock
) -> None:
    """They may have shared a swap."""
    watched = Watched(backend)
    store = TaskStore(watched, clock=clock)
    go_on = asyncio.Event()

    async def gate(_seen: Seen) -> None:
        await go_on.wait()

    watched.gate = gate
    first = asyncio.create_task(store.create("ada", CALL))
    second = asyncio.create_task(store.create("ada", CALL))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    go_on.set()

    created = await second

    assert [task.task_id for task in (await store.list("ada")).tasks] == [created.task_id]
    assert first.cancelled()

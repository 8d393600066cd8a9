"""Removing everything of one owner: all of it, nothing else, and never half a task."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from tests.store.wrappers import Fault, Faulty, Watched

from mcp_tasks.domain import transitions
from mcp_tasks.domain.record import Call, Policy, inline
from mcp_tasks.errors import (
    LeaseLostError,
    OwnerActiveError,
    RecordNotFoundError,
    StoreUnavailableError,
    TaskNotFoundError,
)
from mcp_tasks.ids import moment_of, new_task_id
from mcp_tasks.store import StoreConfig, TaskStore
from mcp_tasks.testing.task_samples import ACCEPT, ASK, CALL, QUESTION, claim, raw


if TYPE_CHECKING:
    from datetime import datetime

    from tests.store.wrappers import Seen

    from mcp_tasks.domain.record import TaskRecord
    from mcp_tasks.storage.base import StorageBackend
    from mcp_tasks.testing.clocks import ManualClock


LARGE = Call("report", inline(b'{"text":"' + b"x" * 300_000 + b'"}'))
KEY = "order-4711"


async def keys_of(store: TaskStore, owner: str) -> list[str]:
    """Return every key under which there is something of an owner."""
    keys, backend = store.keys, store.backend
    found: list[str] = []
    for prefix in (
        keys.tasks(owner),
        keys.values(owner),
        keys.rosters(owner),
        keys.uses(owner),
        keys.readies(),
        keys.inboxes("w1"),
    ):
        page = await backend.list_by_prefix(prefix)
        mine = prefix not in (keys.readies(), keys.inboxes("w1"))
        found += [r.key for r in page.records if mine or r.data == owner.encode()]
    return found


async def fill(store: TaskStore, owner: str) -> list[TaskRecord]:
    """Give an owner tasks in every state, all of them ended or without a worker."""
    await store.backend.put(store.keys.worker("w1"), b"{}")
    done = await store.create(owner, LARGE)
    await store.complete_with_result(owner, done.task_id, {"text": "y" * 300_000})
    await store.set_variables(owner, (await store.create(owner, CALL)).task_id, {"a": "z" * 9_000})
    asked = await store.create(owner, CALL, policy=Policy(resumable=True))
    await claim(store, asked)
    await store.ask(owner, asked.task_id, "q", ASK, QUESTION)
    await store.answer(owner, asked.task_id, {"q": ACCEPT})
    return (await store.list(owner)).tasks


async def end_all(store: TaskStore, owner: str) -> None:
    """End every task."""
    for task in (await store.list(owner)).tasks:
        if not task.is_terminal:
            await store.fail(owner, task.task_id, -32603, "no")


@pytest.mark.parametrize("owner", ["ada", "a:d/a~@ %", "x" * 300, "\u00fc"])
async def test_nothing_of_the_owner_is_left_and_all_of_others(
    store: TaskStore, clock: ManualClock, owner: str
) -> None:
    """Whatever it is called, and however alike another's name is."""
    others = ("adam", "ad", "a", "bob", owner + "~000", owner + "x")
    for name in (owner, *others):
        await store.create_once(name, KEY, LARGE)
    clock.advance(timedelta(hours=2))  # the keys are not young any more
    for name in (owner, *others):
        await fill(store, name)
        await end_all(store, name)
    await store.close()
    before = {name: await keys_of(store, name) for name in others}
    assert {key.partition(":")[0].partition(".")[0] for key in before["bob"]} == {
        "bob",
        "@blobs",
        "@rosters",
        "@keys",
        "@ready",
        "@inbox",
    }
    elsewhere = TaskStore(store.backend, namespace="other", clock=clock)
    await fill(elsewhere, owner)

    purged = await store.purge_owner(owner)

    assert await keys_of(store, owner) == []
    assert (purged.tasks, purged.keys, purged.unended, purged.left) == (4, 1, 0, 0)
    assert purged.values >= 3
    assert purged.entries >= 4
    for name in others:
        assert await keys_of(store, name) == before[name]
    assert len((await elsewhere.list(owner)).tasks) == 3
    assert await store.purge_owner(owner) == (0, 0, 0, 0, 0, 0)


async def test_tasks_that_have_not_ended_are_a_reason_to_refuse(store: TaskStore) -> None:
    """Work would go on that nobody could see."""
    made = await fill(store, "ada")
    before = await keys_of(store, "ada")

    with pytest.raises(OwnerActiveError, match="tasks that have not ended: 2; nothing was removed"):
        await store.purge_owner("ada")

    assert await store.holdings("ada") == (3, 2)
    assert await keys_of(store, "ada") == before
    assert (await store.list("ada")).tasks == made


async def test_with_cancel_they_are_cancelled_first(store: TaskStore) -> None:
    """Those that a worker runs get time to end."""
    await fill(store, "ada")
    running = (await store.create("ada", CALL)).task_id
    await claim(store, await store.get("ada", running))
    before = [task for task in (await store.list("ada")).tasks if not task.is_terminal]

    def hand_back(record: TaskRecord, now: datetime) -> TaskRecord:
        return transitions.hand_back(
            record, now, "w1", 1, started=True, retention=store.config.retention
        )

    purging = asyncio.create_task(store.purge_owner("ada", cancel=True))

    async def worker() -> None:
        for task in before:
            while (found := await store.get("ada", task.task_id)).cancel is None:
                await store.changes.wait(task.task_id, 0.01)
            if found.worker is not None:
                await asyncio.sleep(0.3)
                assert len((await store.list("ada")).tasks) == 4  # all are there until all end
                await store.change("ada", task.task_id, hand_back)

    async with asyncio.timeout(5):
        await worker()
        purged = await purging

    assert (purged.tasks, purged.unended) == (4, 0)
    assert await keys_of(store, "ada") == []


async def test_a_task_that_does_not_end_is_removed_and_its_worker_can_write_nothing(
    store: TaskStore,
) -> None:
    """Its worker may be dead, and nobody there to take over."""
    await store.backend.put(store.keys.worker("w1"), b"{}")
    task = await store.create("ada", CALL)
    claimed = await claim(store, task)

    purged = await store.purge_owner("ada", cancel=True, patience=0.1)

    assert (purged.tasks, purged.unended) == (1, 1)
    with pytest.raises(TaskNotFoundError):
        await store.change(
            "ada",
            task.task_id,
            lambda record, now: transitions.fail(
                record,
                now,
                transitions.failure_of("worker_lost", "late"),
                retention=store.config.retention,
            ),
            known=claimed,
        )
    assert await keys_of(store, "ada") == []


async def test_what_is_created_meanwhile_is_left_whole(
    backend: StorageBackend, clock: ManualClock
) -> None:
    """With its values, its place on the roster and its entry for workers."""
    watched = Watched(backend)
    store, other = TaskStore(watched, clock=clock), TaskStore(backend, clock=clock)
    await fill(other, "ada")
    await end_all(other, "ada")
    clock.advance(timedelta(hours=2))
    made: list[TaskRecord] = []
    first = True

    async def gate(seen: Seen) -> None:
        nonlocal first
        if seen.operation in ("delete", "put", "swap") and first:
            first = False
            made.append(await other.create_once("ada", "another", LARGE))

    watched.gate = gate
    # The first write of the purge comes after its look at what was created meanwhile.
    purged = await store.purge_owner("ada")

    (new,) = made
    assert (await other.list("ada")).tasks == [new]
    assert await other.load(new, new.call.arguments)
    assert await other.quota.holds("ada", new.task_id)
    assert await other.create_once("ada", "another", LARGE) == new
    await backend.get(other.keys.ready(new.task_id, 1))
    assert purged.tasks == 3
    clock.advance(timedelta(hours=2))
    assert (await store.purge_owner("ada", cancel=True)).tasks == 1
    assert await keys_of(other, "ada") == []


async def test_what_is_created_while_tasks_are_cancelled_is_left_and_reported(
    backend: StorageBackend, clock: ManualClock
) -> None:
    """By a server whose clock is behind, too."""
    watched = Watched(backend)
    store, other = TaskStore(watched, clock=clock), TaskStore(backend, clock=clock)
    old = await other.create("ada", CALL)
    made: list[TaskRecord] = []
    first = True

    async def gate(seen: Seen) -> None:
        nonlocal first
        if seen.operation == "swap" and seen.key.endswith(old.task_id) and first:
            first = False
            clock.set_back(timedelta(minutes=30))
            made.append(await other.create_once("ada", KEY, LARGE))
            clock.set_back(-timedelta(minutes=30))

    watched.gate = gate
    purged = await store.purge_owner("ada", cancel=True)

    (new,) = made
    assert (purged.tasks, purged.left) == (1, 1)
    assert (await other.list("ada")).tasks == [new]
    assert await other.load(new, new.call.arguments)
    assert await other.quota.holds("ada", new.task_id)
    assert await other.create_once("ada", KEY, LARGE) == new
    await backend.get(other.keys.ready(new.task_id, 1))


async def test_a_roster_goes_only_if_nobody_is_on_it(
    backend: StorageBackend, clock: ManualClock
) -> None:
    """Else the limit would no longer hold, and a task would look as if it was never admitted."""
    config = StoreConfig(max_active=250)
    store = TaskStore(backend, clock=clock, config=config)
    for _ in range(210):
        await store.create("ada", CALL)
    watched = Watched(backend)
    purger = TaskStore(watched, clock=clock)  # which knows nothing of the larger limit
    late: list[TaskRecord] = []
    first = True

    async def gate(seen: Seen) -> None:
        nonlocal first
        if seen.operation == "swap" and seen.key.startswith("@rosters") and first:
            first = False
            late.append(await store.create("ada", CALL))

    watched.gate = gate
    purged = await purger.purge_owner("ada", cancel=True)

    assert purged.tasks == 210
    assert await store.quota.holds("ada", late[0].task_id)
    blocks = (await backend.list_by_prefix(store.keys.rosters("ada"))).records
    assert len(blocks) == 1


async def test_a_create_that_was_under_way_takes_another_id(
    backend: StorageBackend, clock: ManualClock
) -> None:
    """Its place on the roster is gone, so its record must not come."""
    watched = Watched(backend)
    store, other = TaskStore(watched, clock=clock), TaskStore(backend, clock=clock)
    reached, go = asyncio.Event(), asyncio.Event()

    async def gate(seen: Seen) -> None:
        if seen.operation == "swap" and seen.key.startswith("ada:"):
            reached.set()
            await go.wait()

    watched.gate = gate
    creating = asyncio.create_task(store.create("ada", CALL))
    await reached.wait()
    assert (await other.purge_owner("ada")).entries == 1  # the roster
    go.set()
    task = await creating

    assert (await other.list("ada")).tasks == [task]
    assert await other.quota.holds("ada", task.task_id)


async def test_a_server_that_slept_does_not_make_the_task_of_a_key_anew(
    backend: StorageBackend, clock: ManualClock
) -> None:
    """Another one made it, it ran, and was removed; it must not run again."""
    watched = Watched(backend)
    store, other = TaskStore(watched, clock=clock), TaskStore(backend, clock=clock)
    reached, go = asyncio.Event(), asyncio.Event()

    async def gate(seen: Seen) -> None:
        if seen.operation == "swap" and seen.key.startswith("ada:"):
            reached.set()
            await go.wait()

    watched.gate = gate
    creating = asyncio.create_task(store.create_once("ada", KEY, CALL))
    await reached.wait()
    first = await other.create_once("ada", KEY, CALL)
    purged = await other.purge_owner("ada", cancel=True)
    go.set()
    task = await creating

    assert (purged.tasks, purged.keys) == (1, 1)
    assert task.task_id != first.task_id
    assert (await other.list("ada")).tasks == [task]


async def test_values_that_belong_to_no_task_go_when_they_are_old(
    store: TaskStore, clock: ManualClock
) -> None:
    """Left by a crash, or about to be named by a create that is under way."""
    task_id = new_task_id(clock.now())
    far = clock.now() + timedelta(days=3)
    await store.payloads.write(b"x" * 300_000, "ada", task_id, far)
    await store.index.put_ready(await store.create("bob", CALL), 1)

    assert (await store.purge_owner("ada")).values == 0
    clock.advance(timedelta(minutes=6))
    assert (await store.purge_owner("ada")).values == 2


async def test_a_damaged_record_goes_and_one_of_a_newer_release_stays(
    store: TaskStore, backend: StorageBackend
) -> None:
    """Nobody can repair the first; the second one is not ours to remove, and is reported."""
    damaged = await store.create("ada", CALL)
    sealed = await store.create("ada", CALL)
    newer = await store.create("ada", CALL)
    await backend.put(store.keys.task("ada", damaged.task_id), b'{"format":1')
    await backend.put(store.keys.task("ada", sealed.task_id), b"\x01sealed")
    data = (await raw(store, newer)).replace(b'"min_writer":1', b'"min_writer":9')
    await backend.put(store.keys.task("ada", newer.task_id), data)

    purged = await store.purge_owner("ada", cancel=True)

    assert (purged.tasks, purged.left) == (1, 2)
    with pytest.raises(RecordNotFoundError):
        await backend.get(store.keys.task("ada", damaged.task_id))
    for task in (sealed, newer):
        await backend.get(store.keys.task("ada", task.task_id))


@pytest.mark.parametrize("fault", [*Fault])
async def test_a_purge_that_fails_is_gone_on_with_by_another(
    backend: StorageBackend, clock: ManualClock, fault: Fault
) -> None:
    """Wherever it stopped: what is left is found."""
    faulty = Faulty(backend)
    calm = TaskStore(backend, clock=clock)
    for about in ("@blobs", "@ready", "ada:", "@keys", "@rosters"):
        clock.advance(timedelta(hours=2))
        await calm.create_once("ada", KEY, LARGE)
        await fill(calm, "ada")
        await end_all(calm, "ada")
        await calm.close()
        clock.advance(timedelta(hours=2))
        faulty.about = lambda key, about=about: key.startswith(about)
        faulty.plan = [fault, fault]
        store = TaskStore(faulty, clock=clock)
        for _ in range(3):
            try:
                await store.purge_owner("ada")
            except StoreUnavailableError:
                continue
            break

        assert faulty.plan == []
        assert await keys_of(calm, "ada") == [], about


async def test_a_worker_s_late_write_is_refused(store: TaskStore) -> None:
    """What was removed does not come back."""
    task = await store.create("ada", CALL)
    claimed = await claim(store, task)
    await store.purge_owner("ada", cancel=True, patience=0.01)

    with pytest.raises((TaskNotFoundError, LeaseLostError)):
        await store.change(
            "ada",
            task.task_id,
            lambda r, now: transitions.extend(r, now, timedelta(days=3), max_ttl=timedelta(days=7)),
            known=claimed,
        )
    assert (await store.list("ada")).tasks == []


def test_an_id_says_when_it_was_made(clock: ManualClock) -> None:
    """To the millisecond."""
    made = clock.now().replace(microsecond=123_000)

    assert moment_of(new_task_id(made)) == made

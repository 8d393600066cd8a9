"""The order of writes: who is killed between two of them leaves nothing that nobody finds."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from tests.store.wrappers import Fault, Faulty, Watched

from mcp_tasks.domain import transitions
from mcp_tasks.domain.record import Call, Policy
from mcp_tasks.domain.status import TaskStatus
from mcp_tasks.errors import RecordNotFoundError, StoreUnavailableError
from mcp_tasks.store import TaskStore
from mcp_tasks.testing.task_samples import ACCEPT, ASK, CALL, QUESTION, claim


if TYPE_CHECKING:
    from datetime import datetime

    from tests.store.wrappers import Seen

    from mcp_tasks.domain.record import TaskRecord
    from mcp_tasks.storage.base import StorageBackend
    from mcp_tasks.store.changes import Versioned
    from mcp_tasks.testing.clocks import ManualClock

RESUMABLE = Policy(resumable=True)


@pytest.fixture
def watched(backend: StorageBackend) -> Watched:
    """Give a backend that notes every call."""
    return Watched(backend)


@pytest.fixture
def store(watched: Watched, clock: ManualClock) -> TaskStore:
    """Give a store over it."""
    return TaskStore(watched, clock=clock)


def writes(watched: Watched, *, without: str = "@config") -> list[tuple[str, str]]:
    """Return the writes since the last time, in the order in which they began."""
    return [call for call in watched.take() if call[0] not in ("get", "list")]


async def test_a_create_enters_the_roster_before_anything_that_a_worker_could_find(
    store: TaskStore, watched: Watched
) -> None:
    """Another worker may start the task the moment record and entry are there."""
    done: list[str] = []

    async def gate(seen: Seen) -> None:
        if seen.key.startswith("@rosters"):
            await asyncio.sleep(0.01)
            done.append("roster")
        elif seen.operation in ("put", "swap"):
            done.append(seen.key.partition(":")[0])

    watched.gate = gate

    task = await store.create("ada", CALL)

    assert done[:2] == ["roster", "roster"]  # read, swapped
    assert sorted(done[2:]) == ["@ready", "ada"]
    assert writes(watched)[1:] in (
        [
            ("put", store.keys.ready(task.task_id, 1)),
            ("swap", store.keys.task("ada", task.task_id)),
        ],
        [
            ("swap", store.keys.task("ada", task.task_id)),
            ("put", store.keys.ready(task.task_id, 1)),
        ],
    )


async def test_a_task_that_others_finish_is_announced_to_no_worker(
    store: TaskStore, watched: Watched
) -> None:
    """Nobody here has a body for it."""
    task = await store.create("ada", CALL, policy=Policy(external=True))
    await store.ask("ada", task.task_id, "q", ASK, QUESTION)
    await store.answer("ada", task.task_id, {"q": ACCEPT})

    assert not [key for _, key in writes(watched) if key.startswith("@ready")]


async def test_a_create_that_is_born_claimed_answers_when_all_three_are_written(
    store: TaskStore, watched: Watched
) -> None:
    """Record, roster and the worker's note go in parallel, and the id stays secret till then."""
    noted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    began: list[str] = []

    async def gate(seen: Seen) -> None:
        began.append(seen.key.partition(":")[0])
        await asyncio.sleep(0.01)

    watched.gate = gate
    creating = asyncio.create_task(store.create_claimed("ada", CALL, "w1", lambda _: noted))
    await asyncio.sleep(0.005)
    assert sorted(began) == ["@rosters", "ada"]  # both under way before either is done
    await asyncio.sleep(0.05)
    assert not creating.done()

    noted.set_result(None)
    created = await creating

    assert (created.record.worker, created.record.attempt, created.version) == ("w1", 1, 1)
    assert await store.get("ada", created.record.task_id) == created.record


async def test_a_cancel_tells_the_worker_before_the_flag_is_there(
    store: TaskStore, watched: Watched
) -> None:
    """With the entry last, a kill between leaves a flag of which a live worker never hears."""
    task = await store.create("ada", CALL)
    claimed = await claim(store, task)
    watched.take()

    await store.cancel("ada", task.task_id)

    assert watched.take() == [
        ("get", store.keys.task("ada", task.task_id)),
        ("put", store.keys.inbox("w1", task.task_id, claimed.version + 1)),
        ("swap", store.keys.task("ada", task.task_id)),
    ]
    # Asked again: whoever set the flag may have died first, so the worker is told anew.
    await store.cancel("ada", task.task_id)
    assert watched.take() == [
        ("get", store.keys.task("ada", task.task_id)),
        ("put", store.keys.inbox("w1", task.task_id, claimed.version + 1)),
    ]


async def test_a_worker_of_this_process_needs_no_entry(store: TaskStore, watched: Watched) -> None:
    """It hears of every write that is made here."""
    task = await store.create("ada", CALL)
    await claim(store, task)
    store.index.here.add("w1")
    heard: list[Versioned] = []
    store.changes.listeners.append(heard.append)
    watched.take()

    await store.cancel("ada", task.task_id)

    assert writes(watched) == [("swap", store.keys.task("ada", task.task_id))]
    assert heard[-1].record.cancel is not None


async def test_an_answer_tells_the_worker_that_waits_before_it_is_there(
    store: TaskStore, watched: Watched
) -> None:
    """As with a cancel; the client does not send it again once it was acknowledged."""
    task = await store.create("ada", CALL)
    await claim(store, task)
    await store.ask("ada", task.task_id, "q", ASK, QUESTION)
    await store.ask("ada", task.task_id, "r", ASK, QUESTION)
    key = store.keys.task("ada", task.task_id)
    watched.take()

    await store.answer("ada", task.task_id, {"q": ACCEPT})

    assert watched.take() == [
        ("get", key),
        ("put", store.keys.inbox("w1", task.task_id, 5)),
        ("swap", key),
    ]
    assert (await watched.inner.get(key)).version == 5


@pytest.mark.parametrize("last", [True, False])
async def test_the_answer_that_a_parked_task_waits_for_makes_it_ready_first(
    store: TaskStore, watched: Watched, *, last: bool
) -> None:
    """The entry carries the attempt that will run; an answer that leaves questions has none."""
    task = await store.create("ada", CALL, policy=RESUMABLE)
    await claim(store, task)
    await store.ask("ada", task.task_id, "q", ASK, QUESTION)
    if not last:
        await store.ask("ada", task.task_id, "r", ASK, QUESTION)
    await park(store, task)
    watched.take()

    await store.answer("ada", task.task_id, {"q": ACCEPT})

    record = ("swap", store.keys.task("ada", task.task_id))
    ready = ("put", store.keys.ready(task.task_id, 2))
    assert writes(watched) == ([ready, record] if last else [record])


async def park(store: TaskStore, task: TaskRecord) -> Versioned:
    """Let a task wait for its answers without its worker."""

    def transition(record: TaskRecord, now: datetime) -> TaskRecord:
        return transitions.park(record, now, "w1", 1, retention=store.config.retention)

    return await store.change("ada", task.task_id, transition)


async def test_parking_is_one_write(store: TaskStore, watched: Watched) -> None:
    """Nobody has to find a task that waits for its client."""
    task = await store.create("ada", CALL, policy=RESUMABLE)
    await claim(store, task)
    await store.ask("ada", task.task_id, "q", ASK, QUESTION)
    watched.take()

    parked = await park(store, task)

    assert (parked.record.worker, parked.record.status) == (None, TaskStatus.INPUT_REQUIRED)
    assert writes(watched) == [("swap", store.keys.task("ada", task.task_id))]


@pytest.mark.parametrize("dead", [True, False])
async def test_a_task_is_ready_for_others_before_its_worker_lets_it_go(
    store: TaskStore, watched: Watched, *, dead: bool
) -> None:
    """Handed back or taken from a dead worker: a free task without an entry waits for ever."""
    task = await store.create("ada", CALL, policy=RESUMABLE)
    await claim(store, task)
    retention = store.config.retention
    watched.take()

    def transition(record: TaskRecord, now: datetime) -> TaskRecord:
        if dead:
            return transitions.take_from_dead(record, now, "w1", admitted=True, retention=retention)
        return transitions.hand_back(record, now, "w1", 1, started=True, retention=retention)

    await store.change("ada", task.task_id, transition)

    assert writes(watched) == [
        ("put", store.keys.ready(task.task_id, 2)),
        ("swap", store.keys.task("ada", task.task_id)),
    ]
    assert store.keys.entry(store.keys.ready(task.task_id, 2)) == (task.task_id, 2)


async def test_a_touch_writes_the_record_alone(store: TaskStore, watched: Watched) -> None:
    """A claim that a dead worker began before it stopped then finds another version."""
    task = await store.create("ada", CALL)
    watched.take()

    touched = await store.change(
        "ada",
        task.task_id,
        lambda record, now: transitions.take_from_dead(
            record, now, "w9", admitted=True, retention=store.config.retention
        ),
    )

    assert (touched.version, touched.record.worker) == (2, None)
    assert writes(watched) == [("swap", store.keys.task("ada", task.task_id))]


async def test_without_its_entry_the_record_is_not_written(
    backend: StorageBackend, clock: ManualClock
) -> None:
    """The index comes first, or the change does not come at all."""
    faulty = Faulty(backend)
    store = TaskStore(faulty, clock=clock)
    task = await store.create("ada", CALL)
    await claim(store, task)
    faulty.about = lambda key: key.startswith("@inbox")
    faulty.plan = [Fault.REFUSED]

    with pytest.raises(StoreUnavailableError) as failed:
        await store.cancel("ada", task.task_id)

    assert failed.value.happened is False
    assert (await store.get("ada", task.task_id)).cancel is None


async def test_values_are_written_before_the_record_that_names_them(
    store: TaskStore, watched: Watched
) -> None:
    """A record never names a value that is not there."""
    task = await store.create("ada", CALL)
    watched.take()

    await store.set_result("ada", task.task_id, "x" * 300_000)

    calls = writes(watched)
    assert [key.partition(":")[0] for _, key in calls] == ["@blobs.ada", "@blobs.ada", "ada"]


async def test_what_only_a_run_needs_is_removed_after_the_end(
    store: TaskStore, watched: Watched
) -> None:
    """4 MiB of arguments do not lie about for a day; variables and result do, to be read."""
    call = Call("report", store.encode("x" * 10_000, what="arguments"))
    task = await store.create("ada", call)
    first = (await store.get("ada", task.task_id)).call.arguments.blob
    assert first is not None
    await store.set_variables("ada", task.task_id, {"v": "x" * 10_000})
    await store.set_result("ada", task.task_id, "x" * 10_000)
    await store.close()

    with pytest.raises(RecordNotFoundError):
        await watched.inner.get(store.keys.blob("ada", task.task_id, first.name, 0))
    assert await store.get_variables("ada", task.task_id) == {"v": "x" * 10_000}
    assert await store.get_result("ada", task.task_id) == "x" * 10_000
    page = await watched.inner.list_by_prefix(store.keys.blobs("ada", task.task_id))
    assert len(page.records) == 2


async def test_variables_that_were_replaced_are_removed(store: TaskStore, watched: Watched) -> None:
    """A task that sets large variables a thousand times keeps one copy."""
    task = await store.create("ada", CALL)
    for turn in range(5):
        await store.set_variables("ada", task.task_id, {"v": [turn, "x" * 10_000]})
    await store.close()

    page = await watched.inner.list_by_prefix(store.keys.blobs("ada", task.task_id))
    assert len(page.records) == 1

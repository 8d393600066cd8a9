"""Writes that nobody answers: no false conflict, no double effect, and never a guess."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from tests.store.wrappers import Fault, Faulty

from mcp_tasks.domain import transitions
from mcp_tasks.domain.status import TaskStatus
from mcp_tasks.errors import (
    ContentionError,
    OutcomeUnknownError,
    QuotaExceededError,
    RecordFormatError,
    StorageUnavailableError,
    StoreUnavailableError,
    TaskTerminalError,
    VersionConflictError,
)
from mcp_tasks.store import StoreConfig, TaskStore
from mcp_tasks.testing.task_samples import ACCEPT, ASK, CALL, QUESTION, claim, raw


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mcp_tasks.domain.record import TaskRecord
    from mcp_tasks.storage.base import StorageBackend, StoredRecord
    from mcp_tasks.testing.clocks import ManualClock

UNANSWERED = [Fault.APPLIED, Fault.LOST, Fault.LATE, Fault.AFTER_RETRY]
IDS = [fault.name.lower() for fault in UNANSWERED]


@pytest.fixture
def faulty(backend: StorageBackend) -> Faulty:
    """Give a backend that can lose answers."""
    return Faulty(backend)


@pytest.fixture
def store(faulty: Faulty, clock: ManualClock) -> TaskStore:
    """Give a store over it."""
    return TaskStore(faulty, clock=clock)


@pytest.fixture
def other(backend: StorageBackend, clock: ManualClock) -> TaskStore:
    """Give a store of another process, whose writes are all answered."""
    return TaskStore(backend, clock=clock)


async def free(store: TaskStore, task_id: str) -> Any:
    """Let worker w1 hand the task back unstarted."""
    return await store.change(
        "ada",
        task_id,
        lambda record, now: transitions.hand_back(
            record, now, "w1", 1, started=False, retention=store.config.retention
        ),
    )


CHANGES: dict[str, Callable[[TaskStore, str], Awaitable[Any]]] = {
    "update_status": lambda store, task: store.update_status(
        "ada", task, TaskStatus.INPUT_REQUIRED, "wait"
    ),
    "set_variables": lambda store, task: store.set_variables("ada", task, {"a": 1}),
    "large_variables": lambda store, task: store.set_variables("ada", task, {"a": "x" * 9_999}),
    "complete": lambda store, task: store.complete_with_result("ada", task, {"content": []}),
    "fail": lambda store, task: store.fail("ada", task, -32603, "no"),
    "ask": lambda store, task: store.ask("ada", task, "q", ASK, QUESTION),
    "answer": lambda store, task: store.answer("ada", task, {"first": ACCEPT}),
    "cancel": lambda store, task: store.cancel("ada", task),
    "progress": lambda store, task: store.progress("ada", task, 1, 2),
    "extend": lambda store, task: store.extend("ada", task, timedelta(days=2)),
    "hand_back": free,
}


async def prepared(store: TaskStore, name: str) -> TaskRecord:
    """Create a task on which the change named has something to do."""
    task = await store.create("ada", CALL)
    await claim(store, task)
    if name == "answer":
        await store.ask("ada", task.task_id, "first", ASK, QUESTION)
    return task


def about(task: TaskRecord) -> Callable[[str], bool]:
    """Choose the record of a task."""
    return lambda key: key.endswith(f":{task.task_id}")


@pytest.mark.parametrize("fault", UNANSWERED, ids=IDS)
@pytest.mark.parametrize("name", CHANGES)
async def test_an_unanswered_change_takes_effect_exactly_once(
    store: TaskStore, faulty: Faulty, other: TaskStore, name: str, fault: Fault
) -> None:
    """Whatever became of the first copy, the caller sees one clean success."""
    calm = await prepared(other, name)
    await CHANGES[name](other, calm.task_id)
    task = await prepared(store, name)
    before = await other.read("ada", task.task_id)
    faulty.about, faulty.plan = about(task), [fault, fault]

    await CHANGES[name](store, task.task_id)

    after, expected = await other.read("ada", task.task_id), await other.get("ada", calm.task_id)
    assert faulty.plan == []
    assert after.version == before.version + 1
    assert alike(after.record) == alike(expected)


def alike(record: TaskRecord) -> tuple[Any, ...]:
    """Return what two tasks with the same past have in common."""
    return (
        record.status,
        record.message,
        record.worker,
        record.attempt,
        record.lost,
        record.cancel,
        record.progress,
        record.questions,
        record.asked,
        record.journal,
        record.error,
        record.ttl,
        record.variables is None or record.variables.size,
        record.result,
    )


@pytest.mark.parametrize("fault", UNANSWERED, ids=IDS)
@pytest.mark.parametrize("later", [1, 7])
@pytest.mark.parametrize("name", ["set_variables", "extend", "ask", "cancel"])
async def test_an_unanswered_change_is_recognised_under_later_writes(
    store: TaskStore, faulty: Faulty, other: TaskStore, name: str, later: int, fault: Fault
) -> None:
    """Somebody else may stand on top of it before it is sent again."""
    task = await prepared(store, name)
    before = await other.read("ada", task.task_id)
    faulty.about, faulty.plan = about(task), [fault]
    faulty.meanwhile = lambda: progress(other, task, later)

    await CHANGES[name](store, task.task_id)

    after = await other.read("ada", task.task_id)
    assert after.version == before.version + later + 1
    assert after.record.progress is not None
    assert after.record.asked == (1 if name == "ask" else 0)
    assert await other.get_variables("ada", task.task_id) == (
        {"a": 1} if name == "set_variables" else {}
    )
    assert (after.record.cancel is not None) == (name == "cancel")


async def progress(store: TaskStore, task: TaskRecord, times: int) -> None:
    """Write a task's record so many times."""
    for turn in range(times):
        await store.progress("ada", task.task_id, turn)


@pytest.mark.parametrize("fault", [Fault.APPLIED, Fault.LOST])
async def test_under_too_many_later_writes_it_is_said_that_nobody_knows(
    store: TaskStore, faulty: Faulty, other: TaskStore, fault: Fault
) -> None:
    """A record remembers eight write ids; a blind repetition could undo what others did since."""
    task = await prepared(store, "set_variables")
    faulty.about, faulty.plan = about(task), [fault]
    faulty.meanwhile = lambda: progress(other, task, 9)

    with pytest.raises(StoreUnavailableError, match="it may have happened") as unknown:
        await store.set_variables("ada", task.task_id, {"a": 1})

    assert unknown.value.happened is None


@pytest.mark.parametrize("fault", UNANSWERED, ids=IDS)
@pytest.mark.parametrize("claimed", [True, False])
@pytest.mark.parametrize("part", ["record", "roster"])
async def test_an_unanswered_create_makes_one_task(
    store: TaskStore, faulty: Faulty, other: TaskStore, fault: Fault, part: str, *, claimed: bool
) -> None:
    """Neither none that was told of, nor two, nor two places on the roster."""
    roster = store.keys.roster("ada", 0)
    faulty.about = lambda key: (
        (key == roster) == (part == "roster") and not key.startswith("@ready")
    )
    faulty.plan = [fault, fault]

    created = await create(store, claimed=claimed)

    assert faulty.plan == []
    assert [task.task_id for task in (await other.list("ada")).tasks] == [created.task_id]
    assert (await other.backend.get(roster)).data == b'["%s"]' % created.task_id.encode()


async def create(store: TaskStore, *, claimed: bool = False) -> TaskRecord:
    """Create a task, born claimed or not."""
    if not claimed:
        return await store.create("ada", CALL)
    noted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    noted.set_result(None)
    return (await store.create_claimed("ada", CALL, "w1", lambda _: noted)).record


@pytest.mark.parametrize("fault", UNANSWERED, ids=IDS)
async def test_an_unanswered_index_entry_is_written_again(
    store: TaskStore, faulty: Faulty, other: TaskStore, fault: Fault
) -> None:
    """Its key is never used for anything else, so twice is as good as once."""
    task = await prepared(store, "cancel")
    faulty.about, faulty.plan = lambda key: key.startswith("@inbox"), [fault, fault]

    await store.cancel("ada", task.task_id)

    assert (await other.get("ada", task.task_id)).cancel is not None
    page = await other.backend.list_by_prefix(other.keys.inboxes("w1"))
    assert len(page.records) == 1


@pytest.mark.parametrize("fault", UNANSWERED, ids=IDS)
async def test_a_task_past_its_time_ends_once_though_nobody_answers(
    store: TaskStore, faulty: Faulty, other: TaskStore, clock: ManualClock, fault: Fault
) -> None:
    """The reader whose write was lost sees what all others see."""
    task = await store.create("ada", CALL, ttl=timedelta(minutes=1))
    clock.advance(timedelta(minutes=1))
    faulty.about, faulty.plan = about(task), [fault, fault]

    found = await store.get("ada", task.task_id)

    assert found == await other.get("ada", task.task_id)
    assert (await other.read("ada", task.task_id)).version == 2


async def test_an_unanswered_outcome_is_not_taken_for_somebody_elses(
    store: TaskStore, faulty: Faulty, other: TaskStore
) -> None:
    """The result that landed is one's own, so it is a success; another's is a refusal."""
    mine, theirs = await prepared(store, "complete"), await prepared(store, "complete")
    faulty.about, faulty.plan = about(mine), [Fault.APPLIED]
    assert (await store.set_result("ada", mine.task_id, 1)).status is TaskStatus.COMPLETED

    faulty.about, faulty.plan = about(theirs), [Fault.LOST]
    faulty.meanwhile = lambda: other.set_result("ada", theirs.task_id, 2)
    with pytest.raises(TaskTerminalError):
        await store.set_result("ada", theirs.task_id, 1)

    assert await other.get_result("ada", theirs.task_id) == 2


@pytest.mark.parametrize("name", ["cancel", "complete"])
async def test_a_change_that_landed_unanswered_is_heard_of_in_this_process(
    store: TaskStore, faulty: Faulty, name: str
) -> None:
    """A worker here has no inbox: it must hear, and an ended task must leave the roster."""
    task = await prepared(store, name)
    heard: list[Any] = []
    store.changes.listeners.append(heard.append)
    faulty.about, faulty.plan = about(task), [Fault.APPLIED]

    await CHANGES[name](store, task.task_id)

    assert len(heard) == 1
    assert (heard[0].record.cancel is not None, heard[0].record.is_terminal) == (
        name == "cancel",
        name == "complete",
    )


async def test_a_flag_that_landed_after_patience_ran_out_is_heard_of_with_the_next_call(
    faulty: Faulty, clock: ManualClock
) -> None:
    """The client asks again; that it changes nothing any more must not keep it from the worker."""
    store = TaskStore(faulty, clock=clock, config=StoreConfig(settle=0.001))
    task = await prepared(store, "cancel")
    store.index.here.add("w1")
    faulty.about, faulty.plan = about(task), [Fault.APPLIED] * 50
    with pytest.raises(StoreUnavailableError, match="it may have happened"):
        await store.cancel("ada", task.task_id)
    faulty.plan = []
    heard: list[Any] = []
    store.changes.listeners.append(heard.append)

    await store.cancel("ada", task.task_id)

    assert [change.record.cancel is not None for change in heard] == [True]


@pytest.mark.parametrize("name", CHANGES)
async def test_a_database_that_refuses_leaves_all_as_it_was(
    store: TaskStore, faulty: Faulty, other: TaskStore, name: str
) -> None:
    """What is said not to have happened has not, and may simply be tried again."""
    task = await prepared(store, name)
    before = await raw(other, task)
    faulty.about, faulty.plan = about(task), [Fault.REFUSED]

    with pytest.raises(StoreUnavailableError, match="nothing was changed") as refused:
        await CHANGES[name](store, task.task_id)

    assert refused.value.happened is False
    assert await raw(other, task) == before
    await CHANGES[name](store, task.task_id)


async def test_a_database_that_goes_away_after_an_unanswered_write_settles_nothing(
    faulty: Faulty, clock: ManualClock
) -> None:
    """The first copy may still land, so it cannot be said that nothing was changed."""
    store = TaskStore(faulty, clock=clock, config=StoreConfig(settle=0.05))
    task = await prepared(store, "cancel")
    faulty.about, faulty.plan = about(task), [Fault.LOST] + [Fault.REFUSED] * 500

    with pytest.raises(StoreUnavailableError) as unknown:
        await store.cancel("ada", task.task_id)

    assert unknown.value.happened is None


async def test_an_unanswered_write_that_nobody_can_look_up_is_not_denied(
    store: TaskStore, faulty: Faulty, other: TaskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was made; the look that would have shown it failed."""
    task = await prepared(store, "cancel")
    faulty.about, faulty.plan = about(task), [Fault.APPLIED]

    async def away(_key: str) -> StoredRecord:
        reason = "it is away"
        raise StorageUnavailableError(reason)

    async def leave() -> None:
        monkeypatch.setattr(faulty, "get", away)

    faulty.meanwhile = leave
    with pytest.raises(StoreUnavailableError, match="may have happened") as unknown:
        await store.cancel("ada", task.task_id)

    assert unknown.value.happened is None
    assert (await other.get("ada", task.task_id)).cancel is not None


async def test_an_unanswered_create_that_nobody_can_look_up_is_not_denied(
    store: TaskStore, faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task may exist that nobody knows: operators should hear of it."""
    faulty.about = lambda key: key.startswith("ada:")
    faulty.plan = [Fault.APPLIED]

    async def away(key: str) -> StoredRecord:
        if not faulty.about(key):
            return await faulty.inner.get(key)
        reason = "it is away"
        raise StorageUnavailableError(reason)

    monkeypatch.setattr(faulty, "get", away)
    with pytest.raises(StoreUnavailableError) as unknown:
        await store.create("ada", CALL)

    assert unknown.value.happened is None


async def test_a_create_that_fails_half_way_leaves_no_task_in_a_list(
    store: TaskStore, faulty: Faulty, other: TaskStore
) -> None:
    """Nobody was told of it and nobody runs it, so it must not look as if it worked."""
    faulty.about, faulty.plan = lambda key: key.startswith("@rosters"), [Fault.REFUSED]

    with pytest.raises(StoreUnavailableError):
        await create(store, claimed=True)
    await store.close()

    assert (await other.list("ada")).tasks == []


async def test_a_create_that_is_refused_is_withdrawn_though_nobody_answers(
    faulty: Faulty, other: TaskStore, clock: ManualClock
) -> None:
    """A task that was born claimed and found no place on the roster must not stay."""
    store = TaskStore(faulty, clock=clock, config=StoreConfig(max_active=1))
    await store.create("ada", CALL)

    class Lossy(Faulty):
        lost = 0

        async def delete(self, key: str) -> bool:
            self.lost += 1
            if self.lost < 3:
                raise OutcomeUnknownError(key, "no answer")
            return await super().delete(key)

    lossy = Lossy(faulty)
    with pytest.raises(QuotaExceededError):
        await create(TaskStore(lossy, clock=clock, config=store.config), claimed=True)

    assert lossy.lost == 3
    assert len((await other.list("ada")).tasks) == 1


async def test_writers_that_always_lose_are_told_so(
    backend: StorageBackend, clock: ManualClock
) -> None:
    """After sixteen tries the caller decides; nothing was changed."""

    class Contended(Faulty):
        def __init__(self, inner: StorageBackend) -> None:
            super().__init__(inner)
            self.part = "ada"
            self.tries = 0

        async def put_if_version(
            self, key: str, data: bytes, expected_version: int, **kw: Any
        ) -> int:
            if key.startswith(self.part):
                self.tries += 1
                raise VersionConflictError(key, expected_version, expected_version + 1)
            return await super().put_if_version(key, data, expected_version, **kw)

    task = await TaskStore(backend, clock=clock).create("ada", CALL)
    contended = Contended(backend)
    store = TaskStore(contended, clock=clock)

    with pytest.raises(ContentionError, match="changed 16 times"):
        await store.progress("ada", task.task_id, 1)
    assert contended.tries == 16

    contended.part = "@rosters"
    store = TaskStore(contended, clock=clock, config=StoreConfig(max_tries=2))
    with pytest.raises(ContentionError):  # and not that the owner has too many tasks
        await store.create("eve", CALL)


async def test_a_damaged_roster_is_an_error_and_no_hang(
    backend: StorageBackend, store: TaskStore
) -> None:
    """A create that waits for ever would be worse."""
    await backend.put(store.keys.roster("ada", 0), b'["half')

    async with asyncio.timeout(5):
        with pytest.raises(RecordFormatError, match="roster"):
            await store.create("ada", CALL)


async def test_a_last_try_that_nobody_answered_is_not_said_to_have_changed_nothing(
    faulty: Faulty, clock: ManualClock
) -> None:
    """It may be what is there now."""
    store = TaskStore(faulty, clock=clock, config=StoreConfig(max_tries=1))
    task = await prepared(store, "extend")
    faulty.about, faulty.plan = about(task), [Fault.APPLIED]

    with pytest.raises(StoreUnavailableError, match="it may have happened"):
        await store.extend("ada", task.task_id, timedelta(days=2))

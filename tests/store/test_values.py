"""Values beside the record: written first, in pieces that fit, and never in its way."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from msgspec import Raw
from msgspec.structs import replace
from tests.store.wrappers import Fault, Faulty, Small, Watched

from mcp_tasks.domain import journal, transitions
from mcp_tasks.domain.record import Call, Entry, Failure, Policy
from mcp_tasks.errors import (
    InvalidValueError,
    RecordFormatError,
    RecordNotFoundError,
    StoreUnavailableError,
)
from mcp_tasks.store import StoreConfig, TaskStore
from mcp_tasks.testing.task_samples import ACCEPT, ASK, CALL, QUESTION, claim, raw


if TYPE_CHECKING:
    from datetime import datetime

    from tests.store.wrappers import Seen

    from mcp_tasks.domain.record import TaskRecord
    from mcp_tasks.storage.base import StorageBackend
    from mcp_tasks.testing.clocks import ManualClock

HEAD = 32 * 1024


async def add_steps(store: TaskStore, task: TaskRecord, entries: list[Entry]) -> TaskRecord:
    """Record steps in one write."""

    def transition(record: TaskRecord, now: datetime) -> TaskRecord:
        new = journal.append(record.journal, entries, max_entries=10_000, max_bytes=2**26)
        return record if new is record.journal else _with(record, journal=new, updated_at=now)

    return (await store.change("ada", task.task_id, transition, run="run-1")).record


def _with(record: TaskRecord, **changes: Any) -> TaskRecord:
    return replace(record, **changes)


async def step(store: TaskStore, task: TaskRecord, key: str, data: bytes) -> Entry:
    """Make the journal entry of a step."""
    value = await store.fitting.place(data, "ada", task.task_id, task.created_at)
    return Entry(key, "step", value, "work")


async def steps_of(store: TaskStore, record: TaskRecord) -> dict[str, bytes]:
    """Read a journal as a run does that begins."""
    entries: list[Entry] = []
    for blob in record.journal.sealed:
        for chunk in await store.payloads.chunks(blob, "ada", record.task_id):
            entries += journal.decode_chunk(chunk)
    entries += record.journal.tail
    return {
        entry.key: bytes(await store.payloads.read(entry.value, "ada", record.task_id))
        for entry in entries
    }


async def test_the_head_stays_small_whatever_a_task_carries(store: TaskStore) -> None:
    """A poll reads it and a change rewrites it, so it must not grow with the work."""
    call = Call(
        "report",
        store.encode("x" * 4000, what="arguments"),
        input_responses=store.encode("x" * 4000, what="responses"),
        request_state="s" * 4000,
        client_info=Raw(b'"%s"' % (b"i" * 2000)),
    )
    task = await store.create("ada", call, policy=Policy(resumable=True))
    await claim(store, task)
    await store.set_variables("ada", task.task_id, {"v": "x" * 4000})
    for number in range(64):
        params = {"message": "m" * (900 if number % 2 else 70_000)}
        await store.ask("ada", task.task_id, f"question-{number:03}", ASK, params)
        assert len(await raw(store, task)) <= HEAD
    record = task
    for batch in range(20):
        entries = [
            await step(store, task, f"{batch}-{n}", b'"%s"' % (b"s" * 300)) for n in range(50)
        ]
        record = await add_steps(store, task, entries)
        assert len(await raw(store, task)) <= HEAD
    await store.progress("ada", task.task_id, 1, 2, "p" * 4096)

    assert len(await raw(store, task)) <= HEAD
    assert len(record.questions) == 64
    for question in record.questions:
        assert len((await store.load(record, question.params))["message"]) in (900, 70_000)
    assert await steps_of(store, record) == {
        f"{batch}-{n}": b'"%s"' % (b"s" * 300) for batch in range(20) for n in range(50)
    }
    answers = {question.key: ACCEPT for question in record.questions}
    await store.answer("ada", task.task_id, answers)
    failed = await store.fail("ada", task.task_id, -32603, "é" * 2048, "d" * 4000)
    assert failed.is_terminal
    assert len(await raw(store, task)) <= HEAD


async def test_a_request_that_leaves_no_room_for_an_end_is_refused(store: TaskStore) -> None:
    """A task that cannot be written any more would be stuck for ever."""
    with pytest.raises(InvalidValueError, match="16384 are allowed"):
        await store.create("ada", Call("report", CALL.arguments, request_state="s" * 17_000))

    assert (await store.list("ada")).tasks == []


async def test_a_change_that_would_burst_the_record_is_refused(store: TaskStore) -> None:
    """A question's key lies in the head; the task goes on without that question."""
    task = await store.create("ada", CALL)

    with pytest.raises(InvalidValueError, match="32768 are allowed"):
        await store.ask("ada", task.task_id, "k" * 33_000, ASK, QUESTION)

    assert (await store.get("ada", task.task_id)).questions == ()


async def test_the_text_of_an_error_is_cut_rather_than_refused(store: TaskStore) -> None:
    """Whatever a tool raises, its task must be able to end."""
    task = await store.create("ada", CALL)
    await store.change(
        "ada",
        task.task_id,
        lambda record, now: _failed(record, now, "日" * 50_000 + "\ud800"),
    )

    failed = await store.get("ada", task.task_id)

    assert failed.error is not None
    assert failed.error.message.endswith("日…")
    assert len(failed.error.message.encode()) <= 4096
    assert failed.message is not None
    assert len(failed.message.encode()) <= 1024


def _failed(record: TaskRecord, now: datetime, text: str) -> TaskRecord:
    return transitions.fail(record, now, Failure(-32603, text), retention=timedelta(hours=1))


async def test_values_lie_in_pieces_that_the_database_takes(
    backend: StorageBackend, clock: ManualClock
) -> None:
    """DynamoDB takes 400 KB; here it is 1 KB, and all works the same."""
    config = StoreConfig(max_chunk_bytes=2**20)
    store = TaskStore(Small(backend, 1024), clock=clock, config=config)
    task = await store.create("ada", Call("report", store.encode(["x" * 50_000], what="arguments")))
    await store.set_variables("ada", task.task_id, {"v": "y" * 5_000})
    await store.ask("ada", task.task_id, "q", ASK, {"message": "z" * 5_000})
    answer = {"action": "accept", "content": {"a": "w" * 5_000}}
    record = await store.answer("ada", task.task_id, {"q": answer})
    assert await store.load(record, record.call.arguments) == ["x" * 50_000]
    assert await store.load(record, record.journal.tail[0].value) == answer
    entries = [await step(store, task, str(n), b'"%s"' % (b"s" * 200)) for n in range(40)]
    record = await add_steps(store, task, entries)
    assert len(await steps_of(store, record)) == 41
    await store.set_result("ada", task.task_id, "r" * 50_000)

    assert await store.get_result("ada", task.task_id) == "r" * 50_000
    assert await store.get_variables("ada", task.task_id) == {"v": "y" * 5_000}


async def test_a_piece_that_is_not_written_leaves_the_record_as_it_was(
    backend: StorageBackend, clock: ManualClock
) -> None:
    """A torn value cannot be: nothing names it before all of it is there."""
    faulty = Faulty(backend)
    store = TaskStore(faulty, clock=clock, config=StoreConfig(max_chunk_bytes=1000))
    task = await store.create("ada", CALL)
    before = await raw(store, task)
    faulty.about = lambda key: key.endswith(".00003")
    faulty.plan = [Fault.REFUSED]

    with pytest.raises(StoreUnavailableError):
        await store.set_result("ada", task.task_id, "x" * 10_000)

    assert await raw(store, task) == before


async def test_pieces_that_nothing_came_to_name_go_by_themselves(
    backend: StorageBackend, clock: ManualClock
) -> None:
    """A crash between the value and the record leaves an orphan that needs no sweep of ours."""
    faulty = Faulty(backend)
    store = TaskStore(faulty, clock=clock)
    task = await store.create("ada", CALL)
    faulty.about, faulty.plan = lambda key: key.startswith("ada:"), [Fault.REFUSED]
    with pytest.raises(StoreUnavailableError):
        await store.set_result("ada", task.task_id, "x" * 10_000)
    prefix = store.keys.blobs("ada", task.task_id)
    assert len((await backend.list_by_prefix(prefix)).records) == 1

    clock.advance(store.config.max_ttl + store.config.retention + store.config.grace)

    assert (await backend.list_by_prefix(prefix)).records == []
    assert await store.cleanup_expired() > 0


async def test_a_value_lives_as_long_as_anything_can_name_it(
    store: TaskStore, clock: ManualClock
) -> None:
    """Also when the task was extended to the last, and its outcome is read at the last moment."""
    call = Call("report", store.encode("x" * 10_000, what="arguments"))
    task = await store.create("ada", call, ttl=timedelta(hours=1))
    clock.advance(timedelta(minutes=59))
    await store.extend("ada", task.task_id, timedelta(days=7))
    clock.advance(timedelta(days=6, hours=23))
    running = await store.get("ada", task.task_id)
    assert await store.load(running, running.call.arguments) == "x" * 10_000
    done = await store.set_result("ada", task.task_id, "r" * 10_000)

    clock.advance(done.deadline - clock.now() - timedelta(milliseconds=1))

    assert await store.get_result("ada", task.task_id) == "r" * 10_000


async def test_a_value_of_which_a_piece_is_gone_is_an_error(
    store: TaskStore, backend: StorageBackend
) -> None:
    """Half a result is none, and null would be a lie."""
    task = await store.create("ada", CALL)
    done = await store.set_result("ada", task.task_id, "x" * 600_000)
    assert done.result is not None
    assert done.result.blob is not None
    await backend.delete(store.keys.blob("ada", task.task_id, done.result.blob.name, 1))

    with pytest.raises(RecordFormatError, match="missing"):
        await store.get_result("ada", task.task_id)


@pytest.mark.parametrize("reads", [True, False])
async def test_who_holds_an_older_record_finds_the_newer_values(
    backend: StorageBackend, clock: ManualClock, *, reads: bool
) -> None:
    """Large variables are removed when they are replaced, between two reads of another process."""
    watched = Watched(backend)
    slow, quick = TaskStore(watched, clock=clock), TaskStore(backend, clock=clock)
    task = await quick.create("ada", CALL)
    await quick.set_variables("ada", task.task_id, {"a": "x" * 10_000})
    replaced: list[str] = []

    async def gate(seen: Seen) -> None:
        if seen.operation == "get" and seen.key.startswith("@blobs") and not replaced:
            replaced.append(seen.key)
            await quick.set_variables("ada", task.task_id, {"a": "y" * 10_000})
            await quick.close()

    watched.gate = gate

    if reads:
        found = await slow.get_variables("ada", task.task_id)
        assert found == {"a": "y" * 10_000}
    else:
        found = await slow.set_variables("ada", task.task_id, {"b": 1})
        assert found == {"a": "y" * 10_000, "b": 1}
    assert replaced


async def test_variables_that_are_gone_are_an_error_and_no_endless_search(
    store: TaskStore, backend: StorageBackend
) -> None:
    """Only a newer record explains why a value is not there."""
    task = await store.create("ada", CALL)
    await store.set_variables("ada", task.task_id, {"v": "x" * 10_000})
    record = await store.get("ada", task.task_id)
    assert record.variables is not None
    assert record.variables.blob is not None
    await backend.delete(store.keys.blob("ada", task.task_id, record.variables.blob.name, 0))

    async with asyncio.timeout(5):
        with pytest.raises(RecordFormatError):
            await store.get_variables("ada", task.task_id)
        with pytest.raises(RecordFormatError):
            await store.set_variables("ada", task.task_id, {"w": 1})


async def test_a_full_journal_is_sealed_and_found_again(store: TaskStore) -> None:
    """The last of ten thousand steps must not cost more than the first."""
    task = await store.create("ada", CALL, policy=Policy(resumable=True))
    sizes: list[int] = []
    record = task
    for batch in range(30):
        entries = [await step(store, task, f"{batch}-{n}", b"%d" % n) for n in range(60)]
        record = await add_steps(store, task, entries)
        sizes.append(len(await raw(store, task)))

    assert record.journal.count == 1800
    assert len(record.journal.sealed) == 1  # one blob of many pieces, for all were one run's
    assert record.journal.sealed[0].chunks > 2
    assert max(sizes) < 24_000
    assert len(await steps_of(store, record)) == 1800


async def test_a_batch_of_large_steps_is_sealed_in_pieces(store: TaskStore) -> None:
    """A hundred branches of a body may end in the same moment."""
    task = await store.create("ada", CALL, policy=Policy(resumable=True))
    entries = [await step(store, task, str(n), b'"%s"' % (b"s" * 4000)) for n in range(100)]

    record = await add_steps(store, task, entries)

    (blob,) = record.journal.sealed
    chunks = await store.payloads.chunks(blob, "ada", task.task_id)
    assert len(chunks) > 20
    assert max(map(len, chunks)) <= 20_000
    assert len(await steps_of(store, record)) == 100


async def test_a_seal_that_another_try_left_is_not_mixed_up(store: TaskStore) -> None:
    """A chunk is never changed: with other entries than before it gets another name."""
    task = await store.create("ada", CALL, policy=Policy(resumable=True))
    await store.payloads.write_chunk(
        b"[]", "ada", task.task_id, "run-1", 0, store.fitting.blobs_gone_at(task.created_at)
    )
    entries = [await step(store, task, str(n), b'"%s"' % (b"s" * 400)) for n in range(60)]

    record = await add_steps(store, task, entries)

    assert record.journal.sealed[0].name != "run-1"
    assert len(await steps_of(store, record)) == 60


async def test_answers_find_their_place_in_a_full_journal(
    backend: StorageBackend, clock: ManualClock
) -> None:
    """A client that answers cannot do anything about the number of steps."""
    store = TaskStore(backend, clock=clock, config=StoreConfig(max_steps=1))
    task = await store.create("ada", CALL, policy=Policy(resumable=True))
    await add_steps(store, task, [await step(store, task, "s", b"1")])
    await store.ask("ada", task.task_id, "q", ASK, QUESTION)

    answered = await store.answer("ada", task.task_id, {"q": ACCEPT})

    assert (answered.questions, answered.journal.count) == ((), 2)


async def test_a_refused_outcome_writes_no_value(store: TaskStore, backend: StorageBackend) -> None:
    """A late worker's 4 MiB would lie about for a week."""
    task = await store.create("ada", CALL)
    await store.cancel("ada", task.task_id)

    with pytest.raises(Exception, match="has ended"):
        await store.set_result("ada", task.task_id, "x" * 10_000)

    page = await backend.list_by_prefix(store.keys.blobs("ada", task.task_id))
    assert page.records == []


async def test_a_contended_outcome_writes_its_value_once(
    store: TaskStore, backend: StorageBackend, clock: ManualClock
) -> None:
    """Each try under contention would otherwise leave an orphan."""
    task = await store.create("ada", CALL)
    rivals = [TaskStore(backend, clock=clock) for _ in range(8)]

    await asyncio.gather(
        store.set_result("ada", task.task_id, "x" * 10_000),
        *(rival.progress("ada", task.task_id, n) for n, rival in enumerate(rivals)),
    )

    page = await backend.list_by_prefix(store.keys.blobs("ada", task.task_id))
    assert len(page.records) == 1


async def test_a_record_is_gone_with_its_grace(store: TaskStore, clock: ManualClock) -> None:
    """Ended or expired, it is read till then and not found from that moment on."""
    ended = await store.create("ada", CALL, ttl=timedelta(hours=2))
    expired = await store.create("ada", CALL, ttl=timedelta(hours=2))
    done = await store.set_result("ada", ended.task_id, 1)
    assert done.ttl == timedelta(hours=2)
    last = timedelta(hours=3) - timedelta(milliseconds=1)
    clock.advance(last)
    assert (await store.get("ada", ended.task_id)) == done
    assert (await store.get("ada", expired.task_id)).error is not None

    clock.advance(timedelta(milliseconds=1))

    for task in (ended, expired):
        with pytest.raises(Exception, match="task not found"):
            await store.get("ada", task.task_id)
        with pytest.raises(RecordNotFoundError):
            await raw(store, task)
    assert (await store.list("ada")).tasks == []


async def test_word_for_a_worker_expires_by_the_clock_of_the_store(
    store: TaskStore, backend: StorageBackend, clock: ManualClock
) -> None:
    """Entries for a worker that never reads them must not pile up."""
    task = await store.create("ada", CALL)
    await claim(store, task)
    await store.cancel("ada", task.task_id)
    assert len((await backend.list_by_prefix(store.keys.inboxes("w1"))).records) == 1

    clock.advance(timedelta(minutes=10))

    assert (await backend.list_by_prefix(store.keys.inboxes("w1"))).records == []

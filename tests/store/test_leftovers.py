"""What lies beside a record goes with it, also when the record did not come to be."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from msgspec import Raw
from msgspec.structs import replace
from tests.store.wrappers import Fault, Faulty

from mcp_tasks.domain.codec import TOMBSTONE
from mcp_tasks.domain.record import Call, inline
from mcp_tasks.errors import InvalidValueError, QuotaExceededError, StoreUnavailableError
from mcp_tasks.storage.sqlite import SqliteBackend
from mcp_tasks.store import StoreConfig, TaskStore


if TYPE_CHECKING:
    from pathlib import Path

    from mcp_tasks.domain.record import TaskRecord
    from mcp_tasks.storage.base import StorageBackend


LARGE = {"text": "x" * 50_000}
QUESTION: dict[str, Any] = {"mode": "form", "message": "?", "requestedSchema": {}}


def call(store: TaskStore) -> Call:
    """Make a call whose arguments lie beside its record."""
    return Call("tool", store.encode(LARGE, what="arguments"))


async def beside(store: TaskStore) -> set[str]:
    """Return the values of an owner that lie beside records, once everything is done."""
    await store.close()
    page = await store.backend.list_by_prefix("@blobs.ada:", limit=500)
    return {record.key.rpartition(".")[0] for record in page.records}


async def noted(_: TaskRecord) -> None:
    """Note a task nowhere."""


async def test_a_create_that_is_refused_leaves_nothing(backend: StorageBackend) -> None:
    """A stranger at the limit must not be able to fill the disk."""
    config = StoreConfig(max_active=1)
    await TaskStore(backend, config=config).create("ada", Call("tool", inline(b"{}")))

    for _ in range(3):  # each does not know yet that the owner has no place
        store = TaskStore(backend, config=config)
        with pytest.raises(QuotaExceededError):
            await store.create_claimed(
                "ada", call(store), "w1", lambda record: asyncio.ensure_future(noted(record))
            )
        assert await beside(store) == set()


async def test_calls_at_once_with_one_key_leave_one_copy(backend: StorageBackend) -> None:
    """Each puts its arguments beside the record that it would make; one record is made."""
    stores = [TaskStore(backend) for _ in range(8)]

    made = await asyncio.gather(
        *(store.create_once("ada", "k" * 40, call(store)) for store in stores)
    )

    assert len({record.task_id for record in made}) == 1
    for store in stores:
        await store.close()
    assert len(await beside(stores[0])) == 1
    assert await stores[0].load(made[0], made[0].call.arguments) == LARGE


async def test_an_answer_finds_room_in_a_full_journal(backend: StorageBackend) -> None:
    """A person answered; the journal's limit is for steps."""
    store = TaskStore(backend, config=StoreConfig(max_journal_bytes=100))
    task = await store.create("ada", Call("tool", inline(b"{}")))
    await store.ask("ada", task.task_id, "q", "elicitation/create", QUESTION)

    answer = {"action": "accept", "content": LARGE}
    answered = await store.answer("ada", task.task_id, {"q": answer})

    assert (answered.status, answered.questions) == ("working", ())
    assert len(await beside(store)) == 1


async def test_a_create_whose_head_is_too_large_puts_nothing_beside_it(
    backend: StorageBackend,
) -> None:
    """What is refused with "nothing was stored" must have stored nothing: nobody counts it."""
    store = TaskStore(backend)
    large = replace(call(store), client_info=Raw(b'{"name":"%s"}' % (b"n" * 17_000)))

    with pytest.raises(InvalidValueError, match="even without its values"):
        await store.create("ada", large)

    assert await beside(store) == set()


def test_a_store_goes_on_after_a_loop_that_ended_in_the_middle_of_a_create(
    tmp_path: Path,
) -> None:
    """A module-level server in a notebook, or in tests, meets many loops."""
    backend = SqliteBackend(tmp_path / "tasks.db")
    store = TaskStore(backend)
    loop = asyncio.new_event_loop()
    create = loop.create_task(store.create("ada", Call("tool", inline(b"{}"))))
    while "ada" not in store.quota._rosters:  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - the middle
        loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert not create.done()

    async def again() -> TaskRecord:
        async with asyncio.timeout(10):
            record = await store.create("ada", Call("tool", inline(b"{}")))
        await store.close()
        await backend.close()
        return record

    assert asyncio.run(again()).status == "working"


@pytest.mark.parametrize("fault", [Fault.APPLIED, Fault.LOST, Fault.LATE, Fault.AFTER_RETRY])
async def test_a_create_that_was_never_answered_is_taken_back(
    backend: StorageBackend, fault: Fault
) -> None:
    """Nobody was told of it and nobody runs it: it must not take a place until it expires."""
    faulty = Faulty(backend)
    store = TaskStore(faulty, config=StoreConfig(settle=0.02))
    faulty.about = lambda key: key.startswith("ada:")
    faulty.plan = [fault, *[Fault.REFUSED] * 1000]

    with pytest.raises(StoreUnavailableError) as caught:
        await store.create_claimed(
            "ada", call(store), "w1", lambda record: asyncio.ensure_future(noted(record))
        )
    assert caught.value.happened is None
    faulty.plan = []

    assert await beside(store) == set()
    left = (await backend.list_by_prefix("ada:")).records
    assert [record.data for record in left] == [TOMBSTONE]  # else a late copy would bring it back


async def test_a_create_whose_note_failed_is_taken_back(backend: StorageBackend) -> None:
    """However long the database stays away."""
    faulty = Faulty(backend)
    store = TaskStore(faulty, config=StoreConfig(settle=0.02))

    async def refuse(_: TaskRecord) -> None:
        while not (await backend.list_by_prefix("ada:")).records:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0)
        faulty.plan = [Fault.REFUSED] * 1000
        raise StoreUnavailableError(happened=False)

    with pytest.raises(StoreUnavailableError):
        await store.create_claimed(
            "ada", call(store), "w1", lambda record: asyncio.ensure_future(refuse(record))
        )
    await asyncio.sleep(0.05)
    faulty.plan = []

    assert await beside(store) == set()
    left = (await backend.list_by_prefix("ada:")).records
    assert [record.data for record in left] == [TOMBSTONE]  # else a late copy would bring it back

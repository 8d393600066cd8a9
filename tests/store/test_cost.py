"""What an operation costs: calls of the backend, and the bytes they carry."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace
from tests.store.wrappers import Watched

from mcp_tasks.domain.record import Call
from mcp_tasks.domain.status import TaskStatus
from mcp_tasks.errors import QuotaExceededError
from mcp_tasks.store import StoreConfig, TaskStore
from mcp_tasks.testing.task_samples import ACCEPT, ASK, CALL, QUESTION, claim


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mcp_tasks.storage.base import StorageBackend
    from mcp_tasks.testing.clocks import ManualClock


@pytest.fixture
def watched(backend: StorageBackend) -> Watched:
    """Give a backend that notes every call."""
    return Watched(backend)


@pytest.fixture
def store(watched: Watched, clock: ManualClock) -> TaskStore:
    """Give a store over it."""
    return TaskStore(watched, clock=clock)


@pytest.mark.parametrize("ended", [False, True])
async def test_a_poll_is_one_read(store: TaskStore, watched: Watched, *, ended: bool) -> None:
    """Clients poll; nothing else is called as often."""
    task = await store.create("ada", CALL)
    if ended:
        await store.set_result("ada", task.task_id, {"content": []})
    watched.take()

    await store.get("ada", task.task_id)

    assert watched.take() == [("get", store.keys.task("ada", task.task_id))]


async def test_what_has_not_the_form_of_an_id_costs_no_call(
    store: TaskStore, watched: Watched
) -> None:
    """Nonsense is refused without asking the database."""
    for bad in ("", "x", "A" * 36, "0" * 35, "0" * 37):
        with pytest.raises(Exception, match="task not found"):
            await store.get("ada", bad)

    assert watched.calls == []


CHANGES: dict[str, Callable[[TaskStore, str], Awaitable[Any]]] = {
    "update_status": lambda store, task: store.update_status("ada", task, TaskStatus.CANCELLED),
    "set_variables": lambda store, task: store.set_variables("ada", task, {"a": 1}),
    "complete": lambda store, task: store.complete_with_result("ada", task, {"content": []}),
    "fail": lambda store, task: store.fail("ada", task, -32603, "no", {"a": 1}),
    "ask": lambda store, task: store.ask("ada", task, "q", ASK, QUESTION),
    "cancel": lambda store, task: store.cancel("ada", task),
    "progress": lambda store, task: store.progress("ada", task, 1, 2),
    "extend": lambda store, task: store.extend("ada", task, timedelta(days=2)),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_a_change_is_one_read_and_one_write(
    store: TaskStore, watched: Watched, name: str
) -> None:
    """Everything about a task that is small lies in one record."""
    task = await store.create("ada", CALL)
    key = store.keys.task("ada", task.task_id)
    watched.take()

    await CHANGES[name](store, task.task_id)
    await store.close()

    assert watched.take() == [("get", key), ("swap", key)]


async def test_a_change_from_the_record_in_hand_is_one_write(
    store: TaskStore, watched: Watched
) -> None:
    """A worker knows its task's record: from call to completed there are two durable writes."""
    task = await store.create("ada", CALL)
    claimed = await claim(store, task)
    watched.take()

    await store.change("ada", task.task_id, lambda record, _now: _touched(record), known=claimed)

    assert watched.take() == [("swap", store.keys.task("ada", task.task_id))]


def _touched(record: Any) -> Any:
    return replace(record)


async def test_what_changes_nothing_writes_nothing(store: TaskStore, watched: Watched) -> None:
    """A client may repeat itself."""
    task = await store.create("ada", CALL)
    key = store.keys.task("ada", task.task_id)
    await store.cancel("ada", task.task_id)
    watched.take()

    await store.cancel("ada", task.task_id)
    await store.answer("ada", task.task_id, {"q": ACCEPT})
    await store.progress("ada", task.task_id, 1)

    assert watched.take() == [("get", key)] * 3


async def test_a_poll_of_a_running_task_reads_its_head_alone(
    store: TaskStore, watched: Watched
) -> None:
    """Arguments of 4 MiB must not make each poll as large."""
    small = await store.create("ada", CALL)
    large = await store.create(
        "ada", Call("report", store.encode("x" * (4 * 2**20 - 2), what="arguments"))
    )
    watched.take()

    await store.get("ada", small.task_id)
    await store.get("ada", large.task_id)

    first, second = watched.calls
    assert second.size < first.size + 100


async def test_a_refusal_is_cheap(backend: StorageBackend, clock: ManualClock) -> None:
    """A client at its limit may try in a loop: within a second it costs no call at all."""
    watched = Watched(backend)
    store = TaskStore(watched, clock=clock, config=StoreConfig(max_active=2))
    for _ in range(2):
        await store.create("ada", CALL)
    with pytest.raises(QuotaExceededError):
        await store.create("ada", CALL)
    watched.take()

    noted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    for _ in range(50):
        with pytest.raises(QuotaExceededError):
            await store.create("ada", CALL)
        with pytest.raises(QuotaExceededError):
            await store.create_claimed("ada", CALL, "w1", lambda _: noted)

    assert watched.calls == []


async def test_creates_of_one_owner_that_wait_together_share_a_swap_of_the_roster(
    store: TaskStore, watched: Watched
) -> None:
    """Sixteen at once must not fight for one record."""
    await store.create("ada", CALL)
    watched.take()

    await asyncio.gather(*(store.create("ada", CALL) for _ in range(16)))

    roster = store.keys.roster("ada", 0)
    assert [call for call in watched.take() if call[1] == roster] == [("swap", roster)]


async def test_an_ended_task_leaves_the_roster_without_a_write_of_its_own(
    store: TaskStore, watched: Watched
) -> None:
    """Its id goes with the next create."""
    first = await store.create("ada", CALL)
    await store.set_result("ada", first.task_id, 1)
    watched.take()

    second = await store.create("ada", CALL)

    roster = store.keys.roster("ada", 0)
    assert [call for call in watched.take() if call[1] == roster] == [("swap", roster)]
    assert (await watched.inner.get(roster)).data == b'["%s"]' % second.task_id.encode()

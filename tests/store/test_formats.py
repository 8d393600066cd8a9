"""Records of newer releases: read, kept whole, and left alone where they ask for it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from mcp_tasks.errors import RecordFormatError, TaskNotFoundError
from mcp_tasks.testing.task_samples import CALL, CHANGES, OPERATIONS, raw


if TYPE_CHECKING:
    from mcp_tasks.storage.base import StorageBackend
    from mcp_tasks.store import TaskStore
    from mcp_tasks.testing.clocks import ManualClock


async def rewrite(store: TaskStore, backend: StorageBackend, **changes: Any) -> str:
    """Create a task and write it as a newer release would; return its id."""
    task = await store.create("ada", CALL, ttl=timedelta(hours=1))
    body = {**msgspec.json.decode(await raw(store, task)), **changes}
    await backend.put(store.keys.task("ada", task.task_id), msgspec.json.encode(body))
    return task.task_id


async def test_what_a_newer_release_added_survives_a_change_by_this_one(
    store: TaskStore, backend: StorageBackend
) -> None:
    """Releases run side by side while a deployment is under way."""
    new = {"lanes": [{"a": 1.0}, None], "zeta": "日"}
    task_id = await rewrite(store, backend, format=2, **new)

    await store.progress("ada", task_id, 1)
    await store.set_result("ada", task_id, 1)

    body = msgspec.json.decode((await backend.get(store.keys.task("ada", task_id))).data)
    assert {name: body[name] for name in new} == new
    assert (body["format"], body["status"]) == (2, "completed")


@pytest.mark.parametrize("operation", CHANGES)
async def test_a_record_for_newer_writers_is_read_and_never_written(
    store: TaskStore, backend: StorageBackend, operation: str
) -> None:
    """This release would break what it does not know."""
    task_id = await rewrite(store, backend, format=3, min_writer=2)
    key = store.keys.task("ada", task_id)
    before = await backend.get(key)

    assert (await store.get("ada", task_id)).task_id == task_id
    if operation == "answer":  # to no question of this task: there is nothing to write
        await OPERATIONS[operation](store, "ada", task_id)
    else:
        with pytest.raises(RecordFormatError, match="wants a release that writes format 2"):
            await OPERATIONS[operation](store, "ada", task_id)

    assert await backend.get(key) == before
    assert (await backend.list_by_prefix(store.keys.inboxes("w1"))).records == []


async def test_a_record_for_newer_writers_is_read_as_expired_without_a_write(
    store: TaskStore, backend: StorageBackend, clock: ManualClock
) -> None:
    """Reading is allowed, and all readers see the same."""
    task_id = await rewrite(store, backend, format=3, min_writer=2)
    key = store.keys.task("ada", task_id)
    before = await backend.get(key)
    clock.advance(timedelta(hours=1))

    first = await store.get("ada", task_id)
    clock.advance(timedelta(minutes=1))

    assert first.error is not None
    assert await store.get("ada", task_id) == first
    assert (await store.list("ada")).tasks == [first]
    assert await backend.get(key) == before


@pytest.mark.parametrize("body", [b"", b"{", b"\x01sealed", b"[]", b'{"format":1}', b"null"])
async def test_a_damaged_record_is_an_error_of_its_own_and_left_as_it_is(
    store: TaskStore, backend: StorageBackend, body: bytes
) -> None:
    """It is not missing, and an operator may mend it."""
    task = await store.create("ada", CALL)
    await backend.put(store.keys.task("ada", task.task_id), body)

    for operation in OPERATIONS.values():
        with pytest.raises(RecordFormatError):
            await operation(store, "ada", task.task_id)

    assert await raw(store, task) == body


async def test_a_record_of_another_owner_under_ones_own_key_is_nobodys(
    store: TaskStore, backend: StorageBackend
) -> None:
    """Long names lie under their digest; the record, not the key, says whose a task is."""
    task = await store.create("eve", CALL)
    await backend.put(store.keys.task("ada", task.task_id), await raw(store, task))

    with pytest.raises(TaskNotFoundError):
        await store.get("ada", task.task_id)
    assert (await store.list("ada")).tasks == []

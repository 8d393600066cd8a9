"""Removing everything of one owner, for operators: when somebody leaves, or asks to be forgotten.

The owner's tasks must have ended, or are cancelled first, for work would go on that nobody could
see any more. The records of tasks go last: whoever is killed in the middle leaves them, and the
next purge finds all again. The task of a young idempotency key leaves a tombstone for a while.

It may run beside servers. Records of tasks, and what lies beside them, have keys that are never
used again, so they are simply deleted. A roster or the use of an idempotency key may be written by
a server at the same moment: they are swapped for one that has expired, which is a delete that
notices. A task that its owner creates meanwhile is left as it is, and so is what belongs to it.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from mcp_tasks.domain.codec import TOMBSTONE, decode_record
from mcp_tasks.domain.record import FORMAT
from mcp_tasks.errors import (
    OwnerActiveError,
    RecordFormatError,
    TaskNotFoundError,
)
from mcp_tasks.ids import is_task_id, moment_of
from mcp_tasks.storage.keys import Keys
from mcp_tasks.store.once import decode_use
from mcp_tasks.store.writing import repeat, swap, translated


if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from datetime import datetime

    from mcp_tasks.domain.record import TaskRecord
    from mcp_tasks.storage.base import StoredRecord
    from mcp_tasks.store.creation import Creation


T = TypeVar("T")

PATIENCE: Final = 30.0
"""Seconds that cancelled tasks have to end: more than a grace, and than a lease."""

_AT_ONCE: Final = 32
_LOOK: Final = 0.2
_UNDER_WAY: Final = timedelta(minutes=5)
"""What belongs to no task is older than this, or it may belong to one that is being created."""


class Holdings(NamedTuple):
    """What an owner has.

    Attributes:
        tasks: Records of tasks, whatever their status.
        active: How many of them have not ended.
    """

    tasks: int
    active: int


class Purged(NamedTuple):
    """What was removed.

    Attributes:
        tasks: Records of tasks.
        values: Pieces of large values beside them.
        keys: Uses of idempotency keys.
        entries: Roster blocks, and entries by which workers would have found a task.
        unended: How many of the tasks had not ended, though they were cancelled. A worker that
            still runs one can write nothing any more.
        left: Tasks that are still there: created meanwhile, or of a newer release.
    """

    tasks: int = 0
    values: int = 0
    keys: int = 0
    entries: int = 0
    unended: int = 0
    left: int = 0


class Purge:
    """Removes what belongs to an owner from one store.

    Args:
        store: Which.
        owner: Who.
        cancel: How a task of a store is cancelled.
    """

    def __init__(
        self,
        store: Creation,
        owner: str,
        cancel: Callable[[str, str], Awaitable[TaskRecord]],
    ) -> None:
        self._store = store
        self._owner = owner
        self._cancel = cancel
        self._removed: set[str] = set()
        self._left: set[str] = set()
        self._buried: set[str] = set()

    async def holdings(self) -> Holdings:
        """Count the owner's tasks. Changes nothing."""
        found = await self._tasks()
        return Holdings(len(found), sum(self._is_active(record) for record in found.values()))

    async def run(self, *, cancel: bool, patience: float = PATIENCE) -> Purged:
        """Remove everything. See `TaskStore.purge_owner`."""
        found = await self._tasks()
        active = [task_id for task_id, record in found.items() if self._is_active(record)]
        if active and not cancel:
            raise OwnerActiveError(len(active))
        unended = await self._end(active, patience)
        await self._see_what_came()
        values = await self._remove_values()
        entries = await self._remove_entries() + await self._clear_roster()
        keys = await self._remove_keys()
        await self._each(
            [self._key(task_id) for task_id in found.keys() - self._buried], self._delete
        )
        return Purged(len(found), values, keys, entries, len(unended), len(self._left))

    # --- tasks -----------------------------------------------------------------------------------

    async def _tasks(self) -> dict[str, TaskRecord | None]:
        """Return the owner's records by id; `None` for one that is damaged."""
        found: dict[str, TaskRecord | None] = {}
        async for stored in self._all(self._store.keys.tasks(self._owner)):
            task_id = _sort(stored)
            try:
                record = decode_record(stored.data)
                if record is None:
                    continue  # a tombstone, which expires
            except RecordFormatError:
                if stored.data[:1] != b"{":
                    self._left.add(task_id)  # sealed by a newer release
                    continue
                record = None
            if record is not None and record.min_writer > FORMAT:
                self._left.add(task_id)
                continue
            found[task_id] = record
        self._removed = set(found)
        return found

    def _is_active(self, record: TaskRecord | None) -> bool:
        if record is None or record.is_terminal:
            return False
        return self._store.clock.now() < record.deadline

    async def _end(self, task_ids: list[str], patience: float) -> set[str]:
        """Cancel tasks and wait for their ends. Returns those that did not end."""
        await self._each(task_ids, self._ask_to_end)
        waiting = set(task_ids)
        until = asyncio.get_running_loop().time() + patience
        while True:
            for task_id in sorted(waiting):
                found = await self._store.find(self._owner, task_id)
                if found is None or not self._is_active(found.record):
                    waiting.discard(task_id)
            if not waiting or asyncio.get_running_loop().time() >= until:
                return waiting
            await asyncio.sleep(_LOOK)

    async def _ask_to_end(self, task_id: str) -> bool:
        try:
            await self._cancel(self._owner, task_id)
        except TaskNotFoundError:
            return False
        return True

    async def _see_what_came(self) -> None:
        """Note tasks that were created since the purge began."""
        async for stored in self._all(self._store.keys.tasks(self._owner)):
            if _sort(stored) not in self._removed and stored.data != TOMBSTONE:
                self._left.add(_sort(stored))

    # --- what belongs to them --------------------------------------------------------------------

    async def _remove_values(self) -> int:
        keys = [
            stored.key
            async for stored in self._all(self._store.keys.values(self._owner))
            if self._is_over(_sort(stored).partition(".")[0])
        ]
        return await self._each(keys, self._delete)

    async def _remove_entries(self) -> int:
        """Remove entries for workers. Sheets are left to their workers, who drop what is over."""
        store, owner = self._store, self._owner.encode("utf-8", "surrogatepass")
        workers = [_sort(worker) async for worker in self._all(store.keys.workers())]
        keys = [
            stored.key
            for prefix in (store.keys.readies(), *map(store.keys.inboxes, workers))
            async for stored in self._all(prefix)
            if stored.data == owner and self._is_over(Keys.entry(stored.key)[0])
        ]
        return await self._each(keys, self._delete)

    def _is_over(self, task_id: str) -> bool:
        """Tell whether a task is removed, or was not there long before the purge began."""
        if task_id in self._removed:
            return True
        if task_id in self._left or not is_task_id(task_id):
            return False
        return self._store.clock.now() - moment_of(task_id) > _UNDER_WAY

    async def _remove_keys(self) -> int:
        uses = [stored async for stored in self._all(self._store.keys.uses(self._owner))]
        return await self._each(uses, self._remove_key)

    async def _remove_key(self, stored: StoredRecord) -> bool:
        use = decode_use(stored.data)
        if use is not None and use.task_id in self._left:
            return False
        store, now = self._store, self._store.clock.now()
        if use is not None and now - use.created_at < store.config.grace:
            # A server that sleeps in the middle of a create must not make this task (anew).
            key, gone_at = self._key(use.task_id), now + store.config.grace
            if use.task_id in self._removed:
                await self._put_tombstone(key, gone_at)
                self._buried.add(use.task_id)
            else:
                await swap(store.backend, key, TOMBSTONE, 0, gone_at, store.config.settle)
                if await store.find(self._owner, use.task_id) is not None:
                    return False
        return await self._expire(stored)

    async def _clear_roster(self) -> int:
        """Take what is removed off the roster; a block with nobody on it goes."""
        numbers = [
            int(_sort(stored).rpartition("~")[2])
            async for stored in self._all(self._store.keys.rosters(self._owner))
        ]
        quota = self._store.quota
        return await self._each(
            numbers, lambda number: quota.clear(self._owner, number, self._removed)
        )

    # --- the backend -----------------------------------------------------------------------------

    async def _all(self, prefix: str) -> AsyncGenerator[StoredRecord]:
        after: str | None = None
        while True:
            with translated():
                page = await self._store.backend.list_by_prefix(prefix, after=after)
            for stored in page.records:
                yield stored
            after = page.next
            if after is None:
                return

    async def _each(self, items: list[T], act: Callable[[T], Awaitable[bool]]) -> int:
        """Do something with all, some at a time. Returns for how many it did something."""
        done = 0
        for at in range(0, len(items), _AT_ONCE):
            done += sum(await asyncio.gather(*(act(item) for item in items[at : at + _AT_ONCE])))
        return done

    def _key(self, task_id: str) -> str:
        return self._store.keys.task(self._owner, task_id)

    async def _put_tombstone(self, key: str, gone_at: datetime) -> None:
        backend = self._store.backend
        await repeat(
            lambda: backend.put(key, TOMBSTONE, expires_at=gone_at), self._store.config.settle
        )

    async def _delete(self, key: str) -> bool:
        await repeat(lambda: self._store.backend.delete(key), self._store.config.settle)
        return True

    async def _expire(self, stored: StoredRecord) -> bool:
        """Remove a record unless somebody wrote it since."""
        store = self._store
        gone_at = store.clock.now() - timedelta(seconds=1)
        settle = store.config.settle
        version, _ = await swap(store.backend, stored.key, b"{}", stored.version, gone_at, settle)
        return version is not None


def _sort(stored: StoredRecord) -> str:
    return stored.key.rpartition(":")[2]

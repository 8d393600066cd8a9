"""Taking over what dead workers leave. Every step can be done again, and by two at once.

A worker is dead when its record did not change for a whole lease, as seen on our own clock (no
clock of another machine is ever compared), or at once when its lock on this machine can be had. Its
record is set to `taken` first; then each task of its sheets gets one write; sheets, inbox and
record go last. A reaper that dies half-way leaves `taken` behind, and the next one does all of it
again.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec.structs import replace

from mcp_tasks.domain import transitions
from mcp_tasks.errors import (
    MCPTasksError,
    RecordFormatError,
    TaskExpiredError,
    TaskNotFoundError,
)
from mcp_tasks.failpoints import failpoint
from mcp_tasks.ids import short
from mcp_tasks.runner.locks import forget, is_dead
from mcp_tasks.runner.sheet import decode_entries
from mcp_tasks.runner.worker import (
    WorkerRecord,
    decode_worker,
    encode_worker,
    read_worker,
    remove_traces,
)
from mcp_tasks.store.writing import swap, translated


if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from mcp_tasks.domain.record import TaskRecord
    from mcp_tasks.runner.config import RunnerConfig
    from mcp_tasks.runner.sheet import SheetEntry
    from mcp_tasks.store import TaskStore


_log = logging.getLogger("mcp_tasks.runner")
_AT_ONCE = 64


class _Sight(NamedTuple):
    """When a version of a worker's record was first seen."""

    version: int
    since: float


class Reaper:
    """Looks for dead workers and takes their tasks over.

    Args:
        store: Where they live.
        config: For the times.
    """

    def __init__(self, store: TaskStore, config: RunnerConfig) -> None:
        self._store = store
        self._config = config
        self._seen: dict[str, _Sight] = {}
        self._alive: list[WorkerRecord] = []
        self._last_look = 0.0

    async def look(self, own: Collection[str]) -> int:
        """Look once at all workers and take over those that are dead. Returns how many were.

        An observation counts only while looks succeed: after a gap longer than two of them
        everything is observed anew, so an outage of the database kills nobody by itself.

        Raises:
            StoreUnavailableError: The look did not succeed, or a takeover is unfinished.
        """
        store = self._store
        now = store.clock.elapsed()
        if now - self._last_look > 2 * self._config.scan * 1.2 + self._config.look:
            self._seen.clear()
        dead: list[tuple[str, WorkerRecord, int]] = []
        present: set[str] = set()
        alive: list[WorkerRecord] = []
        after: str | None = None
        while True:
            with translated():
                page = await store.backend.list_by_prefix(store.keys.workers(), after=after)
            for found in page.records:
                name = found.key.rpartition(":")[2]
                if name in own:
                    continue
                present.add(name)
                try:
                    worker = decode_worker(found.data)
                except msgspec.DecodeError:
                    _log.error("the record of worker %s is damaged; its lease decides", name)
                    worker = WorkerRecord()
                if self._is_dead(name, worker, found.version, now):
                    dead.append((name, worker, found.version))
                else:
                    alive.append(worker)
            after = page.next
            if after is None:
                break
        self._last_look = now
        self._alive = alive
        for name in self._seen.keys() - present:
            del self._seen[name]
        taken = 0
        failure: MCPTasksError | None = None
        for name, worker, version in dead:
            try:
                taken += await self.take(name, worker, version)
            except MCPTasksError as error:  # the others must not wait for this one
                failure = error
        if failure is not None:
            raise failure
        return taken

    def sees_death(self) -> bool:
        """Tell whether a worker that the last look found alive has died on this machine since.

        Asks the operating system about a lock for each, and no database.
        """
        return any(is_dead(worker.lock, worker.host) for worker in self._alive)

    def _is_dead(self, name: str, worker: WorkerRecord, version: int, now: float) -> bool:
        if worker.state == "taken" or is_dead(worker.lock, worker.host):
            return True
        sight = self._seen.get(name)
        if sight is None or sight.version != version:
            # From after the look: it may have begun long before the worker wrote this.
            self._seen[name] = _Sight(version, self._store.clock.elapsed())
            return False
        return now - sight.since >= self._config.lease

    async def take(self, name: str, worker: WorkerRecord, version: int) -> bool:
        """Take over one worker, from the version at which it was found dead.

        False if its record moved on: it lives, or somebody else is at it.
        """
        store = self._store
        if worker.state != "taken":
            taken = encode_worker(replace(worker, state="taken"))
            key = store.keys.worker(name)
            failpoint("reap.after_read_before_cas")
            done, _ = await swap(store.backend, key, taken, version, None, store.config.settle)
            if done is None:
                self._seen.pop(name, None)
                return False
        _log.warning("worker %s is dead; taking its tasks over", name)
        failpoint("reap.after_worker_cas_before_tasks")
        await self.free_tasks(name)
        failpoint("reap.after_tasks_before_sheets")
        await remove_traces(store, name, "reap.after_sheets_before_worker")
        forget(worker.lock)
        self._seen.pop(name, None)
        return True

    async def take_own(self, name: str) -> None:
        """Take over an earlier incarnation of this very process, which knows that it is over."""
        found = await read_worker(self._store, name)
        if found is not None:
            await self.take(name, *found)

    async def free_tasks(self, name: str) -> None:
        """Free or end every task on the sheets of a dead worker.

        Raises:
            TaskError: Some are not done yet; the worker's record still says `taken`.
        """
        store = self._store
        failures: list[BaseException] = []
        after: str | None = None
        while True:
            with translated():
                page = await store.backend.list_by_prefix(store.keys.sheets(name), after=after)
            for sheet in page.records:
                try:
                    entries = decode_entries(sheet.data)
                except msgspec.DecodeError:
                    _log.error("the sheet %s is damaged; what it names is not found", sheet.key)
                    continue
                for at in range(0, len(entries), _AT_ONCE):
                    done = await asyncio.gather(
                        *(self._free(name, entry) for entry in entries[at : at + _AT_ONCE]),
                        return_exceptions=True,
                    )
                    failures += [error for error in done if error is not None]
            after = page.next
            if after is None:
                break
        if failures:
            raise failures[0]

    async def _free(self, name: str, entry: SheetEntry) -> None:
        store = self._store
        admitted = True

        def transition(record: TaskRecord, now: datetime) -> TaskRecord:
            return transitions.take_from_dead(
                record, now, name, admitted=admitted, retention=store.config.retention
            )

        failpoint("reap.between_tasks")
        try:
            found = await store.read(entry.owner, entry.task_id)
            record = found.record
            if record.worker == name and record.attempt == 1 and record.policy.is_restartable:
                # Born claimed, and perhaps refused by the quota before anybody was told its id.
                admitted = await store.quota.holds(entry.owner, entry.task_id)
            await store.change(entry.owner, entry.task_id, transition, known=found)
        except (TaskNotFoundError, TaskExpiredError):
            return
        except RecordFormatError as error:
            _log.error("task %s of dead worker %s is left: %s", short(entry.task_id), name, error)

"""Finding and changing records: the one loop by which anything about a task changes.

`change` reads the record, applies a pure transition, compare-and-swaps, and applies the transition
again to the newer record when somebody else was faster. Before the swap come the things that the
new record relies on: values beside it, and the entries by which workers find it (the index is
written first, so a crash between leaves an entry ahead of its record, which whoever meets it leaves
alone, and never a record that nobody finds).
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec.structs import replace

from mcp_tasks.clock import SystemClock
from mcp_tasks.domain import transitions
from mcp_tasks.domain.codec import decode_record, encode_record
from mcp_tasks.domain.record import FORMAT, RECENT_WRITES, TaskRecord
from mcp_tasks.errors import (
    ContentionError,
    InvalidValueError,
    MCPTasksError,
    RecordFormatError,
    RecordNotFoundError,
    RecordTooLargeError,
    StoreUnavailableError,
    TaskExpiredError,
    TaskNotFoundError,
)
from mcp_tasks.failpoints import failpoint
from mcp_tasks.ids import is_task_id, new_name
from mcp_tasks.storage.keys import Keys
from mcp_tasks.store.changes import Changes, Versioned
from mcp_tasks.store.config import StoreConfig
from mcp_tasks.store.fitting import Fitting
from mcp_tasks.store.index import Index, has_news
from mcp_tasks.store.payloads import Payloads, blobs_to_run
from mcp_tasks.store.quota import Quota
from mcp_tasks.store.trail import log_change
from mcp_tasks.store.writing import back_off, swap, translated


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from datetime import datetime

    from mcp_tasks.clock import Clock
    from mcp_tasks.storage.base import StorageBackend

    Transition = Callable[[TaskRecord, datetime], TaskRecord | Awaitable[TaskRecord]]


_log = logging.getLogger("mcp_tasks.store")


class _Sent(NamedTuple):
    """A write of a record: as what, in bytes, and on top of which version."""

    record: TaskRecord
    data: bytes
    version: int


class Records:
    """The records of one store. `TaskStore` is this and every operation made of it.

    Args:
        backend: Where the records lie.
        namespace: Whose tasks these are.
        config: Limits and times.
        clock: For tests.
    """

    def __init__(
        self,
        backend: StorageBackend,
        *,
        namespace: str = "",
        config: StoreConfig | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.backend = backend
        self.config = config or StoreConfig()
        self.clock: Clock = clock or SystemClock()
        self.keys = Keys(namespace)
        self.changes = Changes()
        self.payloads = Payloads(backend, self.keys, self.config)
        self.fitting = Fitting(self.payloads, self.config)
        self.quota = Quota(backend, self.keys, self.config, self.clock)
        self.index = Index(backend, self.keys, self.config, self.clock)
        self.head_bytes = min(self.config.max_head_bytes, backend.capabilities.max_record_bytes)
        self._later: set[asyncio.Task[None]] = set()
        self.is_closing = False

    async def get(self, owner: str, task_id: str) -> TaskRecord:
        """Return a task. One read of the backend.

        A task past its time to live is ended as failed first, so that what anybody saw stays true.

        Raises:
            TaskNotFoundError: No such task for this owner.
            RecordFormatError: The record is damaged. It is left as it is.
            StoreUnavailableError: The database did not answer.
        """
        return (await self.read(owner, task_id)).record

    async def read(self, owner: str, task_id: str) -> Versioned:
        """Return a task and its version. As `get`."""
        found = await self.find(owner, task_id)
        if found is None:
            raise TaskNotFoundError
        record = found.record
        if not record.is_terminal and self.clock.now() >= record.deadline:
            return await self._expire(found)
        return found

    async def find(
        self, owner: str, task_id: str, *, after_unanswered: bool = False
    ) -> Versioned | None:
        """Return a task as it lies in the backend, past its time or not; `None` if there is none.

        Args:
            owner: Whose task.
            task_id: Which.
            after_unanswered: The caller's own write went unanswered, and this look is to tell what
                came of it: where it fails, nobody knows.

        Raises:
            RecordFormatError: The record is damaged.
            StoreUnavailableError: The database did not answer; `happened` is None
                `after_unanswered`.
        """
        if not is_task_id(task_id):
            return None
        try:
            with translated():
                stored = await self.backend.get(self.keys.task(owner, task_id))
        except RecordNotFoundError:
            return None
        except StoreUnavailableError as error:
            if after_unanswered:
                raise StoreUnavailableError(happened=None) from error
            raise
        record = decode_record(stored.data)
        if record is None or record.owner != owner:
            return None
        return Versioned(record, stored.version)

    async def change(
        self,
        owner: str,
        task_id: str,
        transition: Transition,
        *,
        known: Versioned | None = None,
        run: str = "",
        patience: float | None = None,
    ) -> Versioned:
        """Apply a transition to a task: the one loop by which anything about a task changes.

        Args:
            owner: Whose task.
            task_id: Which.
            transition: From the record and the time to the next record; applied anew to each
                record it meets. The same object back means that there is nothing to change.
            known: The record as the caller knows it, which saves a read when it is still current.
            run: The name under which an attempt seals its journal.
            patience: Seconds to wait for a write that is not answered, if not as configured.

        Returns:
            The record as it is now, and its version.

        Raises:
            TaskNotFoundError: No such task for this owner.
            TaskExpiredError: It is past its time to live. It was ended as failed.
            ContentionError: Too many writers at once. Nothing was changed.
            StoreUnavailableError: The database failed; `happened` says what is known.
            TaskError: What the transition refuses. Nothing was changed.
        """
        sent: list[_Sent] = []
        try:
            return await self._change(owner, task_id, transition, known, run, patience, sent)
        except StoreUnavailableError as error:
            if error.happened is None and sent:
                self.soon(self._find_out(sent[-1]))
            raise

    async def _change(
        self,
        owner: str,
        task_id: str,
        transition: Transition,
        known: Versioned | None,
        run: str,
        patience: float | None,
        sent: list[_Sent],
    ) -> Versioned:
        """Do what `change` says. Notes in `sent` what a body of this process has to hear of."""
        write_id = new_name()
        current = known
        unanswered: Versioned | None = None
        for tries in range(self.config.max_tries):
            if current is None:
                current = await self.find(owner, task_id, after_unanswered=unanswered is not None)
                if current is None:
                    raise TaskNotFoundError
            record, version = current
            if unanswered is not None:
                if write_id in record.writes:
                    self._after(unanswered.record, current)
                    return current
                if version - unanswered.version > RECENT_WRITES:
                    # The id of our write may have been pushed out: it cannot be known any more.
                    raise StoreUnavailableError(happened=None)
            now = self.clock.now()
            if not record.is_terminal and now >= record.deadline:
                if known is current:  # somebody may have extended it meanwhile
                    current = None
                    continue
                current = await self._expire(current)
                if current.record.is_terminal:
                    raise TaskExpiredError
                continue
            try:
                new = transition(record, now)
                if not isinstance(new, TaskRecord):
                    new = await new
            except RecordFormatError:
                # What lies beside a record may go with the next write: is there a newer one?
                current = await self.find(owner, task_id)
                if current is not None and current.version == version:
                    raise
                continue
            if new is record:
                if current is not known:
                    # A write that was made here and never answered may be seen only now.
                    self.changes.publish(current)
                return current
            writes = (*record.writes[1 - RECENT_WRITES :], write_id)
            new, data = await self.fitting.fit(replace(new, writes=writes), run, self.head_bytes)
            await self.index.announce(record, new, version)
            if new.worker in self.index.here and has_news(record, new):
                sent.append(_Sent(new, data, version))
            committed, went_unanswered = await self.swap_record(new, data, version, patience)
            if committed is not None:
                written = Versioned(new, committed)
                self._after(record, written)
                return written
            unanswered = current if went_unanswered else None
            current = None
            if tries:
                await back_off(tries)
        if unanswered is not None:
            raise StoreUnavailableError(happened=None)
        raise ContentionError(self.config.max_tries)

    async def _find_out(self, sent: _Sent) -> None:
        """Tell of a write that nobody answered, as soon as it is known what came of it.

        The body that it concerns runs in this process, so no other one would tell it. The same
        write is sent again first: once it is answered, no copy of it can land any more.
        """
        record, data, version = sent
        delay = 0.1
        while True:
            try:
                await self.swap_record(record, data, version)
                found = await self.find(record.owner, record.task_id)
            except StoreUnavailableError:
                if self.is_closing:
                    raise
            else:
                if found is not None:
                    self.changes.publish(found)
                return
            await asyncio.sleep(delay)
            delay = min(2 * delay, 2.0)

    def _after(self, old: TaskRecord, written: Versioned) -> None:
        """Do what follows a write: free the owner's place, drop values, tell who waits."""
        new = written.record
        log_change(old, new)
        if new.is_terminal:
            failpoint("commit.after_cas_before_notify")
            self.quota.leave(new.owner, new.task_id)
            if unneeded := blobs_to_run(old):
                self.soon(self.payloads.delete(unneeded, new.owner, new.task_id))
        elif old.variables is not None and old.variables != new.variables and old.variables.blob:
            self.soon(self.payloads.delete([old.variables.blob], new.owner, new.task_id))
        self.changes.publish(written)

    def soon(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something that nobody waits for, and that may fail."""

        async def run() -> None:
            try:
                await work
            except MCPTasksError as error:
                _log.info("left for its expiry: %s", error)

        task = asyncio.create_task(run())
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def _expire(self, found: Versioned) -> Versioned:
        """End a task that is past its time to live. No other write may touch it."""
        record, version = found
        while True:
            if record.min_writer > FORMAT:
                # Not ours to write; whoever reads it sees what a newer release will write.
                return Versioned(transitions.expire(record), version)
            new = replace(
                transitions.expire(record),
                writes=(*record.writes[1 - RECENT_WRITES :], new_name()),
            )
            failpoint("ttl.after_read_before_cas")
            committed, _ = await self.swap_record(new, encode_record(new), version)
            if committed is not None:
                written = Versioned(new, committed)
                self._after(record, written)
                return written
            latest = await self.find(record.owner, record.task_id)
            if latest is None:
                raise TaskNotFoundError
            if latest.record.is_terminal or self.clock.now() < latest.record.deadline:
                return latest
            record, version = latest

    async def swap_record(
        self, record: TaskRecord, data: bytes, expected: int, patience: float | None = None
    ) -> tuple[int | None, bool]:
        """Swap a task's record for `record`, encoded as `data`; see `writing.swap`."""
        try:
            return await swap(
                self.backend,
                self.keys.task(record.owner, record.task_id),
                data,
                expected,
                self.gone_at(record),
                self.config.settle if patience is None else patience,
            )
        except RecordTooLargeError as error:
            raise InvalidValueError("the task's record", f"{error.size} bytes") from error

    def gone_at(self, record: TaskRecord) -> datetime:
        """Return when the backend may remove a record."""
        return record.deadline + self.config.grace

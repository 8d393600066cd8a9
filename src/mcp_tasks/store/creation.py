"""How a task comes to be: record, roster and the word by which workers find it, all durable.

Whoever is told an id can read the task, and a crash on the way loses nothing that was told.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from mcp_tasks.domain.codec import TOMBSTONE
from mcp_tasks.domain.record import FORMAT, Policy, TaskRecord
from mcp_tasks.domain.status import TaskStatus
from mcp_tasks.errors import (
    InvalidTtlError,
    InvalidValueError,
    QuotaExceededError,
    StoreUnavailableError,
)
from mcp_tasks.failpoints import failpoint
from mcp_tasks.ids import new_name, new_task_id
from mcp_tasks.store.changes import Versioned
from mcp_tasks.store.payloads import blobs_to_run
from mcp_tasks.store.records import Records
from mcp_tasks.store.trail import log_change
from mcp_tasks.store.writing import repeat


if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_tasks.domain.record import Call


_MAX_OWNER = 4096
_MILLISECOND = timedelta(milliseconds=1)


class Creation(Records):
    """Records, and the two ways to make a new one."""

    async def create(
        self,
        owner: str,
        call: Call,
        *,
        policy: Policy | None = None,
        ttl: timedelta | None = None,
        poll_interval: timedelta | None = None,
        by: str | None = None,
    ) -> TaskRecord:
        """Create a task that waits for any worker, durably.

        The roster comes first, then the record together with the entry by which workers find it;
        so whoever is told the id can read the task, and a crash loses nothing that was told.

        Args:
            owner: Whose task it is.
            call: The request it carries out; `TaskStore.encode` makes its payloads.
            policy: What may be done when its worker is lost; by default it then ends.
            ttl: How long it lives, at most `StoreConfig.max_ttl`.
            poll_interval: What clients are told to wait between polls.
            by: Who created it, for operators.

        Raises:
            InvalidTtlError: No task was created.
            QuotaExceededError: No task was created.
            StoreUnavailableError: With `happened` None a task may exist that nobody knows.
        """
        self._refuse_if_full(owner)
        while True:
            record = self._new(owner, call, policy, ttl, poll_interval, by)
            written = await self.make(record)
            if written is not None:
                return written.record

    async def make(self, record: TaskRecord) -> Versioned | None:
        """Write a new record that waits for any worker; `None` if something lies under its id.

        Raises:
            QuotaExceededError: As `create`, like the others.
        """
        failpoint("create.before_writes")
        if not await self.quota.enter(record.owner, record.task_id):
            raise QuotaExceededError(self.config.max_active_of(record.owner))
        failpoint("create.after_roster_before_record")
        announced = (
            None
            if record.policy.external
            else asyncio.ensure_future(self.index.put_ready(record, 1))
        )
        try:
            written = await self._insert(record)
        except BaseException:
            if announced is not None:
                announced.add_done_callback(_look_at)
            raise
        if announced is not None:
            await announced
        if written is not None:
            log_change(None, written.record)
            self.changes.publish(written)
            failpoint("create.after_put_before_reply")
        return written

    async def create_claimed(
        self,
        owner: str,
        call: Call,
        worker: str,
        note: Callable[[TaskRecord], asyncio.Future[None]],
        *,
        policy: Policy | None = None,
        ttl: timedelta | None = None,
        poll_interval: timedelta | None = None,
    ) -> Versioned:
        """Create a task that `worker` runs from its birth, in one round trip.

        Record, roster and the worker's own note of it are written at the same time, which is safe
        because nobody knows the id before all three are there.

        Args:
            owner: As in `create`.
            call: As in `create`.
            worker: The incarnation that is about to run it, as attempt 1.
            note: Writes the worker's note; called before the record is written, awaited after.
            policy: As in `create`.
            ttl: As in `create`.
            poll_interval: As in `create`.

        Raises:
            QuotaExceededError: No task was created.
            StoreUnavailableError: With `happened` None a task may exist that nobody knows, and that
                nobody runs. It is removed when the database answers again.
        """
        self._refuse_if_full(owner)
        while True:
            record = self._new(owner, call, policy, ttl, poll_interval, worker)
            record = replace(record, worker=worker, attempt=1)
            failpoint("create.before_writes")
            admitted = self.quota.enter(owner, record.task_id)
            noted = note(record)
            written: Versioned | None = None
            try:
                written = await self._insert(record)
                is_admitted = await admitted
                await noted
            except BaseException:
                for future in (admitted, noted):
                    future.add_done_callback(_look_at)
                if written is not None:
                    self.soon(self._take_back(written.record))
                raise
            if written is None:
                continue
            if not is_admitted:
                await self._withdraw(written.record)
                raise QuotaExceededError(self.config.max_active_of(owner))
            log_change(None, written.record)
            return written

    def _refuse_if_full(self, owner: str) -> None:
        if len(owner) > _MAX_OWNER:
            raise InvalidValueError("the owner", f"longer than {_MAX_OWNER} characters")
        if self.quota.is_full(owner):
            raise QuotaExceededError(self.config.max_active_of(owner))

    def _new(
        self,
        owner: str,
        call: Call,
        policy: Policy | None,
        ttl: timedelta | None,
        poll_interval: timedelta | None,
        by: str | None,
    ) -> TaskRecord:
        now = self.clock.now()
        ttl = self.config.default_ttl if ttl is None else ttl
        self.check_ttl(ttl)
        return TaskRecord(
            format=FORMAT,
            min_writer=FORMAT,
            task_id=new_task_id(now),
            owner=owner,
            status=TaskStatus.WORKING,
            created_at=now,
            updated_at=now,
            ttl=ttl,
            poll_interval=poll_interval or self.config.poll_interval,
            call=call,
            policy=policy or Policy(),
            created_by=by,
            writes=(new_name(),),
        )

    def check_ttl(self, ttl: timedelta) -> None:
        """Refuse a time to live that no task may have.

        Raises:
            InvalidTtlError: Less than a millisecond, or over `StoreConfig.max_ttl`.
        """
        if not _MILLISECOND <= ttl <= self.config.max_ttl:
            raise InvalidTtlError(
                ttl.total_seconds() * 1000, self.config.max_ttl.total_seconds() * 1000
            )

    async def _insert(self, record: TaskRecord) -> Versioned | None:
        """Write a new record, and return it as written; `None` if something lies under its id.

        What was put beside a record that is not there in the end is removed.
        """
        # Half of a record is for what the task will bring: above all, it must be able to end.
        record, data = await self.fitting.fit(record, "", self.head_bytes // 2)
        try:
            version, unanswered = await self.swap_record(record, data, 0)
            if version is None and unanswered:
                found = await self.find(record.owner, record.task_id, after_unanswered=True)
                if found is not None and record.writes[0] in found.record.writes:
                    return found
        except StoreUnavailableError as error:
            if error.happened is None and record.worker is not None:  # else somebody will run it
                self.soon(self._take_back(record, data))
            raise
        if version is None:
            self._remove_beside(record)
            return None
        return Versioned(record, version)

    def _remove_beside(self, record: TaskRecord) -> None:
        if blobs := blobs_to_run(record):
            self.soon(self.payloads.delete(blobs, record.owner, record.task_id))

    async def _take_back(self, record: TaskRecord, data: bytes | None = None) -> None:
        """Remove a new record that nobody was told of, as soon as the database answers.

        Else it would take one of its owner's places until it expires, and never end.

        Args:
            record: Which.
            data: What was written, if it is not known whether that happened. The same write is sent
                again first: once it is answered, no copy of it can land on what lies there.
        """
        key = self.keys.task(record.owner, record.task_id)
        delay = 0.1
        while True:
            try:
                if data is not None:
                    await self.swap_record(record, data, 0)
                found = await self.find(record.owner, record.task_id)
                if found is not None and record.writes[0] in found.record.writes:
                    # Were nothing left, a copy of the write that comes later would bring it back.
                    gone_at = self.clock.now() + self.config.grace
                    await repeat(
                        partial(self.backend.put, key, TOMBSTONE, expires_at=gone_at),
                        self.config.settle,
                    )
                    self._remove_beside(found.record)
            except StoreUnavailableError:
                if self.is_closing:
                    raise
            else:
                return
            await asyncio.sleep(delay)
            delay = min(2 * delay, 2.0)

    async def _withdraw(self, record: TaskRecord) -> None:
        """Remove a new record that nobody was told of."""
        key = self.keys.task(record.owner, record.task_id)
        try:
            await repeat(lambda: self.backend.delete(key), self.config.settle)
        except StoreUnavailableError as error:
            raise StoreUnavailableError(happened=None) from error
        self._remove_beside(record)


def _look_at(future: asyncio.Future[Any]) -> None:
    """Take an error that another error came before, so that it is not reported as forgotten."""
    if not future.cancelled():
        future.exception()

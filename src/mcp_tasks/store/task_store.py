"""`TaskStore`: every rule about tasks, over any backend.

One loop makes every change (`change`): read the record, apply a pure transition, compare-and-swap,
and apply the transition again to the newer record when somebody else was faster. Before the swap
come the things that the new record relies on: values beside it, and the entries by which workers
find it (the index is written first, so a crash between leaves an entry ahead of its record, which
whoever meets it leaves alone, and never a record that nobody finds).
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self, cast

from msgspec import UNSET, Raw
from msgspec.structs import replace

from mcp_tasks.clock import SystemClock
from mcp_tasks.domain import inputs, journal, transitions, variables
from mcp_tasks.domain.codec import decode_record, encode_record
from mcp_tasks.domain.record import (
    FORMAT,
    RECENT_WRITES,
    Failure,
    Policy,
    Progress,
    Question,
    TaskRecord,
    inline,
)
from mcp_tasks.domain.status import TaskStatus, check_transition
from mcp_tasks.domain.transitions import MAX_TEXT_BYTES
from mcp_tasks.errors import (
    ContentionError,
    InvalidTtlError,
    InvalidValueError,
    MCPTasksError,
    NotReadyError,
    QuotaExceededError,
    RecordFormatError,
    RecordNotFoundError,
    RecordTooLargeError,
    StoreUnavailableError,
    TaskExpiredError,
    TaskNotFoundError,
    TaskTerminalError,
)
from mcp_tasks.ids import is_task_id, new_name, new_task_id
from mcp_tasks.jsonio import from_json, to_json
from mcp_tasks.storage.keys import Keys
from mcp_tasks.store.changes import Changes, Versioned
from mcp_tasks.store.config import ANONYMOUS, StoreConfig
from mcp_tasks.store.index import Index
from mcp_tasks.store.listing import Seal, TaskPage
from mcp_tasks.store.payloads import Payloads, blobs_to_run
from mcp_tasks.store.quota import Quota
from mcp_tasks.store.writing import back_off, repeat, swap, translated


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping
    from datetime import datetime

    from mcp_tasks.clock import Clock
    from mcp_tasks.domain.record import (
        Call,
        Payload,
    )
    from mcp_tasks.storage.base import StorageBackend

    Transition = Callable[[TaskRecord, datetime], TaskRecord | Awaitable[TaskRecord]]


_log = logging.getLogger("mcp_tasks.store")
_MAX_OWNER = 4096

_MILLISECOND = timedelta(milliseconds=1)

_MIN_INLINE = 128
"""A value that is not longer stays in its record always: a reference to it is hardly shorter."""


class TaskStore:
    """Tasks over a backend: their state machine, owners, limits, values and lists.

    Safe for many concurrent callers on one event loop; any number of stores in any number of
    processes may share a database. Another owner's task is treated exactly like one that does not
    exist.

    Args:
        backend: Where the records lie. Closed by `close` only if `open` made it.
        namespace: Whose tasks these are, when applications share a database; part of every key.
        config: Limits and times; the same in all processes that share the store.
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
        self.quota = Quota(backend, self.keys, self.config, self.clock)
        self.index = Index(backend, self.keys, self.config, self.clock)
        self._seal = Seal(backend, self.keys)
        self._head_bytes = min(self.config.max_head_bytes, backend.capabilities.max_record_bytes)
        self._later: set[asyncio.Task[None]] = set()
        self._owns_backend = False

    @classmethod
    def open(cls, url: str, *, namespace: str = "", config: StoreConfig | None = None) -> Self:
        """Make a store over the database at `url`, which `close` will close.

        Nothing is opened before the first call.

        Raises:
            ConfigurationError: The URL names no backend that is known or installed.
        """
        from mcp_tasks.storage.urls import open_backend  # noqa: PLC0415 - drivers only when asked

        store = cls(open_backend(url), namespace=namespace, config=config)
        store._owns_backend = True
        return store

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Finish what is under way, and close the backend if `open` made it."""
        while self._later:
            await asyncio.wait(set(self._later))
        if self._owns_backend:
            await self.backend.close()

    # --- creating --------------------------------------------------------------------------------

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
            call: The request it carries out; `arguments_of` makes its payloads.
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
            if not await self.quota.enter(owner, record.task_id):
                raise QuotaExceededError(self.config.max_active_of(owner))
            announced = (
                None
                if record.policy.external
                else asyncio.ensure_future(self.index.put_ready(record, 1))
            )
            try:
                version = await self._insert(record)
            except BaseException:
                if announced is not None:
                    announced.add_done_callback(_look_at)
                raise
            if announced is not None:
                await announced
            if version:
                self.changes.publish(Versioned(record, version))
                return record

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
                nobody runs.
        """
        self._refuse_if_full(owner)
        while True:
            record = self._new(owner, call, policy, ttl, poll_interval, worker)
            record = replace(record, worker=worker, attempt=1)
            admitted = self.quota.enter(owner, record.task_id)
            noted = note(record)
            version = 0
            try:
                version = await self._insert(record)
                is_admitted = await admitted
                await noted
            except BaseException:
                for future in (admitted, noted):
                    future.add_done_callback(_look_at)
                if version:
                    self._soon(self._withdraw(record))
                raise
            if not version:
                continue
            if not is_admitted:
                await self._withdraw(record)
                raise QuotaExceededError(self.config.max_active_of(owner))
            return Versioned(record, version)

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
        self._check_ttl(ttl)
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

    def _check_ttl(self, ttl: timedelta) -> None:
        if not _MILLISECOND <= ttl <= self.config.max_ttl:
            raise InvalidTtlError(
                ttl.total_seconds() * 1000, self.config.max_ttl.total_seconds() * 1000
            )

    async def _insert(self, record: TaskRecord) -> int:
        """Write a new record; 0 when a tombstone lies under its id."""
        # Half of a record is for what the task will bring: above all, it must be able to end.
        record, data = await self._fit(record, "", self._head_bytes // 2)
        version, unanswered = await self._swap(record, data, 0)
        if version is None and unanswered:
            found = await self._find(record.owner, record.task_id)
            if found is not None and record.writes[0] in found.record.writes:
                return found.version
        return version or 0

    async def _withdraw(self, record: TaskRecord) -> None:
        """Remove a new record that nobody was told of."""
        key = self.keys.task(record.owner, record.task_id)
        try:
            await repeat(lambda: self.backend.delete(key), self.config.settle)
        except StoreUnavailableError as error:
            raise StoreUnavailableError(happened=None) from error

    async def _swap(
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

    # --- reading ---------------------------------------------------------------------------------

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
        found = await self._find(owner, task_id)
        if found is None:
            raise TaskNotFoundError
        record = found.record
        if not record.is_terminal and self.clock.now() >= record.deadline:
            return await self._expire(found)
        return found

    async def _find(self, owner: str, task_id: str) -> Versioned | None:
        if not is_task_id(task_id):
            return None
        try:
            with translated():
                stored = await self.backend.get(self.keys.task(owner, task_id))
        except RecordNotFoundError:
            return None
        record = decode_record(stored.data)
        if record is None or record.owner != owner:
            return None
        return Versioned(record, stored.version)

    async def load(self, record: TaskRecord, payload: Payload | None) -> Any:
        """Return the value of a payload of `record`; `None` for no payload.

        Raises:
            RecordFormatError: A part of it is gone.
            StoreUnavailableError: The database did not answer.
        """
        if payload is None:
            return None
        if payload.blob is None:
            return from_json(payload.inline) if isinstance(payload.inline, Raw) else None
        return from_json(await self.payloads.read(payload, record.owner, record.task_id))

    async def get_result(self, owner: str, task_id: str) -> Any:
        """Return the result of a completed task; `None` may be one.

        Raises:
            TaskNotFoundError: No such task for this owner.
            NotReadyError: The task has not completed; one that failed has an `error` instead.
        """
        record = await self.get(owner, task_id)
        if record.result is None:
            raise NotReadyError(record.status)
        return await self.load(record, record.result)

    async def get_variables(self, owner: str, task_id: str) -> dict[str, Any]:
        """Return all variables of a task, those that stay on the server included."""
        while True:
            record, version = await self.read(owner, task_id)
            try:
                return await self.load(record, record.variables) or {}
            except RecordFormatError:
                # Large variables go with the write that replaces them: is there a newer one?
                if (await self.read(owner, task_id)).version == version:
                    raise

    async def list(
        self, owner: str, *, cursor: str | None = None, limit: int | None = None
    ) -> TaskPage:
        """Return a page of an owner's tasks, newest first.

        A task is in exactly one page however many are created meanwhile. A record that cannot be
        read is logged and counted, and hurts only itself.

        Args:
            owner: Whose tasks.
            cursor: From the page before; `None` for the first.
            limit: At most so many, up to `StoreConfig.max_page_size`.

        Raises:
            InvalidCursorError: Not a cursor of this owner's.
            InvalidValueError: `limit` is not positive.
        """
        size = self.config.page_size if limit is None else limit
        if size < 1:
            raise InvalidValueError("the page size", f"{size} is not positive")
        size = min(size, self.config.max_page_size)
        after = None
        if cursor is not None:
            after = self.keys.task(owner, await self._seal.open(owner, cursor))
        with translated():
            page = await self.backend.list_by_prefix(
                self.keys.tasks(owner), limit=size, after=after, reverse=True
            )
        tasks: list[TaskRecord] = []
        damaged = 0
        for stored in page.records:
            try:
                record = decode_record(stored.data)
            except RecordFormatError as error:
                damaged += 1
                _log.error("the record %s cannot be read: %s", stored.key, error)
                continue
            if record is None or record.owner != owner:
                continue
            if not record.is_terminal and self.clock.now() >= record.deadline:
                try:
                    record = (await self._expire(Versioned(record, stored.version))).record
                except TaskNotFoundError:
                    continue
            tasks.append(record)
        more = None
        if page.next is not None:
            more = await self._seal.make(owner, page.next.rpartition(":")[2])
        return TaskPage(tasks, more, damaged)

    # --- changing --------------------------------------------------------------------------------

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
        write_id = new_name()
        current = known
        unanswered: Versioned | None = None
        for tries in range(self.config.max_tries):
            if current is None:
                current = await self._find(owner, task_id)
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
                current = await self._find(owner, task_id)
                if current is not None and current.version == version:
                    raise
                continue
            if new is record:
                if current is not known:
                    # A write that was made here and never answered may be seen only now.
                    self.changes.publish(current)
                return current
            writes = (*record.writes[1 - RECENT_WRITES :], write_id)
            new, data = await self._fit(replace(new, writes=writes), run, self._head_bytes)
            await self.index.announce(record, new, version)
            committed, went_unanswered = await self._swap(new, data, version, patience)
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

    def _after(self, old: TaskRecord, written: Versioned) -> None:
        """Do what follows a write: free the owner's place, drop values, tell who waits."""
        new = written.record
        if new.is_terminal:
            self.quota.leave(new.owner, new.task_id)
            if unneeded := blobs_to_run(old):
                self._soon(self.payloads.delete(unneeded, new.owner, new.task_id))
        elif old.variables is not None and old.variables != new.variables and old.variables.blob:
            self._soon(self.payloads.delete([old.variables.blob], new.owner, new.task_id))
        self.changes.publish(written)

    def _soon(self, work: Coroutine[Any, Any, None]) -> None:
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
            committed, _ = await self._swap(new, encode_record(new), version)
            if committed is not None:
                written = Versioned(new, committed)
                self._after(record, written)
                return written
            latest = await self._find(record.owner, record.task_id)
            if latest is None:
                raise TaskNotFoundError
            if latest.record.is_terminal or self.clock.now() < latest.record.deadline:
                return latest
            record, version = latest

    async def _fit(self, record: TaskRecord, run: str, max_bytes: int) -> tuple[TaskRecord, bytes]:
        """Bring a record to its size, and encode it: what is large goes beside it.

        Raises:
            InvalidValueError: Without all that it is still too large, or it is no JSON.
        """
        if record.journal.tail_size > journal.TAIL_BYTES:
            record = await self._seal_journal(record, run or new_name())
        limit = self.payloads.inline_bytes
        call = record.call
        if call.arguments.weight > limit or (
            call.input_responses is not None and call.input_responses.weight > limit
        ):
            record = replace(record, call=await self._call_beside(record, limit))
        data = encode_record(record)
        if len(data) > max_bytes:
            record = await self._spill(record, run)
            data = encode_record(record)
            if len(data) > max_bytes:
                problem = f"{len(data)} bytes even without its values, {max_bytes} are allowed"
                raise InvalidValueError("the task's record", problem)
        return record, data

    async def _call_beside(self, record: TaskRecord, limit: int) -> Call:
        call = record.call
        return replace(
            call,
            arguments=await self._beside(record, call.arguments, limit),
            input_responses=call.input_responses
            and await self._beside(record, call.input_responses, limit),
        )

    async def _beside(self, record: TaskRecord, payload: Payload, limit: int) -> Payload:
        """Put a value of a record beside it, if it is longer than `limit`."""
        if payload.weight <= limit:
            return payload
        data = bytes(payload.inline) if isinstance(payload.inline, Raw) else b"null"
        return await self.place(data, record.owner, record.task_id, record.created_at, limit=1)

    async def _seal_journal(self, record: TaskRecord, name: str) -> TaskRecord:
        sealed = record.journal
        size = min(journal.TAIL_BYTES, self.payloads.chunk_bytes // 2)
        for entries in journal.split(record.journal.tail, size):
            data = journal.encode_chunk(entries)
            while not await self.payloads.write_chunk(
                data,
                record.owner,
                record.task_id,
                name,
                journal.next_chunk(sealed, name),
                self.blobs_gone_at(record.created_at),
            ):
                name = new_name()  # an earlier try put other entries there
            sealed = journal.seal(sealed, name, len(data))
        return replace(record, journal=sealed)

    async def _spill(self, record: TaskRecord, run: str) -> TaskRecord:
        """Put everything of a record beside it that can lie there."""

        async def move(payload: Payload) -> Payload:
            return await self._beside(record, payload, _MIN_INLINE)

        async def move_params(question: Question) -> Question:
            return replace(question, params=await move(question.params))

        if record.journal.tail:
            record = await self._seal_journal(record, run or new_name())
        questions = await asyncio.gather(*map(move_params, record.questions))
        return replace(
            record,
            call=await self._call_beside(record, _MIN_INLINE),
            questions=tuple(questions),
            variables=record.variables and await move(record.variables),
            result=record.result and await move(record.result),
        )

    async def place(
        self, data: bytes, owner: str, task_id: str, created_at: datetime, *, limit: int = 0
    ) -> Payload:
        """Make a payload of JSON for a task: in its record, or beside it when it is large."""
        expires_at = self.blobs_gone_at(created_at)
        return await self.payloads.place(data, owner, task_id, expires_at, limit=limit)

    def blobs_gone_at(self, created_at: datetime) -> datetime:
        """Return the last moment at which anything may need what lies beside a task's record."""
        config = self.config
        return created_at + config.max_ttl + config.retention + config.grace

    def encode(self, value: Any, *, what: str) -> Payload:
        """Make the payload of a value for a call. The store puts it beside the record if large.

        Raises:
            InvalidValueError: It is no JSON, or too large. Nothing was stored.
        """
        return inline(to_json(value, what=what, max_bytes=self.config.max_payload_bytes))

    def gone_at(self, record: TaskRecord) -> datetime:
        """Return when the backend may remove a record."""
        return record.deadline + self.config.grace

    # --- operations ------------------------------------------------------------------------------

    async def update_status(
        self, owner: str, task_id: str, status: TaskStatus, message: str | None = None
    ) -> TaskRecord:
        """Move a task by the status table, for work that goes on outside.

        Args:
            owner: Whose task.
            task_id: Which.
            status: The new one.
            message: Replaces the last one; `None` clears it.

        Raises:
            InvalidTransitionError: The table does not have it. Nothing was changed.
            TaskTerminalError: The task has ended. Nothing was changed.
        """
        _check_message(message)
        written = await self.change(
            owner,
            task_id,
            lambda record, now: transitions.update(
                record, now, status, retention=self.config.retention, message=message
            ),
        )
        return written.record

    async def set_variables(
        self, owner: str, task_id: str, changes: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Merge `changes` into a task's variables; `None` removes a name. Returns all of them.

        Raises:
            VariablesTooLargeError: All together would be over the limit. Nothing was saved.
            InvalidValueError: A value is no JSON, too deep, or holds too long a string.
            TaskTerminalError: The task has ended. Nothing was saved.
        """
        merged: dict[str, Any] = {}

        async def transition(record: TaskRecord, now: datetime) -> TaskRecord:
            nonlocal merged
            new, merged = await self.merge_variables(record, now, changes)
            return new

        await self.change(owner, task_id, transition)
        return merged

    async def merge_variables(
        self, record: TaskRecord, now: datetime, changes: Mapping[str, Any]
    ) -> tuple[TaskRecord, dict[str, Any]]:
        """Return the record with merged variables, and all of them. Reads and writes only blobs."""
        if record.is_terminal:
            raise TaskTerminalError(record.status, record.status)
        config = self.config
        variables.check(
            changes, max_depth=config.max_variable_depth, max_string=config.max_string_bytes
        )
        current: dict[str, Any] = await self.load(record, record.variables) or {}
        merged = variables.merge(current, changes)
        data = variables.encode(merged, max_bytes=config.max_variables_bytes)
        payload = await self.place(data, record.owner, record.task_id, record.created_at)
        new = replace(record, variables=payload, updated_at=max(now, record.updated_at))
        return new, merged

    async def set_result(self, owner: str, task_id: str, result: Any) -> TaskRecord:
        """Complete a task with `result`: an outcome is written with its status or not at all."""
        return await self.complete_with_result(owner, task_id, result)

    async def complete_with_result(
        self, owner: str, task_id: str, result: Any, message: str | None = None
    ) -> TaskRecord:
        """Complete a task; status and result are one write. `None` is a result.

        Raises:
            InvalidValueError: The result is no JSON, or too large. Nothing was changed.
            TaskTerminalError: The task has ended. Nothing was changed.
        """
        _check_message(message)
        data = to_json(result, what="the result", max_bytes=self.config.max_payload_bytes)
        payload: Payload | None = None

        async def transition(record: TaskRecord, now: datetime) -> TaskRecord:
            nonlocal payload
            check_transition(record.status, TaskStatus.COMPLETED)
            payload = payload or await self.place(data, owner, task_id, record.created_at)
            return transitions.end(
                record,
                now,
                TaskStatus.COMPLETED,
                retention=self.config.retention,
                message=message,
                result=payload,
            )

        return (await self.change(owner, task_id, transition)).record

    async def fail(
        self, owner: str, task_id: str, code: int, message: str, data: Any = UNSET
    ) -> TaskRecord:
        """End a task with a JSON-RPC error.

        Raises:
            InvalidValueError: `data` is no JSON, or too large. Nothing was changed.
            TaskTerminalError: The task has ended. Nothing was changed.
        """
        _check_message(message)
        body = (
            UNSET
            if data is UNSET
            else Raw(to_json(data, what="the error's data", max_bytes=self.config.max_inline_bytes))
        )
        failure = Failure(code, message, body)
        written = await self.change(
            owner,
            task_id,
            lambda record, now: transitions.fail(
                record, now, failure, retention=self.config.retention
            ),
        )
        return written.record

    async def ask(
        self, owner: str, task_id: str, key: str, method: str, params: Mapping[str, Any]
    ) -> TaskRecord:
        """Put a question to a task's client; the task is then `input_required`.

        A question that is outstanding under this key stays as it is. The task then lives for the
        maximum ttl from now on (not for `anonymous`).

        Raises:
            InvalidValueError: `params` is no JSON or too large, or too many questions.
            QuestionKeyError: The key was answered before. Nothing was asked.
            TaskTerminalError: The task has ended. Nothing was asked.
        """
        data = to_json(
            dict(params), what=f"the question {key!r}", max_bytes=self.config.max_payload_bytes
        )

        payload: Payload | None = None

        async def transition(record: TaskRecord, now: datetime) -> TaskRecord:
            nonlocal payload
            payload = payload or await self.place(data, owner, task_id, record.created_at)
            return self.asked(record, now, (Question(key, method, payload, now),))

        return (await self.change(owner, task_id, transition)).record

    def asked(
        self, record: TaskRecord, now: datetime, questions: tuple[Question, ...]
    ) -> TaskRecord:
        """Return the record with questions, and with the time that a person needs to answer."""
        new = inputs.ask(
            record,
            now,
            questions,
            max_open=self.config.max_questions,
            max_ever=self.config.max_questions_ever,
        )
        # Parked strangers would be a cheap way to fill a store.
        if new is record or record.owner == ANONYMOUS:
            return new
        return transitions.extend(new, now, self.config.max_ttl, max_ttl=self.config.max_ttl)

    async def answer(
        self, owner: str, task_id: str, answers: Mapping[str, Any], *, by: str | None = None
    ) -> TaskRecord:
        """Take answers, durably before this returns. The first answer under a key wins.

        Keys that are not outstanding, and answers to a task that has ended, change nothing,
        whatever they hold. With answers for some of the outstanding keys, the others stay.

        Args:
            owner: Whose task.
            task_id: Which.
            answers: Values by question key, in the shape that the question's method answers with.
            by: Who answered, for operators.

        Raises:
            TaskNotFoundError: No such task for this owner.
            InvalidValueError: An outstanding question's answer is no JSON, too large, or not an
                object. The question stays outstanding, and so do the others.
        """
        config = self.config
        encoded: dict[str, bytes] = {}
        placed: dict[str, Payload] = {}

        async def transition(record: TaskRecord, now: datetime) -> TaskRecord:
            # All are checked before the first is placed: a bad one takes none.
            for question in record.questions:
                if question.key in answers and question.key not in encoded:
                    encoded[question.key] = _check_answer(
                        question, answers[question.key], config.max_payload_bytes
                    )
            for question in record.questions:
                if question.key in answers and question.key not in placed:
                    placed[question.key] = await self.place(
                        encoded[question.key], owner, task_id, record.created_at, limit=1024
                    )
            return inputs.answer(
                record,
                now,
                placed,
                by=by,
                # Steps may be refused their place in a journal, answers never.
                max_entries=config.max_steps + config.max_questions_ever,
                max_bytes=config.max_journal_bytes,
            )

        try:
            return (await self.change(owner, task_id, transition)).record
        except TaskExpiredError:
            return await self.get(owner, task_id)

    async def cancel(self, owner: str, task_id: str, *, by: str | None = None) -> TaskRecord:
        """Ask for the end of a task, durably before this returns.

        A task that nobody runs is `cancelled` at once. One that a worker runs gets a flag and the
        worker is told; it may still finish first. Asking again, or for a task that has ended,
        changes nothing.

        Raises:
            TaskNotFoundError: No such task for this owner.
        """
        was_asked = False

        def transition(record: TaskRecord, now: datetime) -> TaskRecord:
            nonlocal was_asked
            was_asked = record.cancel is not None
            return transitions.cancel(record, now, by=by, retention=self.config.retention)

        try:
            written = await self.change(owner, task_id, transition)
        except TaskExpiredError:
            return await self.get(owner, task_id)
        if was_asked and written.record.worker is not None:
            # The client would not ask again if the worker had acted: its entry may be lost.
            await self.index.tell(written.record, written.version)
        return written.record

    async def progress(
        self,
        owner: str,
        task_id: str,
        current: float,
        total: float | None = None,
        message: str | None = None,
    ) -> TaskRecord:
        """Show how far a task is, for work that goes on outside. Nothing for a task that ended."""
        progress = make_progress(current, total, message)
        written = await self.change(
            owner, task_id, lambda record, now: transitions.report(record, now, progress)
        )
        return written.record

    async def extend(self, owner: str, task_id: str, ttl: timedelta) -> TaskRecord:
        """Let a task live for at least `ttl` from now on.

        Raises:
            InvalidTtlError: `ttl` is over the maximum. Nothing was changed.
            TaskTerminalError: The task has ended. Nothing was changed.
        """
        self._check_ttl(ttl)
        written = await self.change(
            owner,
            task_id,
            lambda record, now: transitions.extend(record, now, ttl, max_ttl=self.config.max_ttl),
        )
        return written.record

    async def cleanup_expired(self) -> int:
        """Remove what has expired, as far as the database does not by itself. Returns how much."""
        with translated():
            return await self.backend.cleanup_expired(self.clock.now())


def _look_at(future: asyncio.Future[Any]) -> None:
    """Take an error that another error came before, so that it is not reported as forgotten."""
    if not future.cancelled():
        future.exception()


def make_progress(current: float, total: float | None, message: str | None) -> Progress:
    """Make progress that JSON can carry.

    Raises:
        InvalidValueError: A number that JSON does not have, or too long a message.
    """
    _check_message(message)
    to_json([current, total], what="progress", max_bytes=MAX_TEXT_BYTES)
    return Progress(current, total, message)


def _check_message(message: str | None) -> None:
    if message is not None:
        to_json(message, what="a status message", max_bytes=MAX_TEXT_BYTES + 2)


def _check_answer(question: Question, value: object, max_bytes: int) -> bytes:
    """Encode an answer if it has the shape that the question's method answers with."""
    what = f"the answer to {question.key!r}"
    if not isinstance(value, dict):
        raise InvalidValueError(what, "it is not an object")
    answer = cast("dict[str, Any]", value)
    if question.method == "elicitation/create" and answer.get("action") not in (
        "accept",
        "decline",
        "cancel",
    ):
        raise InvalidValueError(what, "its action is not accept, decline or cancel")
    return to_json(answer, what=what, max_bytes=max_bytes)

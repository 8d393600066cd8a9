"""`TaskStore`: every rule about tasks, over any backend.

Here is what may be done with a task. How its record is found and changed is in `records`, how it
comes to be in `creation`, and in `once`.
"""

from __future__ import annotations

import asyncio
import logging
import math
from typing import TYPE_CHECKING, Any, Self, cast

from msgspec import UNSET, Raw
from msgspec.structs import replace

from mcp_tasks.domain import inputs, transitions, variables
from mcp_tasks.domain.codec import decode_record
from mcp_tasks.domain.record import Failure, Progress, Question, inline
from mcp_tasks.domain.status import TaskStatus, check_transition
from mcp_tasks.domain.transitions import MAX_TEXT_BYTES
from mcp_tasks.errors import (
    InvalidValueError,
    NotReadyError,
    RecordFormatError,
    TaskExpiredError,
    TaskNotFoundError,
    TaskTerminalError,
)
from mcp_tasks.failpoints import failpoint
from mcp_tasks.ids import short
from mcp_tasks.jsonio import from_json, to_json
from mcp_tasks.store.changes import Versioned
from mcp_tasks.store.config import ANONYMOUS
from mcp_tasks.store.listing import Seal, TaskPage
from mcp_tasks.store.once import CreationOnce
from mcp_tasks.store.purge import PATIENCE, Purge
from mcp_tasks.store.writing import translated


if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta

    from mcp_tasks.clock import Clock
    from mcp_tasks.domain.record import Payload, TaskRecord
    from mcp_tasks.storage.base import StorageBackend
    from mcp_tasks.store.config import StoreConfig
    from mcp_tasks.store.purge import Holdings, Purged


_log = logging.getLogger("mcp_tasks.store")


class TaskStore(CreationOnce):
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
        super().__init__(backend, namespace=namespace, config=config, clock=clock)
        self._seal = Seal(backend, self.keys)
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
        self.is_closing = True
        while self._later:
            await asyncio.wait(set(self._later))
        self.is_closing = False
        if self._owns_backend:
            await self.backend.close()

    # --- reading ---------------------------------------------------------------------------------

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
                _log.error(
                    "the record of task %s cannot be read: %s",
                    short(stored.key.rpartition(":")[2]),
                    error,
                )
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

    def encode(self, value: Any, *, what: str) -> Payload:
        """Make the payload of a value for a call. The store puts it beside the record if large.

        Raises:
            InvalidValueError: It is no JSON, or too large. Nothing was stored.
        """
        return inline(to_json(value, what=what, max_bytes=self.config.max_payload_bytes))

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
        payload = await self.fitting.place(data, record.owner, record.task_id, record.created_at)
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
            payload = payload or await self.fitting.place(data, owner, task_id, record.created_at)
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
            payload = payload or await self.fitting.place(data, owner, task_id, record.created_at)
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
                    placed[question.key] = await self.fitting.place(
                        encoded[question.key], owner, task_id, record.created_at, limit=1024
                    )
            return inputs.answer(
                record,
                now,
                placed,
                by=by,
                # Steps may be refused their place in a journal, answers never.
                max_entries=config.max_steps + config.max_questions_ever,
                max_bytes=config.max_journal_bytes
                + config.max_questions_ever * config.max_payload_bytes,
            )

        try:
            written = await self.change(owner, task_id, transition)
        except TaskExpiredError:
            return await self.get(owner, task_id)
        failpoint("update.after_put_before_ack")
        return written.record

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
        failpoint("cancel.after_flag_before_signal")
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
        self.check_ttl(ttl)
        written = await self.change(
            owner,
            task_id,
            lambda record, now: transitions.extend(record, now, ttl, max_ttl=self.config.max_ttl),
        )
        return written.record

    async def purge_owner(
        self, owner: str, *, cancel: bool = False, patience: float = PATIENCE
    ) -> Purged:
        """Remove everything of an owner: tasks, what lies beside them, roster, idempotency keys.

        Safe to call again, after a failure too, and beside servers. Tasks that the owner creates
        meanwhile are left, with all that is theirs.

        Args:
            owner: Whose.
            cancel: Cancel tasks that have not ended; otherwise they are a reason to refuse.
            patience: Seconds to wait for their ends. What has not ended then is removed all the
                same: a worker that still runs it can write nothing any more.

        Raises:
            OwnerActiveError: There are tasks that have not ended. Nothing was removed.
            StoreUnavailableError: The database failed; what is left is removed by another call.
        """
        return await Purge(self, owner, self.cancel).run(cancel=cancel, patience=patience)

    async def holdings(self, owner: str) -> Holdings:
        """Count the tasks of an owner, and those of them that have not ended. Reads all of them."""
        return await Purge(self, owner, self.cancel).holdings()

    async def cleanup_expired(self) -> int:
        """Remove what has expired, as far as the database does not by itself. Returns how much."""
        failpoint("ttl.after_read_before_delete")
        with translated():
            return await self.backend.cleanup_expired(self.clock.now())


def make_progress(current: float, total: float | None, message: str | None) -> Progress:
    """Make progress that JSON can carry. Too long a message is cut.

    Raises:
        InvalidValueError: What should be a number or a text is none, or JSON does not have it.
    """
    now = _number(current, "the current progress")
    whole = None if total is None else _number(total, "the total of the progress")
    return Progress(
        now, whole, None if message is None else _text(message, "the message of the progress")
    )


def _number(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidValueError(what, f"{type(value).__name__} is no number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InvalidValueError(what, f"{number} is no number that JSON has")
    return number


def _text(value: object, what: str) -> str:
    """Return a text as it can be shown: too long a one is cut."""
    if not isinstance(value, str):
        raise InvalidValueError(what, f"{type(value).__name__} is no text")
    return transitions.cut(value, MAX_TEXT_BYTES)


def _check_message(message: str | None) -> None:
    if message is not None and not isinstance(message, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may do anything
        raise InvalidValueError("a status message", f"{type(message).__name__} is no text")
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

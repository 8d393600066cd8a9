"""One attempt at a task: the body while it runs, and every write that is made for it.

All writes go through `change`, one at a time, from the record in hand; each checks the fence again
on every record that it meets. Writes that wait together become one.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

import anyio.to_thread
from msgspec import UNSET, Raw
from msgspec.structs import replace

from mcp_tasks import ids
from mcp_tasks.context import TaskContext
from mcp_tasks.domain import journal as journals
from mcp_tasks.domain import transitions
from mcp_tasks.domain.record import Entry, Failure, Journal, Question
from mcp_tasks.domain.status import TaskStatus
from mcp_tasks.errors import (
    INTERNAL_ERROR,
    ClientCapabilityError,
    ContentionError,
    InvalidTtlError,
    InvalidValueError,
    JournalFullError,
    JournalMismatchError,
    LeaseLostError,
    MCPTasksError,
    QuestionKeyError,
    StoreUnavailableError,
    TaskError,
    TaskExpiredError,
    TaskNotFoundError,
)
from mcp_tasks.jsonio import from_json, to_json
from mcp_tasks.runner.outcome import Body, Completed, Failed, Outcome, TaskRun
from mcp_tasks.store.task_store import make_progress


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from datetime import datetime, timedelta

    from mcp_tasks.domain.record import Progress, TaskRecord
    from mcp_tasks.runner.runner import Runner
    from mcp_tasks.store.changes import Versioned

    _Step = Callable[[TaskRecord, datetime], TaskRecord | Awaitable[TaskRecord]]


T = TypeVar("T")
_log = logging.getLogger("mcp_tasks.runner")

_CAPABILITY = {
    "elicitation/create": "elicitation",
    "sampling/createMessage": "sampling",
    "roots/list": "roots",
}


class Stop(Enum):
    """Why a body is cancelled."""

    CANCEL = "its end was asked for"
    PARK = "it waits for an answer"
    LOST = "another worker may run it now"
    DRAIN = "the worker stops"


class Attempt:
    """One run of a task's body. Also the operations behind its `TaskContext`.

    Args:
        runner: Who runs it.
        worker: Under which incarnation.
        claimed: The record as claimed by it, and its version.
        body: What carries out the call.
    """

    durable = True

    def __init__(self, runner: Runner, worker: str, claimed: Versioned, body: Body) -> None:
        record = claimed.record
        self.task_id = record.task_id
        self.owner = record.owner
        self.number = record.attempt
        self.worker = worker
        self._is_cancellable = False
        self.started = False
        self.over = False
        self.is_waiting = False
        self.why: Stop | None = None
        self.ended = asyncio.Event()
        self.life = record.ttl
        self._runner = runner
        self._store = runner.store
        self._body = body
        self._current = claimed
        self._run_name = ids.new_name()
        self._task: asyncio.Task[None] | None = None
        self._pending: list[tuple[_Step, asyncio.Future[None]]] = []
        self._writing = False
        self._journal: dict[tuple[str, str], Entry] = {}
        self._used: set[tuple[str, str]] = set()
        self._asked: list[Question] = []
        self._asking: asyncio.Task[None] | None = None
        self._answers: dict[str, asyncio.Future[Any]] = {}
        self._numbered = 0
        self._steps = 0
        self._progress: Progress | None = None
        self._progress_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._fatal: TaskError | None = None

    @property
    def record(self) -> TaskRecord:
        """The record as last known here."""
        return self._current.record

    @property
    def cancel_requested(self) -> bool:
        """True once somebody asked for the end of the task, or this attempt must stop."""
        return self.why is not None or self.record.cancel is not None

    # --- running ---------------------------------------------------------------------------------

    def begin(self, task: asyncio.Task[None]) -> None:
        """Note the asyncio task that executes `run`."""
        self._task = task

    async def run(self) -> None:
        """Run the body and record how it ended. Never raises."""
        outcome: Outcome | None = None
        try:
            self._is_cancellable = True
            if self.why is None:
                outcome = await self._execute()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or not task.cancelling():
                outcome = Failed(INTERNAL_ERROR, "the tool cancelled itself")
            else:
                task.uncancel()
        except TaskError as error:
            outcome = Failed(error.code, str(error))
        except Exception:
            _log.exception("the body of task %s failed", self.task_id)
            outcome = Failed(INTERNAL_ERROR, "internal error while the tool ran")
        self._is_cancellable = False
        try:
            await self._conclude(outcome)
        except asyncio.CancelledError:
            _log.warning("task %s: the loop ended first; its lease decides", self.task_id)
        except MCPTasksError as error:
            _log.error("task %s attempt %d is left: %s", self.task_id, self.number, error)
        finally:
            self.close()

    async def _execute(self) -> Outcome:
        record, store = self.record, self._store
        if record.journal.count:
            await self._load_journal(record.journal)
        arguments = await store.load(record, record.call.arguments)
        responses = await store.load(record, record.call.input_responses)
        task = TaskContext(
            self,
            task_id=self.task_id,
            attempt=self.number,
            idempotency_key=self.task_id,
            principal=record.call.principal,
        )
        self.started = True
        run = TaskRun(record, arguments or {}, responses, task)
        around = self._runner.around
        if around is None:
            outcome = await self._body(run)
        else:
            async with around(task):
                outcome = await self._body(run)
        return Failed(self._fatal.code, str(self._fatal)) if self._fatal else outcome

    async def _conclude(self, outcome: Outcome | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self.over or self.why is Stop.PARK or self.why is Stop.LOST:
            return
        if outcome is not None:
            await self._finish(outcome)
        elif self.why is Stop.CANCEL:
            await self.end_cancelled()
        elif self.why is Stop.DRAIN:
            await self.hand_back()
        else:
            _log.warning("task %s was cancelled with its loop; its lease decides", self.task_id)

    async def _finish(self, outcome: Outcome) -> None:
        """Record how the body ended; an outcome that cannot be stored is an error that says so."""
        retention = self._store.config.retention
        if isinstance(outcome, Completed):
            try:
                data = to_json(
                    outcome.result,
                    what="the tool's result",
                    max_bytes=self._store.config.max_payload_bytes,
                )
            except InvalidValueError as error:
                outcome = Failed(INTERNAL_ERROR, str(error))
            else:
                payload = await self._settled(
                    lambda: self._store.place(
                        data, self.owner, self.task_id, self.record.created_at
                    )
                )

                def complete(record: TaskRecord, now: datetime) -> TaskRecord:
                    return transitions.end(
                        record, now, TaskStatus.COMPLETED, retention=retention, result=payload
                    )

                await self._settled(lambda: self.change(complete))
                return
        failure = _failure(outcome, self._store.config.max_inline_bytes)
        await self._settled(
            lambda: self.change(
                lambda record, now: transitions.fail(record, now, failure, retention=retention)
            )
        )

    async def end_cancelled(self) -> None:
        """Record that the task ended because its end was asked for."""
        retention = self._store.config.retention
        await self._settled(
            lambda: self.change(
                lambda record, now: transitions.end(
                    record, now, TaskStatus.CANCELLED, retention=retention
                )
            )
        )

    async def hand_back(self) -> None:
        """Give the task up so that another worker goes on, or end it if it may not be run again."""
        retention = self._store.config.retention
        await self._settled(
            lambda: self.change(
                lambda record, now: transitions.hand_back(
                    record,
                    now,
                    self.worker,
                    self.number,
                    started=self.started,
                    retention=retention,
                )
            )
        )

    async def _settled(self, write: Callable[[], Awaitable[T]]) -> T | None:
        """Make a last write, again and again while the database is away: it can still count.

        It is given up when the task is known to be somebody else's, gone, or past its time.
        """
        delay = 0.1
        while True:
            try:
                return await write()
            except (LeaseLostError, TaskNotFoundError, TaskExpiredError) as error:
                _log.info("task %s attempt %d: %s", self.task_id, self.number, error)
                self.over = True
                return None
            except (StoreUnavailableError, ContentionError) as error:
                if self._runner.is_closed:
                    raise
                _log.warning("task %s: %s; trying again", self.task_id, error)
                await asyncio.sleep(delay)
                delay = min(2 * delay, 2.0)

    def stop(self, why: Stop) -> None:
        """Cancel the body; the first reason counts, except that a lost lease overrides it."""
        if self.over or (self.why is not None and why is not Stop.LOST):
            return
        first = self.why is None
        self.why = why
        # Before its first step a cancelled coroutine would never run, and after its body it has
        # a last write to make.
        if first and self._is_cancellable and self._task is not None:
            self._task.cancel()

    def close(self) -> None:
        """Refuse whatever the body, or a thread of it, still wants to write."""
        self.over = True
        if self._timer is not None:
            self._timer.cancel()
        for future in self._answers.values():
            future.cancel()
        for _, future in self._pending:
            if not future.done():
                future.set_exception(LeaseLostError(self.number))
                future.exception()
        self._pending = []

    # --- writing ---------------------------------------------------------------------------------

    async def change(self, step: _Step) -> None:
        """Apply a transition under the fence.

        Raises:
            LeaseLostError: This attempt may not write any more.
            StoreUnavailableError: The database failed.
            TaskError: What the transition refuses.
        """
        if self.over:
            raise LeaseLostError(self.number)
        if self._writing:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._pending.append((step, waiter))
            await waiter
            return
        self._writing = True
        try:
            await self._write([step])
        finally:
            self._writing = False
            if self._pending:
                self._runner.spawn(self._flush())

    async def _flush(self) -> None:
        while self._pending and not self._writing:
            batch, self._pending = self._pending, []
            self._writing = True
            try:
                refused = await self._write([step for step, _ in batch], tell=True)
            except Exception as error:  # noqa: BLE001 - it belongs to those who wait
                refused = [error] * len(batch)
            finally:
                self._writing = False
            for (_, waiter), error in zip(batch, refused, strict=True):
                if waiter.done():
                    continue
                if error is None:
                    waiter.set_result(None)
                else:
                    waiter.set_exception(error)

    async def _write(
        self, steps: list[_Step], *, tell: bool = False
    ) -> list[Exception | None]:
        """Make several steps in one write. With `tell`, what one refuses does not stop the others."""
        refused: list[Exception | None] = [None] * len(steps)
        progress, self._progress = self._progress, None

        async def transition(record: TaskRecord, now: datetime) -> TaskRecord:
            transitions.check_fence(record, self.worker, self.number)
            new = record
            if progress is not None:
                new = transitions.report(new, now, progress)
            for number, step in enumerate(steps):
                try:
                    made = step(new, now)
                    new = await made if inspect.isawaitable(made) else made
                    refused[number] = None
                except TaskError as error:
                    if not tell:
                        raise
                    refused[number] = error
            return new

        try:
            written = await self._store.change(
                self.owner,
                self.task_id,
                transition,
                known=self._current,
                run=self._run_name,
            )
        except LeaseLostError:
            self.lost()
            raise
        except (TaskNotFoundError, TaskExpiredError):
            self.lost()
            raise
        if written.version > self._current.version:
            self._current = written
        return refused

    def lost(self) -> None:
        """Note that this attempt may not write any more, and stop the body."""
        self.stop(Stop.LOST)

    def observe(self, seen: Versioned) -> None:
        """Take note of the record as somebody else wrote it."""
        if self.over or seen.version <= self._current.version:
            return
        self._current = seen
        record = seen.record
        if not record.is_held_by(self.worker, self.number):
            if self.why is not Stop.PARK and not self._writing:
                self.lost()
            return
        self._deliver(record)
        if record.cancel is not None and self.why is None:
            self._runner.cancel(self)

    # --- operations of the context ---------------------------------------------------------------

    async def step(self, key: str, what: str, run: Callable[[], Awaitable[bytes]]) -> bytes:
        """Return the recorded value of a step, or run it and record its value first."""
        if not self.record.policy.resumable:
            return await run()
        place = ("step", key)
        recorded = self._journal.get(place)
        if recorded is not None and recorded.what != what:
            raise self._fail(JournalMismatchError(key, recorded.what, what))
        if place in self._used:
            raise self._fail(JournalMismatchError(key, f"{what} earlier in this run", what))
        self._used.add(place)
        if recorded is not None:
            return bytes(
                await self._store.payloads.read(recorded.value, self.owner, self.task_id)
            )
        config = self._store.config
        self._steps += 1
        try:
            data = await run()
            payload = await self._store.place(
                data, self.owner, self.task_id, self.record.created_at
            )
            entry = Entry(key, "step", payload, what)
            try:
                await self.change(
                    lambda record, now: replace(
                        record,
                        journal=journals.append(
                            record.journal,
                            (entry,),
                            max_entries=config.max_steps,
                            max_bytes=config.max_journal_bytes,
                        ),
                        updated_at=max(now, record.updated_at),
                    )
                )
            except JournalFullError as error:
                raise self._fail(error) from error
        finally:
            self._steps -= 1
        self._journal[place] = entry
        if self._answers and not self._steps:
            self._ask_soon()
        return data

    def _fail(self, error: TaskError) -> TaskError:
        """Let an error end the task, whatever the tool makes of it."""
        self._fatal = self._fatal or error
        return error

    async def ask(self, key: str | None, method: str, params: Mapping[str, Any]) -> Any:
        """Ask the client and wait for the answer; in a resumable task without a worker."""
        if self.over:
            raise LeaseLostError(self.number)
        self._check_capability(method)
        resumable = self.record.policy.resumable
        if key is None:
            self._numbered += 1
            key = f"{_CAPABILITY.get(method, 'request')}-{self._numbered}"
        if not resumable and self.number > 1:
            # Another attempt asks anew, and no key may be used twice (T-048).
            key = f"{key}~{self.number}"
        place = ("answer", key)
        recorded = self._journal.get(place)
        if recorded is not None and recorded.what != method:
            raise self._fail(JournalMismatchError(key, recorded.what, method))
        if place in self._used:
            raise QuestionKeyError(key)
        self._used.add(place)
        if recorded is not None:
            return from_json(
                await self._store.payloads.read(recorded.value, self.owner, self.task_id)
            )
        limit = self._store.config.max_payload_bytes
        data = to_json(dict(params), what=f"the question {key!r}", max_bytes=limit)
        payload = await self._store.place(
            data, self.owner, self.task_id, self.record.created_at, limit=1024
        )
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answers[key] = answer
        self._asked.append(Question(key, method, payload, self._store.clock.now()))
        self._ask_soon()
        if not self.is_waiting:
            self.is_waiting = True
            self._runner.yield_slot()
        try:
            return await answer
        finally:
            self._answers.pop(key, None)
            if self.is_waiting and not self._answers:
                self.is_waiting = False
                self._runner.take_slot()

    def _check_capability(self, method: str) -> None:
        needed = _CAPABILITY.get(method)
        if needed is None:
            raise InvalidValueError("a question", f"a task cannot ask {method!r}")
        raw = self.record.call.client_capabilities
        declared = from_json(raw) if isinstance(raw, Raw) else {}
        if not isinstance(declared, dict) or declared.get(needed) is None:
            raise ClientCapabilityError(needed)

    def _ask_soon(self) -> None:
        if self._asking is None:
            self._asking = self._runner.spawn(self._put_questions())

    async def _put_questions(self) -> None:
        """Write what is asked. Questions of one moment go together, and so does the parking."""
        try:
            # Branches of the body that ask at the same moment get there within two turns.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            questions, self._asked = tuple(self._asked), []
            park = self.record.policy.resumable and not self._steps
            retention = self._store.config.retention

            def transition(record: TaskRecord, now: datetime) -> TaskRecord:
                new = self._store.asked(record, now, questions) if questions else record
                if park:
                    new = transitions.park(
                        new, now, self.worker, self.number, retention=retention
                    )
                return new

            try:
                await self.change(transition)
            except TaskError as error:
                for future in self._answers.values():
                    if not future.done():
                        future.set_exception(error)
                return
            record = self.record
            if record.worker is None:
                self.stop(Stop.PARK)
            else:
                self._deliver(record)
        finally:
            self._asking = None
            if self._asked and not self.over:
                self._ask_soon()

    def _deliver(self, record: TaskRecord) -> None:
        """Hand answers that the record shows to those who wait for them."""
        open_keys = {question.key for question in record.questions}
        waiting = {question.key for question in self._asked} | open_keys
        answered = [
            key
            for key, future in self._answers.items()
            if key not in waiting and not future.done()
        ]
        if answered:
            self._runner.spawn(self._fetch_answers(record, answered))

    async def _fetch_answers(self, record: TaskRecord, keys: list[str]) -> None:
        found = {
            entry.key: entry for entry in record.journal.tail if entry.kind == "answer"
        }
        try:
            if not found.keys() >= set(keys):
                await self._load_journal(record.journal)
                found.update((e.key, e) for (kind, _), e in self._journal.items() if kind == "answer")
            for key in keys:
                future, entry = self._answers.get(key), found.get(key)
                if future is None or future.done() or entry is None:
                    continue
                self._journal["answer", key] = entry
                raw = await self._store.payloads.read(entry.value, self.owner, self.task_id)
                if not future.done():
                    future.set_result(from_json(raw))
        except TaskError as error:
            for key in keys:
                future = self._answers.get(key)
                if future is not None and not future.done():
                    future.set_exception(error)

    async def _load_journal(self, journal: Journal) -> None:
        for blob in journal.sealed:
            for chunk in await self._store.payloads.chunks(blob, self.owner, self.task_id):
                for entry in journals.decode_chunk(chunk):
                    self._journal[entry.kind, entry.key] = entry
        for entry in journal.tail:
            self._journal[entry.kind, entry.key] = entry

    async def report(self, current: float, total: float | None, message: str | None) -> None:
        """Show progress; at most one write a second carries nothing else."""
        if self.over:
            raise LeaseLostError(self.number)
        self._progress = make_progress(current, total, message)
        loop = asyncio.get_running_loop()
        pause = self._runner.config.progress_every
        wait = self._progress_at + pause - loop.time()
        if wait > 0:
            if self._timer is None:
                self._timer = loop.call_later(
                    wait, lambda: self._runner.spawn(self._write_progress())
                )
            return
        self._progress_at = loop.time()
        await self.change(lambda record, _now: record)

    async def _write_progress(self) -> None:
        self._timer = None
        if self._progress is None or self.over or self.why is not None:
            return
        self._progress_at = asyncio.get_running_loop().time()
        try:
            await self.change(lambda record, _now: record)
        except TaskError as error:
            _log.debug("progress of task %s was not written: %s", self.task_id, error)

    async def variables(self) -> dict[str, Any]:
        """Return the task's variables."""
        return await self._store.load(self.record, self.record.variables) or {}

    async def set_variables(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Merge `changes` into the variables."""
        merged: dict[str, Any] = {}

        async def transition(record: TaskRecord, now: datetime) -> TaskRecord:
            nonlocal merged
            new, merged = await self._store.merge_variables(record, now, changes)
            return new

        await self.change(transition)
        return merged

    async def extend(self, ttl: timedelta) -> None:
        """Let the task live for at least `ttl` from now on."""
        max_ttl = self._store.config.max_ttl
        if not 0 < ttl.total_seconds() <= max_ttl.total_seconds():
            raise InvalidTtlError(ttl.total_seconds() * 1000, max_ttl.total_seconds() * 1000)
        await self.change(
            lambda record, now: transitions.extend(record, now, ttl, max_ttl=max_ttl)
        )

    async def run_sync(self, fn: Callable[[], T]) -> T:
        """Run a blocking function in a thread of the runner's."""
        return await anyio.to_thread.run_sync(
            fn, limiter=self._runner.limiter, abandon_on_cancel=True
        )




def _failure(outcome: Failed, max_bytes: int) -> Failure:
    data: Any = UNSET
    if outcome.data is not UNSET and outcome.data is not None:
        try:
            data = Raw(to_json(outcome.data, what="the error's data", max_bytes=max_bytes))
        except InvalidValueError as error:
            data = Raw(to_json({"dropped": str(error)}, what="a note", max_bytes=max_bytes))
    message = outcome.message.encode("utf-8", "replace").decode()[:8192]
    return Failure(outcome.code, message, data)

"""One attempt at a task: the body while it runs, and every write that is made for it.

All writes go through `change`, one at a time, from the record in hand; each checks the fence again
on every record that it meets. Writes that wait together become one.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import anyio.to_thread
from msgspec import UNSET, Raw
from msgspec.structs import replace

from mcp_tasks.context import TaskContext
from mcp_tasks.domain import journal as journals
from mcp_tasks.domain import transitions
from mcp_tasks.domain.record import Entry, Failure, Question
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
from mcp_tasks.ids import new_name
from mcp_tasks.jsonio import from_json, to_json
from mcp_tasks.runner.outcome import Completed, Failed, TaskRun
from mcp_tasks.store.task_store import make_progress


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime, timedelta

    from anyio import CapacityLimiter

    from mcp_tasks.domain.record import Journal, Payload, Progress, TaskRecord
    from mcp_tasks.runner.config import RunnerConfig
    from mcp_tasks.runner.outcome import Body, Outcome
    from mcp_tasks.store import TaskStore
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


class Host(Protocol):
    """What an attempt needs of the runner that it belongs to."""

    store: TaskStore
    config: RunnerConfig
    limiter: CapacityLimiter
    around: Callable[[TaskContext], AbstractAsyncContextManager[Any]] | None
    is_closed: bool

    @property
    def is_ending(self) -> bool:
        """True when the loop is cancelling everything."""
        ...

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run something beside."""
        ...

    def cut_off_later(self, attempt: Attempt) -> asyncio.TimerHandle:
        """See to it that a body that ignores its cancellation is cut off after a grace."""
        ...

    def yield_slot(self) -> None:
        """Note that a body only waits for a person."""
        ...

    def take_slot(self) -> None:
        """Note that it goes on."""
        ...


class Attempt:
    """One run of a task's body. Also the operations behind its `TaskContext`.

    Args:
        runner: Who runs it.
        worker: Under which incarnation.
        claimed: The record as claimed by it, and its version.
        body: What carries out the call.

    Attributes:
        started: The body may have begun.
        is_concluding: The body has ended; how is being recorded.
        is_left: It ended without that: the record may still name this attempt.
        is_waiting: The body only waits for a person, and so takes no slot.
        over: Nothing is written any more.
        why: Why the body is cancelled, if it is.
        ended: Set at the very end.
    """

    durable = True

    def __init__(self, runner: Host, worker: str, claimed: Versioned, body: Body) -> None:
        record = claimed.record
        self.task_id = record.task_id
        self.owner = record.owner
        self.number = record.attempt
        self.worker = worker
        self.started = False
        self.is_concluding = False
        self.is_left = False
        self.is_waiting = False
        self.over = False
        self.why: Stop | None = None
        self.ended = asyncio.Event()
        self.life = record.ttl
        self.is_extending = False
        self._runner = runner
        self._store = runner.store
        self._body = body
        self._current = claimed
        self._run_name = new_name()
        self._task: asyncio.Task[None] | None = None
        self._is_cancellable = False
        self._grace: asyncio.TimerHandle | None = None
        self._pending: list[tuple[_Step, asyncio.Future[None]]] = []
        self._writing = False
        self._journal: dict[tuple[str, str], Entry] = {}
        self._used: set[tuple[str, str]] = set()
        self._asked: list[Question] = []
        self._asking: asyncio.Task[None] | None = None
        self._parking = False
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
        """Run the body and record how it ended."""
        outcome: Outcome | None = None
        try:
            self._is_cancellable = True
            if self.why is None:
                outcome = await self._execute()
        except asyncio.CancelledError:
            outcome = self._was_cancelled()
        except TaskError as error:
            outcome = Failed(error.code, str(error))
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException:  # noqa: BLE001 - SystemExit too: a tool must not end the server
            _log.exception("the body of task %s failed", self.task_id)
            outcome = Failed(INTERNAL_ERROR, "internal error while the tool ran")
        self._is_cancellable = False
        self.is_concluding = True
        if self._fatal is not None and outcome is not None:
            outcome = Failed(self._fatal.code, str(self._fatal))
        try:
            await self._conclude(outcome)
        except asyncio.CancelledError:
            self.is_left = True
            _log.warning("task %s: the loop ended first; its lease decides", self.task_id)
        except MCPTasksError as error:
            self.is_left = True
            _log.error("task %s attempt %d is left: %s", self.task_id, self.number, error)
        finally:
            self.close()

    def _was_cancelled(self) -> Outcome | None:
        """Tell our own cancellation, and that of the whole loop, from one that the body made."""
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            while task.uncancel():
                pass
            if self.why is not None or self._runner.is_ending:
                return None
        return Failed(INTERNAL_ERROR, "the tool cancelled itself")

    async def _execute(self) -> Outcome:
        record, store = self.record, self._store
        if record.journal.count:
            await self._patiently(lambda: self._load_journal(record.journal))
        arguments = await self._patiently(lambda: store.load(record, record.call.arguments))
        responses = await self._patiently(lambda: store.load(record, record.call.input_responses))
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
            return await self._body(run)
        async with around(task):
            return await self._body(run)
        return Failed(INTERNAL_ERROR, "internal error around the tool")  # it swallowed one

    async def _conclude(self, outcome: Outcome | None) -> None:
        if self.over or self.why is Stop.PARK or self.why is Stop.LOST:
            return
        if outcome is not None:
            await self._finish(outcome)
        elif self.why is not None:
            await self.hand_back()
        else:
            self.is_left = True
            _log.warning("task %s was cancelled with its loop; its lease decides", self.task_id)

    async def _finish(self, outcome: Outcome) -> None:
        """Record how the body ended; an outcome that cannot be stored is an error that says so."""
        config = self._store.config
        if isinstance(outcome, Completed):
            try:
                await self._complete(outcome.result)
            except StoreUnavailableError:
                raise
            except MCPTasksError as error:
                outcome = Failed(INTERNAL_ERROR, str(error))
            else:
                return
        failure = _failure(outcome, config.max_inline_bytes)
        await self._settled(
            lambda: self.change(
                lambda record, now: transitions.fail(
                    record, now, failure, retention=config.retention
                )
            )
        )

    async def _complete(self, result: dict[str, Any]) -> None:
        config = self._store.config
        data = to_json(result, what="the tool's result", max_bytes=config.max_payload_bytes)
        payload = await self._patiently(
            lambda: self._store.place(data, self.owner, self.task_id, self.record.created_at)
        )
        await self._settled(
            lambda: self.change(
                lambda record, now: transitions.end(
                    record, now, TaskStatus.COMPLETED, retention=config.retention, result=payload
                )
            )
        )

    async def hand_back(self) -> None:
        """Give the task up: another worker goes on, or it ends if it may not be run again.

        It is `cancelled` if its end was asked for.

        Raises:
            StoreUnavailableError: The runner was closed before the database answered.
        """
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

    async def _settled(self, write: Callable[[], Awaitable[None]]) -> None:
        """Make a last write; it is given up when the task is another's, gone, or past its time."""
        try:
            await self._patiently(write)
        except (LeaseLostError, TaskNotFoundError, TaskExpiredError) as error:
            _log.info("task %s attempt %d: %s", self.task_id, self.number, error)
            self.over = True

    async def _patiently(self, act: Callable[[], Awaitable[T]]) -> T:
        """Do something with the store, again and again while it is away."""
        delay = 0.1
        while True:
            try:
                return await act()
            except (StoreUnavailableError, ContentionError) as error:
                if self._runner.is_closed:
                    raise
                _log.warning("task %s: %s; trying again", self.task_id, error)
            except MCPTasksError:
                raise
            except Exception:  # a backend that fails in a way it should not: the same
                if self._runner.is_closed:
                    raise
                _log.exception("task %s: the store failed; trying again", self.task_id)
            await asyncio.sleep(delay)
            delay = min(2 * delay, 2.0)

    def stop(self, why: Stop) -> None:
        """Cancel the body; the first reason counts, except that a lost lease overrides it.

        A body that does not end then is cut off after a grace.
        """
        if self.over or (self.why is not None and why is not Stop.LOST):
            return
        first = self.why is None
        self.why = why
        # Before its first step a cancelled coroutine would never run, and after its body it has
        # a last write to make.
        if first and self._is_cancellable and self._task is not None:
            self._task.cancel()
            self._grace = self._runner.cut_off_later(self)

    def close(self) -> None:
        """Refuse whatever the body, or a thread of it, still wants to write."""
        self.over = True
        for timer in (self._timer, self._grace):
            if timer is not None:
                timer.cancel()
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

    async def _write(self, steps: list[_Step], *, tell: bool = False) -> list[Exception | None]:
        """Make steps in one write. With `tell`, what one refuses does not stop the others."""
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
        except (LeaseLostError, TaskNotFoundError, TaskExpiredError):
            self.lost()
            raise
        if written.version >= self._current.version:
            self.observe(written)  # not heard of yet if it was found to be there already
        elif self._holds(written.record) and not self._holds(self.record):
            self.lost()
        return refused

    def lost(self) -> None:
        """Note that this attempt may not write any more, and stop the body."""
        self.stop(Stop.LOST)

    def _holds(self, record: TaskRecord) -> bool:
        return record.is_held_by(self.worker, self.number)

    def observe(self, seen: Versioned) -> None:
        """Take note of the record as somebody else wrote it."""
        if self.over or seen.version <= self._current.version:
            return
        self._current = seen
        record = seen.record
        if not self._holds(record):
            if not self._writing:  # else it may be our own write, and if not, that one will tell
                self.lost()
            return
        if self._answers:
            self._deliver(record)
        if record.cancel is not None and self.why is None:
            self.stop(Stop.CANCEL)

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
            return await self._read(recorded.value)
        if self._parking and self._asking is not None:
            await asyncio.wait([self._asking])  # parked, the body would do this work twice
        self._steps += 1
        try:
            try:
                data = await run()
            except BaseException:
                self._used.discard(place)
                raise
            self._journal[place] = await self._record(key, what, data)
        finally:
            self._steps -= 1
            if self._answers and not self._steps:
                self._ask_soon()
        return data

    async def _record(self, key: str, what: str, data: bytes) -> Entry:
        """Write the value of a step down."""
        store = self._store
        config = store.config
        payload = await self._patiently(
            lambda: store.place(data, self.owner, self.task_id, self.record.created_at)
        )
        entry = Entry(key, "step", payload, what)

        def transition(record: TaskRecord, now: datetime) -> TaskRecord:
            journal = journals.append(
                record.journal,
                (entry,),
                max_entries=config.max_steps,
                max_bytes=config.max_journal_bytes,
            )
            return replace(record, journal=journal, updated_at=max(now, record.updated_at))

        try:
            await self._patiently(lambda: self.change(transition))
        except JournalFullError as error:
            raise self._fail(error) from error
        return entry

    async def _read(self, payload: Payload) -> bytes:
        """Return the JSON of a value of the journal."""
        read = self._store.payloads.read
        return bytes(await self._patiently(lambda: read(payload, self.owner, self.task_id)))

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
            return from_json(await self._read(recorded.value))
        limit = self._store.config.max_payload_bytes
        data = to_json(dict(params), what=f"the question {key!r}", max_bytes=limit)
        payload = await self._patiently(
            lambda: self._store.place(
                data, self.owner, self.task_id, self.record.created_at, limit=1024
            )
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
            self._asked = [question for question in self._asked if question.key != key]
            if self.is_waiting and not self._answers and not self.over:
                self.is_waiting = False
                self._runner.take_slot()

    def _check_capability(self, method: str) -> None:
        needed = _CAPABILITY.get(method)
        if needed is None:
            raise InvalidValueError("a question", f"a task cannot ask {method!r}")
        raw = self.record.call.client_capabilities
        declared: Any = from_json(raw) if isinstance(raw, Raw) else {}
        if not isinstance(declared, dict) or needed not in declared or declared[needed] is None:
            raise ClientCapabilityError(needed)

    def _ask_soon(self) -> None:
        if self._asking is None and self.why is None and not self.over:
            self._asking = self._runner.spawn(self._put_questions())

    async def _put_questions(self) -> None:
        """Write what is asked. Questions of one moment go together, and so does the parking."""
        try:
            # Branches of the body that ask at the same moment get there within two turns.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            questions, self._asked = tuple(self._asked), []
            try:
                await self._patiently(lambda: self._write_questions(questions))
            except TaskError as error:
                keys = {question.key for question in questions}
                for key, future in self._answers.items():
                    mine = not keys or key in keys or isinstance(error, LeaseLostError)
                    if mine and not future.done():
                        future.set_exception(error)
                return
            if self._parking:
                self.stop(Stop.PARK)
            elif self._holds(self.record):
                self._deliver(self.record)
        finally:
            self._asking = None
            self._parking = False
            if self._asked:
                self._ask_soon()

    async def _write_questions(self, questions: tuple[Question, ...]) -> None:
        retention = self._store.config.retention

        def transition(record: TaskRecord, now: datetime) -> TaskRecord:
            new = self._store.asked(record, now, questions) if questions else record
            self._parking = False
            if record.policy.resumable and self._answers and not self._steps:
                new = transitions.park(new, now, self.worker, self.number, retention=retention)
                self._parking = new.worker is None
            return new

        await self.change(transition)

    def _deliver(self, record: TaskRecord) -> None:
        """Hand answers that the record shows to those who wait for them."""
        open_keys = {question.key for question in record.questions}
        waiting = {question.key for question in self._asked} | open_keys
        answered = [
            key for key, future in self._answers.items() if key not in waiting and not future.done()
        ]
        if answered:
            self._runner.spawn(self._fetch_answers(record, answered))

    async def _fetch_answers(self, record: TaskRecord, keys: list[str]) -> None:
        found = {entry.key: entry for entry in record.journal.tail if entry.kind == "answer"}
        try:
            if not found.keys() >= set(keys):
                await self._patiently(lambda: self._load_journal(record.journal))
                found.update(
                    (e.key, e) for (kind, _), e in self._journal.items() if kind == "answer"
                )
            for key in keys:
                future, entry = self._answers.get(key), found.get(key)
                if future is None or future.done() or entry is None:
                    continue
                self._journal["answer", key] = entry
                value = from_json(await self._read(entry.value))
                if not future.done():
                    future.set_result(value)
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
        try:
            await self.change(lambda record, _now: record)
        except (StoreUnavailableError, ContentionError) as error:
            _log.debug("progress of task %s was not written: %s", self.task_id, error)

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
        record, store = self.record, self._store
        return await self._patiently(lambda: store.load(record, record.variables)) or {}

    async def set_variables(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Merge `changes` into the variables."""
        merged: dict[str, Any] = {}

        async def transition(record: TaskRecord, now: datetime) -> TaskRecord:
            nonlocal merged
            new, merged = await self._store.merge_variables(record, now, changes)
            return new

        await self._patiently(lambda: self.change(transition))
        return merged

    async def extend(self, ttl: timedelta) -> None:
        """Let the task live for at least `ttl` from now on."""
        max_ttl = self._store.config.max_ttl
        if not 0 < ttl.total_seconds() <= max_ttl.total_seconds():
            raise InvalidTtlError(ttl.total_seconds() * 1000, max_ttl.total_seconds() * 1000)
        await self.change(lambda record, now: transitions.extend(record, now, ttl, max_ttl=max_ttl))

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

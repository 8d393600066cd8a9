"""What a running body can do durably: the operations behind the `TaskContext` of an attempt.

Steps, questions, progress and variables, all of which end in a write of the attempt's. Answers come
the other way: the attempt hands over each newer record that it hears of (`deliver`).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from msgspec import Raw
from msgspec.structs import replace

from mcp_tasks.domain import inputs, transitions
from mcp_tasks.domain import journal as journals
from mcp_tasks.domain.inputs import asked_as
from mcp_tasks.domain.record import Entry, Question
from mcp_tasks.errors import (
    ClientCapabilityError,
    ContentionError,
    InvalidTtlError,
    InvalidValueError,
    JournalFullError,
    JournalMismatchError,
    LeaseLostError,
    QuestionKeyError,
    StoreUnavailableError,
    TaskError,
)
from mcp_tasks.failpoints import failpoint
from mcp_tasks.ids import short
from mcp_tasks.jsonio import from_json, to_json
from mcp_tasks.runner.stopwatch import Stopwatch
from mcp_tasks.runner.threads import Place
from mcp_tasks.store.task_store import make_progress
from mcp_tasks.store.trail import log_refusal


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
    from datetime import datetime, timedelta

    from anyio import CapacityLimiter

    from mcp_tasks.domain.record import Journal, Payload, Progress, TaskRecord
    from mcp_tasks.runner.config import RunnerConfig
    from mcp_tasks.store import TaskStore

    Step = Callable[[TaskRecord, datetime], TaskRecord | Awaitable[TaskRecord]]


T = TypeVar("T")
_log = logging.getLogger("mcp_tasks.runner")

_CAPABILITY = {
    "elicitation/create": "elicitation",
    "sampling/createMessage": "sampling",
    "roots/list": "roots",
}


class Surroundings(Protocol):
    """What operations need of the runner."""

    store: TaskStore
    config: RunnerConfig
    limiter: CapacityLimiter

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run something beside."""
        ...

    def yield_slot(self) -> None:
        """Note that a body only waits for a person."""
        ...

    def take_slot(self) -> None:
        """Note that it goes on."""
        ...


class Writer(Protocol):
    """What operations need of their attempt."""

    task_id: str
    owner: str
    worker: str
    number: int
    over: bool
    stopwatch: Stopwatch

    @property
    def record(self) -> TaskRecord:
        """The record as last known here."""
        ...

    @property
    def is_stopping(self) -> bool:
        """True once the body is cancelled, for whatever reason."""
        ...

    @property
    def cancel_requested(self) -> bool:
        """True once the body had better end."""
        ...

    async def change(self, step: Step) -> None:
        """Apply a transition under the fence."""
        ...

    async def patiently(self, act: Callable[[], Awaitable[T]]) -> T:
        """Do something with the store, again and again while it is away."""
        ...

    def park(self) -> None:
        """Stop the body: its record waits for answers, without a worker."""
        ...


class _Ended:
    """What is left of an attempt when it is over: who it was, and that nothing is written."""

    def __init__(self, attempt: Writer) -> None:
        self.task_id = attempt.task_id
        self.owner = attempt.owner
        self.worker = attempt.worker
        self.number = attempt.number
        self.record = attempt.record
        self.stopwatch = Stopwatch(None, lambda: None)
        self.over = True
        self.is_stopping = True
        self.cancel_requested = True

    async def change(self, step: Step) -> None:  # noqa: ARG002 - as `Writer` has it
        """Refuse it."""
        log_refusal(self.record, self.worker, self.number, "it is over")
        raise LeaseLostError(self.number)

    async def patiently(self, act: Callable[[], Awaitable[T]]) -> T:  # noqa: ARG002
        """Refuse it."""
        raise LeaseLostError(self.number)

    def park(self) -> None:
        """Do nothing: there is no body to be stopped."""


class DurableOperations:
    """The operations of one attempt.

    Args:
        attempt: Whose.
        runner: Where it runs.

    Attributes:
        fatal: An error in which the task ends, whatever the tool makes of it.
        is_waiting: The body only waits for a person, and so takes no slot.
    """

    durable = True

    def __init__(self, attempt: Writer, runner: Surroundings) -> None:
        self.fatal: TaskError | None = None
        self.is_waiting = False
        self._attempt: Writer = attempt
        self._runner = runner
        self._store = runner.store
        self._journal: dict[tuple[str, str], Entry] = {}
        self._used: set[tuple[str, str]] = set()
        self._steps = 0
        self._asked: list[Question] = []
        self._withdrawn: set[str] = set()
        self._asking: asyncio.Task[None] | None = None
        self._parking = False
        self._answers: dict[str, asyncio.Future[Any]] = {}
        self._numbered = 0
        self._progress: Progress | None = None
        self._progress_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def cancel_requested(self) -> bool:
        """True once somebody asked for the end of the task, or this attempt must stop."""
        return self._attempt.cancel_requested

    def close(self) -> None:
        """Wake whoever still waits, with a cancellation, and let go of the attempt.

        A body may keep its context for longer. Without a cycle both are freed at once, and not when
        the garbage collector comes by.
        """
        self._attempt = _Ended(self._attempt)
        if self._timer is not None:
            self._timer.cancel()
        for future in self._answers.values():
            future.cancel()

    # --- steps -----------------------------------------------------------------------------------

    async def load(self, journal: Journal) -> None:
        """Read what earlier attempts recorded."""
        for blob in journal.sealed:
            for chunk in await self._store.payloads.chunks(
                blob, self._attempt.owner, self._attempt.task_id
            ):
                for entry in journals.decode_chunk(chunk):
                    self._journal[entry.kind, entry.key] = entry
        for entry in journal.tail:
            self._journal[entry.kind, entry.key] = entry

    async def step(self, key: str, what: str, run: Callable[[], Awaitable[bytes]]) -> bytes:
        """Return the recorded value of a step, or run it and record its value first."""
        if not self._attempt.record.policy.resumable:
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
                failpoint("step.after_run_before_cas")
            except BaseException:
                self._used.discard(place)
                raise
            self._journal[place] = await self._record(key, what, data)
            failpoint("step.after_cas_before_return")
        finally:
            self._steps -= 1
            if self._answers and not self._steps:
                self._ask_soon()
        return data

    async def _record(self, key: str, what: str, data: bytes) -> Entry:
        """Write the value of a step down."""
        store = self._store
        config = store.config
        payload = await self._attempt.patiently(
            lambda: store.fitting.place(
                data, self._attempt.owner, self._attempt.task_id, self._attempt.record.created_at
            )
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
            await self._attempt.patiently(lambda: self._attempt.change(transition))
        except JournalFullError as error:
            raise self._fail(error) from error
        return entry

    async def _read(self, payload: Payload) -> bytes:
        """Return the JSON of a value of the journal."""
        read = self._store.payloads.read
        return bytes(
            await self._attempt.patiently(
                lambda: read(payload, self._attempt.owner, self._attempt.task_id)
            )
        )

    def _fail(self, error: TaskError) -> TaskError:
        """Let an error end the task, whatever the tool makes of it."""
        self.fatal = self.fatal or error
        return error

    # --- questions -------------------------------------------------------------------------------

    async def ask(self, key: str | None, method: str, params: Mapping[str, Any]) -> Any:
        """Ask the client and wait for the answer; in a resumable task without a worker."""
        if self._attempt.over:
            raise LeaseLostError(self._attempt.number)
        self._check_capability(method)
        record = self._attempt.record
        resumable = record.policy.resumable
        limit = self._store.config.max_payload_bytes
        data = to_json(dict(params), what=f"the question {key or method!r}", max_bytes=limit)
        digest = hashlib.sha256(data).hexdigest()[:16]
        if key is None:
            self._numbered += 1
            key = f"{_CAPABILITY.get(method, 'request')}-{self._numbered}"
        elif "~" in key:
            problem = f"{key!r} has a ~, which is kept for what later runs ask"
            raise InvalidValueError("the key of a question", problem)
        if ("answer", key) in self._used:
            raise QuestionKeyError(key)
        self._used.add(("answer", key))
        if not resumable and self._attempt.number > 1:
            # Another attempt asks anew, and no key may be used twice (T-048).
            key = f"{key}~{self._attempt.number}"
        elif resumable:
            key = self._key_for(key, method, digest)
        place = ("answer", key)
        recorded = self._journal.get(place)
        if recorded is not None:
            return from_json(await self._read(recorded.value))
        payload = await self._attempt.patiently(
            lambda: self._store.fitting.place(
                data,
                self._attempt.owner,
                self._attempt.task_id,
                self._attempt.record.created_at,
                limit=1024,
            )
        )
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answers[key] = answer
        self._asked.append(Question(key, method, payload, self._store.clock.now(), digest))
        self._ask_soon()
        if not self.is_waiting:
            self.is_waiting = True
            self._runner.yield_slot()
            self._attempt.stopwatch.pause()
        try:
            return await answer
        finally:
            self._answers.pop(key, None)
            is_left = answer.cancelled() and not any(key == asked.key for asked in self._asked)
            if is_left and not self._attempt.is_stopping and not self._attempt.over:
                self._withdrawn.add(key)  # the tool does not wait for it any more
                self._ask_soon()
            self._asked = [question for question in self._asked if question.key != key]
            if self.is_waiting and not self._answers and not self._attempt.over:
                self.is_waiting = False
                self._runner.take_slot()
                self._attempt.stopwatch.go_on()

    def _key_for(self, key: str, method: str, digest: str) -> str:
        """Return the key under which a resumable tool asks this, on whichever run.

        An answer counts for what was asked. When an earlier run asked something else under the
        key, the person is asked again, under a key of its own (T-048).

        Raises:
            JournalMismatchError: It was another kind of question. The task ends with this error.
        """
        asked = {question.key: question for question in self._attempt.record.questions}
        number, variant = 1, key
        while True:
            recorded, open_now = self._journal.get(("answer", variant)), asked.get(variant)
            what = recorded.what if recorded is not None else ""
            if open_now is not None and variant not in self._withdrawn:
                what = asked_as(open_now)
            was, _, of = what.partition(" ")
            if was and was != method:
                raise self._fail(JournalMismatchError(key, was, method))
            if not of or of == digest:
                return variant
            if open_now is not None:
                self._withdrawn.add(variant)
            _log.warning(
                "task %s asks something else under the key %r than an earlier run did; "
                "the person is asked again",
                short(self._attempt.task_id),
                key,
            )
            number += 1
            variant = f"{key}~{number}"

    def _check_capability(self, method: str) -> None:
        needed = _CAPABILITY.get(method)
        if needed is None:
            raise InvalidValueError("a question", f"a task cannot ask {method!r}")
        raw = self._attempt.record.call.client_capabilities
        declared: Any = from_json(raw) if isinstance(raw, Raw) else {}
        if not isinstance(declared, dict) or needed not in declared or declared[needed] is None:
            raise ClientCapabilityError(needed)

    def _ask_soon(self) -> None:
        if self._asking is None and not self._attempt.is_stopping and not self._attempt.over:
            self._asking = self._runner.spawn(self._put_questions())

    async def _put_questions(self) -> None:
        """Write what is asked. Questions of one moment go together, and so does the parking."""
        try:
            # Branches of the body that ask at the same moment get there within two turns.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            questions, self._asked = tuple(self._asked), []
            withdrawn, self._withdrawn = self._withdrawn, set()
            try:
                await self._attempt.patiently(lambda: self._write_questions(questions, withdrawn))
            except TaskError as error:
                keys = {question.key for question in questions}
                for key, future in self._answers.items():
                    mine = not keys or key in keys or isinstance(error, LeaseLostError)
                    if mine and not future.done():
                        future.set_exception(error)
                return
            failpoint("input.after_put_before_wait")
            record = self._attempt.record
            if self._parking:
                failpoint("park.after_cas_before_release")
                self._attempt.park()
            elif record.is_held_by(self._attempt.worker, self._attempt.number):
                self.deliver(record)
        finally:
            self._asking = None
            self._parking = False
            if self._asked or self._withdrawn:
                self._ask_soon()

    async def _write_questions(
        self, questions: tuple[Question, ...], withdrawn: Collection[str]
    ) -> None:
        retention = self._store.config.retention

        def transition(record: TaskRecord, now: datetime) -> TaskRecord:
            new = inputs.withdraw(record, now, withdrawn) if withdrawn else record
            new = self._store.asked(new, now, questions) if questions else new
            self._parking = False
            if record.policy.resumable and self._answers and not self._steps:
                new = transitions.park(
                    new, now, self._attempt.worker, self._attempt.number, retention=retention
                )
                self._parking = new.worker is None
            return new

        await self._attempt.change(transition)

    def deliver(self, record: TaskRecord) -> None:
        """Hand answers that the record shows to those who wait for them."""
        if not self._answers:
            return
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
                await self._attempt.patiently(lambda: self.load(record.journal))
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

    # --- the rest --------------------------------------------------------------------------------

    async def report(self, current: float, total: float | None, message: str | None) -> None:
        """Show progress; at most one write a second carries nothing else."""
        if self._attempt.over:
            raise LeaseLostError(self._attempt.number)
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
            await self._attempt.change(lambda record, _now: record)
        except (StoreUnavailableError, ContentionError) as error:
            _log.debug(
                "progress of task %s was not written: %s", short(self._attempt.task_id), error
            )

    async def _write_progress(self) -> None:
        self._timer = None
        if self._progress is None or self._attempt.over or self._attempt.is_stopping:
            return
        self._progress_at = asyncio.get_running_loop().time()
        try:
            await self._attempt.change(lambda record, _now: record)
        except TaskError as error:
            _log.debug(
                "progress of task %s was not written: %s", short(self._attempt.task_id), error
            )

    def take_progress(self) -> Progress | None:
        """Return what a write may carry along, once."""
        progress, self._progress = self._progress, None
        return progress

    async def variables(self) -> dict[str, Any]:
        """Return the task's variables, with what other programs set meanwhile."""
        owner, task_id = self._attempt.owner, self._attempt.task_id
        return await self._attempt.patiently(lambda: self._store.get_variables(owner, task_id))

    async def set_variables(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Merge `changes` into the variables."""
        merged: dict[str, Any] = {}

        async def transition(record: TaskRecord, now: datetime) -> TaskRecord:
            nonlocal merged
            new, merged = await self._store.merge_variables(record, now, changes)
            return new

        await self._attempt.patiently(lambda: self._attempt.change(transition))
        return merged

    async def extend(self, ttl: timedelta) -> None:
        """Let the task live for at least `ttl` from now on."""
        max_ttl = self._store.config.max_ttl
        if not 0 < ttl.total_seconds() <= max_ttl.total_seconds():
            raise InvalidTtlError(ttl.total_seconds() * 1000, max_ttl.total_seconds() * 1000)
        await self._attempt.change(
            lambda record, now: transitions.extend(record, now, ttl, max_ttl=max_ttl)
        )

    async def run_sync(self, fn: Callable[[], T], *, whole: bool = False) -> T:
        """Run a blocking function in a thread of the runner's.

        What is cancelled goes on in its thread, and keeps its place among the threads until it
        ends: else tools that hang would make more and more of them.
        """
        stopwatch = self._attempt.stopwatch
        if whole:
            stopwatch.pause()
        try:
            place = await Place.take(self._runner.limiter)
        finally:
            if whole:
                stopwatch.go_on()
        return await place.run(fn)

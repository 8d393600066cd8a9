"""One attempt at a task: the body from its start to its recorded end, and every write for it.

All writes go through `change`, one at a time, from the record in hand; each checks the fence again
on every record that it meets. Writes that wait together become one.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from msgspec import UNSET, Raw

from mcp_tasks.context import TaskContext
from mcp_tasks.domain import transitions
from mcp_tasks.domain.record import Failure, inline
from mcp_tasks.domain.status import TaskStatus
from mcp_tasks.errors import (
    INTERNAL_ERROR,
    ContentionError,
    InvalidValueError,
    LeaseLostError,
    MCPTasksError,
    StoreUnavailableError,
    TaskError,
    TaskExpiredError,
    TaskNotFoundError,
)
from mcp_tasks.failpoints import failpoint
from mcp_tasks.ids import short
from mcp_tasks.jsonio import to_json
from mcp_tasks.runner.operations import DurableOperations, Surroundings
from mcp_tasks.runner.outcome import Completed, Failed, HandedOut, TaskRun
from mcp_tasks.runner.stopwatch import Stopwatch
from mcp_tasks.store.trail import log_refusal


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime

    from mcp_tasks.domain.record import Call, Payload, TaskRecord
    from mcp_tasks.runner.operations import Step
    from mcp_tasks.runner.outcome import Body, Outcome
    from mcp_tasks.store.changes import Versioned


T = TypeVar("T")
_log = logging.getLogger("mcp_tasks.runner")
_ODD_TRIES = 5


class Stop(Enum):
    """Why a body is cancelled."""

    CANCEL = "its end was asked for"
    PARK = "it waits for an answer"
    LOST = "another worker may run it now"
    TIMEOUT = "its time is up"
    DRAIN = "the worker stops"


class Host(Surroundings, Protocol):
    """What an attempt needs of the runner that it belongs to."""

    around: Callable[[TaskContext], AbstractAsyncContextManager[Any]] | None
    is_closed: bool

    @property
    def is_ending(self) -> bool:
        """True when the loop is cancelling everything."""
        ...

    def cut_off_later(self, attempt: Attempt) -> asyncio.TimerHandle:
        """See to it that a body that ignores its cancellation is cut off after a grace."""
        ...


class Attempt:
    """One run of a task's body.

    Args:
        runner: Who runs it.
        worker: Under which incarnation.
        claimed: The record as claimed by it, and its version.
        body: What carries out the call.
        call: The call with its values in hand, if it was just made: nothing is read then.

    Attributes:
        started: The body may have begun.
        is_concluding: The body has ended; how is being recorded.
        is_left: It ended without that: the record may still name this attempt.
        over: Nothing is written any more.
        why: Why the body is cancelled, if it is.
        ended: Set at the very end.
        stopwatch: Counts the time that the body runs.
        operations: What the body can do.
    """

    def __init__(
        self,
        runner: Host,
        worker: str,
        claimed: Versioned,
        body: Body,
        call: Call | None = None,
    ) -> None:
        record = claimed.record
        self.task_id = record.task_id
        self.owner = record.owner
        self.number = record.attempt
        self.worker = worker
        self.started = False
        self.is_concluding = False
        self.is_left = False
        self.over = False
        self.why: Stop | None = None
        self.ended = asyncio.Event()
        self.stopwatch = Stopwatch(record.policy.timeout, lambda: self.stop(Stop.TIMEOUT))
        self.life = record.ttl
        self.is_extending = False
        self._runner = runner
        self._store = runner.store
        self._body = body
        self._call = call
        self._current = claimed
        self._task: asyncio.Task[None] | None = None
        self._is_cancellable = False
        self._grace: asyncio.TimerHandle | None = None
        self._pending: list[tuple[Step, asyncio.Future[None]]] = []
        self._writing = False
        self.operations = DurableOperations(self, runner)

    @property
    def record(self) -> TaskRecord:
        """The record as last known here."""
        return self._current.record

    @property
    def cancel_requested(self) -> bool:
        """True once somebody asked for the end of the task, or this attempt must stop."""
        return self.why is not None or self.record.cancel is not None

    @property
    def is_stopping(self) -> bool:
        """True once the body is cancelled, for whatever reason."""
        return self.why is not None

    # --- running ---------------------------------------------------------------------------------

    def begin(self, task: asyncio.Task[None] | None) -> None:
        """Note the asyncio task that executes `run`."""
        self._task = task

    def is_executed_by(self, task: asyncio.Task[object]) -> bool:
        """Tell whether it is this asyncio task that executes `run`."""
        return self._task is task

    async def run(self) -> None:
        """Run the body and record how it ended."""
        outcome: Outcome | None = None
        try:
            self._is_cancellable = True
            if self.record.cancel is not None and self.why is None:
                self.why = Stop.CANCEL  # it came on top of the claim: nobody will say so again
            if self.why is None:
                outcome = await self._execute()
        except asyncio.CancelledError:
            outcome = self._was_cancelled()
        except TaskError as error:
            outcome = Failed(error.code, str(error))
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException:  # noqa: BLE001 - SystemExit too: a tool must not end the server
            _log.exception("the body of task %s failed", short(self.task_id))
            outcome = Failed(INTERNAL_ERROR, "internal error while the tool ran")
        self._is_cancellable = False
        self.is_concluding = True
        self.stopwatch.end()
        fatal = self.operations.fatal
        if fatal is not None and outcome is not None:
            outcome = Failed(fatal.code, str(fatal))
        elif self.why is Stop.TIMEOUT and isinstance(outcome, Failed):
            outcome = None  # what came of stopping it; a result counts, late as it is
        try:
            await self._absorb()
            await self._conclude(outcome)
        except asyncio.CancelledError:
            self.is_left = True
            _log.warning("task %s: the loop ended first; its lease decides", short(self.task_id))
        except MCPTasksError as error:
            self.is_left = True
            _log.error("task %s attempt %d is left: %s", short(self.task_id), self.number, error)
        except Exception:  # noqa: BLE001 - a mistake of ours; its lease must not look as if it went on
            self.is_left = True
            _log.exception("task %s attempt %d is left", short(self.task_id), self.number)
        finally:
            self.close()

    async def _absorb(self) -> None:
        """Let our own cancellation pass that came too late for the body: it has a last write."""
        task = asyncio.current_task()
        if self.why is not None and task is not None and task.cancelling():
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
            while task.uncancel():
                pass

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
        record = self.record
        if record.journal.count:
            await self.patiently(lambda: self.operations.load(record.journal))
        call, self._call = self._call or record.call, None
        arguments = await self._load(call.arguments)
        responses = await self._load(call.input_responses)
        del call  # which may hold megabytes
        task = TaskContext(
            self.operations,
            task_id=self.task_id,
            owner=self.owner,
            attempt=self.number,
            idempotency_key=self.task_id,
            principal=record.call.principal,
        )
        self.started = True
        self.stopwatch.go_on()
        run = TaskRun(record, arguments or {}, responses, task)
        failpoint("run.before_body")
        around = self._runner.around
        if around is None:
            return await self._body(run)
        async with around(task):
            return await self._body(run)
        return Failed(INTERNAL_ERROR, "internal error around the tool")  # it swallowed one

    async def _load(self, payload: Payload | None) -> Any:
        if payload is None or payload.blob is None:  # nothing that the store could fail at
            return await self._store.load(self.record, payload)
        return await self.patiently(lambda: self._store.load(self.record, payload))

    async def _conclude(self, outcome: Outcome | None) -> None:
        if self.over or self.why is Stop.PARK or self.why is Stop.LOST:
            return
        if outcome is not None:
            await self._finish(outcome)
        elif self.why is not None:
            await self.give_up()
        else:
            self.is_left = True
            _log.warning(
                "task %s was cancelled with its loop; its lease decides", short(self.task_id)
            )

    async def _finish(self, outcome: Outcome) -> None:
        """Record how the body ended; an outcome that cannot be stored is an error that says so."""
        config = self._store.config
        failpoint("run.after_tool_before_commit")
        if isinstance(outcome, HandedOut):
            await self._settled(
                lambda: self.change(
                    lambda record, now: transitions.hand_out(
                        record, now, self.worker, self.number, retention=config.retention
                    )
                )
            )
            return
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
        store, created_at = self._store, self.record.created_at
        payload = (
            inline(data)
            if len(data) <= store.payloads.inline_bytes
            else await self.patiently(
                lambda: store.fitting.place(data, self.owner, self.task_id, created_at)
            )
        )
        await self._settled(
            lambda: self.change(
                lambda record, now: transitions.end(
                    record, now, TaskStatus.COMPLETED, retention=config.retention, result=payload
                )
            )
        )

    async def give_up(self) -> None:
        """End the task whose time is up, and hand any other one back.

        Raises:
            StoreUnavailableError: The runner was closed before the database answered.
        """
        if self.why is not Stop.TIMEOUT:
            await self.hand_back()
            return
        retention = self._store.config.retention
        await self._settled(
            lambda: self.change(
                lambda record, now: transitions.time_out(
                    record, now, self.worker, self.number, retention=retention
                )
            )
        )

    async def hand_back(self) -> None:
        """Let go of the task: another worker goes on, or it ends if it may not be run again.

        It is `cancelled` if its end was asked for.

        Raises:
            StoreUnavailableError: The runner was closed before the database answered.
        """
        retention = self._store.config.retention
        cancelled = self.why is Stop.CANCEL
        scope, stop = "cancel.after_scope_before_cas", "drain.after_stop_before_hand_back"
        failpoint(scope if cancelled else stop)
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
            await self.patiently(write, odd_tries=math.inf)
        except (LeaseLostError, TaskNotFoundError, TaskExpiredError):
            self.over = True

    async def patiently(
        self, act: Callable[[], Awaitable[T]], *, odd_tries: float = _ODD_TRIES
    ) -> T:
        """Do something with the store, again and again while it is away.

        An error that no backend should raise may be one that passes, or a slip in the values that
        a tool gave us, which never does: it is let out at the last of `odd_tries`.
        """
        delay = 0.1
        while True:
            try:
                return await act()
            except (StoreUnavailableError, ContentionError) as error:
                if self._runner.is_closed:
                    raise
                _log.warning("task %s: %s; trying again", short(self.task_id), error)
            except MCPTasksError:
                raise
            except Exception:
                odd_tries -= 1
                if self._runner.is_closed or odd_tries <= 0:
                    raise
                _log.exception("task %s: the store failed; trying again", short(self.task_id))
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
        self._task = None
        self.stopwatch.end()
        if self._grace is not None:
            self._grace.cancel()
        self.operations.close()
        for _, future in self._pending:
            if not future.done():
                future.set_exception(LeaseLostError(self.number))
                future.exception()
        self._pending = []

    # --- writing ---------------------------------------------------------------------------------

    async def change(self, step: Step) -> None:
        """Apply a transition under the fence.

        Raises:
            LeaseLostError: This attempt may not write any more.
            StoreUnavailableError: The database failed.
            TaskError: What the transition refuses.
        """
        if self.over:
            log_refusal(self.record, self.worker, self.number, "it is over")
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

    async def _write(self, steps: list[Step], *, tell: bool = False) -> list[Exception | None]:
        """Make steps in one write. With `tell`, what one refuses does not stop the others."""
        refused: list[Exception | None] = [None] * len(steps)
        progress = self.operations.take_progress()

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
                run=f"{self.worker}-{self.number}",  # no other attempt has this name
            )
        except (LeaseLostError, TaskNotFoundError, TaskExpiredError) as error:
            log_refusal(self.record, self.worker, self.number, type(error).__name__)
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

    def park(self) -> None:
        """Stop the body: its record waits for answers, without a worker."""
        self.stop(Stop.PARK)

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
        self.operations.deliver(record)
        if record.cancel is not None and self.why is None:
            self.stop(Stop.CANCEL)


def _failure(outcome: Failed, max_bytes: int) -> Failure:
    data: Any = UNSET
    if outcome.data is not UNSET and outcome.data is not None:
        try:
            data = Raw(to_json(outcome.data, what="the error's data", max_bytes=max_bytes))
        except InvalidValueError as error:
            data = Raw(to_json({"dropped": str(error)}, what="a note", max_bytes=max_bytes))
    message = outcome.message.encode("utf-8", "replace").decode()[:8192]
    # What a low-level handler raises is its own affair: a task must be able to end.
    code: object = outcome.code
    return Failure(code if type(code) is int else INTERNAL_ERROR, message, data)

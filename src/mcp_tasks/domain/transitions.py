"""What may happen to a task: functions from a record to the next record.

Pure: time and names come in as arguments, and nothing is read or written. The store applies one of
them, compare-and-swaps the outcome, and applies it again to the newer record when somebody else was
faster; so each must come to the right answer from any record it may meet, and must recognise its
own effect. A function that changes nothing returns the very record that it was given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import msgspec
from msgspec.structs import replace

from mcp_tasks.domain.record import Failure, Mark
from mcp_tasks.domain.status import TaskStatus, check_transition
from mcp_tasks.errors import INTERNAL_ERROR, LeaseLostError, TaskTerminalError


if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from mcp_tasks.domain.record import Payload, Progress, TaskRecord


MAX_TEXT_BYTES = 4096
"""A status message, or the text of an error, as UTF-8."""

_MAX_SUMMARY_BYTES = 1024

Reason = Literal[
    "attempts_exhausted", "expired", "never_started", "timed_out", "worker_lost", "worker_stopped"
]
"""Why a task failed without its tool's doing; `reason` in the data of its error."""

REASONS: frozenset[str] = frozenset(get_args(Reason))


def update(
    record: TaskRecord,
    now: datetime,
    status: TaskStatus,
    *,
    retention: timedelta,
    message: str | None = None,
) -> TaskRecord:
    """Move to `status` by the status table; `message` replaces the last one, `None` clears it.

    A task that fails this way gets an error all the same, made of `message`.

    Raises:
        TaskTerminalError: The task has ended.
        InvalidTransitionError: The table does not have it.
    """
    if status is TaskStatus.FAILED:
        failure = Failure(INTERNAL_ERROR, message or "the task failed")
        return fail(record, now, failure, retention=retention)
    if status.is_terminal:
        return end(record, now, status, retention=retention, message=message)
    check_transition(record.status, status)
    questions = record.questions if status is TaskStatus.INPUT_REQUIRED else ()
    return _moved(record, now, status=status, message=message, questions=questions)


def end(
    record: TaskRecord,
    now: datetime,
    status: TaskStatus,
    *,
    retention: timedelta,
    message: str | None = None,
    result: Payload | None = None,
    error: Failure | None = None,
) -> TaskRecord:
    """End the task. Its outcome then stays readable for the smaller of its ttl and `retention`.

    Raises:
        TaskTerminalError: It has ended already; the first outcome stays.
    """
    check_transition(record.status, status)
    age = max(now, record.updated_at) - record.created_at
    return _moved(
        record,
        now,
        status=status,
        message=message,
        worker=None,
        questions=(),
        result=result,
        error=error,
        ended_at=max(now, record.updated_at),
        # The specification lets a ttl change; it is how a client learns until when it may look.
        ttl=max(record.ttl, age + min(record.ttl, retention)),
    )


def fail(
    record: TaskRecord, now: datetime, failure: Failure, *, retention: timedelta
) -> TaskRecord:
    """End the task with a JSON-RPC error, whose text is the status message too.

    Too long a text is cut rather than refused: a task must be able to end.
    """
    text = cut(failure.message, MAX_TEXT_BYTES)
    return end(
        record,
        now,
        TaskStatus.FAILED,
        retention=retention,
        message=cut(text, _MAX_SUMMARY_BYTES),
        error=replace(failure, message=text),
    )


def expire(record: TaskRecord) -> TaskRecord:
    """End a task that is past its time to live; it is read as failed until it is removed.

    It ends at its deadline, whoever notices it when: so all see the same.

    Spec: 2026-07-28 tasks, T-043.
    """
    text = "the task was not finished within its time to live"
    if not record.attempt and not record.policy.external:
        text += f"; no worker began it: is there one that has the tool {record.call.tool!r}?"
    failure = failure_of("expired", text, attempt=record.attempt, mayHaveRun=record.attempt > 0)
    return _moved(
        record,
        record.deadline,
        status=TaskStatus.FAILED,
        message=failure.message,
        worker=None,
        questions=(),
        error=failure,
        ended_at=record.deadline,
    )


def failure_of(reason: Reason, message: str, **data: Any) -> Failure:
    """Make the JSON-RPC error for an end that the tool did not bring about."""
    body = msgspec.json.encode({"reason": reason, **data})
    return Failure(INTERNAL_ERROR, message, msgspec.Raw(body))


# --- claims and their end ------------------------------------------------------------------------


def check_fence(record: TaskRecord, worker: str, attempt: int) -> None:
    """Raise unless this attempt of this worker may still write the record.

    Raises:
        LeaseLostError: Another attempt may run, or the task has ended.
    """
    if not record.is_held_by(worker, attempt):
        raise LeaseLostError(attempt)


def claim(
    record: TaskRecord, now: datetime, worker: str, attempt: int, *, retention: timedelta
) -> TaskRecord:
    """Take a task that waits for any worker; a task whose end was asked for ends instead.

    Raises:
        LeaseLostError: It does not wait for this attempt (any more).
    """
    if record.is_held_by(worker, attempt):
        return record
    waits = (
        record.status is TaskStatus.WORKING and record.worker is None and not record.policy.external
    )
    if not waits or record.attempt + 1 != attempt:
        raise LeaseLostError(attempt)
    if record.cancel is not None:
        return end(record, now, TaskStatus.CANCELLED, retention=retention)
    return _moved(record, now, worker=worker, attempt=attempt)


def take_from_dead(
    record: TaskRecord, now: datetime, worker: str, *, admitted: bool, retention: timedelta
) -> TaskRecord:
    """Free or end a task that a dead `worker` may have had.

    A task that nobody has is written all the same (the caller gets an equal, new object): a claim
    that the dead worker began before it stopped then finds another version and fails.

    Args:
        record: The task.
        now: When.
        worker: Who is dead.
        admitted: False if the task was never in its owner's roster, so that nobody was told of it.
        retention: How long an outcome stays readable.
    """
    if record.is_terminal or record.worker not in (None, worker):
        return record
    if record.worker is None:
        return replace(record)
    if not admitted and record.attempt == 1:
        failure = failure_of("never_started", "the task was never started")
        return fail(record, now, failure, retention=retention)
    return _free(record, now, "worker_lost", started=True, lost=True, retention=retention)


def hand_back(
    record: TaskRecord,
    now: datetime,
    worker: str,
    attempt: int,
    *,
    started: bool,
    retention: timedelta,
) -> TaskRecord:
    """Free or end a task that its own worker lets go of.

    Args:
        record: The task.
        now: When.
        worker: Who runs it.
        attempt: As which attempt.
        started: False if the worker knows that the body did not begin.
        retention: How long an outcome stays readable.

    Raises:
        LeaseLostError: This attempt has nothing to let go of any more.
    """
    check_fence(record, worker, attempt)
    return _free(record, now, "worker_stopped", started=started, lost=False, retention=retention)


def time_out(
    record: TaskRecord, now: datetime, worker: str, attempt: int, *, retention: timedelta
) -> TaskRecord:
    """End a task whose body was stopped because it took too long.

    A task whose end was asked for is cancelled all the same.

    Raises:
        LeaseLostError: This attempt may not write the record any more.
    """
    check_fence(record, worker, attempt)
    if record.cancel is not None:
        return end(record, now, TaskStatus.CANCELLED, retention=retention)
    seconds = record.policy.timeout or 0.0
    text = f"the tool was stopped: it may run for {seconds:g} s, and had not ended by then"
    failure = failure_of("timed_out", text, timeout=seconds, attempt=attempt, mayHaveRun=True)
    return fail(record, now, failure, retention=retention)


def _free(
    record: TaskRecord,
    now: datetime,
    reason: Reason,
    *,
    started: bool,
    lost: bool,
    retention: timedelta,
) -> TaskRecord:
    # Whoever takes a task from a worker looks at the flag first.
    if record.cancel is not None:
        return end(record, now, TaskStatus.CANCELLED, retention=retention)
    if started and not record.policy.is_restartable:
        text = (
            f"the worker that ran this task was {'lost' if lost else 'stopped'}; "
            "the tool may have run, and is not run again"
        )
        failure = failure_of(reason, text, attempt=record.attempt, mayHaveRun=True)
        return fail(record, now, failure, retention=retention)
    lost_attempts = record.lost + lost
    if lost and lost_attempts >= record.policy.max_attempts:
        text = f"{lost_attempts} attempts ended with their worker; the tool is not run again"
        failure = failure_of(
            "attempts_exhausted", text, attempt=record.attempt, lost=lost_attempts, mayHaveRun=True
        )
        return fail(record, now, failure, retention=retention)
    if record.status is TaskStatus.INPUT_REQUIRED and record.policy.resumable:
        return _moved(record, now, worker=None, lost=lost_attempts)
    return _moved(
        record, now, status=TaskStatus.WORKING, worker=None, lost=lost_attempts, questions=()
    )


def park(
    record: TaskRecord, now: datetime, worker: str, attempt: int, *, retention: timedelta
) -> TaskRecord:
    """Let a task wait for its answers without a worker.

    The record itself comes back when no question is outstanding (any more); a task whose end was
    asked for ends instead.

    Raises:
        LeaseLostError: This attempt may not write the record any more.
    """
    check_fence(record, worker, attempt)
    if record.cancel is not None:
        return end(record, now, TaskStatus.CANCELLED, retention=retention)
    if not record.questions:
        return record
    return _moved(record, now, worker=None)


def hand_out(
    record: TaskRecord, now: datetime, worker: str, attempt: int, *, retention: timedelta
) -> TaskRecord:
    """Let go of a task whose work goes on elsewhere: some other program will finish it.

    A task whose end was asked for ends instead.

    Raises:
        LeaseLostError: This attempt may not write the record any more; the task may have ended.
    """
    check_fence(record, worker, attempt)
    if record.cancel is not None:
        return end(record, now, TaskStatus.CANCELLED, retention=retention)
    return _moved(record, now, worker=None, policy=replace(record.policy, external=True))


# --- requests from outside -----------------------------------------------------------------------


def cancel(
    record: TaskRecord, now: datetime, *, by: str | None, retention: timedelta
) -> TaskRecord:
    """Ask for the end of a task; one that nobody runs ends at once.

    A task that has ended, or is already asked to, stays as it is.
    """
    if record.is_terminal:
        return record
    if record.worker is None:
        marked = replace(record, cancel=record.cancel or Mark(now, by))
        return end(marked, now, TaskStatus.CANCELLED, retention=retention)
    if record.cancel is not None:
        return record
    return _moved(record, now, cancel=Mark(now, by))


def extend(record: TaskRecord, now: datetime, ttl: timedelta, *, max_ttl: timedelta) -> TaskRecord:
    """Let a task live for `ttl` from now on, at least, but not longer than `max_ttl` in all.

    Raises:
        TaskTerminalError: The task has ended.
    """
    if record.is_terminal:
        raise TaskTerminalError(record.status, TaskStatus.WORKING)
    wanted = min(now - record.created_at + ttl, max_ttl)
    return record if wanted <= record.ttl else _moved(record, now, ttl=wanted)


def report(record: TaskRecord, now: datetime, progress: Progress) -> TaskRecord:
    """Show progress. A task that has ended, or shows this already, stays as it is."""
    if record.is_terminal or record.progress == progress:
        return record
    return _moved(record, now, progress=progress, message=describe(progress))


def describe(progress: Progress) -> str:
    """Put progress in words: its message if it has one, else its numbers."""
    if progress.message is not None:
        return progress.message
    current = f"{progress.current:.15g}"
    return current if progress.total is None else f"{current} of {progress.total:.15g}"


def cut(text: str, limit: int) -> str:
    """Return a text of at most `limit` bytes of UTF-8; what is no Unicode in it is replaced."""
    data = text.encode("utf-8", "replace")
    if len(data) <= limit:
        return data.decode()
    return data[: limit - 3].decode("utf-8", "ignore") + "…"


def _moved(record: TaskRecord, now: datetime, **changes: Any) -> TaskRecord:
    """Change a record. The time of its last update never goes back, whatever the clock does."""
    return replace(record, updated_at=max(record.updated_at, now), **changes)

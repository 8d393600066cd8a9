"""The log of what happens to tasks: one line for each thing, found by the task's id.

Whoever writes a record logs what the write did, so the lines of all processes together tell the
whole story of a task. Every line has its facts as attributes of the log record too (`extra`):
`event`, `task`, `tool`, `attempt`, `worker`. Nothing that a caller, a tool or a person said is in
them: no arguments, answers, results, messages or names of owners. A task is named by the beginning
of its id, for whoever knows all of it may open the task.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec

from mcp_tasks.domain.status import TaskStatus
from mcp_tasks.domain.transitions import REASONS
from mcp_tasks.ids import short


if TYPE_CHECKING:
    from collections.abc import Iterator

    from mcp_tasks.domain.record import Failure, TaskRecord


log = logging.getLogger("mcp_tasks.tasks")


class _Data(msgspec.Struct):
    """What our own errors say in their data."""

    reason: str = ""


_decoder = msgspec.json.Decoder(_Data)


def log_change(old: TaskRecord | None, new: TaskRecord) -> None:
    """Log what a write did to a task.

    Args:
        old: The task before; `None` if it is new.
        new: As it was written.
    """
    if not log.isEnabledFor(logging.INFO):
        return
    worker = new.worker or (old.worker if old is not None else None)
    for event, text in _events(old, new):
        log.info("task %s: %s", short(new.task_id), text, extra=facts(new, event, worker))


def log_refusal(record: TaskRecord, worker: str, attempt: int, why: str) -> None:
    """Log that a write of an attempt was refused, because the task is not its own any more."""
    text = f"a write of attempt {attempt} by worker {worker} was refused: {why}"
    log.info(
        "task %s: %s", short(record.task_id), text, extra=facts(record, "refused", worker, attempt)
    )


def facts(
    record: TaskRecord, event: str, worker: str | None = None, attempt: int | None = None
) -> dict[str, Any]:
    """Return what a line about a task has beside its text, for `extra`.

    Args:
        record: The task.
        event: What happened, in a word.
        worker: Who it happened to, if not who runs it now.
        attempt: As which attempt, if not the latest.
    """
    return {
        "event": event,
        "task": short(record.task_id),
        "tool": record.call.tool,
        "attempt": record.attempt if attempt is None else attempt,
        "worker": worker or record.worker,
    }


def _events(old: TaskRecord | None, new: TaskRecord) -> Iterator[tuple[str, str]]:
    if old is None:
        yield "created", f"created for tool {new.call.tool!r:.100}"
    if new.worker is not None and (old is None or old.attempt != new.attempt):
        yield "claimed", f"claimed as attempt {new.attempt} by worker {new.worker}"
    if old is None:
        return
    if new.cancel is not None and old.cancel is None:
        yield "cancel_requested", "its end was asked for"
    if new.asked > old.asked:
        yield "asked", f"waits for {len(new.questions)} answers"
    if len(new.questions) < len(old.questions) and new.journal.count > old.journal.count:
        yield "answered", f"answered; {len(new.questions)} questions are open"
    if new.is_terminal and not old.is_terminal:
        yield new.status.value, _end(new)
    elif old.worker is not None and new.worker is None:
        where = f"attempt {new.attempt} on worker {old.worker}"
        if new.lost > old.lost:
            yield "lost", f"{where} was lost ({new.lost} so far); it waits for another worker"
        elif new.status is TaskStatus.INPUT_REQUIRED:
            yield "parked", f"{where} waits for answers without a worker"
        else:
            yield "handed_back", f"{where} was given up; it waits for another worker"


def _end(new: TaskRecord) -> str:
    if new.error is None:
        return f"{new.status.value} after {new.attempt} attempts"
    reason = _reason(new.error)
    return f"failed after {new.attempt} attempts: error {new.error.code}{reason and f', {reason}'}"


def _reason(failure: Failure) -> str:
    """Return the reason in one of our own errors; a tool's error says what it wants."""
    if failure.data is msgspec.UNSET:
        return ""
    try:
        reason = _decoder.decode(failure.data).reason
    except msgspec.DecodeError:
        return ""
    return reason if reason in REASONS else ""

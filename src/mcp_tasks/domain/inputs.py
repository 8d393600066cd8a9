"""Questions to the client and their answers.

An answer leaves the questions and becomes a journal entry in the same write, so the first answer
under a key wins, and a key that was answered is no longer outstanding for anybody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from mcp_tasks.domain.journal import append
from mcp_tasks.domain.record import Entry
from mcp_tasks.domain.status import TaskStatus
from mcp_tasks.errors import InvalidValueError, QuestionKeyError, TaskTerminalError


if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from datetime import datetime

    from mcp_tasks.domain.record import Payload, Question, TaskRecord


def ask(
    record: TaskRecord,
    now: datetime,
    questions: Iterable[Question],
    *,
    max_open: int,
    max_ever: int,
) -> TaskRecord:
    """Return the record with `questions` outstanding; the same object if they are already.

    Raises:
        TaskTerminalError: The task has ended. Nothing was asked.
        QuestionKeyError: A key was answered already, as far as the journal's tail shows.
        InvalidValueError: More than `max_open` at once, or `max_ever` over the task's life.
    """
    if record.is_terminal:
        raise TaskTerminalError(record.status, TaskStatus.INPUT_REQUIRED)
    known = {question.key for question in record.questions}
    fresh = tuple(question for question in questions if question.key not in known)
    if not fresh:
        return record
    answered = {entry.key for entry in record.journal.tail if entry.kind == "answer"}
    for question in fresh:
        if question.key in answered:
            raise QuestionKeyError(question.key)
    outstanding = record.questions + fresh
    asked = record.asked + len(fresh)
    if len(outstanding) > max_open:
        raise InvalidValueError("a question", f"{max_open} are outstanding, which is the limit")
    if asked > max_ever:
        raise InvalidValueError("a question", f"{max_ever} were asked, which is the limit")
    return replace(
        record,
        status=TaskStatus.INPUT_REQUIRED,
        questions=outstanding,
        asked=asked,
        updated_at=max(record.updated_at, now),
    )


def asked_as(question: Question) -> str:
    """Say what an answer to a question answers: its method, and the digest of what was asked."""
    return f"{question.method} {question.digest}" if question.digest else question.method


def withdraw(record: TaskRecord, now: datetime, keys: Collection[str]) -> TaskRecord:
    """Return the record without those questions; the same object if none is outstanding.

    An answer that comes for one of them is ignored, as for every key that is not outstanding.
    """
    left = tuple(question for question in record.questions if question.key not in keys)
    if record.is_terminal or len(left) == len(record.questions):
        return record
    return replace(
        record,
        status=TaskStatus.INPUT_REQUIRED if left else TaskStatus.WORKING,
        questions=left,
        updated_at=max(record.updated_at, now),
    )


def answer(
    record: TaskRecord,
    now: datetime,
    answers: Mapping[str, Payload],
    *,
    by: str | None,
    max_entries: int,
    max_bytes: int,
) -> TaskRecord:
    """Return the record with those `answers` taken whose question is outstanding.

    Keys that were never issued or are answered already change nothing, whatever they hold; so does
    any answer to a task that has ended. The same object comes back when nothing changes.

    Spec: 2026-07-28 tasks, T-056 (ignored keys) and T-057 (some of the outstanding keys).
    """
    taken = [question for question in record.questions if question.key in answers]
    if record.is_terminal or not taken:
        return record
    entries = [
        Entry(question.key, "answer", answers[question.key], asked_as(question), by)
        for question in taken
    ]
    left = tuple(question for question in record.questions if question.key not in answers)
    return replace(
        record,
        status=TaskStatus.INPUT_REQUIRED if left else TaskStatus.WORKING,
        questions=left,
        journal=append(record.journal, entries, max_entries=max_entries, max_bytes=max_bytes),
        updated_at=max(record.updated_at, now),
    )

"""Questions and answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mcp_tasks.domain import inputs
from mcp_tasks.domain.record import Question, inline
from mcp_tasks.domain.status import TERMINAL, TaskStatus
from mcp_tasks.errors import (
    InvalidValueError,
    JournalFullError,
    QuestionKeyError,
    TaskTerminalError,
)


if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from tests.domain.conftest import MakeRecord

    from mcp_tasks.domain.record import Payload, TaskRecord

    Later = Callable[[float], datetime]

YES = inline(b'{"action":"accept"}')


def question(key: str, now: datetime) -> Question:
    """Make a question."""
    return Question(key, "elicitation/create", inline(b"{}"), now)


def ask(record: TaskRecord, now: datetime, *keys: str) -> TaskRecord:
    """Ask with limits of three at once and five ever."""
    questions = [question(key, now) for key in keys]
    return inputs.ask(record, now, questions, max_open=3, max_ever=5)


def answer(record: TaskRecord, now: datetime, **answers: Payload) -> TaskRecord:
    """Answer with room in the journal."""
    return inputs.answer(record, now, answers, by="eve", max_entries=10, max_bytes=1000)


def test_questions_make_a_task_wait(make: MakeRecord, later: Later) -> None:
    """Several at once are one write."""
    new = ask(make(), later(1), "a", "b")

    assert new.status is TaskStatus.INPUT_REQUIRED
    assert [question.key for question in new.questions] == ["a", "b"]
    assert (new.asked, new.updated_at) == (2, later(1))


def test_an_open_question_is_not_asked_twice(make: MakeRecord, later: Later) -> None:
    """The answer to the write that asked it may have been lost."""
    record = ask(make(), later(1), "a")

    assert ask(record, later(2), "a") is record
    assert [question.key for question in ask(record, later(2), "a", "b").questions] == ["a", "b"]


@pytest.mark.parametrize("status", sorted(TERMINAL))
def test_an_ended_task_asks_nothing(make: MakeRecord, later: Later, status: TaskStatus) -> None:
    """Nobody would hear the answer."""
    with pytest.raises(TaskTerminalError):
        ask(make(status), later(1), "a")


def test_a_key_is_never_used_for_two_questions(make: MakeRecord, later: Later) -> None:
    """A client that answers late must not answer something else."""
    record = answer(ask(make(), later(1), "a"), later(2), a=YES)

    with pytest.raises(QuestionKeyError):
        ask(record, later(3), "a")


def test_the_number_of_questions_has_limits(make: MakeRecord, later: Later) -> None:
    """At once, and over a life; equal is allowed."""
    record = ask(make(), later(1), "a", "b", "c")
    with pytest.raises(InvalidValueError, match="3 are outstanding"):
        ask(record, later(2), "d")
    record = ask(answer(record, later(2), a=YES, b=YES), later(3), "d", "e")
    assert record.asked == 5
    record = answer(record, later(4), c=YES, d=YES, e=YES)

    with pytest.raises(InvalidValueError, match="5 were asked"):
        ask(record, later(5), "f")


def test_an_answer_moves_its_question_into_the_journal(make: MakeRecord, later: Later) -> None:
    """In one write, so it is never both or neither."""
    record = ask(make(), later(1), "a", "b")

    new = answer(record, later(2), b=YES)

    assert [question.key for question in new.questions] == ["a"]
    assert new.status is TaskStatus.INPUT_REQUIRED
    (entry,) = new.journal.tail
    assert (entry.key, entry.kind, entry.value, entry.what, entry.by) == (
        "b",
        "answer",
        YES,
        "elicitation/create",
        "eve",
    )
    done = answer(new, later(3), a=YES)
    assert (done.status, done.questions, done.journal.count) == (TaskStatus.WORKING, (), 2)


@pytest.mark.parametrize("status", TaskStatus)
def test_other_answers_change_nothing(make: MakeRecord, later: Later, status: TaskStatus) -> None:
    """Unknown or already answered keys, and tasks that ended: acknowledged, and that is all."""
    record = make(status)

    assert answer(record, later(2), unknown=YES) is record
    assert answer(record, later(2)) is record
    if status in TERMINAL:
        assert answer(record, later(2), q=YES) is record


def test_the_first_answer_wins(make: MakeRecord, later: Later) -> None:
    """Two clients may answer at once."""
    first = answer(ask(make(), later(1), "a"), later(2), a=YES)

    assert answer(first, later(3), a=inline(b'{"action":"decline"}')) is first


def test_an_answer_over_the_journals_limit_takes_nothing(make: MakeRecord, later: Later) -> None:
    """The question stays open."""
    record = ask(make(), later(1), "a")

    with pytest.raises(JournalFullError):
        inputs.answer(record, later(2), {"a": YES}, by=None, max_entries=0, max_bytes=1000)
    with pytest.raises(JournalFullError):
        inputs.answer(record, later(2), {"a": YES}, by=None, max_entries=1, max_bytes=1)

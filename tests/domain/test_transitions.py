"""Every transition as a pure function, from every record that it may meet."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from mcp_tasks.domain import transitions
from mcp_tasks.domain.record import Failure, Mark, Policy, Progress, inline
from mcp_tasks.domain.status import TERMINAL, TaskStatus
from mcp_tasks.errors import (
    InvalidTransitionError,
    LeaseLostError,
    TaskTerminalError,
)


if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from tests.domain.conftest import MakeRecord

    from mcp_tasks.domain.record import TaskRecord

    Later = Callable[[float], datetime]


DAY = timedelta(days=1)
ENDED = sorted(TERMINAL)
ACTIVE = [TaskStatus.WORKING, TaskStatus.INPUT_REQUIRED]
FAIL, RERUN, RESUME = Policy(), Policy(on_worker_loss="rerun"), Policy(resumable=True)


def reason(record: TaskRecord) -> Any:
    """Return why a task failed."""
    assert record.error is not None
    return msgspec.json.decode(record.error.data)["reason"]  # type: ignore[arg-type]


# --- status --------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", TaskStatus)
@pytest.mark.parametrize("current", TaskStatus)
def test_update_follows_the_table(
    make: MakeRecord, later: Later, current: TaskStatus, wanted: TaskStatus
) -> None:
    """From everywhere to everywhere, and a refusal leaves the record to its owner."""
    record = make(current)
    allowed = current not in TERMINAL and current is not wanted

    if not allowed:
        with pytest.raises(InvalidTransitionError):
            transitions.update(record, later(1), wanted, retention=DAY)
        return
    new = transitions.update(record, later(1), wanted, retention=DAY, message="now")

    assert (new.status, new.message, new.updated_at) == (wanted, "now", later(1))
    assert new.questions == (() if wanted is not TaskStatus.INPUT_REQUIRED else record.questions)
    assert (new.ended_at == later(1)) == wanted.is_terminal
    assert (new.error is not None) == (wanted is TaskStatus.FAILED)


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("current", ACTIVE)
@pytest.mark.parametrize("status", ENDED)
def test_an_end_leaves_nothing_under_way(
    make: MakeRecord, later: Later, current: TaskStatus, status: TaskStatus, *, held: bool
) -> None:
    """No worker and no question outlives the task; its past stays."""
    record = make(current, worker="w1" if held else None, attempt=2, lost=1, message="old")

    new = transitions.end(record, later(5), status, retention=DAY, result=inline(b"null"))

    assert (new.worker, new.questions, new.message) == (None, (), None)
    assert (new.status, new.ended_at, new.attempt, new.lost) == (status, later(5), 2, 1)


@pytest.mark.parametrize("current", ENDED)
def test_the_first_outcome_stays(make: MakeRecord, later: Later, current: TaskStatus) -> None:
    """Whoever comes second is told so."""
    record = make(current)
    for status in ENDED:
        with pytest.raises(TaskTerminalError):
            transitions.end(record, later(1), status, retention=DAY)
    with pytest.raises(TaskTerminalError):
        transitions.fail(record, later(1), Failure(1, "no"), retention=DAY)


@pytest.mark.parametrize(
    ("ttl", "retention", "age", "expected"),
    [
        (60, 3600, 10, 70),  # readable for its own ttl after the end
        (3600, 60, 10, 3600),  # its ttl is long enough as it is
        (3600, 60, 3599, 3659),  # raised, so that it stays readable
        (3600, 86_400, 3599, 7199),
        (86_400 * 7, 86_400, 86_400 * 6.5, 86_400 * 7.5),  # also over the maximum
    ],
)
def test_an_outcome_stays_readable_for_the_smaller_of_ttl_and_retention(
    make: MakeRecord, later: Later, ttl: float, retention: float, age: float, expected: float
) -> None:
    """It would otherwise be gone the moment it is there; an end never shortens a life."""
    record = make(ttl=timedelta(seconds=ttl))

    new = transitions.end(
        record, later(age), TaskStatus.COMPLETED, retention=timedelta(seconds=retention)
    )

    assert new.ttl == timedelta(seconds=expected)


def test_time_never_goes_back(make: MakeRecord, later: Later) -> None:
    """Clocks of several machines differ, and are set."""
    record = make(updated_at=later(100), worker="w1", attempt=1)

    for new in (
        transitions.update(record, later(1), TaskStatus.INPUT_REQUIRED, retention=DAY),
        transitions.end(record, later(1), TaskStatus.COMPLETED, retention=DAY),
        transitions.cancel(record, later(1), by=None, retention=DAY),
        transitions.report(record, later(1), Progress(1)),
        transitions.extend(record, later(1), DAY, max_ttl=7 * DAY),
        transitions.hand_back(record, later(1), "w1", 1, started=False, retention=DAY),
    ):
        assert new.updated_at == later(100)
        assert new.ended_at in (None, later(100))


@pytest.mark.parametrize("current", ACTIVE)
def test_an_expired_task_ended_at_its_deadline_whoever_looks(
    make: MakeRecord, current: TaskStatus
) -> None:
    """So all readers see the same, also those who cannot write it."""
    record = make(current, worker="w1", attempt=1)

    new = transitions.expire(record)

    assert (new.status, new.ended_at, new.updated_at) == (
        TaskStatus.FAILED,
        record.deadline,
        record.deadline,
    )
    assert (new.worker, new.questions, new.ttl) == (None, (), record.ttl)
    assert reason(new) == "expired"


# --- claims --------------------------------------------------------------------------------------


def claim(record: TaskRecord, now: datetime, worker: str = "w1", attempt: int = 1) -> TaskRecord:
    """Claim with a retention of a day."""
    return transitions.claim(record, now, worker, attempt, retention=DAY)


def test_a_task_that_waits_is_claimed(make: MakeRecord, later: Later) -> None:
    """By the worker, as the attempt that was announced."""
    new = claim(make(attempt=2), later(1), "w1", 3)

    assert (new.worker, new.attempt, new.status) == ("w1", 3, TaskStatus.WORKING)


def test_a_claim_recognises_itself(make: MakeRecord, later: Later) -> None:
    """The answer to it may have been lost."""
    record = make(worker="w1", attempt=1)

    assert claim(record, later(1)) is record


@pytest.mark.parametrize(
    "changes",
    [
        {"worker": "w2", "attempt": 1},
        {"worker": "w2"},
        {"worker": "w1", "attempt": 2},
        {"attempt": 1},
        {"attempt": 7},
        {"status": TaskStatus.INPUT_REQUIRED},
        *({"status": status} for status in ENDED),
        *({"status": status, "worker": "w1", "attempt": 1} for status in ENDED),
    ],
    ids=str,
)
def test_nothing_else_is_claimed(make: MakeRecord, later: Later, changes: dict[str, Any]) -> None:
    """A task runs once at a time, and never again once it has ended."""
    with pytest.raises(LeaseLostError):
        claim(make(**changes), later(1))


def test_a_claim_of_a_task_that_is_to_end_ends_it(make: MakeRecord, later: Later) -> None:
    """Whoever takes a task looks at the flag first."""
    new = claim(make(cancel=Mark(later(0))), later(1))

    assert (new.status, new.worker, new.attempt) == (TaskStatus.CANCELLED, None, 0)


@pytest.mark.parametrize(
    ("worker", "attempt"), [("w2", 1), ("w1", 2), ("w1", 0), ("w2", 2), ("", 1)]
)
@pytest.mark.parametrize("current", ACTIVE)
def test_the_fence_compares_worker_and_attempt(
    make: MakeRecord, later: Later, current: TaskStatus, worker: str, attempt: int
) -> None:
    """A hand-back keeps the attempt, another start the worker: either alone lets one through."""
    record = make(current, worker="w1", attempt=1)
    transitions.check_fence(record, "w1", 1)

    with pytest.raises(LeaseLostError):
        transitions.check_fence(record, worker, attempt)
    with pytest.raises(LeaseLostError):
        transitions.hand_back(record, later(1), worker, attempt, started=True, retention=DAY)
    with pytest.raises(LeaseLostError):
        transitions.park(record, later(1), worker, attempt, retention=DAY)


@pytest.mark.parametrize("status", ENDED)
def test_the_fence_is_closed_once_the_task_has_ended(make: MakeRecord, status: TaskStatus) -> None:
    """After `cancelled` was seen there is never a result."""
    with pytest.raises(LeaseLostError):
        transitions.check_fence(make(status, worker="w1", attempt=1), "w1", 1)


# --- letting go ----------------------------------------------------------------------------------

FREED = (TaskStatus.WORKING, None)
PARKED = (TaskStatus.INPUT_REQUIRED, None)
FAILED = (TaskStatus.FAILED, None)


@pytest.mark.parametrize(
    ("policy", "current", "started", "expected"),
    [
        (FAIL, TaskStatus.WORKING, True, FAILED),
        (FAIL, TaskStatus.WORKING, False, FREED),
        (FAIL, TaskStatus.INPUT_REQUIRED, True, FAILED),
        (RERUN, TaskStatus.WORKING, True, FREED),
        (RERUN, TaskStatus.WORKING, False, FREED),
        (RERUN, TaskStatus.INPUT_REQUIRED, True, FREED),
        (RESUME, TaskStatus.WORKING, True, FREED),
        (RESUME, TaskStatus.WORKING, False, FREED),
        (RESUME, TaskStatus.INPUT_REQUIRED, True, PARKED),
        (RESUME, TaskStatus.INPUT_REQUIRED, False, PARKED),
    ],
)
@pytest.mark.parametrize("flagged", [True, False])
def test_a_worker_that_stops_hands_back_what_may_go_on(
    make: MakeRecord,
    later: Later,
    policy: Policy,
    current: TaskStatus,
    expected: tuple[TaskStatus, str | None],
    *,
    started: bool,
    flagged: bool,
) -> None:
    """A hand-back is free, and a body that may have had effects is not begun twice."""
    record = make(
        current,
        policy=policy,
        worker="w1",
        attempt=5,
        lost=2,
        cancel=Mark(later(0)) if flagged else None,
    )

    new = transitions.hand_back(record, later(1), "w1", 5, started=started, retention=DAY)

    assert (new.attempt, new.lost) == (5, 2)
    if flagged:
        assert (new.status, new.worker) == (TaskStatus.CANCELLED, None)
        return
    assert (new.status, new.worker) == expected
    assert bool(new.questions) == (expected is PARKED)
    if expected is FAILED:
        assert reason(new) == "worker_stopped"
        assert b'"mayHaveRun":true' in bytes(new.error.data)  # type: ignore[union-attr, arg-type]


@pytest.mark.parametrize(
    ("policy", "current", "expected"),
    [
        (FAIL, TaskStatus.WORKING, FAILED),
        (FAIL, TaskStatus.INPUT_REQUIRED, FAILED),
        (RERUN, TaskStatus.WORKING, FREED),
        (RERUN, TaskStatus.INPUT_REQUIRED, FREED),
        (RESUME, TaskStatus.WORKING, FREED),
        (RESUME, TaskStatus.INPUT_REQUIRED, PARKED),
    ],
)
@pytest.mark.parametrize("flagged", [True, False])
@pytest.mark.parametrize("admitted", [True, False])
@pytest.mark.parametrize("attempt", [1, 2])
def test_a_task_of_a_dead_worker_is_freed_ended_or_parked(
    make: MakeRecord,
    later: Later,
    policy: Policy,
    current: TaskStatus,
    expected: tuple[TaskStatus, str | None],
    attempt: int,
    *,
    flagged: bool,
    admitted: bool,
) -> None:
    """By its policy; one of which nobody was ever told is not run at all."""
    record = make(
        current,
        policy=policy,
        worker="w1",
        attempt=attempt,
        cancel=Mark(later(0)) if flagged else None,
    )

    new = transitions.take_from_dead(record, later(1), "w1", admitted=admitted, retention=DAY)

    assert (new.worker, new.attempt) == (None, attempt)
    if not admitted and attempt == 1:
        assert (new.status, reason(new)) == (TaskStatus.FAILED, "never_started")
    elif flagged:
        assert new.status is TaskStatus.CANCELLED
    else:
        assert (new.status, new.worker) == expected
        assert new.lost == (0 if expected is FAILED else 1)
        if expected is FAILED:
            assert reason(new) == "worker_lost"


@pytest.mark.parametrize("current", ACTIVE)
@pytest.mark.parametrize("policy", [RERUN, RESUME])
def test_a_task_that_takes_its_workers_down_is_given_up(
    make: MakeRecord, later: Later, current: TaskStatus, policy: Policy
) -> None:
    """After three lost attempts; the fourth worker would die of it too."""
    record = make(current, policy=policy, worker="w1", attempt=9, lost=2)

    new = transitions.take_from_dead(record, later(1), "w1", admitted=True, retention=DAY)

    assert (new.status, reason(new)) == (TaskStatus.FAILED, "attempts_exhausted")


@pytest.mark.parametrize("worker", [None, "w2"])
@pytest.mark.parametrize("current", TaskStatus)
def test_what_a_dead_worker_does_not_hold_is_touched_at_most(
    make: MakeRecord, later: Later, current: TaskStatus, worker: str | None
) -> None:
    """A free task is written as it is, so that a claim begun before the death finds it changed."""
    record = make(current, worker=worker)

    new = transitions.take_from_dead(record, later(1), "w1", admitted=False, retention=DAY)

    assert new == record
    assert (new is record) == (current in TERMINAL or worker is not None)


# --- questions of life ---------------------------------------------------------------------------


def test_parking_keeps_the_questions_and_frees_the_worker(make: MakeRecord, later: Later) -> None:
    """Waiting costs nothing."""
    record = make(TaskStatus.INPUT_REQUIRED, worker="w1", attempt=1)

    new = transitions.park(record, later(1), "w1", 1, retention=DAY)

    assert (new.worker, new.status, new.questions) == (
        None,
        TaskStatus.INPUT_REQUIRED,
        record.questions,
    )


def test_a_task_without_an_open_question_is_not_parked(make: MakeRecord, later: Later) -> None:
    """Its answer came meanwhile; parked, it would wait for ever."""
    record = make(worker="w1", attempt=1)

    assert transitions.park(record, later(1), "w1", 1, retention=DAY) is record


@pytest.mark.parametrize("current", ACTIVE)
def test_parking_a_task_that_is_to_end_ends_it(
    make: MakeRecord, later: Later, current: TaskStatus
) -> None:
    """Nobody would look at the flag again."""
    record = make(current, worker="w1", attempt=1, cancel=Mark(later(0)))

    new = transitions.park(record, later(1), "w1", 1, retention=DAY)

    assert new.status is TaskStatus.CANCELLED


@pytest.mark.parametrize("current", TaskStatus)
@pytest.mark.parametrize("worker", [None, "w1"])
@pytest.mark.parametrize("flagged", [True, False])
def test_cancelling_flags_a_held_task_and_ends_a_free_one(
    make: MakeRecord, later: Later, current: TaskStatus, worker: str | None, *, flagged: bool
) -> None:
    """The worker stops its body first; where there is none, there is nothing to wait for."""
    mark = Mark(later(0), "bob") if flagged else None
    record = make(current, worker=worker, cancel=mark)

    new = transitions.cancel(record, later(1), by="eve", retention=DAY)

    if current in TERMINAL or (flagged and worker):
        assert new is record
        return
    assert new.cancel == (mark or Mark(later(1), "eve"))
    assert new.status is (current if worker else TaskStatus.CANCELLED)
    assert new.worker == worker
    again = transitions.cancel(new, later(2), by="eve", retention=DAY)
    assert again is new


def test_extending_counts_from_now_within_the_maximum(make: MakeRecord, later: Later) -> None:
    """It never shortens, and what changes nothing is no change."""
    record = make()  # an hour

    def extend(now: float, ttl: float) -> TaskRecord:
        return transitions.extend(
            record, later(now), timedelta(seconds=ttl), max_ttl=timedelta(hours=3)
        )

    assert extend(1800, 3600).ttl == timedelta(minutes=90)
    assert extend(3000, 86_400).ttl == timedelta(hours=3)
    assert extend(1800, 1800) is record
    assert extend(0, 60) is record


@pytest.mark.parametrize("current", ENDED)
def test_an_ended_task_is_not_extended(make: MakeRecord, later: Later, current: TaskStatus) -> None:
    """Its time to live tells how long its outcome is there."""
    with pytest.raises(TaskTerminalError):
        transitions.extend(make(current), later(1), DAY, max_ttl=7 * DAY)


@pytest.mark.parametrize("current", TaskStatus)
def test_progress_shows_while_the_task_lives(
    make: MakeRecord, later: Later, current: TaskStatus
) -> None:
    """A report that comes late, or says the same again, changes nothing."""
    record = make(current)

    new = transitions.report(record, later(1), Progress(1, 3))

    if current in TERMINAL:
        assert new is record
        return
    assert (new.progress, new.message, new.updated_at) == (Progress(1, 3), "1 of 3", later(1))
    assert transitions.report(new, later(2), Progress(1, 3)) is new


@pytest.mark.parametrize(
    ("progress", "words"),
    [
        (Progress(3), "3"),
        (Progress(0.25, 1), "0.25 of 1"),
        (Progress(3, 10, "third"), "third"),
        (Progress(3, 10, ""), ""),
    ],
)
def test_progress_has_words(progress: Progress, words: str) -> None:
    """Clients that show one line show these."""
    assert transitions.describe(progress) == words


@pytest.mark.parametrize("size", [4096, 4097, 10_000])
def test_the_text_of_an_error_has_a_limit(make: MakeRecord, later: Later, size: int) -> None:
    """The record of a task that fails must not burst of the reason."""
    failure = Failure(-32603, "é" * (size // 2) + "x" * (size % 2))

    new = transitions.fail(make(), later(1), failure, retention=DAY)

    assert new.error is not None
    assert len(new.error.message.encode()) <= 4096
    assert (new.error.message == failure.message) == (size == 4096)
    assert new.message is not None
    assert new.message.endswith("…")
    assert failure.message.startswith(new.message[:-1])

"""The oracle itself: every planted broken promise is found, and none where there is none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace
from tests.chaos.oracle import Evidence, judge
from tests.chaos.scene import ONCE, RESUMABLE

from mcp_tasks.domain.record import Call, Entry, Journal, TaskRecord, inline
from mcp_tasks.domain.status import TaskStatus
from mcp_tasks.domain.transitions import failure_of


NOW = datetime(2026, 7, 28, tzinfo=UTC)
DONE = TaskRecord(
    format=1,
    min_writer=1,
    task_id="t",
    owner="ada",
    status=TaskStatus.COMPLETED,
    created_at=NOW,
    updated_at=NOW,
    ttl=timedelta(hours=1),
    poll_interval=timedelta(seconds=1),
    call=Call("quick", inline(b"{}")),
    policy=ONCE,
    attempt=1,
    result=inline(b"{}"),
)
LOST = replace(DONE, status=TaskStatus.FAILED, result=None, error=failure_of("worker_lost", "lost"))
ASKED = replace(
    DONE,
    call=Call("asks", inline(b"{}")),
    policy=RESUMABLE,
    journal=Journal(tail=(Entry("go", "answer", inline(b"{}")),), count=1),
)
START, END = {"attempt": 1, "what": "start"}, {"attempt": 1, "what": "end"}
HOLD = {"what": "created", "tool": "hold", "policy": "fail", "owner": "ada"}
ASKS = {**HOLD, "tool": "asks", "policy": "resumable"}
QUICK = {**HOLD, "tool": "quick"}
ANSWERED = {"what": "answered", "keys": ["go"]}
CANCELLED = {"what": "cancelled"}


def evidence(
    record: TaskRecord | None, acks: list[Any], seen: list[Any], *, result: Any = None
) -> Evidence:
    """Make what would be known of a cycle with one task."""
    made = Evidence(
        [{"at": at, "pid": 1, "who": "subject", "task": "t", **a} for at, a in enumerate(acks)],
        [{"at": at, "pid": 1, "task": "t", **line} for at, line in enumerate(seen)],
        results={"t": result or {"attempt": 1}},
    )
    if record is not None:
        made.final["t"] = (3, b"as it is", record)
    return made


@pytest.mark.parametrize(
    ("record", "acks", "seen", "result"),
    [
        (DONE, [QUICK], [START, END], None),
        (LOST, [QUICK], [START], None),
        (replace(LOST, status=TaskStatus.CANCELLED, error=None), [HOLD, CANCELLED], [START], None),
        (ASKED, [ASKS, ANSWERED], [START, END], {"attempt": 1, "answer": "subject"}),
    ],
)
def test_kept_promises_are_no_faults(record: TaskRecord, acks: Any, seen: Any, result: Any) -> None:
    """Else every cycle would be one."""
    assert judge(evidence(record, acks, seen, result=result)) == []


RAN, GOT = {"what": "ran", "step": "one"}, {"what": "got", "step": "one"}


@pytest.mark.parametrize(
    ("fault", "record", "acks", "seen", "result"),
    [
        ("is not there", None, [QUICK], [], None),
        ("for ever", replace(DONE, status=TaskStatus.WORKING), [QUICK], [START], None),
        ("never came to its end", DONE, [QUICK], [START], None),
        ("wrote after", replace(DONE, attempt=2), [QUICK], [START, END], None),
        ("started 2 times", DONE, [QUICK], [START, {**START, "attempt": 2}, END], None),
        ("one number", replace(DONE, policy=RESUMABLE), [QUICK], [START, START, END], None),
        ("knows of 1", replace(DONE, policy=RESUMABLE), [], [{**START, "attempt": 2}, END], None),
        ("can be run again", replace(LOST, policy=RESUMABLE), [QUICK], [START], None),
        (
            "taken for one that was not",
            replace(LOST, error=failure_of("never_started", "")),
            [QUICK],
            [],
            None,
        ),
        (
            "its tool did not",
            replace(LOST, error=failure_of("expired", "")),
            [QUICK],
            [START],
            None,
        ),
        ("cancellation was acknowledged", LOST, [HOLD, CANCELLED], [START], None),
        (
            "and is not there",
            replace(ASKED, journal=Journal()),
            [ASKS, ANSWERED],
            [START, END],
            {"attempt": 1, "answer": "subject"},
        ),
        (
            "an answer of 'nobody'",
            ASKED,
            [ASKS, ANSWERED],
            [START, END],
            {"attempt": 1, "answer": "nobody"},
        ),
        (
            "and later",
            DONE,
            [QUICK],
            [START, {**GOT, "attempt": 1, "value": "a"}, {**GOT, "attempt": 2, "value": "b"}, END],
            None,
        ),
        (
            "and ran again",
            DONE,
            [QUICK],
            [START, {**GOT, "attempt": 1, "value": "a"}, {**RAN, "attempt": 2}, END],
            None,
        ),
    ],
)
def test_every_broken_promise_is_found(
    fault: str, record: TaskRecord | None, acks: Any, seen: Any, result: Any
) -> None:
    """And named, with the history of that task and of no other."""
    known = evidence(record, acks, seen, result=result)

    assert [what for _, what in judge(known) if fault in what]
    assert known.history("t")


def test_a_terminal_record_that_changes_is_found() -> None:
    """Not a byte of it may."""
    known = evidence(DONE, [QUICK], [START, END])
    known.first["t"] = (2, b"as it was")

    assert [what for _, what in judge(known)] == ["I2: its terminal record was changed"]

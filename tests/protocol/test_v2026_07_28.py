"""A record on the wire of 2026-07-28, held to the extension's own schema."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from msgspec import UNSET
from msgspec.structs import replace

from mcp_tasks.domain.record import (
    FORMAT,
    Blob,
    Call,
    Failure,
    Payload,
    Policy,
    Progress,
    Question,
    TaskRecord,
    inline,
)
from mcp_tasks.domain.status import TaskStatus
from mcp_tasks.protocol import v2026_07_28 as wire


SCHEMA = json.loads((Path(__file__).parent / "tasks-extension.schema.json").read_bytes())
CREATED = datetime(2026, 7, 28, 9, 30, 0, 250_000, tzinfo=UTC)
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
TASK_FIELDS = {
    "taskId",
    "status",
    "createdAt",
    "lastUpdatedAt",
    "ttlMs",
    "pollIntervalMs",
    "resultType",
}

WORKING = TaskRecord(
    format=FORMAT,
    min_writer=FORMAT,
    task_id="0123456789abcdefghjkmnpqrstvwxyz0123",
    owner="ada",
    status=TaskStatus.WORKING,
    created_at=CREATED,
    updated_at=CREATED + timedelta(seconds=2),
    ttl=timedelta(hours=1),
    poll_interval=timedelta(milliseconds=1500),
    call=Call("count", inline(b"{}")),
    policy=Policy(),
)
ELICITATION: dict[str, Any] = {
    "mode": "form",
    "message": "Sure?",
    "requestedSchema": {"type": "object", "properties": {}},
}
QUESTION = Question("ok", "elicitation/create", inline(msgspec.json.encode(ELICITATION)), CREATED)
INPUT_REQUIRED = replace(WORKING, status=TaskStatus.INPUT_REQUIRED, questions=(QUESTION,))
COMPLETED = replace(
    WORKING, status=TaskStatus.COMPLETED, result=inline(b'{"content":[],"isError":true}')
)
FAILED = replace(
    WORKING, status=TaskStatus.FAILED, error=Failure(-32050, "no luck", msgspec.Raw(b'{"a":1}'))
)
CANCELLED = replace(WORKING, status=TaskStatus.CANCELLED)


@dataclass(frozen=True)
class Case:
    """A record and the one field that its status adds."""

    record: TaskRecord
    payload: str | None


CASES = {
    "working": Case(WORKING, None),
    "input_required": Case(INPUT_REQUIRED, "inputRequests"),
    "completed": Case(COMPLETED, "result"),
    "failed": Case(FAILED, "error"),
    "cancelled": Case(CANCELLED, None),
}


def check(name: str, message: dict[str, Any]) -> None:
    """Hold a message to a definition of the schema."""
    jsonschema.validate(message, {**SCHEMA, "$ref": f"#/$defs/{name}"})


@pytest.mark.requirement("T-012")
@pytest.mark.requirement("T-015")
@pytest.mark.requirement("T-023")
def test_a_created_task_is_flat_and_says_what_it_is() -> None:
    """Clients tell a task from a result by `resultType`, and find the id beside it."""
    message = wire.create_result(WORKING)

    check("CreateTaskResult", message)
    assert message == {
        "resultType": "task",
        "taskId": WORKING.task_id,
        "status": "working",
        "createdAt": "2026-07-28T09:30:00.250Z",
        "lastUpdatedAt": "2026-07-28T09:30:02.250Z",
        "ttlMs": 3_600_000,
        "pollIntervalMs": 1500,
    }


@pytest.mark.requirement("T-019")
@pytest.mark.requirement("T-034")
@pytest.mark.requirement("T-035")
@pytest.mark.requirement("T-037")
@pytest.mark.requirement("T-038")
@pytest.mark.requirement("T-039")
@pytest.mark.requirement("T-040")
@pytest.mark.parametrize("status", CASES)
def test_each_status_shows_its_payload_and_no_other(status: str) -> None:
    """The schema lets extra fields through, so the set of fields is checked here."""
    case = CASES[status]
    message = wire.detailed_task(case.record)

    check("GetTaskResult", message)
    assert message["status"] == status
    assert message["resultType"] == "complete"
    assert set(message) - TASK_FIELDS - {"statusMessage"} == ({case.payload} - {None})
    assert set(message) >= TASK_FIELDS
    for name in ("createdAt", "lastUpdatedAt"):
        assert TIMESTAMP.fullmatch(message[name])
    for name in ("ttlMs", "pollIntervalMs"):
        assert type(message[name]) is int


@pytest.mark.requirement("T-083")
@pytest.mark.requirement("T-085")
@pytest.mark.requirement("T-082")
def test_a_failure_is_shown_whole_and_in_words() -> None:
    """A client gets the error that the request would have had, and a person its message."""
    message = wire.detailed_task(FAILED)

    assert message["error"] == {"code": -32050, "message": "no luck", "data": {"a": 1}}
    assert message["statusMessage"] == "no luck"


def test_an_error_without_data_has_none() -> None:
    """`data: null` and no data are different things in JSON-RPC."""
    assert wire.error(Failure(1, "x")) == {"code": 1, "message": "x"}
    assert wire.error(Failure(1, "x", msgspec.Raw(b"null")))["data"] is None


@pytest.mark.requirement("T-036")
def test_all_outstanding_questions_are_shown_by_their_keys() -> None:
    """A client answers what it sees, and sees everything that blocks the task."""
    sampling: dict[str, Any] = {"maxTokens": 1, "messages": []}
    questions = (
        QUESTION,
        Question("s", "sampling/createMessage", inline(msgspec.json.encode(sampling)), CREATED),
        Question("r", "roots/list", inline(b"{}"), CREATED),
    )
    message = wire.detailed_task(replace(INPUT_REQUIRED, questions=questions))

    check("GetTaskResult", message)
    assert message["inputRequests"] == {
        "ok": {"method": "elicitation/create", "params": ELICITATION},
        "s": {"method": "sampling/createMessage", "params": sampling},
        "r": {"method": "roots/list", "params": {}},
    }


def test_a_result_of_null_is_a_result() -> None:
    """A task that completed always has a `result`, whatever it is."""
    message = wire.detailed_task(replace(COMPLETED, result=inline(b"null")))

    assert message["result"] is None
    assert "result" in message


@pytest.mark.requirement("T-019")
def test_a_task_completed_by_its_status_alone_has_an_empty_result() -> None:
    """A client that is told `completed` looks for a `result`."""
    message = wire.detailed_task(replace(COMPLETED, result=None))

    assert message["result"] == {"resultType": "complete", "content": []}
    check("GetTaskResult", message)


@pytest.mark.requirement("X-VARIABLES")
def test_public_variables_are_in_meta_under_one_key() -> None:
    """They must not be merged over what others put into `_meta`, and private ones stay here."""
    variables = inline(b'{"stage":"two","_secret":1,"io.modelcontextprotocol/x":2}')
    message = wire.detailed_task(replace(WORKING, variables=variables))

    assert message["_meta"] == {
        "mcp-tasks/variables": {"stage": "two", "io.modelcontextprotocol/x": 2}
    }
    check("GetTaskResult", message)


def test_private_variables_alone_leave_no_trace() -> None:
    """An empty `_meta` would tell that there is something."""
    message = wire.detailed_task(replace(WORKING, variables=inline(b'{"_secret":1}')))

    assert "_meta" not in message


@pytest.mark.parametrize(
    ("progress", "words"),
    [
        (Progress(3, 10, "third of ten"), "third of ten"),
        (Progress(3, 10), "3 of 10"),
        (Progress(1234567), "1234567"),
        (Progress(0.5), "0.5"),
    ],
)
def test_progress_becomes_the_status_message(progress: Progress, words: str) -> None:
    """The extension has no progress notifications: this is where a person sees it."""
    assert wire.detailed_task(replace(WORKING, progress=progress))["statusMessage"] == words


def test_what_was_said_explicitly_comes_before_progress() -> None:
    """A message was written for a person; numbers are what there is without one."""
    record = replace(WORKING, message="almost there", progress=Progress(1, 2))

    assert wire.detailed_task(record)["statusMessage"] == "almost there"


def test_progress_is_over_when_the_task_is() -> None:
    """`3 of 10` on a completed task would be read as a result."""
    assert "statusMessage" not in wire.detailed_task(replace(COMPLETED, progress=Progress(3, 10)))


def test_values_beside_the_record_are_named_and_put_in() -> None:
    """A large value is fetched only for who shows it, and shown like a small one."""
    large = Payload(UNSET, Blob("b", 2, 9))
    completed = replace(COMPLETED, result=large, variables=large)
    asking = replace(INPUT_REQUIRED, questions=(replace(QUESTION, params=large),))

    assert wire.beside(COMPLETED) == {}
    assert set(wire.beside(completed).values()) == {large}
    loaded = {name: {"big": 1} for name in wire.beside(completed)}
    assert wire.detailed_task(completed, loaded)["result"] == {"big": 1}
    assert wire.detailed_task(completed, loaded)["_meta"] == {"mcp-tasks/variables": {"big": 1}}
    loaded = {name: {"message": "long"} for name in wire.beside(asking)}
    request = wire.detailed_task(asking, loaded)["inputRequests"]["ok"]
    assert request["params"] == {"message": "long"}


def test_large_arguments_are_never_fetched_for_a_poll() -> None:
    """A poll of a running task reads its record and nothing else."""
    call = Call("count", Payload(UNSET, Blob("b", 16, 4_000_000)))

    assert wire.beside(replace(WORKING, call=call)) == {}

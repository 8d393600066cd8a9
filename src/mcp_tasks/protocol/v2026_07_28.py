"""The Tasks extension of protocol version 2026-07-28: a `TaskRecord` as the JSON of its messages.

This is the hot path of a poll, so each message is one dictionary, built once, and a stored result
is decoded exactly once. Results are dictionaries and never models, because the SDK drops `null`
members of models and the required `ttlMs` may be one.

Payloads that do not lie in the record are passed in already loaded: `beside` says which those are.

Spec: 2026-07-28 tasks, T-012 to T-023 and T-033 to T-040.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET, Raw

from mcp_tasks.domain.status import TaskStatus
from mcp_tasks.domain.transitions import describe
from mcp_tasks.jsonio import from_json


if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from mcp_tasks.domain.record import Failure, Payload, TaskRecord


EXTENSION: Final = "io.modelcontextprotocol/tasks"
"""The label of the extension in capabilities."""

PROTOCOL_VERSION: Final = "2026-07-28"
"""The revision of MCP that this module speaks."""

VARIABLES: Final = "mcp-tasks/variables"
"""Where a task's public variables show in `_meta`. Ours: the extension knows no variables."""

IDEMPOTENCY_KEY: Final = "mcp-tasks/idempotencyKey"
"""Where a call says in `_meta` which call it is, so that it may be sent again. Ours, too."""

_RESULT: Final = "result"
_EMPTY_RESULT: Final[Mapping[str, Any]] = {"resultType": "complete", "content": []}
_VARIABLES: Final = "variables"
_MILLISECOND: Final = timedelta(milliseconds=1)
_NOTHING: Final[Mapping[str, Any]] = {}


def create_result(record: TaskRecord) -> dict[str, Any]:
    """Answer a request with the task that now carries it out.

    Spec: 2026-07-28 tasks, T-012 and T-023 (flat, `resultType: "task"`, no payload).
    """
    return {"resultType": "task", **_task(record)}


def detailed_task(record: TaskRecord, loaded: Mapping[str, Any] = _NOTHING) -> dict[str, Any]:
    """Show a task with the payload that its status calls for, as in `tasks/get`.

    Args:
        record: The task.
        loaded: The values that `beside` named, by its names.

    Spec: 2026-07-28 tasks, T-019, T-040 and T-070.
    """
    wire: dict[str, Any] = {"resultType": "complete", **_task(record)}
    status = record.status
    if status is TaskStatus.COMPLETED:
        # `update_status` may complete a task by its status alone: then there is nothing to show.
        wire["result"] = (
            dict(_EMPTY_RESULT) if record.result is None else _value(_RESULT, record.result, loaded)
        )
    elif status is TaskStatus.FAILED:
        if record.error is not None:
            wire["error"] = error(record.error)
    elif status is TaskStatus.INPUT_REQUIRED:
        wire["inputRequests"] = {
            question.key: {
                "method": question.method,
                "params": _value(_question(question.key), question.params, loaded),
            }
            for question in record.questions
        }
    if record.variables is not None:
        public = {
            name: value
            for name, value in _value(_VARIABLES, record.variables, loaded).items()
            if not name.startswith("_")
        }
        if public:
            wire["_meta"] = {VARIABLES: public}
    return wire


def beside(record: TaskRecord) -> dict[str, Payload]:
    """Name the payloads that `detailed_task` shows and that do not lie in the record itself."""
    wanted: dict[str, Payload] = {}
    if record.result is not None and record.result.blob is not None:
        wanted[_RESULT] = record.result
    if record.variables is not None and record.variables.blob is not None:
        wanted[_VARIABLES] = record.variables
    if record.status is TaskStatus.INPUT_REQUIRED:
        for question in record.questions:
            if question.params.blob is not None:
                wanted[_question(question.key)] = question.params
    return wanted


def status_message(record: TaskRecord) -> str | None:
    """Say what a person may be told of a task: its message, why it failed, or how far it is.

    Spec: 2026-07-28 tasks, T-082: a failed task says why.
    """
    if record.message is not None:
        return record.message
    if record.error is not None:
        return record.error.message
    if record.progress is not None and not record.is_terminal:
        return describe(record.progress)
    return None


def error(failure: Failure) -> dict[str, Any]:
    """Show the JSON-RPC error in which a task ended. Spec: 2026-07-28 tasks, T-083 and T-085."""
    wire: dict[str, Any] = {"code": failure.code, "message": failure.message}
    if isinstance(failure.data, Raw):
        wire["data"] = from_json(failure.data)
    return wire


def timestamp(moment: datetime) -> str:
    """Write a moment as ISO 8601 in UTC with milliseconds, such as `2026-07-28T09:30:00.250Z`."""
    return moment.isoformat(timespec="milliseconds")[:-6] + "Z"


def _task(record: TaskRecord) -> dict[str, Any]:
    created = timestamp(record.created_at)
    untouched = record.updated_at == record.created_at
    wire: dict[str, Any] = {
        "taskId": record.task_id,
        "status": record.status.value,
        "createdAt": created,
        "lastUpdatedAt": created if untouched else timestamp(record.updated_at),
        "ttlMs": record.ttl // _MILLISECOND,
        "pollIntervalMs": record.poll_interval // _MILLISECOND,
    }
    message = status_message(record)
    if message is not None:
        wire["statusMessage"] = message
    return wire


def _value(name: str, payload: Payload, loaded: Mapping[str, Any]) -> Any:
    raw = payload.inline
    return loaded[name] if raw is UNSET else from_json(raw)


def _question(key: str) -> str:
    return f"question {key}"

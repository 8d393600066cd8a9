"""The messages of the Tasks extension as the SDK's client sends and reads them.

Only shapes: requests that carry the task id into `Mcp-Name`, and results as they arrive. What an
app sees of a task is `TaskSnapshot`.

Spec: 2026-07-28 tasks, T-015, T-023, T-033 to T-040, T-073.
"""

from datetime import datetime
from typing import Any, Literal, Self

from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, ErrorData, Request, RequestParams, Result
from pydantic import Field, ModelWrapValidatorHandler, ValidationError, model_validator


Status = Literal["working", "input_required", "completed", "failed", "cancelled"]


class BadAnswerError(MCPError):
    """What the server answered has not the form that the extension gives it."""


class Answer(Result):
    """What a server answers. In any other form it is an error of the call, not one of pydantic."""

    @model_validator(mode="wrap")
    @classmethod
    def _read(cls, raw: object, read: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return read(raw)
        except ValidationError as error:
            raise BadAnswerError(
                INTERNAL_ERROR,
                "the server's answer about the task is not what the Tasks extension says "
                f"({first_problem(error)}); a mistake of the server",
            ) from error


def first_problem(error: ValidationError) -> str:
    """Say where and why a value was refused, without the value."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


class TaskFields(Answer):
    """What every message about a task carries."""

    task_id: str
    status: Status
    status_message: str | None = None
    created_at: datetime
    last_updated_at: datetime
    ttl_ms: int | None = None
    poll_interval_ms: int | None = None


class CreateTaskResult(TaskFields):
    """The answer to a `tools/call` that became a task."""

    result_type: Literal["task"] = "task"


class DetailedTask(TaskFields):
    """A task as `tasks/get` shows it: with the payload that its status calls for."""

    result: dict[str, Any] | None = None
    error: ErrorData | None = None
    input_requests: dict[str, dict[str, Any]] = Field(default_factory=dict[str, dict[str, Any]])


class Acknowledgement(Answer):
    """The answer to `tasks/update` and `tasks/cancel`: nothing but that it was taken."""


class TaskIdParams(RequestParams):
    """Names one task."""

    task_id: str


class UpdateTaskParams(TaskIdParams):
    """Answers for a task, under the keys of its outstanding requests."""

    input_responses: dict[str, Any]


class GetTaskRequest(Request[TaskIdParams, Literal["tasks/get"]]):
    """Reads a task."""

    method: Literal["tasks/get"] = "tasks/get"
    params: TaskIdParams
    name_param = "taskId"


class UpdateTaskRequest(Request[UpdateTaskParams, Literal["tasks/update"]]):
    """Answers questions of a task."""

    method: Literal["tasks/update"] = "tasks/update"
    params: UpdateTaskParams
    name_param = "taskId"


class CancelTaskRequest(Request[TaskIdParams, Literal["tasks/cancel"]]):
    """Asks for the end of a task."""

    method: Literal["tasks/cancel"] = "tasks/cancel"
    params: TaskIdParams
    name_param = "taskId"

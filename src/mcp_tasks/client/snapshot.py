"""What an app sees of a task: `TaskSnapshot`."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, cast

from mcp_tasks.client.wire import DetailedTask
from mcp_tasks.domain.status import TaskStatus
from mcp_tasks.protocol.v2026_07_28 import VARIABLES


if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from mcp_types import ErrorData

    from mcp_tasks.client.wire import TaskFields


_LONGEST: Final = timedelta(days=36_500)
"""What a longer duration is read as: a `timedelta`, and a date that it is added to, have an end."""


@dataclass(frozen=True, kw_only=True)
class TaskSnapshot:
    """A task at one moment, as the server showed it.

    Attributes:
        task_id: The task's id.
        status: Where it stands.
        message: What the server says about it, such as how far it is; for people.
        created_at: When it was created, aware.
        updated_at: When it last changed, aware.
        ttl: How long the server keeps it, counted from its creation; `None` for no limit. May
            change while the task lives.
        poll_interval: How long to wait between two polls; `None` where the server does not say.
        questions: What it waits for, by key: each a request with `method` and `params`. Empty
            unless the status is `input_required`.
        variables: The task's public variables (a server on mcp-tasks shows them).
        result: The result of the tool as JSON; `None` unless completed.
        error: The error that ended it; `None` unless failed.
    """

    task_id: str
    status: TaskStatus
    message: str | None
    created_at: datetime
    updated_at: datetime
    ttl: timedelta | None
    poll_interval: timedelta | None
    questions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Any])
    variables: Mapping[str, Any] = field(default_factory=dict[str, Any])
    result: Mapping[str, Any] | None = None
    error: ErrorData | None = None

    @property
    def is_terminal(self) -> bool:
        """True when the task has ended and nothing about it changes any more."""
        return self.status.is_terminal


def snapshot(task: TaskFields) -> TaskSnapshot:
    """Read a task off a message."""
    detailed = task if isinstance(task, DetailedTask) else None
    return TaskSnapshot(
        task_id=task.task_id,
        status=TaskStatus(task.status),
        message=task.status_message,
        created_at=task.created_at,
        updated_at=task.last_updated_at,
        ttl=_duration(task.ttl_ms),
        poll_interval=_duration(task.poll_interval_ms),
        questions=detailed.input_requests if detailed else {},
        variables=_variables(task.meta),
        result=detailed.result if detailed else None,
        error=detailed.error if detailed else None,
    )


def _variables(meta: Mapping[str, Any] | None) -> Mapping[str, Any]:
    found: Any = (meta or {}).get(VARIABLES)
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _duration(milliseconds: int | None) -> timedelta | None:
    if milliseconds is None:
        return None
    longest = _LONGEST // timedelta(milliseconds=1)
    return timedelta(milliseconds=max(0, min(milliseconds, longest)))

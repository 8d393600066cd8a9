"""Records to try transitions on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from mcp_tasks.domain.record import FORMAT, Call, Policy, Question, TaskRecord, inline
from mcp_tasks.domain.status import TaskStatus


if TYPE_CHECKING:
    from collections.abc import Callable


T0 = datetime(2026, 7, 28, 9, 30, tzinfo=UTC)


class MakeRecord(Protocol):
    """Makes a record from what matters to a test."""

    def __call__(self, status: TaskStatus = TaskStatus.WORKING, **changes: Any) -> TaskRecord:
        """Make it."""
        ...


@pytest.fixture
def t0() -> datetime:
    """When all records were created."""
    return T0


@pytest.fixture
def later() -> Callable[[float], datetime]:
    """Give the moment so many seconds after creation."""
    return lambda seconds: T0 + timedelta(seconds=seconds)


@pytest.fixture
def make() -> MakeRecord:
    """Give a maker of records: an hour to live, made at `t0`, a question if it waits for one."""

    def record(status: TaskStatus = TaskStatus.WORKING, **changes: Any) -> TaskRecord:
        fields: dict[str, Any] = {
            "format": FORMAT,
            "min_writer": FORMAT,
            "task_id": "0" * 36,
            "owner": "ada",
            "status": status,
            "created_at": T0,
            "updated_at": T0,
            "ttl": timedelta(hours=1),
            "poll_interval": timedelta(seconds=1),
            "call": Call("report", inline(b"{}")),
            "policy": Policy(),
        }
        if status is TaskStatus.INPUT_REQUIRED:
            fields["questions"] = (Question("q", "elicitation/create", inline(b"{}"), T0),)
            fields["asked"] = 1
        if status.is_terminal:
            fields["ended_at"] = T0
        return TaskRecord(**{**fields, **changes})

    return record

"""The five statuses of a task, and which may follow which."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

from mcp_tasks.errors import InvalidTransitionError, TaskTerminalError


if TYPE_CHECKING:
    from collections.abc import Mapping


class TaskStatus(StrEnum):
    """Where a task stands. Spec: 2026-07-28 tasks, T-015 and T-020."""

    WORKING = "working"
    INPUT_REQUIRED = "input_required"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """True for the three that nothing follows."""
        return self in TERMINAL


TERMINAL: Final = frozenset({TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED})

FOLLOWERS: Final[Mapping[TaskStatus, frozenset[TaskStatus]]] = {
    TaskStatus.WORKING: TERMINAL | {TaskStatus.INPUT_REQUIRED},
    TaskStatus.INPUT_REQUIRED: TERMINAL | {TaskStatus.WORKING},
    TaskStatus.COMPLETED: frozenset(),
    TaskStatus.FAILED: frozenset(),
    TaskStatus.CANCELLED: frozenset(),
}


def check_transition(current: TaskStatus, wanted: TaskStatus) -> None:
    """Raise unless `wanted` may follow `current`; a status does not follow itself.

    Raises:
        TaskTerminalError: `current` is terminal.
        InvalidTransitionError: The table does not have it.
    """
    if wanted in FOLLOWERS[current]:
        return
    if current in TERMINAL:
        raise TaskTerminalError(current, wanted)
    raise InvalidTransitionError(current, wanted)

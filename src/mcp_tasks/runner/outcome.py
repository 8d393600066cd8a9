"""What goes into a body and what comes out of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from msgspec import UNSET


if TYPE_CHECKING:
    from mcp_tasks.context import TaskContext
    from mcp_tasks.domain.record import TaskRecord


@dataclass(frozen=True, slots=True)
class Completed:
    """The request was carried out; an error of the tool's own is a result too.

    Attributes:
        result: As the request would have returned it, JSON.
    """

    result: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Failed:
    """The request ended in a JSON-RPC error."""

    code: int
    message: str
    data: Any = UNSET


@dataclass(frozen=True, slots=True)
class HandedOut:
    """The work goes on elsewhere; some other program finishes the task."""


Outcome = Completed | Failed | HandedOut


@dataclass(slots=True)
class TaskRun:
    """One run of a task's body: all that is needed to make the call, from the record alone.

    Attributes:
        record: As it was claimed.
        arguments: Of the call.
        input_responses: Answers that were given before the task existed.
        task: What the tool sees.
    """

    record: TaskRecord
    arguments: dict[str, Any]
    input_responses: dict[str, Any] | None
    task: TaskContext


Body = Callable[[TaskRun], Awaitable[Outcome]]
"""Carries out the call of one task. It may raise; the task then fails with an internal error."""

"""How a request and the tool that it calls find one another: the escalation pattern.

Whether a call becomes a task is decided by the tool's wrapper, the last thing that runs before the
tool itself. By then bad arguments were refused and all rounds of input were answered, on the call
and without a task (Spec: 2026-07-28 tasks, T-026). The wrapper knows from the slot what the call
may become, and raises `Escalation` up to the interceptor when it is to become a task.

A slot is used by the first wrapper that meets it. What a tool calls in turn is a part of that tool
and runs inline.
"""

from __future__ import annotations

from contextvars import ContextVar
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, ErrorData


if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio import CapacityLimiter
    from mcp.server.session import ServerSession

    from mcp_tasks.context import TaskContext
    from mcp_tasks.server.options import TaskTool


class Mode(Enum):
    """What the call that is under way may become."""

    OFFER = 1
    """A task: the client declared the extension."""
    REFUSE = 2
    """A plain call only: the client did not declare the extension."""
    RUN = 3
    """It is a task, and this is its run."""
    USED = 4
    """The tool was found; whatever is called now is a part of it."""


class Slot:
    """What the wrapper of a tool needs to know of the request.

    Attributes:
        tool: The name that was called. A wrapper that knows its own name ignores other calls.
        mode: What may come of it.
        session: The SDK's session of the request, by which it is told from others.
        task: With `RUN`, the context of the task.
        limiter: The threads for plain functions that run without a task.
        external: With `USED`, the tool only starts work, and some other program finishes the task.
        refuse: With `REFUSE`, raises the error for a tool that cannot do without a task.
    """

    __slots__ = ("external", "limiter", "mode", "refuse", "session", "task", "tool")

    def __init__(
        self,
        tool: str,
        mode: Mode,
        session: ServerSession,
        *,
        limiter: CapacityLimiter | None = None,
        task: TaskContext | None = None,
        refuse: Callable[[], None] | None = None,
    ) -> None:
        self.tool = tool
        self.mode = mode
        self.session = session
        self.limiter = limiter
        self.task = task
        self.external = False
        self.refuse = refuse


slot: ContextVar[Slot | None] = ContextVar("mcp_tasks_slot", default=None)


class Escalation(MCPError):  # noqa: N818 - nothing went wrong
    """Raised in place of a tool whose call is to become a task; the interceptor catches it.

    A subclass of `MCPError` because the SDK lets those through untouched.
    """

    # Should it ever leave the server, this is what a client would see. One object serves all, for
    # building it costs as much as the rest of the raise.
    _seen: ClassVar = ErrorData(
        code=INTERNAL_ERROR, message="a task was offered where none can be made"
    )

    def __init__(self, tool: TaskTool) -> None:
        Exception.__init__(self)
        self.error = self._seen
        self.tool = tool

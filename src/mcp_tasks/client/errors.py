"""What can go wrong between a client and its task, beyond the errors that the server itself names.

An error of the task or of the server arrives as the SDK's `MCPError`, with the server's code.
"""

from __future__ import annotations

from mcp_tasks.errors import MCPTasksError


class TaskCancelledError(MCPTasksError):
    """The task was cancelled, by this client or by somebody else. It has no result."""

    def __init__(self, task_id: str, message: str | None = None) -> None:
        super().__init__(task_id, message)
        self.task_id = task_id
        self.message = message

    def __str__(self) -> str:
        why = f": {self.message}" if self.message else ""
        return f"the task {self.task_id} was cancelled{why}"


class TaskUnreachableError(MCPTasksError):
    """The server gave no answer that helps for as long as the client was ready to wait.

    Internal errors of the server count as none, for its database may be away. The task may still
    run, or wait for its server to come back. `saved` finds it again:
    `TaskHandle.resume(client, error.saved)`.

    Attributes:
        saved: The task, as `TaskHandle.save` returns it.
        seconds: For how long the client tried.
        reason: The text of the last error; the error itself is the `__cause__`.
    """

    def __init__(self, saved: str, seconds: float, reason: str) -> None:
        super().__init__(saved, seconds, reason)
        self.saved = saved
        self.seconds = seconds
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"no good answer about the task for {self.seconds:.1f} s (the last error: "
            f"{self.reason}); it may still run. "
            f"Find it again with TaskHandle.resume(client, {self.saved!r})"
        )


class InvalidHandleError(MCPTasksError):
    """This text is no saved `TaskHandle`, or one of another server or of a newer release."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return f"cannot resume this task: {self.problem}"

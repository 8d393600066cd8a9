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
    """The server did not answer for as long as the client was ready to wait.

    The task may still run, or wait for its server to come back. `saved` finds it again:
    `TaskHandle.resume(client, error.saved)`.
    """

    def __init__(self, saved: str, seconds: float) -> None:
        super().__init__(saved, seconds)
        self.saved = saved
        self.seconds = seconds

    def __str__(self) -> str:
        return (
            f"no answer about the task for {self.seconds:.0f} s; it may still run. "
            f"Find it again with TaskHandle.resume(client, {self.saved!r})"
        )


class InvalidHandleError(MCPTasksError):
    """This text is no saved `TaskHandle`, or one of another server or of a newer release."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return f"cannot resume this task: {self.problem}"

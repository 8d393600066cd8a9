"""Requests about one task, sent again while the server is away.

Reading, answering and cancelling may all be repeated: a read changes nothing, the first answer
under a key counts, and a cancelled task is cancelled once. So what failed on the way is sent again,
with growing pauses, for a bounded time. What the server itself refuses is final.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, INTERNAL_ERROR, REQUEST_TIMEOUT

from mcp_tasks.client.wire import (
    Acknowledgement,
    BadAnswerError,
    CancelTaskRequest,
    DetailedTask,
    GetTaskRequest,
    TaskIdParams,
    UpdateTaskParams,
    UpdateTaskRequest,
)
from mcp_tasks.errors import TaskUnreachableError


if TYPE_CHECKING:
    from collections.abc import Mapping

    from mcp.client.session import ClientSession
    from mcp_types import Request, Result


ResultT = TypeVar("ResultT", bound="Result")

REQUEST_TIMEOUT_SECONDS: Final = 30.0
"""How long one request may take. A server holds a poll for a moment, never for long."""

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 2.0


class TaskLink:
    """The way to one task.

    Args:
        session: A session of the server that has it.
        task_id: Which.
        saved: The saved handle, for the error that says that the server is gone.
        retry_for: For how many seconds a request is sent again while the server does not answer;
            0 for never.
    """

    def __init__(
        self, session: ClientSession, task_id: str, *, saved: str, retry_for: float
    ) -> None:
        self.session = session
        self.task_id = task_id
        self._saved = saved
        self._retry_for = retry_for

    async def get(self) -> DetailedTask:
        """Read the task.

        Raises:
            MCPError: The server refused: the task is unknown to it, or gone. Or its answer has not
                the form of one.
            TaskUnreachableError: The server did not answer for too long.
        """
        return await self._send(
            GetTaskRequest(params=TaskIdParams(task_id=self.task_id)), DetailedTask
        )

    async def update(self, answers: Mapping[str, Any]) -> None:
        """Answer questions, under their keys. As `get` otherwise."""
        params = UpdateTaskParams(task_id=self.task_id, input_responses=dict(answers))
        await self._send(UpdateTaskRequest(params=params), Acknowledgement)

    async def cancel(self) -> None:
        """Ask for the end of the task. As `get` otherwise."""
        await self._send(
            CancelTaskRequest(params=TaskIdParams(task_id=self.task_id)), Acknowledgement
        )

    async def _send(self, request: Request[Any, Any], result_type: type[ResultT]) -> ResultT:
        pause = _FIRST_PAUSE
        since: float | None = None
        while True:
            try:
                return await self.session.send_request(
                    request, result_type, request_read_timeout_seconds=REQUEST_TIMEOUT_SECONDS
                )
            except MCPError as error:
                if not _is_passing(error):
                    raise
                now = anyio.current_time()
                since = now if since is None else since
                if _is_closed(error) or now + pause > since + self._retry_for:
                    raise TaskUnreachableError(self._saved, now - since, error.message) from error
            await anyio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter is no secret
            pause = min(pause * 2, _LONGEST_PAUSE)


def _is_passing(error: MCPError) -> bool:
    """Tell a server that could not answer from one that did.

    An internal error counts as the former: the task's database may be away for a moment, and a
    proxy's error page looks the same. An answer that has not the form of one does not.
    """
    passing = {CONNECTION_CLOSED, REQUEST_TIMEOUT, INTERNAL_ERROR}
    return error.code in passing and not isinstance(error, BadAnswerError)


def _is_closed(error: MCPError) -> bool:
    """Tell whether the session itself is over, so that trying again is of no use."""
    # The SDK has no other sign for it; both its dispatchers say exactly this once they are closed.
    return error.code == CONNECTION_CLOSED and error.message == "Connection closed"

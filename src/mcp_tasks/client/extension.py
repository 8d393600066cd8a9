"""`TasksClient`: what a client adds to the SDK's `Client` so that tools may answer with tasks."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, cast

import anyio
from mcp.client.extension import ClientExtension, ResultClaim

from mcp_tasks.client.handle import RETRY_FOR, TaskHandle
from mcp_tasks.client.snapshot import snapshot
from mcp_tasks.client.wire import CreateTaskResult
from mcp_tasks.errors import TaskUnreachableError
from mcp_tasks.protocol.v2026_07_28 import EXTENSION, IDEMPOTENCY_KEY, PROTOCOL_VERSION


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from mcp.client import Client
    from mcp.client.extension import ClaimContext
    from mcp_types import CallToolResult, RequestParamsMeta

    from mcp_tasks.client.snapshot import TaskSnapshot


logger = logging.getLogger(__name__)

_CANCEL_PATIENCE: Final = 5.0
"""How long an abandoned call tries to tell the server, in seconds."""


class TasksClient(ClientExtension):
    """Lets the server answer a tool call with a task, and follows it to its result.

    `client.call_tool` then returns the final result, however long that takes: it polls as the
    server asks, and questions of the task go to the client's elicitation, sampling and roots
    callbacks. Abandoning the call (its scope is cancelled, a callback raises) cancels the task.
    `start` gives the task into your own hands instead.

    Args:
        on_status: Told of every change that is seen, in order, first of the new task. May be a
            coroutine function; its exceptions are logged and go no further.
        retry_for: For how many seconds a server that does not answer is tried again, before
            `TaskUnreachableError`. To live through a restart of an HTTP server, connect with
            `reconnecting_http`: the SDK's own transport ends with the first refused connection.

    Example:
        ```python
        tasks = TasksClient(on_status=lambda task: print(task.status, task.message))
        async with Client(reconnecting_http(url), extensions=[tasks]) as client:
            result = await client.call_tool("build_report", {"folder": "/data"})
        ```

    Spec: 2026-07-28 tasks, T-001, T-003, T-007, T-014.
    """

    identifier = EXTENSION

    def __init__(
        self,
        *,
        on_status: Callable[[TaskSnapshot], Awaitable[None] | None] | None = None,
        retry_for: float = RETRY_FOR,
    ) -> None:
        self._on_status = on_status
        self._retry_for = retry_for

    def claims(self) -> Sequence[ResultClaim[Any]]:
        """Claim `resultType: "task"` on `tools/call` (the SDK asks)."""
        return [
            ResultClaim(
                result_type="task",
                model=CreateTaskResult,
                resolve=self._resolve,
                protocol_versions=frozenset({PROTOCOL_VERSION}),
            )
        ]

    async def call_tool(
        self,
        client: Client,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
        meta: RequestParamsMeta | None = None,
    ) -> CallToolResult:
        """As `client.call_tool`, for a call that may have to be made again.

        Give each call a key of its own, such as a random UUID, and keep it until you have the
        result. If the call fails on the way, or this process with it, make it again with the same
        key and arguments: you then follow the task that the first one created, if it did. That is
        so whatever became of that task; a key is free again when the task is past its time to live.

        A tool that answers without a task knows no keys, and neither does a server that does not
        use this library.

        Args:
            client: A connected client with this extension among its `extensions`.
            name: The tool.
            arguments: Its arguments.
            idempotency_key: 1 to 255 visible ASCII characters; for a server without authentication
                32 or more, which nobody can guess. `None` makes it an ordinary call.
            meta: As for `Client.call_tool`.

        Raises:
            MCPError: As `Client.call_tool`; -32602 for a key that was used with other arguments.
        """
        given = None if arguments is None else dict(arguments)
        return await client.call_tool(name, given, meta=_with_key(meta, idempotency_key))

    async def start(
        self,
        client: Client,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
        meta: RequestParamsMeta | None = None,
    ) -> TaskHandle:
        """Call a tool and return as soon as it has answered or become a task.

        Questions that the server asks before it creates the task go to the client's callbacks.

        Args:
            client: A connected client with this extension among its `extensions`.
            name: The tool.
            arguments: Its arguments.
            idempotency_key: As for `call_tool`.
            meta: As for `Client.call_tool`.

        Returns:
            The task, or a handle that is already done when the tool answered without one.

        Raises:
            MCPError: The server refused the call. There is no task.
        """
        token = _starting.set(self)
        try:
            given = None if arguments is None else dict(arguments)
            result = await client.call_tool(name, given, meta=_with_key(meta, idempotency_key))
        except _StartedError as started:
            return started.handle
        finally:
            _starting.reset(token)
        return TaskHandle.finished(client.session, name, result)

    async def _resolve(self, created: CreateTaskResult, context: ClaimContext) -> CallToolResult:
        handle = TaskHandle(
            context.session,
            created.task_id,
            tool=context.tool_name,
            last=snapshot(created),
            on_status=self._on_status,
            retry_for=self._retry_for,
        )
        starting = _starting.get() is self
        try:
            await handle.announce()
            if not starting:
                return await handle.follow()
        except TaskUnreachableError:
            raise  # the task may still run, and its handle is in the error
        except BaseException:
            if not handle.is_done:
                await _abandon(handle)
            raise
        raise _StartedError(handle)


def _with_key(meta: RequestParamsMeta | None, key: str | None) -> RequestParamsMeta | None:
    if key is None:
        return meta
    return cast("RequestParamsMeta", {**(meta or {}), IDEMPOTENCY_KEY: key})


class _StartedError(Exception):
    """Carries a handle out of `Client.call_tool`, which passes a resolver's exceptions on."""

    def __init__(self, handle: TaskHandle) -> None:
        super().__init__(handle)
        self.handle = handle


_starting: ContextVar[TasksClient | None] = ContextVar("mcp_tasks_starting", default=None)
"""Whose `start` the current call belongs to."""


async def _abandon(handle: TaskHandle) -> None:
    """Tell the server that nobody waits for the task any more, if it can be told in time.

    Spec: 2026-07-28 tasks, T-059: not by `notifications/cancelled`.
    """
    with anyio.move_on_after(_CANCEL_PATIENCE, shield=True):
        try:
            await handle.cancel()
        except Exception:  # what ended the call matters more
            logger.debug("could not cancel the task %s", handle.task_id, exc_info=True)

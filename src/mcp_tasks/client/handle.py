"""`TaskHandle`: one task in the app's own hands, to poll, answer, cancel, keep and find again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import parse_qs, quote, unquote, urlencode

import anyio
from mcp.client import Client
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, CallToolResult
from pydantic import BaseModel, ValidationError

from mcp_tasks.client.driver import Driver
from mcp_tasks.client.link import TaskLink
from mcp_tasks.client.snapshot import TaskSnapshot
from mcp_tasks.client.wire import first_problem
from mcp_tasks.clock import SystemClock
from mcp_tasks.domain.status import TaskStatus
from mcp_tasks.errors import InvalidHandleError, TaskCancelledError


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from mcp.client.session import ClientSession


RETRY_FOR: Final = 60.0
"""For how many seconds a client waits for a server that does not answer, unless told otherwise."""

_PREFIX: Final = "mcp-task:"
_VERSION: Final = "1"


class TaskHandle:
    """One task. Made by `TasksClient.start`, or from a saved one by `TaskHandle.resume`.

    Leaving a handle alone, or being cancelled while waiting on it, leaves the task alone too; only
    `cancel` ends it. Of several calls of `result` at once, one follows the task for all.

    Attributes:
        task_id: The task's id; empty when the tool answered without a task.
        tool: The tool that was called, where that is known.
    """

    def __init__(
        self,
        session: ClientSession,
        task_id: str,
        *,
        tool: str = "",
        last: TaskSnapshot | None = None,
        on_status: Callable[[TaskSnapshot], Awaitable[None] | None] | None = None,
        retry_for: float = RETRY_FOR,
    ) -> None:
        self.task_id = task_id
        self.tool = tool
        self._session = session
        self._following = anyio.Lock()
        self._result: CallToolResult | None = None
        saved = self.save() if task_id else ""
        link = TaskLink(session, task_id, saved=saved, retry_for=retry_for)
        self._driver = Driver(link, on_status, last)

    @classmethod
    def finished(cls, session: ClientSession, tool: str, result: CallToolResult) -> Self:
        """Make the handle of a call that was answered at once, without a task."""
        now = SystemClock().now()
        last = TaskSnapshot(
            task_id="",
            status=TaskStatus.COMPLETED,
            message=None,
            created_at=now,
            updated_at=now,
            ttl=None,
            poll_interval=None,
            result=result.model_dump(by_alias=True, mode="json", exclude_none=True),
        )
        handle = cls(session, "", tool=tool, last=last)
        handle._result = result
        return handle

    @classmethod
    def resume(
        cls,
        client: Client | ClientSession,
        saved: str,
        *,
        on_status: Callable[[TaskSnapshot], Awaitable[None] | None] | None = None,
        retry_for: float = RETRY_FOR,
    ) -> Self:
        """Take up a task from the text that `save` made, in any process. Sends nothing yet.

        Args:
            client: A connected client with a `TasksClient` among its extensions.
            saved: What `save` returned.
            on_status: Told of every change that is seen.
            retry_for: For how many seconds to wait for a server that does not answer.

        Raises:
            InvalidHandleError: The text is damaged or of a newer release, or the client talks to
                another server than the one that has the task.
        """
        task_id, hints = _parse(saved)
        session = client.session if isinstance(client, Client) else client
        here = _server_name(session)
        if hints["server"] and here and hints["server"] != here:
            raise InvalidHandleError(
                f"it belongs to the server {hints['server']!r}, this client talks to {here!r}"
            )
        return cls(session, task_id, tool=hints["tool"], on_status=on_status, retry_for=retry_for)

    def __repr__(self) -> str:
        status = self._driver.last.status.value if self._driver.last else "not polled yet"
        return f"<TaskHandle {self.task_id or 'without a task'} ({status})>"

    def __str__(self) -> str:
        return self.save()

    @property
    def is_done(self) -> bool:
        """True when this handle has seen the end of the task."""
        return self._driver.last is not None and self._driver.last.is_terminal

    def save(self) -> str:
        """Return a short text from which `resume` finds the task again, in another process too.

        It holds the task's id and the names of server and tool, no credentials. For a server
        without authentication the id alone gives access to the task: keep it as you would a key.

        Raises:
            InvalidHandleError: The tool answered without a task; there is nothing to find.
        """
        if not self.task_id:
            raise InvalidHandleError("the tool answered without a task; its result is here already")
        named = {"server": _server_name(self._session), "tool": self.tool}
        hints = urlencode({name: value for name, value in named.items() if value})
        name = f"{_PREFIX}{_VERSION}:{quote(self.task_id, safe='')}"
        return f"{name}?{hints}" if hints else name

    async def announce(self) -> None:
        """Tell `on_status` what is known before the first poll."""
        await self._driver.announce()

    async def poll(self) -> TaskSnapshot:
        """Read the task once.

        Raises:
            MCPError: The server does not know the task, or it is gone, or the answer is none that
                the Tasks extension has.
            TaskUnreachableError: The server did not answer for too long.
        """
        return await self._driver.poll()

    async def wait(self) -> TaskSnapshot:
        """Poll until there is something to do: the task has ended, or asks what nobody answered.

        For apps that answer by themselves with `answer`; no callback is called.

        Raises:
            MCPError: As `poll`.
            TaskUnreachableError: As `poll`.
        """
        while True:
            seen = await self._driver.poll()
            if seen.is_terminal or self._driver.open_questions(seen):
                return seen
            await self._driver.pause(seen)

    async def result(self) -> CallToolResult:
        """Follow the task to its end and return what the tool returned.

        Its questions go to the client's own callbacks, each once, several at the same time. Safe
        to call again, also after an error of a callback or of the connection.

        Raises:
            MCPError: The task failed, the server does not know it, a question found nobody to
                answer it, or what the server answers is no task or no result of one.
            TaskCancelledError: The task was cancelled.
            TaskUnreachableError: The server did not answer for too long. The task may still run.
        """
        result = await self.follow()
        if self.tool and self.task_id and not result.is_error:
            await self._session.validate_tool_result(self.tool, result)
        return result

    async def follow(self) -> CallToolResult:
        """As `result`, without checking it against the tool's output schema."""
        async with self._following:
            if self._result is None:
                self._result = _outcome(await self._driver.finish())
            return self._result

    async def answer(self, answers: Mapping[str, BaseModel | Mapping[str, Any]]) -> None:
        """Answer some or all of the task's questions.

        The first answer under a key counts. Sending the same again changes nothing.

        Args:
            answers: By key of the question; SDK results such as `ElicitResult`, or their JSON.

        Raises:
            MCPError: The server refused. Nothing was answered.
            TaskUnreachableError: The server did not answer. Whether it took them is not known.
        """
        if self.task_id:
            await self._driver.answer({key: _plain(answer) for key, answer in answers.items()})

    async def cancel(self) -> None:
        """Ask the server to end the task. Safe to call twice, and after its end.

        Returns once the server has taken the wish; the work may go on for a moment, and may still
        be faster and complete. Spec: 2026-07-28 tasks, T-060 to T-063.

        Raises:
            MCPError: The server does not know the task.
            TaskUnreachableError: The server did not answer.
        """
        if self.task_id:
            await self._driver.cancel()


def _outcome(final: TaskSnapshot) -> CallToolResult:
    if final.status is TaskStatus.COMPLETED:
        return tool_result(final.result or {})
    if final.status is TaskStatus.CANCELLED:
        raise TaskCancelledError(final.task_id, final.message)
    if final.error is None:
        raise MCPError(
            INTERNAL_ERROR, final.message or "the task failed, the server does not say why"
        )
    raise MCPError.from_error_data(final.error)


def tool_result(result: Mapping[str, Any]) -> CallToolResult:
    """Read what a completed task has for a result. Servers of others may keep anything there.

    Raises:
        MCPError: It is no result of a tool.
    """
    problem = f"resultType is {result.get('resultType')!r}"
    try:
        read = CallToolResult.model_validate(result, by_name=False)
    except ValidationError as error:
        problem = first_problem(error)
    else:
        if read.result_type == "complete":
            return read
    raise MCPError(
        INTERNAL_ERROR,
        f"the task is completed, but its result is not the result of a tool ({problem}); a mistake "
        "of the server",
    )


def _plain(answer: BaseModel | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(answer, BaseModel):
        return answer.model_dump(by_alias=True, mode="json", exclude_none=True)
    return dict(answer)


def _server_name(session: ClientSession) -> str:
    return session.server_info.name if session.server_info is not None else ""


def _parse(saved: str) -> tuple[str, dict[str, str]]:
    rest = saved.strip()
    if not rest.startswith(_PREFIX):
        raise InvalidHandleError("this is not a saved task")
    version, colon, rest = rest.removeprefix(_PREFIX).partition(":")
    if version != _VERSION or not colon:
        raise InvalidHandleError(
            f"it was saved in form {version!r}, this release reads {_VERSION!r}"
        )
    task_id, _, query = rest.partition("?")
    if not task_id:
        raise InvalidHandleError("it names no task")
    hints = {name: values[0] for name, values in parse_qs(query).items()}
    return unquote(task_id), {"server": hints.get("server", ""), "tool": hints.get("tool", "")}

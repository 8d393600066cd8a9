"""How a task runs its tool: the one path, for the first run and for every later one.

The request is made again from the task's record alone, with the seams that the SDK offers, and goes
to the handler that serves `tools/call`. Nothing of the connection that brought the request is left:
what the tool asks the client becomes a question of the task, what it reports becomes its status,
and other messages to the client are dropped.
"""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any, Final, cast

import anyio
from mcp.server.connection import Connection
from mcp.server.context import ServerRequestContext
from mcp.server.session import ServerSession
from mcp.shared.exceptions import MCPError
from mcp.shared.transport_context import TransportContext
from mcp_types import (
    INTERNAL_ERROR,
    CallToolRequestParams,
    CallToolResult,
    ClientCapabilities,
    Implementation,
    InputRequiredResult,
)
from msgspec import UNSET, Raw
from pydantic import BaseModel, ValidationError

from mcp_tasks.errors import InvalidValueError, TaskError
from mcp_tasks.jsonio import from_json, to_json
from mcp_tasks.protocol.v2026_07_28 import PROTOCOL_VERSION
from mcp_tasks.runner import Completed, Failed, HandedOut
from mcp_tasks.server.refusals import protocol_error
from mcp_tasks.server.slots import Mode, Slot, slot


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from anyio import CapacityLimiter
    from mcp.server.context import HandlerResult
    from mcp.shared.dispatcher import CallOptions
    from msgspec import UnsetType

    from mcp_tasks.context import TaskContext
    from mcp_tasks.domain.record import Call
    from mcp_tasks.runner import Outcome, TaskRun

    CallHandler = Callable[
        [ServerRequestContext[Any, Any], CallToolRequestParams], Awaitable[HandlerResult]
    ]


_TRANSPORT: Final = TransportContext(kind="task", can_send_request=True)
_METHOD: Final = "tools/call"

_WIDEST: Final = 6
"""The most bytes that JSON takes for one character."""


class TaskDispatch:
    """The channel of a request that is a task: both of the SDK's outbound protocols."""

    __slots__ = (
        "_cancel_requested",
        "_task",
        "can_send_request",
        "message_metadata",
        "request_id",
        "transport",
    )

    def __init__(self, task: TaskContext) -> None:
        self._task = task
        self._cancel_requested: anyio.Event | None = None
        self.transport = _TRANSPORT
        self.request_id = task.task_id
        self.message_metadata = None
        self.can_send_request = True

    @property
    def cancel_requested(self) -> anyio.Event:
        """Never set: a cancelled task is cancelled as its asyncio task."""
        if self._cancel_requested is None:
            self._cancel_requested = anyio.Event()
        return self._cancel_requested

    async def send_raw_request(
        self,
        method: str,
        params: Mapping[str, Any] | None,
        opts: CallOptions | None = None,  # noqa: ARG002 - a task waits as long as it lives
    ) -> dict[str, Any]:
        """Ask the client through the task, and wait for the answer as long as it takes.

        Raises:
            MCPError: The client cannot be asked that.
        """
        try:
            return await self._task.request(method, params or {})
        except TaskError as error:
            raise protocol_error(error) from error

    async def notify(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> None:
        """Drop it: nobody listens. Spec: 2026-07-28 tasks, T-072."""

    async def progress(
        self, progress: float, total: float | None = None, message: str | None = None
    ) -> None:
        """Show it as the status of the task."""
        await self._task.progress(progress, total, message)


class Execution:
    """Runs tools for tasks, on one server and with one entry of its lifespan.

    Args:
        handler: What serves `tools/call` on that server.
        lifespan_context: What the lifespan yielded to the runner.
        limiter: Gives the runner's threads.
        max_result_bytes: What a result may have as JSON.
    """

    def __init__(
        self,
        handler: CallHandler,
        lifespan_context: object,
        *,
        limiter: Callable[[], CapacityLimiter],
        max_result_bytes: int,
    ) -> None:
        self._handler = handler
        self._lifespan_context = lifespan_context
        self._limiter = limiter
        self._max_result_bytes = max_result_bytes

    async def __call__(self, run: TaskRun) -> Outcome:
        """Run the tool to its end.

        Raises:
            Exception: What a handler of a low-level server raised; an `MCPServer` makes results
                of those.
        """
        call = run.record.call
        context = self._request_context(run, call)
        params = _params(call.tool, run.arguments, run.input_responses, call.request_state)
        try:
            while True:
                current = Slot(
                    call.tool, Mode.RUN, context.session, limiter=self._limiter(), task=run.task
                )
                slot.set(current)
                result = await self._handler(context, params)
                required = _input_required(result)
                if required is None:
                    wire = _wire(result)
                    _check_size(wire, self._max_result_bytes)
                    # An error of the tool is a result: the work was not started.
                    is_started = current.external and not wire.get("isError")
                    return HandedOut() if is_started else Completed(wire)
                params = await _next_params(run, params, required)
        except MCPError as error:
            data = error.data
            return Failed(error.code, error.message, UNSET if data is None else data)

    def _request_context(self, run: TaskRun, call: Call) -> ServerRequestContext[Any, Any]:
        dispatch = TaskDispatch(run.task)
        version = call.protocol_version or PROTOCOL_VERSION
        connection = Connection.from_envelope(
            version,
            _model(Implementation, call.client_info),
            _model(ClientCapabilities, call.client_capabilities),
            outbound=dispatch,
        )
        return ServerRequestContext(
            session=ServerSession(dispatch, connection),
            lifespan_context=self._lifespan_context,
            protocol_version=version,
            method=_METHOD,
            params={"name": call.tool, "arguments": run.arguments},
            request_id=run.record.task_id,
        )


@functools.lru_cache(maxsize=256)
def _parsed(model: type[BaseModel], data: bytes) -> BaseModel | None:
    """Read what a client declared about itself; the clients of a server are few."""
    try:
        return model.model_validate(from_json(data), by_name=False)
    except ValidationError:
        return None


def _model(model: type[BaseModel], raw: Raw | UnsetType) -> BaseModel | None:
    return _parsed(model, bytes(raw)) if isinstance(raw, Raw) else None


def _params(
    tool: str, arguments: dict[str, Any], responses: dict[str, Any] | None, state: str | None
) -> CallToolRequestParams:
    """Make the parameters of a round; answers become the models of their methods."""
    wire: dict[str, Any] = {"name": tool, "arguments": arguments}
    if responses is not None:
        wire["inputResponses"] = responses
    if state is not None:
        wire["requestState"] = state
    return CallToolRequestParams.model_validate(wire, by_name=False)


def _input_required(result: HandlerResult) -> InputRequiredResult | None:
    """Return what a round of input asks for, or `None` for a result.

    Raises:
        MCPError: It says that it asks, and does not say what.
    """
    if isinstance(result, InputRequiredResult):
        return result
    if isinstance(result, dict) and result.get("resultType") == "input_required":
        try:
            return InputRequiredResult.model_validate(result, by_name=False)
        except ValidationError as error:
            raise _no_result(_problem(error)) from error
    return None


async def _next_params(
    run: TaskRun, params: CallToolRequestParams, required: InputRequiredResult
) -> CallToolRequestParams:
    """Ask everything that a round of input asks for, at once, and make the next round.

    Keys of the tool are its own and may come again in the next round, so the questions get keys of
    the task. Spec: 2026-07-28 tasks, T-027 and T-048 to T-050.
    """
    requests = required.input_requests or {}
    answers: dict[str, Any] = {}
    if not requests:
        # "Call me again": a tool may hand itself its own state. Not at once, or it would spin.
        await anyio.sleep(run.record.poll_interval.total_seconds())

    failures: list[MCPError] = []

    async def ask(key: str, method: str, asked: dict[str, Any]) -> None:
        try:
            answers[key] = await run.task.request(method, asked)
        except TaskError as error:
            failures.append(protocol_error(error))
            group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        for key, request in requests.items():
            wire = request.model_dump(by_alias=True, mode="json", exclude_none=True)
            asked: dict[str, Any] = wire.get("params") or {}
            group.start_soon(ask, key, request.method, asked)
    if failures:
        raise failures[0]
    return _params(params.name, run.arguments, answers, required.request_state)


def _check_size(wire: Mapping[str, Any], limit: int) -> None:
    """Say why a result is too large that seems to be half of it; any other is checked later.

    Raises:
        MCPError: It is too large, and holds the tool's value twice.
    """
    if "structuredContent" not in wire:
        return
    texts = (block.get("text") for block in wire["content"])
    if 2 * _WIDEST * sum(len(text) for text in texts if isinstance(text, str)) <= limit:
        return
    try:
        size = len(to_json(wire, what="the tool's result", max_bytes=sys.maxsize))
    except InvalidValueError:
        return
    if size > limit:
        problem = (
            f"{size} bytes of JSON, {limit} are allowed (what the tool returned is in it twice, as "
            "text and in structured form; structured_output=False leaves only the text)"
        )
        raise MCPError(INTERNAL_ERROR, str(InvalidValueError("the tool's result", problem)))


def _wire(result: object) -> dict[str, Any]:
    """Make the JSON of a result. Spec: 2026-07-28 tasks, T-086.

    Raises:
        MCPError: It is no result of a tool; a handler of a low-level server may return anything.
    """
    if isinstance(result, BaseModel):
        wire = result.model_dump(by_alias=True, mode="json", exclude_none=True)
        if isinstance(result, CallToolResult):
            return wire
    elif isinstance(result, dict):
        wire = {"resultType": "complete", **cast("dict[str, Any]", result)}
    else:
        raise _no_result(f"a value of type {type(result).__name__}")
    try:
        read = CallToolResult.model_validate(wire, by_name=False)
    except ValidationError as error:
        raise _no_result(_problem(error)) from error
    if read.result_type != "complete":
        raise _no_result(f"resultType is {read.result_type!r}")
    return wire


def _no_result(problem: str) -> MCPError:
    return MCPError(
        INTERNAL_ERROR, f"the handler of the tool returned no CallToolResult: {problem}"
    )


def _problem(error: ValidationError) -> str:
    """Say what is wrong first, and where, without the value."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"

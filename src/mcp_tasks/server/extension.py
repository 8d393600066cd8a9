"""The Tasks extension of 2026-07-28 as the SDK's `Extension`: three methods and one interceptor.

Every refusal comes before the look-up, and a task that is foreign, gone, or never was is refused in
the same bytes. A task id may be all that stands between a caller and a task, so none is logged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from mcp.server.extension import Extension, MethodBinding
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import MCP_NAME_HEADER, decode_header_value
from mcp_types import (
    CLIENT_CAPABILITIES_META_KEY,
    CLIENT_INFO_META_KEY,
    HEADER_MISMATCH,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    RequestParams,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from msgspec import UNSET, Raw

from mcp_tasks.domain.record import Call
from mcp_tasks.errors import InvalidValueError, RecordFormatError, TaskError, TaskNotFoundError
from mcp_tasks.jsonio import to_json
from mcp_tasks.protocol import v2026_07_28 as wire
from mcp_tasks.server.answers import check_answers
from mcp_tasks.server.owners import current_principal, owner_of
from mcp_tasks.server.refusals import missing_extension, protocol_error
from mcp_tasks.server.slots import Escalation, Mode, Slot, slot
from mcp_tasks.store.writing import shielded


if TYPE_CHECKING:
    from collections.abc import Sequence

    from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
    from mcp_types import CallToolRequestParams
    from msgspec import UnsetType

    from mcp_tasks.domain.record import TaskRecord
    from mcp_tasks.server.hosts import Host, Hosts
    from mcp_tasks.server.options import TaskTool
    from mcp_tasks.server.owners import OwnerOf

    Context = ServerRequestContext[Any, Any]


T = TypeVar("T")

_MODERN: Final = frozenset(MODERN_PROTOCOL_VERSIONS)
_MAX_DECLARED_BYTES: Final = 4 * 1024
"""What a client declares lies in its task's record, of which every poll reads all."""

_MAX_TRACEPARENT: Final = 128


class TaskParams(RequestParams):
    """Parameters of `tasks/get` and `tasks/cancel`.

    Typed loosely, so that an id of a wrong type is an unknown id like any other.
    """

    task_id: Any = None


class UpdateParams(TaskParams):
    """Parameters of `tasks/update`. What lies under a key that is not asked for is ignored.

    Typed loosely, so that a client without the extension is refused for that, and not for this.
    """

    input_responses: Any = None


class TasksExtension(Extension):
    """Serves tasks to clients that declare the extension.

    Args:
        hosts: Store and runner, on the loop that a request comes in on.
        owner_of: Names owners; `None` from it leaves the rule of this library in place.
    """

    identifier = wire.EXTENSION

    def __init__(self, hosts: Hosts, owner_of: OwnerOf | None) -> None:
        self._hosts = hosts
        self._owner_of = owner_of

    def methods(self) -> Sequence[MethodBinding]:
        """Bind the methods, for the protocol versions that have the extension."""
        return (
            MethodBinding("tasks/get", TaskParams, self._get, _MODERN),
            MethodBinding("tasks/update", UpdateParams, self._update, _MODERN),
            MethodBinding("tasks/cancel", TaskParams, self._cancel, _MODERN),
        )

    # --- tools/call ------------------------------------------------------------------------------

    async def intercept_tool_call(
        self, params: CallToolRequestParams, ctx: Context, call_next: CallNext
    ) -> HandlerResult:
        """Let the call run up to its tool, and make a task of it if the tool's wrapper says so.

        Bad arguments, rounds of input and plain tools end here without a task.
        """
        current = slot.get()
        if current is not None and current.session is ctx.session:
            return await call_next(ctx)  # the call that a task itself makes
        key: str | None = None
        if is_declared(ctx):
            key = _meta(ctx).get(wire.IDEMPOTENCY_KEY)
            if key is not None and (found := await self._find(key, params, ctx)) is not None:
                return wire.create_result(found)  # nobody is asked again what the first call asked
            token = slot.set(Slot(params.name, Mode.OFFER, ctx.session))
        else:
            host = self._hosts.find()
            limiter = None if host is None else host.runner.limiter
            plain = Slot(
                params.name,
                Mode.REFUSE,
                ctx.session,
                limiter=limiter,
                refuse=lambda: refuse(ctx),
            )
            token = slot.set(plain)
        try:
            return await call_next(ctx)
        except Escalation as escalation:
            tool = escalation.tool
        finally:
            slot.reset(token)
        return await self._create(tool, params, ctx, key)

    async def _find(
        self, key: str, params: CallToolRequestParams, ctx: Context
    ) -> TaskRecord | None:
        """Return the task of an earlier call with this idempotency key."""
        host = self._host(ctx)
        try:
            arguments = host.store.encode(params.arguments or {}, what="arguments")
            owner = self._owner(ctx, host)
            return await shielded(host.store.find_once(owner, params.name, key, arguments))
        except TaskError as error:
            raise protocol_error(error) from error

    async def _create(
        self, tool: TaskTool, params: CallToolRequestParams, ctx: Context, key: str | None
    ) -> dict[str, Any]:
        """Create the task durably, and answer with it.

        Spec: 2026-07-28 tasks, T-024 (durable before the answer).
        """
        host = self._host(ctx)
        try:
            call = _call(host, params, ctx)
            create = host.runner.create(
                self._owner(ctx, host),
                call,
                policy=tool.policy,
                ttl=tool.ttl,
                poll_interval=tool.poll_interval,
                idempotency_key=key,
            )
            return wire.create_result(await create)
        except TaskError as error:
            raise protocol_error(error) from error

    # --- tasks/* ---------------------------------------------------------------------------------

    async def _get(self, ctx: Context, params: TaskParams) -> dict[str, Any]:
        """Show a task. One read of the store. Spec: 2026-07-28 tasks, T-033 to T-041."""
        host, owner, task_id = self._admit(ctx, params)
        try:
            record = await host.runner.get(owner, task_id)
            while True:
                try:
                    return await _show(host, record)
                except RecordFormatError:
                    # What lies beside a record goes with its next write: is there a newer one?
                    newer = await host.store.get(owner, task_id)
                    if newer == record:
                        raise
                    record = newer
        except TaskError as error:
            raise protocol_error(error) from error

    async def _update(self, ctx: Context, params: UpdateParams) -> dict[str, Any]:
        """Take answers, durably before they are acknowledged.

        Spec: 2026-07-28 tasks, T-052, T-056 and T-079.
        """
        host, owner, task_id = self._admit(ctx, params)
        responses = params.input_responses
        if not isinstance(responses, dict):
            raise MCPError(
                INVALID_PARAMS,
                "params.inputResponses is missing or is no object; nothing was answered",
            )
        try:
            record = await host.store.get(owner, task_id)
            answers = check_answers(record, cast("dict[str, Any]", responses))
            if answers:
                await shielded(host.store.answer(owner, task_id, answers, by=_by()))
        except TaskError as error:
            raise protocol_error(error) from error
        return {}

    async def _cancel(self, ctx: Context, params: TaskParams) -> dict[str, Any]:
        """Ask for the end of a task; one that has ended is left as it is.

        Spec: 2026-07-28 tasks, T-060 to T-063.
        """
        host, owner, task_id = self._admit(ctx, params)
        try:
            await shielded(host.store.cancel(owner, task_id, by=_by()))
        except TaskError as error:
            raise protocol_error(error) from error
        return {}

    def _admit(self, ctx: Context, params: TaskParams) -> tuple[Host, str, str]:
        """Refuse what needs no look-up, and say where to look.

        Spec: 2026-07-28 tasks, T-073, T-076, T-077 and T-079; core, C-001 and C-002.
        """
        if not is_declared(ctx):
            raise missing_extension()
        task_id = params.task_id
        request = ctx.request
        if request is not None:
            name = request.headers.get(MCP_NAME_HEADER)
            if name is None or decode_header_value(name.strip(" \t")) != task_id:
                raise MCPError(
                    HEADER_MISMATCH, "the Mcp-Name header is missing or is not params.taskId"
                )
        if not isinstance(task_id, str):
            raise protocol_error(TaskNotFoundError())
        host = self._host(ctx)
        return host, self._owner(ctx, host), task_id

    def _host(self, ctx: Context) -> Host:
        host = self._hosts.current()
        if ctx.request is not None:
            host.is_http = True
        return host

    def _owner(self, ctx: Context, host: Host) -> str:
        return owner_of(ctx, self._owner_of, is_local_store=host.is_local)


def is_declared(ctx: Context) -> bool:
    """Tell whether this very request declares the extension. Spec: 2026-07-28 tasks, T-006."""
    capabilities = ctx.session.client_capabilities
    return (
        capabilities is not None
        and capabilities.extensions is not None
        and wire.EXTENSION in capabilities.extensions
        # Spec: 2026-07-28 tasks, T-093: an older revision does not know the extension.
        and ctx.protocol_version in _MODERN
    )


def refuse(ctx: Context) -> None:
    """Raise the error for a tool that needs a task, on a call that cannot become one."""
    if ctx.protocol_version in _MODERN:
        raise missing_extension()
    raise MCPError(
        METHOD_NOT_FOUND,
        f"this tool runs only as a task, with protocol version {wire.PROTOCOL_VERSION} and the "
        f"extension {wire.EXTENSION}",
    )


def _call(host: Host, params: CallToolRequestParams, ctx: Context) -> Call:
    """Write down the request, so that it can be made again from that alone.

    Raises:
        InvalidValueError: A part of it is no JSON, or too large. Nothing was stored.
    """
    encode = host.store.encode
    meta = _meta(ctx)
    responses = (ctx.params or {}).get("inputResponses")
    return Call(
        tool=params.name,
        arguments=encode(params.arguments or {}, what="arguments"),
        protocol_version=ctx.protocol_version,
        input_responses=None if responses is None else encode(responses, what="inputResponses"),
        request_state=params.request_state,
        client_info=_client_info(meta),
        client_capabilities=_declared(meta, CLIENT_CAPABILITIES_META_KEY),
        principal=current_principal(),
        traceparent=_traceparent(meta),
    )


def _meta(ctx: Context) -> dict[str, Any]:
    return (ctx.params or {}).get("_meta") or {}


def _declared(meta: dict[str, Any], key: str) -> Raw | UnsetType:
    value = meta.get(key)
    if value is None:
        return UNSET
    return Raw(to_json(value, what=key, max_bytes=_MAX_DECLARED_BYTES))


def _client_info(meta: dict[str, Any]) -> Raw | UnsetType:
    """Return what the client says it is, unless that is very long: no call fails for a name."""
    try:
        return _declared(meta, CLIENT_INFO_META_KEY)
    except InvalidValueError:
        return UNSET


def _traceparent(meta: dict[str, Any]) -> str | None:
    value = meta.get("traceparent")
    is_usable = isinstance(value, str) and value.isascii() and len(value) <= _MAX_TRACEPARENT
    return value if is_usable else None


async def _show(host: Host, record: TaskRecord) -> dict[str, Any]:
    wanted = wire.beside(record)
    if not wanted:
        return wire.detailed_task(record)
    loaded = {name: await host.store.load(record, payload) for name, payload in wanted.items()}
    return wire.detailed_task(record, loaded)


def _by() -> str | None:
    """Say who answers or cancels, for operators."""
    principal = current_principal()
    return None if principal is None else principal.subject or principal.client_id

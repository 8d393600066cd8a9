"""All that is provisional or private in the SDK, in one place: a test holds the others to that.

Used here: the middleware chain (its signature may change within 2.x), the low-level server inside
an `MCPServer` (private, but what the SDK's own client goes by), and the plain attribute `lifespan`
of the low-level server, which every transport reads when it starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mcp.server.mcpserver import MCPServer
from mcp.shared.exceptions import MCPError
from mcp_types import METHOD_NOT_FOUND, CallToolRequestParams

from mcp_tasks.errors import ConfigurationError
from mcp_tasks.server.extension import is_declared
from mcp_tasks.server.refusals import missing_extension


if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
    from mcp.server.extension import Extension, MethodBinding, RequestHandler
    from mcp.server.lowlevel import Server

    from mcp_tasks.server.execution import CallHandler

    AnyServer = MCPServer[Any] | Server[Any]
    Lifespan = Callable[[Server[Any]], AbstractAsyncContextManager[Any]]


async def middleware(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """See every message before its handler does.

    Spec: 2026-07-28 tasks, T-069: who listens to tasks must declare the extension. No task is
    reported on yet, so the acknowledgement names none, which the specification allows (T-066).
    """
    if ctx.method == "subscriptions/listen" and _listens_to_tasks(ctx) and not is_declared(ctx):
        raise missing_extension()
    return await call_next(ctx)


def _listens_to_tasks(ctx: ServerRequestContext[Any, Any]) -> bool:
    wanted = (ctx.params or {}).get("notifications")
    return isinstance(wanted, dict) and "taskIds" in wanted


def low_level(server: AnyServer) -> Server[Any]:
    """Return the low-level server inside `server`, or `server` itself."""
    if isinstance(server, MCPServer):
        return server._lowlevel_server  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    return server


def call_handler(server: AnyServer) -> CallHandler:
    """Return what serves `tools/call`.

    Raises:
        ConfigurationError: Nothing does.
    """
    entry = low_level(server).get_request_handler("tools/call")
    if entry is None:
        raise ConfigurationError(
            "this server has no handler for tools/call yet; make it with on_call_tool=…, or call "
            "Tasks.install after add_request_handler('tools/call', …)"
        )
    return entry.handler


def has_tool(server: AnyServer, name: str) -> bool:
    """Tell whether `server` has this tool, as far as it can be asked: a handler may know more."""
    look_up = low_level(server).get_tool_input_schema
    return look_up is None or look_up(name) is not None


def serves_http(server: AnyServer) -> bool:
    """Tell whether an HTTP application was made of `server`."""
    try:
        server.session_manager  # noqa: B018 - it raises where there is none
    except RuntimeError:
        return False
    return True


def install(
    server: AnyServer,
    extension: Extension,
    intercepted: RequestHandler,
    lifespan: Callable[[Lifespan], Lifespan],
) -> None:
    """Add an extension to a server that exists: its methods, interceptor, middleware and lifespan.

    Args:
        server: Which.
        extension: What to add.
        intercepted: The handler for `tools/call` from now on.
        lifespan: Makes the server's new lifespan from the one it had.

    Raises:
        ConfigurationError: It has this extension, or one of its methods, already.
    """
    target = low_level(server)
    bindings = extension.methods()
    taken = [b.method for b in bindings if target.get_request_handler(b.method) is not None]
    if extension.identifier in target.extensions or taken:
        raise ConfigurationError(
            f"the server {target.name!r} has the extension {extension.identifier} already; install "
            "it once"
        )
    for binding in bindings:
        target.add_request_handler(binding.method, binding.params_type, _gated(binding))
    target.add_request_handler("tools/call", CallToolRequestParams, intercepted)
    target.extensions[extension.identifier] = extension.settings()
    target.middleware.append(middleware)
    target.lifespan = lifespan(target.lifespan)


def _gated(binding: MethodBinding) -> RequestHandler:
    """Serve a method at its protocol versions only, as the SDK does for an `MCPServer`."""
    versions = binding.protocol_versions

    async def handler(ctx: ServerRequestContext[Any, Any], params: Any) -> HandlerResult:
        if versions is not None and ctx.protocol_version not in versions:
            raise MCPError(METHOD_NOT_FOUND, "Method not found", binding.method)
        return await binding.handler(ctx, params)

    return handler

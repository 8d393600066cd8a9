"""An HTTP transport for clients that outlive their server.

With the SDK's own transport, the first request that meets a refused or a broken connection ends the
whole client: the waiting call looks cancelled, and every later one says "Connection closed"
(https://github.com/modelcontextprotocol/python-sdk/issues/3522 and 3560). A task outlives its
server, so its client should too. Here such a request alone fails, with an `MCPError`, and the next
one connects anew.

Public API of the SDK and of httpx2 only. When the SDK does this itself, this module can go.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx2
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CONNECTION_CLOSED


if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from mcp.client import Transport


_UNAVAILABLE = frozenset({502, 503, 504})
"""What proxies answer for a server that is away."""


class ReconnectingHttpClient(httpx2.AsyncClient):
    """An HTTP client that answers for a server that cannot be reached.

    A request that finds no server, or loses it before the answer is whole, gets an answer made
    here: HTTP 503 with a JSON-RPC error, code -32000. Whether the server carried the request out
    is not known then.

    Takes what `httpx2.AsyncClient` takes: headers, auth, proxies, timeouts.
    """

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Send one request; an unreachable server is an answer, not an exception."""
        try:
            response = await super().send(request, **options)
            if not _is_json(response):
                return _lost(request, None) if response.status_code in _UNAVAILABLE else response
            # A short answer is read here, where losing the connection still concerns one request.
            await response.aread()
        except httpx2.TransportError as error:
            return _lost(request, error)
        return response


def _is_json(response: httpx2.Response) -> bool:
    return response.headers.get("content-type", "").lower().startswith("application/json")


def _lost(request: httpx2.Request, error: Exception | None) -> httpx2.Response:
    reason = "it is not available" if error is None else str(error) or type(error).__name__
    message = f"no answer from the server ({reason}); the request may or may not have been done"
    answer = {
        "jsonrpc": "2.0",
        "id": None,
        "error": {"code": CONNECTION_CLOSED, "message": message},
    }
    return httpx2.Response(503, json=answer, request=request)


def reconnecting_http(url: str, *, http_client: ReconnectingHttpClient | None = None) -> Transport:
    """Connect to an MCP server over Streamable HTTP, and stay a client while it is away.

    Args:
        url: The server's endpoint.
        http_client: For headers, authentication and the like; you close it. `None` makes one.

    Example:
        ```python
        async with Client(reconnecting_http(url), extensions=[TasksClient()]) as client:
            await client.call_tool("build_report", {"folder": "/data"})
        ```
    """
    return _connect(url, http_client)


@asynccontextmanager
async def _connect(url: str, http_client: ReconnectingHttpClient | None) -> AsyncGenerator[Any]:
    if http_client is not None:
        async with streamable_http_client(url, http_client=http_client) as streams:
            yield streams
        return
    # As the SDK's own: an event stream may be silent for long.
    timeout = httpx2.Timeout(30.0, read=300.0)
    async with (
        ReconnectingHttpClient(timeout=timeout) as made,
        streamable_http_client(url, http_client=made) as streams,
    ):
        yield streams

"""Requests as they go over the wire, for what no client lets one do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx


if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

VERSION = "2026-07-28"
_PREFIX = "io.modelcontextprotocol"


def browse(
    app: Any, host: str = "127.0.0.1:8000"
) -> AbstractAsyncContextManager[httpx.AsyncClient]:
    """Return a client of an application in this process."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=f"http://{host}")


async def post(
    http: httpx.AsyncClient, method: str, params: dict[str, Any], **headers: str | None
) -> httpx.Response:
    """Send a request that declares the extension.

    Args:
        http: Where to.
        method: Of MCP.
        params: Its parameters, without `_meta`.
        **headers: More of them, `_` for `-`; `None` leaves one out.
    """
    meta: dict[str, Any] = {
        f"{_PREFIX}/protocolVersion": VERSION,
        f"{_PREFIX}/clientInfo": {"name": "wire", "version": "1"},
        f"{_PREFIX}/clientCapabilities": {
            "elicitation": {},
            "extensions": {f"{_PREFIX}/tasks": {}},
        },
    }
    sent = {
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": VERSION,
        "mcp-method": method,
        "mcp-name": params.get("name") or params["taskId"],
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    body: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": method}
    return await http.post(
        "/mcp",
        json={**body, "params": {**params, "_meta": meta}},
        headers={name: value for name, value in sent.items() if value is not None},
    )

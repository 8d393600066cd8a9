"""A raw HTTP client: one keep-alive connection, one request at a time, next to no work.

Not a general client. It takes only what the bench server sends: HTTP/1.1 with `Content-Length`.
The SDK's own client costs more CPU for a call than the server does and would measure itself.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

import msgspec


if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType


PROTOCOL_VERSION = "2026-07-28"
EXTENSION = "io.modelcontextprotocol/tasks"

_META: dict[str, Any] = {
    "io.modelcontextprotocol/protocolVersion": PROTOCOL_VERSION,
    "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {
        "elicitation": {},
        "extensions": {EXTENSION: {}},
    },
}


class RpcError(Exception):
    """The server answered with a JSON-RPC error, or not with JSON-RPC at all."""


def request(method: str, name: str, params: Mapping[str, Any]) -> bytes:
    """Build the bytes of one POST, to be sent as often as wanted.

    Args:
        method: The JSON-RPC method.
        name: What goes into `Mcp-Name`: a tool or a task id.
        params: The method's parameters, without `_meta`.
    """
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": _META}}
    body = msgspec.json.encode(message)
    head = (
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:80\r\nContent-Type: application/json\r\n"
        "Accept: application/json, text/event-stream\r\n"
        f"MCP-Protocol-Version: {PROTOCOL_VERSION}\r\nMcp-Method: {method}\r\nMcp-Name: {name}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def call(tool: str, arguments: Mapping[str, Any]) -> bytes:
    """Build a `tools/call`."""
    return request("tools/call", tool, {"name": tool, "arguments": dict(arguments)})


def get(task_id: str) -> bytes:
    """Build a `tasks/get`."""
    return request("tasks/get", task_id, {"taskId": task_id})


class Connection(asyncio.Protocol):
    """One keep-alive connection to a server on this machine."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._waiter: asyncio.Future[bytes] | None = None

    @classmethod
    async def open(cls, port: int) -> Connection:
        """Connect to `port` on 127.0.0.1."""
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(cls, "127.0.0.1", port)
        return connection

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (asyncio calls this)."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - TCP gives nothing else
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Collect one response (asyncio calls this)."""
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._received[:end]).lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self._received) < end + 4 + length:
            return
        body = bytes(self._received[end + 4 : end + 4 + length])
        self._received.clear()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(body)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits, and whoever comes later (asyncio calls this)."""
        self._transport = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(exc or ConnectionResetError("the server closed"))

    async def send(self, message: bytes) -> bytes:
        """Send a whole request and return the body of its response."""
        if self._transport is None:
            raise ConnectionResetError("the server closed the connection")
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(message)
        return await self._waiter

    async def result(self, message: bytes) -> dict[str, Any]:
        """Send a JSON-RPC request and return its result.

        Raises:
            RpcError: It was refused.
        """
        body = await self.send(message)
        try:
            answer = msgspec.json.decode(body, type=dict[str, Any])
        except msgspec.DecodeError:
            raise RpcError(body[:300].decode(errors="replace")) from None
        if "result" not in answer:
            raise RpcError(str(answer.get("error", answer))[:300])
        return answer["result"]

    async def fetch(self, path: str) -> Any:
        """GET `path` and return its JSON."""
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:80\r\nContent-Length: 0\r\n\r\n"
        return msgspec.json.decode(await self.send(head.encode()))

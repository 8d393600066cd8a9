"""Sees what goes over the wire between a backend and its server."""

from __future__ import annotations

import asyncio

from tests.faults.proxy import Proxy


class Witness(Proxy):
    """A proxy that loses nothing and counts.

    Attributes:
        exchanges: How often the client had something to say after the server had spoken.
        connections: How many there were.
    """

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.exchanges = 0
        self.connections = 0
        self._server_spoke = True
        self._seen = asyncio.Event()
        self.lose_request = self._request
        self.lose_reply = self._reply

    def forget(self) -> None:
        """Count from here."""
        self.exchanges = 0
        self._server_spoke = True
        self._seen.clear()

    @property
    def open(self) -> int:
        """How many connections there are now."""
        return len(self._pairs)

    async def request_seen(self) -> None:
        """Wait until something was said to the server."""
        await self._seen.wait()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        await super()._accept(reader, writer)

    def _request(self, _: bytes) -> bool:
        if self._server_spoke:
            self.exchanges += 1
        self._server_spoke = False
        self._seen.set()
        return False

    def _reply(self, _: bytes) -> bool:
        self._server_spoke = True
        return False

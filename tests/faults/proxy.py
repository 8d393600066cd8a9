"""A TCP proxy that loses what it is told to lose: the network between a backend and its server."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Self


if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


_CHUNK = 65536


class Proxy:
    """Forwards bytes between a port of its own and a server's, until told otherwise.

    `lose_reply` is asked once for each piece that comes back from the server: when it returns True,
    that piece is thrown away and the connection is cut, so the server has done what was asked and
    nobody hears of it. `lose_request` is asked for each piece on the way there: the connection is
    cut before the server has seen it. `refusing` cuts every new connection at once.

    Args:
        host: The server's.
        port: The server's.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.lose_reply: Callable[[bytes], bool] = _never
        self.lose_request: Callable[[bytes], bool] = _never
        self.refusing = False
        self.silent = False
        self.replies_lost = 0
        self.requests_lost = 0

    @property
    def port(self) -> int:
        """Where clients connect, on 127.0.0.1."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def cut(self) -> None:
        """Cut every connection that there is now, in both directions."""
        for pair in list(self._pairs):
            _abort(pair)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            writer.transport.abort()
            return
        try:
            there, onward = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        pair = (writer, onward)
        self._pairs.add(pair)
        both = [
            asyncio.create_task(self._forward(reader, onward, pair, there=True)),
            asyncio.create_task(self._forward(there, writer, pair, there=False)),
        ]
        self._tasks.update(both)
        for task in both:
            task.add_done_callback(self._tasks.discard)
        await asyncio.wait(both)
        self._pairs.discard(pair)

    async def _forward(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
        *,
        there: bool,
    ) -> None:
        with suppress(OSError):
            while piece := await source.read(_CHUNK):
                if self.silent:
                    continue  # swallowed, and the connection stays: a network that went dark
                if (self.lose_request if there else self.lose_reply)(piece):
                    if there:
                        self.requests_lost += 1
                    else:
                        self.replies_lost += 1
                    break
                sink.write(piece)
                await sink.drain()
        _abort(pair)


def _never(piece: bytes) -> bool:
    return False


def _abort(pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter]) -> None:
    for end in pair:
        end.transport.abort()

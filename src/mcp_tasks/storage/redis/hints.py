"""Hints of changes: a subscription on a connection of its own."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from mcp_tasks.errors import MCPTasksError
from mcp_tasks.storage.redis.driver import ANSWERS, BROKEN


if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from mcp_tasks.storage.redis.driver import Connection
    from mcp_tasks.storage.redis.options import RedisOptions


_PAUSE = 1.0
_QUIET = 30.0


async def listen(
    opening: Callable[[], Awaitable[Connection]],
    channel: bytes,
    heard: asyncio.Event,
    is_closed: Callable[[], bool],
    options: RedisOptions,
) -> AsyncGenerator[None]:
    """Yield whenever something was published on `channel`; reconnect when the connection is lost.

    Args:
        opening: Opens a connection.
        channel: Its name.
        heard: Set by what is published, and by whoever wants this to look at `is_closed`.
        is_closed: Tells when to end.
        options: How long an answer may take.
    """
    while not is_closed():
        connection: Connection | None = None
        reading: asyncio.Task[None] | None = None
        try:
            connection = await opening()
            await connection.ask([("SUBSCRIBE", channel)])
            reading = asyncio.create_task(_read(connection, heard, options))
            heard.set()  # what was written while nobody listened
            while not reading.done():
                await heard.wait()
                heard.clear()
                if is_closed():
                    return
                yield
        except (*BROKEN, *ANSWERS, MCPTasksError):
            pass
        finally:
            if connection is not None:
                connection.drop()
            if reading is not None:
                reading.cancel()
                with suppress(asyncio.CancelledError):
                    await reading
        await asyncio.sleep(_PAUSE)


async def _read(connection: Connection, heard: asyncio.Event, options: RedisOptions) -> None:
    """Pass on what comes; end when the connection is lost."""
    try:
        quiet = False
        while True:
            try:
                async with asyncio.timeout(options.timeout if quiet else _QUIET):
                    await connection.receive()
            except TimeoutError:
                if quiet:
                    return
                await connection.send([("PING",)])
                quiet = True
            else:
                quiet = False
                heard.set()
    except BROKEN:
        pass
    finally:
        heard.set()

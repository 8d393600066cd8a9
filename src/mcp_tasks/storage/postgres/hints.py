"""LISTEN and NOTIFY: hints for who waits, sent beside the writes and never inside them.

A transaction that notifies waits, when it commits, for all others that do; so a notification is a
statement of its own, and one that is under way stands for all writes that it comes after.
"""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING

from mcp_tasks.errors import MCPTasksError, StorageUnavailableError
from mcp_tasks.storage.postgres.driver import DRIVER_ERRORS, deadline


if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from mcp_tasks.storage.postgres.driver import Connection
    from mcp_tasks.storage.postgres.engine import Engine


_NOTIFY = "SELECT pg_notify($1, '')"
_PAUSE = 1.0
_QUIET = 30.0


def channel_of(table: str) -> str:
    """Return the channel for a table; a name of a table may be longer than one of a channel."""
    return "mcp_tasks_" + hashlib.sha256(table.encode()).hexdigest()[:16]


class Announcer:
    """Tells other processes that something was written, once for all that was written meanwhile."""

    def __init__(self, channel: str) -> None:
        self._channel = channel
        self._engine: Engine | None = None
        self._sending = False
        self._more = False

    def announce(self, engine: Engine) -> None:
        """Have it said. Returns at once."""
        if engine is not self._engine:
            # Another loop, or a child of a fork: what was being sent there says nothing here.
            self._engine, self._sending = engine, False
        self._more = True
        if not self._sending:
            self._sending = True
            engine.spawn(self._send(engine))

    async def _send(self, engine: Engine) -> None:
        try:
            while self._more:
                self._more = False
                # Nobody is told that it failed: who waits looks for itself now and then.
                with suppress(MCPTasksError):
                    await engine.run(_NOTIFY, self._channel)
        finally:
            self._sending = False


async def listen(
    opening: Callable[[], Awaitable[Connection]],
    channel: str,
    heard: asyncio.Event,
    is_closed: Callable[[], bool],
) -> AsyncGenerator[None]:
    """Yield whenever `channel` was notified, on a connection of its own; reconnect when it is lost.

    Args:
        opening: Opens a connection.
        channel: Its name.
        heard: Set by notifications, and by whoever wants this to look at `is_closed`.
        is_closed: Tells when to end.
    """
    while not is_closed():
        connection: Connection | None = None
        try:
            connection = await opening()
            connection.add_termination_listener(lambda *_: heard.set())
            await connection.add_listener(channel, lambda *_: heard.set())
            # What was written while nobody listened.
            heard.set()
            while not connection.is_closed() and not is_closed():
                try:
                    async with asyncio.timeout(_QUIET):
                        await heard.wait()
                except TimeoutError:
                    with deadline(connection, _QUIET):
                        await connection.fetch("SELECT 1")
                    continue
                heard.clear()
                if not is_closed():
                    yield
        except (*DRIVER_ERRORS, StorageUnavailableError):
            await asyncio.sleep(_PAUSE)
        finally:
            if connection is not None:
                connection.terminate()

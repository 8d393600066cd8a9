"""A few connections to one database, opened when they are needed.

Not the driver's own pool: that asks the server to reset each connection after each use, which
doubles the round trips, and does not say whether a statement was sent.
"""

from __future__ import annotations

import asyncio
import random
import weakref
from typing import TYPE_CHECKING

from mcp_tasks.errors import StorageUnavailableError
from mcp_tasks.storage.postgres.driver import DRIVER_ERRORS, deadline, part, translate


if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from mcp_tasks.storage.postgres.driver import Connection, Row
    from mcp_tasks.storage.postgres.options import PostgresOptions


_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
# The server gives up first, so that the outcome is known; this is for when nothing comes back.
_GRACE = 1.0


class Connections:
    """Connections for one event loop.

    Args:
        opening: Opens one.
        prepare: Called with the first one that is open, before any other is given out; again if it
            failed.
        options: How many, and for how long to wait.
    """

    def __init__(
        self,
        opening: Callable[[], Awaitable[Connection]],
        prepare: Callable[[Connection], Awaitable[object]],
        options: PostgresOptions,
    ) -> None:
        self._opening = opening
        self._prepare = prepare
        self._options = options
        self._slots = asyncio.Semaphore(options.pool)
        self._preparing = asyncio.Lock()
        self._prepared = False
        self._free: list[Connection] = []
        self._open: set[Connection] = set()
        self._keeper: AsyncGenerator[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._limit = options.timeout + _GRACE
        self._under_way: dict[Connection, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def take(self) -> Connection:
        """Return a connection that nobody else uses; `give_back` it.

        Raises:
            StorageUnavailableError: There is none within `connect_timeout`. Nothing was sent.
            ConfigurationError: There never will be one.
        """
        if self._slots.locked():
            try:
                async with asyncio.timeout(self._options.connect_timeout):
                    await self._slots.acquire()
            except TimeoutError:
                msg = f"all {self._options.pool} connections to PostgreSQL are busy"
                raise StorageUnavailableError(msg) from None
        else:
            await self._slots.acquire()
        connection = None
        try:
            connection = self._find_free() or await self._connect()
            if not self._prepared:
                await self._prepare_once(connection)
        except BaseException:
            if connection is None:
                self._slots.release()
            else:
                self.give_back(connection)
            raise
        return connection

    def give_back(self, connection: Connection) -> None:
        """Let others use it. One that is closed will be found to be."""
        self._free.append(connection)
        self._slots.release()

    def drop_free(self) -> None:
        """Close what is not in use: the server behind it is not the one to talk to any more."""
        while self._free:
            connection = self._free.pop()
            self._open.discard(connection)
            connection.terminate()

    async def fetch(self, connection: Connection, statement: str, *arguments: object) -> list[Row]:
        """Run one statement; drop the connection, and so fail, when no answer comes in time.

        Raises:
            StorageUnavailableError: The connection was lost before. Nothing was sent.
        """
        if connection.is_closed():
            raise StorageUnavailableError("the connection to PostgreSQL was lost")
        self._under_way[connection] = self._loop.time()
        if self._timer is None:
            self._look_again_at(self._loop.time() + self._limit)
        try:
            return await connection.fetch(statement, *arguments)
        except asyncio.CancelledError:
            # Only the end of the loop cancels us. What the driver would do to stop the statement
            # takes longer than the loop has.
            connection.terminate()
            raise
        finally:
            del self._under_way[connection]

    def _look_for_late(self) -> None:
        """Drop connections that have not answered in time. One timer for all statements."""
        self._timer = None
        late = self._loop.time() - self._limit
        for connection, began in self._under_way.items():
            if began <= late:
                connection.terminate()
        waiting = [began for began in self._under_way.values() if began > late]
        if waiting:
            self._look_again_at(min(waiting) + self._limit)

    def _look_again_at(self, moment: float) -> None:
        # The loop must not keep alive what nobody else knows any more.
        look = weakref.WeakMethod(self._look_for_late)
        self._timer = self._loop.call_at(moment, lambda: (found := look()) and found())

    async def close(self) -> None:
        """Close all. None may be in use."""
        self._free.clear()
        closing, self._open = list(self._open), set()
        await asyncio.gather(*(part(connection) for connection in closing))
        if self._keeper is not None:
            await self._keeper.aclose()

    def _find_free(self) -> Connection | None:
        while self._free:
            connection = self._free.pop()
            if not connection.is_closed():
                return connection
            self._open.discard(connection)
        return None

    async def _connect(self) -> Connection:
        """Open one, and try again for a while as long as the server may be about to come back."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._options.connect_timeout
        pause = _FIRST_PAUSE
        while True:
            try:
                connection = await self._opening()
            except DRIVER_ERRORS as error:
                failure = translate(error, self._options.table)
                waited = loop.time() + pause >= deadline
                if waited or not isinstance(failure, StorageUnavailableError):
                    raise failure from error
            else:
                break
            await asyncio.sleep(random.uniform(pause / 2, pause))  # noqa: S311 - jitter is no secret
            pause = min(2 * pause, _LONGEST_PAUSE)
        self._open.add(connection)
        if self._keeper is None:
            self._keeper = _keep(self._open)
            await anext(self._keeper)
        return connection

    async def _prepare_once(self, connection: Connection) -> None:
        async with self._preparing:
            if not self._prepared:
                with deadline(connection, self._limit):
                    await self._prepare(connection)
                self._prepared = True


async def _keep(connections: set[Connection]) -> AsyncGenerator[None]:
    """Close what is open when the loop ends, or when nobody knows the connections any more.

    A loop closes the generators that were begun on it; that is the only good-bye it says.
    """
    try:
        yield
    finally:
        for connection in connections:
            connection.terminate()
        await asyncio.sleep(0)  # the transports close in the next turn

"""Callers that wait together share one statement, one round trip and one flush to the disk.

There is a lane for each kind of statement. Calls of one turn of the event loop go out together, and
what comes while a statement is under way goes out with the next. A statement that takes long (a
distant server, a row that somebody holds) does not hold the lane up: after a moment another goes
out beside it.

The one thing to know before changing this: what a statement does, it does for all of its rows or
for none. So an error counts for every caller of the batch, unless it may be about one row; then
each row is sent again alone.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from copy import copy
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from mcp_tasks.errors import OutcomeUnknownError, StorageUnavailableError
from mcp_tasks.storage.postgres.driver import (
    DRIVER_ERRORS,
    is_of_one_row,
    is_transient,
    may_have_happened,
    reason,
    state_of,
    translate,
)


if TYPE_CHECKING:
    from collections.abc import Coroutine
    from datetime import datetime

    from mcp_tasks.storage.postgres.connections import Connections
    from mcp_tasks.storage.postgres.driver import Connection, Row
    from mcp_tasks.storage.postgres.options import PostgresOptions


MAX_ROWS = 256
MAX_BYTES = 4 * 2**20
_TRIES = 8
_LATE = 0.02
_BY_KEY = attrgetter("key")


class Call:
    """One call that waits for its turn."""

    __slots__ = ("data", "done", "expected", "expires_at", "key")

    def __init__(
        self,
        done: asyncio.Future[Any],
        key: str,
        data: bytes = b"",
        expires_at: datetime | None = None,
        expected: int = 0,
    ) -> None:
        self.done = done
        self.key = key
        self.data = data
        self.expires_at = expires_at
        self.expected = expected

    def answer(self, result: object) -> None:
        """Give the caller its result, if it still waits."""
        if not self.done.done():
            self.done.set_result(result)

    def fail(self, error: Exception) -> None:
        """Give the caller an error, if it still waits."""
        if not self.done.done():
            self.done.set_exception(error)


# Turns calls into the arguments of the statement.
Columns = Callable[[Sequence[Call]], Sequence[object]]
# Answers calls from the rows that came back; returns those that have to be sent again.
Settle = Callable[[Sequence[Call], Sequence["Row"]], Sequence[Call]]


class Lane:
    """Calls of one kind.

    Args:
        statement: Its SQL.
        columns: Makes its arguments.
        settle: Reads its rows.
        connections: Where they go out.
        spawn: Starts a task that the engine waits for when it closes.
        options: How many statements may be under way at once, and the like.
        written: Called after a statement that may have changed something; `None` for reads.
    """

    def __init__(
        self,
        statement: str,
        columns: Columns,
        settle: Settle,
        *,
        connections: Connections,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        options: PostgresOptions,
        written: Callable[[], None] | None,
    ) -> None:
        self._statement = statement
        self._columns = columns
        self._settle = settle
        self._connections = connections
        self._spawn = spawn
        self._width = options.pool
        self._patience = options.connect_timeout
        self._table = options.table
        self._written = written
        self._loop = asyncio.get_running_loop()
        self._waiting: list[Call] = []
        self._busy: set[str] = set()
        self._starting = False
        self._under_way: dict[int, float] = {}
        self._allowed = 1
        self._timer: asyncio.TimerHandle | None = None

    def submit(
        self,
        key: str,
        data: bytes = b"",
        expires_at: datetime | None = None,
        expected: int = 0,
    ) -> asyncio.Future[Any]:
        """Have a call sent with the others of this turn; return what its answer will be in."""
        done: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append(Call(done, key, data, expires_at, expected))
        if not self._starting:
            self._start()
        return done

    @property
    def is_idle(self) -> bool:
        """Tell whether nobody waits to be sent."""
        return not self._waiting

    def _start(self) -> None:
        """Send what waits, in the next turn; or look again soon if enough is under way."""
        if len(self._under_way) < self._allowed:
            self._starting = True
            self._spawn(self._run())
        elif self._timer is None:
            self._timer = self._loop.call_later(_LATE, self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        if not self._waiting or self._starting:
            return
        # A batch that began long ago does not count any more.
        late = self._loop.time() - _LATE
        slow = sum(began <= late for began in self._under_way.values())
        self._allowed = min(1 + slow, self._width)
        self._start()

    def _take(self) -> list[Call]:
        """Return the next batch, in the order of its keys: not too many and not too large.

        A key is written once in a batch, and by one batch at a time; the next write of it waits.
        """
        batch: list[Call] = []
        left: list[Call] = []
        keys: set[str] = set()
        size = 0
        for call in self._waiting:
            if call.done.done():
                continue  # cancelled before it was sent
            full = len(batch) >= MAX_ROWS or (batch and size + len(call.data) > MAX_BYTES)
            if full or (self._written is not None and (call.key in keys or call.key in self._busy)):
                left.append(call)
            else:
                batch.append(call)
                keys.add(call.key)
                size += len(call.data)
        self._waiting = left
        self._busy |= keys
        # By code point, as the database sorts them.
        batch.sort(key=_BY_KEY)
        return batch

    async def _run(self) -> None:
        self._starting = False
        batch = self._take()
        if not batch:
            return
        self._under_way[id(batch)] = self._loop.time()
        try:
            await self._send_somewhere(batch)
        except Exception as error:  # noqa: BLE001 - each caller gets it, whatever it is
            for call in batch:
                failure = copy(error)
                failure.__cause__ = error.__cause__
                call.fail(failure)
        except asyncio.CancelledError:
            for call in batch:
                call.done.cancel()
            raise
        finally:
            del self._under_way[id(batch)]
            self._busy.difference_update([call.key for call in batch])
            if not self._under_way:
                self._allowed = 1
            if self._waiting and not self._starting:
                self._start()

    async def _send_somewhere(self, batch: Sequence[Call]) -> None:
        # A read whose connection turns out to be lost is sent again, for as long as a new
        # connection would be waited for.
        repeat_until = self._loop.time() + self._patience if self._written is None else 0
        attempt = 0
        while batch:
            connection = await self._connections.take()
            try:
                batch = await self._send(connection, batch, repeat_until)
            finally:
                self._connections.give_back(connection)
            if batch:
                await pause(attempt)
                attempt += 1

    async def _send(
        self, connection: Connection, batch: Sequence[Call], repeat_until: float = 0
    ) -> Sequence[Call]:
        """Send calls until each has its answer. No write is sent again whose outcome is unknown.

        Returns:
            Those that are to be sent on another connection, which is done until `repeat_until`.
        """
        left = batch
        for attempt in range(_TRIES):
            try:
                rows = await self._connections.fetch(
                    connection, self._statement, *self._columns(left)
                )
            except DRIVER_ERRORS as error:
                if is_transient(error):
                    await pause(attempt)
                    continue
                if connection.is_closed() and self._loop.time() < repeat_until:
                    return left
                if len(left) > 1 and is_of_one_row(error):
                    for call in left:
                        await self._send(connection, [call])
                else:
                    self._fail(connection, left, error)
                return ()
            if self._written is not None:
                self._written()
            left = self._settle(left, rows)
            if not left:
                return ()
        for call in left:
            call.fail(StorageUnavailableError(f"others kept writing {call.key!r}"))
        return ()

    def _fail(self, connection: Connection, batch: Sequence[Call], error: Exception) -> None:
        unknown = self._written is not None and may_have_happened(error)
        if state_of(error) == "25006":
            # It was a primary once. The next connection looks for the one that is it now.
            connection.terminate()
            self._connections.drop_free()
        for call in batch:
            failure = (
                OutcomeUnknownError(call.key, f"PostgreSQL: {reason(error)}")
                if unknown
                else translate(error, self._table)
            )
            failure.__cause__ = error
            call.fail(failure)


async def pause(attempt: int) -> None:
    """Wait a random moment that grows with each attempt."""
    await asyncio.sleep(random.uniform(0, min(0.005 * 2**attempt, 0.5)))  # noqa: S311 - jitter

"""What belongs to one event loop of one process: connections, lanes, and the tasks on them."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, TypeVar

from mcp_tasks.errors import OutcomeUnknownError, RecordNotFoundError, VersionConflictError
from mcp_tasks.storage.base import StoredRecord
from mcp_tasks.storage.postgres.batch import Lane, pause
from mcp_tasks.storage.postgres.connections import Connections
from mcp_tasks.storage.postgres.driver import (
    DRIVER_ERRORS,
    may_have_happened,
    reason,
    translate,
)


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from mcp_tasks.storage.postgres.batch import Call
    from mcp_tasks.storage.postgres.driver import Connection, Row
    from mcp_tasks.storage.postgres.options import PostgresOptions
    from mcp_tasks.storage.postgres.statements import Statements


_T = TypeVar("_T")


class Engine:
    """The running part of a backend.

    Args:
        opening: Opens a connection.
        prepare: Called with the first connection, before anything else is done.
        options: How the backend was set up.
        statements: Its SQL.
        written: Called after each statement that may have changed something.
    """

    def __init__(
        self,
        opening: Callable[[], Awaitable[Connection]],
        prepare: Callable[[Connection], Awaitable[object]],
        options: PostgresOptions,
        statements: Statements,
        written: Callable[[], None],
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.process = os.getpid()
        self._table = options.table
        self._patience = options.connect_timeout
        self._connections = Connections(opening, prepare, options)
        self._tasks: set[asyncio.Task[Any]] = set()

        def lane(statement: str, columns: Any, settle: Any, *, writes: bool = True) -> Lane:
            return Lane(
                statement,
                columns,
                settle,
                connections=self._connections,
                spawn=self.spawn,
                options=options,
                written=written if writes else None,
            )

        self.get = lane(statements.get, _keys, _settle_get, writes=False)
        self.put = lane(statements.put, _records, _settle_put)
        self.create = lane(statements.create, _records, _settle_swap)
        self.swap = lane(statements.swap, _swaps, _settle_swap)
        self.delete = lane(statements.delete, _keys, _settle_delete)

    async def run(self, statement: str, *arguments: object, writes: str | None = None) -> list[Row]:
        """Run a statement of its own. It goes on when the caller is cancelled.

        Args:
            statement: Its SQL.
            arguments: Its arguments.
            writes: What it writes, for an error; `None` for a read, which is sent again when the
                connection turns out to be lost.
        """

        async def send() -> list[Row]:
            repeat_until = self.loop.time() + self._patience if writes is None else 0
            attempt = 0
            while True:
                connection = await self._connections.take()
                try:
                    return await self._connections.fetch(connection, statement, *arguments)
                except DRIVER_ERRORS as error:
                    if writes is not None and may_have_happened(error):
                        raise OutcomeUnknownError(writes, f"PostgreSQL: {reason(error)}") from error
                    if not connection.is_closed() or self.loop.time() >= repeat_until:
                        raise translate(error, self._table) from error
                finally:
                    self._connections.give_back(connection)
                await pause(attempt)
                attempt += 1

        return await asyncio.shield(self.spawn(send()))

    def spawn(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Start a task that `close` waits for."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def close(self) -> None:
        """Let everything under way end, then close the connections."""
        lanes = (self.get, self.put, self.create, self.swap, self.delete)
        while self._tasks or not all(lane.is_idle for lane in lanes):
            if self._tasks:
                await asyncio.wait(self._tasks)
            else:
                await asyncio.sleep(0)
        await self._connections.close()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever was to hear of it may be gone


# --- what goes in, and what comes back -----------------------------------------------------------


def _keys(batch: Sequence[Call]) -> Sequence[object]:
    return ([call.key for call in batch],)


def _records(batch: Sequence[Call]) -> Sequence[object]:
    return (
        [call.key for call in batch],
        [call.expires_at for call in batch],
        [call.data for call in batch],
    )


def _swaps(batch: Sequence[Call]) -> Sequence[object]:
    return (*_records(batch), [call.expected for call in batch])


def _settle_get(batch: Sequence[Call], rows: Sequence[Row]) -> Sequence[Call]:
    found = {key: StoredRecord(key, data, version) for key, data, version in rows}
    for call in batch:
        record = found.get(call.key)
        if record is None:
            call.fail(RecordNotFoundError(call.key))
        else:
            call.answer(record)
    return ()


def _settle_put(batch: Sequence[Call], rows: Sequence[Row]) -> Sequence[Call]:
    versions = {key: version for key, version in rows}  # noqa: C416 - rows are not pairs to `dict`
    for call in batch:
        call.answer(versions[call.key])
    return ()


def _settle_swap(batch: Sequence[Call], rows: Sequence[Row]) -> Sequence[Call]:
    refused = {n: actual for n, actual in rows}  # noqa: C416 - rows are not pairs to `dict`
    if not refused:
        for call in batch:
            if not call.done.done():
                call.done.set_result(call.expected + 1)
        return ()
    again: list[Call] = []
    for n, call in enumerate(batch, 1):
        actual = refused.get(n)
        if actual is None:
            call.answer(call.expected + 1)
        elif actual == call.expected:
            again.append(call)
        else:
            call.fail(VersionConflictError(call.key, call.expected, actual))
    return again


def _settle_delete(batch: Sequence[Call], rows: Sequence[Row]) -> Sequence[Call]:
    deleted = {n for n, was_alive in rows if was_alive}
    for n, call in enumerate(batch, 1):
        call.answer(n in deleted)
    return ()

"""One connection that all calls share: what waits together goes out together.

While a batch is on its way the next one gathers. The server works through a batch in the time that
one call alone would spend on the network, so a pool of connections would be slower, and unfair.
"""

from __future__ import annotations

import asyncio
import random
import weakref
from copy import copy
from typing import TYPE_CHECKING, Any

from mcp_tasks.errors import MCPTasksError, OutcomeUnknownError
from mcp_tasks.storage.redis.driver import (
    ANSWERS,
    BROKEN,
    code_of,
    is_passing,
    reason,
    translate,
)


if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine

    from mcp_tasks.storage.redis.driver import Command, Connection
    from mcp_tasks.storage.redis.options import RedisOptions


MAX_CALLS = 256
MAX_BYTES = 4 * 2**20


class Call:
    """A command that waits for its answer.

    Attributes:
        done: What the caller awaits: the answer as it came.
        command: What is sent.
        writes: The key that it writes; `None` for a read, which may be sent again.
        slot: The key slot in a cluster.
        size: Bytes to be sent, about.
        until: When to give up what may be sent again, in the loop's time.
        turns: How often it was sent somewhere else.
        refusals: How often it was refused for now.
    """

    __slots__ = (
        *("command", "done", "is_asking", "refusals", "size", "slot", "turns", "until", "writes"),
    )

    def __init__(
        self,
        done: asyncio.Future[Any],
        command: Command,
        writes: str | None,
        slot: int,
        size: int,
        until: float,
    ) -> None:
        self.done = done
        self.command = command
        self.writes = writes
        self.slot = slot
        self.size = size
        self.until = until
        self.turns = 0
        self.refusals = 0
        self.is_asking = False

    def answer(self, result: Any) -> None:
        """Give the caller its answer, if it still waits."""
        if not self.done.done():
            self.done.set_result(result)

    def fail(self, error: Exception, cause: Exception | None = None) -> None:
        """Give the caller an error, if it still waits."""
        if not self.done.done():
            error.__cause__ = cause
            self.done.set_exception(error)


class Line:
    """The connection to one node.

    Args:
        opening: Opens a connection; raises one of the driver's errors, or one of ours for good.
        options: Times.
        spawn: Starts a task that the engine waits for when it closes.
        moved: Called with a call that the node does not serve and its answer, and with calls that
            found no connection; returns true if it took the call over.
    """

    def __init__(
        self,
        opening: Callable[[], Awaitable[Connection]],
        options: RedisOptions,
        *,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        moved: Callable[[Call, Exception], bool] | None = None,
    ) -> None:
        self._opening = opening
        self._options = options
        self._spawn = spawn
        self._moved = moved
        self._loop = asyncio.get_running_loop()
        self._connection: Connection | None = None
        self._open: set[Connection] = set()
        self._keeper: AsyncGenerator[None] | None = None
        self._waiting: list[Call] = []
        self._running = False
        self._is_stale = False

    def submit(self, call: Call) -> None:
        """Have a call sent with the others that wait."""
        self._waiting.append(call)
        if not self._running:
            self._running = True
            self._spawn(self._run())

    async def close(self) -> None:
        """Close the connection. Nothing may be on its way."""
        self._drop()
        if self._keeper is not None:
            await self._keeper.aclose()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.drop()
            self._open.discard(self._connection)
            self._connection = None
        self._is_stale = False

    async def _run(self) -> None:
        batch: list[Call] = []
        try:
            while self._waiting:
                batch = self._take()
                await self._exchange(batch)
                # Those who were answered may have more to say: then it goes out with the rest.
                await asyncio.sleep(0)
        except BaseException:
            # The loop ends. Answers still to come must not be taken for those of other calls.
            self._drop()
            for call in batch + self._waiting:
                call.done.cancel()
            self._waiting = []
            raise
        finally:
            self._running = False

    def _take(self) -> list[Call]:
        """Return the next batch: not too many, not too large, without those who went away."""
        batch: list[Call] = []
        size = 0
        for place, call in enumerate(self._waiting):
            if len(batch) >= MAX_CALLS or (batch and size + call.size > MAX_BYTES):
                self._waiting = self._waiting[place:]
                return batch
            if not call.done.done():
                batch.append(call)
                size += call.size
        self._waiting = []
        return batch

    async def _exchange(self, batch: list[Call]) -> None:
        """Send a batch and give each call its answer; reads whose connection broke once more."""
        attempt = 0
        while batch:
            try:
                connection = await self._connected()
            except Exception as error:  # noqa: BLE001 - each caller gets it, whatever it is
                for call in batch:
                    self._not_sent(call, error)
                return
            batch = await self._send(connection, batch)
            if batch:
                await pause(attempt)
                attempt += 1

    def _not_sent(self, call: Call, error: Exception) -> None:
        if self._moved is not None and self._moved(call, error):
            return
        failure = translate(error)
        call.fail(copy(failure) if failure is error else failure, error)

    async def _connected(self) -> Connection:
        """Return the connection; a new one if there is none, tried for as long as configured.

        Once only in a cluster, for meanwhile another node may serve in its place.
        """
        connection = self._connection
        if connection is not None:
            if connection.is_alive:
                return connection
            self._drop()
        patience = self._options.connect_timeout if self._moved is None else 0
        until = self._loop.time() + patience
        attempt = 0
        while True:
            try:
                self._connection = connection = await self._opening()
            except MCPTasksError:
                raise
            except (*BROKEN, *ANSWERS) as error:
                is_final = isinstance(error, ANSWERS) and not is_passing(error)
                if is_final or self._loop.time() >= until:
                    raise
                await pause(attempt)
                attempt += 1
            else:
                break
        self._open.add(connection)
        if self._keeper is None:
            self._keeper = _keep(self._open)
            await anext(self._keeper)
            # We are part of a circle, and what is in it goes at once. So it is held from outside.
            weakref.finalize(self, _let_go, self._keeper).atexit = False
        return connection

    async def _send(self, connection: Connection, batch: list[Call]) -> list[Call]:
        """Send a batch once.

        Returns:
            The calls that are to be sent again at once: reads without an answer, and those whose
            script the server had forgotten.
        """
        again: list[Call] = []
        timer = self._loop.call_later(self._options.timeout, connection.drop)
        place = 0
        try:
            await connection.send(_commands(batch))
            for place, call in enumerate(batch):  # noqa: B007 - read where it breaks
                if call.is_asking:
                    call.is_asking = False
                    await connection.receive()
                answer = await connection.receive()
                if not isinstance(answer, Exception):
                    call.answer(answer)
                elif self._refused(call, answer):
                    again.append(call)
        except BROKEN as error:
            late = self._loop.time() >= timer.when()
            connection.drop()
            again += self._lost(batch[place:], TimeoutError() if late else error)
        finally:
            timer.cancel()
        if self._is_stale:
            # Now that all of its answers are in.
            self._drop()
        return again

    def _refused(self, call: Call, answer: Exception) -> bool:
        """Deal with an error answer: the command was not done. True to send it again at once."""
        code = code_of(answer)
        if self._moved is not None and code in ("MOVED", "ASK") and self._moved(call, answer):
            return False
        if code in ("READONLY", "NOSCRIPT"):
            # It was a primary once, or has forgotten the scripts: a new connection sees to both.
            self._is_stale = True
        if self._loop.time() < call.until:
            if code == "NOSCRIPT":
                return True
            if is_passing(answer):
                # By itself: what a node refuses for one key, it does for others.
                self._spawn(self._submit_later(call))
                return False
        call.fail(translate(answer), answer)
        return False

    async def _submit_later(self, call: Call) -> None:
        await pause(call.refusals)
        call.refusals += 1
        self.submit(call)

    def _lost(self, batch: list[Call], error: Exception) -> list[Call]:
        """Deal with calls without an answer; return the reads among them, to be sent again."""
        again: list[Call] = []
        for call in batch:
            if call.writes is not None:
                call.fail(OutcomeUnknownError(call.writes, f"Redis: {reason(error)}"), error)
            elif self._loop.time() < call.until:
                again.append(call)
            else:
                call.fail(translate(error), error)
        return again


def _commands(batch: list[Call]) -> list[Command]:
    commands: list[Command] = []
    for call in batch:
        if call.is_asking:
            commands.append(("ASKING",))
        commands.append(call.command)
    return commands


async def _keep(connections: set[Connection]) -> AsyncGenerator[None]:
    """Close what is open when the loop ends, or when nobody knows the connections any more.

    A loop closes the generators that were begun on it; that is the only good-bye it says.
    """
    try:
        yield
    finally:
        for connection in connections:
            connection.drop()
        await asyncio.sleep(0)  # the transports close in the next turn


def _let_go(_: object) -> None:
    """Do nothing: it is enough that the reference is gone."""


async def pause(attempt: int) -> None:
    """Wait a random moment that grows with each attempt."""
    await asyncio.sleep(random.uniform(0, min(0.005 * 2**attempt, 0.5)))  # noqa: S311 - jitter

"""What belongs to one event loop of one process: the lines, and the way to the right one."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from redis import exceptions
from redis.crc import key_slot

from mcp_tasks.errors import ConfigurationError
from mcp_tasks.storage.redis.driver import ANSWERS, BROKEN, Connection, code_of, translate
from mcp_tasks.storage.redis.line import Call, Line, pause


if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable

    from mcp_tasks.storage.redis.driver import Command
    from mcp_tasks.storage.redis.options import RedisOptions, Target

    Node = tuple[str, int]


_T = TypeVar("_T")
_TURNS = 5


class Engine:
    """The running part of a backend.

    Args:
        target: Where the server is.
        options: How the backend was set up.
    """

    def __init__(self, target: Target, options: RedisOptions) -> None:
        self.loop = asyncio.get_running_loop()
        self.process = os.getpid()
        self._target = target
        self._options = options
        self._tasks: set[asyncio.Task[Any]] = set()
        self._lines: dict[Node, Line] = {}
        self._slots: dict[int, Node] = {}
        self._finding: asyncio.Task[None] | None = None
        self._line: Line | None = None
        if target.kind != "cluster":
            self._line = Line(self.open, options, spawn=self.spawn)

    def submit(
        self, command: Command, key: str, *, writes: str | None, size: int
    ) -> asyncio.Future[Any]:
        """Have a command sent with the others of this turn; return what its answer will be in.

        Args:
            command: What is sent.
            key: A key that it uses, which says where it goes in a cluster.
            writes: The record that it writes; `None` for what may be sent again.
            size: Bytes to be sent, about.
        """
        done: asyncio.Future[Any] = self.loop.create_future()
        until = self.loop.time() + self._options.connect_timeout
        if self._line is not None:
            self._line.submit(Call(done, command, writes, 0, size, until))
            return done
        call = Call(done, command, writes, key_slot(key.encode()), size, until)
        node = self._slots.get(call.slot)
        if node is None:
            self.spawn(self._find_way(call, None))
        else:
            self._to(node).submit(call)
        return done

    async def run(self, command: Command, key: str) -> Any:
        """Send one command that may be sent again, and return its answer."""
        return await self.submit(command, key, writes=None, size=256)

    async def everywhere(self) -> AsyncGenerator[Connection]:
        """Give a connection to the server, or one after the other to each primary of a cluster.

        Raises:
            Exception: One of the driver's `ANSWERS` or `BROKEN`, or one of ours for good.
        """
        openings: list[Callable[[], Awaitable[Connection]]] = [self.open]
        if self._line is None:
            await self._find_slots()
            openings = [partial(self._open, node) for node in sorted(set(self._slots.values()))]
        for opening in openings:
            connection = await opening()
            try:
                yield connection
            finally:
                connection.drop()

    def spawn(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Start a task that `close` waits for."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def close(self) -> None:
        """Let everything under way end, then close the connections."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        for line in [*self._lines.values(), *([self._line] if self._line else [])]:
            await line.close()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever was to hear of it may be gone

    # --- connecting ------------------------------------------------------------------------------

    async def open(self) -> Connection:
        """Open a connection to the server; in a cluster to any node.

        Raises:
            Exception: One of the driver's `ANSWERS` or `BROKEN`.
            ConfigurationError: The sentinels know no such service.
        """
        if self._target.kind == "sentinel":
            return await self._open_primary()
        failure: Exception = exceptions.ConnectionError()
        for node in (*self._target.nodes, *set(self._slots.values())):
            try:
                return await self._open(node)
            except (*BROKEN, *ANSWERS) as error:
                failure = error
        raise failure

    async def _open(self, node: Node) -> Connection:
        connection = Connection(node, self._target.settings, self._options.connect_timeout)
        await connection.open()
        return connection

    async def _open_primary(self) -> Connection:
        """Ask the sentinels for the primary, and see that it is one."""
        failure: Exception = exceptions.ConnectionError()
        for sentinel in self._target.nodes:
            try:
                node = await self._ask_sentinel(sentinel)
                connection = await self._open(node)
                role = (await connection.ask([("ROLE",)]))[0]
            except (*BROKEN, *ANSWERS, ConfigurationError) as error:
                failure = error
                continue
            if isinstance(role, list) and role[0] == b"master":
                return connection
            connection.drop()
            failure = exceptions.MasterDownError("the primary is being replaced")
        raise failure

    async def _ask_sentinel(self, sentinel: Node) -> Node:
        connection = Connection(
            sentinel, self._target.sentinel_settings, self._options.connect_timeout
        )
        await connection.open(scripts=False)
        try:
            question = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._target.service)
            answer = (await connection.ask([question]))[0]
        finally:
            connection.drop()
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            msg = f"the sentinels know no service {self._target.service!r}"
            raise ConfigurationError(msg)
        return answer[0].decode(), int(answer[1])

    # --- the way in a cluster --------------------------------------------------------------------

    def _to(self, node: Node) -> Line:
        line = self._lines.get(node)
        if line is None:
            opening = partial(self._open, node)
            line = Line(opening, self._options, spawn=self.spawn, moved=self._moved)
            self._lines[node] = line
        return line

    def _moved(self, call: Call, error: Exception) -> bool:
        """Take over a call that its node did not do."""
        if isinstance(error, exceptions.AskError):  # or `MovedError`, which is a kind of it
            if call.turns == _TURNS:
                return False
            call.turns += 1
            node = self._node_of(call, error)
            if isinstance(error, exceptions.MovedError):
                self._slots[call.slot] = node
            else:
                call.is_asking = True
            self._to(node).submit(call)
            return True
        if isinstance(error, BROKEN):
            self.spawn(self._find_way(call, error))
            return True
        return False

    def _node_of(self, call: Call, error: Any) -> Node:
        """Return where the driver's `AskError` or `MovedError` points to."""
        # A node that does not know its name leaves it out: the same host, another port.
        host = error.host or self._slots.get(call.slot, self._target.nodes[0])[0]
        return str(host), int(error.port)

    async def _find_way(self, call: Call, error: Exception | None) -> None:
        """Send a call on once it is known where to; to the same node again, if that comes back."""
        before = self._slots.get(call.slot)
        while True:
            try:
                await self._find_slots()
            except (*BROKEN, *ANSWERS) as failure:
                error = failure
            except Exception as failure:  # noqa: BLE001 - the caller gets it, whatever it is
                call.fail(translate(failure), failure)
                return
            node = self._slots.get(call.slot)
            if node is not None and (error is None or node != before):
                break
            if self.loop.time() >= call.until:
                error = error or exceptions.ClusterDownError("no node serves this slot")
                call.fail(translate(error), error)
                return
            await pause(4)
            if node is not None:
                break
        self._to(node).submit(call)

    async def _find_slots(self) -> None:
        """Ask a node which one serves what. Those who ask at the same time share the answer."""
        if self._finding is None or self._finding.done():
            self._finding = self.spawn(self._ask_for_slots())
        await asyncio.shield(self._finding)

    async def _ask_for_slots(self) -> None:
        connection = await self.open()
        try:
            answer = (await connection.ask([("CLUSTER", "SLOTS")]))[0]
        finally:
            connection.drop()
        if isinstance(answer, Exception):
            if code_of(answer) or "cluster support disabled" not in str(answer):
                raise answer
            msg = "this server is not part of a cluster: use redis://host:port"
            raise ConfigurationError(msg)
        found: dict[int, Node] = {}
        for first, last, primary, *_ in cast("Iterable[list[Any]]", answer):
            host = primary[0].decode() or connection.node[0]
            found.update(dict.fromkeys(range(first, last + 1), (host, int(primary[1]))))
        self._slots = found

"""Clients of several processes see one order of single steps, whatever fails meanwhile."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
from tests.chaos.calls import CALLERS, history
from tests.chaos.conftest import MANY, ROUNDS
from tests.chaos.scene import Log
from tests.faults.proxy import Proxy

from mcp_tasks.storage.base import Initializable
from mcp_tasks.storage.urls import open_backend
from mcp_tasks.testing.history import violation
from mcp_tasks.testing.servers import NAMES as SERVERS
from mcp_tasks.testing.servers import server_named
from mcp_tasks.testing.servers.dynamodb import DynaliteServer


if TYPE_CHECKING:
    import random
    from pathlib import Path

    from tests.chaos.harness import Nursery

    from mcp_tasks.testing.history import Operation
    from mcp_tasks.testing.servers import ServerProcess


CLIENTS = 3
FEW = {"sqlite": 2_400, "redis": 2_400, "postgres": 1_200, "dynamodb": 600}
MOST = 200
"""Operations for each of `N=`."""

LOST = 0.01
KILLED = 0.5
RESTARTED = 0.25


class Course:
    """Rounds of calls on one store, each on records of its own.

    Args:
        nursery: Where clients come from.
        url: The store, as clients reach it.
        folder: For what they write down.
        dice: For what happens.
        server: What is killed and started again now and then; `None` for a file.

    Attributes:
        operations: How many calls there were that may have happened.
        unanswered: How many of them were never answered.
        kills: Of clients.
        restarts: Of the server.
    """

    def __init__(
        self,
        nursery: Nursery,
        url: str,
        folder: Path,
        dice: random.Random,
        server: ServerProcess | None,
    ) -> None:
        self.operations = self.unanswered = self.kills = self.restarts = 0
        self._nursery = nursery
        self._url = url
        self._folder = folder
        self._dice = dice
        self._server = server
        self._rounds = 0
        self._took = 0.3

    async def round(self) -> list[Operation]:
        """Let clients call, and return what they saw."""
        self._rounds += 1
        file = self._folder / f"history-{self._rounds}"
        log = self._folder / "clients.log"
        job: dict[str, Any] = {"url": self._url, "history": str(file)}
        job["key"] = f"ada:{self._dice.randrange(10**9)}"
        began = time.monotonic()
        clients = [
            await self._nursery.fork("calls.client", log, seed=self._dice.randrange(2**32), **job)
            for _ in range(CLIENTS)
        ]
        try:
            if not self.kills or self._dice.random() < KILLED:
                await asyncio.sleep(self._dice.uniform(0, self._took))
                self.kills += not clients[0].has_ended.is_set()
                await clients[0].kill()
            if self._server is not None and (not self.restarts or self._dice.random() < RESTARTED):
                await asyncio.sleep(self._dice.uniform(0, self._took))
                self.restarts += 1
                self._server.kill()
                await asyncio.to_thread(self._server.start)
            else:
                codes = [await one.ended() for one in clients]
                self._took = time.monotonic() - began
                assert set(codes) <= {0, -9}, clients[0].last_words
            for one in clients:
                await one.ended()
        finally:
            for one in clients:
                await one.kill()
        seen = history(Log(file).read())
        file.unlink()
        self.operations += len(seen)
        self.unanswered += sum(not one.is_answered for one in seen)
        return seen


@pytest.mark.timeout(560)
@pytest.mark.parametrize("kind", ["sqlite", *SERVERS])
async def test_histories_with_faults_are_linearizable(
    kind: str, children: Nursery, folder: Path, dice: random.Random
) -> None:
    """With answers that are lost, clients that are killed, and a server that is."""
    enough = MOST * ROUNDS if ROUNDS >= MANY else FEW[kind]
    async with AsyncExitStack() as stack:
        server: ServerProcess | None = None
        proxy: Proxy | None = None
        url = f"sqlite:///{(folder / 'tasks.db').as_posix()}"
        if kind != "sqlite":
            # The other stand-in for DynamoDB forgets everything when it is killed.
            server = DynaliteServer() if kind == "dynamodb" else server_named(kind)
            stack.enter_context(server)
            await _set_up(server.url)
            proxy = await stack.enter_async_context(Proxy("127.0.0.1", server.port))
            proxy.lose_reply = lambda _: dice.random() < LOST
            proxy.lose_request = lambda _: dice.random() < LOST
            url = server.url.replace(str(server.port), str(proxy.port))
            url += f"{'&' if '?' in url else '?'}timeout=1&connect_timeout=2"
        course = Course(children, url, folder, dice, server)
        while course.operations < enough:
            unexplained = violation(await course.round())
            shown = "\n".join(map(str, unexplained or ()))
            assert unexplained is None, f"no order explains\n{shown}"

    lost = (
        f"{proxy.replies_lost} replies and {proxy.requests_lost} requests lost, " if proxy else ""
    )
    print(  # noqa: T201 - with -s
        f"{kind}: {course.operations} operations of {CLIENTS} processes with {CALLERS} callers, "
        f"{course.unanswered} unanswered, {lost}{course.kills} clients killed, server restarted "
        f"{course.restarts} times: linearizable"
    )
    assert course.unanswered
    assert server is None or course.restarts


async def _set_up(url: str) -> None:
    backend = open_backend(url)
    if isinstance(backend, Initializable):
        await backend.initialize()
    await backend.close()

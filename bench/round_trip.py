"""A task's round trip against a plain `tools/call`, on the same server.

A round trip is the call and then `tasks/get`, at once, until the task is completed. Plain and task
rounds take turns in one run. `ratio` is by server CPU: what a plain call costs, over what a round
trip costs. On a machine of its own the server's CPU is what limits its rate.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench import raw_client
from bench.process import running


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bench.process import ServerProcess


PLAIN = raw_client.call("add", {"a": 1, "b": 2})
TASK = raw_client.call("add_task", {"a": 1, "b": 2})


@dataclass(frozen=True)
class Sample:
    """One round: how many a second, and CPU milliseconds of the server for each."""

    per_second: float
    cpu_ms: float


@dataclass(frozen=True)
class RoundTrip:
    """What one store does at one number of clients; medians over the rounds."""

    store: str
    clients: int
    plain: Sample
    task: Sample
    ratio: float
    rate_ratio: float
    gets: float

    def row(self) -> dict[str, float]:
        """Return what goes into `bench.json`."""
        return {
            "ratio": round(self.ratio, 3),
            "cpu_ms": round(self.task.cpu_ms, 4),
            "plain_cpu_ms": round(self.plain.cpu_ms, 4),
            "per_second": round(self.task.per_second, 1),
        }


async def measure(
    store: str,
    url: str,
    clients: tuple[int, ...],
    *,
    rounds: int,
    seconds: float,
    frozen: bool = False,
) -> list[RoundTrip]:
    """Measure one store.

    Args:
        store: What the rows are called.
        url: Where it is.
        clients: How many connections at once, one result for each.
        rounds: How often plain and task take turns.
        seconds: How long each turn lasts.
        frozen: Whether the server has its garbage collector leave out what was there at its start.
    """
    async with running(url, frozen=frozen) as server:
        return [await _measure(server, store, count, rounds, seconds) for count in clients]


async def _measure(
    server: ServerProcess, store: str, clients: int, rounds: int, seconds: float
) -> RoundTrip:
    connections = [await server.connect() for _ in range(clients)]
    counter = _Counter()
    try:
        await _turn(server, connections, plain_call, min(seconds, 0.5))
        await _turn(server, connections, counter.task_call, min(seconds, 0.5))
        counter.reset()
        plain: list[Sample] = []
        task: list[Sample] = []
        for _ in range(rounds):
            plain.append(await _turn(server, connections, plain_call, seconds))
            task.append(await _turn(server, connections, counter.task_call, seconds))
    finally:
        for connection in connections:
            await connection.__aexit__(None, None, None)
    pairs = list(zip(plain, task, strict=True))
    return RoundTrip(
        store=store,
        clients=clients,
        plain=_median(plain),
        task=_median(task),
        ratio=statistics.median(p.cpu_ms / t.cpu_ms for p, t in pairs),
        rate_ratio=statistics.median(t.per_second / p.per_second for p, t in pairs),
        gets=counter.gets / max(1, counter.tasks),
    )


def _median(samples: list[Sample]) -> Sample:
    return Sample(
        statistics.median(sample.per_second for sample in samples),
        statistics.median(sample.cpu_ms for sample in samples),
    )


async def _turn(
    server: ServerProcess,
    connections: list[raw_client.Connection],
    once: Callable[[raw_client.Connection], Awaitable[Any]],
    seconds: float,
) -> Sample:
    """Let every connection do `once` again and again for `seconds`."""
    done = 0
    began_cpu = await server.cpu()
    began = time.perf_counter()
    until = began + seconds

    async def client(connection: raw_client.Connection) -> None:
        nonlocal done
        while time.perf_counter() < until:
            await once(connection)
            done += 1

    await asyncio.gather(*(client(connection) for connection in connections))
    took = time.perf_counter() - began
    cpu = await server.cpu() - began_cpu
    return Sample(done / took, cpu * 1000 / done)


async def plain_call(connection: raw_client.Connection) -> None:
    """Make one plain call and check its answer."""
    result = await connection.result(PLAIN)
    if result.get("isError") or not result.get("content"):
        raise raw_client.RpcError(f"a plain call answered {result}")


class _Counter:
    """Makes task round trips and counts the polls that they took."""

    def __init__(self) -> None:
        self.tasks = 0
        self.gets = 0

    def reset(self) -> None:
        self.tasks = 0
        self.gets = 0

    async def task_call(self, connection: raw_client.Connection) -> None:
        created = await connection.result(TASK)
        if created.get("resultType") != "task":
            raise raw_client.RpcError(f"no task: {created}")
        poll = raw_client.get(created["taskId"])
        while True:
            state = await connection.result(poll)
            self.gets += 1
            if state["status"] == "completed":
                break
            if state["status"] != "working":
                raise raw_client.RpcError(f"the task ended as {state['status']}")
        self.tasks += 1

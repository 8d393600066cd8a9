"""Costs that grow with something, and must not: steps, arguments, sleeping tasks, restarts."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import raw_client
from bench.process import running, start


if TYPE_CHECKING:
    from bench.process import ServerProcess


_MIB = 2**20


@dataclass(frozen=True)
class LongTask:
    """A resumable task of many steps of 100 bytes, on SQLite.

    Attributes:
        steps: How many.
        first_ms: CPU milliseconds of the server for each of the first 500 steps.
        last_ms: The same for the last 500.
        ratio: Last over first.
    """

    steps: int
    first_ms: float
    last_ms: float
    ratio: float


async def long_task(folder: Path, *, steps: int) -> LongTask:
    """Run a task of `steps` steps and see what the first and the last ones cost."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        async with running(_sqlite(place)) as server, await server.connect() as connection:
            created = await connection.result(raw_client.call("walk", {"steps": steps}))
            done = await _until_done(connection, created["taskId"])
    marks: list[float] = done["result"]["structuredContent"]["result"]
    costs = [(after - before) * 2 for before, after in pairwise(marks)]
    return LongTask(steps, costs[0], costs[-1], costs[-1] / costs[0])


@dataclass(frozen=True)
class LargeArguments:
    """Polling a running task with large arguments against one with none.

    Attributes:
        bytes: How large.
        plain_ms: CPU milliseconds of the server for a poll of the task without.
        large_ms: The same for the task with.
        ratio: With over without.
    """

    bytes: int
    plain_ms: float
    large_ms: float
    ratio: float


async def large_arguments(folder: Path, *, rounds: int, seconds: float) -> LargeArguments:
    """Poll two sleeping tasks in turns, on SQLite."""
    load = "x" * (4 * _MIB - 200)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        async with running(_sqlite(place)) as server:
            connections = [await server.connect() for _ in range(16)]
            polls: list[bytes] = []
            for arguments in ({"seconds": 600}, {"seconds": 600, "load": load}):
                created = await connections[0].result(raw_client.call("nap", arguments))
                polls.append(raw_client.get(created["taskId"]))
            pairs: list[tuple[float, float]] = []
            for _ in range(rounds):
                plain, large = [
                    await _poll_cost(server, connections, poll, seconds) for poll in polls
                ]
                pairs.append((plain, large))
            for connection in connections:
                await connection.__aexit__(None, None, None)
    return LargeArguments(
        len(load),
        statistics.median(plain for plain, _ in pairs),
        statistics.median(large for _, large in pairs),
        statistics.median(large / plain for plain, large in pairs),
    )


async def _poll_cost(
    server: ServerProcess,
    connections: list[raw_client.Connection],
    poll: bytes,
    seconds: float,
) -> float:
    """Return CPU milliseconds of the server for each poll; a poll is held for up to 50 ms."""
    polls = 0
    until = time.perf_counter() + seconds
    began = await server.cpu()

    async def client(connection: raw_client.Connection) -> None:
        nonlocal polls
        while time.perf_counter() < until:
            await connection.result(poll)
            polls += 1

    await asyncio.gather(*(client(connection) for connection in connections))
    return (await server.cpu() - began) * 1000 / polls


@dataclass(frozen=True)
class Sleepers:
    """Many tasks that sleep in one server at the same time, on SQLite.

    Attributes:
        tasks: How many.
        finished: How many of them completed.
        extra_mib: Resident memory over the idle server while all slept; 0 if the system hides it.
    """

    tasks: int
    finished: int
    extra_mib: float


async def sleepers(folder: Path, *, tasks: int, seconds: float) -> Sleepers:
    """Let `tasks` tasks sleep for `seconds` each, at once."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        async with running(_sqlite(place)) as server:
            connections = [await server.connect() for _ in range(16)]
            nap = raw_client.call("nap", {"seconds": seconds})
            # The first calls load what every server has loaded soon.
            for connection in connections:
                warm = await connection.result(raw_client.call("add_task", {"a": 1, "b": 2}))
                await _until_done(connection, warm["taskId"])
            idle = await server.resident()
            ids: list[str] = []

            async def create(connection: raw_client.Connection) -> None:
                while len(ids) < tasks:
                    ids.append("")
                    ids[ids.index("")] = (await connection.result(nap))["taskId"]

            began = time.perf_counter()
            await asyncio.gather(*(create(connection) for connection in connections))
            if time.perf_counter() - began > seconds:
                raise RuntimeError("the first task woke up before the last one was created")
            asleep = await server.resident()
            for connection in connections:
                await connection.__aexit__(None, None, None)
            await asyncio.sleep(seconds)
            async with await server.connect() as connection:
                states = [await connection.result(raw_client.get(task_id)) for task_id in ids]
    finished = sum(state["status"] == "completed" for state in states)
    return Sleepers(len(ids), finished, (asleep - idle) / _MIB)


@dataclass(frozen=True)
class Restart:
    """A server killed with a task at work, and started again at once, on SQLite.

    Attributes:
        running_after_launch: Seconds from the launch of the new process until the task ran in it.
        running_after_ready: Seconds from its first answer; below 0 when the task was faster.
    """

    running_after_launch: float
    running_after_ready: float


async def restart(folder: Path) -> Restart:
    """Kill a server that runs a resumable task; see how long the next one needs to run it."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        witness = Path(place) / "attempts.txt"
        server = await start(_sqlite(place))
        try:
            async with await server.connect() as connection:
                await connection.result(raw_client.call("tick", {"path": str(witness)}))
            await _line(witness, 1)
            server.process.kill()
            server.process.wait()
            launched = time.time()
            server = await start(_sqlite(place), port=server.port)
            ready = time.time()
            began = await _line(witness, 2)
        finally:
            server.process.kill()
            server.process.wait()
    return Restart(began - launched, began - ready)


async def _line(witness: Path, number: int) -> float:
    """Wait for a line in the file that attempts write; return the time it tells."""
    async with asyncio.timeout(60):
        while True:
            lines = _read(witness)
            if len(lines) >= number:
                return float(lines[number - 1].split()[1])
            await asyncio.sleep(0.01)


def _read(witness: Path) -> list[str]:
    return witness.read_text().splitlines() if witness.exists() else []


async def _until_done(connection: raw_client.Connection, task_id: str) -> dict[str, Any]:
    poll = raw_client.get(task_id)
    while True:
        state = await connection.result(poll)
        if state["status"] == "completed":
            return state
        if state["status"] != "working":
            raise raw_client.RpcError(f"the task ended as {state}")
        await asyncio.sleep(0.02)


def _sqlite(place: str) -> str:
    return f"sqlite:///{Path(place, 'tasks.db').as_posix()}"


def rows(*results: LongTask | LargeArguments | Sleepers | Restart) -> dict[str, Any]:
    """Return what goes into `bench-extra.json`."""
    return {type(result).__name__: asdict(result) for result in results}

"""Workers that are stopped for longer than a lease, and then go on as if nothing had been."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from tests.chaos.conftest import MANY, ROUNDS
from tests.chaos.matrix import SLOWER, is_locked
from tests.chaos.scene import OWNER, until
from tests.chaos.stage import PATIENCE, Stage

from mcp_tasks.errors import ContentionError
from mcp_tasks.storage.sqlite import SqliteBackend
from mcp_tasks.testing.servers import NAMES as SERVERS


if TYPE_CHECKING:
    import random
    from pathlib import Path

    from tests.chaos.conftest import Stores
    from tests.chaos.harness import Child, Nursery


TASKS = 4
FAST: dict[str, Any] = {"beat": 0.25, "fence": 1.0, "lease": 1.6, "scan": 0.2, "look": 0.1}
LANES = {"sqlite": 6, "redis": 6, "postgres": 6, "dynamodb": 1}
MOST = {"sqlite": 200, "redis": 200, "postgres": 200, "dynamodb": 30}
"""Rounds, of as many as `N=` says; the stand-in for DynamoDB is slow."""


class Lane(Stage):
    """A worker that is stopped again and again, and one that takes its tasks over.

    Attributes:
        rounds: How often it was stopped, its tasks were run again elsewhere, and it was woken.
        landed: How many records changed after that. There must be none.
    """

    rounds = 0
    landed = 0

    async def run(self, rounds: int, dice: random.Random) -> None:
        """Stop and wake, so many times."""
        helper = await self.fork("crowd.helper")
        zombie = await self.fork("crowd.writer", tasks=TASKS)
        try:
            assert await until(self._is_ready, PATIENCE), zombie.last_words
            while self.rounds < rounds:
                await self._round(zombie, dice)
        finally:
            for one in (zombie, helper):
                await one.kill()
            await self.store.close()

    async def _round(self, zombie: Child, dice: random.Random) -> None:
        assert await until(self._are_two, PATIENCE), zombie.last_words
        known = set(self._created())
        zombie.send(signal.SIGUSR1)
        assert await until(lambda: self._are_created(len(known) + TASKS), PATIENCE)
        tasks = [task_id for task_id in self._created() if task_id not in known]
        if not await until(lambda: self._run_in(zombie, tasks), 3):
            await self._give_up(tasks)  # it was not a worker again yet, so others have them
            return
        await asyncio.sleep(dice.uniform(0, 0.1))
        zombie.send(signal.SIGSTOP)
        await asyncio.wait_for(zombie.has_stopped.wait(), PATIENCE)
        zombie.has_stopped.clear()
        is_file = isinstance(self.store.backend, SqliteBackend)
        is_blocked = is_file and is_locked(f"{self.folder}/tasks.db")
        # Stopped inside of a transaction, nobody can take anything over; and a worker that had lost
        # its lease already runs nothing.
        if is_blocked or self._lines(zombie, "stopped") & set(tasks):
            zombie.send(signal.SIGCONT)
            await self._give_up(tasks)
            return
        assert await until(lambda: self._are_held(tasks), PATIENCE)
        was = [await self._stored(task_id) for task_id in tasks]
        zombie.send(signal.SIGCONT)
        stopped = await until(lambda: self._have_stopped(zombie, tasks), PATIENCE)
        assert stopped, [one for one in self.witness.read() if one["task"] in tasks]
        now = [await self._stored(task_id) for task_id in tasks]
        self.rounds += 1
        self.landed += sum(one != other for one, other in zip(was, now, strict=True))
        await self._give_up(tasks)

    async def _give_up(self, tasks: list[str]) -> None:
        for task_id in tasks:
            while True:  # which may fail: it writes without a pause
                with suppress(ContentionError):
                    await self.store.cancel(OWNER, task_id)
                    break
        assert await until(lambda: self._have_ended(tasks), PATIENCE)

    def _created(self) -> list[str]:
        return [line["task"] for line in self.acks.read() if line["what"] == "created"]

    async def _are_created(self, number: int) -> bool:
        return len(self._created()) >= number

    async def _is_ready(self) -> bool:
        return self.has_said("ready", "writer")

    async def _are_two(self) -> bool:
        return len(await self.workers()) == 2

    def _lines(self, child: Child, what: str) -> set[str]:
        lines = self.witness.read()
        return {one["task"] for one in lines if (one["pid"], one["what"]) == (child.pid, what)}

    async def _run_in(self, zombie: Child, tasks: list[str]) -> bool:
        return set(tasks) <= self._lines(zombie, "start")

    async def _have_stopped(self, zombie: Child, tasks: list[str]) -> bool:
        return set(tasks) <= self._lines(zombie, "stopped")

    async def _are_held(self, tasks: list[str]) -> bool:
        return set(tasks) <= {one["task"] for one in self.witness.read() if one["what"] == "holds"}

    async def _have_ended(self, tasks: list[str]) -> bool:
        return all([(await self.store.get(OWNER, task_id)).is_terminal for task_id in tasks])

    async def _stored(self, task_id: str) -> tuple[int, bytes]:
        found = await self.store.backend.get(self.store.keys.task(OWNER, task_id))
        return found.version, bytes(found.data)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "kind", ["sqlite", *(pytest.param(name, marks=pytest.mark.long) for name in SERVERS)]
)
async def test_a_worker_that_wakes_after_its_lease_writes_nothing(
    kind: str, children: Nursery, stores: Stores, folder: Path, dice: random.Random
) -> None:
    """Its bodies were writing when it was stopped, and go on writing when it wakes."""
    lanes = LANES[kind] if ROUNDS >= MANY else 1
    rounds = -(-min(ROUNDS, MOST[kind]) // lanes) if ROUNDS >= MANY else 1
    config = SLOWER if kind == "dynamodb" else FAST

    async def run(number: int) -> Lane:
        place = folder / str(number)
        place.mkdir()
        url = await stores.url(kind, place)
        lane = Lane(children, url, f"zombie-{dice.randrange(2**32):x}", place, config=config)
        await lane.run(rounds, dice)
        return lane

    await stores.url(kind, folder)  # starts the server
    done = await asyncio.gather(*(run(number) for number in range(lanes)))

    woken, landed = sum(lane.rounds for lane in done), sum(lane.landed for lane in done)
    print(f"{kind}: woken {woken} times, {landed} writes landed")  # noqa: T201 - with -s
    assert (woken, landed) == (rounds * lanes, 0)

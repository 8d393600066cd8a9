"""Servers that are killed at random moments while they create, run, ask, answer and cancel."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from tests.chaos.conftest import MANY, ROUNDS
from tests.chaos.matrix import SLOWER
from tests.chaos.scene import until
from tests.chaos.stage import PATIENCE, Stage
from tests.faults.proxy import Proxy

from mcp_tasks.testing.servers import NAMES as SERVERS


if TYPE_CHECKING:
    import random
    from pathlib import Path

    from tests.chaos.conftest import Stores
    from tests.chaos.harness import Child, Nursery
    from tests.chaos.stage import Verdict


KILLS = {"sqlite": 10, "redis": 8, "postgres": 6, "dynamodb": 2}
"""Unless `N=` asks for more."""


class Crowd:
    """Some members of a stage; who ends is followed by another.

    Args:
        stage: Where.
        dice: For what each of them does.
        size: How many there are.
        creates: Tasks that each creates in its life.
    """

    def __init__(self, stage: Stage, dice: random.Random, *, size: int, creates: int) -> None:
        self.stage = stage
        self.members: list[Child] = []
        self._dice = dice
        self._size = size
        self._creates = creates

    async def fill(self, **more: Any) -> None:
        """Have as many members as there should be."""
        self.members = [one for one in self.members if not one.has_ended.is_set()]
        while len(self.members) < self._size:
            seed = self._dice.randrange(2**32)
            job = {"creates": self._creates, "seed": seed, **more}
            self.members.append(await self.stage.fork("crowd.member", **job))

    async def kill_one(self) -> None:
        """Kill a member, whatever it is doing."""
        await self._dice.choice(self.members).kill()

    async def end(self) -> Verdict:
        """Have all that was promised come to its end, end the members in order, and judge."""
        assert await until(self._have_created, PATIENCE), [one.last_words for one in self.members]
        await self.stage.finish(workers=len(self.members))
        for one in self.members:
            one.send(signal.SIGTERM)
        codes = [await one.ended() for one in self.members]
        assert set(codes) == {0}, [one.last_words for one in self.members]
        return await self.stage.judge()

    async def _have_created(self) -> bool:
        lines = self.stage.acks.read()
        idle = {line["pid"] for line in lines if line["what"] == "created all"}
        return {one.pid for one in self.members} <= idle

    async def kill_all(self) -> None:
        """Leave no process behind."""
        for one in self.members:
            await one.kill()
        await self.stage.store.close()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["sqlite", *SERVERS])
async def test_servers_killed_at_any_moment_lose_nothing_and_do_nothing_twice(
    kind: str, children: Nursery, stores: Stores, folder: Path, dice: random.Random
) -> None:
    """Three at a time on one store, each killed after a moment, and followed by another."""
    kills = ROUNDS if ROUNDS >= MANY else KILLS[kind]
    slow = kind == "dynamodb"
    url = await stores.url(kind, folder)
    config = SLOWER if slow else {}
    stage = Stage(children, url, f"kill-{dice.randrange(2**32):x}", folder, config=config)
    crowd = Crowd(stage, dice, size=2 if slow else 3, creates=5 if slow else 12)
    try:
        for _ in range(kills):
            await crowd.fill()
            await asyncio.sleep(dice.uniform(0.2, 0.8) if slow else dice.uniform(0.03, 0.25))
            await crowd.kill_one()
        await crowd.fill()
        verdict = await crowd.end()
    finally:
        await crowd.kill_all()

    print(f"{kind}: {kills} kills, {told(verdict)}")  # noqa: T201 - with -s, and when it fails
    assert not verdict.faults, verdict.shown


def told(verdict: Verdict) -> str:
    """Say how many tasks there were, how they ended, and on which attempt."""
    records = [record for _, _, record in verdict.evidence.final.values()]
    promised = {line["task"] for line in verdict.evidence.acks if line["what"] == "created"}
    starts = sum(line["what"] == "start" for line in verdict.evidence.witness)
    ends = Counter(str(record.status) for record in records)
    attempts = Counter(record.attempt for record in records if record.policy.is_restartable)
    return (
        f"{len(promised)} tasks promised, {starts} bodies started, "
        f"ends {dict(sorted(ends.items()))}, "
        f"attempts of those that may run again {dict(sorted(attempts.items()))}"
        f", {len(verdict.faults)} faults"
    )


EVENTS = ("kill", "kill", "kill", "stop", "cut", "restart")
RARE = 4
"""Every so many times the database is really started again, which takes a while."""
STOPPED = 2.0
"""Seconds for which a process is stopped: longer than its lease."""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["redis", pytest.param("postgres", marks=pytest.mark.long)])
async def test_the_whole_system_at_once(
    kind: str, children: Nursery, stores: Stores, folder: Path, dice: random.Random
) -> None:
    """Servers killed, stopped and woken, connections cut, the database ended and started again."""
    events = 10 * ROUNDS if ROUNDS >= MANY else 8
    url = await stores.url(kind, folder)
    server = stores.servers[kind]
    done: Counter[str] = Counter()
    async with Proxy("127.0.0.1", server.port) as proxy, asyncio.TaskGroup() as later:
        through = url.replace(f":{server.port}", f":{proxy.port}")
        name = f"whole-{dice.randrange(2**32):x}"
        stage = Stage(children, url, name, folder, through=through)
        crowd = Crowd(stage, dice, size=4, creates=15)
        try:
            for number in range(events):
                await crowd.fill()
                await asyncio.sleep(dice.uniform(0.03, 0.25))
                event = (
                    EVENTS[number % len(EVENTS)] if number < len(EVENTS) else dice.choice(EVENTS)
                )
                done[event] += 1
                if event == "kill":
                    await crowd.kill_one()
                elif event == "stop":
                    later.create_task(_stop_for_a_while(dice.choice(crowd.members)))
                elif event == "cut":
                    proxy.cut()
                elif done[event] % RARE == 1:
                    server.kill()
                    server.start()
            await asyncio.sleep(STOPPED)
            await crowd.fill()
            verdict = await crowd.end()
        finally:
            await crowd.kill_all()

    print(f"{kind}: {dict(done)}, {told(verdict)}")  # noqa: T201 - with -s, and when it fails
    assert not verdict.faults, verdict.shown


async def _stop_for_a_while(member: Child) -> None:
    member.send(signal.SIGSTOP)
    await asyncio.sleep(STOPPED)
    member.send(signal.SIGCONT)

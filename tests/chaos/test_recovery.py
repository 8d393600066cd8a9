"""How long it takes from the death of a worker until its tasks run again."""

from __future__ import annotations

import asyncio
import signal
import statistics
import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.chaos.conftest import MANY, ROUNDS
from tests.chaos.scene import until
from tests.chaos.stage import Stage

from mcp_tasks.runner import RunnerConfig


if TYPE_CHECKING:
    import random
    from pathlib import Path

    from tests.chaos.conftest import Stores
    from tests.chaos.harness import Nursery


_TIMES = RunnerConfig()
WORST = _TIMES.lease + 2 * 1.2 * _TIMES.scan + _TIMES.look
"""Seconds until a death on another machine is noticed at the latest: the look that sees the last
beat comes within a scan, and so does the one that finds it a lease old."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.long)])
async def test_a_death_on_this_machine_is_noticed_at_once(
    kind: str, children: Nursery, stores: Stores, folder: Path, dice: random.Random
) -> None:
    """With the default times: the lock says so, and nobody waits for a lease."""
    rounds = 20 if ROUNDS >= MANY else 1
    url = await stores.url(kind, folder)
    took = await _measure(children, url, folder, dice, rounds=rounds, victims=5)

    report = _report(f"same host, {kind}", took)
    assert took[int(0.99 * (len(took) - 1))] <= (1.0 if ROUNDS >= MANY else 2.0), report


@pytest.mark.timeout(600)
@pytest.mark.long
async def test_a_death_on_another_machine_is_noticed_by_its_lease(
    children: Nursery, stores: Stores, folder: Path, dice: random.Random
) -> None:
    """Its lock tells nothing here."""
    url = await stores.url("sqlite", folder)
    took: list[float] = []
    for _ in range(5):
        took += await _measure(children, url, folder, dice, rounds=1, victims=8, locks=False)

    report = _report("other host, sqlite", sorted(took))
    assert max(took) <= WORST + 1.0, report


async def _measure(
    children: Nursery,
    url: str,
    folder: Path,
    dice: random.Random,
    *,
    rounds: int,
    victims: int = 1,
    locks: bool = True,
) -> list[float]:
    """Kill workers with a task each, and return the seconds until each task runs again, sorted."""
    place = folder / f"{dice.randrange(2**32):x}"
    place.mkdir()
    stage = Stage(children, url, place.name, place)
    times: dict[str, Any] = {"times": {}, "locks": locks}
    helper = await stage.fork("crowd.helper", **times)
    took: list[float] = []
    try:
        assert await until(lambda: _said(stage, "started", 1), 20)
        for _ in range(rounds):
            before = len(stage.witness.read())
            doomed = [await stage.fork("crowd.holder", tasks=1, **times) for _ in range(victims)]
            assert await until(_Witnessed(stage, before + victims), 20)
            await asyncio.sleep(dice.uniform(2.5, 4.5))  # long enough to have been seen
            killed: dict[int, int] = {}
            for one in doomed:
                killed[one.pid] = time.monotonic_ns()
                one.send(signal.SIGKILL)
                await asyncio.sleep(dice.uniform(0, 0.3))
            assert await until(_Ended(stage, before, victims), 60)
            lines = stage.witness.read()[before:]
            first = {line["task"]: line["pid"] for line in lines if line["attempt"] == 1}
            again: dict[str, int] = {}
            for line in lines:  # one that is about to die itself may claim, and not even begin
                if line["attempt"] > 1 and line["what"] == "start":
                    again.setdefault(line["task"], line["at"])
            took += [(at - killed[first[task]]) / 1e9 for task, at in again.items()]
    finally:
        await helper.kill()
        await stage.store.close()
    assert len(took) == rounds * victims
    return sorted(took)


async def _said(stage: Stage, what: str, times: int) -> bool:
    return sum(line["what"] == what for line in stage.acks.read()) >= times


class _Witnessed:
    """Whether so many lines were written by bodies."""

    def __init__(self, stage: Stage, lines: int) -> None:
        self._stage = stage
        self._lines = lines

    async def __call__(self) -> bool:
        return len(self._stage.witness.read()) >= self._lines


class _Ended:
    """Whether bodies of so many tasks came to their end, of those that were witnessed lately."""

    def __init__(self, stage: Stage, after: int, tasks: int) -> None:
        self._stage = stage
        self._after = after
        self._tasks = tasks

    async def __call__(self) -> bool:
        lines = self._stage.witness.read()[self._after :]
        return len({line["task"] for line in lines if line["what"] == "end"}) >= self._tasks


def _report(what: str, took: list[float]) -> str:
    """Show the distribution."""
    at = {q: took[min(len(took) - 1, int(q * len(took)))] for q in (0.5, 0.9, 0.99)}
    text = (
        f"{what}: {len(took)} deaths, mean {statistics.mean(took):.2f} s, "
        + ", ".join(f"p{100 * q:.0f} {seconds:.2f} s" for q, seconds in at.items())
        + f", longest {took[-1]:.2f} s"
    )
    print(text)  # noqa: T201 - with -s, and when it fails
    return text


async def test_nobody_waits_for_the_next_look_at_all_workers(
    children: Nursery, stores: Stores, folder: Path
) -> None:
    """It comes in a minute, and the lock of a worker that was seen alive tells at once."""
    stage = Stage(children, await stores.url("sqlite", folder), "scan", folder)
    rare: dict[str, Any] = {"times": {"scan": 60, "lease": 200, "fence": 100, "look": 0.2}}
    victim = await stage.fork("crowd.holder", tasks=1, **rare)
    assert await until(_Witnessed(stage, 1), 20)
    helper = await stage.fork("crowd.helper", **rare)
    try:
        assert await until(lambda: _said(stage, "started", 2), 20)
        await asyncio.sleep(1)
        await victim.kill()
        assert await until(_Witnessed(stage, 3), 20)
    finally:
        await victim.kill()
        await helper.kill()
        await stage.store.close()

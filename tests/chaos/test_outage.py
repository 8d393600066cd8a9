"""The database away under running tasks: stopped, cut off, or ended and started again."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from tests.chaos.conftest import MANY, ROUNDS
from tests.chaos.outage import freeze, thaw
from tests.chaos.scene import until
from tests.chaos.stage import Stage
from tests.chaos.test_crowd import told
from tests.faults.proxy import Proxy

from mcp_tasks.domain.status import TaskStatus


if TYPE_CHECKING:
    import random
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from tests.chaos.conftest import Stores
    from tests.chaos.harness import Nursery

    from mcp_tasks.testing.servers import ServerProcess


TASKS = 200
HOSTS = 2
SOON = 5.0
"""Seconds after the return of the database in which every outcome has to be recorded."""

IMPATIENT = 10
"""An outage of fewer seconds would be waited out by a backend as patient as usual."""

KINDS = ("redis", "postgres")
WAYS = ("frozen", "cut", "restarted")
LONG = [(kind, seconds, way) for kind in KINDS for seconds in (5, 15, 60) for way in WAYS]
SHORT = ("redis", 5, "restarted")


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("kind", "seconds", "way"),
    [SHORT, *(pytest.param(*one, marks=pytest.mark.long) for one in LONG if one != SHORT)],
)
async def test_nothing_is_lost_or_done_twice_while_the_database_is_away(
    kind: str,
    seconds: int,
    way: str,
    children: Nursery,
    stores: Stores,
    folder: Path,
    dice: random.Random,
) -> None:
    """With the default times, so that bodies are stopped by the fence in the longer ones."""
    url = await stores.url(kind, folder)
    server = stores.servers[kind]
    async with Proxy("127.0.0.1", server.port) as proxy:
        name = f"away-{dice.randrange(2**32):x}"
        through = url.replace(f":{server.port}", f":{proxy.port}")
        if seconds < IMPATIENT:
            through += "?timeout=1&connect_timeout=1"
        stage = Stage(children, url, name, folder, through=through)
        job: dict[str, Any] = {
            "times": {"cleanup_every": 0},
            "away": seconds,
            "tasks": TASKS // HOSTS,
        }
        hosts = [await stage.fork("outage.host", **job) for _ in range(HOSTS)]
        try:
            assert await until(lambda: _run(stage), 60), [one.last_words for one in hosts]
            assert len({line["pid"] for line in stage.witness.read()}) == HOSTS
            for one in hosts:
                one.send(signal.SIGUSR1)
            went = time.monotonic()
            async with _away(server, proxy, way):
                await asyncio.sleep(seconds)
            back = time.monotonic()
            assert await until(lambda: _are_over(stage), 60), [one.last_words for one in hosts]
            took = time.monotonic() - back
            workers = {line["pid"] for line in stage.witness.read()}
            for one in hosts:
                one.send(signal.SIGTERM)
            assert [await one.ended() for one in hosts] == [0] * HOSTS
            verdict = await stage.judge()
        finally:
            for one in hosts:
                await one.kill()
            await stage.store.close()

    ends = [line["at"] / 1e9 for line in stage.witness.read() if line["what"] == "end"]
    meanwhile = sum(went < at < back for at in ends)
    said = (
        f"{kind} {way} for {seconds} s: {meanwhile} bodies ended meanwhile, all outcomes recorded "
        f"{took:.2f} s after; {told(verdict)}"
    )
    print(said)  # noqa: T201 - with -s, and when it fails
    assert not verdict.faults, verdict.shown
    assert workers == {one.pid for one in hosts}
    final = verdict.evidence.final
    promised = {line["task"] for line in stage.acks.read() if line["what"] == "created"}
    assert {final[task_id][2].status for task_id in promised} == {TaskStatus.COMPLETED}, said
    # What a server was asked for in its last moment waits for another one, and names none.
    assert all(one.is_terminal or one.worker is None for _, _, one in final.values()), said
    assert len(promised) >= TASKS, said
    assert 0 < meanwhile < TASKS, said
    assert took <= (SOON if ROUNDS >= MANY else 2 * SOON), said


CALM: dict[str, Any] = {"beat": 0.5, "fence": 3.0, "lease": 6.0, "scan": 0.4, "cleanup_every": 0}


async def test_a_reaper_that_could_not_read_takes_nobody_over_by_that_alone(
    children: Nursery, stores: Stores, folder: Path
) -> None:
    """Both are cut off for longer than a lease, and the reaper comes back a little earlier."""
    url = await stores.url("redis", folder)
    port = stores.servers["redis"].port
    stage = Stage(children, url, f"reaper-{folder.name}", folder)
    async with Proxy("127.0.0.1", port) as one, Proxy("127.0.0.1", port) as two:
        mine, theirs = (url.replace(f":{port}", f":{proxy.port}") for proxy in (one, two))
        host = await stage.fork("outage.host", url=mine, times=CALM, tasks=1, away=0)
        reaper = await stage.fork("crowd.helper", url=theirs, times=CALM)
        try:
            assert await until(lambda: _have_begun(stage), 60)
            await asyncio.sleep(2 * CALM["scan"])  # it has seen the other one
            before = await stage.look()
            for proxy in (one, two):
                proxy.refusing = True
                proxy.cut()
            await asyncio.sleep(1.25 * CALM["lease"])
            two.refusing = False
            await asyncio.sleep(2 * CALM["scan"])
            one.refusing = False
            await asyncio.sleep(2 * CALM["beat"])
            assert before == await stage.look()
            host.send(signal.SIGUSR1)
            assert await until(lambda: _are_over(stage), 60)
            for child in (host, reaper):
                child.send(signal.SIGTERM)
                assert await child.ended() == 0, child.last_words
            verdict = await stage.judge()
        finally:
            for child in (host, reaper):
                await child.kill()
            await stage.store.close()

    assert not verdict.faults, verdict.shown
    promised = {line["task"] for line in stage.acks.read() if line["what"] == "created"}
    ends = {verdict.evidence.final[task_id][2].status for task_id in promised}
    assert ends == {TaskStatus.COMPLETED}, told(verdict)


async def _have_begun(stage: Stage) -> bool:
    """Tell whether both are workers, and the task runs."""
    return len(await stage.workers()) == 2 and bool(stage.witness.read())


async def _run(stage: Stage) -> bool:
    """Tell whether every body has come to where it waits."""
    return sum(line["what"] == "waits" for line in stage.witness.read()) == TASKS


async def _are_over(stage: Stage) -> bool:
    """Tell whether everything that was promised has ended."""
    ended = {record.task_id for record in await stage.look() if record.is_terminal}
    return ended >= {line["task"] for line in stage.acks.read() if line["what"] == "created"}


@asynccontextmanager
async def _away(server: ServerProcess, proxy: Proxy, way: str) -> AsyncGenerator[None]:
    """Take the database away for as long as the block runs."""
    if way == "frozen":
        pids = freeze(server)
        try:
            yield
        finally:
            thaw(pids)
    elif way == "cut":
        proxy.refusing = True
        proxy.cut()
        yield
        proxy.refusing = False
    else:
        server.stop()
        yield
        await asyncio.to_thread(server.start)

"""Very many tasks: running, waiting for people, and poisonous ones among good ones."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from tests.chaos.conftest import MANY, ROUNDS
from tests.chaos.scene import OWNER, until
from tests.chaos.stage import Stage

from mcp_tasks.domain.status import TaskStatus
from mcp_tasks.runner.worker import read_worker


if TYPE_CHECKING:
    import random
    from pathlib import Path

    from tests.chaos.conftest import Stores
    from tests.chaos.harness import Child, Nursery


TASKS = 10_000
MIB = 2**20


@pytest.mark.timeout(480)
@pytest.mark.long
async def test_ten_thousand_running_tasks_cost_one_write_a_beat_and_little_memory(
    children: Nursery, stores: Stores, folder: Path
) -> None:
    """In one process on SQLite."""
    stage = Stage(children, await stores.url("sqlite", folder), "running", folder)
    times = {"max_running": 2 * TASKS, "cleanup_every": 0, "beat": 1.0}
    one = await stage.fork("crowd.many", tool="hold", tasks=TASKS, times=times)
    try:
        assert await until(lambda: _is_ready(stage), 400), one.last_words
        said = stage.said("ready", "many")
        before = await read_worker(stage.store, said["worker"])
        await asyncio.sleep(10)
        after = await read_worker(stage.store, said["worker"])
        assert before is not None
        assert after is not None
        beats = after[1] - before[1]
    finally:
        await one.kill()
        await stage.store.close()

    grown = (said["used"] - said["idle"]) / MIB
    print(  # noqa: T201 - with -s, and when it fails
        f"{TASKS} more running tasks: {grown:.0f} MiB over idle, {beats} writes in 10 beats, "
        f"{said['seconds']:.1f} s to create them"
    )
    assert grown <= 150
    assert 7 <= beats <= 11


@pytest.mark.timeout(480)
@pytest.mark.long
async def test_ten_thousand_parked_tasks_outlive_their_server_and_hold_no_memory(
    children: Nursery, stores: Stores, folder: Path
) -> None:
    """Killed, and answered on another server that was never told of them."""
    stage = Stage(children, await stores.url("sqlite", folder), "parked", folder)
    times = {"cleanup_every": 0}
    one = await stage.fork("crowd.many", tool="asks", tasks=TASKS, times=times)
    another: Child | None = None
    try:
        assert await until(lambda: _is_ready(stage), 400), one.last_words
        said = stage.said("ready", "many")
        await one.kill()
        another = await stage.fork("crowd.helper", times=times)
        created = [line["task"] for line in stage.acks.read() if line["what"] == "created"]
        answered = created[:: TASKS // 200]
        for task_id in answered:
            given = {"go": {"action": "accept", "content": {"by": "test"}}}
            await stage.store.answer(OWNER, task_id, given)
        assert await until(lambda: _are_done(stage, list(answered)), 120), another.last_words
        waiting = await stage.store.get(OWNER, created[1])
    finally:
        for process in (one, another):
            if process is not None:
                await process.kill()
        await stage.store.close()

    grown = (said["used"] - said["idle"]) / MIB
    print(  # noqa: T201
        f"{TASKS} more parked tasks: {grown:.1f} MiB over idle; after a kill {len(answered)} were "
        "answered on another server, and came to their end"
    )
    assert grown <= 10
    assert waiting.status is TaskStatus.INPUT_REQUIRED


@pytest.mark.timeout(480)
async def test_poison_ends_clearly_and_takes_nobody_with_it(
    children: Nursery, stores: Stores, folder: Path, dice: random.Random
) -> None:
    """Each poisonous task ends its process three times, among good ones that run there too."""
    good, poison = (1_000, 100) if ROUNDS >= MANY else (30, 3)
    stage = Stage(children, await stores.url("sqlite", folder), "poison", folder)
    config: dict[str, Any] = {"max_running": 4}
    kinds = ["poison"] * poison + ["work"] * good
    dice.shuffle(kinds)
    maker = await stage.fork("crowd.maker", kinds=kinds, config=config)
    workers: list[Child] = []
    deaths = 0

    async def is_over() -> bool:
        nonlocal deaths
        deaths += sum(one.has_ended.is_set() for one in workers)
        workers[:] = [one for one in workers if not one.has_ended.is_set()]
        while len(workers) < 4:
            workers.append(await stage.fork("crowd.helper", config=config))
        return await _are_done(stage, created)

    try:
        assert await maker.ended() == 0, maker.last_words
        created = [line["task"] for line in stage.acks.read() if line["what"] == "created"]
        assert await until(is_over, 400)
        await stage.finish(workers=4)
        for one in workers:
            one.send(signal.SIGTERM)
        for one in workers:
            await one.ended()
        verdict = await stage.judge()
    finally:
        for one in workers:
            await one.kill()
        await stage.store.close()

    records = [record for _, _, record in verdict.evidence.final.values()]
    ends = Counter((record.call.tool, str(record.status)) for record in records)
    attempts = Counter(record.attempt for record in records if record.call.tool == "work")
    print(  # noqa: T201
        f"{poison} poisonous among {good}: {deaths} processes ended, {dict(ends)}, "
        f"attempts of the good ones {dict(sorted(attempts.items()))}"
    )
    assert ends == {("work", "completed"): good, ("poison", "failed"): poison}
    poisonous = [record for record in records if record.call.tool == "poison"]
    assert {record.attempt for record in poisonous} == {3}
    assert {record.error.message for record in poisonous if record.error is not None} == {
        "3 attempts ended with their worker; the tool is not run again"
    }
    assert [fault for fault in verdict.faults if "its tool did not" not in fault.what] == []


async def _is_ready(stage: Stage) -> bool:
    return stage.has_said("ready", "many")


async def _are_done(stage: Stage, tasks: list[str]) -> bool:
    """Tell whether tasks have ended; one that has not is looked at again first."""
    while tasks:
        if not (await stage.store.get(OWNER, tasks[-1])).is_terminal:
            return False
        tasks.pop()
    return True

"""The database goes away under running work, and comes back."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.chaos.scene import until
from tests.chaos.stage import Stage

from mcp_tasks.errors import MCPTasksError


if TYPE_CHECKING:
    from pathlib import Path

    from tests.chaos.conftest import Stores
    from tests.chaos.harness import Child, Nursery
    from tests.chaos.stage import Verdict


@pytest.mark.timeout(600)
@pytest.mark.long
@pytest.mark.parametrize("seconds", [5, 15, 60])
@pytest.mark.parametrize("kind", ["redis", "postgres"])
async def test_an_outage_costs_no_task_and_runs_nothing_twice(
    kind: str, seconds: int, children: Nursery, stores: Stores, folder: Path
) -> None:
    """Default times, 200 tasks, of which many end while nothing can be written."""
    times = {"times": {"max_running": 400}}
    await _go_through(children, stores, kind, folder, tasks=200, seconds=seconds, job=times)


async def test_a_short_outage_costs_no_task(
    children: Nursery, stores: Stores, folder: Path
) -> None:
    """The same with short times: it is longer than a lease."""
    await _go_through(children, stores, "redis", folder, tasks=40, seconds=2, job={})


async def _go_through(
    children: Nursery,
    stores: Stores,
    kind: str,
    folder: Path,
    *,
    tasks: int,
    seconds: int,
    job: dict[str, Any],
) -> None:
    stage = Stage(children, await stores.url(kind, folder), f"outage-{seconds}", folder)
    pace = seconds + 3
    both = [
        await stage.fork("crowd.starter", tasks=tasks, pace=pace, **job),
        await stage.fork("crowd.helper", pace=pace, **job),
    ]
    try:
        assert await until(lambda: _is_ready(stage), 60), both[0].last_words
        server = stores.servers[kind]
        server.kill()
        await asyncio.sleep(seconds)
        server.start()
        back = time.monotonic_ns()
        seen = await _seen_to_end(stage, tasks, 60 + 2 * pace)
        verdict = await _ended(stage, both)
    finally:
        for one in both:
            await one.kill()
        await stage.store.close()

    late = _lateness(verdict, seen, back)
    records = [record for _, _, record in verdict.evidence.final.values()]
    again = sum(record.attempt > 1 for record in records)
    print(  # noqa: T201 - with -s, and when it fails
        f"{kind} away for {seconds} s: {len(records)} tasks, {again} ran again, "
        f"outcomes recorded at most {late:.2f} s after its return or their end"
    )
    assert not verdict.faults, verdict.shown
    assert len(records) == tasks
    assert {str(record.status) for record in records} == {"completed"}
    assert late < 5.0


async def _is_ready(stage: Stage) -> bool:
    return stage.has_said("ready", "starter")


async def _seen_to_end(stage: Stage, tasks: int, seconds: float) -> dict[str, int]:
    """Return when each task was first seen to have ended."""
    seen: dict[str, int] = {}
    until_ = time.monotonic() + seconds
    while len(seen) < tasks and time.monotonic() < until_:
        try:
            for record in await stage.look():
                if record.is_terminal:
                    seen.setdefault(record.task_id, time.monotonic_ns())
        except MCPTasksError:  # not quite back yet
            continue
        finally:
            await asyncio.sleep(0.1)
    assert len(seen) == tasks
    return seen


async def _ended(stage: Stage, both: list[Child]) -> Verdict:
    await stage.finish(workers=2)
    for one in both:
        one.send(signal.SIGTERM)
    assert [await one.ended() for one in both] == [0, 0]
    return await stage.judge()


def _lateness(verdict: Verdict, seen: dict[str, int], back: int) -> float:
    """Return the longest time from a body's end, or from the return, until it was recorded."""
    ended = {line["task"]: line["at"] for line in verdict.evidence.witness if line["what"] == "end"}
    return max((seen[task_id] - max(at, back)) / 1e9 for task_id, at in ended.items())

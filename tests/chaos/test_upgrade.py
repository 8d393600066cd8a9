"""Servers replaced one by one by those of another build, under load."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
from tests.chaos.builds import NoBuildError, over, previous_build
from tests.chaos.conftest import MANY, ROUNDS
from tests.chaos.harness import nursery
from tests.chaos.scene import until
from tests.chaos.stage import PATIENCE, Stage
from tests.chaos.test_crowd import told

from mcp_tasks.testing.servers.dynamodb import CREDENTIALS


if TYPE_CHECKING:
    import random
    from pathlib import Path

    from tests.chaos.conftest import Stores
    from tests.chaos.harness import Child


SIZE = 3
TURNS = 25
"""How often all servers are replaced in the long run; an odd number, to end with the new build."""
ONLY_NEW = "work"
"""A tool that the earlier build does not have."""


class Build:
    """One build's side of a stage.

    Args:
        stage: Over the store that both share.
        lacks: A tool that this build does not have.
    """

    def __init__(self, stage: Stage, lacks: str = "") -> None:
        self.stage = stage
        self._lacks = lacks

    async def start(self, dice: random.Random) -> Child:
        """Start a server of this build, and return it once it serves."""
        job = {"creates": 15, "seed": dice.randrange(2**32), "lacks": self._lacks}
        return await _serving(self.stage, await self.stage.fork("builds.member", **job))


async def _serving(stage: Stage, child: Child) -> Child:
    """Return a server once it serves, and knows what a SIGTERM means."""

    async def serves() -> bool:
        lines = stage.acks.read()
        return any((one["pid"], one["what"]) == (child.pid, "started") for one in lines)

    assert await until(serves, PATIENCE), child.last_words
    return child


@pytest.mark.timeout(400)
@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_a_rolling_upgrade_loses_nothing_and_does_nothing_twice(
    kind: str,
    stores: Stores,
    folder: Path,
    dice: random.Random,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Forward, and in the long run back and forward again; a third of the servers are killed."""
    source: Path | None = None
    try:
        source = previous_build(folder / "before")
    except NoBuildError as error:
        with capsys.disabled():
            print(f"\n{error}; both halves run the present build")  # noqa: T201
    url = await stores.url(kind, folder)
    shared = {**CREDENTIALS, "XDG_STATE_HOME": str(folder / "locks")}
    earlier = {**shared, "PYTHONPATH": str(source)} if source else shared
    name = f"upgrade-{dice.randrange(2**32):x}"
    members: list[Child] = []
    async with AsyncExitStack() as stack:
        nurseries = [await stack.enter_async_context(nursery(it)) for it in (earlier, shared)]
        stages = [Stage(one, url, name, folder) for one in nurseries]
        old, new = Build(stages[0], lacks=ONLY_NEW), Build(stages[1])
        try:
            members += [await old.start(dice) for _ in range(SIZE)]
            for turn in range(TURNS if ROUNDS >= MANY else 1):
                await _replace(members, (new, old)[turn % 2], dice)
            over(folder).touch()
            for one in members:
                one.send(signal.SIGTERM)
            assert {await one.ended() for one in members} == {0}, [o.last_words for o in members]
            helper = await stages[1].fork("crowd.helper")  # runs what they handed back
            members = [await _serving(stages[1], helper)]
            await stages[1].finish(workers=1)
            members[0].send(signal.SIGTERM)
            assert await members[0].ended() == 0, members[0].last_words
            verdict = await stages[1].judge()
        finally:
            for one in members:
                await one.kill()
            for stage in stages:
                await stage.store.close()

    builds = [line["path"] for line in verdict.evidence.acks if line["what"] == "build"]
    were_old = sum(path.startswith(str(folder)) for path in builds)
    said = f"{kind}: {were_old} servers of {len(builds)} of the earlier build; {told(verdict)}"
    print(said)  # noqa: T201 - with -s, and when it fails
    assert not verdict.faults, verdict.shown
    assert source is None or 2 * were_old == len(builds), said
    assert _ran(verdict.evidence.acks, verdict.evidence.witness, ONLY_NEW), said


async def _replace(members: list[Child], by: Build, dice: random.Random) -> None:
    """Replace all members, one after the other: the second is killed, the others end in order."""
    for place in range(SIZE):
        await asyncio.sleep(dice.uniform(0.1, 0.4))
        leaving, members[place] = members[place], await by.start(dice)
        if place % 2:
            leaving.send(signal.SIGKILL)
        else:
            leaving.send(signal.SIGTERM)
            assert await leaving.ended() == 0, leaving.last_words


def _ran(acks: list[dict[str, Any]], witness: list[dict[str, Any]], tool: str) -> bool:
    """Tell whether tasks of a tool were run."""
    made = {line["task"] for line in acks if line["what"] == "created" and line["tool"] == tool}
    return any(line["task"] in made for line in witness)

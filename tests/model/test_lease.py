"""A worker's record is never taken while its lease is good, whatever the clocks do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.model import lease
from tests.model.lease import BEAT, FENCE, GAP, LEASE, QUICK_RACES, RACE_MISTAKES, Lease, raced
from tests.model.search import search

from mcp_tasks.runner.config import RunnerConfig


if TYPE_CHECKING:
    from tests.model.lease import Race


@pytest.mark.parametrize("race", QUICK_RACES, ids=[race.name for race in QUICK_RACES])
def test_a_worker_is_taken_only_when_its_lease_is_over(race: Race) -> None:
    """Between the two there is time, however the clocks go and whichever answers are lost."""
    verdict = search(Lease(race))

    assert verdict.broken is None, "\n".join((verdict.broken or "", *verdict.history))


@pytest.mark.parametrize("name", RACE_MISTAKES)
def test_a_planted_mistake_about_time_is_found(name: str) -> None:
    """A search that finds nothing says something only if it finds what is there."""
    verdict = search(raced(name))

    assert verdict.broken is not None, f"{RACE_MISTAKES[name][0]}: nobody noticed"


def test_every_mistake_about_time_is_planted() -> None:
    """A mistake that nobody plants shows nothing."""
    source = Path(lease.__file__).read_text(encoding="utf-8")

    assert set(re.findall(r'_is_wrong\("(\w+)"', source)) == RACE_MISTAKES.keys()


def test_the_times_are_those_of_the_runner() -> None:
    """What is searched is what is configured: a unit is 1.25 seconds."""
    times = RunnerConfig()
    gap = 2 * 1.2 * times.scan + times.look

    assert (times.beat, times.fence, times.lease) == (BEAT * 1.25, FENCE * 1.25, LEASE * 1.25)
    assert gap <= GAP * 1.25

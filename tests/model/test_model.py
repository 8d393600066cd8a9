"""Every quick configuration holds, and every planted mistake is found."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.model.configurations import LONG, QUICK
from tests.model.mistakes import MISTAKES, planted
from tests.model.search import STUCK, search
from tests.model.world import World

from mcp_tasks.failpoints import NAMES


if TYPE_CHECKING:
    from tests.model.configuration import Configuration
    from tests.model.search import Verdict


SOUND = list(dict.fromkeys(m.where for m in MISTAKES.values() if not m.is_long))


@cache
def _searched(configuration: Configuration) -> tuple[Verdict, frozenset[str]]:
    """Search a configuration; return the moments that were come by, too."""
    world = World(configuration)
    return search(world), frozenset(world.reached - {""})


@pytest.mark.parametrize("configuration", QUICK, ids=[c.name for c in QUICK])
def test_a_configuration_keeps_every_rule(configuration: Configuration) -> None:
    """The protocol holds in every order of steps, with every fault at every moment."""
    verdict, _ = _searched(replace(configuration, name=""))

    assert verdict.broken is None, "\n".join((verdict.broken or "", *verdict.history))


@pytest.mark.parametrize("name", MISTAKES)
def test_a_planted_mistake_is_found(name: str) -> None:
    """A search that finds nothing says something only if it finds what is there."""
    verdict = search(World(planted(name)))

    assert verdict.broken is not None, f"{MISTAKES[name].what}: nobody noticed"
    assert verdict.broken in verdict.history[-1] or verdict.broken == STUCK


@pytest.mark.parametrize("where", SOUND, ids=range(len(SOUND)))
def test_without_its_mistake_a_configuration_holds(where: Configuration) -> None:
    """Nothing else is wrong where a mistake is planted, so it is the mistake that is found."""
    verdict, _ = _searched(replace(where, name=""))

    assert verdict.broken is None, "\n".join((verdict.broken or "", *verdict.history))


def test_the_steps_of_the_model_are_the_failpoints_of_the_code() -> None:
    """What is searched and what is killed are one protocol: each name is a moment in both."""
    reached: set[str] = set()
    for configuration in QUICK:
        reached |= _searched(replace(configuration, name=""))[1]

    assert reached == NAMES


def test_every_mistake_in_the_actors_is_planted() -> None:
    """A mistake that nobody plants shows nothing, and a name without a mistake neither."""
    asked_for: set[str] = set()
    for path in Path(__file__).parent.glob("*.py"):
        asked_for.update(re.findall(r'\bis_wrong\(\s*"(\w+)"', path.read_text(encoding="utf-8")))

    needed = {mistake.needs for mistake in MISTAKES.values() if mistake.needs}
    assert asked_for == MISTAKES.keys() | needed


def test_configurations_have_names_of_their_own() -> None:
    """The table and a failing test name what was searched."""
    names = [configuration.name for configuration in QUICK + LONG]

    assert len(set(names)) == len(names)

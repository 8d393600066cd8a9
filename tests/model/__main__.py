"""`make model`: search everything, and print what was found.

Without a name: a line for each configuration and each planted mistake. With names of either: the
shortest histories, too.
"""

# ruff: noqa: T201 - a command talks to its terminal

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from tests.model.configurations import LONG, QUICK
from tests.model.lease import LONG_RACES, QUICK_RACES, RACE_MISTAKES, Lease, raced
from tests.model.mistakes import MISTAKES, planted
from tests.model.search import search
from tests.model.world import World


if TYPE_CHECKING:
    from tests.model.search import System, Verdict


def main() -> int:
    """Search. Returns how many searches did not show what they should."""
    parser = argparse.ArgumentParser(prog="make model", description=__doc__)
    parser.add_argument("names", nargs="*", help="configurations or mistakes; all by default")
    names: list[str] = parser.parse_args().names
    sound = {name: system for name, system in _sound().items() if not names or name in names}
    wrong = {name: entry for name, entry in _wrong().items() if not names or name in names}
    if unknown := set(names) - sound.keys() - wrong.keys():
        parser.error(f"nothing is called {', '.join(sorted(unknown))}")

    failed = 0
    if sound:
        print("These hold, whatever happens:\n")
        print(f"  {'configuration':26}{'states':>11}{'seconds':>9}")
    for name, system in sound.items():
        verdict = search(system)
        failed += verdict.broken is not None
        told = "" if verdict.broken is None else f"  BROKEN: {verdict.broken}"
        print(f"  {name:26}{_cost(verdict)}{told}")
        _show(verdict, wanted=verdict.broken is not None)
    if wrong:
        print("\nThese mistakes are found:\n")
        print(f"  {'mistake':26}{'states':>11}{'seconds':>9}{'steps':>7}  what shows")
    for name, (what, system) in wrong.items():
        verdict = search(system)
        failed += verdict.broken is None
        found = verdict.broken or "NOTHING: it is not found"
        print(f"  {name:26}{_cost(verdict)}{len(verdict.history):7}  {found}")
        _show(verdict, wanted=bool(names), title=what)
    print(f"\n{failed} wrong" if failed else "\nAll as it should be.")
    return failed


def _sound() -> dict[str, System]:
    systems: dict[str, System] = {c.name: World(c) for c in QUICK + LONG}
    return systems | {race.name: Lease(race) for race in QUICK_RACES + LONG_RACES}


def _wrong() -> dict[str, tuple[str, System]]:
    systems: dict[str, tuple[str, System]] = {
        name: (mistake.what, World(planted(name))) for name, mistake in MISTAKES.items()
    }
    return systems | {name: (what, raced(name)) for name, (what, _) in RACE_MISTAKES.items()}


def _cost(verdict: Verdict) -> str:
    return f"{verdict.states:11,}{verdict.seconds:9.1f}"


def _show(verdict: Verdict, *, wanted: bool, title: str = "") -> None:
    if wanted:
        print("", *(f"      {line}" for line in (title, *verdict.history) if line), "", sep="\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(min(main(), 1))

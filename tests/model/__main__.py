"""`make model`: search everything, and print what was found.

Without a name: a line for each configuration and each planted mistake. With names of either: the
shortest history of those that do not hold, too.
"""

# ruff: noqa: T201 - a command talks to its terminal

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from tests.model.configurations import LONG, QUICK
from tests.model.mistakes import MISTAKES, planted
from tests.model.search import search
from tests.model.world import World


if TYPE_CHECKING:
    from tests.model.configuration import Configuration
    from tests.model.search import Verdict


def main() -> int:
    """Search. Returns how many searches did not show what they should."""
    parser = argparse.ArgumentParser(prog="make model", description=__doc__)
    parser.add_argument("names", nargs="*", help="configurations or mistakes; all by default")
    names = parser.parse_args().names
    configurations = [c for c in QUICK + LONG if not names or c.name in names]
    mistakes = [name for name in MISTAKES if not names or name in names]
    if unknown := set(names) - {c.name for c in configurations} - set(mistakes):
        parser.error(f"nothing is called {', '.join(sorted(unknown))}")

    wrong = 0
    if configurations:
        print("These hold, whatever happens:\n")
        print(f"  {'configuration':22}{'faults':28}{'states':>11}{'seconds':>9}")
    for configuration in configurations:
        verdict = search(World(configuration))
        wrong += verdict.broken is not None
        told = "" if verdict.broken is None else f"  BROKEN: {verdict.broken}"
        print(f"  {configuration.name:22}{_faults(configuration):28}{_cost(verdict)}{told}")
        _show(verdict, wanted=verdict.broken is not None)
    if mistakes:
        print("\nThese mistakes are found:\n")
        print(f"  {'mistake':24}{'states':>11}{'seconds':>9}{'steps':>7}  what shows")
    for name in mistakes:
        verdict = search(World(planted(name)))
        wrong += verdict.broken is None
        found = verdict.broken or "NOTHING: it is not found"
        print(f"  {name:24}{_cost(verdict)}{len(verdict.history):7}  {found}")
        _show(verdict, wanted=bool(names), title=MISTAKES[name].what)
    print(f"\n{wrong} wrong" if wrong else "\nAll as it should be.")
    return wrong


def _faults(configuration: Configuration) -> str:
    counts = {
        "kill": configuration.kills,
        "lapse": configuration.lapses,
        "lost": configuration.lost,
        "late": configuration.late,
        "restart": configuration.restarts,
    }
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "none"


def _cost(verdict: Verdict) -> str:
    return f"{verdict.states:11,}{verdict.seconds:9.1f}"


def _show(verdict: Verdict, *, wanted: bool, title: str = "") -> None:
    if wanted:
        print("", *(f"      {line}" for line in (title, *verdict.history) if line), "", sep="\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(min(main(), 1))

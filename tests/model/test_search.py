"""The search itself, on systems small enough to know everything about them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.model.search import STUCK, Step, ViolationError, search


if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.model.search import Label, State


class _Jugs:
    """A jug of 5 and one of 3: whoever has measured 4 has broken the rule."""

    def __init__(self, forbidden: int = 4) -> None:
        self._forbidden = forbidden

    def initial(self) -> list[State]:
        return [(0, 0)]

    def steps(self, state: State) -> Iterator[Step]:
        five, three = state
        for name, after in (
            ("fill the five", (5, three)),
            ("fill the three", (five, 3)),
            ("empty the five", (0, three)),
            ("empty the three", (five, 0)),
            ("pour into the three", (max(0, five + three - 3), min(3, five + three))),
            ("pour into the five", (min(5, five + three), max(0, five + three - 5))),
        ):
            if after[0] == self._forbidden:
                raise ViolationError("measured", (name,))
            yield Step((name,), is_own=True, state=after)

    def told(self, label: Label) -> str:
        return " ".join(label)

    def is_at_rest(self, state: State) -> bool:
        return state == (0, 0)

    def must_come_to_rest(self, state: State) -> bool:
        return True


class _Walk:
    """From 0 to 3, where it rests. A fault leads from 1 to 9, and nothing from there."""

    def initial(self) -> list[State]:
        return [(0,)]

    def steps(self, state: State) -> Iterator[Step]:
        (at,) = state
        if at < 3:
            yield Step(("on",), is_own=True, state=(at + 1,))
        if at == 1:
            yield Step(("FAULT",), is_own=False, state=(9,))
        if at == 9:
            yield Step(("HELP",), is_own=False, state=(3,))

    def told(self, label: Label) -> str:
        return " ".join(label)

    def is_at_rest(self, state: State) -> bool:
        return state == (3,)

    def must_come_to_rest(self, state: State) -> bool:
        return True


def test_a_broken_rule_is_shown_with_a_shortest_history() -> None:
    """The riddle's answer is known: four litres take six steps."""
    verdict = search(_Jugs())

    assert verdict.broken == "measured"
    assert [line.partition("  <-")[0] for line in verdict.history] == [
        "fill the five",
        "pour into the three",
        "empty the three",
        "pour into the three",
        "fill the five",
        "pour into the three",
    ]


def test_every_state_is_looked_at_once() -> None:
    """What holds was looked at in full: 16 states of the jugs can be reached."""
    verdict = search(_Jugs(forbidden=6))

    assert (verdict.broken, verdict.states, verdict.history) == (None, 16, ())


def test_a_state_that_only_help_from_outside_leads_out_of_is_found() -> None:
    """A fault may not leave something behind that nobody repairs by themselves."""
    verdict = search(_Walk())

    assert verdict.broken == STUCK
    assert verdict.history == ("on", "FAULT")


def test_a_search_that_is_too_large_says_so() -> None:
    """A search that was cut off has shown nothing, and must not look as if it had."""
    with pytest.raises(RuntimeError, match="more than 3 states"):
        search(_Jugs(forbidden=6), limit=3)

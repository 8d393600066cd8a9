"""The checker of histories is checked: right ones pass, and every kind of wrong one does not."""

from __future__ import annotations

# ruff: noqa: D103 - the small makers of operations are what they are called
import math
import random
from typing import TYPE_CHECKING

import pytest

from mcp_tasks.testing.history import ABSENT, Operation, is_linearizable, violation


if TYPE_CHECKING:
    from mcp_tasks.testing.history import State


K = "ada:t1"


def get(began: float, ended: float, version: int, data: bytes = b"") -> Operation:
    return Operation("get", K, began, ended, data, version)


def put(began: float, ended: float, version: int, data: bytes) -> Operation:
    return Operation("put", K, began, ended, data, version)


def swap(began: float, ended: float, expected: int, data: bytes) -> Operation:
    return Operation("swap", K, began, ended, data, expected + 1, expected)


def refused(began: float, ended: float, expected: int, actual: int) -> Operation:
    return Operation("swap", K, began, ended, b"never", actual, expected, conflict=True)


def delete(began: float, ended: float, *, found: bool) -> Operation:
    return Operation("delete", K, began, ended, version=int(found))


NEVER = math.inf

RIGHT = {
    "nothing at all": [],
    "one after the other": [
        get(0, 1, 0),
        swap(2, 3, 0, b"a"),
        refused(4, 5, 0, 1),
        put(6, 7, 2, b"b"),
        get(8, 9, 2, b"b"),
        delete(10, 11, found=True),
        delete(12, 13, found=False),
        swap(14, 15, 0, b"c"),
    ],
    "a read beside a write sees the one or the other": [
        put(0, 10, 1, b"a"),
        get(1, 2, 0),
        get(3, 4, 1, b"a"),
    ],
    "two writes at once come in either order": [
        put(0, 5, 2, b"a"),
        put(0, 5, 1, b"b"),
        get(6, 7, 2, b"a"),
    ],
    "what was not answered happened later": [
        swap(0, NEVER, 0, b"a"),
        get(1, 2, 0),
        get(3, 4, 1, b"a"),
    ],
    "what was not answered never happened": [
        swap(0, NEVER, 0, b"a"),
        swap(1, 2, 0, b"b"),
        get(3, 4, 1, b"b"),
    ],
    "two that were not answered, one of which happened": [
        put(0, NEVER, 0, b"a"),
        put(0, NEVER, 0, b"b"),
        get(5, 6, 1, b"b"),
        get(7, 8, 1, b"b"),
    ],
}

WRONG = {
    "a lost update": [put(0, 1, 1, b"a"), put(2, 3, 1, b"b")],
    "two winners": [swap(0, 5, 0, b"a"), swap(0, 5, 0, b"b")],
    "a stale read": [put(0, 1, 1, b"a"), put(2, 3, 2, b"b"), get(4, 5, 1, b"a")],
    "a read that goes back": [
        put(0, 10, 1, b"a"),
        get(1, 2, 1, b"a"),
        get(3, 4, 0),
    ],
    "a write that is seen and then is not": [
        swap(0, NEVER, 0, b"a"),
        get(1, 2, 1, b"a"),
        get(3, 4, 0),
    ],
    "a conflict with nobody": [put(0, 1, 1, b"a"), refused(2, 3, 1, 2)],
    "a false conflict": [put(0, 1, 1, b"a"), refused(2, 3, 1, 1)],
    "a conflict that wrote": [
        put(0, 1, 1, b"a"),
        refused(2, 3, 0, 1),
        get(4, 5, 2, b"never"),
    ],
    "a version that is used twice": [
        swap(0, 1, 0, b"a"),
        swap(2, 3, 1, b"b"),
        get(4, 5, 2, b"c"),
    ],
    "an old version that came back": [
        put(0, 1, 1, b"a"),
        put(2, 3, 2, b"b"),
        swap(4, 5, 1, b"c"),
    ],
    "a delete that found nothing": [put(0, 1, 1, b"a"), delete(2, 3, found=False)],
    "two deletes of one record": [
        put(0, 1, 1, b"a"),
        delete(2, 6, found=True),
        delete(2, 6, found=True),
    ],
    "a record that outlives its end": [
        put(0, 1, 1, b"a"),
        delete(2, 3, found=True),
        get(4, 5, 1, b"a"),
    ],
    "data of another version": [
        put(0, 1, 1, b"a"),
        put(2, 3, 2, b"b"),
        get(4, 5, 2, b"a"),
    ],
    "one that was not answered and happened twice": [
        put(0, NEVER, 0, b"a"),
        get(1, 2, 1, b"a"),
        get(3, 4, 2, b"a"),
    ],
    "one that happened before it began": [get(0, 1, 1, b"a"), put(2, 3, 1, b"a")],
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_can_be_explained_passes(name: str) -> None:
    """Nobody is accused falsely."""
    assert is_linearizable(RIGHT[name])
    assert violation(RIGHT[name]) is None


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_explained_does_not(name: str) -> None:
    """And it is shown."""
    assert not is_linearizable(WRONG[name])
    assert violation(WRONG[name])


def test_what_is_shown_ends_with_the_first_answer_that_is_wrong() -> None:
    """The rest would only distract; and the history of other records is left out."""
    before = [put(n, n + 0.5, n + 1, b"x") for n in range(50)]
    wrong = get(60, 61, 3, b"x")
    after = [put(n, n + 0.5, n - 19, b"x") for n in range(70, 90)]
    elsewhere = Operation("put", "ada:t2", 0, 1, b"y", 1)

    shown = violation([*before, wrong, *after, elsewhere])

    assert shown == [*before, wrong]
    assert str(wrong) == "[60.000000 - 61.000000] get ada:t1 -> (3, b'x')"


def simulated(chance: random.Random, callers: int, calls: int) -> list[Operation]:
    """Make a history of a right register: each call takes effect at one moment within its time."""
    state: State = ABSENT
    moments: list[tuple[float, float, float]] = []
    for _ in range(callers):
        now = 0.0
        for _ in range(calls):
            began = now + chance.random()
            at = began + chance.random()
            now = at + chance.random()
            moments.append((at, began, now))
    history: list[Operation] = []
    for number, (_, began, ended) in enumerate(sorted(moments)):
        kind = chance.choice(("get", "put", "swap", "swap", "delete"))
        version, data = state
        new = b"%d" % number
        if kind == "get":
            history.append(get(began, ended, version, data))
            continue
        is_answered = chance.random() > 0.1
        until = ended if is_answered else NEVER
        if kind == "delete":
            history.append(delete(began, until, found=version > 0))
            state = ABSENT
        elif kind == "put":
            history.append(put(began, until, version + 1, new))
            state = (version + 1, new)
        else:
            expected = max(0, version - (chance.random() < 0.3))
            if expected == version:
                history.append(swap(began, until, expected, new))
                state = (version + 1, new)
            elif is_answered:
                history.append(refused(began, until, expected, version))
    return history


@pytest.mark.parametrize("seed", range(20))
def test_right_histories_of_any_shape_pass_and_one_changed_answer_does_not(seed: int) -> None:
    """A hundred operations, ten at once, a tenth of them without an answer."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    history = simulated(chance, 10, 10)
    assert is_linearizable(history)

    answered = [n for n, one in enumerate(history) if one.kind == "get" and one.version]
    place = chance.choice(answered)
    changed = history[place]._replace(data=b"nobody wrote this")
    assert not is_linearizable([*history[:place], changed, *history[place + 1 :]])

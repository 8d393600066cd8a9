"""An exhaustive search: every state that a system can reach, breadth first, each one checked.

A system gives its first states and, for a state, all the steps out of it. Two kinds of promise are
checked. *Nothing bad happens*: a step that breaks a rule raises `ViolationError`. *Something good
can happen*: from every state the system's own steps alone, without another fault or request, can
reach a state of rest. Breadth first, so the history that is shown is one of the shortest.
"""

from __future__ import annotations

import time
from array import array
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol


if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


State = tuple[Any, ...]
"""What a system is in: a tuple of hashable parts, so that equal parts are kept once."""

Label = tuple[Any, ...]
"""What happens in a step, in words and values; only the steps of a history are ever printed."""

STUCK = "cannot come to rest without another fault or request"


class ViolationError(Exception):
    """A step broke a rule.

    Args:
        rule: Which.
        step: What was done, for the history.
    """

    def __init__(self, rule: str, step: Label = ()) -> None:
        super().__init__(rule, step)
        self.rule = rule
        self.step = step


class Step(NamedTuple):
    """A way out of a state.

    Attributes:
        label: What happens, for the history.
        is_own: The system does it by itself: no fault, and no new request.
        state: Where it leads.
    """

    label: Label
    is_own: bool
    state: State


class System(Protocol):
    """What can be searched."""

    def initial(self) -> list[State]:
        """Return the states to begin with."""
        ...

    def steps(self, state: State) -> Iterable[Step]:
        """Return all that can happen in `state`.

        Raises:
            ViolationError: Something that can happen breaks a rule.
        """
        ...

    def told(self, label: Label) -> str:
        """Put a step into words, for a history."""
        ...

    def is_at_rest(self, state: State) -> bool:
        """Tell whether all that was promised is kept, and nothing lies about."""
        ...

    def must_come_to_rest(self, state: State) -> bool:
        """Tell whether anybody is left who could bring it to rest."""
        ...


class Verdict(NamedTuple):
    """What a search found.

    Attributes:
        broken: The rule that does not hold; `None` if all do.
        states: How many states were looked at.
        seconds: How long it took.
        history: A shortest way to the mistake, one line a step.
    """

    broken: str | None
    states: int
    seconds: float
    history: tuple[str, ...] = ()


def search(system: System, *, limit: int = 6_000_000) -> Verdict:
    """Look at every state of `system`.

    Args:
        system: What to search.
        limit: More states than that are a mistake in the configuration.

    Raises:
        RuntimeError: There are more than `limit` states. Nothing is known then.
    """
    began = time.monotonic()
    graph = _Graph()
    for state in system.initial():
        graph.add(state, -1, ())
    at = 0
    while at < len(graph.states):
        before = graph.state(at)
        try:
            for step in system.steps(before):
                number = graph.add(step.state, at, before)
                if step.is_own:
                    graph.sources.append(at)
                    graph.targets.append(number)
        except ViolationError as error:
            took = time.monotonic() - began
            last = f"{system.told(error.step)}  <- {error.rule}"
            history = (*graph.history(system, at), last)
            return Verdict(error.rule, len(graph.states), took, history)
        at += 1
        if len(graph.states) > limit:
            raise RuntimeError(f"more than {limit} states")
    stuck = graph.first_without_rest(system)
    took = time.monotonic() - began
    if stuck is None:
        return Verdict(None, len(graph.states), took)
    return Verdict(STUCK, len(graph.states), took, tuple(graph.history(system, stuck)))


class _Graph:
    """The states seen so far. Each part of a state is kept once, so a state is a few numbers."""

    def __init__(self) -> None:
        self.states: list[tuple[int, ...]] = []
        self.sources = array("I")
        self.targets = array("I")
        self._parents = array("i")
        self._numbers: dict[tuple[int, ...], int] = {}
        self._known: list[dict[Any, int]] = []
        self._parts: list[list[Any]] = []

    def add(self, state: State, parent: int, before: State) -> int:
        """Return the number of a state, a new one if it was not seen `before`, in its parent."""
        if not self._known:
            self._known = [{} for _ in state]
            self._parts = [[] for _ in state]
        # Most steps leave most parts alone, and what is the same object needs no look.
        packed = list(self.states[parent]) if before else [-1] * len(state)
        for at, part in enumerate(state):
            if before and part is before[at]:
                continue
            known = self._known[at]
            number = known.get(part)
            if number is None:
                number = known[part] = len(known)
                self._parts[at].append(part)
            packed[at] = number
        key = tuple(packed)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.states)
            self.states.append(key)
            self._parents.append(parent)
        return number

    def state(self, number: int) -> State:
        """Return a state by its number."""
        return tuple(
            parts[part] for part, parts in zip(self.states[number], self._parts, strict=True)
        )

    def history(self, system: System, number: int) -> Iterator[str]:
        """Tell how a state was reached first."""
        path = [number]
        while self._parents[path[-1]] >= 0:
            path.append(self._parents[path[-1]])
        path.reverse()
        for before, after in pairwise(path):
            wanted = self.state(after)
            for step in system.steps(self.state(before)):  # pragma: no branch
                if step.state == wanted:
                    yield system.told(step.label)
                    break

    def first_without_rest(self, system: System) -> int | None:
        """Return the first state from which the system's own steps do not lead to rest."""
        count = len(self.states)
        first, backwards = self._backwards(count)
        fine = bytearray(count)
        todo: list[int] = []
        for number in range(count):
            if system.is_at_rest(self.state(number)):
                fine[number] = 1
                todo.append(number)
        while todo:
            number = todo.pop()
            for edge in range(first[number], first[number + 1]):
                source = backwards[edge]
                if not fine[source]:
                    fine[source] = 1
                    todo.append(source)
        for number in range(count):
            if not fine[number] and system.must_come_to_rest(self.state(number)):
                return number
        return None

    def _backwards(self, count: int) -> tuple[array[int], array[int]]:
        """Sort steps by where they lead: those into `n` are from `first[n]` to `first[n + 1]`."""
        first = array("I", bytes(4 * (count + 1)))
        for target in self.targets:
            first[target + 1] += 1
        for number in range(count):
            first[number + 1] += first[number]
        place = array("I", first)
        backwards = array("I", bytes(4 * len(self.targets)))
        for source, target in zip(self.sources, self.targets, strict=True):
            backwards[place[target]] = source
            place[target] += 1
        return first, backwards

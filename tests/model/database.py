"""What the database of a state answers, and what becomes of a write that nobody answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.model.actors import CONFLICT, OK, UNANSWERED
from tests.model.processes import AGES, LATE, LEFT
from tests.model.rules import Rules
from tests.model.store import (
    PARTS,
    ROSTER,
    SHEETS,
    TAKEN,
    TASKS,
    delete,
    get,
    put,
    version_of,
)


if TYPE_CHECKING:
    from tests.model.configuration import Configuration
    from tests.model.processes import Left
    from tests.model.search import State


STORE = frozenset({"get", "cas", "put", "del", "list", "del_sheets", "sweep"})
"""Requests that go to the database."""


def replaced(state: State, part: int, value: Any) -> State:
    """Return a state with one part changed."""
    return (*state[:part], value, *state[part + 1 :])


class Database:
    """The database of a configuration, which holds every write to its rules.

    Args:
        configuration: What is searched.
    """

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self.rules = Rules(configuration)

    def answers(self, state: State, kind: str, words: list[Any]) -> list[tuple[Any, State]]:
        """Return every answer to a request, with the state after it.

        Args:
            state: Before it.
            kind: One of `STORE`.
            words: The key, or whose sheets; and what a compare-and-swap needs.
        """
        key = words[0]
        if kind == "cas":
            return self._swap(state, *words)
        if kind == "list":
            return [(self._entries(state, key), state)]
        if kind == "del_sheets":
            left = tuple(item for item in state[SHEETS] if item[0][1] != key)
            return [(None, replaced(state, SHEETS, left))]
        if kind == "sweep":
            if self.configuration.is_wrong("sweep_blind"):
                state = replaced(state, ROSTER, delete(state[ROSTER], key))
            return [(None, replaced(state, AGES, (*state[AGES][:-1], 0)))]
        part = PARTS[key[0]]
        if kind == "get":
            return [(get(state[part], key), state)]
        if kind == "put":
            if key[0] == "worker":
                return [(None, replaced(state, part, put(state[part], key, TAKEN)))]
            return [(None, replaced(state, part, put(state[part], key, None)))]
        return [(None, replaced(state, part, delete(state[part], key)))]

    def _entries(self, state: State, d: int) -> tuple[tuple[int, int], ...]:
        """Return what lies on the sheets of `d`."""
        blocks = 1 if self.configuration.is_wrong("one_block_taken") else len(state[SHEETS])
        sheets = (item for item in state[SHEETS] if item[0][1] == d)
        found = (sheet.value for (_, _, block), sheet in sheets if block < blocks)
        return tuple(sorted(entry for entries in found for entry in entries))

    def _swap(
        self, state: State, key: Any, version: int, value: Any, tag: Any
    ) -> list[tuple[str, State]]:
        if version_of(state[PARTS[key[0]]], key) != version:
            return [(CONFLICT, state)]
        after = self.written(state, key, version, value, tag)
        found = [(OK, after)]
        left: Left = state[LEFT]
        if key[0] not in self.configuration.unsure:
            return found
        if left.lost:
            found.append((UNANSWERED, replaced(after, LEFT, left._replace(lost=left.lost - 1))))
        if left.late:
            later = replaced(state, LEFT, left._replace(late=left.late - 1))
            later = replaced(later, LATE, state[LATE] | {(key, version, value, tag)})
            found.append((UNANSWERED, later))
        return found

    def written(self, state: State, key: Any, version: int, value: Any, tag: Any) -> State:
        """Carry out a compare-and-swap that holds, if the rules allow it."""
        part = PARTS[key[0]]
        if part == TASKS:
            state = self.rules.written(state, key[1], value, tag)
        elif part == ROSTER:
            state = replaced(state, AGES, (*state[AGES][:-1], 0))
        if tag[0] == "extend":
            ages = state[AGES]
            state = replaced(state, AGES, (*ages[: key[1]], 0, *ages[key[1] + 1 :]))
        after = replaced(state, part, put(state[part], key, value, version + 1))
        self.rules.check_roster(after)
        return after

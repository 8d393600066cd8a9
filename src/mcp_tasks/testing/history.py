"""Histories of concurrent operations, and whether one order of single steps explains them.

A history is linearizable if every operation can be thought of as one step at some moment between
its begin and its answer, so that all answers come out as they did. An operation that was never
answered may have taken effect at any time after its begin, or not at all.

The search is the usual one (Wing and Gong, with Lowe's memory of what was tried): each key by
itself, trying in turn every operation that could have been the next. It takes histories of a few
hundred operations a key with some dozen at once.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias


if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


State: TypeAlias = "tuple[int, bytes]"
"""Version and data of a record; version 0 and no data for none."""

ABSENT: State = (0, b"")


class Operation(NamedTuple):
    """One call and what came of it.

    Attributes:
        kind: The method.
        key: Of which record.
        began: When it was called, on any clock that all of the history goes by.
        ended: When it was answered; infinite if it was not.
        data: What it wrote, or what a `get` returned.
        version: What it returned: the new version, that of the record read, 1 or 0 for a delete
            that found something or nothing. A conflict: the version that it met.
        expected: Of a swap.
        conflict: The swap was refused.
    """

    kind: Literal["get", "put", "swap", "delete"]
    key: str
    began: float
    ended: float = math.inf
    data: bytes = b""
    version: int = 0
    expected: int = 0
    conflict: bool = False

    @property
    def is_answered(self) -> bool:
        """True if the caller learned what came of it."""
        return self.ended < math.inf

    def apply(self, state: State) -> State | None:
        """Return the record after this step; `None` if it could not have been answered so."""
        version, _ = state
        if self.kind == "get":
            return state if (self.version, self.data) == state else None
        if self.conflict:
            return state if version == self.version != self.expected else None
        if self.kind == "swap" and version != self.expected:
            return None
        if self.kind == "delete":
            after, answer = ABSENT, int(version > 0)
        else:
            after, answer = (version + 1, self.data), version + 1
        return after if answer == self.version or not self.is_answered else None

    def __str__(self) -> str:
        wrote = {"put": f" {self.data!r}", "swap": f" {self.expected}:={self.data!r}"}
        call = f"{self.kind} {self.key}{wrote.get(self.kind, '')}"
        if not self.is_answered:
            return f"[{self.began:.6f} -        ] {call} -> no answer"
        answer: Any = f"conflict with {self.version}" if self.conflict else self.version
        if self.kind == "get":
            answer = (self.version, self.data)
        return f"[{self.began:.6f} - {self.ended:.6f}] {call} -> {answer}"


def violation(history: Iterable[Operation]) -> list[Operation] | None:
    """Return the operations of a key that no order explains, cut behind the first such answer.

    `None` if the history is linearizable.
    """
    by_key: dict[str, list[Operation]] = {}
    for operation in history:
        if operation.kind == "get" and not operation.is_answered:
            continue  # it says nothing, and changes nothing
        by_key.setdefault(operation.key, []).append(operation)
    for operations in by_key.values():
        if not is_linearizable(operations):
            return _shortest(operations)
    return None


def is_linearizable(operations: Sequence[Operation]) -> bool:
    """Tell whether the operations on one key have an order that explains all answers."""
    ordered = sorted(operations, key=lambda operation: operation.began)
    answered = sum(1 << number for number, one in enumerate(ordered) if one.is_answered)
    pending: list[tuple[int, State]] = [(0, ABSENT)]  # a bit for each that is in order so far
    tried = set(pending)
    while pending:
        done, state = pending.pop()
        if done & answered == answered:
            return True
        deadline = math.inf
        for number in range(((done + 1) & ~done).bit_length() - 1, len(ordered)):
            one = ordered[number]
            if one.began > deadline:
                break  # something was answered before it began, and has to come first
            if done >> number & 1:
                continue
            deadline = min(deadline, one.ended)
            after = one.apply(state)
            if after is None:
                continue
            further = (done | 1 << number, after)
            if further not in tried:
                tried.add(further)
                pending.append(further)
    return False


def _shortest(operations: Sequence[Operation]) -> list[Operation]:
    """Return what had happened when the first answer came that nothing explains."""
    answers = sorted(one.ended for one in operations if one.is_answered)
    low, high = 0, len(answers) - 1
    while low < high:
        middle = (low + high) // 2
        if is_linearizable(_until(operations, answers[middle])):
            low = middle + 1
        else:
            high = middle
    return sorted(_until(operations, answers[low]), key=lambda one: one.began)


def _until(operations: Sequence[Operation], end: float) -> list[Operation]:
    """Return the history as it was known at `end`: later answers had not come yet."""
    return [
        one if one.ended <= end else one._replace(ended=math.inf)
        for one in operations
        if one.began <= end
    ]

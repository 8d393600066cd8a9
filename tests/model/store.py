"""The database of the model: what the six methods of a backend do, on plain tuples.

Keys are tuples too, and say what they are in their first place:

- `("task", t)`: a `Record`, or `TOMBSTONE`
- `("ready", t, n)`: attempt `n` of `t` may be run by anybody
- `("inbox", w, t, v)`: worker `w` has news of `t` from version `v` on
- `("sheet", w, b)`: block `b` of the run sheet of `w`, a set of (task, attempt)
- `("worker", w)`: `LIVE` or `TAKEN`
- `("roster",)`: the ids of the one owner's active tasks

A process is a number, so is a task, and a worker's incarnation is one too: those of process `p` of
three are `p`, `p + 3`, `p + 6` and so on.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast


Key = tuple[Any, ...]

WORKING, ASKING, COMPLETED = "working", "input_required", "completed"
FAILED, CANCELLED = "failed", "cancelled"
TERMINAL = frozenset({COMPLETED, FAILED, CANCELLED})
NOBODY = -1

LIVE, TAKEN = "live", "taken"
TOMBSTONE = "tombstone"
NOTHING: frozenset[int] = frozenset()


class Record(NamedTuple):
    """What is stored of a task. Its version is the database's.

    Attributes:
        status: As the protocol names it.
        worker: The incarnation that has it, or `NOBODY`.
        attempt: How often it was claimed.
        lost: How many attempts ended with their worker.
        cancel: Its end was asked for.
        open: Questions without an answer.
        answered: Questions with one.
        steps: Steps that are recorded.
    """

    status: str = WORKING
    worker: int = NOBODY
    attempt: int = 0
    lost: int = 0
    cancel: bool = False
    open: frozenset[int] = NOTHING
    answered: frozenset[int] = NOTHING
    steps: int = 0

    def __repr__(self) -> str:
        """Show what is worth showing."""
        usual = Record()._asdict()
        shown = [
            f"{name} {told(value)}"
            for name, value in self._asdict().items()
            if name != "status" and value != usual[name]
        ]
        return f"<{', '.join((self.status, *shown))}>"

    @property
    def is_over(self) -> bool:
        """True when nothing about it changes any more."""
        return self.status in TERMINAL

    def is_held_by(self, worker: int, attempt: int) -> bool:
        """Tell whether this attempt may still write it: the fence."""
        return self.worker == worker and self.attempt == attempt and not self.is_over


class Found(NamedTuple):
    """What lies under a key."""

    version: int
    value: Any

    def __repr__(self) -> str:
        """Show it as short as can be."""
        return f"{told(self.value)} at version {self.version}"


Tag = tuple[Any, ...]
"""For the rules: what kind of write a compare-and-swap is, and for which worker and attempt."""

OTHER: Tag = ("other",)

TASKS, INDEX, SHEETS, WORKERS, ROSTER = range(5)
PARTS = {
    "task": TASKS,
    "ready": INDEX,
    "inbox": INDEX,
    "sheet": SHEETS,
    "worker": WORKERS,
    "roster": ROSTER,
}

Part = tuple[tuple[Key, Found], ...]
"""The keys of one kind, sorted. A state holds five of them, in the order of the numbers above."""


def told(value: Any) -> str:
    """Put a value, or a key, into words for a history."""
    if isinstance(value, frozenset):
        return f"{sorted(cast('frozenset[Any]', value))}"
    if type(value) is tuple:
        return " ".join(str(part) for part in cast("tuple[Any, ...]", value))
    return f"{value}"


def get(part: Part, key: Key) -> Found | None:
    """Return what lies under `key`."""
    for there, found in part:
        if there == key:
            return found
    return None


def put(part: Part, key: Key, value: Any, version: int = 1) -> Part:
    """Write blindly. Nobody compares versions of what is written so, and they are not counted."""
    rest = [item for item in part if item[0] != key]
    rest.append((key, Found(version, value)))
    rest.sort(key=_key_of)
    return tuple(rest)


def delete(part: Part, key: Key) -> Part:
    """Remove blindly."""
    return tuple(item for item in part if item[0] != key)


def version_of(part: Part, key: Key) -> int:
    """Return the version that a compare-and-swap must expect: 0 for nothing."""
    found = get(part, key)
    return 0 if found is None else found.version


def _key_of(item: tuple[Key, Found]) -> Key:
    return item[0]

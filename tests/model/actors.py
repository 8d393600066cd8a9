"""How an actor of the model asks for something, and what all of them do alike.

An actor is a coroutine of one process: a create, a claim, a body, a loop that looks for dead
workers. It is written as a generator that yields one request at a time. The first word of a request
says what it is:

- an operation of the database (`get`, `cas`, `put`, `del`, `list`): one step of the search, before
  which its process may die. Its second word is the name of the moment just before it, which is the
  name of the failpoint at the same place in the code; empty where the code has none.
- `moment`: a named place between two things that need no database. A step where the configuration
  looks that closely, else nothing.
- anything else is a decision that a process makes by itself, on what it has in memory (`world`).
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from tests.model.store import OTHER, TOMBSTONE, Found


if TYPE_CHECKING:
    from tests.model.configuration import Configuration
    from tests.model.store import Key, Record, Tag


Request = tuple[Any, ...]
Actor = Generator[Request, Any, Any]

OK, CONFLICT, UNANSWERED = "ok", "conflict", "no answer"
"""What a compare-and-swap comes back with."""


def get(key: Key, at: str = "") -> Request:
    """Read one key."""
    return ("get", at, key)


def put(key: Key, at: str = "") -> Request:
    """Write an entry of an index, blindly."""
    return ("put", at, key)


def delete(key: Key, at: str = "") -> Request:
    """Remove a key, blindly."""
    return ("del", at, key)


def become(name: str, *args: Any) -> Request:
    """Go on as another actor, and forget how it came to that: what an actor returns last."""
    return ("become", name, args)


def as_record(found: Found | None) -> Record | None:
    """Return the record that was found, if one was."""
    return None if found is None or found.value == TOMBSTONE else found.value


class Actors:
    """What all actors have.

    Args:
        configuration: What is searched, and which mistakes are planted.
    """

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration

    def is_wrong(self, mistake: str) -> bool:
        """Tell whether a mistake is planted."""
        return self.configuration.is_wrong(mistake)

    def swap(
        self, key: Key, known: Found | None, value: Any, *, tag: Tag = OTHER, at: str = ""
    ) -> Actor:
        """Send the same compare-and-swap until the answer is definite. Returns the answer.

        A look at the record that does not show the write proves nothing: it may still land.
        """
        version = 0 if known is None else known.version
        while True:
            got = yield ("cas", at, key, version, value, tag)
            if got != UNANSWERED:
                return got
            if self.is_wrong("settle_by_reading"):
                return OK if (yield get(key)) == (version + 1, value) else CONFLICT

    def ready(self, t: int, n: int) -> Key:
        """Name the entry that says that attempt `n` waits for a worker."""
        return ("ready", t, 0 if self.is_wrong("ready_without_number") else n)

    def inbox(self, w: int, t: int, version: int) -> Key:
        """Name the entry that says that there is news for `w` from `version` on."""
        return ("inbox", w, t, 0 if self.is_wrong("inbox_without_number") else version)

    # --- the run sheet ---------------------------------------------------------------------------

    def note(self, w: int, t: int, n: int) -> Actor:
        """Write a task down on the sheet of `w`; false if that shows that `w` was taken over."""
        if not self.is_wrong("sheet_unlocked"):
            yield ("lock", w)
        return (yield from self._write_sheet(w, (t, n)))

    def trim(self, w: int) -> Actor:
        """Write out what is over, when nothing else is written anyway."""
        yield ("lock", w)
        yield from self._write_sheet(w, None)
        return become("scan", w)

    def _write_sheet(self, w: int, entry: tuple[int, int] | None) -> Actor:
        number, version, entries = yield ("block", w, entry)
        key = ("sheet", w, number)
        while True:
            got = yield from self.swap(key, Found(version, None), entries)
            if got == OK:
                break
            # One writer: what is there is its own, written when nobody answered.
            found = yield get(key)
            if found is None:
                yield ("lost", w)
                yield ("unlock", w)
                return False
            version = found.version
            if found.value == entries:
                version -= 1
                break
        yield ("noted", w, number, version + 1, entries)
        yield ("unlock", w)
        return True

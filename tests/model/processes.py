"""What processes have in memory, and the decisions they make on that alone."""

from __future__ import annotations

from typing import Any, NamedTuple

from tests.model.store import NOBODY


PROCESSES, THREADS, PROMISES, LEFT, LATE, AGES = range(5, 11)
"""The parts of a state that are not the database's.

`AGES` holds a number for each task: 0 while it may live, 1 past its time, 2 when it is gone; and
last one for the roster: 1 when an expired one lies there that nobody sees.
"""

Thread = tuple[int, str, tuple[Any, ...], tuple[Any, ...]]
"""An actor under way: its process, its name, its arguments, and the answers it got so far."""

HOLDERS = frozenset(
    {"create", "claim", "hand_back", "run", "ask", "park", "waiting", "finish", "forget"}
)
"""Actors during which a process lets nothing else begin with the task."""

BUSY = frozenset({"create", "claim", "hand_back", "ask", "park", "finish", "forget", "fence"})
"""Actors that a process which stops waits for."""

BODIES = frozenset({"run", "waiting"})
"""Actors that can be stopped."""


class Block(NamedTuple):
    """One block of a run sheet as its worker knows it.

    Attributes:
        version: 0 for one that was not written yet.
        entries: (task, attempt).
        over: Tasks that go with the next swap.
    """

    version: int = 0
    entries: frozenset[tuple[int, int]] = frozenset()
    over: frozenset[int] = frozenset()


class Process(NamedTuple):
    """One process.

    Attributes:
        is_up: It lives.
        worker: Its incarnation; `NOBODY` where it has none, or none yet.
        latest: The last one it had.
        is_good: The lease of that one has not run out.
        version: Of its worker record, as it knows it.
        is_draining: It was told to stop.
        woken: Who was told that there is news: (worker, task).
        sheets: Of all its incarnations: (worker, blocks).
        locked: Sheets that are being written.
    """

    is_up: bool = True
    worker: int = NOBODY
    latest: int = NOBODY
    is_good: bool = True
    version: int = 1
    is_draining: bool = False
    woken: frozenset[tuple[int, int]] = frozenset()
    sheets: tuple[tuple[int, tuple[Block, ...]], ...] = ()
    locked: frozenset[int] = frozenset()

    def blocks(self, w: int) -> tuple[Block, ...]:
        """Return the blocks of an incarnation."""
        for worker, blocks in self.sheets:
            if worker == w:
                return blocks
        return ()

    def with_blocks(self, w: int, blocks: tuple[Block, ...]) -> Process:
        """Return it with other blocks."""
        kept = [item for item in self.sheets if item[0] != w]
        return self._replace(sheets=tuple(sorted([*kept, (w, blocks)])))

    def forgetting(self, w: int, t: int) -> Process:
        """Return it with a task marked as over on the sheet of `w`."""
        blocks = tuple(
            block._replace(over=block.over | {t}) if t in dict(block.entries) else block
            for block in self.blocks(w)
        )
        return self.with_blocks(w, blocks) if blocks else self

    def next_block(
        self, w: int, entry: tuple[int, int] | None, room: int
    ) -> tuple[int, int, frozenset[tuple[int, int]]]:
        """Choose the block to write: its number, the version known of it, and what it will hold."""
        blocks = self.blocks(w)
        for number, block in enumerate(blocks):
            is_it = block.over if entry is None else len(block.entries) - len(block.over) < room
            if is_it:
                kept = frozenset(e for e in block.entries if e[0] not in block.over)
                new = kept if entry is None else kept | {entry}
                return number, block.version, new
        return len(blocks), 0, frozenset() if entry is None else frozenset({entry})

    def noting(
        self,
        w: int,
        number: int,
        version: int,
        entries: frozenset[tuple[int, int]],
        *,
        forgets: bool = True,
    ) -> Process:
        """Return it with a block as it was just written.

        Args:
            w: Whose.
            number: Which block.
            version: It has now.
            entries: It holds.
            forgets: A task that is there for another attempt is not over any more.
        """
        blocks = [*self.blocks(w)]
        old = blocks[number] if number < len(blocks) else Block()
        over = frozenset(
            t for t, n in entries if t in old.over and ((t, n) in old.entries or not forgets)
        )
        blocks[number : number + 1] = [Block(version, entries, over)]
        return self.with_blocks(w, tuple(blocks))

    def has_over(self, w: int) -> bool:
        """Tell whether a trim would write anything."""
        return w not in self.locked and any(block.over for block in self.blocks(w))


class Left(NamedTuple):
    """What may still go wrong, or be asked for. As in `Configuration`."""

    kills: int
    lapses: int
    lost: int
    late: int
    restarts: int
    cancels: tuple[tuple[int, int], ...]
    answers: tuple[tuple[int, int, int], ...]
    drains: tuple[int, ...]
    deliveries: tuple[tuple[int, int], ...]
    extends: tuple[int, ...]
    creates: tuple[tuple[int, int], ...]

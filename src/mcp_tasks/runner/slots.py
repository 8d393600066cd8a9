"""Slots: how many bodies run at once in this process, and which tasks wait here for one."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, NamedTuple


if TYPE_CHECKING:
    from collections.abc import Callable


_MAX_WAITING = 10_000
"""Tasks that wait here without a caller. Further ones are found as rows."""


class _Waiting(NamedTuple):
    """A task that waits for a slot; `go` if somebody waits with it."""

    owner: str
    task_id: str
    go: asyncio.Future[None] | None = None


class Slots:
    """The slots of one runner.

    Args:
        limit: How many there are.
        start: Starts a task that waited, in a slot that was taken for it.

    Attributes:
        taken: How many are taken; for a while more than there are.
        is_closed: What becomes free is given to nobody any more.
    """

    def __init__(self, limit: int, start: Callable[[str, str], None]) -> None:
        self.taken = 0
        self.is_closed = False
        self._limit = limit
        self._start = start
        self._waiting: deque[_Waiting] = deque()

    @property
    def has_free(self) -> bool:
        """True while one more body may run."""
        return self.taken < self._limit

    def take(self) -> None:
        """Take one, whether or not one is free."""
        self.taken += 1

    def give_back(self) -> None:
        """Give one back, to who waits for it longest."""
        self.taken -= 1
        while self._waiting and self.has_free and not self.is_closed:
            waiting = self._waiting.popleft()
            if waiting.go is None:
                self.take()
                self._start(waiting.owner, waiting.task_id)
            elif not waiting.go.done():
                self.take()
                waiting.go.set_result(None)

    def note(self, owner: str, task_id: str) -> None:
        """Start a task when a slot is free; forgotten if too many wait already."""
        if len(self._waiting) < _MAX_WAITING:
            self._waiting.append(_Waiting(owner, task_id))

    async def wait(self, owner: str, task_id: str) -> bool:
        """Take one as soon as one is free. False if none will be, for the runner stops."""
        if self.is_closed:
            return False
        if self.has_free:
            self.take()
            return True
        go: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(owner, task_id, go))
        try:
            await go
        except asyncio.CancelledError:
            if go.done() and not go.cancelled():
                self.give_back()  # it came in the same moment
            if self.is_closed:
                return False
            raise
        return True

    def close(self) -> None:
        """Let nobody wait any more."""
        self.is_closed = True
        for waiting in self._waiting:
            if waiting.go is not None:
                waiting.go.cancel()
        self._waiting.clear()

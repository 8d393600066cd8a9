"""Word of changes inside one process: who waits for a task hears of each write that was made here.

Writes of other processes arrive otherwise (the runner's inbox). So this is a hint and never the
truth: whoever wakes reads the record again.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple


if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_tasks.domain.record import TaskRecord


class Versioned(NamedTuple):
    """A record as it was at one version."""

    record: TaskRecord
    version: int


class Changes:
    """Listeners to every write of a store, and waiters for one task's next change."""

    def __init__(self) -> None:
        self.listeners: list[Callable[[Versioned], None]] = []
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}

    def publish(self, written: Versioned) -> None:
        """Tell everybody who wants to know. Called on the loop, right after the write."""
        for listener in self.listeners:
            listener(written)
        waiters = self._waiters.pop(written.record.task_id, None)
        if waiters is not None:
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    async def wait(self, task_id: str, seconds: float) -> None:
        """Return at the task's next change in this process, or after `seconds`."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters.setdefault(task_id, []).append(waiter)
        timer = loop.call_later(seconds, _finish, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            waiters = self._waiters.get(task_id)
            if waiters is not None and waiter in waiters:
                waiters.remove(waiter)
                if not waiters:
                    del self._waiters[task_id]


def _finish(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)

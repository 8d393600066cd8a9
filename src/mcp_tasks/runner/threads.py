"""Places for threads: a function that nobody waits for any more keeps its own until it ends."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING, Self, TypeVar

import anyio.to_thread
from anyio import CapacityLimiter


if TYPE_CHECKING:
    from collections.abc import Callable


T = TypeVar("T")


class Place:
    """One place among the threads, for one function.

    Args:
        limiter: How many places there are. One of them was taken for this.
    """

    def __init__(self, limiter: CapacityLimiter) -> None:
        self._limiter = limiter
        self._loop = asyncio.get_running_loop()
        # Whoever gets it decides: the thread that begins, or a cancellation that came before.
        self._turn = Lock()

    @classmethod
    async def take(cls, limiter: CapacityLimiter) -> Self:
        """Wait for a place. It must be used, by `run`, at once."""
        place = cls(limiter)
        await limiter.acquire_on_behalf_of(place)
        return place

    async def run(self, fn: Callable[[], T]) -> T:
        """Run a function in a thread, and leave it alone there when cancelled."""

        def thread() -> T:
            if not self._turn.acquire(blocking=False):
                raise asyncio.CancelledError
            try:
                return fn()
            finally:
                with suppress(RuntimeError):  # the loop is closed, and its places with it
                    self._loop.call_soon_threadsafe(self._leave)

        try:
            # The limiter of anyio would have the place back when the caller is cancelled.
            return await anyio.to_thread.run_sync(
                thread, limiter=CapacityLimiter(math.inf), abandon_on_cancel=True
            )
        finally:
            if self._turn.acquire(blocking=False):
                self._leave()

    def _leave(self) -> None:
        self._limiter.release_on_behalf_of(self)

"""How long a body may run: a timer that stands still while the body waits for a person."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from collections.abc import Callable


class Stopwatch:
    """Counts the running time of one attempt, and says once when it is used up.

    Args:
        seconds: How much there is; `None` for no limit.
        used_up: Called on the loop, at most once, and not after `end`.
    """

    def __init__(self, seconds: float | None, used_up: Callable[[], None]) -> None:
        self._left = seconds
        self._used_up = used_up
        self._timer: asyncio.TimerHandle | None = None
        self._since = 0.0

    def go_on(self) -> None:
        """Count from now on, if it does not already."""
        if self._left is None or self._timer is not None:
            return
        loop = asyncio.get_running_loop()
        self._since = loop.time()
        self._timer = loop.call_later(self._left, self._ring)

    def pause(self) -> None:
        """Stand still until `go_on`."""
        if self._left is None or self._timer is None:
            return
        self._timer.cancel()
        self._timer = None
        self._left = max(0.0, self._left - (asyncio.get_running_loop().time() - self._since))

    def end(self) -> None:
        """Count no more, and say nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._left = self._timer = None

    def _ring(self) -> None:
        self.end()
        self._used_up()

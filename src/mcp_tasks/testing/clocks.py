"""A clock that stands still until a test moves it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp_tasks.clock import SystemClock


if TYPE_CHECKING:
    from datetime import datetime, timedelta


class ManualClock:
    """A `Clock` in the hands of a test. It begins at the present, so that real clocks agree.

    Args:
        start: Where it begins instead.
    """

    def __init__(self, start: datetime | None = None) -> None:
        self._now = start or SystemClock().now()
        self._elapsed = 0.0

    def now(self) -> datetime:
        """Return the wall time."""
        return self._now

    def elapsed(self) -> float:
        """Return the seconds that were passed."""
        return self._elapsed

    def advance(self, by: timedelta) -> None:
        """Let time pass."""
        self._now += by
        self._elapsed += by.total_seconds()

    def set_back(self, by: timedelta) -> None:
        """Turn the wall clock back, as an operator or a time server may."""
        self._now -= by

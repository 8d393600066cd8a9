"""Where time comes from. The only module that reads a clock, so that tests can bring their own."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Two clocks: one that people read, one that measures."""

    def now(self) -> datetime:
        """Return the wall time, aware, in UTC, cut to whole milliseconds."""
        ...

    def elapsed(self) -> float:
        """Return seconds on a clock that never goes back and runs through a suspend."""
        ...


# A suspended machine must find its lease expired on waking, so the clock has to count that time.
# CLOCK_BOOTTIME is Linux; the other systems' monotonic clocks are the nearest they have.
_BOOT = getattr(time, "CLOCK_BOOTTIME", None)


class SystemClock:
    """The clock of this machine."""

    def __init__(self) -> None:
        self._last: tuple[int, datetime] = (0, _EPOCH)

    def now(self) -> datetime:
        """Return the wall time, aware, in UTC, cut to whole milliseconds."""
        ms = time.time_ns() // 1_000_000
        last = self._last  # one pair, so that threads never mix two
        if ms == last[0]:
            return last[1]
        now = _EPOCH + timedelta(0, 0, 0, ms)
        self._last = (ms, now)
        return now

    def elapsed(self) -> float:
        """Return seconds on a clock that never goes back and runs through a suspend."""
        return time.monotonic() if _BOOT is None else time.clock_gettime(_BOOT)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def epoch_ms(moment: datetime) -> int:
    """Return `moment` in whole milliseconds since 1970, rounded up: nothing expires early."""
    micros = (moment - _EPOCH) // _MICROSECOND
    return -(-micros // 1000)


def from_epoch_ms(ms: int) -> datetime:
    """Return the moment that `epoch_ms` made `ms` from."""
    return _EPOCH + timedelta(milliseconds=ms)

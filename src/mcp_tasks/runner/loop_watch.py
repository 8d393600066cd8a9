"""A watch on the event loop: a tool that keeps it from turning is named, with its stack.

One blocking call in an `async def` tool stops every request of the server for as long as it takes.
The loop ticks; a thread looks whether it does. The heartbeat is not concerned: it has a thread and
a loop of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
import time
import traceback
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from mcp_tasks.ids import short


if TYPE_CHECKING:
    from collections.abc import Callable


_log = logging.getLogger("mcp_tasks.runner")
_FRAMES = 12
_frames = sys._current_frames  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - documented so


class Culprit(NamedTuple):
    """The attempt that the loop is busy with."""

    tool: str
    task_id: str
    attempt: int


class LoopWatch:
    """Watches the loop that it is started on.

    Args:
        limit: Seconds without a turn that are worth a warning.
        find: From the asyncio task that is being executed to the attempt that it carries out, if it
            does. Called from another thread.

    Attributes:
        blocks: How many times the loop was found blocked, by tool; under the empty name, by what is
            no tool's own asyncio task.
    """

    def __init__(
        self, limit: float, find: Callable[[asyncio.Task[object]], Culprit | None]
    ) -> None:
        self.blocks: Counter[str] = Counter()
        self._limit = limit
        self._find = find
        self._over = threading.Event()
        self._ticked = 0.0
        self._since = 0.0
        self._blocked = ""  # what was said to block the loop since then, until it turns again
        self._timer: asyncio.TimerHandle | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to watch the running loop, until `stop` or its end."""
        loop = asyncio.get_running_loop()
        self._over = threading.Event()
        self._tick(loop)
        self._thread = threading.Thread(
            target=self._watch,
            args=(loop, threading.get_ident(), self._over),
            name="mcp-tasks-loop-watch",
            daemon=True,
        )
        self._thread.start()

    def stop(self) -> None:
        """End the watch. Its thread ends at once, or after the line it is writing."""
        self._over.set()
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now = time.monotonic()
        if self._blocked:
            _log.warning(
                "the event loop turns again, after %.1f s: %s", now - self._since, self._blocked
            )
            self._blocked = ""
        self._ticked = now
        self._timer = loop.call_later(self._limit / 4, self._tick, loop)

    def _watch(self, loop: asyncio.AbstractEventLoop, thread: int, over: threading.Event) -> None:
        pause = self._limit / 4
        last = time.monotonic()
        while not over.wait(pause) and not loop.is_closed():
            now = time.monotonic()
            stood_still = now - last > 2 * pause + 0.05
            last = now
            # When this thread was kept from running too, the process was stopped, or native code
            # held the interpreter: then nothing can be said of the loop until the next look.
            if not stood_still and not self._blocked and now - self._ticked > self._limit:
                self._since = self._ticked
                self._report(loop, thread, now - self._ticked)

    def _report(self, loop: asyncio.AbstractEventLoop, thread: int, seconds: float) -> None:
        culprit: Culprit | None = None
        with contextlib.suppress(RuntimeError):
            task = asyncio.current_task(loop)
            culprit = self._find(task) if task is not None else None
        frame = _frames().get(thread)
        stack = "".join(traceback.format_stack(frame)[-_FRAMES:]) if frame is not None else ""
        if culprit is None:
            tool, self._blocked = "", "code outside a tool's own asyncio task"
        else:
            tool = culprit.tool
            self._blocked = (
                f"tool {tool!r}, task {short(culprit.task_id)} attempt {culprit.attempt}"
            )
        self.blocks[tool] += 1
        _log.warning(
            "the event loop has not turned for %.1f s, and no request is answered: %s blocks it. "
            "Make it a plain `def`, or give the blocking call to a thread. It is at:\n%s",
            seconds,
            self._blocked,
            stack,
        )

"""SIGTERM: begin to drain when it arrives, not when the transport is done with its own shutdown.

uvicorn waits for open responses before it ends the lifespan, without end while somebody listens to
a stream. By then the time to let tasks finish is gone. So the signal starts the drain, and whatever
handled it before handles it too. A process that nothing would keep alive (stdio: the default action
ends it at once) ends the same way, after the drain.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import FrameType


_log = logging.getLogger("mcp_tasks.server")


class TermSignal:
    """Calls `drain` when SIGTERM arrives, and then what would have happened without us.

    Args:
        drain: Lets tasks finish and hands the others back; bounded.
    """

    def __init__(self, drain: Callable[[], Awaitable[None]]) -> None:
        self._drain = drain
        self._previous: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._work: asyncio.Task[None] | None = None

    def install(self) -> None:
        """Begin to listen, on the running loop. Does nothing outside the main thread.

        Only the main thread may change handlers; a server in another one is not the program, and
        the program's own shutdown ends it.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        previous = signal.getsignal(signal.SIGTERM)
        if previous is None or previous is signal.SIG_IGN:
            return  # set from C, or SIGTERM is to be ignored: not ours to change
        self._loop = asyncio.get_running_loop()
        self._previous = previous
        signal.signal(signal.SIGTERM, self._handle)

    def remove(self) -> None:
        """Put back the handler that was there, unless somebody put another one over ours."""
        if self._loop is not None and signal.getsignal(signal.SIGTERM) == self._handle:
            signal.signal(signal.SIGTERM, self._previous)
        self._loop = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._begin)
        if callable(self._previous):
            self._previous(number, frame)
        elif loop is None or loop.is_closed():
            self._die()

    def _begin(self) -> None:
        if self._work is None:
            self._work = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            await self._drain()
        except Exception:  # noqa: BLE001 - the process is about to end, whatever this was
            _log.exception("the drain failed; leases will end what is left")
        if not callable(self._previous):
            self._die()

    def _die(self) -> None:
        """End as the default action does, so that the parent sees the signal."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)

"""The beat of a worker: one write every few seconds, from a thread with a connection of its own.

So a tool that blocks the server's loop, or a queue full of its writes, does not make a live worker
look dead. A backend that cannot be opened twice beats on the server's loop instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from typing import TYPE_CHECKING

from mcp_tasks.errors import (
    OutcomeUnknownError,
    RecordNotFoundError,
    StorageError,
    VersionConflictError,
)
from mcp_tasks.failpoints import failpoint
from mcp_tasks.storage.base import Reopenable


if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_tasks.clock import Clock
    from mcp_tasks.runner.config import RunnerConfig
    from mcp_tasks.storage.base import StorageBackend


_log = logging.getLogger("mcp_tasks.runner")


class Heartbeat:
    """Beats for one incarnation until it is stopped or taken over.

    Args:
        backend: Where the worker's record lies.
        key: Its key.
        data: Its body, which never changes; the version is the beat.
        config: For the times.
        clock: For the lease.
        on_lost: Called on the loop that started the beat, once, when the record was taken or is
            gone.
        on_fence: Called there when no beat was good for `config.fence` seconds.
    """

    def __init__(
        self,
        backend: StorageBackend,
        key: str,
        data: bytes,
        config: RunnerConfig,
        clock: Clock,
        on_lost: Callable[[], None],
        on_fence: Callable[[], None],
    ) -> None:
        self._backend = backend
        self._key = key
        self._data = data
        self._config = config
        self._clock = clock
        self._on_lost = on_lost
        self._on_fence = on_fence
        self._version = 0
        self._last_good = 0.0
        self._lost = False
        self._fenced = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._own_loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def is_good(self) -> bool:
        """True while no other worker can have taken this one for dead.

        Measured from the start of the last good beat, on a clock that runs through a suspend.
        """
        return not self._lost and self._clock.elapsed() - self._last_good < self._config.fence

    async def start(self) -> None:
        """Write the first beat, and go on by itself.

        Raises:
            StorageError: The first beat failed; nothing was started.
        """
        self._loop = asyncio.get_running_loop()
        started = self._clock.elapsed()
        self._version = await self._backend.put_if_version(self._key, self._data, 0)
        self._last_good = started
        if isinstance(self._backend, Reopenable):
            second = self._backend.reopen()
            self._thread = threading.Thread(
                target=self._run, args=(second,), name="mcp-tasks-heartbeat", daemon=True
            )
            self._thread.start()
        else:
            self._task = asyncio.create_task(self._beat(self._backend))

    async def stop(self) -> None:
        """End the beat. The record stays."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        thread = self._thread
        if thread is not None:
            self._lost = True
            deadline = self._clock.elapsed() + self._config.fence
            while thread.is_alive() and self._clock.elapsed() < deadline:
                self._wake()
                await asyncio.sleep(0.005)

    def _wake(self) -> None:
        loop, stop = self._own_loop, self._stop
        if loop is not None and stop is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(stop.set)

    def _run(self, backend: StorageBackend) -> None:
        async def main() -> None:
            self._stop = asyncio.Event()
            self._own_loop = asyncio.get_running_loop()
            try:
                await self._beat(backend)
            finally:
                await backend.close()

        try:
            asyncio.run(main())
        except Exception:  # noqa: BLE001 - a thread has nobody above it
            _log.exception("the heartbeat ended; this worker takes itself for dead")
            self._lost = True
            self._tell(self._on_lost)

    async def _beat(self, backend: StorageBackend) -> None:
        sent = 0.0  # when the first of the beats that nobody answered was sent
        pause = self._config.beat
        while not self._lost:
            await self._sleep(pause)
            if self._lost or self._is_forsaken:
                return
            started = self._clock.elapsed()
            # A beat that hangs must not keep us from noticing in time that none is good any more.
            limit = max(self._last_good + self._config.fence - started, self._config.beat)
            pause = self._config.beat
            try:
                failpoint("hb.before")
                async with asyncio.timeout(limit):
                    try:
                        self._version = await backend.put_if_version(
                            self._key, self._data, self._version
                        )
                    except VersionConflictError as conflict:
                        if not sent or not await self._is_own(backend, conflict.actual):
                            self._lost = True
                            self._tell(self._on_lost)
                            return
                        # A beat of ours, whose answer was lost: it counts from when it was sent.
                        self._version = conflict.actual
                        started, pause = sent, 0.0
                failpoint("hb.after")
            except Exception as error:  # noqa: BLE001 - whatever it is, the next beat may do better
                if not isinstance(error, StorageError) or isinstance(error, OutcomeUnknownError):
                    # The same write again: it holds, or conflicts with its own copy.
                    sent = sent or started
                pause = min(1.0, self._config.beat)
                self._late(error)
                continue
            sent = 0.0
            self._last_good = started
            self._fenced = False

    @property
    def _is_forsaken(self) -> bool:
        """True when the loop that all this is for has ended without a `stop`."""
        return self._loop is None or self._loop.is_closed()

    def _late(self, error: Exception) -> None:
        _log.warning("a heartbeat failed: %s", str(error) or type(error).__name__)
        if not self._fenced and not self.is_good:
            self._fenced = True
            self._tell(self._on_fence)

    async def _is_own(self, backend: StorageBackend, actual: int) -> bool:
        """Tell whether the record is at `actual` because of our own write, whose answer was lost.

        Raises:
            StorageError: That cannot be known yet.
        """
        if actual != self._version + 1:
            return False
        try:
            return (await backend.get(self._key)).data == self._data
        except RecordNotFoundError:
            return False

    async def _sleep(self, seconds: float) -> None:
        if self._stop is None:
            await asyncio.sleep(seconds)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()

    def _tell(self, callback: Callable[[], None]) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # that loop has ended
                self._loop.call_soon_threadsafe(callback)

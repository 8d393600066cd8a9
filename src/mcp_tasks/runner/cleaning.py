"""Removing what has expired, by itself: one worker of a namespace at a time, every so often.

The worker whose turn it is says so in a record first, by compare-and-swap, with the time. Whoever
looks within the period finds that it was done. The time is the wall clock's; a clock that is wrong
makes the clean-up come sooner or later, and nothing worse.
"""

from __future__ import annotations

import asyncio
import logging
import random
from datetime import timedelta
from typing import TYPE_CHECKING

from mcp_tasks.clock import epoch_ms
from mcp_tasks.errors import MCPTasksError, RecordNotFoundError
from mcp_tasks.store.writing import swap, translated


if TYPE_CHECKING:
    from mcp_tasks.store import TaskStore


_SOON = 30.0
"""Seconds after a start within which the first look is made."""

_log = logging.getLogger("mcp_tasks.runner")


class Cleaner:
    """Cleans one store up.

    Args:
        store: Which.
        every: Seconds between two clean-ups, by whomever.
    """

    def __init__(self, store: TaskStore, every: float) -> None:
        self._store = store
        self._every = every

    async def run(self) -> None:
        """Look until cancelled whether it is time. Processes that start together spread out."""
        pause = random.uniform(0, min(_SOON, self._every))  # noqa: S311 - jitter is no secret
        while True:
            await asyncio.sleep(pause)
            try:
                if await self.is_due():
                    removed = await self._store.cleanup_expired()
                    if removed:
                        _log.info("removed %d expired records", removed)
            except MCPTasksError as error:
                _log.warning("the clean-up failed: %s; the next one removes what is left", error)
            except Exception:  # noqa: BLE001 - a backend that fails otherwise: the same
                _log.exception("the clean-up failed; the next one removes what is left")
            pause = self._every * random.uniform(0.5, 1.0)  # noqa: S311 - as above

    async def is_due(self) -> bool:
        """Take the turn, if nobody had one within the period.

        Raises:
            StoreUnavailableError: The database did not answer. Nobody's turn was taken.
        """
        store = self._store
        now = epoch_ms(store.clock.now())
        key = store.keys.config("cleaned")
        version = 0
        try:
            with translated():
                found = await store.backend.get(key)
            version = found.version
            age = now - int(found.data)
        except RecordNotFoundError:
            age = None
        except ValueError:
            age = None  # not a time: written by something else, and replaced
        if age is not None and abs(timedelta(milliseconds=age).total_seconds()) < self._every:
            return False
        taken, _ = await swap(store.backend, key, b"%d" % now, version, None, store.config.settle)
        return taken is not None

"""The contract of hints: backends that say that something changed.

A hint may come late, twice, or for nothing. What must not happen is that a change which somebody
waits for brings none.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Protocol

from mcp_tasks.storage.base import ChangeSource, Reopenable, StorageBackend
from mcp_tasks.testing.contract import Contract


if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator


_LIMIT = 5.0
_PAUSE = 0.01


class WatchableBackend(StorageBackend, ChangeSource, Reopenable, Protocol):
    """All of them."""


class ChangeSourceContract(Contract):
    """What a backend does that has `watch` (and `reopen`). Each test is given an empty one."""

    async def test_whoever_watches_hears_of_a_change(self, backend: WatchableBackend) -> None:
        """A hint for waiting readers; what changed, they read."""
        await backend.put("ada:t1", b"one")
        async with _watching(backend.watch()) as heard:
            for _ in range(3):
                await _until_heard(heard, backend)

    async def test_whoever_watches_hears_of_changes_made_elsewhere(
        self, backend: WatchableBackend
    ) -> None:
        """By another process, or here by a second backend."""
        second = backend.reopen()
        try:
            async with _watching(backend.watch()) as heard:
                for _ in range(3):
                    await _until_heard(heard, second)
        finally:
            await second.close()

    async def test_all_who_watch_hear_of_a_change(self, backend: WatchableBackend) -> None:
        """One does not take the hint away from the other."""
        async with _watching(backend.watch()) as one, _watching(backend.watch()) as two:
            async with asyncio.timeout(_LIMIT):
                while not (one.is_set() and two.is_set()):
                    await backend.put("ada:t1", b"more")
                    await asyncio.sleep(_PAUSE)

    async def test_a_change_while_the_last_one_is_looked_at_is_not_lost(
        self, backend: WatchableBackend
    ) -> None:
        """Who reads meanwhile may have read too early."""
        hints = backend.watch()
        async with asyncio.timeout(_LIMIT):
            await _first(hints, backend)
            for number in range(5):
                await backend.put("ada:t1", b"%d" % number)
                await asyncio.sleep(_PAUSE)  # it is known everywhere, and nobody waits for it
                await anext(hints)
        await _leave(hints)

    async def test_one_who_watches_may_go_away(self, backend: WatchableBackend) -> None:
        """The others, and the writers, go on."""
        hints = backend.watch()
        async with asyncio.timeout(_LIMIT):
            await _first(hints, backend)
        await _leave(hints)

        assert await backend.put("ada:t2", b"x") == 1
        async with _watching(backend.watch()) as heard:
            await _until_heard(heard, backend)

    async def test_closing_ends_the_watching(self, backend: WatchableBackend) -> None:
        """A loop over hints is not left hanging."""
        ended = asyncio.Event()

        async def listen() -> None:
            async for _ in backend.watch():
                heard.set()
            ended.set()

        heard = asyncio.Event()
        watcher = asyncio.create_task(listen())
        try:
            await _until_heard(heard, backend)
            await backend.close()
            async with asyncio.timeout(_LIMIT):
                await ended.wait()
        finally:
            watcher.cancel()
            with suppress(asyncio.CancelledError):
                await watcher


@asynccontextmanager
async def _watching(hints: AsyncIterator[None]) -> AsyncGenerator[asyncio.Event]:
    """Set an event at each hint."""
    heard = asyncio.Event()

    async def listen() -> None:
        async for _ in hints:
            heard.set()

    watcher = asyncio.create_task(listen())
    try:
        yield heard
    finally:
        watcher.cancel()
        with suppress(asyncio.CancelledError):
            await watcher
        await _leave(hints)


async def _until_heard(heard: asyncio.Event, writer: StorageBackend) -> None:
    """Write until a hint comes: whoever watches may not be listening yet."""
    heard.clear()
    async with asyncio.timeout(_LIMIT):
        while not heard.is_set():
            await writer.put("ada:t1", b"more")
            await asyncio.sleep(_PAUSE)


async def _first(hints: AsyncIterator[None], writer: StorageBackend) -> None:
    """Get the first hint, which says that somebody is listening."""
    waiting = asyncio.ensure_future(anext(hints))
    try:
        while not waiting.done():
            await writer.put("ada:t1", b"more")
            await asyncio.sleep(_PAUSE)
    finally:
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting


async def _leave(hints: AsyncIterator[None]) -> None:
    close = getattr(hints, "aclose", None)
    if close is not None:
        await close()

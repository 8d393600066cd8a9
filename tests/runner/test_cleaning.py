"""The clean-up runs by itself: one worker at a time, every so often."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from mcp_tasks.errors import StorageUnavailableError
from mcp_tasks.runner.cleaning import Cleaner
from mcp_tasks.store import TaskStore
from mcp_tasks.testing.clocks import ManualClock

from .conftest import SharedMemory


if TYPE_CHECKING:
    import pytest

    from .conftest import Stand


LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


class Counted(SharedMemory):
    """Counts clean-ups, which take some time."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = 0
        self.at_once = 0
        self.most = 0
        self.fails = False

    async def cleanup_expired(self, now: datetime) -> int:
        """Take some time."""
        self.begun += 1
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            await asyncio.sleep(0.01)
            if self.fails:
                self.fails = False
                raise StorageUnavailableError("for a test")
            return await super().cleanup_expired(now)
        finally:
            self.at_once -= 1


async def test_what_has_expired_goes_without_being_asked_for(stand: Stand) -> None:
    """A server that nobody looks after must not fill its disk."""
    await stand.backend.put("ada:gone", b"x", expires_at=LONG_AGO)
    await stand.backend.put("ada:kept", b"x")

    await stand.runner(config=replace(stand.fast, cleanup_every=0.1))

    async with asyncio.timeout(5):
        while await stand.backend.cleanup_expired(LONG_AGO + timedelta(days=1)):
            await stand.backend.put("ada:gone", b"x", expires_at=LONG_AGO)
            await asyncio.sleep(0.3)
    assert (await stand.backend.get("ada:kept")).data == b"x"


async def test_of_many_workers_one_has_the_turn() -> None:
    """Twenty processes are not to clean up the same database twenty times."""
    backend = Counted()
    cleaners = [Cleaner(TaskStore(backend), 0.3) for _ in range(20)]
    running = [asyncio.create_task(cleaner.run()) for cleaner in cleaners]
    await asyncio.sleep(1.5)
    for task in running:
        task.cancel()
    await asyncio.wait(running)

    assert 3 <= backend.begun <= 6
    assert backend.most == 1


async def test_a_turn_is_taken_once_a_period() -> None:
    """Whoever comes later finds that it was done, also after a restart."""
    backend, clock = SharedMemory(), ManualClock()

    def cleaner(namespace: str = "") -> Cleaner:
        return Cleaner(TaskStore(backend, namespace=namespace, clock=clock), 600)

    at_once = await asyncio.gather(*(cleaner().is_due() for _ in range(8)))
    assert sorted(at_once) == [False] * 7 + [True]
    assert await cleaner("other").is_due()
    clock.advance(timedelta(seconds=599))
    assert not await cleaner().is_due()
    clock.advance(timedelta(seconds=1))
    assert await cleaner().is_due()
    assert not await cleaner().is_due()


async def test_a_turn_of_the_far_future_is_not_waited_for() -> None:
    """A clock was wrong, and is right again."""
    backend, clock = SharedMemory(), ManualClock()
    ahead = ManualClock(clock.now() + timedelta(days=400))
    assert await Cleaner(TaskStore(backend, clock=ahead), 600).is_due()

    assert await Cleaner(TaskStore(backend, clock=clock), 600).is_due()


async def test_a_turn_that_cannot_be_read_is_taken() -> None:
    """What lies there is replaced."""
    store = TaskStore(SharedMemory())
    await store.backend.put(store.keys.config("cleaned"), b"yesterday")

    assert await Cleaner(store, 600).is_due()
    assert not await Cleaner(store, 600).is_due()


async def test_a_clean_up_that_fails_is_made_up_for(caplog: pytest.LogCaptureFixture) -> None:
    """The loop goes on, and the log says so."""
    backend = Counted()
    backend.fails = True
    task = asyncio.create_task(Cleaner(TaskStore(backend), 0.05).run())
    async with asyncio.timeout(5):
        while backend.begun < 3:  # noqa: ASYNC110 - of the cleaner
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])

    assert "the clean-up failed" in caplog.text


async def test_it_can_be_turned_off(shared: Stand) -> None:
    """Somebody else may call it, from cron for example."""
    runner = await shared.runner(config=replace(shared.fast, cleanup_every=0))
    await asyncio.sleep(0.2)

    assert not [key for _, key in shared.link(runner).calls if "@config" in key]

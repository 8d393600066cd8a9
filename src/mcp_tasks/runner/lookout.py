"""What a worker looks for, over and over: dead workers, word from other processes, waiting tasks.

One loop, one thing after the other. Whatever goes wrong with one of them is logged and does not
keep the loop from the others: a worker that stopped looking would hear of no cancel any more. Where
the backend gives hints of changes, the next look comes sooner; without any it comes all the same.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from mcp_tasks.errors import MCPTasksError, StorageError, TaskNotFoundError
from mcp_tasks.failpoints import failpoint
from mcp_tasks.ids import short
from mcp_tasks.runner.recovery import Reaper
from mcp_tasks.storage.base import ChangeSource
from mcp_tasks.storage.keys import Keys
from mcp_tasks.store.writing import translated


if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from mcp_tasks.runner.attempt import Attempt
    from mcp_tasks.runner.config import RunnerConfig
    from mcp_tasks.runner.worker import Worker
    from mcp_tasks.storage.base import StoredRecord
    from mcp_tasks.store import TaskStore
    from mcp_tasks.store.changes import Versioned


T = TypeVar("T")

_HINT_PAUSE = 0.1
"""Seconds between two looks at the least, however much is written."""

_PULSE = 0.25
"""Seconds between two looks at the locks of the other workers of this machine."""

_log = logging.getLogger("mcp_tasks.runner")


class Post(Protocol):
    """What the lookout needs of its runner."""

    store: TaskStore
    config: RunnerConfig

    @property
    def attempts(self) -> Mapping[str, Attempt]:
        """What runs here, by task id."""
        ...

    @property
    def worker(self) -> Worker | None:
        """The incarnation that tasks are run under, while there is one."""
        ...

    @property
    def has_slot(self) -> bool:
        """True while one more body may run."""
        ...

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run something beside."""
        ...

    def tell(self, seen: Versioned) -> None:
        """Tell the attempt at a task how its record is now."""
        ...

    def claim(self, owner: str, task_id: str, key: str) -> asyncio.Task[Attempt | None] | None:
        """Follow an entry that says that a task waits."""
        ...


class Lookout:
    """The background loop of one runner.

    Args:
        runner: Whose.
    """

    def __init__(self, runner: Post) -> None:
        self._runner = runner
        self._store = runner.store
        self._config = runner.config
        self._ready_after: str | None = None
        self._hint = asyncio.Event()

    async def run(self) -> None:
        """Look until cancelled."""
        reaper = Reaper(self._store, self._config)
        beside = [
            asyncio.create_task(self._take_hints()),
            asyncio.create_task(self._watch_neighbours(reaper)),
        ]
        try:
            await self._look(reaper)
        finally:
            for task in beside:
                task.cancel()
            await asyncio.wait(beside)

    async def _watch_neighbours(self, reaper: Reaper) -> None:
        """Have the next look made at once when another worker of this machine has died."""
        while True:
            await asyncio.sleep(min(_PULSE, self._config.scan))
            if reaper.sees_death():
                self._hint.set()

    async def _look(self, reaper: Reaper) -> None:
        next_scan = 0.0
        loop = asyncio.get_running_loop()
        while True:
            worker = self._runner.worker
            self._hint.clear()
            if worker is not None and not worker.is_alone:
                if loop.time() >= next_scan or reaper.sees_death():
                    spread = random.uniform(0.8, 1.2)  # noqa: S311 - spreads processes
                    next_scan = loop.time() + self._config.scan * spread
                    await self._guarded(reaper.look({worker.name}))
                await self._guarded(self._look_at_inbox(worker))
                if worker.sheet is not None:
                    worker.sheet.trim()
            await self._guarded(self._look_for_ready())
            self._extend_lives()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._config.look):
                    await self._hint.wait()

    async def _take_hints(self) -> None:
        """Have the next look made at once when something was written, here or elsewhere."""
        backend = self._store.backend
        if not isinstance(backend, ChangeSource) or not backend.capabilities.shared:
            return  # what happens in this process alone is heard of as it happens
        while True:
            hints = backend.watch()
            try:
                async for _ in hints:
                    self._hint.set()
                    await asyncio.sleep(_HINT_PAUSE)
            except StorageError as error:
                _log.info("no hints of changes: %s; looking every %s s", error, self._config.look)
            else:
                return  # closed
            finally:
                if isinstance(hints, AsyncGenerator):
                    await hints.aclose()
            await asyncio.sleep(self._config.look)

    async def _guarded(self, look: Coroutine[Any, Any, T]) -> T | None:
        """Let one look fail without the others, now and for ever."""
        try:
            return await look
        except MCPTasksError as error:
            _log.warning("a look at the store failed: %s", error)
        except Exception:  # noqa: BLE001 - a poisoned record must not stop the looking
            _log.exception("a look at the store failed")
        return None

    # --- word from other processes ---------------------------------------------------------------

    async def _look_at_inbox(self, worker: Worker) -> None:
        store = self._store
        after: str | None = None
        while True:
            with translated():
                page = await store.backend.list_by_prefix(
                    store.keys.inboxes(worker.name), after=after
                )
            for entry in page.records:
                await self._guarded(self._read_word(worker, entry))
            after = page.next
            if after is None:
                return

    async def _read_word(self, worker: Worker, entry: StoredRecord) -> None:
        """Follow one entry of the inbox. It is never removed before the record was read."""
        task_id, version = Keys.entry(entry.key)
        owner = entry.data.decode("utf-8", "surrogatepass")
        try:
            found = await self._store.read(owner, task_id)
        except TaskNotFoundError:
            return  # written ahead of its record, or long over: its expiry removes it
        if found.record.worker == worker.name:
            if found.version < version:
                return  # written ahead of its record
            failpoint("inbox.after_read_before_wake")
            self._runner.tell(found)
            failpoint("inbox.after_wake_before_delete")
        await self._store.index.drop(entry.key)

    # --- tasks that wait -------------------------------------------------------------------------

    async def _look_for_ready(self) -> None:
        """Claim tasks that wait for any worker, as many as there are free slots."""
        store = self._store
        while self._runner.has_slot:
            with translated():
                page = await store.backend.list_by_prefix(
                    store.keys.readies(), after=self._ready_after, limit=100
                )
            # Entries for tools that this process lacks must not hide the others behind them.
            self._ready_after = page.next
            entries = list(page.records)
            random.shuffle(entries)
            followed = [await self._guarded(self._follow(entry)) for entry in entries]
            claims = [claim for claim in followed if claim is not None]
            if claims:
                await asyncio.wait(claims)
            if page.next is None or not any(claim.result() for claim in claims):
                return

    async def _follow(self, entry: StoredRecord) -> asyncio.Task[Attempt | None] | None:
        task_id, _ = Keys.entry(entry.key)
        owner = entry.data.decode("utf-8", "surrogatepass")
        return self._runner.claim(owner, task_id, entry.key)

    # --- lives -----------------------------------------------------------------------------------

    def _extend_lives(self) -> None:
        """Extend the life of tasks that run here, at half of what is left."""
        now = self._store.clock.now()
        max_ttl = self._store.config.max_ttl
        for attempt in list(self._runner.attempts.values()):
            record = attempt.record
            left = record.deadline - now
            if left * 2 >= attempt.life or attempt.is_extending:
                continue
            if record.ttl < max_ttl:
                attempt.is_extending = True
                self._runner.spawn(self._extend(attempt))
            elif left <= timedelta(0):
                self._runner.spawn(self._expire(attempt))

    async def _extend(self, attempt: Attempt) -> None:
        try:
            await attempt.operations.extend(attempt.life)
        except MCPTasksError as error:
            _log.warning("task %s could not be extended: %s", short(attempt.task_id), error)
        finally:
            attempt.is_extending = False

    async def _expire(self, attempt: Attempt) -> None:
        """Find the end of a task that may not live any longer; that stops its body."""
        try:
            attempt.observe(await self._store.read(attempt.owner, attempt.task_id))
        except TaskNotFoundError:
            attempt.lost()
        except MCPTasksError as error:
            _log.warning("task %s has expired: %s", short(attempt.task_id), error)

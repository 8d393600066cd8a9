"""The runner: starts bodies, finds tasks that wait, and gives everything back when it stops.

First run and recovery are one path: a body is started from the record alone. The order of every
write is the checked protocol of `docs/decisions`; the record's compare-and-swap decides who runs a
task, so `submit` and `run_task` may be called for any task, by anybody, any number of times.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
from collections import deque
from typing import TYPE_CHECKING, Any

from anyio import CapacityLimiter

from mcp_tasks.domain import transitions
from mcp_tasks.domain.status import TaskStatus
from mcp_tasks.errors import (
    LeaseLostError,
    MCPTasksError,
    StorageError,
    TaskExpiredError,
    TaskNotFoundError,
)
from mcp_tasks.runner.attempt import Attempt, Stop
from mcp_tasks.runner.config import RunnerConfig
from mcp_tasks.runner.recovery import Reaper
from mcp_tasks.runner.worker import Worker
from mcp_tasks.storage.keys import Keys
from mcp_tasks.store.index import waits_for_a_worker
from mcp_tasks.store.writing import translated


if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime, timedelta

    from mcp_tasks.context import TaskContext
    from mcp_tasks.domain.record import Call, Policy, TaskRecord
    from mcp_tasks.runner.outcome import Body
    from mcp_tasks.store import TaskStore
    from mcp_tasks.store.changes import Versioned


_log = logging.getLogger("mcp_tasks.runner")


class Runner:
    """Runs tasks of one store in this process.

    Bound to the event loop of the first `start` until the last `stop`; it can be started again,
    also on another loop.

    Args:
        store: Whose tasks.
        find_body: From a tool's name to what carries out its calls; `None` for a tool that this
            process does not have. Its tasks then wait for a worker that has it.
        config: Times and sizes.
        around: Entered around every body, with its context: where users set up sessions, tracing
            or credentials.
        worker: False for a process that creates tasks and serves them but runs none.
    """

    def __init__(
        self,
        store: TaskStore,
        find_body: Callable[[str], Body | None],
        *,
        config: RunnerConfig | None = None,
        around: Callable[[TaskContext], AbstractAsyncContextManager[Any]] | None = None,
        worker: bool = True,
    ) -> None:
        self.store = store
        self.config = config or RunnerConfig()
        self.around = around
        self.limiter = CapacityLimiter(self.config.max_threads)
        self.is_closed = True
        self._find_body = find_body
        self._runs = worker
        self._users = 0
        self._worker: Worker | None = None
        self._attempts: dict[str, Attempt] = {}
        self._claiming: set[str] = set()
        self._again: set[tuple[str, str]] = set()
        self._backlog: deque[tuple[str, str]] = deque()
        self._busy = 0
        self._draining = False
        self._drained: asyncio.Task[None] | None = None
        self._scan: asyncio.Task[None] | None = None
        self._work: set[asyncio.Task[Any]] = set()
        self._idle: asyncio.Event = asyncio.Event()
        self._ready_after: str | None = None
        self._renewing = False

    # --- life ------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to run tasks. Counted: each `start` needs its `stop`; the first one begins.

        Raises:
            StoreUnavailableError: The database cannot be used. Nothing was begun.
        """
        self._users += 1
        if self._users > 1:
            return
        try:
            self.is_closed = False
            self._draining = False
            self._drained = None
            self._ready_after = None
            self._idle = asyncio.Event()
            self._idle.set()
            self.store.changes.listeners.append(self._hear)
            if self._runs:
                await self._register()
                self._scan = asyncio.create_task(self._look())
        except BaseException:
            self._users -= 1
            self.is_closed = True
            self.store.changes.listeners.remove(self._hear)
            raise

    async def stop(self) -> None:
        """End one use; the last one drains, hands back what is left, and retires the worker."""
        self._users -= 1
        if self._users > 0:
            return
        try:
            await self.drain()
        finally:
            self.is_closed = True
            if self._hear in self.store.changes.listeners:
                self.store.changes.listeners.remove(self._hear)
            for task in list(self._work):
                task.cancel()
            if self._work:
                await asyncio.wait(set(self._work), timeout=1.0)

    async def drain(self, seconds: float | None = None) -> None:
        """Take nothing new, let running bodies finish for a while, and hand back the others.

        Safe to call again; all callers wait for the same end. Creates go on: their tasks wait for
        another worker.

        Args:
            seconds: How long bodies may go on; as configured by default.
        """
        if self._drained is None:
            limit = self.config.drain if seconds is None else seconds
            self._draining = True
            self._drained = asyncio.create_task(self._drain(limit))
        await asyncio.shield(self._drained)

    async def _drain(self, seconds: float) -> None:
        if self._scan is not None:
            self._scan.cancel()
            await asyncio.wait([self._scan])
            self._scan = None
        await self._wait_idle(seconds)
        for attempt in list(self._attempts.values()):
            attempt.stop(Stop.DRAIN)
        await self._wait_idle(min(1.0, self.config.cancel_grace))
        # What does not stop is handed back all the same: the fence refuses its writes from then on.
        for attempt in list(self._attempts.values()):
            try:
                await asyncio.wait_for(attempt.hand_back(), 5.0)
            except (MCPTasksError, TimeoutError) as error:
                _log.error("task %s could not be handed back: %s", attempt.task_id, error)
            attempt.close()
        worker, self._worker = self._worker, None
        if worker is not None:
            try:
                await worker.retire()
            except MCPTasksError as error:
                _log.warning("worker %s is left to a reaper: %s", worker.name, error)
                worker.release()

    async def _wait_idle(self, seconds: float) -> None:
        if self._attempts or self._claiming:
            try:
                async with asyncio.timeout(seconds):
                    while self._attempts or self._claiming:
                        self._idle.clear()
                        await self._idle.wait()
            except TimeoutError:
                pass

    async def _register(self) -> None:
        worker = Worker(self.store, self.config, self._lost, self._fence)
        with translated():
            try:
                await worker.register()
            except StorageError:
                worker.release()
                raise
        self._worker = worker

    def _fence(self) -> None:
        """Beats fail: stop the bodies that another worker could start meanwhile."""
        _log.error("no beat got through for %s s", self.config.fence)
        for attempt in list(self._attempts.values()):
            if attempt.record.policy.is_restartable:
                attempt.stop(Stop.DRAIN)

    def _lost(self) -> None:
        """Another worker took this one over: stop everything and go on as a new incarnation."""
        _log.error("this worker was taken over; its bodies are stopped")
        for attempt in list(self._attempts.values()):
            attempt.stop(Stop.LOST)
        if not self._renewing and not self._draining:
            self._renewing = True
            self.spawn(self._renew())

    async def _renew(self) -> None:
        old, self._worker = self._worker, None
        try:
            if old is not None:
                await old.stop_beat()
            delay = 0.2
            while not self._draining:
                try:
                    await self._register()
                    break
                except MCPTasksError as error:
                    _log.warning("cannot register as a worker: %s; trying again", error)
                    await asyncio.sleep(delay)
                    delay = min(2 * delay, 5.0)
            if old is not None:
                reaper = Reaper(self.store, self.config)
                while not self._draining:
                    try:
                        await reaper.take_own(old.name)
                        break
                    except MCPTasksError as error:
                        _log.warning("cannot take over own tasks: %s; trying again", error)
                        await asyncio.sleep(self.config.scan)
                old.release()
        finally:
            self._renewing = False

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run something beside, for as long as the runner lives."""
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._work.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("unexpected error beside the tasks", exc_info=error)

    # --- requests --------------------------------------------------------------------------------

    async def create(
        self,
        owner: str,
        call: Call,
        *,
        policy: Policy,
        ttl: timedelta | None = None,
        poll_interval: timedelta | None = None,
    ) -> TaskRecord:
        """Create a task, durably, and start it here if there is a free slot.

        Raises:
            TaskError: As `TaskStore.create`. No task that anybody knows was created.
        """
        worker = self._worker
        body = self._find_body(call.tool)
        if (
            worker is None
            or self._draining
            or body is None
            or policy.external
            or self._busy >= self.config.max_running
            or not worker.is_good
        ):
            record = await self.store.create(
                owner, call, policy=policy, ttl=ttl, poll_interval=poll_interval
            )
            return record
        self._busy += 1
        try:
            created = await self.store.create_claimed(
                owner,
                call,
                worker.name,
                lambda record: self._note(worker, record),
                policy=policy,
                ttl=ttl,
                poll_interval=poll_interval,
            )
        except BaseException:
            self._busy -= 1
            raise
        attempt = Attempt(self, worker.name, created, body)
        if not worker.is_good or self._draining:
            self._busy -= 1
            await attempt.hand_back()
            return created.record
        self._begin(attempt)
        return created.record

    @staticmethod
    def _note(worker: Worker, record: TaskRecord) -> asyncio.Future[None]:
        if worker.sheet is not None:
            return worker.sheet.add(record.owner, record.task_id, record.attempt)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    async def get(self, owner: str, task_id: str) -> TaskRecord:
        """Return a task; one that runs here is given a moment to change first.

        So a short task needs one poll and not a poll interval.

        Raises:
            TaskNotFoundError: No such task for this owner.
            StoreUnavailableError: The database did not answer.
        """
        attempt = self._attempts.get(task_id)
        if (
            attempt is not None
            and attempt.owner == owner
            and not attempt.is_waiting
            and self.config.get_hold > 0
        ):
            await self.store.changes.wait(task_id, self.config.get_hold)
        return await self.store.get(owner, task_id)

    def submit(self, owner: str, task_id: str) -> None:
        """Say that a task may be run now. Safe for any task, at any time, any number of times."""
        if not self._runs or self._draining or self.is_closed:
            return
        if task_id in self._attempts or task_id in self._claiming:
            self._again.add((owner, task_id))
        elif self._busy < self.config.max_running:
            self.spawn(self._take(owner, task_id))
        else:
            self._backlog.append((owner, task_id))

    async def run_task(self, owner: str, task_id: str) -> bool:
        """Run a task here if it waits for a worker, and return when this run has ended.

        What a queue delivers may be passed in as it comes: twice, late, or out of order.

        Returns:
            True if the body was run here.
        """
        attempt = await self._take(owner, task_id)
        if attempt is None:
            return False
        await attempt.ended.wait()
        return True

    def cancel(self, attempt: Attempt) -> None:
        """Stop a body whose end was asked for; one that does not stop is cut off after a grace."""
        attempt.stop(Stop.CANCEL)
        self.spawn(self._enforce(attempt))

    async def _enforce(self, attempt: Attempt) -> None:
        try:
            async with asyncio.timeout(self.config.cancel_grace):
                await attempt.ended.wait()
        except TimeoutError:
            _log.warning("task %s ignores its cancellation; it is cut off", attempt.task_id)
            await attempt.end_cancelled()
            attempt.close()
            self._end(attempt)

    # --- attempts --------------------------------------------------------------------------------

    def yield_slot(self) -> None:
        """Note that a body only waits for a person."""
        self._busy -= 1
        self._next()

    def take_slot(self) -> None:
        """Note that it goes on. There may be more running than `max_running` for a while."""
        self._busy += 1

    def _begin(self, attempt: Attempt) -> None:
        """Start a body, in surroundings that are the same on the first run and later."""
        self._attempts[attempt.task_id] = attempt
        task = asyncio.get_running_loop().create_task(
            self._run(attempt), context=contextvars.Context()
        )
        self._work.add(task)
        task.add_done_callback(self._done)
        attempt.begin(task)

    async def _run(self, attempt: Attempt) -> None:
        try:
            await attempt.run()
        finally:
            self._end(attempt)

    def _end(self, attempt: Attempt) -> None:
        if self._attempts.get(attempt.task_id) is not attempt:
            return
        del self._attempts[attempt.task_id]
        attempt.ended.set()
        self._busy -= 1
        worker = self._worker
        if worker is not None and worker.sheet is not None and worker.name == attempt.worker:
            worker.sheet.drop(attempt.task_id)
        self._idle.set()
        wanted = (attempt.owner, attempt.task_id)
        if wanted in self._again:
            self._again.discard(wanted)
            self.submit(*wanted)
        self._next()

    def _next(self) -> None:
        while self._backlog and self._busy < self.config.max_running and not self._draining:
            self.spawn(self._take(*self._backlog.popleft()))

    async def _take(
        self, owner: str, task_id: str, expected: int | None = None
    ) -> Attempt | None:
        """Claim a task and start it: read, note, look at the lease, swap, in this order."""
        worker = self._worker
        if (
            worker is None
            or self._draining
            or task_id in self._claiming
            or task_id in self._attempts
        ):
            return None
        self._claiming.add(task_id)
        self._busy += 1
        attempt: Attempt | None = None
        try:
            attempt = await self._claim(worker, owner, task_id, expected)
        except (TaskNotFoundError, TaskExpiredError, LeaseLostError):
            pass
        except MCPTasksError as error:
            _log.warning("task %s could not be claimed: %s", task_id, error)
        finally:
            self._claiming.discard(task_id)
            if attempt is None:
                self._busy -= 1
                if worker.sheet is not None:
                    worker.sheet.drop(task_id)
                self._idle.set()
        if attempt is not None:
            self._begin(attempt)
            key = self.store.keys.ready(task_id, attempt.number)
            self.spawn(self._drop(key))
        return attempt

    async def _claim(
        self, worker: Worker, owner: str, task_id: str, expected: int | None
    ) -> Attempt | None:
        store = self.store
        found = await store.read(owner, task_id)
        record = found.record
        number = record.attempt + 1
        if not waits_for_a_worker(record) or expected not in (None, number):
            return None
        body = self._find_body(record.call.tool)
        if body is None and record.cancel is None:
            return None
        if worker.sheet is not None:
            await worker.sheet.add(owner, task_id, number)
        if not worker.is_good:
            return None

        def transition(record: TaskRecord, now: datetime) -> TaskRecord:
            return transitions.claim(
                record, now, worker.name, number, retention=store.config.retention
            )

        claimed = await store.change(owner, task_id, transition, known=found)
        if claimed.record.status is not TaskStatus.WORKING or body is None:
            return None
        _log.info("task %s attempt %d is run here", task_id, number)
        return Attempt(self, worker.name, claimed, body)

    async def _drop(self, key: str) -> None:
        try:
            await self.store.index.drop(key)
        except MCPTasksError as error:
            _log.debug("a stale entry is left: %s", error)

    # --- what others do --------------------------------------------------------------------------

    def _hear(self, written: Versioned) -> None:
        """Hear of every write that was made in this process."""
        attempt = self._attempts.get(written.record.task_id)
        if attempt is not None:
            attempt.observe(written)
        if self._runs and waits_for_a_worker(written.record):
            self.submit(written.record.owner, written.record.task_id)

    async def _look(self) -> None:
        """Look for what others left, over and over: the one background loop of a worker."""
        reaper = Reaper(self.store, self.config)
        next_scan = 0.0
        loop = asyncio.get_running_loop()
        while True:
            worker = self._worker
            try:
                if worker is not None and not worker.is_alone:
                    if loop.time() >= next_scan:
                        spread = random.uniform(0.8, 1.2)  # noqa: S311 - spreads processes
                        next_scan = loop.time() + self.config.scan * spread
                        await reaper.look({worker.name}, {worker.lock_path})
                    await self._look_at_inbox(worker)
                    if worker.sheet is not None:
                        worker.sheet.trim()
                await self._look_for_ready()
                self._extend_lives()
            except MCPTasksError as error:
                _log.warning("a look at the store failed: %s", error)
            await asyncio.sleep(self.config.look)

    async def _look_at_inbox(self, worker: Worker) -> None:
        store = self.store
        after: str | None = None
        while True:
            with translated():
                page = await store.backend.list_by_prefix(
                    store.keys.inboxes(worker.name), after=after
                )
            for entry in page.records:
                task_id, version = Keys.entry(entry.key)
                owner = entry.data.decode("utf-8", "surrogatepass")
                try:
                    found = await store.read(owner, task_id)
                except TaskNotFoundError:
                    continue  # written ahead of its record, or long over: its expiry removes it
                if found.record.worker == worker.name:
                    if found.version < version:
                        continue  # written ahead of its record
                    attempt = self._attempts.get(task_id)
                    if attempt is not None:
                        attempt.observe(found)
                await store.index.drop(entry.key)
            after = page.next
            if after is None:
                return

    async def _look_for_ready(self) -> None:
        """Claim tasks that wait for any worker, as many as there are free slots."""
        free = self.config.max_running - self._busy
        if free <= 0:
            return
        store = self.store
        with translated():
            page = await store.backend.list_by_prefix(
                store.keys.readies(), after=self._ready_after, limit=100
            )
        # Entries for tools that this process lacks must not hide the others behind them.
        self._ready_after = page.next
        entries = list(page.records)
        random.shuffle(entries)
        claims: list[asyncio.Task[Any]] = []
        for entry in entries:
            if self._busy >= self.config.max_running:
                break
            task_id, number = Keys.entry(entry.key)
            if task_id in self._attempts or task_id in self._claiming:
                continue
            owner = entry.data.decode("utf-8", "surrogatepass")
            claims.append(self.spawn(self._try(owner, task_id, number, entry.key)))
            await asyncio.sleep(0)
        if claims:
            await asyncio.wait(claims)

    async def _try(self, owner: str, task_id: str, number: int, key: str) -> None:
        """Follow one entry: claim its task, or remove the entry if it is stale."""
        try:
            record = await self.store.get(owner, task_id)
        except TaskNotFoundError:
            return  # written ahead of its record: its expiry removes it
        except MCPTasksError as error:
            _log.warning("task %s cannot be read: %s", task_id, error)
            return
        if record.is_terminal or record.attempt >= number:
            await self._drop(key)
        elif waits_for_a_worker(record):
            await self._take(owner, task_id, number)

    def _extend_lives(self) -> None:
        """Extend the life of tasks that run here, at half of what is left."""
        now = self.store.clock.now()
        max_ttl = self.store.config.max_ttl
        for attempt in list(self._attempts.values()):
            record = attempt.record
            if record.ttl < max_ttl and (record.deadline - now) * 2 < attempt.life:
                attempt.life = record.deadline - now + attempt.life
                self.spawn(self._extend(attempt))

    async def _extend(self, attempt: Attempt) -> None:
        try:
            await attempt.extend(self.store.config.default_ttl)
        except MCPTasksError as error:
            _log.warning("task %s could not be extended: %s", attempt.task_id, error)

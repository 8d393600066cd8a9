"""The runner: starts bodies, finds tasks that wait, and gives everything back when it stops.

First run and recovery are one path: a body is started from the record alone. The order of every
write is the checked protocol of `docs/decisions`; the record's compare-and-swap decides who runs a
task, so `submit` and `run_task` may be called for any task, by anybody, any number of times.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from anyio import CapacityLimiter

from mcp_tasks.domain.status import TaskStatus
from mcp_tasks.errors import (
    LeaseLostError,
    MCPTasksError,
    RecordFormatError,
    StorageError,
    StoreUnavailableError,
    TaskExpiredError,
    TaskNotFoundError,
)
from mcp_tasks.failpoints import failpoint
from mcp_tasks.ids import short
from mcp_tasks.runner.attempt import Attempt, Stop
from mcp_tasks.runner.claims import Claims
from mcp_tasks.runner.cleaning import Cleaner
from mcp_tasks.runner.config import RunnerConfig
from mcp_tasks.runner.lookout import Lookout
from mcp_tasks.runner.loop_watch import Culprit, LoopWatch
from mcp_tasks.runner.recovery import Reaper
from mcp_tasks.runner.slots import Slots
from mcp_tasks.runner.worker import Worker
from mcp_tasks.store.index import waits_for_a_worker
from mcp_tasks.store.writing import shielded, translated


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping
    from contextlib import AbstractAsyncContextManager
    from datetime import timedelta

    from mcp_tasks.context import TaskContext
    from mcp_tasks.domain.record import Call, Policy, TaskRecord
    from mcp_tasks.runner.outcome import Body
    from mcp_tasks.store import TaskStore
    from mcp_tasks.store.changes import Versioned

    Note = Callable[[TaskRecord], asyncio.Future[None]]


T = TypeVar("T")
_log = logging.getLogger("mcp_tasks.runner")


_PATIENCE = 5.0


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
        self._scan: asyncio.Task[None] | None = None
        self._claims = Claims(store, find_body, self.config.look, lambda: self.is_closed)
        self._watch = LoopWatch(self.config.loop_watch, self._executed_by)
        self._reset()

    def _reset(self) -> None:
        """Be as before the first start. What an earlier loop left is not ours any more."""
        self._draining = False
        self._drained: asyncio.Task[None] | None = None
        self._renewing = False
        self.attempts: dict[str, Attempt] = {}
        self._claiming: dict[str, Versioned | None] = {}  # with what is heard of them meanwhile
        self._creating = 0
        self._again: set[tuple[str, str]] = set()
        self._slots = Slots(self.config.max_running, self._start_waiting)
        self._left: dict[str, str] = {}  # tasks that may be claimed and do not run; by which worker
        self._unreadable: set[str] = set()
        self._idle = asyncio.Event()
        self._work: set[asyncio.Task[Any]] = set()

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
            self._reset()
            self.limiter = CapacityLimiter(self.config.max_threads)
            self.is_closed = False
            self.store.changes.listeners.append(self._hear)
            if self._runs:
                await self._register()
                self._scan = asyncio.create_task(self._look_out())
                if self.config.loop_watch:
                    self._watch.start()
        except BaseException:
            self._users -= 1
            self.is_closed = True
            self.store.changes.listeners.remove(self._hear)
            raise

    async def _look_out(self) -> None:
        """Do what goes on behind the tasks, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(Lookout(self).run())
            if self.config.cleanup_every:
                group.create_task(Cleaner(self.store, self.config.cleanup_every).run())

    async def stop(self) -> None:
        """End one use; the last one drains, hands back what is left, and retires the worker."""
        self._users -= 1
        if self._users > 0:
            return
        try:
            await self.drain()
        finally:
            self.is_closed = True
            self._watch.stop()
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
        self._slots.close()
        await self._wait_idle(seconds)
        for attempt in list(self.attempts.values()):
            attempt.stop(Stop.DRAIN)
        await self._wait_idle(min(1.0, self.config.cancel_grace))
        await asyncio.gather(*(self._cut_off(a) for a in list(self.attempts.values())))
        await self._wait_idle(min(1.0, self.config.cancel_grace))
        worker, self._worker = self._worker, None
        if worker is None:
            return
        has_left = worker.name in self._left.values()
        if has_left or self._claiming or self._creating or worker.is_lost:
            _log.warning("worker %s leaves tasks behind, for others to take over", worker.name)
            await worker.abandon()
            return
        try:
            await worker.retire()
        except MCPTasksError as error:
            _log.warning("worker %s is left to a reaper: %s", worker.name, error)
            worker.release(is_over=False)

    async def _wait_idle(self, seconds: float) -> None:
        """Wait until nothing runs and nothing is being claimed, for so long at most."""
        try:
            async with asyncio.timeout(seconds):
                while self.attempts or self._claiming or self._creating:
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
        for attempt in list(self.attempts.values()):
            if attempt.record.policy.is_restartable:
                attempt.stop(Stop.DRAIN)

    def _lost(self) -> None:
        """Another worker took this one over: stop everything and go on as a new incarnation."""
        _log.error("this worker was taken over; its bodies are stopped")
        for attempt in list(self.attempts.values()):
            if self._worker is None or attempt.worker == self._worker.name:
                attempt.stop(Stop.LOST)
        if not self._renewing and not self._draining:
            self._renewing = True
            self.spawn(self._renew())

    async def _renew(self) -> None:
        old, self._worker = self._worker, None
        is_over = False
        try:
            if old is not None:
                await old.stop_beat()
            await self._register_again()
            failpoint("fence.after_register_before_taken")
            reaper = Reaper(self.store, self.config)
            while old is not None and not is_over and not self._draining:
                try:
                    await reaper.take_own(old.name)
                    is_over = True
                except MCPTasksError as error:
                    _log.warning("cannot take over own tasks: %s; trying again", error)
                    await asyncio.sleep(self.config.look)
        finally:
            self._renewing = False
            if old is not None:
                old.release(is_over=is_over)
        if self._worker is not None and self._worker.is_lost:
            self._lost()

    async def _register_again(self) -> None:
        delay = 0.2
        while not self._draining:
            try:
                await self._register()
            except MCPTasksError as error:
                _log.warning("cannot register as a worker: %s; trying again", error)
                await asyncio.sleep(delay)
                delay = min(2 * delay, 5.0)
            else:
                return

    @property
    def is_ending(self) -> bool:
        """True when the loop is cancelling everything, this runner's own work too."""
        own = self._drained or self._scan
        return own is not None and own.cancelling() > 0

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
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
        idempotency_key: str | None = None,
    ) -> TaskRecord:
        """Create a task, durably, and start it here if there is a free slot.

        Goes on to its end though the caller is cancelled: a create is not left half done.

        Args:
            owner: Whose task it is.
            call: The request it carries out.
            policy: What may be done when its worker is lost.
            ttl: How long it lives.
            poll_interval: What clients are told to wait between polls.
            idempotency_key: Return the task that this key stands for, if there is one. With a key
                the task is made as one that waits for any worker, and then claimed.

        Raises:
            TaskError: As `TaskStore.create` or `create_once`. No task that anybody knows was
                created.
        """
        if idempotency_key is not None:
            return await shielded(
                self.store.create_once(
                    owner,
                    idempotency_key,
                    call,
                    policy=policy,
                    ttl=ttl,
                    poll_interval=poll_interval,
                )
            )
        worker = self._worker
        body = self._find_body(call.tool)
        if (
            worker is None
            or self._draining
            or body is None
            or policy.external
            or not self.has_slot
            or not worker.is_good
        ):
            return await shielded(
                self.store.create(owner, call, policy=policy, ttl=ttl, poll_interval=poll_interval)
            )
        self._slots.take()
        self._creating += 1
        born: asyncio.Future[TaskRecord] = asyncio.get_running_loop().create_future()

        async def create(note: Note) -> Versioned:
            return await self.store.create_claimed(
                owner, call, worker.name, note, policy=policy, ttl=ttl, poll_interval=poll_interval
            )

        self._spawn_body(self._live(worker, body, call, create, born))
        record = await born
        failpoint("create.after_put_before_reply")
        return record

    async def _live(
        self,
        worker: Worker,
        body: Body,
        call: Call,
        create: Callable[[Note], Awaitable[Versioned]],
        born: asyncio.Future[TaskRecord],
    ) -> None:
        """Create a task and run it: one asyncio task from the first write to the last.

        Args:
            worker: Under which incarnation. The caller has taken a slot and counted the create.
            body: What carries out the call.
            call: Which.
            create: Writes the record, given what notes it on the worker's sheet.
            born: Resolved when the task is durable, and before its body begins.
        """
        noted: list[str] = []

        def note(record: TaskRecord) -> asyncio.Future[None]:
            if worker.sheet is None:
                done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                done.set_result(None)
                return done
            noted.append(record.task_id)
            return worker.sheet.add(record.owner, record.task_id, record.attempt)

        attempt: Attempt | None = None
        try:
            created = await create(note)
            failpoint("create.after_writes_before_lease")
            attempt = Attempt(self, worker.name, created, body, call)
            if not worker.is_good or self._draining:
                await self._hand_back(attempt)
                attempt = None
                await self._check_promise(created.record)
        except BaseException as error:
            if isinstance(error, Exception):
                if not born.done():
                    born.set_exception(error)
                return
            born.cancel()
            raise
        finally:
            self._creating -= 1
            self._idle.set()
            if attempt is None:
                self._slots.give_back()
            if worker.sheet is not None:
                for task_id in noted:
                    is_left = self._left.get(task_id) == worker.name
                    if not is_left and (attempt is None or task_id != attempt.task_id):
                        worker.sheet.drop(task_id)
        if attempt is not None:
            self._begin(attempt, asyncio.current_task())
        if not born.done():
            born.set_result(created.record)
        if attempt is not None:
            await asyncio.sleep(0)  # whoever waits for the id comes before the body
            await self._run(attempt)

    async def _check_promise(self, record: TaskRecord) -> None:
        """Refuse to give out the id of a task that a takeover ended before it was whole."""
        with suppress(MCPTasksError):
            record = await self.store.get(record.owner, record.task_id)
        if record.status is TaskStatus.FAILED and record.attempt == 1:
            raise StoreUnavailableError(happened=False)

    async def get(self, owner: str, task_id: str) -> TaskRecord:
        """Return a task; one that runs here is given a moment to change first.

        So a short task needs one poll and not a poll interval.

        Raises:
            TaskNotFoundError: No such task for this owner.
            StoreUnavailableError: The database did not answer.
        """
        attempt = self.attempts.get(task_id)
        if (
            attempt is not None
            and attempt.owner == owner
            and not attempt.operations.is_waiting
            and self.config.get_hold > 0
        ):
            await self.store.changes.wait(task_id, self.config.get_hold)
        return await self.store.get(owner, task_id)

    def submit(self, owner: str, task_id: str) -> None:
        """Say that a task may be run now. Safe for any task, at any time, any number of times."""
        if not self._runs or self._draining or self.is_closed:
            return
        if task_id in self.attempts or task_id in self._claiming:
            self._again.add((owner, task_id))
        elif self.has_slot:
            self._slots.take()
            self._start_waiting(owner, task_id)
        else:
            self._slots.note(owner, task_id)

    def _start_waiting(self, owner: str, task_id: str) -> None:
        self.spawn(self._take(owner, task_id))

    async def run_task(self, owner: str, task_id: str) -> bool:
        """Run a task here if it waits for a worker, and return when this run has ended.

        What a queue delivers may be passed in as it comes: twice, late, or out of order. Waits for
        a free slot.

        Returns:
            True if the body was run here.
        """
        if self._draining or self.is_closed or not await self._slots.wait(owner, task_id):
            return False
        attempt = await self._take(owner, task_id)
        if attempt is None:
            return False
        await attempt.ended.wait()
        return True

    def claim(self, owner: str, task_id: str, key: str) -> asyncio.Task[Attempt | None] | None:
        """Follow an entry that says that a task waits: claim and start it, if there is a slot."""
        if not self.has_slot or task_id in self.attempts or task_id in self._claiming:
            return None
        self._slots.take()
        return self.spawn(self._take(owner, task_id, key))

    @property
    def loop_blocks(self) -> Mapping[str, int]:
        """How many times the event loop stood still for `RunnerConfig.loop_watch`, by tool.

        Under the empty name: in code that is no tool's own, or in a task that a tool started.
        """
        return dict(self._watch.blocks)

    def _executed_by(self, task: asyncio.Task[object]) -> Culprit | None:
        for attempt in self.attempts.values():
            if attempt.is_executed_by(task):
                return Culprit(attempt.record.call.tool, attempt.task_id, attempt.number)
        return None

    # --- slots -----------------------------------------------------------------------------------

    @property
    def has_slot(self) -> bool:
        """True while one more body may run."""
        return self._slots.has_free

    @property
    def worker(self) -> Worker | None:
        """The incarnation that tasks are run under, while there is one."""
        return self._worker

    def yield_slot(self) -> None:
        """Note that a body only waits for a person."""
        self._slots.give_back()

    def take_slot(self) -> None:
        """Note that it goes on. There may be more running than `max_running` for a while."""
        self._slots.take()

    # --- attempts --------------------------------------------------------------------------------

    def cut_off_later(self, attempt: Attempt) -> asyncio.TimerHandle:
        """See to it that a body that ignores its cancellation is cut off after a grace."""

        def cut_off() -> None:
            if not attempt.is_concluding:
                _log.warning(
                    "task %s ignores its cancellation; it is cut off", short(attempt.task_id)
                )
                self.spawn(self._cut_off(attempt))

        return asyncio.get_running_loop().call_later(self.config.cancel_grace, cut_off)

    async def _cut_off(self, attempt: Attempt) -> None:
        """End an attempt without its body: the fence refuses the body's writes from then on."""
        try:
            async with asyncio.timeout(_PATIENCE):
                if attempt.is_concluding:
                    await attempt.ended.wait()
                elif attempt.why in (Stop.CANCEL, Stop.DRAIN, Stop.TIMEOUT):
                    await attempt.give_up()
        except (MCPTasksError, TimeoutError) as error:
            if self.attempts.get(attempt.task_id) is attempt:
                attempt.is_left = True
                _log.error("task %s could not be handed back: %s", short(attempt.task_id), error)
        attempt.close()
        self._end(attempt)

    async def _hand_back(self, attempt: Attempt) -> None:
        """Give back an attempt whose body was not started."""
        try:
            await attempt.hand_back()
        except MCPTasksError as error:
            self._left[attempt.task_id] = attempt.worker
            _log.error("task %s could not be handed back: %s", short(attempt.task_id), error)
        finally:
            attempt.close()

    def _begin(self, attempt: Attempt, task: asyncio.Task[None] | None) -> None:
        """Note that an attempt is executed by `task` from now on."""
        self.attempts[attempt.task_id] = attempt
        attempt.begin(task)

    def _spawn_body(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run what runs a body, in surroundings that are the same on the first run and later."""
        task = asyncio.get_running_loop().create_task(work, context=contextvars.Context())
        self._work.add(task)
        task.add_done_callback(self._done)
        return task

    async def _run(self, attempt: Attempt) -> None:
        try:
            await attempt.run()
        finally:
            self._end(attempt)

    def _end(self, attempt: Attempt) -> None:
        if self.attempts.get(attempt.task_id) is not attempt:
            return
        del self.attempts[attempt.task_id]
        attempt.ended.set()
        worker = self._worker
        if attempt.is_left:
            self._left[attempt.task_id] = attempt.worker  # its entry on the sheet must stay
        elif attempt.record.is_held_by(attempt.worker, attempt.number):
            pass  # lost: the entry stays, for whoever takes the worker over
        elif worker is not None and worker.sheet is not None and worker.name == attempt.worker:
            worker.sheet.drop(attempt.task_id)
        self._idle.set()
        self._submit_again(attempt.owner, attempt.task_id)
        if not attempt.operations.is_waiting:
            self._slots.give_back()

    def _submit_again(self, owner: str, task_id: str) -> None:
        wanted = (owner, task_id)
        if wanted in self._again:
            self._again.discard(wanted)
            self.submit(owner, task_id)

    async def _take(self, owner: str, task_id: str, key: str = "") -> Attempt | None:
        """Claim a task and start it. The caller has taken a slot for it, which this gives back.

        Args:
            owner: Whose task.
            task_id: Which.
            key: The entry that led here, if one did.
        """
        worker = self._worker
        attempt: Attempt | None = None
        if (
            worker is None
            or self._draining
            or task_id in self._claiming
            or task_id in self.attempts
            or self._left.get(task_id) == worker.name
        ):
            self._slots.give_back()
            return None
        self._claiming[task_id] = None
        try:
            claimed = await self._claims.claim(worker, owner, task_id, key)
            if claimed is not None:
                attempt = Attempt(self, worker.name, *claimed)
                if self._draining:
                    await self._hand_back(attempt)
                    attempt = None
        except (TaskNotFoundError, TaskExpiredError, LeaseLostError):
            pass
        except RecordFormatError as error:
            if task_id not in self._unreadable:  # said once, and not at every look
                self._unreadable.add(task_id)
                _log.error("task %s cannot be claimed by this release: %s", short(task_id), error)
        except MCPTasksError as error:
            _log.warning("task %s could not be claimed: %s", short(task_id), error)
        except BaseException:
            # It may be claimed: its entry on the sheet stays, for whoever comes after us.
            self._left[task_id] = worker.name
            raise
        finally:
            heard = self._claiming.pop(task_id)
            if attempt is None:
                if worker.sheet is not None and self._left.get(task_id) != worker.name:
                    worker.sheet.drop(task_id)
                self._slots.give_back()
                self._submit_again(owner, task_id)
            self._idle.set()
        if attempt is not None:
            self._begin(attempt, self._spawn_body(self._run(attempt)))
            if heard is not None:
                attempt.observe(heard)
            failpoint("claim.after_run_before_delete")
            self.spawn(self._claims.drop(self.store.keys.ready(task_id, attempt.number)))
        return attempt

    # --- what others do --------------------------------------------------------------------------

    def _hear(self, written: Versioned) -> None:
        """Hear of every write that was made in this process."""
        self.tell(written)
        if self._runs and waits_for_a_worker(written.record):
            self.submit(written.record.owner, written.record.task_id)

    def tell(self, seen: Versioned) -> None:
        """Tell the attempt at a task how its record is now; one that is about to start, too."""
        task_id = seen.record.task_id
        attempt = self.attempts.get(task_id)
        if attempt is not None:
            attempt.observe(seen)
        elif task_id in self._claiming:
            heard = self._claiming[task_id]
            if heard is None or heard.version < seen.version:
                self._claiming[task_id] = seen

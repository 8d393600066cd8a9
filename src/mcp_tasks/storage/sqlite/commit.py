"""Group commit: writes that wait together share one transaction and one flush to the disk.

A lone commit costs the same however many writes it holds, so everything that callers ask for within
one turn of the event loop goes into one. The statements run on the loop (microseconds each); only
COMMIT, which waits for the disk, runs on a thread. A thread has to win the interpreter's lock back
from a busy loop after every statement, so a batch done wholly there would need it many times. Where
the statements might wait or take long (another process is writing, many or large records, nothing
open yet), the thread does it all.

The one thing to know before changing this: whoever holds `lock` owns the writing connection. A
transaction takes it before it begins and gives it back when it has ended, on another thread or not.
So the loop begins one only while the thread has nothing to do: a job that waits for the lock in
front of the one that would give it back would wait for ever.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

import apsw

from mcp_tasks.clock import epoch_ms
from mcp_tasks.errors import BackendClosedError, ConfigurationError, OutcomeUnknownError
from mcp_tasks.storage.sqlite.file import (
    COMMIT_WROTE_NOTHING,
    DriverErrors,
    open_reader,
    open_writer,
)


if TYPE_CHECKING:
    from pathlib import Path

    from mcp_tasks.clock import Clock


MAX_BATCH = 512

# What the loop does itself: a few dozen statements, some hundred microseconds.
_MAX_WRITES_ON_LOOP = 64
_MAX_BYTES_ON_LOOP = 256 * 1024


class Write(NamedTuple):
    """One write that waits for its turn.

    Attributes:
        done: What the caller awaits.
        work: Called with the writing cursor, the time in ms and then `arguments`, inside a
            transaction that it shares with others. If it raises, it must have changed nothing.
        arguments: Passed on to `work`; the first is the key.
        size: Bytes to be written, about.
    """

    done: asyncio.Future[Any]
    work: Callable[..., Any]
    arguments: tuple[Any, ...]
    size: int


class GroupCommit:
    """The connections of one backend, and the thread that waits for the disk.

    For one event loop at a time; several may use it one after the other.

    Args:
        path: The file.
        clock: Decides what has expired.
        busy_timeout: How long to wait for another process that writes, in seconds.
        linger: How long a transaction waits for others that are on their way, in seconds.
    """

    def __init__(self, path: Path, *, clock: Clock, busy_timeout: float, linger: float) -> None:
        self.errors = DriverErrors(path)
        self.reader: apsw.Cursor | None = None
        self.writer: apsw.Cursor | None = None
        self.closed = False
        self.watchers: set[asyncio.Event] = set()
        self._path = path
        self._clock = clock
        self._busy_timeout = busy_timeout
        self._linger = linger
        self._start_anew()
        _alive.add(self)

    def _start_anew(self) -> None:
        """Be as before the first use."""
        self.lock = threading.Lock()
        self.worker = _Worker()
        self._belong_to(None)

    def _belong_to(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self._loop = loop
        self._pending: list[Write] = []
        self._scheduled = False
        self._committing = False
        self._turns = 0
        self._expected_turns = 1
        self._timer: asyncio.TimerHandle | None = None
        self._opening: asyncio.Future[None] | None = None

    # --- collecting, on the loop ---------------------------------------------------------------

    def submit(self, work: Callable[..., Any], *arguments: Any, size: int) -> asyncio.Future[Any]:
        """Have `work` done in the next transaction; the future is resolved after its COMMIT."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._adopt(loop)
        if self.closed:
            raise BackendClosedError
        done: asyncio.Future[Any] = loop.create_future()
        self._pending.append(Write(done, work, arguments, size))
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._end_turn)
        return done

    def _adopt(self, loop: asyncio.AbstractEventLoop) -> None:
        """Work for `loop` from now on. What the loop before it had asked for is still done."""
        before = self._loop
        if before is not None and before.is_running():
            msg = (
                "this backend is in use by another event loop; "
                "open a second one for this loop with reopen()"
            )
            raise ConfigurationError(msg)
        if before is not None and not before.is_closed():
            self._start_all()
        self._belong_to(loop)

    def _end_turn(self) -> None:
        self._scheduled = False
        self._turns += 1
        if self._pending and not self._committing:
            self._start_or_linger()

    def _start_or_linger(self) -> None:
        """Start a transaction with all that waits, or wait a little for more to come.

        Waiting pays only where others are on their way, and never where one caller is alone. How
        many turns brought writes during the last transactions tells: so many are waited for, for
        `linger` at most.
        """
        if self._turns < self._expected_turns and self._linger and self._loop is not None:
            if self._timer is None:
                self._timer = self._loop.call_later(self._linger, self._stop_lingering)
            return
        self._start()

    def _stop_lingering(self) -> None:
        self._timer = None
        self._expected_turns = max(self._turns, 1)
        if self._pending and not self._committing:
            self._start()

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch, self._pending = self._pending[:MAX_BATCH], self._pending[MAX_BATCH:]
        turns, self._turns = self._turns, min(len(self._pending), 1)
        self._committing = True
        if self.reader is None:
            self._open_soon()
        transaction = _Transaction(self, batch, turns, self._loop)
        transaction.try_on_loop()
        self.worker.run(transaction.finish)

    def _start_all(self) -> None:
        while self._pending:
            self._start()

    def finished(self, transaction: _Transaction) -> None:
        """Give every caller of a transaction its outcome, and go on with what came meanwhile."""
        for write, result, error in transaction.outcomes:
            if write.done.done():
                continue  # cancelled meanwhile
            if error is None:
                write.done.set_result(result)
            else:
                write.done.set_exception(error)
        self.announce()
        if transaction.loop is not self._loop:
            return
        self._committing = False
        if self._turns:
            self._expected_turns = max(self._expected_turns, transaction.turns + self._turns)
        if self._pending and not self._scheduled:
            self._start_or_linger()

    def announce(self) -> None:
        """Wake those who watch."""
        for changed in self.watchers:
            changed.set()

    def read_as_writer(self, statement: str, arguments: tuple[Any, ...]) -> list[Any] | None:
        """Read by the connection that writes; `None` if it is in use, or there is a difficulty."""
        if self.writer is None or not self.lock.acquire(blocking=False):
            return None
        try:
            return self.writer.execute(statement, arguments).fetchall()
        except apsw.Error:
            return None  # the reader will find the same, or it will not
        finally:
            self.lock.release()

    # --- the thread ----------------------------------------------------------------------------

    async def open(self) -> apsw.Cursor:
        """Open what is not open yet, and return what reads."""
        await asyncio.shield(self._open_soon())
        if self.reader is None:
            raise BackendClosedError
        return self.reader

    def _open_soon(self) -> asyncio.Future[None]:
        """Have the file opened, if that is not under way already.

        A transaction asks for it before it goes to the thread, so that no read has to wait until
        the first transaction has had its turn.
        """
        opening = self._opening
        # One that another loop began is nothing to wait for: that loop may have ended.
        if (
            opening is None
            or opening.done()
            or opening.get_loop() is not asyncio.get_running_loop()
        ):
            opening = self._opening = self._on_thread(self._open)
            # Nobody may be waiting; a transaction that cannot begin says why by itself.
            opening.add_done_callback(lambda done: done.cancelled() or done.exception())
        return opening

    async def close(self) -> None:
        """End what is under way, then let go of file and thread."""
        if self.closed:
            return
        self._start_all()
        self.closed = True
        if self.worker.is_started:
            closing = self._on_thread(self._disconnect)
            self.worker.stop()
            await asyncio.shield(closing)
        self.announce()

    def _on_thread(self, work: Callable[[], None]) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def resolve(error: Exception | None) -> None:
            if done.done():
                return
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

        def job() -> Callable[[], None]:
            failure = None
            try:
                with self.lock, self.errors:
                    work()
            except Exception as error:  # noqa: BLE001 - it is the caller's, whatever it is
                failure = error
            return partial(_call_back, loop, partial(resolve, failure))

        self.worker.run(job)
        return done

    def _open(self) -> None:
        self.connect()
        if self.reader is None:
            self.reader = open_reader(self._path, busy_timeout=self._busy_timeout).cursor()

    # --- connections; the caller holds the lock ------------------------------------------------

    def connect(self) -> apsw.Cursor:
        """Return the cursor that writes, and open the file if need be."""
        if self.writer is None:
            self.writer = open_writer(self._path, busy_timeout=self._busy_timeout).cursor()
            self.set_patience(patient=False)
        return self.writer

    def set_patience(self, *, patient: bool) -> None:
        """Say whether to wait for other processes that write; on the loop that must not be."""
        if self.writer is not None:
            timeout = round(self._busy_timeout * 1000) if patient else 0
            self.writer.connection.set_busy_timeout(timeout)

    def drop_writer(self) -> None:
        """Close the writing connection after a failure: the next transaction opens a new one."""
        if self.writer is not None:
            with suppress(apsw.Error):
                self.writer.connection.close(force=True)
            self.writer = None

    def _disconnect(self) -> None:
        if self.reader is not None:
            self.reader.connection.close(force=True)
            self.reader = None
        if self.writer is not None:
            self.writer.connection.close(force=True)
            self.writer = None

    # --- forks ---------------------------------------------------------------------------------
    #
    # SQLite keeps the locks of a process in memory that a child would inherit, and take for its
    # own. So nothing of ours is open while a process forks: parent and child both open anew.

    def before_fork(self) -> None:
        """End the transaction under way and close the connections, until the fork is over."""
        self.lock.acquire()
        while True:
            try:
                self._disconnect()
            except apsw.ThreadingViolationError:
                time.sleep(0.0005)  # a read on another thread, which takes microseconds
            else:
                return

    def after_fork_in_child(self) -> None:
        """Leave thread, loop and waiting writes to the parent."""
        if self.reader is not None or self.writer is not None:
            # Forked behind Python's back. Closing would break the parent's locks, so they stay.
            _inherited.extend((self.reader, self.writer))
            self.reader = self.writer = None
        self._start_anew()

    def now_ms(self) -> int:
        """Return the time, as expiry times are stored."""
        return epoch_ms(self._clock.now())


class _Transaction:
    """One BEGIN to COMMIT. Afterwards `outcomes` holds a result or an error for each write."""

    def __init__(
        self,
        group: GroupCommit,
        batch: list[Write],
        turns: int,
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        self.outcomes: list[tuple[Write, Any, Exception | None]] = []
        self.turns = turns
        self.loop = loop
        self._group = group
        self._batch = batch
        self._began = False

    def try_on_loop(self) -> None:
        """Do all but COMMIT, if that takes no waiting. Otherwise nothing has happened."""
        group = self._group
        if (
            group.writer is None
            or len(self._batch) > _MAX_WRITES_ON_LOOP
            or sum([write.size for write in self._batch]) > _MAX_BYTES_ON_LOOP
            or not group.worker.is_idle
            or not group.lock.acquire(blocking=False)
        ):
            return
        try:
            self._begin(group.writer)
        except Exception:  # noqa: BLE001 - the thread tries again, and tells what is wrong
            self._undo()
            group.lock.release()

    def finish(self) -> Callable[[], None]:
        """Do all that is left, on the thread, and report to the loop."""
        group = self._group
        committing = False
        try:
            if not self._began:
                group.lock.acquire()
                writer = group.connect()
                group.set_patience(patient=True)
                try:
                    self._begin(writer)
                finally:
                    group.set_patience(patient=False)
            committing = True
            if group.writer is not None:
                group.writer.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - each caller gets it
            self._fail(error, committing=committing)
        finally:
            group.lock.release()
        return partial(_call_back, self.loop, partial(group.finished, self))

    def _begin(self, writer: apsw.Cursor) -> None:
        writer.execute("BEGIN IMMEDIATE")
        now = self._group.now_ms()
        outcomes = self.outcomes
        for write in self._batch:
            done, work, arguments, _ = write
            if done.cancelled():
                continue
            try:
                outcomes.append((write, work(writer, now, *arguments), None))
            except apsw.Error:
                raise
            except Exception as error:  # noqa: BLE001 - only this caller's
                outcomes.append((write, None, error))
        self._began = True

    def _undo(self) -> None:
        self._began = False
        self.outcomes.clear()
        writer = self._group.writer
        try:
            if writer is not None and writer.connection.in_transaction:
                writer.execute("ROLLBACK")
        except apsw.Error:
            self._group.drop_writer()

    def _fail(self, error: Exception, *, committing: bool) -> None:
        """Begin anew with a fresh connection, and tell every caller what is known."""
        known = not committing or isinstance(error, COMMIT_WROTE_NOTHING)
        self.outcomes.clear()
        self._group.drop_writer()
        for write in self._batch:
            if not known:
                failure = OutcomeUnknownError(write.arguments[0], f"COMMIT failed: {error}")
            elif isinstance(error, (apsw.Error, OSError)):
                failure = self._group.errors.translate(error)
            else:
                failure = copy(error)  # each caller raises its own
            failure.__cause__ = error
            self.outcomes.append((write, None, failure))


_Job = Callable[[], Callable[[], None]]


class _Worker:
    """A thread that does one job after the other, from the first one on.

    It holds no backend, so that one that was forgotten can be collected, and ends with it.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._asked = 0
        self._done = [0]  # written by the thread alone
        weakref.finalize(self, self._jobs.put, None)

    @property
    def is_idle(self) -> bool:
        """Tell whether all that was asked is done."""
        return self._asked == self._done[0]

    @property
    def is_started(self) -> bool:
        """Tell whether there is a thread."""
        return self._thread is not None

    def run(self, job: _Job) -> None:
        """Have `job` done, after all that was asked before. It must not raise.

        What it returns is called next, when the job already counts as done: what the loop then
        hears, it can act on with an idle thread.
        """
        if self._thread is None:
            # A daemon, so that a program that never closes its backend still ends.
            self._thread = threading.Thread(
                target=_work, args=(self._jobs, self._done), name="mcp-tasks-sqlite", daemon=True
            )
            self._thread.start()
        self._asked += 1
        self._jobs.put(job)

    def stop(self) -> None:
        """Let the thread end when all that was asked is done."""
        self._jobs.put(None)


def _work(jobs: SimpleQueue[_Job | None], done: list[int]) -> None:
    while (job := jobs.get()) is not None:
        report = job()
        done[0] += 1
        report()
        del job, report


def _call_back(loop: asyncio.AbstractEventLoop | None, callback: Callable[[], None]) -> None:
    """Call `callback` on `loop`; if it was closed, nobody waits any more."""
    if loop is not None:
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(callback)


_alive: weakref.WeakSet[GroupCommit] = weakref.WeakSet()
_held: list[GroupCommit] = []
_inherited: list[apsw.Cursor | None] = []


def _before_fork() -> None:
    _held.extend(_alive)
    for group in _held:
        group.before_fork()


def _after_fork_in_parent() -> None:
    for group in _held:
        group.lock.release()
    _held.clear()


def _after_fork_in_child() -> None:
    _held.clear()
    for group in list(_alive):
        group.after_fork_in_child()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )

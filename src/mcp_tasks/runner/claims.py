"""Claiming a task that waits for any worker: the one order in which that is safe.

Read the record, note the task on the worker's sheet, look at the worker's own lease, swap: as
searched in `tests/model`. A claim that landed must be known to have landed, for nobody else may
take the task while this worker lives; so its outcome is asked for until it is told.
"""

from __future__ import annotations

import asyncio
import logging
import math
from typing import TYPE_CHECKING

from mcp_tasks.domain import transitions
from mcp_tasks.errors import LeaseLostError, MCPTasksError, StoreUnavailableError
from mcp_tasks.failpoints import failpoint
from mcp_tasks.ids import short
from mcp_tasks.storage.keys import Keys
from mcp_tasks.store.index import waits_for_a_worker


if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from mcp_tasks.domain.record import TaskRecord
    from mcp_tasks.runner.outcome import Body
    from mcp_tasks.runner.worker import Worker
    from mcp_tasks.store import TaskStore
    from mcp_tasks.store.changes import Versioned


_log = logging.getLogger("mcp_tasks.runner")


class Claims:
    """Claims tasks of one store.

    Args:
        store: Whose.
        find_body: What carries out the calls of a tool; `None` for a tool that is not here.
        pause: Seconds between two looks for an outcome that was not told.
        is_over: Tells whether the runner was closed, and nothing is asked any more.
    """

    def __init__(
        self,
        store: TaskStore,
        find_body: Callable[[str], Body | None],
        pause: float,
        is_over: Callable[[], bool],
    ) -> None:
        self._store = store
        self._find_body = find_body
        self._pause = pause
        self._is_over = is_over

    async def claim(
        self, worker: Worker, owner: str, task_id: str, key: str = ""
    ) -> tuple[Versioned, Body] | None:
        """Claim a task for `worker`; `None` if it does not wait for one that has its tool.

        Args:
            worker: Who is to run it.
            owner: Whose task.
            task_id: Which.
            key: The entry that led here, if one did. It is removed if it is stale.

        Raises:
            LeaseLostError: Somebody else was faster, or the worker may be taken for dead.
            TaskNotFoundError: There is no such task.
            TaskExpiredError: It is past its time to live.
            StoreUnavailableError: The database failed; with `happened` None it may be claimed.
        """
        found = await self._store.read(owner, task_id)
        record = found.record
        number = record.attempt + 1
        if key:
            announced = Keys.entry(key)[1]
            if record.is_terminal or record.attempt >= announced:
                await self.drop(key)
            if number != announced:
                return None
        if not waits_for_a_worker(record):
            return None  # or its entry was written ahead of it
        body = self._find_body(record.call.tool)
        if body is None and record.cancel is None:
            return None
        failpoint("claim.after_read_before_sheet")
        if worker.sheet is not None:
            await worker.sheet.add(owner, task_id, number)
        claimed = await self._swap(worker, found, number)
        failpoint("claim.after_cas_before_run")
        if body is None or not claimed.record.is_held_by(worker.name, number):
            return None  # it has ended, or the claim landed and was taken away again since
        return claimed, body

    async def _swap(self, worker: Worker, found: Versioned, number: int) -> Versioned:
        store = self._store
        owner, task_id = found.record.owner, found.record.task_id

        def transition(record: TaskRecord, now: datetime) -> TaskRecord:
            # After a conflict too the lease is looked at behind the read and before the swap.
            if not worker.is_good and not record.is_held_by(worker.name, number):
                raise LeaseLostError(number)
            failpoint("claim.after_sheet_before_cas")
            return transitions.claim(
                record, now, worker.name, number, retention=store.config.retention
            )

        known: Versioned | None = found
        while True:
            try:
                return await store.change(
                    owner, task_id, transition, known=known, patience=math.inf
                )
            except StoreUnavailableError as error:
                if self._is_over() or (known is not None and error.happened is False):
                    raise
            except MCPTasksError:
                raise
            except Exception:  # a backend that fails in a way it should not: the same
                if self._is_over():
                    raise
                _log.exception("task %s: the store failed; trying again", short(task_id))
            known = None  # read it again: a claim that landed is found to be ours
            await asyncio.sleep(self._pause)

    async def drop(self, key: str) -> None:
        """Remove an entry that is stale or done with. One that stays is met again."""
        try:
            await self._store.index.drop(key)
        except MCPTasksError as error:
            _log.debug("a stale entry is left: %s", error)

"""How workers find tasks: entries outside the record, written before the record they announce.

An entry carries the number that the record will have. Whoever finds one compares: behind the record
it is stale and is deleted; ahead of it, it is left alone. No key is used twice, so a delete that
comes late hurts nobody.

- `@ready:<task>~<attempt>`: any worker may run this attempt.
- `@inbox.<worker>:<task>~<version>`: the worker that runs it has news from this version on.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from mcp_tasks.domain.status import TaskStatus
from mcp_tasks.failpoints import failpoint
from mcp_tasks.store.writing import repeat, translated


if TYPE_CHECKING:
    from datetime import datetime

    from mcp_tasks.clock import Clock
    from mcp_tasks.domain.record import TaskRecord
    from mcp_tasks.storage.base import StorageBackend
    from mcp_tasks.storage.keys import Keys
    from mcp_tasks.store.config import StoreConfig


_INBOX_LIFE = timedelta(minutes=10)


class Index:
    """The entries of one store.

    Attributes:
        here: The incarnations of this process. What they need to know they hear directly, so
            nothing is written to their inbox.
    """

    def __init__(
        self, backend: StorageBackend, keys: Keys, config: StoreConfig, clock: Clock
    ) -> None:
        self._backend = backend
        self._keys = keys
        self._config = config
        self._clock = clock
        self.here: set[str] = set()

    async def announce(self, old: TaskRecord, new: TaskRecord, version: int) -> None:
        """Write the entries that the step from `old` (at `version`) to `new` needs.

        Raises:
            StoreUnavailableError: Not all are written. The record must not be either.
        """
        if waits_for_a_worker(new) and not waits_for_a_worker(old):
            await self.put_ready(new, new.attempt + 1)
            failpoint(_point(old, new))
        elif new.worker is not None and new.worker == old.worker and has_news(old, new):
            await self.tell(new, version + 1)
            failpoint("notice.after_put_before_cas")

    async def put_ready(self, record: TaskRecord, attempt: int) -> None:
        """Say that any worker may run `attempt`."""
        life = self._config.max_ttl + self._config.retention + self._config.grace
        key = self._keys.ready(record.task_id, attempt)
        await self._put(key, record.owner, record.created_at + life)

    async def tell(self, record: TaskRecord, version: int) -> None:
        """Tell the worker that runs the task, in another process, that there is news."""
        if record.worker is None or record.worker in self.here:
            return
        key = self._keys.inbox(record.worker, record.task_id, version)
        await self._put(key, record.owner, self._clock.now() + _INBOX_LIFE)

    async def _put(self, key: str, owner: str, expires_at: datetime) -> None:
        data = owner.encode("utf-8", "surrogatepass")
        await repeat(
            lambda: self._backend.put(key, data, expires_at=expires_at), self._config.settle
        )

    async def drop(self, key: str) -> None:
        """Remove an entry that is stale or done with."""
        with translated():
            await self._backend.delete(key)


def _point(old: TaskRecord, new: TaskRecord) -> str:
    """Name the failpoint behind an entry, by who lets the task go."""
    if old.worker is None:
        return "notice.after_put_before_cas"
    return "reap.after_ready_before_cas" if new.lost > old.lost else "drain.after_ready_before_cas"


def waits_for_a_worker(record: TaskRecord) -> bool:
    """Tell whether any worker may claim the task."""
    return (
        record.status is TaskStatus.WORKING and record.worker is None and not record.policy.external
    )


def has_news(old: TaskRecord, new: TaskRecord) -> bool:
    """Tell whether a worker must hear of a step: its end was asked for, or a question answered."""
    if new.is_terminal:
        return False
    if new.cancel is not None and old.cancel is None:
        return True
    left = {question.key for question in new.questions}
    return any(question.key not in left for question in old.questions)

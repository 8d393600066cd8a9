"""One incarnation of a worker: its record, its beat, its sheet, its lock.

An incarnation is random, per process start and per loss of the lease. An old one never becomes good
again: after a loss the process goes on as a new one.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Literal

import msgspec

from mcp_tasks.errors import RecordNotFoundError
from mcp_tasks.failpoints import failpoint
from mcp_tasks.ids import new_name
from mcp_tasks.runner.heartbeat import Heartbeat
from mcp_tasks.runner.locks import ProcessLock, host_id, lock_folder
from mcp_tasks.runner.sheet import RunSheet
from mcp_tasks.store.writing import translated


if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_tasks.runner.config import RunnerConfig
    from mcp_tasks.store import TaskStore


_log = logging.getLogger("mcp_tasks.runner")


class WorkerRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """What others see of a worker. Its version is its beat.

    Attributes:
        state: `taken` once a reaper has declared it dead.
        pid: For operators.
        host: What `locks.host_id` says where it runs.
        lock: The file it holds a lock on; empty if it could not.
    """

    state: Literal["live", "taken"] = "live"
    pid: int = 0
    host: str = ""
    lock: str = ""


_decoder = msgspec.json.Decoder(WorkerRecord)
_encoder = msgspec.json.Encoder()


def decode_worker(data: bytes) -> WorkerRecord:
    """Decode the record of a worker."""
    return _decoder.decode(data)


def encode_worker(worker: WorkerRecord) -> bytes:
    """Encode the record of a worker."""
    return _encoder.encode(worker)


class Worker:
    """One incarnation.

    A store that neither outlives the process nor is shared has nobody who could take over, so there
    is no record, no beat and no sheet then.

    Args:
        store: Where it lives.
        config: For the times.
        on_lost: Called once when it was taken over.
        on_fence: Called when its beats fail for so long that it may be taken over.
    """

    def __init__(
        self,
        store: TaskStore,
        config: RunnerConfig,
        on_lost: Callable[[], None],
        on_fence: Callable[[], None],
    ) -> None:
        self.name = new_name()
        self.is_alone = not (
            store.backend.capabilities.shared or store.backend.capabilities.durable
        )
        self._store = store
        self._config = config
        self._on_lost = on_lost
        self._on_fence = on_fence
        self._lost = False
        self._heartbeat: Heartbeat | None = None
        self._lock: ProcessLock | None = None
        self.sheet: RunSheet | None = (
            None if self.is_alone else RunSheet(store, self.name, self.lose)
        )

    @property
    def is_good(self) -> bool:
        """True while nobody can have taken this worker over."""
        if self._lost:
            return False
        return self._heartbeat is None or self._heartbeat.is_good

    @property
    def is_lost(self) -> bool:
        """True once this worker is known to be taken over."""
        return self._lost

    @property
    def lock_path(self) -> str:
        """The file of its lock; empty if it has none."""
        return str(self._lock.path) if self._lock is not None else ""

    async def register(self) -> None:
        """Begin to live: lock, record, beat.

        Raises:
            StorageError: The database failed; nothing was begun.
        """
        self._store.index.here.add(self.name)
        if self.is_alone:
            return
        try:
            self._lock = ProcessLock(lock_folder(self._store.backend) / f"{self.name}.lock")
        except OSError as error:
            _log.info("no lock file (%s); if this process dies, its lease decides", error)
        record = WorkerRecord(pid=os.getpid(), host=host_id(), lock=self.lock_path)
        self._heartbeat = Heartbeat(
            self._store.backend,
            self._store.keys.worker(self.name),
            encode_worker(record),
            self._config,
            self._store.clock,
            self.lose,
            self._on_fence,
        )
        try:
            await self._heartbeat.start()
        except BaseException:
            self.release()
            raise

    def lose(self) -> None:
        """Note that this worker was taken over; it never becomes good again."""
        if not self._lost:
            self._lost = True
            if self.sheet is not None:
                self.sheet.keep_all()
            self._on_lost()

    async def stop_beat(self) -> None:
        """End the beat."""
        self._lost = True
        if self._heartbeat is not None:
            await self._heartbeat.stop()
        if self.sheet is not None:
            await self.sheet.settle()

    async def abandon(self) -> None:
        """End a life that left tasks behind: others on this machine see at once that it is over."""
        await self.stop_beat()
        self.release(is_over=False)

    async def retire(self) -> None:
        """End an orderly life: sheets and inbox go, and the record last of all.

        Raises:
            StoreUnavailableError: Something is left, which a reaper removes.
        """
        await self.stop_beat()
        if not self.is_alone:
            await remove_traces(self._store, self.name, "drain.after_sheets_before_worker")
        self.release()

    def release(self, *, is_over: bool = True) -> None:
        """Let go of the lock, and of the name.

        Args:
            is_over: Nothing names this worker any more. Otherwise the file stays, without its lock,
                and tells others to take over what is left.
        """
        self._store.index.here.discard(self.name)
        if self._lock is not None:
            self._lock.release(remove=is_over)
            self._lock = None


async def remove_traces(store: TaskStore, worker: str, point: str) -> None:
    """Delete a worker's sheets and inbox, and its record last. Safe to do twice, and by two.

    Args:
        store: Where they are.
        worker: Whose.
        point: The failpoint before the record.
    """
    for prefix in (store.keys.sheets(worker), store.keys.inboxes(worker)):
        after: str | None = None
        while True:
            with translated():
                page = await store.backend.list_by_prefix(prefix, after=after)
                for found in page.records:
                    await store.backend.delete(found.key)
            after = page.next
            if after is None:
                break
    failpoint(point)
    with translated():
        await store.backend.delete(store.keys.worker(worker))


async def read_worker(store: TaskStore, worker: str) -> tuple[WorkerRecord, int] | None:
    """Return the record of a worker and its version; `None` if it is gone."""
    try:
        with translated():
            found = await store.backend.get(store.keys.worker(worker))
    except RecordNotFoundError:
        return None
    return decode_worker(found.data), found.version

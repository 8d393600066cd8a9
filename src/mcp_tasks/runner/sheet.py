"""A worker's run sheet: what it has, written down where others find it when the worker is gone.

One writer, so a swap starts from the version it knows and never conflicts, unless an earlier one of
its own was not answered, or somebody took the worker over: then its sheet is gone, and finding that
out is a second fence. What is over leaves with the next swap, which costs nothing.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from mcp_tasks.errors import LeaseLostError, RecordNotFoundError
from mcp_tasks.store.writing import swap, translated


if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_tasks.storage.base import StoredRecord
    from mcp_tasks.store import TaskStore


BLOCK = 100
"""Entries in a block."""


class SheetEntry(NamedTuple):
    """One task that a worker may have."""

    owner: str
    task_id: str
    attempt: int


_entries = msgspec.json.Decoder(list[SheetEntry])
_encoder = msgspec.json.Encoder()


def decode_entries(data: bytes) -> list[SheetEntry]:
    """Decode a block of a sheet."""
    return _entries.decode(data)


@dataclass
class _Block:
    number: int
    version: int = 0
    entries: dict[str, SheetEntry] = field(default_factory=dict[str, SheetEntry])
    over: set[str] = field(default_factory=set[str])

    @property
    def room(self) -> int:
        return BLOCK - len(self.entries) + len(self.over)


class RunSheet:
    """The sheet of one incarnation.

    Args:
        store: Where it is written.
        worker: Whose it is.
        on_lost: Called once when the sheet shows that the worker was taken over.
    """

    def __init__(self, store: TaskStore, worker: str, on_lost: Callable[[], None]) -> None:
        self._store = store
        self._worker = worker
        self._on_lost = on_lost
        self._blocks: list[_Block] = []
        self._places: dict[str, _Block] = {}
        self._unplaced: dict[str, bool] = {}  # being added; true if it is over already
        self._waiting: list[tuple[SheetEntry, asyncio.Future[None]]] = []
        self._flush: asyncio.Task[None] | None = None
        self._keeps_all = False

    def keep_all(self) -> None:
        """Take nothing off any more: the worker is lost, and all that it had has to be found."""
        self._keeps_all = True

    def add(self, owner: str, task_id: str, attempt: int) -> asyncio.Future[None]:
        """Write a task down; done when it is durable. Adds that wait together share a swap.

        The future raises `LeaseLostError` when the worker was taken over, and
        `StoreUnavailableError` when the database failed; the entry may be there all the same.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((SheetEntry(owner, task_id, attempt), done))
        self._unplaced[task_id] = False
        self._start()
        return done

    def drop(self, task_id: str) -> None:
        """Note that a task is no longer the worker's; its entry goes with the next swap."""
        block = self._places.pop(task_id, None)
        if block is not None:
            block.over.add(task_id)
        elif task_id in self._unplaced:
            self._unplaced[task_id] = True

    def trim(self) -> None:
        """Write out the drops of one block, when nothing else is written anyway."""
        if self._keeps_all:
            return
        if self._flush is None and any(block.over for block in self._blocks):
            self._flush = asyncio.create_task(self._run(trim=True))

    async def settle(self) -> None:
        """Wait until nothing is being written."""
        while self._flush is not None:
            await asyncio.wait([self._flush])

    def _start(self) -> None:
        if self._flush is None:
            self._flush = asyncio.create_task(self._run())

    async def _run(self, *, trim: bool = False) -> None:
        batch: list[tuple[SheetEntry, asyncio.Future[None]]] = []
        try:
            if trim:
                block = next((block for block in self._blocks if block.over), None)
                if block is not None:
                    await self._swap(block, [])
            while self._waiting:
                batch, self._waiting = self._waiting, []
                while batch:
                    block = self._block()
                    fits, batch = batch[: block.room], batch[block.room :]
                    try:
                        await self._swap(block, [entry for entry, _ in fits])
                    except BaseException:
                        batch = fits + batch
                        raise
                    for _, done in fits:
                        if not done.done():
                            done.set_result(None)
        except Exception as error:  # noqa: BLE001 - it belongs to those who wait
            for entry, done in batch + self._waiting:
                self._unplaced.pop(entry.task_id, None)
                if not done.done():
                    done.set_exception(error)
            self._waiting = []
        finally:
            self._flush = None

    def _block(self) -> _Block:
        for block in self._blocks:
            if block.room > 0:
                return block
        block = _Block(len(self._blocks))
        self._blocks.append(block)
        return block

    async def _swap(self, block: _Block, entries: list[SheetEntry]) -> None:
        over = set[str]() if self._keeps_all else block.over
        kept = {key: entry for key, entry in block.entries.items() if key not in over}
        kept.update((entry.task_id, entry) for entry in entries)
        data = _encoder.encode(list(kept.values()))
        store, key = self._store, self._store.keys.sheet(self._worker, block.number)
        config = store.config
        expires_at = store.clock.now() + config.max_ttl + config.retention + config.grace
        while True:
            version, _ = await swap(
                store.backend, key, data, block.version, expires_at, config.settle
            )
            if version is not None:
                break
            # Nobody else writes here: what is there is our own write, whose answer was lost.
            found = await self._find(key)
            if found is None:
                self._on_lost()
                raise LeaseLostError(entries[0].attempt if entries else 0)
            block.version = version = found.version
            if found.data == data:
                break
        block.version = version
        block.entries = kept
        block.over = {task_id for task_id in block.over if task_id in kept}
        for entry in entries:
            block.over.discard(entry.task_id)
            if self._unplaced.pop(entry.task_id, False):
                block.over.add(entry.task_id)
            else:
                self._places[entry.task_id] = block

    async def _find(self, key: str) -> StoredRecord | None:
        try:
            with translated():
                return await self._store.backend.get(key)
        except RecordNotFoundError:
            return None

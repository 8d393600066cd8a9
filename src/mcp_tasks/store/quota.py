"""How many active tasks an owner has: exact under races, without counting.

An owner's *roster* holds the ids of their active tasks, in blocks of at most 100 so that a record
stays small. A create adds its id by compare-and-swap; a full block is pruned of tasks that are
over. Ids of tasks that ended in this process leave with the next swap, which costs nothing.

An id without a record may belong to a create that is still on its way. Before it is dropped, a
tombstone is created under the task's key, so that this create fails and takes another id: dropping
alone would let it pass the limit.

Creates of one owner that wait together share a swap.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from mcp_tasks.domain import transitions
from mcp_tasks.domain.codec import TOMBSTONE, decode_record, encode_record
from mcp_tasks.domain.record import FORMAT, RECENT_WRITES
from mcp_tasks.errors import ContentionError, RecordFormatError, RecordNotFoundError
from mcp_tasks.failpoints import failpoint
from mcp_tasks.ids import new_name
from mcp_tasks.store.writing import back_off, swap, translated


if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from mcp_tasks.clock import Clock
    from mcp_tasks.storage.base import StorageBackend
    from mcp_tasks.storage.keys import Keys
    from mcp_tasks.store.config import StoreConfig


BLOCK = 100
"""Ids in a block."""

_KEPT = 10_000
"""Owners whose roster a process remembers."""

_PRUNE_EVERY = 1.0
"""Seconds between two looks at a full roster."""

_ids = msgspec.json.Decoder(list[str])
_encoder = msgspec.json.Encoder()


_Place = tuple[str, asyncio.Future[bool]]
"""A task that wants onto the roster, and whether it got there."""


@dataclass
class _Block:
    version: int
    ids: list[str]
    members: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self.members = frozenset(self.ids)


@dataclass
class _Roster:
    """What this process knows of an owner's roster, and who waits to get in."""

    limit: int
    blocks: dict[int, _Block] = field(default_factory=dict[int, _Block])
    over: set[str] = field(default_factory=set[str])
    waiting: list[_Place] = field(default_factory=list[_Place])
    flush: asyncio.Task[None] | None = None
    favourite: int = 0
    full_until: float = 0.0

    @property
    def count(self) -> int:
        return -(-self.limit // BLOCK)

    def knows(self, task_id: str) -> bool:
        return any(task_id in block.members for block in self.blocks.values())

    def capacity(self, number: int) -> int:
        return min(BLOCK, self.limit - number * BLOCK)


class Quota:
    """The rosters of one store."""

    def __init__(
        self, backend: StorageBackend, keys: Keys, config: StoreConfig, clock: Clock
    ) -> None:
        self._backend = backend
        self._keys = keys
        self._config = config
        self._clock = clock
        self._rosters: OrderedDict[str, _Roster] = OrderedDict()

    def is_full(self, owner: str) -> bool:
        """Tell whether a create would be refused now, by what was seen within the last second."""
        roster = self._rosters.get(owner)
        return roster is not None and time.monotonic() < roster.full_until

    def enter(self, owner: str, task_id: str) -> asyncio.Future[bool]:
        """Put a task on its owner's roster; false if the roster is full of active tasks.

        Starts at once; the future also carries the store's errors.
        """
        roster = self._roster(owner)
        loop = asyncio.get_running_loop()
        if roster.flush is not None and roster.flush.get_loop() is not loop:
            del self._rosters[owner]  # the loop of those who wait ended in the middle
            roster = self._roster(owner)
        admitted: asyncio.Future[bool] = loop.create_future()
        roster.waiting.append((task_id, admitted))
        if roster.flush is None:
            roster.flush = asyncio.create_task(self._flush(owner, roster))
        return admitted

    def leave(self, owner: str, task_id: str) -> None:
        """Note that a task is over; its id goes with the next swap of its block."""
        roster = self._rosters.get(owner)
        if roster is not None and roster.knows(task_id):
            roster.over.add(task_id)
            roster.full_until = 0.0

    async def holds(self, owner: str, task_id: str) -> bool:
        """Tell whether a task is on its owner's roster, by reading it."""
        for number in range(self._roster(owner).count):
            if task_id in (await self._read(owner, number)).ids:
                return True
        return False

    async def clear(self, owner: str, number: int, gone: Collection[str]) -> bool:
        """Take tasks that are gone off a block of a roster. True if that left nobody on it.

        The block then goes. Swapped for one that has expired, and not deleted: a create may have
        got onto it meanwhile.
        """
        for tries in range(self._config.max_tries):
            block = await self._read(owner, number)
            if not block.version:
                return False
            ids = await self._without_ended(owner, [i for i in block.ids if i not in gone])
            now, config = self._clock.now(), self._config
            life = config.max_ttl + config.retention if ids else timedelta(hours=-1)
            key, data = self._keys.roster(owner, number), _encoder.encode(ids)
            version, _ = await swap(
                self._backend, key, data, block.version, now + life, config.settle
            )
            if version is not None:
                self._roster(owner).blocks.pop(number, None)
                return not ids
            await back_off(tries)
        raise ContentionError(self._config.max_tries)

    def _roster(self, owner: str) -> _Roster:
        roster = self._rosters.get(owner)
        if roster is None:
            roster = self._rosters[owner] = _Roster(self._config.max_active_of(owner))
            roster.favourite = random.randrange(roster.count)  # noqa: S311 - spreads processes
            if len(self._rosters) > _KEPT:
                self._forget_idle()
        else:
            self._rosters.move_to_end(owner)
        return roster

    def _forget_idle(self) -> None:
        for owner, roster in list(self._rosters.items()):
            if len(self._rosters) <= _KEPT:
                return
            if roster.flush is None:
                del self._rosters[owner]

    async def _flush(self, owner: str, roster: _Roster) -> None:
        batch: list[_Place] = []
        try:
            while roster.waiting:
                batch, roster.waiting = roster.waiting, []
                await self._admit(owner, roster, batch)
        except Exception as error:  # noqa: BLE001 - it belongs to those who wait
            for _, future in batch + roster.waiting:
                if not future.done():
                    future.set_exception(error)
            roster.waiting = []
        finally:
            roster.flush = None

    async def _admit(self, owner: str, roster: _Roster, batch: list[_Place]) -> None:
        first = roster.favourite
        for prune in (False, True):
            if prune and time.monotonic() < roster.full_until:
                break
            for nth in range(roster.count):
                number = (first + nth) % roster.count
                batch = await self._fill(owner, roster, number, batch, prune=prune)
                if not batch:
                    return
        roster.full_until = time.monotonic() + _PRUNE_EVERY
        for _, future in batch:
            if not future.done():
                future.set_result(False)

    async def _fill(
        self,
        owner: str,
        roster: _Roster,
        number: int,
        batch: list[_Place],
        *,
        prune: bool,
    ) -> list[_Place]:
        """Put as many of `batch` into a block as it has room for, and return the others."""
        max_tries = 4 * self._config.max_tries
        for tries in range(max_tries):
            block = roster.blocks.get(number)
            if block is None:
                block = roster.blocks[number] = await self._read(owner, number)
            ids = [task_id for task_id in block.ids if task_id not in roster.over]
            if prune and roster.capacity(number) - len(ids) < len(batch):
                ids = await self._without_ended(owner, ids)
                failpoint("prune.after_tombstone_before_drop")
            # An id that is there already is a swap of our own whose answer was lost.
            room = max(0, roster.capacity(number) - len(ids))
            inside = [item for item in batch if item[0] in ids]
            outside = [item for item in batch if item[0] not in ids]
            taken, left = inside + outside[:room], outside[room:]
            new = ids + [task_id for task_id, _ in outside[:room]]
            if new != block.ids:
                expires_at = self._clock.now() + self._config.max_ttl + self._config.retention
                key = self._keys.roster(owner, number)
                data = _encoder.encode(new)
                version, _ = await swap(
                    self._backend, key, data, block.version, expires_at, self._config.settle
                )
                if version is None:
                    del roster.blocks[number]
                    await back_off(tries)
                    continue
                roster.over.difference_update(block.ids)
                roster.blocks[number] = _Block(version, new)
            if taken:
                roster.favourite = number
            for _, future in taken:
                if not future.done():
                    future.set_result(True)
            return left
        raise ContentionError(max_tries)

    async def _read(self, owner: str, number: int) -> _Block:
        try:
            with translated():
                found = await self._backend.get(self._keys.roster(owner, number))
        except RecordNotFoundError:
            return _Block(0, [])
        try:
            return _Block(found.version, _ids.decode(found.data))
        except msgspec.DecodeError as error:
            raise RecordFormatError("the roster of its owner is damaged") from error

    async def _without_ended(self, owner: str, task_ids: Iterable[str]) -> list[str]:
        """Return those ids whose task is active, or may still become so."""
        ordered = list(task_ids)
        active = await asyncio.gather(*(self._is_active(owner, task_id) for task_id in ordered))
        return [task_id for task_id, is_active in zip(ordered, active, strict=True) if is_active]

    async def _is_active(self, owner: str, task_id: str) -> bool:
        key = self._keys.task(owner, task_id)
        try:
            with translated():
                found = await self._backend.get(key)
        except RecordNotFoundError:
            expires_at = self._clock.now() + self._config.grace
            settle = self._config.settle
            version, _ = await swap(self._backend, key, TOMBSTONE, 0, expires_at, settle)
            return version is None  # a create got through meanwhile
        try:
            record = decode_record(found.data)
        except RecordFormatError:
            return True
        if record is None or record.is_terminal:
            return False
        if self._clock.now() < record.deadline or record.min_writer > FORMAT:
            return True
        # Ended first: an extension that is under way would let it live on beside the place's next.
        ended = replace(
            transitions.expire(record), writes=(*record.writes[1 - RECENT_WRITES :], new_name())
        )
        version, _ = await swap(
            self._backend,
            key,
            encode_record(ended),
            found.version,
            record.deadline + self._config.grace,
            self._config.settle,
        )
        return version is None  # somebody was faster: the next look tells

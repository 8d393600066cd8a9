"""The memory backend: a dict. For tests, examples, and servers whose tasks may die with them.

Not durable and not shared. The one thing to know before changing it: between looking at a record
and replacing it nothing is awaited, and that alone makes compare-and-swap atomic on one loop.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from typing import TYPE_CHECKING

from mcp_tasks.clock import SystemClock
from mcp_tasks.errors import (
    BackendClosedError,
    RecordNotFoundError,
    RecordTooLargeError,
    VersionConflictError,
)
from mcp_tasks.storage.base import Capabilities, Page, StoredRecord
from mcp_tasks.storage.keys import split
from mcp_tasks.storage.ranges import listing_range


if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

    from mcp_tasks.clock import Clock


MAX_RECORD_BYTES = 64 * 2**20
_CLEANUP_CHUNK = 1000

# A call never waits, so a caller in a loop of its own would keep all others from running. Every so
# many calls one lets them; the others stay as cheap as a look into a dict.
_CALLS_BETWEEN_PAUSES = 64

# Data, version, expiry. A plain tuple of plain values: the garbage collector leaves those alone, so
# a server with a million records does not pay for them again and again.
_Entry = tuple[bytes, int, "datetime | None"]


class MemoryBackend:
    """Keep records in this process, for one event loop.

    Args:
        clock: Decides what has expired.
    """

    capabilities = Capabilities(
        durable=False, shared=False, max_record_bytes=MAX_RECORD_BYTES, native_expiry=False
    )

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._now = (clock or SystemClock()).now
        self._entries: dict[str, _Entry] = {}
        self._sorted: dict[str, list[str]] = {}  # the keys of each partition
        self._calls = 0
        self._watchers: set[asyncio.Event] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"MemoryBackend({len(self._entries)} records)"

    async def get(self, key: str) -> StoredRecord:
        """Return the record under `key`."""
        self._calls += 1
        if self._calls >= _CALLS_BETWEEN_PAUSES:
            await self._pause()
        entry = self._entries.get(key)
        if entry is not None:
            data, version, expires_at = entry
            if expires_at is None or expires_at > self._now():
                return StoredRecord(key, data, version)
        else:
            self._check(key)
        raise RecordNotFoundError(key)

    async def put(self, key: str, data: bytes, *, expires_at: datetime | None = None) -> int:
        """Write `data` under `key`, whatever is there."""
        self._calls += 1
        if self._calls >= _CALLS_BETWEEN_PAUSES:
            await self._pause()
        return self._write(key, data, self._version(key) + 1, expires_at)

    async def put_if_version(
        self, key: str, data: bytes, expected_version: int, *, expires_at: datetime | None = None
    ) -> int:
        """Write `data` under `key` only if its version is still `expected_version`."""
        self._calls += 1
        if self._calls >= _CALLS_BETWEEN_PAUSES:
            await self._pause()
        actual = self._version(key)
        if actual != expected_version:
            raise VersionConflictError(key, expected_version, actual)
        return self._write(key, data, actual + 1, expires_at)

    async def delete(self, key: str) -> bool:
        """Remove the record under `key`, whatever its version."""
        self._calls += 1
        if self._calls >= _CALLS_BETWEEN_PAUSES:
            await self._pause()
        was_there = self._version(key) > 0
        if key in self._entries:
            self._remove(key)
            self._announce()
        return was_there

    async def list_by_prefix(
        self, prefix: str, *, limit: int = 100, after: str | None = None, reverse: bool = False
    ) -> Page:
        """Return one page of the records whose key starts with `prefix`, in key order."""
        self._calls += 1
        if self._calls >= _CALLS_BETWEEN_PAUSES:
            await self._pause()
        self._check_open()
        first, end = listing_range(prefix, limit=limit, after=after, reverse=reverse)
        keys = self._sorted.get(prefix.partition(":")[0], ())
        low = bisect_left(keys, first)
        high = bisect_left(keys, end)
        now = self._now()
        records: list[StoredRecord] = []
        for place in range(high - 1, low - 1, -1) if reverse else range(low, high):
            data, version, expires_at = self._entries[keys[place]]
            if expires_at is not None and expires_at <= now:
                continue
            if len(records) == limit:
                return Page(records, records[-1].key)
            records.append(StoredRecord(keys[place], data, version))
        return Page(records, None)

    async def cleanup_expired(self, now: datetime) -> int:
        """Remove records that expired before `now`. Looks at every record, with pauses."""
        self._check_open()
        removed = 0
        for place, key in enumerate(list(self._entries)):
            if place % _CLEANUP_CHUNK == _CLEANUP_CHUNK - 1:
                await self._pause()
            entry = self._entries.get(key)
            if entry is not None and entry[2] is not None and entry[2] <= now:
                self._remove(key)
                removed += 1
        if removed:
            self._announce()
        return removed

    async def watch(self) -> AsyncIterator[None]:
        """Yield whenever a record may have changed since the last yield."""
        self._check_open()
        changed = asyncio.Event()
        self._watchers.add(changed)
        try:
            while True:
                await changed.wait()
                if self._closed:
                    return
                changed.clear()
                yield
        finally:
            self._watchers.discard(changed)

    async def close(self) -> None:
        """Forget everything. Safe to call twice."""
        self._closed = True
        self._entries.clear()
        self._sorted.clear()
        self._announce()

    def _version(self, key: str) -> int:
        """Return the version under `key`; 0 if nothing is there, or it has expired."""
        entry = self._entries.get(key)
        if entry is None:
            self._check(key)
            return 0
        _, version, expires_at = entry
        if expires_at is None or expires_at > self._now():
            return version
        return 0

    def _write(self, key: str, data: bytes, version: int, expires_at: datetime | None) -> int:
        if len(data) > MAX_RECORD_BYTES:
            raise RecordTooLargeError(key, len(data), MAX_RECORD_BYTES)
        if expires_at is not None and expires_at.tzinfo is None:
            msg = "expires_at has no time zone"
            raise TypeError(msg)
        if key not in self._entries:
            insort(self._sorted.setdefault(split(key)[0], []), key)
        self._entries[key] = (data, version, expires_at)
        if self._watchers:
            self._announce()
        return version

    def _remove(self, key: str) -> None:
        del self._entries[key]
        partition = split(key)[0]
        keys = self._sorted[partition]
        del keys[bisect_left(keys, key)]
        if not keys:
            del self._sorted[partition]

    def _check(self, key: str) -> None:
        """Refuse a bad key. Only needed where none is found: what was stored was checked."""
        self._check_open()
        split(key)

    def _check_open(self) -> None:
        if self._closed:
            raise BackendClosedError

    def _announce(self) -> None:
        for changed in self._watchers:
            changed.set()

    async def _pause(self) -> None:
        self._calls = 0
        await asyncio.sleep(0)

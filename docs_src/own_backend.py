"""A backend of your own: a dictionary, and a file to which every change is appended."""

import asyncio
import base64
import json
import os
from datetime import datetime
from pathlib import Path

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


class JournalBackend:
    """Keeps its records in memory, and appends each change to a file before it says so."""

    capabilities = Capabilities(
        durable=True, shared=False, max_record_bytes=1024 * 1024, native_expiry=False
    )

    def __init__(self, path: Path) -> None:
        self._records: dict[str, tuple[StoredRecord, datetime | None]] = {}
        self._now = SystemClock().now
        if path.exists():
            for line in path.read_text().splitlines():
                self._apply(*json.loads(line))
        self._file = path.open("a")

    async def get(self, key: str) -> StoredRecord:
        self._check(key)
        record = self._current(key)
        if record is None:
            raise RecordNotFoundError(key)
        return record

    async def put(self, key: str, data: bytes, *, expires_at: datetime | None = None) -> int:
        self._check(key)
        return await self._write(key, self._version(key) + 1, data, expires_at)

    async def put_if_version(
        self, key: str, data: bytes, expected_version: int, *, expires_at: datetime | None = None
    ) -> int:
        self._check(key)
        # From here to the write nothing is awaited: that makes the two one step.
        if (actual := self._version(key)) != expected_version:
            raise VersionConflictError(key, expected_version, actual)
        return await self._write(key, actual + 1, data, expires_at)

    async def delete(self, key: str) -> bool:
        self._check(key)
        was_there = self._version(key) > 0
        if key in self._records:
            self._append(key, 0, "", None)
        return was_there

    async def list_by_prefix(
        self, prefix: str, *, limit: int = 100, after: str | None = None, reverse: bool = False
    ) -> Page:
        self._check()
        first, end = listing_range(prefix, limit=limit, after=after, reverse=reverse)
        # Sorting everything is O(all); yours should find the range in an index.
        keys = (key for key in sorted(self._records, reverse=reverse) if first <= key < end)
        found = [record for key in keys if (record := self._current(key))]
        return Page(found[:limit], found[limit - 1].key if len(found) > limit else None)

    async def cleanup_expired(self, now: datetime) -> int:
        self._check()
        gone = [key for key, (_, expiry) in self._records.items() if expiry and expiry <= now]
        for key in gone:
            self._append(key, 0, "", None)
        return len(gone)

    async def close(self) -> None:
        self._file.close()

    def _check(self, *keys: str) -> None:
        if self._file.closed:
            raise BackendClosedError
        for key in keys:
            split(key)

    def _current(self, key: str) -> StoredRecord | None:
        record, expiry = self._records.get(key, (None, None))
        return record if expiry is None or expiry > self._now() else None

    def _version(self, key: str) -> int:
        record = self._current(key)
        return record.version if record else 0

    async def _write(self, key: str, version: int, data: bytes, expires_at: datetime | None) -> int:
        if len(data) > self.capabilities.max_record_bytes:
            raise RecordTooLargeError(key, len(data), self.capabilities.max_record_bytes)
        if expires_at is not None and expires_at.tzinfo is None:
            raise TypeError("expires_at has no time zone")
        expiry = expires_at.isoformat() if expires_at else None
        self._append(key, version, base64.b64encode(data).decode(), expiry)
        await asyncio.sleep(0)  # a caller in a loop must not keep the others from running
        return version

    def _append(self, key: str, version: int, data: str, expiry: str | None) -> None:
        self._file.write(json.dumps([key, version, data, expiry]) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._apply(key, version, data, expiry)

    def _apply(self, key: str, version: int, data: str, expiry: str | None) -> None:
        if version == 0:
            self._records.pop(key, None)
            return
        record = StoredRecord(key, base64.b64decode(data), version)
        self._records[key] = (record, datetime.fromisoformat(expiry) if expiry else None)

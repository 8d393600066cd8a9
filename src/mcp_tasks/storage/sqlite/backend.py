"""The six methods of the storage protocol as SQL."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcp_tasks.clock import SystemClock, epoch_ms
from mcp_tasks.errors import (
    BackendClosedError,
    ConfigurationError,
    InvalidKeyError,
    RecordNotFoundError,
    RecordTooLargeError,
    VersionConflictError,
)
from mcp_tasks.storage.base import Capabilities, Page, StoredRecord
from mcp_tasks.storage.keys import split
from mcp_tasks.storage.ranges import listing_range
from mcp_tasks.storage.sqlite.commit import GroupCommit


if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator
    from datetime import datetime

    import apsw

    from mcp_tasks.clock import Clock


MAX_RECORD_BYTES = 64 * 2**20
_CLEANUP_CHUNK = 200

_GET = """
SELECT data, version FROM records
WHERE key = ? AND (expires_at IS NULL OR expires_at > ?)
"""
_VERSION = """
SELECT version FROM records
WHERE key = ? AND (expires_at IS NULL OR expires_at > ?)
"""
_STORED_VERSION = "SELECT version FROM records WHERE key = ?"
FORWARD = """
SELECT key, data, version FROM records
WHERE key >= ? AND key < ? AND (expires_at IS NULL OR expires_at > ?)
ORDER BY key LIMIT ?
"""
BACKWARD = """
SELECT key, data, version FROM records
WHERE key >= ? AND key < ? AND (expires_at IS NULL OR expires_at > ?)
ORDER BY key DESC LIMIT ?
"""
# No RETURNING: it costs several times what the write itself does, and holds COMMIT back until it is
# read to its end. How many rows changed tells as much.
_PUT = """
INSERT INTO records(key, version, expires_at, data) VALUES (?1, 1, ?2, ?3)
ON CONFLICT(key) DO UPDATE SET
    version = CASE WHEN records.expires_at <= ?4 THEN 1 ELSE records.version + 1 END,
    expires_at = excluded.expires_at,
    data = excluded.data
"""
_CREATE = """
INSERT INTO records(key, version, expires_at, data) VALUES (?1, 1, ?2, ?3)
ON CONFLICT(key) DO UPDATE SET version = 1, expires_at = excluded.expires_at, data = excluded.data
    WHERE records.expires_at <= ?4
"""
# The usual change leaves the expiry as it is; then its index is not touched either.
_CHANGE = """
UPDATE records SET data = ?, version = version + 1
WHERE key = ? AND version = ? AND expires_at IS ? AND (expires_at IS NULL OR expires_at > ?)
"""
_CHANGE_EXPIRY = """
UPDATE records SET data = ?, version = version + 1, expires_at = ?
WHERE key = ? AND version = ? AND (expires_at IS NULL OR expires_at > ?)
"""
_DELETE = "DELETE FROM records WHERE key = ? AND (expires_at IS NULL OR expires_at > ?)"
_CLEAN_UP = """
DELETE FROM records WHERE rowid IN
    (SELECT rowid FROM records WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)
"""
_LOOK = "SELECT 1 FROM records LIMIT 1"
_DATA_VERSION = "PRAGMA data_version"
_WATCH_INTERVAL = 0.1


class SqliteBackend:
    """Keep records in one SQLite file, which several processes on one machine may share.

    A write is on the disk before it is acknowledged; writes of the same turn of the event loop
    share one flush. Opens at first use, and makes the file and its folder if need be. One event
    loop at a time; `reopen` gives a second backend for another. Not for network file systems.

    Args:
        path: The file; `~` is the user's home, a relative path is resolved now.
        clock: Decides what has expired.
        busy_timeout: How long to wait for another process that writes, in seconds.
        linger: How long a write may wait for others that are on their way, in seconds; 0 for
            never. A lone caller does not wait.

    Raises:
        ConfigurationError: `path` is `:memory:`, which no other connection could share.
    """

    capabilities = Capabilities(
        durable=True, shared=True, max_record_bytes=MAX_RECORD_BYTES, native_expiry=False
    )

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        clock: Clock | None = None,
        busy_timeout: float = 10.0,
        linger: float = 0.004,
    ) -> None:
        if str(path) in ("", ":memory:"):
            msg = f"SqliteBackend needs a file, not {str(path)!r}; for memory use 'memory://'"
            raise ConfigurationError(msg)
        self._path = Path(path).expanduser().absolute()
        self._clock = clock or SystemClock()
        self._busy_timeout = busy_timeout
        self._linger = linger
        self._group = GroupCommit(
            self._path, clock=self._clock, busy_timeout=busy_timeout, linger=linger
        )

    def __repr__(self) -> str:
        return f"SqliteBackend({str(self._path)!r})"

    @property
    def path(self) -> Path:
        """The file, absolute."""
        return self._path

    @property
    def lock_directory(self) -> Path:
        """Where processes that share this file can keep lock files: its folder."""
        return self._path.parent

    def reopen(self) -> SqliteBackend:
        """Return a second, independent backend on the same file. The caller closes it."""
        return SqliteBackend(
            self._path, clock=self._clock, busy_timeout=self._busy_timeout, linger=self._linger
        )

    async def get(self, key: str) -> StoredRecord:
        """Return the record under `key`. Reads on the event loop: microseconds."""
        _check(key)
        rows = await self._read(_GET, (key, self._group.now_ms()))
        if not rows:
            raise RecordNotFoundError(key)
        data, version = rows[0]
        return StoredRecord(key, data, version)

    async def put(self, key: str, data: bytes, *, expires_at: datetime | None = None) -> int:
        """Write `data` under `key`, whatever is there."""
        expiry = _checked(key, data, expires_at)
        return await self._group.submit(_put, key, data, expiry, size=len(data))

    async def put_if_version(
        self, key: str, data: bytes, expected_version: int, *, expires_at: datetime | None = None
    ) -> int:
        """Write `data` under `key` only if its version is still `expected_version`."""
        expiry = _checked(key, data, expires_at)
        return await self._group.submit(
            _put_if_version, key, data, expected_version, expiry, size=len(data)
        )

    async def delete(self, key: str) -> bool:
        """Remove the record under `key`, whatever its version."""
        _check(key)
        return await self._group.submit(_delete, key, size=0)

    async def list_by_prefix(
        self, prefix: str, *, limit: int = 100, after: str | None = None, reverse: bool = False
    ) -> Page:
        """Return one page of the records whose key starts with `prefix`, in key order."""
        first, end = listing_range(prefix, limit=limit, after=after, reverse=reverse)
        rows = await self._read(
            BACKWARD if reverse else FORWARD, (first, end, self._group.now_ms(), limit + 1)
        )
        records = [StoredRecord(*row) for row in rows[:limit]]
        return Page(records, records[-1].key if len(rows) > limit else None)

    async def cleanup_expired(self, now: datetime) -> int:
        """Remove records that expired before `now`, a few in each transaction."""
        removed = 0
        while True:
            chunk = await self._group.submit(_clean_up, "(what has expired)", epoch_ms(now), size=0)
            removed += chunk
            if chunk < _CLEANUP_CHUNK:
                return removed

    async def initialize(self) -> list[str]:
        """Make the file and its folder where there is none. Safe to call again, and by several."""
        is_new = not self._path.exists()
        await self._read(_LOOK, ())
        return [f"Made the file {str(self._path)!r}"] if is_new else []

    async def check(self) -> list[str]:
        """Look into the file if there is one: a damaged or foreign one, say, is an error."""
        if self._path.exists():
            await self._read(_LOOK, ())
        return []

    async def close(self) -> None:
        """Let go of file and thread. Safe to call twice; calls under way end first."""
        await self._group.close()

    async def watch(self) -> AsyncIterator[None]:
        """Yield whenever a record may have changed since the last yield, in any process.

        Own commits wake it at once; those of other processes are looked for every 100 ms.
        """
        group = self._group
        changed = asyncio.Event()
        group.watchers.add(changed)
        try:
            seen = await self._read_apart(_DATA_VERSION, ())
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_WATCH_INTERVAL):
                        await changed.wait()
                changed.clear()
                if group.closed:
                    return
                found = await self._read_apart(_DATA_VERSION, ())
                if found != seen:
                    seen = found
                    yield
        finally:
            group.watchers.discard(changed)

    async def _read(self, statement: str, arguments: tuple[Any, ...]) -> list[Any]:
        """Read on the loop, and never behind a writer.

        A commit makes every other connection drop its pages. So the one that writes is asked first,
        if nobody has it right now: it needs a quarter of the time.
        """
        if self._group.closed:
            raise BackendClosedError
        rows = self._group.read_as_writer(statement, arguments)
        return await self._read_apart(statement, arguments) if rows is None else rows

    async def _read_apart(self, statement: str, arguments: tuple[Any, ...]) -> list[Any]:
        """Read by the connection that only reads."""
        group = self._group
        while True:
            if group.closed:
                raise BackendClosedError
            reader = group.reader
            if reader is None:
                reader = await group.open()
            try:
                with group.errors:
                    return reader.execute(statement, arguments).fetchall()
            except BackendClosedError:
                # A fork on another thread closes it; then there is a new one.
                if group.reader is reader:
                    raise


# --- what one write does, inside a transaction ---------------------------------------------------


def _put(cursor: apsw.Cursor, now: int, key: str, data: bytes, expiry: int | None) -> int:
    cursor.execute(_PUT, (key, expiry, data, now))
    stored: list[Any] = cursor.execute(_STORED_VERSION, (key,)).fetchall()
    return stored[0][0]


def _put_if_version(
    cursor: apsw.Cursor, now: int, key: str, data: bytes, expected: int, expiry: int | None
) -> int:
    changes = cursor.connection.changes
    if expected == 0:
        cursor.execute(_CREATE, (key, expiry, data, now))
        if changes():
            return 1
    else:
        cursor.execute(_CHANGE, (data, key, expected, expiry, now))
        if changes():
            return expected + 1
        cursor.execute(_CHANGE_EXPIRY, (data, expiry, key, expected, now))
        if changes():
            return expected + 1
    # The statements above decide; this one only words the refusal.
    found: list[Any] = cursor.execute(_VERSION, (key, now)).fetchall()
    raise VersionConflictError(key, expected, found[0][0] if found else 0)


def _delete(cursor: apsw.Cursor, now: int, key: str) -> bool:
    cursor.execute(_DELETE, (key, now))
    return cursor.connection.changes() > 0


def _clean_up(cursor: apsw.Cursor, _now: int, _key: str, before: int) -> int:
    cursor.execute(_CLEAN_UP, (before, _CLEANUP_CHUNK))
    return cursor.connection.changes()


def _check(key: str) -> None:
    split(key)
    if not key.isascii():
        try:
            key.encode()
        except UnicodeEncodeError:
            raise InvalidKeyError(key, "it is not text") from None


def _checked(key: str, data: bytes, expires_at: datetime | None) -> int | None:
    _check(key)
    if len(data) > MAX_RECORD_BYTES:
        raise RecordTooLargeError(key, len(data), MAX_RECORD_BYTES)
    return None if expires_at is None else epoch_ms(expires_at)

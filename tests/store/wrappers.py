"""Backends around a backend: one that watches, one that loses answers, one that is small."""

from __future__ import annotations

import contextlib
import enum
from typing import TYPE_CHECKING, NamedTuple

from mcp_tasks.errors import (
    OutcomeUnknownError,
    RecordTooLargeError,
    StorageUnavailableError,
    VersionConflictError,
)


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from mcp_tasks.storage.base import Capabilities, Page, StorageBackend, StoredRecord


class Seen(NamedTuple):
    """One call of a backend.

    Attributes:
        operation: The method.
        key: The key, or the prefix.
        size: Bytes that were read or written.
    """

    operation: str
    key: str
    size: int = 0


class Around:
    """Passes every call on. What follows changes one thing each."""

    def __init__(self, inner: StorageBackend) -> None:
        self.inner = inner

    @property
    def capabilities(self) -> Capabilities:
        """As the inner one."""
        return self.inner.capabilities

    async def get(self, key: str) -> StoredRecord:
        """Pass on."""
        return await self.inner.get(key)

    async def put(self, key: str, data: bytes, *, expires_at: datetime | None = None) -> int:
        """Pass on."""
        return await self.inner.put(key, data, expires_at=expires_at)

    async def put_if_version(
        self, key: str, data: bytes, expected_version: int, *, expires_at: datetime | None = None
    ) -> int:
        """Pass on."""
        return await self.inner.put_if_version(key, data, expected_version, expires_at=expires_at)

    async def delete(self, key: str) -> bool:
        """Pass on."""
        return await self.inner.delete(key)

    async def list_by_prefix(
        self, prefix: str, *, limit: int = 100, after: str | None = None, reverse: bool = False
    ) -> Page:
        """Pass on."""
        return await self.inner.list_by_prefix(prefix, limit=limit, after=after, reverse=reverse)

    async def cleanup_expired(self, now: datetime) -> int:
        """Pass on."""
        return await self.inner.cleanup_expired(now)

    async def close(self) -> None:
        """Leave the inner one open: the fixture closes it."""


class Watched(Around):
    """Notes every call, in the order in which they began.

    Attributes:
        calls: What was called.
        gate: Awaited before each call, if set.
    """

    def __init__(self, inner: StorageBackend) -> None:
        super().__init__(inner)
        self.calls: list[Seen] = []
        self.gate: Callable[[Seen], Awaitable[None]] | None = None

    async def _see(self, operation: str, key: str, size: int = 0) -> None:
        seen = Seen(operation, key, size)
        self.calls.append(seen)
        if self.gate is not None:
            await self.gate(seen)

    async def get(self, key: str) -> StoredRecord:
        """Note the bytes that were read, too."""
        await self._see("get", key)
        at = len(self.calls) - 1
        found = await super().get(key)
        self.calls[at] = Seen("get", key, len(found.data))
        return found

    async def put(self, key: str, data: bytes, *, expires_at: datetime | None = None) -> int:
        """Note it."""
        await self._see("put", key, len(data))
        return await super().put(key, data, expires_at=expires_at)

    async def put_if_version(
        self, key: str, data: bytes, expected_version: int, *, expires_at: datetime | None = None
    ) -> int:
        """Note it."""
        await self._see("swap", key, len(data))
        return await super().put_if_version(key, data, expected_version, expires_at=expires_at)

    async def delete(self, key: str) -> bool:
        """Note it."""
        await self._see("delete", key)
        return await super().delete(key)

    async def list_by_prefix(
        self, prefix: str, *, limit: int = 100, after: str | None = None, reverse: bool = False
    ) -> Page:
        """Note it."""
        await self._see("list", prefix)
        return await super().list_by_prefix(prefix, limit=limit, after=after, reverse=reverse)

    def take(self) -> list[tuple[str, str]]:
        """Return what was called since the last time, without sizes."""
        calls, self.calls = self.calls, []
        return [(call.operation, call.key) for call in calls]


class Fault(enum.Enum):
    """What becomes of a write that is not answered."""

    APPLIED = "it happened"
    LOST = "it did not happen"
    LATE = "it happens before the next write of its key"
    AFTER_RETRY = "it happens after the next write of its key"
    REFUSED = "the database says that it is not there"


class Faulty(Around):
    """Loses the answers to chosen writes.

    Attributes:
        plan: Faults of the next writes whose key passes `about`, one each, first to last.
        about: Which keys.
        meanwhile: Done after each fault, before the caller hears of it.
    """

    def __init__(self, inner: StorageBackend) -> None:
        super().__init__(inner)
        self.plan: list[Fault] = []
        self.about: Callable[[str], bool] = lambda _key: True
        self.meanwhile: Callable[[], Awaitable[object]] | None = None
        self._late: dict[str, Callable[[], Awaitable[object]]] = {}
        self._later: dict[str, Callable[[], Awaitable[object]]] = {}

    async def put(self, key: str, data: bytes, *, expires_at: datetime | None = None) -> int:
        """Write, or not."""
        return await self._write(key, lambda: self.inner.put(key, data, expires_at=expires_at))

    async def put_if_version(
        self, key: str, data: bytes, expected_version: int, *, expires_at: datetime | None = None
    ) -> int:
        """Write, or not."""
        return await self._write(
            key,
            lambda: self.inner.put_if_version(key, data, expected_version, expires_at=expires_at),
        )

    async def delete(self, key: str) -> bool:
        """Remove, or not."""
        return bool(await self._write(key, lambda: self.inner.delete(key)))

    async def _write(self, key: str, write: Callable[[], Awaitable[int]]) -> int:
        if late := self._late.pop(key, None):
            await _land(late)
        fault = self.plan.pop(0) if self.plan and self.about(key) else None
        if fault is None:
            try:
                return await write()
            finally:
                if later := self._later.pop(key, None):
                    await _land(later)
        if fault is Fault.REFUSED:
            raise StorageUnavailableError("it is away")
        if fault is Fault.APPLIED:
            await _land(write)
        elif fault is Fault.LATE:
            self._late[key] = write
        elif fault is Fault.AFTER_RETRY:
            self._later[key] = write
        if self.meanwhile is not None:
            await self.meanwhile()
        raise OutcomeUnknownError(key, "no answer")


async def _land(write: Callable[[], Awaitable[object]]) -> None:
    with contextlib.suppress(VersionConflictError):  # nobody hears of a copy that comes too late
        await write()


class Small(Around):
    """Takes only records of so many bytes, and says so."""

    def __init__(self, inner: StorageBackend, max_record_bytes: int) -> None:
        super().__init__(inner)
        self._limit = max_record_bytes

    @property
    def capabilities(self) -> Capabilities:
        """As the inner one, but for the size."""
        return self.inner.capabilities._replace(max_record_bytes=self._limit)

    async def put(self, key: str, data: bytes, *, expires_at: datetime | None = None) -> int:
        """Refuse what is too large."""
        self._check(key, data)
        return await super().put(key, data, expires_at=expires_at)

    async def put_if_version(
        self, key: str, data: bytes, expected_version: int, *, expires_at: datetime | None = None
    ) -> int:
        """Refuse what is too large."""
        self._check(key, data)
        return await super().put_if_version(key, data, expected_version, expires_at=expires_at)

    def _check(self, key: str, data: bytes) -> None:
        if len(data) > self._limit:
            raise RecordTooLargeError(key, len(data), self._limit)

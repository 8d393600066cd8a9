"""A backend that keeps to keys of its own in a database that others use, and remembers them."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from mcp_tasks.clock import SystemClock
from mcp_tasks.errors import (
    InvalidKeyError,
    RecordNotFoundError,
    RecordTooLargeError,
    VersionConflictError,
)
from mcp_tasks.storage.base import ChangeSource, Page, Reopenable
from mcp_tasks.storage.keys import split, split_prefix


if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

    from mcp_tasks.storage.base import Capabilities, StorageBackend, StoredRecord


_LONG = 200


class Written(dict[str, "datetime | None"]):
    """Every key that was written, as the database has it, with the expiry it was last given."""


class Apart:
    """The backend behind it, with `front` before each partition.

    What cannot be a key is passed on as it is, for the backend has to refuse it.

    Args:
        backend: Where everything goes.
        front: What no other key in the database begins with.
        written: Notes what is written.
    """

    def __init__(self, backend: StorageBackend, front: str, written: Written) -> None:
        self._backend = backend
        self._front = front
        self._written = written

    def __repr__(self) -> str:
        return repr(self._backend)

    @property
    def capabilities(self) -> Capabilities:
        """What the backend is."""
        return self._backend.capabilities

    async def get(self, key: str) -> StoredRecord:
        """Read the record that stands for `key`."""
        try:
            found = await self._backend.get(self._there(key))
        except RecordNotFoundError as error:
            raise RecordNotFoundError(key) from error
        return found._replace(key=key)

    async def put(self, key: str, data: bytes, *, expires_at: datetime | None = None) -> int:
        """Write the record that stands for `key`."""
        there = self._noted(key, expires_at)
        try:
            return await self._backend.put(there, data, expires_at=expires_at)
        except RecordTooLargeError as error:
            raise RecordTooLargeError(key, error.size, error.limit) from error

    async def put_if_version(
        self, key: str, data: bytes, expected_version: int, *, expires_at: datetime | None = None
    ) -> int:
        """Swap the record that stands for `key`."""
        there = self._noted(key, expires_at)
        try:
            return await self._backend.put_if_version(
                there, data, expected_version, expires_at=expires_at
            )
        except VersionConflictError as error:
            raise VersionConflictError(key, error.expected, error.actual) from error
        except RecordTooLargeError as error:
            raise RecordTooLargeError(key, error.size, error.limit) from error

    async def delete(self, key: str) -> bool:
        """Remove the record that stands for `key`."""
        return await self._backend.delete(self._there(key))

    async def list_by_prefix(
        self, prefix: str, *, limit: int = 100, after: str | None = None, reverse: bool = False
    ) -> Page:
        """List the records that stand for those with `prefix`."""
        try:
            partition, begin = split_prefix(prefix)
        except InvalidKeyError:
            return await self._backend.list_by_prefix(
                prefix, limit=limit, after=after, reverse=reverse
            )
        front = f"{self._place(partition)}:"
        if after is not None:
            here, colon, sort = after.partition(":")
            after = front + sort if here == partition and colon else self._front + after
        page = await self._backend.list_by_prefix(
            front + begin, limit=limit, after=after, reverse=reverse
        )

        def back(key: str) -> str:
            return f"{partition}:{key.removeprefix(front)}"

        records = [record._replace(key=back(record.key)) for record in page.records]
        return Page(records, None if page.next is None else back(page.next))

    async def cleanup_expired(self, now: datetime) -> int:
        """Remove what has expired, but nothing that others may still read; count what was ours."""
        at = min(now, SystemClock().now())
        ours = [
            key
            for key, expires_at in self._written.items()
            if key.startswith(self._front) and expires_at and expires_at <= at
        ]
        removed = await self._backend.cleanup_expired(at)
        for key in ours:
            self._written[key] = None
        return min(removed, len(ours))

    async def close(self) -> None:
        """Close the backend."""
        await self._backend.close()

    def _noted(self, key: str, expires_at: datetime | None) -> str:
        there = self._there(key)
        self._written[there] = expires_at
        return there

    def _there(self, key: str) -> str:
        try:
            partition, sort = split(key)
        except InvalidKeyError:
            return key
        return f"{self._place(partition)}:{sort}"

    def _place(self, partition: str) -> str:
        # A long one gives up its beginning, so that the longest keys stay as long as they are.
        return self._front + (
            partition[len(self._front) :] if len(partition) > _LONG else partition
        )


class ReopenableApart(Apart):
    """The same over a backend with `reopen`."""

    def reopen(self) -> Apart:
        """Open the backend a second time, with the same keys."""
        assert isinstance(self._backend, Reopenable)
        return ReopenableApart(self._backend.reopen(), self._front, self._written)


class WatchableApart(ReopenableApart):
    """The same over a backend with `watch` too."""

    def watch(self) -> AsyncIterator[None]:
        """Watch the backend: what others change is a hint too."""
        assert isinstance(self._backend, ChangeSource)
        return self._backend.watch()


def set_apart(backend: StorageBackend, front: str, written: Written) -> Apart:
    """Wrap a backend in what has the same optional methods."""
    kind = Apart
    if isinstance(backend, Reopenable):
        kind = WatchableApart if isinstance(backend, ChangeSource) else ReopenableApart
    return kind(backend, front, written)


async def remove_all(backend: StorageBackend, written: Written) -> int:
    """Remove what was written, and return how much was there."""
    removed = 0
    for key in written:
        with suppress(InvalidKeyError):
            removed += await backend.delete(key)
    return removed

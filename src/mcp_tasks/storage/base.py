"""The storage protocol: six methods over keys, bytes, versions and expiry times.

A backend is dumb on purpose. It never looks into the bytes it carries and knows nothing of tasks;
every rule about tasks is in `mcp_tasks.store`. What each method promises is written here once;
`mcp_tasks.testing.StorageBackendContract` tests every sentence of it.

Rules that hold for all methods:

- A key is `partition:sort` with exactly one colon (`mcp_tasks.storage.keys` makes them). What is no
  key raises `InvalidKeyError`, from every method.
- Versions start at 1 and rise by 1 with every write. 0 means absent. After a delete or an expiry a
  key starts at 1 again.
- A record past its `expires_at` does not exist, from that millisecond on, whether or not it was
  removed yet.
- A read sees every write that was acknowledged before it began, by any process.
- A write is durable (as far as the backend is) before it is acknowledged. If the caller is
  cancelled meanwhile, the write happens as a whole or not at all.
- No method retries a write whose outcome is unknown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable


if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from datetime import datetime


class StoredRecord(NamedTuple):
    """What lies under a key."""

    key: str
    data: bytes
    version: int


class Page(NamedTuple):
    """Records in key order, and where the next page begins.

    Attributes:
        records: At most `limit` of them.
        next: Pass as `after` for the next page; `None` when there is none.
    """

    records: Sequence[StoredRecord]
    next: str | None


class Capabilities(NamedTuple):
    """How backends differ, as data.

    Attributes:
        durable: Acknowledged writes outlive the process.
        shared: Several processes can use the same database at once.
        max_record_bytes: The largest `data` that a write takes.
        native_expiry: The database removes expired records by itself.
    """

    durable: bool
    shared: bool
    max_record_bytes: int
    native_expiry: bool


class StorageBackend(Protocol):
    """A key-value store with compare-and-swap. Safe for many concurrent callers on one loop."""

    @property
    def capabilities(self) -> Capabilities:
        """What this backend is."""
        ...

    async def get(self, key: str) -> StoredRecord:
        """Return the record under `key`.

        Raises:
            RecordNotFoundError: Nothing is there, or it has expired.
            StorageUnavailableError: The database did not answer.
        """
        ...

    async def put(self, key: str, data: bytes, *, expires_at: datetime | None = None) -> int:
        """Write `data` under `key`, whatever is there. One atomic step.

        Args:
            key: Where to write.
            data: The whole new record.
            expires_at: When it ceases to exist, aware; `None` for never. Replaces an earlier one.

        Returns:
            The new version: 1 if nothing was there, else one more than before. Concurrent puts
            get distinct versions.

        Raises:
            RecordTooLargeError: Nothing was written.
            TypeError: `expires_at` has no time zone. Nothing was written.
            OutcomeUnknownError: The database did not answer. The write may have happened.
        """
        ...

    async def put_if_version(
        self, key: str, data: bytes, expected_version: int, *, expires_at: datetime | None = None
    ) -> int:
        """Write `data` under `key` only if its version is still `expected_version`.

        The comparison and the write are one atomic step: of any number of concurrent callers with
        the same `expected_version`, exactly one succeeds.

        Args:
            key: Where to write.
            data: The whole new record, not a patch.
            expected_version: The version the caller read; 0 creates, if nothing is there.
            expires_at: When it ceases to exist, aware; `None` for never. Replaces an earlier one.

        Returns:
            The new version, `expected_version + 1`.

        Raises:
            VersionConflictError: Someone wrote first; `actual` is the true version, 0 if the
                record is gone. Nothing was changed.
            RecordTooLargeError: Nothing was written.
            TypeError: `expires_at` has no time zone. Nothing was written.
            OutcomeUnknownError: The database did not answer. The write may have happened.
        """
        ...

    async def delete(self, key: str) -> bool:
        """Remove the record under `key`, whatever its version.

        Returns:
            True if one was there (and had not expired).

        Raises:
            OutcomeUnknownError: The database did not answer. It may be gone.
        """
        ...

    async def list_by_prefix(
        self, prefix: str, *, limit: int = 100, after: str | None = None, reverse: bool = False
    ) -> Page:
        """Return one page of the records whose key starts with `prefix`, in key order.

        The cost depends on the page, not on how many records there are.

        Args:
            prefix: `partition:` or `partition:begin-of-sort`; it holds the one colon.
            limit: The most records to return, at least 1.
            after: Begin behind this key (before it when `reverse`); it need not exist.
            reverse: Descending order.

        Raises:
            InvalidKeyError: `prefix` has no colon.
            ValueError: `limit` is less than 1.
            StorageUnavailableError: The database did not answer.
        """
        ...

    async def cleanup_expired(self, now: datetime) -> int:
        """Remove records that expired before `now`, as far as the database does not by itself.

        Returns:
            How many were removed; 0 for a database that does it alone.
        """
        ...

    async def close(self) -> None:
        """Let go of what this backend opened. Safe to call twice; calls under way end first."""
        ...


@runtime_checkable
class Reopenable(Protocol):
    """A backend that can be opened a second time, for another event loop and thread."""

    def reopen(self) -> StorageBackend:
        """Return a second, independent backend on the same database. The caller closes it."""
        ...


@runtime_checkable
class ChangeSource(Protocol):
    """A backend that can say that something changed."""

    def watch(self) -> AsyncIterator[None]:
        """Yield whenever a record may have changed since the last yield, in any process.

        A hint, never the truth: changes may be reported late, twice or together, and a lost
        connection may lose some. Re-read on waking, and keep a slow poll underneath.
        """
        ...


@runtime_checkable
class Checkable(Protocol):
    """A backend that can say before the first task whether its database will do."""

    async def check(self) -> Sequence[str]:
        """Look at the database without changing it. Servers do this when they start.

        Returns:
            Warnings, each a sentence that says what is risky and what to do; none if all is well.

        Raises:
            ConfigurationError: It cannot work: no table, no permission, a wrong region, a schema
                of a newer version. Says what to do.
            StorageUnavailableError: The database did not answer.
        """
        ...


@runtime_checkable
class Initializable(Protocol):
    """A backend whose database has to be set up; `mcp-tasks init URL` does it."""

    async def initialize(self) -> Sequence[str]:
        """Create or migrate what is missing, then check it. Safe to call again, and by several.

        Returns:
            What was found and what was done, a sentence each.

        Raises:
            ConfigurationError: What is there is something else, or may not be changed. Says exactly
                what differs; nothing that was there before was altered.
            StorageUnavailableError: The database did not answer.
        """
        ...

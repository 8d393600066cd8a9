"""The six methods of the storage protocol over one table of PostgreSQL."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Self

from mcp_tasks.errors import (
    BackendClosedError,
    ConfigurationError,
    InvalidKeyError,
    RecordTooLargeError,
    StorageFormatError,
)
from mcp_tasks.storage.base import Capabilities, Page, StoredRecord
from mcp_tasks.storage.keys import split
from mcp_tasks.storage.postgres.driver import DRIVER_ERRORS, connect, deadline, part, translate
from mcp_tasks.storage.postgres.engine import Engine
from mcp_tasks.storage.postgres.hints import Announcer, channel_of, listen
from mcp_tasks.storage.postgres.options import (
    PostgresOptions,
    check_dsn,
    names_in,
    parse,
    place_of,
    refused,
)
from mcp_tasks.storage.postgres.schema import ensure, examine
from mcp_tasks.storage.postgres.statements import statements_for
from mcp_tasks.storage.ranges import listing_range


if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence

    from mcp_tasks.storage.postgres.driver import Connect, Connection


# PostgreSQL takes nearly 1 GB in a column, but client and server hold a record in memory several
# times over. As much as the SQLite backend takes.
MAX_RECORD_BYTES = 64 * 2**20
_CLEANUP_CHUNK = 500
_EXPIRED = "(what has expired)"
_END_OF_TIME = datetime.max.replace(tzinfo=UTC)

_engines_of_parents: list[Engine] = []


class PostgresBackend:
    """Keep records in one PostgreSQL table, which any number of servers may share.

    A write is as durable as the server's `synchronous_commit` makes it before it is acknowledged.
    Writes that wait together share one statement. Connects at first use. One event loop at a time;
    `reopen` gives a second backend for another.

    Args:
        dsn: What the driver is given: `postgresql://user:password@host:port/database?sslmode=…`,
            several hosts too; `None` for the environment variables of libpq.
        options: Everything that is not the driver's.
        connect: Called for each new connection, with the arguments of `asyncpg.connect`. A password
            that changes: `partial(asyncpg.connect, password=fetch_token)`.

    Raises:
        ConfigurationError: `dsn` has an address or options that cannot be read.
    """

    capabilities = Capabilities(
        durable=True, shared=True, max_record_bytes=MAX_RECORD_BYTES, native_expiry=False
    )

    def __init__(
        self,
        dsn: str | None = None,
        options: PostgresOptions | None = None,
        *,
        connect: Connect = connect,
    ) -> None:
        if dsn is not None:
            check_dsn(dsn)
        self._dsn = dsn
        self._options = options or PostgresOptions()
        self._connect = connect
        self.statements = statements_for(self._options.identifier)
        self._engine: Engine | None = None
        self._closed = False

    @classmethod
    def from_url(cls, url: str) -> PostgresBackend:
        """Return the backend that `url` names. Nothing is opened yet.

        `docs/backends/postgres.md` lists the options; `notify=true` makes one that can be watched.

        Raises:
            ConfigurationError: A part of the URL cannot be used. It is named, and not shown.
        """
        dsn, options, notify = parse(url)
        return NotifyingPostgresBackend(dsn, options) if notify else PostgresBackend(dsn, options)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({place_of(self._dsn)}, table={self._options.table!r})"

    def reopen(self) -> Self:
        """Return a second, independent backend on the same table. The caller closes it."""
        return type(self)(self._dsn, self._options, connect=self._connect)

    async def get(self, key: str) -> StoredRecord:
        """Return the record under `key`."""
        _check(key)
        return await self._enter().get.submit(key)

    async def put(self, key: str, data: bytes, *, expires_at: datetime | None = None) -> int:
        """Write `data` under `key`, whatever is there."""
        expiry = _checked(key, data, expires_at)
        return await self._enter().put.submit(key, data, expiry)

    async def put_if_version(
        self, key: str, data: bytes, expected_version: int, *, expires_at: datetime | None = None
    ) -> int:
        """Write `data` under `key` only if its version is still `expected_version`."""
        expiry = _checked(key, data, expires_at)
        engine = self._enter()
        lane = engine.swap if expected_version else engine.create
        return await lane.submit(key, data, expiry, expected_version)

    async def delete(self, key: str) -> bool:
        """Remove the record under `key`, whatever its version."""
        _check(key)
        return await self._enter().delete.submit(key)

    async def list_by_prefix(
        self, prefix: str, *, limit: int = 100, after: str | None = None, reverse: bool = False
    ) -> Page:
        """Return one page of the records whose key starts with `prefix`, in key order."""
        _check_text(prefix)
        _check_text(after or "")
        if reverse:
            first, end = listing_range(prefix, limit=limit, after=after, reverse=True)
            behind, statement = "", self.statements.backward
        else:
            # The range begins at the prefix, for `after` with a NUL behind it is no text here.
            first, end = listing_range(prefix, limit=limit, after=None, reverse=False)
            behind, statement = after or "", self.statements.forward
        rows = await self._enter().run(statement, first, end, behind, limit + 1)
        records = [StoredRecord(key, data, version) for key, data, version in rows[:limit]]
        return Page(records, records[-1].key if len(rows) > limit else None)

    async def cleanup_expired(self, now: datetime) -> int:
        """Remove records that expired before `now`, by the server's clock too, a few at a time."""
        moment = _utc(now)
        removed = 0
        while True:
            rows = await self._enter().run(
                self.statements.clean_up, moment, _CLEANUP_CHUNK, writes=_EXPIRED
            )
            removed += rows[0][0]
            if rows[0][0] < _CLEANUP_CHUNK:
                return removed

    async def close(self) -> None:
        """Let go of the connections. Safe to call twice; calls under way end first."""
        self._closed = True
        engine, self._engine = self._engine, None
        if engine is not None and engine.process == os.getpid() and not engine.loop.is_closed():
            await engine.close()

    async def check(self) -> Sequence[str]:
        """Look at server, table, rights and settings without changing them."""
        async with self._apart() as connection:
            return await examine(connection, self._options)

    async def initialize(self) -> Sequence[str]:
        """Make the table, or bring an older one up to date, then check it."""
        async with self._apart() as connection:
            done = await ensure(connection, replace(self._options, create=True))
            return [*done, *await examine(connection, self._options)]

    def _enter(self) -> Engine:
        """Return what serves the running loop."""
        loop = asyncio.get_running_loop()
        engine = self._engine
        if engine is not None and engine.loop is loop and engine.process == os.getpid():
            return engine
        if self._closed:
            raise BackendClosedError
        if engine is not None:
            if engine.process != os.getpid():
                # The connections are the parent's: not to be used, and not to be closed.
                _engines_of_parents.append(engine)
            elif engine.loop.is_running():
                msg = (
                    "this backend is in use by another event loop; "
                    "open a second one for this loop with reopen()"
                )
                raise ConfigurationError(msg)
        self._engine = engine = Engine(
            self._open, self._prepare, self._options, self.statements, self._written
        )
        return engine

    async def _prepare(self, connection: Connection) -> None:
        try:
            await ensure(connection, self._options)
        except DRIVER_ERRORS as error:
            raise translate(error, self._options.table) from error

    def _written(self) -> None:
        """Hear that something was written."""

    async def _open(self) -> Connection:
        """Open a connection to a server that takes writes."""
        given = names_in(self._dsn or "")
        more = {} if "target_session_attrs" in given else {"target_session_attrs": "read-write"}
        try:
            return await self._connect(
                self._dsn,
                timeout=self._options.connect_timeout,
                statement_cache_size=100 if self._options.prepared else 0,
                max_cached_statement_lifetime=0,
                server_settings=self._settings(given),
                **more,
            )
        except ValueError as error:
            raise refused(error) from None

    def _settings(self, given: set[str]) -> dict[str, str]:
        """Return what a connection is opened with: settings of the server, unless the URL has them.

        A proxy that shares connections refuses them.
        """
        if not self._options.prepared:
            return {}
        ms = round(self._options.timeout * 1000)
        settings = {
            "application_name": "mcp-tasks",
            "statement_timeout": str(ms),
            # A row that somebody holds must not cost the others of its batch all of their time.
            "lock_timeout": str(max(ms // 4, 1)),
            "default_transaction_isolation": "read committed",
            # One plan, made once, that visits rows by the order of their keys: see `statements`.
            "plan_cache_mode": "force_generic_plan",
            "jit": "off",
            "enable_seqscan": "off",
            "enable_bitmapscan": "off",
            "enable_hashjoin": "off",
            "enable_mergejoin": "off",
        }
        return {name: value for name, value in settings.items() if name not in given}

    @asynccontextmanager
    async def _apart(self) -> AsyncGenerator[Connection]:
        """Give a connection of its own, and what goes wrong as an error at start."""
        if self._closed:
            raise BackendClosedError
        connection: Connection | None = None
        try:
            connection = await self._open()
            with deadline(connection, self._options.timeout):
                yield connection
        except DRIVER_ERRORS as error:
            raise translate(error, self._options.table) from error
        except StorageFormatError as error:
            raise ConfigurationError(str(error)) from error
        finally:
            if connection is not None:
                await part(connection)


class NotifyingPostgresBackend(PostgresBackend):
    """A backend whose writes are announced to every process that watches.

    Costs a small statement beside each batch of writes, and a connection for each `watch`. All
    processes that are to hear of one another must use it. It needs a connection that stays: not for
    a proxy that gives every transaction another one.

    Raises:
        ConfigurationError: The options have `prepared=False`.
    """

    def __init__(
        self,
        dsn: str | None = None,
        options: PostgresOptions | None = None,
        *,
        connect: Connect = connect,
    ) -> None:
        super().__init__(dsn, options, connect=connect)
        if not self._options.prepared:
            msg = "notify=true needs connections that stay, which prepared=false says there are not"
            raise ConfigurationError(msg)
        self._channel = channel_of(self._options.table)
        self._announcer = Announcer(self._channel)
        self._watchers: set[asyncio.Event] = set()

    async def watch(self) -> AsyncIterator[None]:
        """Yield whenever a record may have changed since the last yield, in any process."""
        heard = asyncio.Event()
        self._watchers.add(heard)
        hints = listen(self._open, self._channel, heard, lambda: self._closed)
        try:
            async for _ in hints:
                yield
        finally:
            self._watchers.discard(heard)
            await hints.aclose()

    async def close(self) -> None:
        """Let go of the connections, and end those who watch."""
        await super().close()
        for heard in self._watchers:
            heard.set()

    def _written(self) -> None:
        if self._engine is not None:
            self._announcer.announce(self._engine)


# --- arguments -----------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def _check(key: str) -> None:
    """Refuse what is no key; what has passed once passes quickly."""
    split(key)
    _check_text(key)


def _check_text(text: str) -> None:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidKeyError(text, "it is not text") from None
    if "\0" in text:
        raise InvalidKeyError(text, "PostgreSQL takes no NUL in a text")


def _checked(key: str, data: bytes, expires_at: datetime | None) -> datetime | None:
    _check(key)
    if len(data) > MAX_RECORD_BYTES:
        raise RecordTooLargeError(key, len(data), MAX_RECORD_BYTES)
    return None if expires_at is None else _utc(expires_at)


def _utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        msg = "a time needs a time zone"
        raise TypeError(msg)
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return _END_OF_TIME

"""The six methods of the storage protocol over Redis or Valkey."""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from mcp_tasks.clock import epoch_ms
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
from mcp_tasks.storage.redis.checks import examine
from mcp_tasks.storage.redis.driver import ANSWERS, BROKEN, Connection, translate
from mcp_tasks.storage.redis.engine import Engine
from mcp_tasks.storage.redis.hints import listen
from mcp_tasks.storage.redis.options import RedisOptions, Target, parse
from mcp_tasks.storage.redis.scripts import DELETE, LIST, TRIM, WRITE, Names


if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from datetime import datetime

    from mcp_tasks.storage.redis.driver import Command


# A server takes 512 MB in a value, but is busy with nothing else while it takes them in.
MAX_RECORD_BYTES = 64 * 2**20
_TRIM_CHUNK = 500
_SCAN_CHUNK = 1000
_MORE, _TIRED = 1, 2

_engines_of_parents: list[Engine] = []


class _Place(NamedTuple):
    """Where a record lies: its key, index and deadlines, and its name in those."""

    record: str
    members: str
    deadlines: str
    sort: bytes


class RedisBackend:
    """Keep records on a Redis or Valkey server, which any number of servers may share.

    A write is as durable as the server's `appendonly` and `appendfsync` make it before it is
    acknowledged. Calls that wait together go out at once on one connection. The server removes
    expired records by itself. Connects at first use. One event loop at a time; `reopen` gives a
    second backend for another.

    Args:
        target: Where the server is; `None` for `localhost:6379`. `from_url` makes one.
        options: Everything that is not the driver's.

    Raises:
        ConfigurationError: The driver does not take the target's settings.
    """

    capabilities = Capabilities(
        durable=True, shared=True, max_record_bytes=MAX_RECORD_BYTES, native_expiry=True
    )

    def __init__(self, target: Target | None = None, options: RedisOptions | None = None) -> None:
        self._target = target or Target(kind="single", nodes=(("localhost", 6379),))
        self._options = options or RedisOptions()
        Connection(self._target.nodes[0], self._target.settings, 1.0)
        self._names = Names(self._options.prefix)
        self._channel = self._names.channel if self._options.hints else b""
        self._place = lru_cache(maxsize=4096)(self._find_place)
        self._engine: Engine | None = None
        self._watchers: set[asyncio.Event] = set()
        self._closed = False

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Return the backend that `url` names. Nothing is opened yet.

        `docs/backends/redis.md` lists the options.

        Raises:
            ConfigurationError: The URL cannot be used. It is not shown.
        """
        return cls(*parse(url))

    def __repr__(self) -> str:
        return f"RedisBackend({self._target}, prefix={self._options.prefix!r})"

    def reopen(self) -> Self:
        """Return a second, independent backend on the same server. The caller closes it."""
        return type(self)(self._target, self._options)

    # --- the six methods -------------------------------------------------------------------------

    async def get(self, key: str) -> StoredRecord:
        """Return the record under `key`."""
        record = self._place(key).record
        command = ("HMGET", record, "data", "version")
        data, version = await self._enter().submit(command, record, writes=None, size=len(record))
        if version is None:
            raise RecordNotFoundError(key)
        return StoredRecord(key, data, int(version))

    async def put(self, key: str, data: bytes, *, expires_at: datetime | None = None) -> int:
        """Write `data` under `key`, whatever is there."""
        return await self._write(key, data, "", expires_at)

    async def put_if_version(
        self, key: str, data: bytes, expected_version: int, *, expires_at: datetime | None = None
    ) -> int:
        """Write `data` under `key` only if its version is still `expected_version`."""
        version = await self._write(key, data, expected_version, expires_at)
        if version < 0:
            raise VersionConflictError(key, expected_version, -1 - version)
        return version

    async def delete(self, key: str) -> bool:
        """Remove the record under `key`, whatever its version."""
        place = self._place(key)
        command = ("EVALSHA", DELETE.sha, 3, *place, self._channel)
        return await self._enter().submit(command, place.record, writes=key, size=256) == 1

    async def list_by_prefix(
        self, prefix: str, *, limit: int = 100, after: str | None = None, reverse: bool = False
    ) -> Page:
        """Return one page of the records whose key starts with `prefix`, in key order."""
        first, end = listing_range(prefix, limit=limit, after=after, reverse=reverse)
        if end <= first:
            return Page([], None)
        partition = prefix.partition(":")[0]
        front = self._names.partition(partition)
        low = b"[" + _bytes(first)[len(_bytes(partition)) + 1 :]
        is_inside = end.startswith(partition + ":")
        high = b"(" + _bytes(end)[len(_bytes(partition)) + 1 :] if is_inside else b"+"
        records: list[StoredRecord] = []
        while True:
            command: Command = (
                *("EVALSHA", LIST.sha, 2, f"{front}i", f"{front}x", f"{front}r:"),
                *(low, high, limit - len(records), int(reverse)),
            )
            how, last, *found = await self._enter().run(command, front)
            for sort, data, version in zip(*[iter(found)] * 3, strict=True):
                key = f"{partition}:{sort.decode()}"
                records.append(StoredRecord(key, data, int(version)))
            if how != _TIRED:
                return Page(records, records[-1].key if how == _MORE else None)
            if reverse:
                high = b"(" + last
            else:
                low = b"(" + last

    async def cleanup_expired(self, now: datetime) -> int:
        """Take what expired before `now`, by the server's clock too, out of the indexes.

        The records themselves are gone already. Looks for the partitions among all keys of the
        server, a thousand at a time.
        """
        until = _epoch_ms(now)
        engine = self._enter()
        try:
            async with aclosing(engine.everywhere()) as connections:
                async for connection in connections:
                    await self._trim_all(engine, connection, until)
        except (*BROKEN, *ANSWERS) as error:
            raise translate(error) from error
        return 0

    async def close(self) -> None:
        """Let go of the connections. Safe to call twice; calls under way end first."""
        self._closed = True
        engine, self._engine = self._engine, None
        if engine is not None and engine.process == os.getpid() and not engine.loop.is_closed():
            await engine.close()
        for heard in self._watchers:
            heard.set()

    # --- beside them -----------------------------------------------------------------------------

    async def watch(self) -> AsyncIterator[None]:
        """Yield whenever a record may have changed since the last yield, in any process.

        With `hints=False` it only ever yields when it has connected.
        """
        heard = asyncio.Event()
        self._watchers.add(heard)
        hints = listen(
            self._enter().open, self._names.channel, heard, lambda: self._closed, self._options
        )
        try:
            async for _ in hints:
                yield
        finally:
            self._watchers.discard(heard)
            await hints.aclose()

    async def check(self) -> Sequence[str]:
        """Look at the server's version, role and settings without changing them."""
        warnings: dict[str, None] = {}
        try:
            async with aclosing(self._enter().everywhere()) as connections:
                async for connection in connections:
                    found = await examine(connection, self._target.kind)
                    warnings.update(dict.fromkeys(found))  # once, however many nodes say so
        except (*BROKEN, *ANSWERS) as error:
            raise translate(error) from error
        return list(warnings)

    async def _write(
        self, key: str, data: bytes, expected: int | str, expires_at: datetime | None
    ) -> int:
        place = self._place(key)
        if len(data) > MAX_RECORD_BYTES:
            raise RecordTooLargeError(key, len(data), MAX_RECORD_BYTES)
        ms: int | str = "" if expires_at is None else _epoch_ms(expires_at)
        seconds: int | str = "" if isinstance(ms, str) else -(-ms // 1000)
        command = (
            *("EVALSHA", WRITE.sha, 3, *place),
            *(data, expected, ms, seconds, self._channel),
        )
        size = len(data) + 512
        answer: int = await self._enter().submit(command, place.record, writes=key, size=size)
        return answer

    async def _trim_all(self, engine: Engine, connection: Connection, until: int) -> None:
        cursor: Any = b"0"
        while True:
            scan = ("SCAN", cursor, "MATCH", self._names.all_deadlines, "COUNT", _SCAN_CHUNK)
            answer = (await connection.ask([scan]))[0]
            if isinstance(answer, Exception):
                raise answer
            cursor, found = answer
            for deadlines in found:
                index = deadlines[:-1] + b"i"
                removed = _TRIM_CHUNK
                while removed == _TRIM_CHUNK:
                    command = ("EVALSHA", TRIM.sha, 2, index, deadlines, until, _TRIM_CHUNK)
                    removed = await engine.run(command, deadlines.decode())
            if cursor == b"0":
                return

    def _find_place(self, key: str) -> _Place:
        partition, sort = split(key)
        _bytes(key)
        front = self._names.partition(partition)
        return _Place(f"{front}r:{sort}", f"{front}i", f"{front}x", sort.encode())

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
        self._engine = engine = Engine(self._target, self._options)
        return engine


def _bytes(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidKeyError(text, "it is not text") from None


def _epoch_ms(moment: datetime) -> int:
    if moment.tzinfo is None:
        msg = "a time needs a time zone"
        raise TypeError(msg)
    return epoch_ms(moment)

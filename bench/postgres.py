"""Compare-and-swaps of the PostgreSQL backend against the driver alone, batched by hand.

The bare thing is the fastest way known: callers that wait share one prepared UPDATE over `unnest`,
on one connection, with one flush for all of them. It knows no expiry, no conflicts and no errors.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, cast

import asyncpg  # pyright: ignore[reportMissingTypeStubs] - it has none

from bench.cas import measure
from mcp_tasks.storage.postgres import PostgresBackend
from mcp_tasks.testing.servers.postgres import PostgresServer


if TYPE_CHECKING:
    from pathlib import Path

    from bench.cas import Swaps


_MAX_BATCH = 256
_SETTINGS = {"jit": "off", "plan_cache_mode": "force_generic_plan"}
_SCHEMA = """
CREATE TABLE raw(key text COLLATE "C" PRIMARY KEY, version bigint NOT NULL, data bytea NOT NULL)
WITH (fillfactor = 70);
ALTER TABLE raw ALTER data SET STORAGE EXTERNAL;
"""
_CREATE = "INSERT INTO raw SELECT k, 1, d FROM unnest($1::text[], $2::bytea[]) AS a(k, d)"
_SWAP = """
UPDATE raw SET data = a.d, version = raw.version + 1
FROM unnest($1::text[], $2::bytea[], $3::bigint[]) AS a(k, d, v)
WHERE raw.key = a.k AND raw.version = a.v
RETURNING raw.key
"""


class RawBatches:
    """The least that a durable compare-and-swap on this driver can be."""

    def __init__(self, connection: Any, create: Any, swap: Any) -> None:
        self._connection = connection
        self._create = create
        self._swap = swap
        self._waiting: list[tuple[str, bytes, int, asyncio.Future[int]]] = []
        self._some = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    @classmethod
    async def open(cls, url: str) -> RawBatches:
        """Connect, make the table and prepare the statements."""
        connection: Any = await cast("Any", asyncpg).connect(url, server_settings=_SETTINGS)
        await connection.execute(_SCHEMA)
        create, swap = [await connection.prepare(sql) for sql in (_CREATE, _SWAP)]
        return cls(connection, create, swap)

    async def put_if_version(self, key: str, data: bytes, expected_version: int) -> int:
        """Write `data` if the version is still the expected one; return the new one."""
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append((key, data, expected_version, done))
        self._some.set()
        return await done

    async def close(self) -> None:
        """End the task and the connection."""
        self._task.cancel()
        await asyncio.wait([self._task])
        await self._connection.close()

    async def _run(self) -> None:
        while True:
            await self._some.wait()
            self._some.clear()
            while self._waiting:
                batch = sorted(self._waiting[:_MAX_BATCH])
                del self._waiting[:_MAX_BATCH]
                made = [call for call in batch if call[2] == 0]
                if made:
                    await self._create.fetch([key for key, *_ in made], [call[1] for call in made])
                changed = [call for call in batch if call[2] != 0]
                if changed:
                    rows = await self._swap.fetch(
                        [key for key, *_ in changed],
                        [call[1] for call in changed],
                        [call[2] for call in changed],
                    )
                    if len(rows) != len(changed):
                        raise AssertionError(rows)  # every caller has a key of its own
                for _, _, expected, done in batch:
                    done.set_result(expected + 1)


async def measure_postgres(
    folder: Path, callers: tuple[int, ...], *, rounds: int, seconds: float
) -> list[Swaps]:
    """Measure the PostgreSQL backend against bare batches, in turns, on a server of its own.

    Args:
        folder: Where the server keeps its files, so that it is the same disk as for the others.
            Started by root it runs as somebody else, and takes a temporary folder instead.
        callers: How many callers there are at once, for each measurement.
        rounds: How many turns each side has.
        seconds: How long a turn takes.
    """
    place: Path | None = None
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        place = folder / "postgres"
        place.mkdir()
    with PostgresServer(place) as server:
        ours = PostgresBackend(server.url)
        raw = await RawBatches.open(server.url)
        try:
            return [
                await measure("postgres", ours, raw, count, rounds=rounds, seconds=seconds)
                for count in callers
            ]
        finally:
            await ours.close()
            await raw.close()

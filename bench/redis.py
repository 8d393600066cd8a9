"""Compare-and-swaps of the Redis backend against the driver alone, batched by hand.

The bare thing is the fastest way known: callers that wait share one pipeline on one connection, and
a script compares, writes the record and puts it into a sorted set. It knows no expiry, no hints, no
conflicts and no errors.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from redis.asyncio import Redis

from bench.cas import measure
from mcp_tasks.storage.redis import RedisBackend
from mcp_tasks.testing.servers.redis import RedisServer


if TYPE_CHECKING:
    from pathlib import Path

    from bench.cas import Swaps


_MAX_BATCH = 256
_SWAP = """
local version = tonumber(redis.call('HGET', KEYS[1], 'version') or '0')
if version ~= tonumber(ARGV[1]) then return -1 end
redis.call('HSET', KEYS[1], 'version', version + 1, 'data', ARGV[2])
if version == 0 then redis.call('ZADD', KEYS[2], 0, ARGV[3]) end
return version + 1
"""


class RawBatches:
    """The least that a compare-and-swap on this driver can be."""

    def __init__(self, client: Any, sha: str) -> None:
        self._client = client
        self._sha = sha
        self._waiting: list[tuple[str, bytes, int, asyncio.Future[int]]] = []
        self._some = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    @classmethod
    async def open(cls, url: str) -> RawBatches:
        """Connect and load the script."""
        client: Any = cast("Any", Redis).from_url(url)
        return cls(client, await client.script_load(_SWAP))

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
        await self._client.aclose()

    async def _run(self) -> None:
        while True:
            await self._some.wait()
            self._some.clear()
            while self._waiting:
                batch = self._waiting[:_MAX_BATCH]
                del self._waiting[:_MAX_BATCH]
                pipeline = self._client.pipeline(transaction=False)
                for key, data, expected, _ in batch:
                    pipeline.evalsha(self._sha, 2, f"raw:{key}", "raw-index", expected, data, key)
                answers = await pipeline.execute()
                for (_, _, expected, done), version in zip(batch, answers, strict=True):
                    if version != expected + 1:
                        raise AssertionError(version)  # every caller has a key of its own
                    done.set_result(version)
                # Those who were answered have more to say, which goes out with the rest.
                await asyncio.sleep(0)


async def measure_redis(
    folder: Path, callers: tuple[int, ...], *, rounds: int, seconds: float
) -> list[Swaps]:
    """Measure the Redis backend against bare batches, in turns, on a server of its own.

    Args:
        folder: Where the server keeps its files, so that it is the same disk as for the others.
        callers: How many callers there are at once, for each measurement.
        rounds: How many turns each side has.
        seconds: How long a turn takes.
    """
    place = folder / "redis"
    place.mkdir()
    with RedisServer(place) as server:
        ours = RedisBackend.from_url(server.url)
        raw = await RawBatches.open(server.url)
        try:
            return [
                await measure("redis", ours, raw, count, rounds=rounds, seconds=seconds)
                for count in callers
            ]
        finally:
            await ours.close()
            await raw.close()

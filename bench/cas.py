"""Compare-and-swaps of a backend against its own driver, used as barely as durability allows.

For SQLite the bare thing is a group commit on the same driver: a thread that drains a queue into
one transaction and answers after COMMIT. It knows no keys, no expiry and no errors.
"""

from __future__ import annotations

import asyncio
import queue
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import apsw

from mcp_tasks.storage.sqlite import SqliteBackend


if TYPE_CHECKING:
    from collections.abc import Sequence


RECORD = b"x" * 1024
_MAX_BATCH = 512
_SCHEMA = "CREATE TABLE raw(key TEXT PRIMARY KEY, version INTEGER NOT NULL, data BLOB NOT NULL)"
_SWAP = "UPDATE raw SET data = ?, version = version + 1 WHERE key = ? AND version = ?"


class Swapper(Protocol):
    """What both sides of the comparison can do."""

    async def put_if_version(self, key: str, data: bytes, expected_version: int) -> int:
        """Write `data` if the version is still the expected one; return the new one."""
        ...

    async def close(self) -> None:
        """Let go of the database."""
        ...


class RawGroupCommit:
    """The least that a durable compare-and-swap on this driver can be."""

    def __init__(self, path: Path) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[tuple[asyncio.Future[int], str, bytes, int] | None] = (
            queue.SimpleQueue()
        )
        self._db = apsw.Connection(str(path))
        self._db.set_busy_timeout(5000)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute(_SCHEMA)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    async def put_if_version(self, key: str, data: bytes, expected_version: int) -> int:
        """Write `data` if the version is still the expected one; return the new one."""
        done: asyncio.Future[int] = self._loop.create_future()
        self._jobs.put((done, key, data, expected_version))
        return await done

    async def close(self) -> None:
        """End the thread and close the file."""
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)
        self._db.close()

    def _run(self) -> None:
        cursor = self._db.cursor()
        while (job := self._jobs.get()) is not None:
            batch = [job]
            while len(batch) < _MAX_BATCH:
                try:
                    more = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    self._jobs.put(None)
                    break
                batch.append(more)
            cursor.execute("BEGIN IMMEDIATE")
            for _, key, data, expected in batch:
                if expected == 0:
                    cursor.execute("INSERT INTO raw VALUES (?, 1, ?)", (key, data))
                else:
                    cursor.execute(_SWAP, (data, key, expected))
                    if self._db.changes() != 1:
                        raise AssertionError(key)  # every caller has a key of its own
            cursor.execute("COMMIT")
            self._loop.call_soon_threadsafe(_answer, batch)


def _answer(batch: Sequence[tuple[asyncio.Future[int], str, bytes, int]]) -> None:
    for done, _, _, expected in batch:
        if not done.done():
            done.set_result(expected + 1)


@dataclass(frozen=True)
class Swaps:
    """What one backend does at one number of callers; medians over the rounds."""

    store: str
    callers: int
    ratio: float
    per_second: float
    raw_per_second: float

    def row(self) -> dict[str, float]:
        """Return what goes into `bench.json`."""
        return {
            "ratio": round(self.ratio, 3),
            "per_second": round(self.per_second, 1),
            "raw_per_second": round(self.raw_per_second, 1),
        }


async def measure_sqlite(
    folder: Path, callers: tuple[int, ...], *, rounds: int, seconds: float
) -> list[Swaps]:
    """Measure the SQLite backend against a bare group commit, in turns, in files under `folder`."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        ours = SqliteBackend(Path(place) / "ours.db")
        raw = RawGroupCommit(Path(place) / "raw.db")
        try:
            return [
                await measure("sqlite", ours, raw, count, rounds=rounds, seconds=seconds)
                for count in callers
            ]
        finally:
            await ours.close()
            await raw.close()


async def measure(
    store: str, ours: Swapper, raw: Swapper, callers: int, *, rounds: int, seconds: float
) -> Swaps:
    """Measure a backend against its bare driver, in turns, each caller with a record of its own."""
    keys = [f"bench:{callers}-{number}" for number in range(callers)]
    versions = {id(ours): [0] * callers, id(raw): [0] * callers}

    async def turn(side: Swapper, seconds: float) -> float:
        """Let every caller swap its own record for `seconds`; return swaps per second."""
        mine = versions[id(side)]
        before = sum(mine)
        began = time.perf_counter()
        until = began + seconds

        async def caller(number: int) -> None:
            while time.perf_counter() < until:
                mine[number] = await side.put_if_version(keys[number], RECORD, mine[number])

        await asyncio.gather(*(caller(number) for number in range(callers)))
        return (sum(mine) - before) / (time.perf_counter() - began)

    for side in (ours, raw):
        await turn(side, min(seconds, 0.3))
    pairs = [(await turn(ours, seconds), await turn(raw, seconds)) for _ in range(rounds)]
    return Swaps(
        store=store,
        callers=callers,
        ratio=statistics.median(mine / bare for mine, bare in pairs),
        per_second=statistics.median(mine for mine, _ in pairs),
        raw_per_second=statistics.median(bare for _, bare in pairs),
    )

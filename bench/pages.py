"""A page of 50 of an owner who has many tasks, against one of an owner who has few."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.cas import RECORD
from mcp_tasks.storage.base import Initializable
from mcp_tasks.storage.urls import open_backend
from mcp_tasks.testing.servers import server_named
from mcp_tasks.testing.servers.dynamodb import DynaliteServer


if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from mcp_tasks.storage.base import StorageBackend


PAGE = 50


@dataclass(frozen=True)
class Pages:
    """What a page costs on one backend; medians.

    Attributes:
        store: Which.
        few: How many records the one owner has.
        many: And the other.
        few_ms: Milliseconds for a page of the one.
        many_ms: And of the other.
    """

    store: str
    few: int
    many: int
    few_ms: float
    many_ms: float

    def row(self) -> dict[str, float]:
        """Return what goes into the report."""
        return {
            "few": self.few,
            "many": self.many,
            "ratio": round(self.many_ms / self.few_ms, 3),
            "few_ms": round(self.few_ms, 4),
            "many_ms": round(self.many_ms, 4),
        }


async def measure_pages(
    folder: Path, store: str, *, few: int = 1_000, many: int = 100_000, rounds: int = 300
) -> Pages:
    """Measure pages in turns, begun at places all over the owner's records.

    Args:
        folder: Where SQLite keeps its file; servers keep theirs in folders of their own.
        store: `sqlite`, or what `server_named` knows.
        few: How many records the one owner has.
        many: And the other.
        rounds: How many pages of each.
    """
    async with _opened(folder, store) as backend:
        owners = (("few", few), ("many", many))
        for owner, count in owners:
            for first in range(0, count, 500):
                numbers = range(first, min(first + 500, count))
                puts = (backend.put(f"{owner}:t{number:07d}", RECORD) for number in numbers)
                await asyncio.gather(*puts)
        times: dict[str, list[float]] = {"few": [], "many": []}
        for turn in range(rounds):
            for owner, count in owners:
                after = f"{owner}:t{turn * (count - PAGE - 1) // rounds:07d}"
                began = time.perf_counter()
                page = await backend.list_by_prefix(f"{owner}:", limit=PAGE, after=after)
                times[owner].append((time.perf_counter() - began) * 1000)
                if len(page.records) != PAGE:
                    raise AssertionError(page)
    return Pages(
        store, few, many, statistics.median(times["few"]), statistics.median(times["many"])
    )


@asynccontextmanager
async def _opened(folder: Path, store: str) -> AsyncGenerator[StorageBackend]:
    if store == "sqlite":
        backend = open_backend(f"sqlite:///{(folder / 'pages.db').as_posix()}")
        yield backend
        await backend.close()
        return
    # ministack looks through all items of an owner for each page, which the service does not.
    with DynaliteServer() if store == "dynamodb" else server_named(store) as server:
        os.environ.update(server.environment)
        backend = open_backend(server.url)
        if isinstance(backend, Initializable):
            await backend.initialize()
        yield backend
        await backend.close()

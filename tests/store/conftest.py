"""A store over each embedded backend, with time in the hands of the test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mcp_tasks.storage.memory import MemoryBackend
from mcp_tasks.storage.sqlite import SqliteBackend
from mcp_tasks.store import TaskStore
from mcp_tasks.testing.clocks import ManualClock


if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from mcp_tasks.storage.base import StorageBackend


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio, which is what the store is written for."""
    return "asyncio"


@pytest.fixture
def clock() -> ManualClock:
    """Give a clock that stands still."""
    return ManualClock()


@pytest.fixture(params=["memory", "sqlite"])
async def backend(
    request: pytest.FixtureRequest, clock: ManualClock, tmp_path: Path
) -> AsyncIterator[StorageBackend]:
    """Give an empty backend that goes by the test's clock."""
    if request.param == "memory":
        backend: StorageBackend = MemoryBackend(clock=clock)
    else:
        backend = SqliteBackend(tmp_path / "tasks.db", clock=clock)
    yield backend
    await backend.close()


@pytest.fixture
async def store(backend: StorageBackend, clock: ManualClock) -> AsyncIterator[TaskStore]:
    """Give a store over the backend."""
    store = TaskStore(backend, clock=clock)
    yield store
    await store.close()

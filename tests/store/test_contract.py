"""The published rules of a task store, over each embedded backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mcp_tasks.storage.memory import MemoryBackend
from mcp_tasks.storage.sqlite import SqliteBackend
from mcp_tasks.testing import TaskStoreContract


if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class TestOverMemory(TaskStoreContract):
    """The rules over a dict."""

    @pytest.fixture
    async def backend(self) -> AsyncIterator[MemoryBackend]:
        """Give an empty one."""
        backend = MemoryBackend()
        yield backend
        await backend.close()


class TestOverSqlite(TaskStoreContract):
    """The rules over a file."""

    @pytest.fixture
    async def backend(self, tmp_path: Path) -> AsyncIterator[SqliteBackend]:
        """Give an empty file."""
        backend = SqliteBackend(tmp_path / "tasks.db")
        yield backend
        await backend.close()

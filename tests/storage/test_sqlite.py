"""The SQLite backend: the contract, and what is its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mcp_tasks.storage.sqlite import SqliteBackend
from mcp_tasks.testing import StorageBackendContract


if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class TestSqliteBackend(StorageBackendContract):
    """The contract over a file."""

    @pytest.fixture
    async def backend(self, tmp_path: Path) -> AsyncIterator[SqliteBackend]:
        """Give an empty file."""
        backend = SqliteBackend(tmp_path / "tasks.db")
        yield backend
        await backend.close()

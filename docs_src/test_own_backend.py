"""The whole contract, over your backend: `pytest -o anyio_mode=auto test_own_backend.py`."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mcp_tasks.testing import StorageBackendContract, TaskStoreContract
from own_backend import JournalBackend


class TestJournalBackend(StorageBackendContract):
    """What every backend does."""

    @pytest.fixture
    async def backend(self, tmp_path: Path) -> AsyncIterator[JournalBackend]:
        backend = JournalBackend(tmp_path / "journal")
        yield backend
        await backend.close()


class TestTasks(TaskStoreContract):
    """What a task store does over it."""

    @pytest.fixture
    async def backend(self, tmp_path: Path) -> AsyncIterator[JournalBackend]:
        backend = JournalBackend(tmp_path / "journal")
        yield backend
        await backend.close()

"""The memory backend: the contract, and what is its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mcp_tasks.storage.memory import MemoryBackend
from mcp_tasks.testing import StorageBackendContract


if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class TestMemoryBackend(StorageBackendContract):
    """The contract over a dict."""

    @pytest.fixture
    async def backend(self) -> AsyncIterator[MemoryBackend]:
        """Give an empty one."""
        backend = MemoryBackend()
        yield backend
        await backend.close()

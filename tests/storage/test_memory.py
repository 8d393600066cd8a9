"""The memory backend: the contract, and what is its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mcp_tasks.storage.memory import MemoryBackend
from mcp_tasks.testing import ChangeSourceContract, StorageBackendContract


if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime


class TestMemoryBackend(StorageBackendContract):
    """The contract over a dict."""

    @pytest.fixture
    async def backend(self) -> AsyncIterator[MemoryBackend]:
        """Give an empty one."""
        backend = MemoryBackend()
        yield backend
        await backend.close()


class Handle(MemoryBackend):
    """Another way to the same dict: memory itself cannot be opened twice."""

    def __init__(self, inner: MemoryBackend | None = None) -> None:
        super().__init__()
        self._inner = inner

    def reopen(self) -> Handle:
        """Give one that writes here."""
        return Handle(self)

    async def put(self, key: str, data: bytes, *, expires_at: datetime | None = None) -> int:
        """Write there, if this is one of those."""
        if self._inner is not None:
            return await self._inner.put(key, data, expires_at=expires_at)
        return await super().put(key, data, expires_at=expires_at)


class TestMemoryHints(ChangeSourceContract):
    """The contract of hints."""

    @pytest.fixture
    async def backend(self) -> AsyncIterator[Handle]:
        """Give an empty one."""
        backend = Handle()
        yield backend
        await backend.close()

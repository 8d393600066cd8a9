"""What all contracts share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest


if TYPE_CHECKING:
    from mcp_tasks.storage.base import StorageBackend


class Contract:
    """Inherit one or more of the contracts, and bring the fixture `backend`."""

    @pytest.fixture
    def backend(self) -> StorageBackend:
        """Give an empty backend, one to each test; yours replaces this one and closes it."""
        message = f"{type(self).__name__} brings no fixture `backend`"
        raise NotImplementedError(message)

    @pytest.fixture(scope="class")
    @classmethod
    def anyio_backend(cls) -> str:
        """Run on asyncio, which is what backends are written for."""
        return "asyncio"

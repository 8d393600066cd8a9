"""The contracts as `mcp-tasks verify` runs them: the fixture `apart` comes from there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mcp_tasks.testing.backend_contract import StorageBackendContract
from mcp_tasks.testing.change_source_contract import ChangeSourceContract
from mcp_tasks.testing.reopenable_contract import ReopenableContract
from mcp_tasks.testing.store_contract import TaskStoreContract


if TYPE_CHECKING:
    from mcp_tasks.storage.base import StorageBackend


class TestBackend(StorageBackendContract):
    """What every backend does."""

    @pytest.fixture
    def backend(self, apart: StorageBackend) -> StorageBackend:
        """Give the one that is verified."""
        return apart


class TestReopening(ReopenableContract):
    """What those with `reopen` do."""

    @pytest.fixture
    def backend(self, apart: StorageBackend) -> StorageBackend:
        """Give the one that is verified."""
        return apart


class TestHints(ChangeSourceContract):
    """What those with `watch` do."""

    @pytest.fixture
    def backend(self, apart: StorageBackend) -> StorageBackend:
        """Give the one that is verified."""
        return apart


class TestTaskStore(TaskStoreContract):
    """What a task store does over any of them."""

    @pytest.fixture
    def backend(self, apart: StorageBackend) -> StorageBackend:
        """Give the one that is verified."""
        return apart

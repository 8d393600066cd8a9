"""What a task store does over any backend: one class, to be inherited by the tests of a backend.

`StorageBackendContract` tests a backend by itself; this one tests the rules about tasks on top, and
so catches what only the two together show.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mcp_tasks.store import TaskStore
from mcp_tasks.testing.clocks import ManualClock
from mcp_tasks.testing.contract import Coroutines
from mcp_tasks.testing.operation_rules import OperationRules
from mcp_tasks.testing.outcome_rules import OutcomeRules
from mcp_tasks.testing.page_rules import PageRules
from mcp_tasks.testing.quota_rules import QuotaRules
from mcp_tasks.testing.time_rules import TimeRules


if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mcp_tasks.storage.base import StorageBackend


class TaskStoreContract(OperationRules, OutcomeRules, TimeRules, PageRules, QuotaRules, Coroutines):
    """What every task store does. Inherit it and bring the fixture `backend`."""

    @pytest.fixture
    def clock(self) -> ManualClock:
        """Give a clock that begins at the present; a backend may have its own."""
        return ManualClock()

    @pytest.fixture
    def backend(self) -> StorageBackend:
        """Give an empty backend, one to each test; yours replaces this one and closes it."""
        message = "a subclass of TaskStoreContract brings the fixture `backend`"
        raise NotImplementedError(message)

    @pytest.fixture
    async def store(self, backend: StorageBackend, clock: ManualClock) -> AsyncIterator[TaskStore]:
        """Give a store over the backend."""
        store = TaskStore(backend, clock=clock)
        yield store
        await store.close()

    @pytest.fixture(scope="class")
    @classmethod
    def anyio_backend(cls) -> str:
        """Run on asyncio, which is what the store is written for."""
        return "asyncio"

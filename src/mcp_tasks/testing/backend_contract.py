"""The whole contract: one class, to be inherited by the tests of a backend.

Every rule of `mcp_tasks.storage.base` has a test here, and no test knows which backend it runs on;
where backends may differ, `Capabilities` says so. Each test is given an empty backend.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mcp_tasks.testing.expiry_rules import ExpiryRules
from mcp_tasks.testing.key_rules import KeyRules
from mcp_tasks.testing.lifecycle_rules import LifecycleRules
from mcp_tasks.testing.listing_rules import ListingRules
from mcp_tasks.testing.swap_rules import SwapRules
from mcp_tasks.testing.write_rules import WriteRules


if TYPE_CHECKING:
    from mcp_tasks.storage.base import StorageBackend


class StorageBackendContract(
    KeyRules, WriteRules, SwapRules, ListingRules, ExpiryRules, LifecycleRules
):
    """What every backend does. Inherit it and bring the fixture `backend`."""

    @pytest.fixture
    def backend(self) -> StorageBackend:
        """Give an empty backend, one to each test; yours replaces this one and closes it."""
        message = "a subclass of StorageBackendContract brings the fixture `backend`"
        raise NotImplementedError(message)

    @pytest.fixture(scope="class")
    @classmethod
    def anyio_backend(cls) -> str:
        """Run on asyncio, which is what backends are written for."""
        return "asyncio"

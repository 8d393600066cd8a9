"""The whole contract: one class, to be inherited by the tests of a backend.

Every rule of `mcp_tasks.storage.base` has a test here, and no test knows which backend it runs on;
where backends may differ, `Capabilities` says so. Each test is given an empty backend.
"""

from __future__ import annotations

from mcp_tasks.testing.contract import Contract
from mcp_tasks.testing.expiry_rules import ExpiryRules
from mcp_tasks.testing.history_rules import HistoryRules
from mcp_tasks.testing.key_rules import KeyRules
from mcp_tasks.testing.lifecycle_rules import LifecycleRules
from mcp_tasks.testing.listing_rules import ListingRules
from mcp_tasks.testing.swap_rules import SwapRules
from mcp_tasks.testing.write_rules import WriteRules


class StorageBackendContract(
    KeyRules,
    WriteRules,
    SwapRules,
    HistoryRules,
    ListingRules,
    ExpiryRules,
    LifecycleRules,
    Contract,
):
    """What every backend does. Inherit it and bring the fixture `backend`."""

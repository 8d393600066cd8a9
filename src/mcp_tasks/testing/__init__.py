"""The contract of a storage backend, as tests that anybody's backend can inherit.

```python
from mcp_tasks.testing import StorageBackendContract


class TestMyBackend(StorageBackendContract):
    @pytest.fixture
    async def backend(self, tmp_path):
        backend = MyBackend(tmp_path)
        yield backend
        await backend.close()
```

Beside it, and inherited in the same way: `ReopenableContract` for backends with `reopen`,
`ChangeSourceContract` for those with `watch` as well, and `TaskStoreContract` for the rules about
tasks on top of any backend.

The tests are plain coroutines without marks: run them with anyio's pytest plugin
(`anyio_mode = "auto"`) or with pytest-asyncio (`asyncio_mode = "auto"`).
"""

import pytest


# Before the import, so that a failing assert shows its values.
pytest.register_assert_rewrite(
    "mcp_tasks.testing.backend_contract",
    "mcp_tasks.testing.change_source_contract",
    "mcp_tasks.testing.expiry_rules",
    "mcp_tasks.testing.history_rules",
    "mcp_tasks.testing.key_rules",
    "mcp_tasks.testing.lifecycle_rules",
    "mcp_tasks.testing.listing_rules",
    "mcp_tasks.testing.operation_rules",
    "mcp_tasks.testing.outcome_rules",
    "mcp_tasks.testing.page_rules",
    "mcp_tasks.testing.quota_rules",
    "mcp_tasks.testing.reopenable_contract",
    "mcp_tasks.testing.store_contract",
    "mcp_tasks.testing.swap_rules",
    "mcp_tasks.testing.time_rules",
    "mcp_tasks.testing.write_rules",
)

from mcp_tasks.testing.backend_contract import StorageBackendContract  # noqa: E402 - see above
from mcp_tasks.testing.change_source_contract import ChangeSourceContract  # noqa: E402
from mcp_tasks.testing.reopenable_contract import ReopenableContract  # noqa: E402
from mcp_tasks.testing.store_contract import TaskStoreContract  # noqa: E402


__all__ = [
    "ChangeSourceContract",
    "ReopenableContract",
    "StorageBackendContract",
    "TaskStoreContract",
]

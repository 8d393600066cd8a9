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

The tests are plain coroutines without marks: run them with anyio's pytest plugin
(`anyio_mode = "auto"`) or with pytest-asyncio (`asyncio_mode = "auto"`).
"""

import pytest


# Before the import, so that a failing assert shows its values.
pytest.register_assert_rewrite(
    "mcp_tasks.testing.backend_contract",
    "mcp_tasks.testing.expiry_rules",
    "mcp_tasks.testing.key_rules",
    "mcp_tasks.testing.lifecycle_rules",
    "mcp_tasks.testing.listing_rules",
    "mcp_tasks.testing.swap_rules",
    "mcp_tasks.testing.write_rules",
)

from mcp_tasks.testing.backend_contract import StorageBackendContract  # noqa: E402 - see above


__all__ = ["StorageBackendContract"]

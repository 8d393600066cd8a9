"""Every rule about tasks, over any backend."""

from mcp_tasks.store.config import ANONYMOUS, LOCAL, StoreConfig
from mcp_tasks.store.listing import TaskPage
from mcp_tasks.store.task_store import TaskStore


__all__ = ["ANONYMOUS", "LOCAL", "StoreConfig", "TaskPage", "TaskStore"]

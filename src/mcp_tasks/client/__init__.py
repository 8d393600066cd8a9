"""The client's side: `TasksClient` for the SDK's `Client`, and `TaskHandle` for one task."""

from mcp_tasks.client.extension import TasksClient
from mcp_tasks.client.handle import TaskHandle
from mcp_tasks.client.snapshot import TaskSnapshot
from mcp_tasks.client.transport import ReconnectingHttpClient, reconnecting_http
from mcp_tasks.errors import InvalidHandleError, TaskCancelledError, TaskUnreachableError


__all__ = [
    "InvalidHandleError",
    "ReconnectingHttpClient",
    "TaskCancelledError",
    "TaskHandle",
    "TaskSnapshot",
    "TaskUnreachableError",
    "TasksClient",
    "reconnecting_http",
]

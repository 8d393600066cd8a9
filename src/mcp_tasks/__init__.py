"""Durable MCP Tasks: tool calls that outlive the connection, the process and the machine.

Servers start at `Tasks`, clients at `TasksClient`, and whoever finishes a task from outside, such
as a queue worker, at `TaskStore`. Names are imported when they are first used, so that such a
worker never pays for the SDK.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from mcp_tasks.client import (
        InvalidHandleError,
        TaskCancelledError,
        TaskHandle,
        TasksClient,
        TaskSnapshot,
        TaskUnreachableError,
        reconnecting_http,
    )
    from mcp_tasks.context import Answer, Retry, SyncTaskContext, TaskContext
    from mcp_tasks.domain.record import Call, Policy, Principal, TaskRecord
    from mcp_tasks.domain.status import TaskStatus
    from mcp_tasks.errors import (
        ClientCapabilityError,
        ConfigurationError,
        IdempotencyKeyError,
        InvalidAnswerError,
        InvalidTransitionError,
        InvalidTtlError,
        InvalidValueError,
        JournalFullError,
        JournalMismatchError,
        LeaseLostError,
        MCPTasksError,
        NotDurableError,
        NotReadyError,
        OwnerActiveError,
        QuestionKeyError,
        QuotaExceededError,
        StorageError,
        StoreUnavailableError,
        TaskError,
        TaskExpiredError,
        TaskNotFoundError,
        TaskTerminalError,
        VariablesTooLargeError,
    )
    from mcp_tasks.runner.config import RunnerConfig
    from mcp_tasks.server import Tasks
    from mcp_tasks.storage.urls import open_backend
    from mcp_tasks.store import StoreConfig, TaskStore


__all__ = [
    "Answer",
    "Call",
    "ClientCapabilityError",
    "ConfigurationError",
    "IdempotencyKeyError",
    "InvalidAnswerError",
    "InvalidHandleError",
    "InvalidTransitionError",
    "InvalidTtlError",
    "InvalidValueError",
    "JournalFullError",
    "JournalMismatchError",
    "LeaseLostError",
    "MCPTasksError",
    "NotDurableError",
    "NotReadyError",
    "OwnerActiveError",
    "Policy",
    "Principal",
    "QuestionKeyError",
    "QuotaExceededError",
    "Retry",
    "RunnerConfig",
    "StorageError",
    "StoreConfig",
    "StoreUnavailableError",
    "SyncTaskContext",
    "TaskCancelledError",
    "TaskContext",
    "TaskError",
    "TaskExpiredError",
    "TaskHandle",
    "TaskNotFoundError",
    "TaskRecord",
    "TaskSnapshot",
    "TaskStatus",
    "TaskStore",
    "TaskTerminalError",
    "TaskUnreachableError",
    "Tasks",
    "TasksClient",
    "VariablesTooLargeError",
    "open_backend",
    "reconnecting_http",
]

_ELSEWHERE = {
    "Answer": "context",
    "Call": "domain.record",
    "Policy": "domain.record",
    "Principal": "domain.record",
    "Retry": "context",
    "RunnerConfig": "runner.config",
    "StoreConfig": "store",
    "SyncTaskContext": "context",
    "TaskContext": "context",
    "TaskHandle": "client",
    "TaskRecord": "domain.record",
    "TaskSnapshot": "client",
    "TaskStatus": "domain.status",
    "TaskStore": "store",
    "Tasks": "server",
    "TasksClient": "client",
    "open_backend": "storage.urls",
    "reconnecting_http": "client",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{_ELSEWHERE.get(name, 'errors')}")
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""The public surface: adding to it is a decision, and importing it costs what it must."""

from __future__ import annotations

import subprocess
import sys

import mcp_tasks


NAMES = [
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


def test_the_public_names_are_these() -> None:
    """Whoever changes the list changes it here too, knowing that it is a promise."""
    assert mcp_tasks.__all__ == NAMES
    assert [name for name in NAMES if not hasattr(mcp_tasks, name)] == []
    assert sorted(NAMES) == NAMES
    assert set(NAMES) <= set(dir(mcp_tasks))


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    """As in any module."""
    assert not hasattr(mcp_tasks, "no_such_name")


def test_the_store_does_not_import_the_sdk() -> None:
    """What finishes a task from outside, such as a Lambda, starts in a fraction of the time."""
    code = (
        "import sys; from mcp_tasks import TaskStore, open_backend, TaskStatus; "
        "sys.exit(any(name.partition('.')[0] in ('mcp', 'mcp_types') for name in sys.modules))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

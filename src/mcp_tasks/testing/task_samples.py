"""What the rules of a store put in: calls, questions, answers, and all that can be done."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from mcp_tasks.domain import transitions
from mcp_tasks.domain.record import Call, inline
from mcp_tasks.domain.status import TaskStatus


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from mcp_tasks.domain.record import TaskRecord
    from mcp_tasks.store import TaskStore
    from mcp_tasks.store.changes import Versioned

    Operation = Callable[[TaskStore, str, str], Awaitable[Any]]


CALL = Call("report", inline(b'{"folder":"/tmp"}'))
"""A small call."""

ASK = "elicitation/create"
QUESTION: dict[str, Any] = {
    "mode": "form",
    "message": "Really?",
    "requestedSchema": {"type": "object", "properties": {}},
}
ACCEPT: dict[str, Any] = {"action": "accept", "content": {}}
DECLINE: dict[str, Any] = {"action": "decline"}


OPERATIONS: dict[str, Operation] = {
    "get": lambda store, owner, task_id: store.get(owner, task_id),
    "get_result": lambda store, owner, task_id: store.get_result(owner, task_id),
    "get_variables": lambda store, owner, task_id: store.get_variables(owner, task_id),
    "update_status": lambda store, owner, task_id: store.update_status(
        owner, task_id, TaskStatus.CANCELLED
    ),
    "set_variables": lambda store, owner, task_id: store.set_variables(owner, task_id, {"a": 1}),
    "set_result": lambda store, owner, task_id: store.set_result(owner, task_id, 1),
    "complete_with_result": lambda store, owner, task_id: store.complete_with_result(
        owner, task_id, {"content": []}
    ),
    "fail": lambda store, owner, task_id: store.fail(owner, task_id, -32603, "no"),
    "ask": lambda store, owner, task_id: store.ask(owner, task_id, "q", ASK, QUESTION),
    "answer": lambda store, owner, task_id: store.answer(owner, task_id, {"q": ACCEPT}),
    "cancel": lambda store, owner, task_id: store.cancel(owner, task_id),
    "progress": lambda store, owner, task_id: store.progress(owner, task_id, 1, 2),
    "extend": lambda store, owner, task_id: store.extend(owner, task_id, timedelta(days=2)),
}
"""All that can be done to a task, by name."""

CHANGES = tuple(name for name in OPERATIONS if not name.startswith("get"))


async def claim(store: TaskStore, record: TaskRecord, worker: str = "w1") -> Versioned:
    """Let a worker take a task."""

    def transition(current: TaskRecord, now: datetime) -> TaskRecord:
        return transitions.claim(
            current, now, worker, current.attempt + 1, retention=store.config.retention
        )

    return await store.change(record.owner, record.task_id, transition)


async def raw(store: TaskStore, record: TaskRecord) -> bytes:
    """Return the bytes under a task's key."""
    return (await store.backend.get(store.keys.task(record.owner, record.task_id))).data

"""What the rules of a store put in: calls, questions and answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mcp_tasks.domain import transitions
from mcp_tasks.domain.record import Call, inline


if TYPE_CHECKING:
    from datetime import datetime

    from mcp_tasks.domain.record import TaskRecord
    from mcp_tasks.store import TaskStore
    from mcp_tasks.store.changes import Versioned


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

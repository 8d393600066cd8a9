"""What every chaos test does: start processes, end what waits, and judge what was promised."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import Raw
from tests.chaos.oracle import Evidence, Fault, judge
from tests.chaos.scene import OWNER, STORE, Log, until

from mcp_tasks.domain.codec import decode_record
from mcp_tasks.domain.status import TaskStatus
from mcp_tasks.errors import RecordNotFoundError
from mcp_tasks.jsonio import from_json
from mcp_tasks.store import TaskStore


if TYPE_CHECKING:
    from pathlib import Path

    from tests.chaos.harness import Child, Nursery

    from mcp_tasks.domain.record import TaskRecord


PATIENCE = 60.0
"""Seconds in which everything has to come to its end."""

_AT_ONCE = 16


class Verdict(NamedTuple):
    """What came of it.

    Attributes:
        faults: Every broken promise.
        evidence: All that was known.
    """

    faults: list[Fault]
    evidence: Evidence

    @property
    def shown(self) -> str:
        """The history of each task with a fault; of the first ten, if there are more."""
        return "\n".join(
            f"{what} ({task_id})\n{self.evidence.history(task_id)}"
            for task_id, what in self.faults[:10]
        )


class Stage:
    """A store of its own, processes on it, and what they wrote down.

    Args:
        nursery: Where processes come from.
        url: The store.
        namespace: Of this stage alone.
        folder: For its files.
        config: Settings of the runners, other than usual.
        through: The URL that the processes use, if not the same.
    """

    def __init__(
        self,
        nursery: Nursery,
        url: str,
        namespace: str,
        folder: Path,
        *,
        config: dict[str, Any] | None = None,
        through: str = "",
    ) -> None:
        self.folder = folder
        self.pause = 0.03
        self._nursery = nursery
        self._job: dict[str, Any] = {
            "url": through or url,
            "namespace": namespace,
            "acks": str(folder / "acks"),
            "witness": str(folder / "witness"),
            "config": config or {},
        }
        self.acks = Log(folder / "acks")
        self.witness = Log(folder / "witness")
        self.store = TaskStore.open(url, namespace=namespace, config=STORE)
        self._first: dict[str, tuple[int, bytes]] = {}

    async def fork(self, role: str, **job: Any) -> Child:
        """Start a process here."""
        return await self._nursery.fork(role, self.folder / f"{role}.log", **{**self._job, **job})

    async def look(self) -> list[TaskRecord]:
        """Read all tasks, and remember the first terminal record of each."""
        found: list[TaskRecord] = []
        cursor: str | None = None
        while True:
            page = await self.store.list(OWNER, cursor=cursor, limit=500)
            found += page.tasks
            cursor = page.cursor
            if cursor is None:
                break
        for record in found:
            if record.is_terminal and record.task_id not in self._first:
                stored = await self.store.backend.get(self.store.keys.task(OWNER, record.task_id))
                self._first[record.task_id] = (stored.version, bytes(stored.data))
        return found

    async def finish(self, living: str | None = None, *, workers: int = 1) -> None:
        """Answer and cancel what only waits for that, until nothing is left that was promised.

        Args:
            living: The worker that is known to live. What others have is theirs to lose, for a
                while; `None` if nobody is to be waited for.
            workers: How many there are. Of all others nothing should be left.
        """

        async def are_alone() -> bool:
            return len(await self.workers()) <= workers

        began = time.monotonic()
        while time.monotonic() < began + PATIENCE:
            open_ones = [record for record in await self.look() if not record.is_terminal]
            promised = {line["task"] for line in self.acks.read() if line["what"] == "created"}
            if not promised & {record.task_id for record in open_ones}:
                break
            for record in open_ones:
                is_theirs = living is not None and record.worker not in (None, living)
                if not is_theirs or time.monotonic() > began + 5:
                    await self._end(record)
            await asyncio.sleep(self.pause)
        await until(are_alone, PATIENCE)

    async def _end(self, record: TaskRecord) -> None:
        if record.status is TaskStatus.INPUT_REQUIRED:
            keys = [question.key for question in record.questions]
            given = {key: {"action": "accept", "content": {"by": "test"}} for key in keys}
            after = await self.store.answer(OWNER, record.task_id, given)
            taken = {entry.key for entry in after.journal.tail if entry.kind == "answer"}
            keys = [key for key in keys if key in taken]
            self.acks.write(who="test", what="answered", task=record.task_id, keys=keys)
        elif record.call.tool == "hold" and record.worker:
            after = await self.store.cancel(OWNER, record.task_id)
            if record.cancel is None and after.cancel is not None:
                self.acks.write(who="test", what="cancelled", task=record.task_id)

    async def judge(self, *, raised: bool = False) -> Verdict:
        """Compare what was promised and done with what the store says."""
        evidence = Evidence(self.acks.read(), self.witness.read(), self._first, raised=raised)
        lines = evidence.acks + evidence.witness
        owners = {line["task"]: OWNER for line in lines if "task" in line}
        owners.update({record.task_id: OWNER for record in await self.look()})
        owners.update({line["task"]: line["owner"] for line in lines if "owner" in line})
        gate = asyncio.Semaphore(_AT_ONCE)

        async def add(task_id: str, owner: str) -> None:
            async with gate:
                with suppress(RecordNotFoundError):
                    stored = await self.store.backend.get(self.store.keys.task(owner, task_id))
                    record = decode_record(stored.data)
                    assert record is not None
                    evidence.final[task_id] = (stored.version, bytes(stored.data), record)
                    if record.result is not None and isinstance(record.result.inline, Raw):
                        evidence.results[task_id] = from_json(record.result.inline)

        await asyncio.gather(*(add(task_id, owner) for task_id, owner in owners.items()))
        # Nothing speaks of a worker any more when the last one has ended in order.
        left = [Fault("", f"left behind: {key}") for key in await self.workers()]
        return Verdict(judge(evidence) + left, evidence)

    async def workers(self) -> list[str]:
        """Return the keys of all workers that there are."""
        page = await self.store.backend.list_by_prefix(self.store.keys.workers())
        return [record.key for record in page.records]

    def has_said(self, what: str, who: str) -> bool:
        """Tell whether a process has said something."""
        return any(line["what"] == what and line["who"] == who for line in self.acks.read())

    def said(self, what: str, who: str) -> dict[str, Any]:
        """Return the first time that a process said something."""
        lines = (line for line in self.acks.read() if line["what"] == what and line["who"] == who)
        return next(lines)

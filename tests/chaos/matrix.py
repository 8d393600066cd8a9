"""One cycle: a server is struck at one named place, and everything that it promised is kept."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import apsw
from msgspec import Raw
from tests.chaos.oracle import Evidence, Fault, judge
from tests.chaos.scene import OWNER, STORE, Log, until

from mcp_tasks.domain.codec import decode_record
from mcp_tasks.domain.status import TaskStatus
from mcp_tasks.errors import RecordNotFoundError, TaskNotFoundError
from mcp_tasks.jsonio import from_json
from mcp_tasks.runner.worker import read_worker
from mcp_tasks.storage.sqlite import SqliteBackend
from mcp_tasks.store import TaskStore


if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.chaos.harness import Child, Nursery

    from mcp_tasks.domain.record import TaskRecord


PATIENCE = 60.0
"""Seconds in which everything has to come to its end."""


SLOWER = {"beat": 0.5, "fence": 1.6, "lease": 3.0, "scan": 0.5, "look": 0.2}
"""Times for a stand-in that serves one request after the other."""


class BlockedError(Exception):
    """The subject was stopped where nobody else can do anything; the cycle says nothing."""


class Verdict(NamedTuple):
    """What came of a cycle.

    Attributes:
        fired: The failpoint was passed, and what was armed happened.
        faults: Every broken promise.
        tasks: How many tasks were judged.
        shown: The history of each task with a fault.
    """

    fired: bool
    faults: list[Fault]
    tasks: int
    shown: str


class Cycle:
    """A victim, a subject and a survivor, on one store.

    Args:
        nursery: Where processes come from.
        url: The store.
        namespace: Of this cycle alone.
        folder: For its files.
        slow: The store is: times are longer, and looks rarer.
    """

    def __init__(
        self, nursery: Nursery, url: str, namespace: str, folder: Path, *, slow: bool = False
    ) -> None:
        self._nursery = nursery
        self._folder = folder
        self._job: dict[str, Any] = {
            "url": url,
            "namespace": namespace,
            "acks": str(folder / "acks"),
            "witness": str(folder / "witness"),
            "config": SLOWER if slow else {},
        }
        self._pause = 0.15 if slow else 0.03
        self.acks = Log(folder / "acks")
        self.witness = Log(folder / "witness")
        self.store = TaskStore.open(url, namespace=namespace, config=STORE)
        self.first: dict[str, tuple[int, bytes]] = {}

    async def run(self, failpoint: str) -> Verdict:
        """Strike at `failpoint` (name:action:nth), and judge what comes of it."""
        action = failpoint.split(":")[1]
        usurp = failpoint.startswith("fence.")
        survivor: Child | None = None
        subject: Child | None = None
        try:
            victim = await self.fork("victim")
            assert await victim.ended() == -signal.SIGKILL, _last_words(victim)
            dead = self._said("started", "victim")["worker"]
            subject = await self.fork("subject", failpoint=failpoint, victim=dead)
            await self._until(lambda: self._has_said("reaped"), subject)
            self._check_free(subject)
            survivor = await self.fork("survivor", usurp=usurp)
            await self._until(lambda: self._has_said("started", "survivor"), survivor)
            self._check_free(subject)
            fired = await self._strike(subject, action)
            await self._finish()
            survivor.send(signal.SIGTERM)
            assert await survivor.ended() == 0, _last_words(survivor)
            return await self._judge(fired=fired, raised=action == "raise")
        finally:
            for child in (subject, survivor):
                if child is not None:
                    await child.kill()
            await self.store.close()

    async def fork(self, role: str, **job: Any) -> Child:
        """Start a process of this cycle."""
        return await self._nursery.fork(role, self._folder / f"{role}.log", **self._job, **job)

    async def _strike(self, subject: Child, action: str) -> bool:
        """Wait until it has happened, and until a stopped process that was woken has ended."""
        await subject.struck()
        if subject.has_stopped.is_set():
            self._check_free(subject)
            await self._taken_over()
            await self._look()
            self.acks.write(who="test", what="struck", signal="SIGCONT")
            subject.send(signal.SIGCONT)
        code = await subject.ended()
        self.acks.write(who="test", what="struck", code=code)
        if action == "raise":
            assert code == 0, _last_words(subject)
            return self._said("over", "subject")["fired"]
        return code == -signal.SIGKILL if action == "kill" else subject.has_stopped.is_set()

    def _check_free(self, subject: Child) -> None:
        """Give up if a process was stopped in the middle of a transaction of SQLite.

        The file is then locked for everybody until it goes on or dies; nothing can be shown.
        """
        backend = self.store.backend
        if not isinstance(backend, SqliteBackend) or not subject.has_stopped.is_set():
            return
        connection = apsw.Connection(str(self._folder / "tasks.db"))
        connection.set_busy_timeout(1000)
        try:
            connection.execute("BEGIN IMMEDIATE; ROLLBACK")
        except apsw.BusyError as error:
            raise BlockedError from error
        finally:
            connection.close()

    async def _taken_over(self) -> None:
        """Wait until somebody has taken the stopped subject over, if it was a worker already."""
        if not self._has_said("started"):
            return
        worker = self._said("started", "subject")["worker"]

        async def is_gone() -> bool:
            return await read_worker(self.store, worker) is None

        assert await until(is_gone, PATIENCE), f"nobody took {worker} over"

    async def _finish(self) -> None:
        """Answer and cancel what only waits for that, until nothing is left that was promised."""
        began = time.monotonic()
        living = self._said("started", "survivor")["worker"]
        while time.monotonic() < began + PATIENCE:
            open_ones = [record for record in await self._look() if not record.is_terminal]
            promised = {line["task"] for line in self.acks.read() if line["what"] == "created"}
            if not promised & {record.task_id for record in open_ones}:
                break
            for record in open_ones:
                if record.worker in (None, living) or time.monotonic() > began + 5:
                    await self._end(record)
            await asyncio.sleep(self._pause)
        await until(self._is_alone, PATIENCE)

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

    async def _look(self) -> list[TaskRecord]:
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
            if record.is_terminal and record.task_id not in self.first:
                stored = await self.store.backend.get(self.store.keys.task(OWNER, record.task_id))
                self.first[record.task_id] = (stored.version, bytes(stored.data))
        return found

    async def _judge(self, *, fired: bool, raised: bool) -> Verdict:
        evidence = Evidence(self.acks.read(), self.witness.read(), self.first, raised=raised)
        known = {line["task"]: line.get("owner", OWNER) for line in evidence.acks if "task" in line}
        known.update({line["task"]: OWNER for line in evidence.witness})
        known.update({record.task_id: OWNER for record in await self._look()})
        owners = {line["task"]: line["owner"] for line in evidence.acks if "owner" in line}
        for task_id in known:
            owner = owners.get(task_id, OWNER)
            with suppress(RecordNotFoundError, TaskNotFoundError):
                stored = await self.store.backend.get(self.store.keys.task(owner, task_id))
                record = decode_record(stored.data)
                assert record is not None
                evidence.final[task_id] = (stored.version, bytes(stored.data), record)
                if record.result is not None and isinstance(record.result.inline, Raw):
                    evidence.results[task_id] = from_json(record.result.inline)
        faults = judge(evidence)
        faults += await self._left_over()
        shown = "\n".join(
            f"{what} ({task_id})\n{evidence.history(task_id)}" for task_id, what in faults
        )
        return Verdict(fired, faults, len(evidence.final), shown)

    async def _left_over(self) -> list[Fault]:
        """Nothing speaks of a worker any more when the last one has ended in order."""
        return [Fault("", f"left behind: {key}") for key in await self._workers()]

    async def _is_alone(self) -> bool:
        return len(await self._workers()) <= 1

    async def _workers(self) -> list[str]:
        page = await self.store.backend.list_by_prefix(self.store.keys.workers())
        return [record.key for record in page.records]

    async def _until(self, is_true: Callable[[], bool], child: Child) -> None:
        async def is_so() -> bool:
            return is_true() or child.has_stopped.is_set() or child.has_ended.is_set()

        await until(is_so, PATIENCE)

    def _has_said(self, what: str, who: str = "subject") -> bool:
        return any(line["what"] == what and line["who"] == who for line in self.acks.read())

    def _said(self, what: str, who: str) -> dict[str, Any]:
        lines = (line for line in self.acks.read() if line["what"] == what and line["who"] == who)
        return next(lines)


def _last_words(child: Child) -> str:
    return child.log.read_text()[-3000:]

"""One cycle: a server is struck at one named place, and everything that it promised is kept."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import apsw
from tests.chaos.scene import until
from tests.chaos.stage import PATIENCE, Stage

from mcp_tasks.runner.worker import read_worker
from mcp_tasks.storage.sqlite import SqliteBackend


if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.chaos.harness import Child
    from tests.chaos.stage import Verdict


SLOWER = {"beat": 0.5, "fence": 1.6, "lease": 3.0, "scan": 0.5, "look": 0.2}
"""Times for a stand-in that serves one request after the other."""


class BlockedError(Exception):
    """The subject was stopped where nobody else can do anything; the cycle says nothing."""


class UnpassedError(Exception):
    """The failpoint was never passed."""


class Cycle(Stage):
    """A victim, a subject and a survivor, on one store."""

    async def run(self, failpoint: str) -> Verdict:
        """Strike at `failpoint` (name:action:nth), and judge what comes of it.

        Raises:
            BlockedError: Nothing can be said; try again.
            UnpassedError: Nothing happened.
        """
        action = failpoint.split(":")[1]
        usurp = failpoint.startswith("fence.")
        survivor: Child | None = None
        subject: Child | None = None
        try:
            victim = await self.fork("cast.victim")
            assert await victim.ended() == -signal.SIGKILL, victim.last_words
            dead = self.said("started", "victim")["worker"]
            subject = await self.fork("cast.subject", failpoint=failpoint, victim=dead)
            await self._until(lambda: self.has_said("reaped", "subject"), subject)
            self._check_free(subject)
            survivor = await self.fork("cast.survivor", usurp=usurp)
            await self._until(lambda: self.has_said("started", "survivor"), survivor)
            self._check_free(subject)
            if not await self._strike(subject, action):
                raise UnpassedError
            await self.finish(self.said("started", "survivor")["worker"])
            survivor.send(signal.SIGTERM)
            assert await survivor.ended() == 0, survivor.last_words
            return await self.judge(raised=action == "raise")
        finally:
            for child in (subject, survivor):
                if child is not None:
                    await child.kill()
            await self.store.close()

    async def _strike(self, subject: Child, action: str) -> bool:
        """Wait until it has happened, and until a stopped process that was woken has ended."""
        await subject.struck()
        if subject.has_stopped.is_set():
            self._check_free(subject)
            await self._taken_over()
            await self.look()
            self.acks.write(who="test", what="struck", signal="SIGCONT")
            subject.send(signal.SIGCONT)
        code = await subject.ended()
        self.acks.write(who="test", what="struck", code=code)
        if action == "raise":
            assert code == 0, subject.last_words
            return self.said("over", "subject")["fired"]
        return code == -signal.SIGKILL if action == "kill" else subject.has_stopped.is_set()

    def _check_free(self, subject: Child) -> None:
        """Give up if a process was stopped in the middle of a transaction of SQLite.

        The file is then locked for everybody until it goes on or dies; nothing can be shown.
        """
        is_file = isinstance(self.store.backend, SqliteBackend)
        if is_file and subject.has_stopped.is_set() and is_locked(str(self.folder / "tasks.db")):
            raise BlockedError

    async def _taken_over(self) -> None:
        """Wait until somebody has taken the stopped subject over, if it was a worker already."""
        if not self.has_said("started", "subject"):
            return
        worker = self.said("started", "subject")["worker"]

        async def is_gone() -> bool:
            return await read_worker(self.store, worker) is None

        assert await until(is_gone, PATIENCE), f"nobody took {worker} over"

    async def _until(self, is_true: Callable[[], bool], child: Child) -> None:
        async def is_so() -> bool:
            return is_true() or child.has_stopped.is_set() or child.has_ended.is_set()

        await until(is_so, PATIENCE)


def is_locked(path: str) -> bool:
    """Tell whether somebody holds the write lock of a SQLite file, and keeps it."""
    connection = apsw.Connection(path)
    connection.set_busy_timeout(1000)
    try:
        connection.execute("BEGIN IMMEDIATE; ROLLBACK")
    except apsw.BusyError:
        return True
    finally:
        connection.close()
    return False

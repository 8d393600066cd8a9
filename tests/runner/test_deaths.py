"""What becomes of tasks when their worker is killed, stopped or sent away: real processes.

The witness is a file that the bodies append to, outside the library: the independent count of what
ran. Only processes that a test started are ended, by their own pid.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mcp_tasks.jsonio import from_json
from mcp_tasks.store import TaskStore


if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from mcp_tasks.domain.record import TaskRecord


OWNER = "ada"
PROGRAM = Path(__file__).parent / "programs" / "worker.py"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals there")


class Process:
    """A worker that a test may kill."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def say(self, command: str) -> str:
        """Send a command and return the line it answers with."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{command}\n".encode())
        return (await self.process.stdout.readline()).decode().strip()

    async def stop(self) -> None:
        """End it in order."""
        await self.say("stop")
        await self.process.wait()

    async def kill(self) -> None:
        """Kill it, and wait until it is gone."""
        self.process.kill()
        await self.process.wait()


class Place:
    """A database, a folder for the witness, and the processes of one test."""

    def __init__(self, folder: Path, store: TaskStore) -> None:
        self.folder = folder
        self.store = store
        self._started: list[Process] = []

    async def worker(self, *options: str) -> Process:
        """Start a worker and wait until it works."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(PROGRAM),
            str(self.folder / "tasks.db"),
            str(self.folder),
            *options,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        started = Process(process)
        self._started.append(started)
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        return started

    @property
    def witness(self) -> list[str]:
        """What the bodies wrote."""
        path = self.folder / "witness"
        return path.read_text().splitlines() if path.exists() else []

    def release(self) -> None:
        """Let the bodies go on."""
        (self.folder / "release").touch()

    async def seen(self, lines: int) -> None:
        """Wait until the witness has so many lines."""
        async with asyncio.timeout(10):
            while len(self.witness) < lines:  # noqa: ASYNC110 - other processes write it
                await asyncio.sleep(0.01)

    async def reached(self, task_id: str, is_there: Callable[[TaskRecord], bool]) -> TaskRecord:
        """Wait until a task is so, and return it."""
        async with asyncio.timeout(10):
            record = await self.store.get(OWNER, task_id)
            while not is_there(record):
                await asyncio.sleep(0.01)
                record = await self.store.get(OWNER, task_id)
        return record

    async def ended(self, task_id: str) -> TaskRecord:
        """Wait for the end of a task."""
        return await self.reached(task_id, lambda record: record.is_terminal)

    async def error_data(self, record: TaskRecord) -> dict[str, Any]:
        """Return the data of the error in which a task ended."""
        assert record.error is not None
        assert record.error.code == -32603
        return from_json(record.error.data)  # type: ignore[arg-type]

    async def end_all(self) -> None:
        """Leave no process behind."""
        for started in self._started:
            if started.process.returncode is None:
                await started.kill()


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    """An empty database, and no worker yet."""
    async with TaskStore.open(f"sqlite:///{(tmp_path / 'tasks.db').as_posix()}") as store:
        place = Place(tmp_path, store)
        try:
            yield place
        finally:
            await place.end_all()


async def test_a_body_that_may_have_run_is_not_run_again(place: Place) -> None:
    """At most once is the default: a tool may have had effects."""
    first = await place.worker()
    task_id = await first.say("create slow once")
    await place.seen(1)
    await first.kill()
    place.release()
    await place.worker()

    record = await place.ended(task_id)

    assert record.status == "failed"
    assert await place.error_data(record) == {
        "reason": "worker_lost",
        "attempt": 1,
        "mayHaveRun": True,
    }
    assert len(place.witness) == 1


async def test_a_task_that_nobody_claimed_is_started_elsewhere(place: Place) -> None:
    """Nothing that was told of is lost, in any mode."""
    server = await place.worker("--serve-only")
    task_id = await server.say("create slow once")
    await server.kill()
    place.release()
    await place.worker()

    assert (await place.ended(task_id)).status == "completed"
    assert len(place.witness) == 1


@pytest.mark.parametrize("option", [(), ("--no-lock",)], ids=["by its lock", "by its lease"])
async def test_a_rerun_task_goes_on_with_the_next_attempt(
    place: Place, option: tuple[str, ...]
) -> None:
    """The number of the attempt is exact, and the idempotency key is always the same."""
    first = await place.worker(*option)
    task_id = await first.say("create slow rerun")
    await place.seen(1)
    await first.kill()
    killed = time.monotonic()
    await place.worker(*option)
    await place.seen(2)
    took = time.monotonic() - killed
    place.release()

    record = await place.ended(task_id)

    assert await place.store.get_result(OWNER, task_id) == {"attempt": 2}
    assert record.lost == 1
    assert place.witness == [f"start 1 {task_id}", f"start 2 {task_id}"]
    # A lock that can be had needs no lease; without one a whole lease of a second must pass.
    assert took < 5
    assert not option or took >= 1


async def test_recorded_steps_are_not_repeated(place: Place) -> None:
    """That is what resumable means; only the step that was cut runs again."""
    first = await place.worker()
    task_id = await first.say("create steps resumable")
    await place.seen(2)
    await first.kill()
    await place.worker()
    await place.seen(3)
    place.release()

    await place.ended(task_id)

    assert await place.store.get_result(OWNER, task_id) == {"value": ["one", "two"]}
    assert place.witness == ["first", "second", "second"]


async def test_a_task_that_kills_its_workers_is_given_up(place: Place) -> None:
    """A poison task ends, after as many attempts as were allowed."""
    first = await place.worker()
    task_id = await first.say("create poison rerun")
    assert await first.process.wait() == 42
    second = await place.worker()
    assert await second.process.wait() == 42
    await place.worker()

    record = await place.ended(task_id)

    data = await place.error_data(record)
    assert (data["reason"], data["lost"]) == ("attempts_exhausted", 2)
    assert place.witness == ["start 1", "start 2"]


@pytest.mark.parametrize("_round", range(3))
async def test_a_stopped_worker_that_wakes_changes_nothing(place: Place, _round: int) -> None:
    """Fencing: what an attempt writes after the next one was claimed does not land."""
    first = await place.worker()
    task_id = await first.say("create slow rerun")
    await place.seen(1)
    os.kill(first.process.pid, signal.SIGSTOP)
    await place.worker()
    await place.seen(2)
    place.release()
    ended = await place.ended(task_id)
    stored = await place.store.backend.get(place.store.keys.task(OWNER, task_id))

    os.kill(first.process.pid, signal.SIGCONT)
    # It finds that it was taken over, and works on as a new incarnation.
    other = await first.say("create slow once")
    assert (await place.ended(other)).status == "completed"

    assert await place.store.get_result(OWNER, task_id) == {"attempt": 2}
    assert await place.store.get(OWNER, task_id) == ended
    assert await place.store.backend.get(place.store.keys.task(OWNER, task_id)) == stored


@pytest.mark.parametrize("policy", ["once", "rerun"])
async def test_a_worker_that_stops_in_order_gives_its_tasks_back(place: Place, policy: str) -> None:
    """Nobody waits for a lease after a deploy."""
    first = await place.worker()
    second = await place.worker()
    task_id = await first.say(f"create slow {policy}")
    await place.seen(1)
    await first.stop()
    if policy == "once":
        record = await place.ended(task_id)
        assert (await place.error_data(record))["reason"] == "worker_stopped"
        assert len(place.witness) == 1
        return
    await place.seen(2)
    place.release()

    record = await place.ended(task_id)

    assert record.lost == 0
    assert await place.store.get_result(OWNER, task_id) == {"attempt": 2}
    assert second.process.returncode is None


async def test_a_cancel_from_another_process_reaches_the_body(place: Place) -> None:
    """It comes through the inbox of the worker that runs it."""
    worker = await place.worker()
    task_id = await worker.say("create slow once")
    await place.seen(1)

    await place.store.cancel(OWNER, task_id)

    assert (await place.ended(task_id)).status == "cancelled"


@pytest.mark.parametrize("policy", ["once", "resumable"])
async def test_an_answer_from_another_process_reaches_the_body(place: Place, policy: str) -> None:
    """Whether the body waits in its worker or the task is parked."""
    worker = await place.worker()
    task_id = await worker.say(f"create ask {policy}")
    asked = await place.reached(task_id, lambda record: bool(record.questions))
    assert (asked.worker is None) == (policy == "resumable")

    await place.store.answer(
        OWNER, task_id, {"who": {"action": "accept", "content": {"name": "Grace"}}}
    )

    await place.ended(task_id)
    assert await place.store.get_result(OWNER, task_id) == {"name": "Grace"}


async def test_a_parked_task_outlives_every_process(place: Place) -> None:
    """A person may answer days later, on a server that did not exist when the question was put."""
    worker = await place.worker()
    task_id = await worker.say("create ask resumable")
    await place.reached(task_id, lambda record: bool(record.questions) and record.worker is None)
    await worker.kill()
    await place.store.answer(OWNER, task_id, {"who": {"action": "decline"}})
    await place.worker()

    await place.ended(task_id)

    assert await place.store.get_result(OWNER, task_id) == {"name": None}
    assert place.witness == ["ask", "ask"]

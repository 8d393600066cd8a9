"""Real processes on one SQLite file, killed, stopped and started again.

What the bodies did is read from a file that they append to, not from the tasks' records.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from mcp_tasks.domain.record import Call, Policy, inline
from mcp_tasks.jsonio import from_json
from mcp_tasks.storage.sqlite import SqliteBackend
from mcp_tasks.store import TaskStore


if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from mcp_tasks.domain.record import TaskRecord


pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills with POSIX signals")

PROGRAM = Path(__file__).parent / "programs" / "worker.py"
LIMIT = 20.0
PATIENT: dict[str, Any] = {"beat": 5.0, "fence": 10.0, "lease": 15.0}
"""The usual lease: with a short one a busy machine makes a live worker look dead."""

SHORT = {"beat": 0.2, "fence": 0.5, "lease": 1.0, "scan": 0.2, "look": 0.1, "drain": 0.3}
RERUN = Policy(on_worker_loss="rerun")
RESUMABLE = Policy(resumable=True)


class Process:
    """One process of `worker.py`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def line(self) -> str:
        """Return the next line that it prints."""
        assert self._process.stdout
        async with asyncio.timeout(LIMIT):
            line = await self._process.stdout.readline()
        assert line, "the process has ended"
        return line.decode().strip()

    async def create(self, tool: str, policy: Policy | None = None) -> str:
        """Create a task in it."""
        assert self._process.stdin
        encoded = msgspec.json.encode(policy or Policy())
        self._process.stdin.write(tool.encode() + b" " + encoded + b"\n")
        return await self.line()

    def deliver(self, task_id: str) -> None:
        """Let it run a task, as a queue would."""
        assert self._process.stdin
        self._process.stdin.write(f"run {task_id}\n".encode())

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    async def kill(self) -> None:
        """End it without a word."""
        if self._process.returncode is None:
            self._process.kill()
        await self.ended()

    async def ended(self) -> int:
        """Wait until it has ended, and return how."""
        async with asyncio.timeout(LIMIT):
            return await self._process.wait()


class Yard:
    """A database, a witness, and processes."""

    def __init__(self, folder: Path) -> None:
        self._database = folder / "tasks.db"
        self._witness = folder / "witness.txt"
        self._processes: list[Process] = []
        self._backend = SqliteBackend(self._database)
        self.store = TaskStore(self._backend)

    async def start(self, *, locks: bool = True, **options: Any) -> Process:
        """Start a process, and wait until it has registered as a worker."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(PROGRAM),
            str(self._database),
            str(self._witness),
            json.dumps({**SHORT, **options, "locks": locks}),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=None if "DEBUG" in os.environ else asyncio.subprocess.DEVNULL,
        )
        self._processes.append(Process(process))
        assert await self._processes[-1].line() == "ready"
        return self._processes[-1]

    async def create(self, tool: str, policy: Policy | None = None) -> str:
        """Create a task that waits for any worker."""
        capabilities = inline(b'{"elicitation":{}}').inline
        call = Call(tool, inline(b"{}"), client_capabilities=capabilities)
        return (await self.store.create("ada", call, policy=policy)).task_id

    def witnessed(self, task_id: str) -> list[tuple[int, str]]:
        """Return what the bodies of a task wrote down: attempt and event, in order."""
        if not self._witness.exists():
            return []
        lines = [line.split() for line in self._witness.read_text().splitlines()]
        return [(int(attempt), what) for who, attempt, what, _ in lines if who == task_id]

    async def until(self, is_true: Callable[[], bool]) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + LIMIT
        while not is_true():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.005)

    async def saw(self, task_id: str, attempt: int, what: str) -> None:
        """Wait until a body has written something down."""
        await self.until(lambda: (attempt, what) in self.witnessed(task_id))

    async def reached(self, task_id: str, is_there: Callable[[TaskRecord], bool]) -> TaskRecord:
        """Wait until a task's record is as wanted."""
        deadline = time.monotonic() + LIMIT
        while True:
            record = await self.store.get("ada", task_id)
            if is_there(record):
                return record
            assert time.monotonic() < deadline, record
            await asyncio.sleep(0.01)

    async def ended(self, task_id: str) -> TaskRecord:
        """Wait until a task has ended."""
        return await self.reached(task_id, lambda record: record.is_terminal)

    async def completed(self, task_id: str) -> int:
        """Wait until a task has completed, and return at which attempt."""
        record = await self.ended(task_id)
        assert record.status == "completed", record.error
        return (await self.store.get_result("ada", task_id))["attempt"]

    async def stop_between_writes(self, process: Process) -> None:
        """Stop a process at a moment when it does not hold SQLite's one lock for writers.

        A stopped process that holds it stops everybody; no lease helps against that.
        """
        while True:
            process.signal(signal.SIGSTOP)
            try:
                async with asyncio.timeout(0.3):
                    await self._backend.put("test:write", b"")
            except TimeoutError:
                process.signal(signal.SIGCONT)
                await asyncio.sleep(0.05)
            else:
                return

    async def close(self) -> None:
        """End everything."""
        for process in self._processes:
            await process.kill()
        await self.store.close()
        await self._backend.close()


@pytest.fixture
async def yard(tmp_path: Path) -> AsyncIterator[Yard]:
    """Make an empty database."""
    yard = Yard(tmp_path)
    yield yard
    await yard.close()


def reason(record: TaskRecord) -> dict[str, Any]:
    """Return the data of a task's error."""
    assert record.error is not None
    assert record.error.code == -32603
    return from_json(record.error.data)  # type: ignore[arg-type]


async def test_after_a_kill_and_a_restart_a_task_runs_again_within_two_seconds(yard: Yard) -> None:
    """With the usual settings: the lock of the dead process tells, not its lease."""
    usual: dict[str, Any] = {"beat": 5.0, "fence": 10.0, "lease": 15.0, "scan": 2.0, "look": 1.0}
    first = await yard.start(**usual)
    task_id = await first.create("steps", RESUMABLE)
    await yard.saw(task_id, 1, "between")

    await first.kill()
    killed = time.monotonic()
    await yard.start(**usual)
    await yard.saw(task_id, 2, "start")

    assert time.monotonic() - killed < 2.0 + 1.0  # a second to start Python on a busy machine
    assert await yard.completed(task_id) == 2
    counts = Counter(what for _, what in yard.witnessed(task_id))
    assert (counts["step-one"], counts["step-two"], counts["step-three"]) == (1, 1, 1)


async def test_another_process_on_the_same_machine_notices_at_once(yard: Yard) -> None:
    """Nobody waits for a lease of fifteen seconds."""
    usual: dict[str, Any] = {"beat": 5.0, "fence": 10.0, "lease": 15.0, "scan": 2.0, "look": 1.0}
    first = await yard.start(**usual)
    task_id = await first.create("until_second", RERUN)
    await yard.saw(task_id, 1, "start")
    await yard.start(**usual)

    await first.kill()
    killed = time.monotonic()
    await yard.saw(task_id, 2, "start")

    assert time.monotonic() - killed < 2.4 + 1.0 + 1.0  # a scan, a look, and some
    assert await yard.completed(task_id) == 2


async def test_a_task_that_may_run_once_fails_when_its_worker_is_killed(yard: Yard) -> None:
    """Its body may have had effects, so it is started once and never again."""
    first = await yard.start()
    task_id = await first.create("hang")
    await yard.saw(task_id, 1, "start")

    await first.kill()
    await yard.start()
    record = await yard.ended(task_id)

    data = reason(record)
    assert (data["reason"], data["mayHaveRun"]) == ("worker_lost", True)
    await asyncio.sleep(0.3)
    assert yard.witnessed(task_id) == [(1, "start")]


async def test_a_task_that_nobody_claimed_is_started_by_another_worker(yard: Yard) -> None:
    """Unclaimed is safe to start anywhere, in every mode."""
    first = await yard.start(max_running=1)
    running = await first.create("hang")
    await yard.saw(running, 1, "start")
    waiting = [await first.create("quick") for _ in range(5)]

    await first.kill()
    await yard.start()

    for task_id in waiting:
        assert await yard.completed(task_id) == 1
        assert yard.witnessed(task_id) == [(1, "start"), (1, "end")]


async def test_a_dead_process_elsewhere_is_noticed_by_its_lease(yard: Yard) -> None:
    """Without a lock that tells, a worker unchanged for a lease is dead."""
    first = await yard.start(locks=False)
    task_id = await first.create("until_second", RERUN)
    await yard.saw(task_id, 1, "start")
    await yard.start(locks=False)

    await first.kill()
    killed = time.monotonic()
    await yard.saw(task_id, 2, "start")

    assert 0.5 < time.monotonic() - killed < 1.0 + 1.5
    assert await yard.completed(task_id) == 2


async def test_a_stopped_worker_changes_nothing_when_it_wakes_up(yard: Yard) -> None:
    """SIGSTOP past the lease, takeover, SIGCONT: the zombie's writes are refused, every time."""
    processes = [await yard.start(locks=False), await yard.start(locks=False)]
    for number in range(3):
        first = processes[number % 2]
        task_id = await first.create("busy", RERUN)
        await yard.reached(task_id, lambda record: record.variables is not None)

        await yard.stop_between_writes(first)
        assert await yard.completed(task_id) == 2
        before = await yard.store.get("ada", task_id)
        first.signal(signal.SIGCONT)
        await yard.saw(task_id, 1, "stopped")

        assert await yard.store.get("ada", task_id) == before
        assert (await yard.store.get_variables("ada", task_id))["by"] == 2
        assert await yard.completed(await first.create("quick")) == 1


async def test_a_tool_that_blocks_the_loop_does_not_make_its_worker_look_dead(yard: Yard) -> None:
    """The beat comes from a thread and a connection of its own."""
    first = await yard.start(locks=False)
    await yard.start(locks=False)
    task_id = await first.create("block", RERUN)

    assert await yard.completed(task_id) == 1
    assert yard.witnessed(task_id) == [(1, "start"), (1, "end")]


async def test_an_answer_while_nobody_runs_is_found_by_the_next_worker(yard: Yard) -> None:
    """The question outlives the process that asked."""
    first = await yard.start()
    task_id = await first.create("ask", RESUMABLE)
    await yard.reached(task_id, lambda r: r.status == "input_required" and r.worker is None)
    await first.kill()

    answer = {"action": "accept", "content": {"go": True}}
    await yard.store.answer("ada", task_id, {"go": answer})
    await yard.start()

    assert await yard.completed(task_id) == 2
    assert [what for _, what in yard.witnessed(task_id)].count("before") == 1
    assert (2, "accept") in yard.witnessed(task_id)


async def test_an_answer_and_a_cancel_from_another_process_reach_the_worker(yard: Yard) -> None:
    """Through its inbox, within a look."""
    first = await yard.start()
    asked = await first.create("ask")
    hanging = await first.create("hang")
    await yard.reached(asked, lambda record: record.status == "input_required")

    await yard.store.answer("ada", asked, {"go": {"action": "decline"}})
    await yard.store.cancel("ada", hanging)

    assert await yard.completed(asked) == 1
    assert (await yard.ended(hanging)).status == "cancelled"
    assert (1, "stopped") in yard.witnessed(hanging)


async def test_sigterm_hands_over_without_waiting_for_a_lease(yard: Yard) -> None:
    """What may run again goes on elsewhere at once; the rest says that it was stopped."""
    first = await yard.start(lease=30.0, fence=20.0)
    once = await first.create("hang")
    again = await first.create("until_second", RERUN)
    await yard.saw(once, 1, "start")
    await yard.saw(again, 1, "start")
    await yard.start(lease=30.0, fence=20.0)

    first.signal(signal.SIGTERM)
    terminated = time.monotonic()

    assert await yard.completed(again) == 2
    assert reason(await yard.ended(once))["reason"] == "worker_stopped"
    assert time.monotonic() - terminated < SHORT["drain"] + 2.0
    assert await first.ended() == 0


async def test_a_tool_that_ends_its_process_is_given_up_after_its_attempts(yard: Yard) -> None:
    """A poisonous task must not end one worker after the other for ever."""
    first = await yard.start()
    task_id = await first.create("poison", Policy(on_worker_loss="rerun", max_attempts=3))
    assert await first.ended() == 42
    for _ in range(2):
        assert await (await yard.start()).ended() == 42
    await yard.start()

    record = await yard.ended(task_id)

    data = reason(record)
    assert (data["reason"], data["lost"]) == ("attempts_exhausted", 3)
    assert yard.witnessed(task_id) == [(1, "start"), (2, "start"), (3, "start")]


async def test_killed_again_and_again_no_task_is_lost_and_none_runs_too_often(yard: Yard) -> None:
    """Kills at any moment of create, claim and takeover."""
    policies = [Policy(), Policy(on_worker_loss="rerun", max_attempts=100), RESUMABLE]
    tasks: dict[str, Policy] = {}
    process = await yard.start()
    for number in range(6):
        for _ in range(10):
            for policy in policies:
                tasks[await process.create("quick", policy)] = policy
        for policy in policies:
            tasks[await yard.create("quick", policy)] = policy
        creating = asyncio.create_task(process.create("quick"))
        await asyncio.sleep(0.004 * number)
        await process.kill()
        creating.cancel()
        process = await yard.start()

    for task_id, policy in tasks.items():
        record = await yard.ended(task_id)
        starts = [attempt for attempt, what in yard.witnessed(task_id) if what == "start"]
        assert len(starts) == len(set(starts))
        if policy.is_restartable:
            assert record.status == "completed"
            assert starts
        else:
            assert len(starts) <= 1
            assert record.status == "completed" or reason(record)["reason"] == "worker_lost"


async def test_a_worker_with_hundreds_of_tasks_is_taken_over_quickly(yard: Yard) -> None:
    """Detection, and then one write for each task, many in flight at once."""
    first = await yard.start(max_running=1000)
    ids = [await first.create("until_second", RERUN) for _ in range(100)]
    await yard.until(lambda: all(yard.witnessed(task_id) for task_id in ids[-3:]))
    second = await yard.start(max_running=1000)

    await first.kill()
    killed = time.monotonic()
    for task_id in ids:
        assert await yard.completed(task_id) == 2

    assert time.monotonic() - killed < 4.0
    second.signal(signal.SIGTERM)
    assert await second.ended() == 0


async def test_a_queue_may_deliver_everything_twice_and_out_of_order(yard: Yard) -> None:
    """`run_task` is the seam for engines: the record decides, and nothing runs twice."""
    consumers = [await yard.start(queue=True, **PATIENT) for _ in range(2)]
    tasks = [await yard.create(tool) for tool in ("quick", "short") for _ in range(25)]

    for consumer in consumers:
        deliveries = tasks * 2
        random.shuffle(deliveries)
        for task_id in deliveries:
            consumer.deliver(task_id)
    said: Counter[tuple[str, str]] = Counter()
    for consumer in consumers:
        for _ in range(2 * len(tasks)):
            what, _, task_id = (await consumer.line()).partition(" ")
            said[task_id, what] += 1

    for task_id in tasks:
        assert (said[task_id, "ran"], said[task_id, "passed"]) == (1, 3)
        assert await yard.completed(task_id) == 1
        assert Counter(yard.witnessed(task_id))[1, "start"] == 1


async def test_a_delivery_after_its_consumer_was_killed_runs_the_next_attempt(yard: Yard) -> None:
    """A queue delivers again what was not acknowledged; whoever gets it goes on."""
    first, second = [await yard.start(queue=True, **PATIENT) for _ in range(2)]
    tasks = [await yard.create("until_second", RERUN) for _ in range(5)]
    for task_id in tasks:
        first.deliver(task_id)
        await yard.saw(task_id, 1, "start")

    await first.kill()
    for task_id in tasks:
        await yard.reached(task_id, lambda record: record.worker is None)
        for _ in range(3):
            second.deliver(task_id)

    for task_id in tasks:
        assert await yard.completed(task_id) == 2
        starts = [attempt for attempt, what in yard.witnessed(task_id) if what == "start"]
        assert starts == [1, 2]

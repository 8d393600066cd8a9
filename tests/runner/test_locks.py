"""The lock of a worker: what it tells others on the same machine, and what it does not."""

from __future__ import annotations

import asyncio
import gc
import math
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from mcp_tasks.domain.record import Call, Policy, inline
from mcp_tasks.errors import ConfigurationError
from mcp_tasks.runner import Completed, Runner, RunnerConfig
from mcp_tasks.runner.locks import ProcessLock, forget, host_id, is_dead, lock_folder
from mcp_tasks.storage.memory import MemoryBackend
from mcp_tasks.storage.sqlite import SqliteBackend
from mcp_tasks.store import TaskStore


if TYPE_CHECKING:
    from pathlib import Path

    from mcp_tasks.runner import Outcome, TaskRun

    from .conftest import Stand


HOLD = """
import sys, pathlib
from mcp_tasks.runner.locks import ProcessLock
lock = ProcessLock(pathlib.Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_the_lock_of_a_process_tells_when_it_is_dead(tmp_path: Path) -> None:
    """However it ended, and at once."""
    path = str(tmp_path / "deep" / "w.lock")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"held\n"

        assert not is_dead(path, host_id())
        with pytest.raises(OSError, match="locked by another process"):
            ProcessLock(tmp_path / "deep" / "w.lock")
        process.kill()
        process.wait()

    assert is_dead(path, host_id())
    assert not is_dead(path, "another machine")
    forget(path)
    assert not is_dead(path, host_id())
    assert not is_dead("", host_id())


def test_a_process_never_takes_itself_for_dead(tmp_path: Path) -> None:
    """POSIX would give it its own lock, and drop it on the way."""
    path = tmp_path / "w.lock"
    lock = ProcessLock(path)

    assert not is_dead(str(path), host_id())

    lock.release(remove=False)
    assert is_dead(str(path), host_id())


def test_an_orderly_end_removes_the_file(tmp_path: Path) -> None:
    """A missing file says nothing, so nobody takes a live one's place for dead."""
    path = tmp_path / "w.lock"
    ProcessLock(path).release()

    assert not path.exists()
    assert not is_dead(str(path), host_id())


def test_locks_lie_beside_the_database_file(tmp_path: Path) -> None:
    """Processes that share the file find them there; others use the user's state directory."""
    assert lock_folder(SqliteBackend(tmp_path / "tasks.db")) == tmp_path
    assert lock_folder(MemoryBackend()).name == "workers"


async def test_runners_of_one_process_do_not_take_each_other_over(tmp_path: Path) -> None:
    """Two servers in one process may share a file."""
    stores = [TaskStore(SqliteBackend(tmp_path / "tasks.db")) for _ in range(2)]
    config = RunnerConfig(scan=0.02, look=0.01)
    runners = [Runner(store, lambda _: None, config=config) for store in stores]
    for runner in runners:
        await runner.start()
    await asyncio.sleep(0.3)

    assert [runner._worker.is_good for runner in runners if runner._worker] == [True, True]  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    assert len((await stores[0].backend.list_by_prefix("@workers:")).records) == 2
    for runner, store in zip(runners, stores, strict=True):
        await runner.stop()
        await store.backend.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_worker_whose_loop_ended_stops_its_beat(tmp_path: Path) -> None:
    """A program that forgets to stop must not hold its tasks for as long as it lives."""
    started: list[int] = []

    async def body(run: TaskRun) -> Outcome:
        started.append(run.task.attempt)
        if run.task.attempt == 1:
            await asyncio.Event().wait()
        return Completed({})

    config = RunnerConfig(beat=0.1, fence=0.3, lease=0.6, scan=0.1, look=0.05)
    ids: list[str] = []

    async def forget_to_stop() -> None:
        runner = Runner(
            TaskStore(SqliteBackend(tmp_path / "tasks.db")), lambda _: body, config=config
        )
        await runner.start()
        call = Call("tool", inline(b"{}"))
        policy = Policy(on_worker_loss="rerun")
        ids.append((await runner.create("ada", call, policy=policy)).task_id)
        while not started:  # noqa: ASYNC110 - another loop sets it
            await asyncio.sleep(0.01)

    await asyncio.to_thread(asyncio.run, forget_to_stop())

    backend = SqliteBackend(tmp_path / "tasks.db")
    store = TaskStore(backend)
    runner = Runner(store, lambda _: body, config=config)
    await runner.start()
    async with asyncio.timeout(10):
        while not (await store.get("ada", ids[0])).is_terminal:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await runner.stop()
    await backend.close()
    deadline = time.monotonic() + 5
    while any(thread.name == "mcp-tasks-heartbeat" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)

    assert started == [1, 2]
    gc.collect()  # the forgotten lock file is reported here and not somewhere later


def test_times_with_which_the_living_would_look_dead_are_refused() -> None:
    """Beat, fence and lease only work in this order."""
    with pytest.raises(ConfigurationError, match="less than"):
        RunnerConfig(beat=10.0)
    with pytest.raises(ConfigurationError, match="less than"):
        RunnerConfig(fence=15.0)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"max_running": 0}, "max_running is 0; it must be more than 0"),
        ({"drain": -1}, "drain is -1; it must be 0 or more"),
        ({"look": 0}, "look is 0; it must be more than 0"),
        ({"scan": math.nan}, "scan is nan"),
        ({"lease": math.inf}, "lease is inf"),
    ],
)
def test_settings_that_are_no_times_are_refused(setting: dict[str, Any], says: str) -> None:
    """When the server is made, and not in the middle of a shutdown."""
    with pytest.raises(ConfigurationError, match=says):
        RunnerConfig(**setting)


def test_some_times_may_be_nothing() -> None:
    """No waiting is a way to wait."""
    RunnerConfig(drain=0, get_hold=0, cancel_grace=0, progress_every=0)


async def test_a_database_that_is_away_at_the_start_is_an_error_then(alone: Stand) -> None:
    """Nothing was begun, and a later start works."""

    class Away(MemoryBackend):
        capabilities = alone.backend.capabilities._replace(shared=True)
        is_away = True

        async def put_if_version(self, *args: object, **options: object) -> int:
            if self.is_away:
                raise OSError
            return await super().put_if_version(*args, **options)  # type: ignore[arg-type]

    backend = Away()
    runner = Runner(TaskStore(backend), lambda _: None)
    with pytest.raises(OSError):  # noqa: PT011 - there is nothing in it
        await runner.start()
    assert runner.is_closed
    backend.is_away = False
    await runner.start()
    assert not runner.is_closed
    await runner.stop()

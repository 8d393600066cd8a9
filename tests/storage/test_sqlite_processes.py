"""Several processes on one SQLite file: at once, and forked; `tests/chaos` kills them."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from mcp_tasks.storage.sqlite import SqliteBackend


if TYPE_CHECKING:
    from pathlib import Path


PROCESSES = 4
CALLERS = 4
ROUNDS = 10

_COUNT = f"""
import asyncio, sys
from mcp_tasks.errors import RecordNotFoundError, VersionConflictError
from mcp_tasks.storage.sqlite import SqliteBackend

async def count(backend):
    for _ in range({ROUNDS}):
        while True:
            try:
                seen = await backend.get("ada:count")
                data, version = seen.data, seen.version
            except RecordNotFoundError:
                data, version = b"0", 0
            try:
                await backend.put_if_version("ada:count", b"%d" % (int(data) + 1), version)
                break
            except VersionConflictError:
                pass

async def main():
    backend = SqliteBackend(sys.argv[1])
    await asyncio.gather(*(count(backend) for _ in range({CALLERS})))
    await backend.close()

asyncio.run(main())
"""

_FORK = """
import asyncio, os, sys, threading
from mcp_tasks.storage.sqlite import SqliteBackend

backend = SqliteBackend(sys.argv[1])
assert asyncio.run(backend.put("ada:t1", b"parent")) == 1

child = os.fork()
if child == 0:
    if os.path.isdir("/proc/self/fd"):
        held = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
        assert not [name for name in held if name.startswith(sys.argv[1])], held
    assert asyncio.run(backend.get("ada:t1")).data == b"parent"
    assert asyncio.run(backend.put("ada:t1", b"child")) == 2
    sys.exit(7)

_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 7, status
assert asyncio.run(backend.get("ada:t1")).data == b"child"
assert asyncio.run(backend.put("ada:t1", b"parent")) == 3


def fork_now_and_then():
    for _ in range(10):
        child = os.fork()
        if child == 0:
            # Straight into a loop of its own, in whatever state the parent was.
            other = SqliteBackend(sys.argv[1])
            version = asyncio.run(other.put("ada:forked", b"x"))
            os._exit(0 if version else 1)
        _, status = os.waitpid(child, 0)
        assert status == 0, status


async def write_meanwhile():
    forking = asyncio.create_task(asyncio.to_thread(fork_now_and_then))
    version = 3
    while not forking.done():
        version = await backend.put_if_version("ada:t1", b"x", version)
        assert (await backend.get("ada:t1")).version == version
        await asyncio.sleep(0)
    await forking
    assert (await backend.get("ada:forked")).version == 10
    await backend.close()

asyncio.run(write_meanwhile())
print("whole")
"""


async def test_no_update_of_several_processes_is_lost(tmp_path: Path) -> None:
    """They start at once, on a file that is not there yet, and count on one record."""
    path = tmp_path / "tasks.db"
    counting = [_start(_COUNT, path) for _ in range(PROCESSES)]
    for process in counting:
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")

    backend = SqliteBackend(path)
    total = PROCESSES * CALLERS * ROUNDS
    found = await backend.get("ada:count")
    await backend.close()
    assert (found.data, found.version) == (b"%d" % total, total)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_parent_and_child_of_a_fork_go_on_separately(tmp_path: Path) -> None:
    """The child opens the file anew, and takes nothing from its parent, not even by ending."""
    forking = _start(_FORK, tmp_path / "tasks.db")

    output, errors = forking.communicate(timeout=60)

    assert (output, errors) == ("whole\n", "")


def _start(program: str, path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        # Newer Pythons warn about a fork beside a thread, which is what is tried here.
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, str(path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

"""Several processes on one table: at once, and forked."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from mcp_tasks.storage.dynamodb import DynamoDBBackend


if TYPE_CHECKING:
    from mcp_tasks.testing.servers.dynamodb import MinistackServer


PROCESSES = 4
CALLERS = 4
ROUNDS = 10

_COUNT = f"""
import asyncio, sys
from mcp_tasks.errors import RecordNotFoundError, VersionConflictError
from mcp_tasks.storage.dynamodb import DynamoDBBackend

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
            except VersionConflictError as error:
                assert error.actual != error.expected

async def main():
    backend = DynamoDBBackend.from_url(sys.argv[1])
    await asyncio.gather(*(count(backend) for _ in range({CALLERS})))
    await backend.close()

asyncio.run(main())
print("whole")
"""

_FORK = """
import asyncio, os, sys
from mcp_tasks.storage.dynamodb import DynamoDBBackend

backend = DynamoDBBackend.from_url(sys.argv[1])

async def child():
    assert (await backend.get("ada:t1")).data == b"parent"
    assert await backend.put("ada:t1", b"child") == 2
    await backend.close()

async def main():
    assert await backend.put("ada:t1", b"parent") == 1
    if os.fork() == 0:
        # Out of the parent's loop, into one of its own.
        asyncio.events._set_running_loop(None)
        asyncio.run(child())
        os._exit(7)
    _, status = os.wait()
    assert os.waitstatus_to_exitcode(status) == 7, status
    assert (await backend.get("ada:t1")).data == b"child"
    assert await backend.put("ada:t1", b"parent") == 3
    await backend.close()

asyncio.run(main())
print("whole")
"""


async def test_no_update_of_several_processes_is_lost(
    ministack: MinistackServer, table: str
) -> None:
    """They start at once and count on one record."""
    url = ministack.url.replace("mcp_tasks", table)
    counting = [_start(_COUNT, url) for _ in range(PROCESSES)]
    for process in counting:
        assert process.communicate(timeout=60) == ("whole\n", "")

    backend = DynamoDBBackend.from_url(url)
    total = PROCESSES * CALLERS * ROUNDS
    found = await backend.get("ada:count")
    await backend.close()
    assert (found.data, found.version) == (b"%d" % total, total)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
async def test_parent_and_child_of_a_fork_go_on_separately(
    ministack: MinistackServer, table: str
) -> None:
    """The child opens connections of its own and leaves those of its parent alone."""
    forking = _start(_FORK, ministack.url.replace("mcp_tasks", table))

    assert forking.communicate(timeout=60) == ("whole\n", "")


def _start(program: str, url: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, url],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

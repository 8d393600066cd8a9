"""Kill a process that writes to SQLite, again and again: what it had acknowledged is there.

A child writes with sixteen callers and says, after each acknowledgement, which version it was
told. It is killed with SIGKILL at a random moment; then every version it named has to be in the
file. This shows the death of a process, whose page cache survives it. It says nothing about power
loss.

    python -m tests.chaos.sqlite_kill --rounds 100
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import apsw

from mcp_tasks.errors import RecordNotFoundError
from mcp_tasks.storage.sqlite import SqliteBackend


CALLERS = 16
BODY = b"x" * 1000


class Tally(NamedTuple):
    """What the rounds came to.

    Attributes:
        acknowledged: Writes that the children were told had happened.
        missing: Of those, the ones that the file does not hold.
        integrity: SQLite's own word about the file: `ok`.
    """

    acknowledged: int
    missing: int
    integrity: str


def kill_rounds(path: Path, rounds: int, *, longest: float = 0.4) -> Tally:
    """Start a writer on `path` and kill it, `rounds` times.

    Args:
        path: The file; each round goes on where the last one was killed.
        rounds: How often.
        longest: A writer lives this many seconds at most, from its first write on.
    """
    acknowledged = missing = 0
    for _ in range(rounds):
        told = _run_and_kill(path, random.uniform(0, longest))  # noqa: S311 - not for secrets
        stored = _stored_versions(path)
        acknowledged += len(told)
        missing += sum(version > stored.get(key, 0) for key, version in told)
    connection = apsw.Connection(str(path))
    integrity = str(connection.pragma("integrity_check"))
    connection.close()
    return Tally(acknowledged, missing, integrity)


def _run_and_kill(path: Path, after: float) -> list[tuple[str, int]]:
    # A file, because a full pipe would stop the child and soften the kill.
    with tempfile.TemporaryFile() as acknowledgements:
        child = subprocess.Popen(
            [sys.executable, __file__, "--child", str(path)],
            stdout=acknowledgements,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        try:
            deadline = time.monotonic() + 20
            while not os.fstat(acknowledgements.fileno()).st_size:
                if child.poll() is not None or time.monotonic() > deadline:
                    message = f"the writer wrote nothing; it ended with {child.returncode}"
                    raise RuntimeError(message)
                time.sleep(0.005)
            time.sleep(after)
        finally:
            child.kill()
            child.wait()
        acknowledgements.seek(0)
        lines = acknowledgements.read().split(b"\n")[:-1]
    return [(key.decode(), int(version)) for key, version in (line.split() for line in lines)]


def _stored_versions(path: Path) -> dict[str, int]:
    connection = apsw.Connection(str(path))
    try:
        rows = connection.execute("SELECT key, version FROM records").fetchall()
        return {str(key): int(str(version)) for key, version in rows}
    finally:
        connection.close()


async def _write_until_killed(path: Path) -> None:
    backend = SqliteBackend(path)

    async def write(key: str) -> None:
        try:
            version = (await backend.get(key)).version
        except RecordNotFoundError:
            version = 0
        while True:
            version = await backend.put_if_version(key, BODY, version)
            os.write(1, f"{key} {version}\n".encode())

    async with asyncio.TaskGroup() as callers:
        for caller in range(CALLERS):
            callers.create_task(write(f"ada:t{caller}"))


def main() -> None:
    """Run as a command: print the tally, and fail if anything is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--child", type=Path)
    arguments = parser.parse_args()
    if arguments.child:
        asyncio.run(_write_until_killed(arguments.child))
        return
    with tempfile.TemporaryDirectory() as folder:
        tally = kill_rounds(Path(folder) / "tasks.db", arguments.rounds)
    print(  # noqa: T201 - a command
        f"{arguments.rounds} kills: {tally.acknowledged} writes acknowledged, "
        f"{tally.missing} missing, integrity {tally.integrity}"
    )
    if tally.missing or not tally.acknowledged or tally.integrity != "ok":
        sys.exit(1)


if __name__ == "__main__":
    main()

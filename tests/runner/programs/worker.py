"""A worker in a process of its own, to be killed.

Run it as `worker.py DATABASE FOLDER [--no-lock] [--serve-only]`. It takes commands on stdin, a line
each: `create TOOL POLICY` answers with the task's id, `stop` ends it in order. Bodies write to
FOLDER/witness, append-only, before they do anything else, and go on when FOLDER/release exists.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Raw
from pydantic import BaseModel

from mcp_tasks.domain.record import Call, Policy
from mcp_tasks.runner import Completed, Runner, RunnerConfig, worker
from mcp_tasks.store import TaskStore


if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_tasks.runner import Body, Outcome, TaskRun


OWNER = "ada"
POLICIES = {
    "once": Policy(),
    "rerun": Policy(on_worker_loss="rerun", max_attempts=2),
    "resumable": Policy(resumable=True),
}


class Name(BaseModel):
    """An answer."""

    name: str


def bodies(folder: Path) -> dict[str, Body]:
    """Make the tools."""

    def witness(line: str) -> None:
        with (folder / "witness").open("ab", buffering=0) as file:
            file.write(f"{line}\n".encode())

    async def released() -> None:
        while not (folder / "release").exists():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.01)

    async def slow(run: TaskRun) -> Outcome:
        witness(f"start {run.task.attempt} {run.task.idempotency_key}")
        await released()
        return Completed({"attempt": run.task.attempt})

    async def steps(run: TaskRun) -> Outcome:
        async def first() -> str:
            witness("first")
            return "one"

        async def second() -> str:
            witness("second")
            await released()
            return "two"

        return Completed(
            {"value": [await run.task.step("a", first), await run.task.step("b", second)]}
        )

    async def poison(run: TaskRun) -> Outcome:
        witness(f"start {run.task.attempt}")
        os._exit(42)

    async def ask(run: TaskRun) -> Outcome:
        witness("ask")
        answer = await run.task.elicit("who", "Who?", Name)
        return Completed({"name": answer.data.name if answer.data else None})

    return {"slow": slow, "steps": steps, "poison": poison, "ask": ask}


async def main() -> None:
    """Work until told to stop."""
    database, folder = Path(sys.argv[1]), Path(sys.argv[2])
    if "--no-lock" in sys.argv:
        nowhere: Callable[[object], Path] = lambda _: Path(os.devnull) / "none"  # noqa: E731
        worker.lock_folder = nowhere
    async with TaskStore.open(f"sqlite:///{database.as_posix()}") as store:
        runner = Runner(
            store,
            bodies(folder).get,
            config=RunnerConfig(
                beat=0.2, fence=0.5, lease=1.0, scan=0.2, look=0.1, drain=0.1, cancel_grace=1.0
            ),
            worker="--serve-only" not in sys.argv,
        )
        await runner.start()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while line := await asyncio.to_thread(sys.stdin.readline):
            command, *words = line.split()
            if command == "stop":
                break
            call = Call(
                words[0],
                store.encode({}, what="arguments"),
                client_capabilities=Raw(b'{"elicitation":{}}'),
            )
            record = await runner.create(OWNER, call, policy=POLICIES[words[1]])
            sys.stdout.write(f"{record.task_id}\n")
            sys.stdout.flush()
        await runner.stop()


if __name__ == "__main__":
    asyncio.run(main())

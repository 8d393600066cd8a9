"""A process that runs tasks, for tests to kill: `worker.py DATABASE WITNESS OPTIONS`.

OPTIONS is JSON: settings of `RunnerConfig`, `"locks": false` for a process whose lock file tells
others nothing, as on another machine, and `"queue": true` for one that runs only what is delivered
to it. What a body does it writes down in WITNESS, one line at
a time with O_APPEND, so that nothing of it is lost with the process. Each line on stdin creates a
task (`TOOL POLICY`, POLICY being JSON); its id is printed. `run ID` delivers a task; `ran ID` or
`passed ID` is printed when that is done with. SIGTERM stops the process in order.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import msgspec
from pydantic import BaseModel

from mcp_tasks.domain.record import Call, Policy, inline
from mcp_tasks.runner import Completed, Runner, RunnerConfig, worker
from mcp_tasks.storage.sqlite import SqliteBackend
from mcp_tasks.store import TaskStore


if TYPE_CHECKING:
    from mcp_tasks.context import TaskContext
    from mcp_tasks.runner import Body, Outcome, TaskRun


database, witness_path, raw = sys.argv[1:]
options: dict[str, Any] = json.loads(raw)
witness = os.open(witness_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
CAPABILITIES = inline(b'{"elicitation":{}}').inline

if not options.pop("locks", True):
    worker.host_id = lambda: f"machine-{os.getpid()}"


has_queue: bool = options.pop("queue", False)


class Queued(Runner):
    """A runner that looks for nothing by itself: its tasks come from a queue."""

    def submit(self, owner: str, task_id: str) -> None:
        """Leave it to the queue."""

    def claim(self, owner: str, task_id: str, key: str) -> None:
        """Leave it to the queue."""


class Go(BaseModel):
    """What is asked for."""

    go: bool


def note(task: TaskContext, what: str) -> str:
    """Write a line down."""
    os.write(witness, f"{task.task_id} {task.attempt} {what} {os.getpid()}\n".encode())
    return what


async def hang(task: TaskContext) -> None:
    """Never end."""
    await asyncio.Event().wait()


async def quick(task: TaskContext) -> None:
    """End at once."""


async def short(task: TaskContext) -> None:
    """Take a moment, so that deliveries meet it while it runs."""
    await task.step("one", note, task, "step-one")
    await asyncio.sleep(0.02)


async def until_second(task: TaskContext) -> None:
    """End on the second attempt."""
    if task.attempt == 1:
        await asyncio.Event().wait()


async def busy(task: TaskContext) -> None:
    """Write without end on the first attempt."""
    number = 0
    while task.attempt == 1:
        number += 1
        await task.set_variables({"by": task.attempt, "number": number})
        await asyncio.sleep(0.005)
    await task.set_variables({"by": task.attempt})


async def steps(task: TaskContext) -> None:
    """Take two steps, wait on the first attempt, take one more."""
    await task.step("one", note, task, "step-one")
    await task.step("two", note, task, "step-two")
    if task.attempt == 1:
        note(task, "between")
        await asyncio.Event().wait()
    await task.step("three", note, task, "step-three")


async def ask(task: TaskContext) -> None:
    """Ask, after a step."""
    await task.step("before", note, task, "before")
    answer = await task.elicit("go", "Go?", Go)
    note(task, answer.action)


async def block(task: TaskContext) -> None:
    """Keep the loop from doing anything, for longer than a lease."""
    time.sleep(2 * options["lease"])  # noqa: ASYNC251 - on purpose


async def poison(task: TaskContext) -> None:
    """End the process."""
    os._exit(42)


TOOLS = {
    fn.__name__: fn for fn in (hang, quick, short, until_second, busy, steps, ask, block, poison)
}


def find_body(name: str) -> Body | None:
    """Return the body of a tool."""
    fn = TOOLS.get(name)
    if fn is None:
        return None

    async def body(run: TaskRun) -> Outcome:
        note(run.task, "start")
        try:
            await fn(run.task)
        except BaseException:  # cancelled, or refused by the fence
            note(run.task, "stopped")
            raise
        note(run.task, "end")
        return Completed({"attempt": run.task.attempt})

    return body


async def create(runner: Runner, line: str) -> None:
    """Create a task, and print its id once it is durable."""
    tool, _, policy = line.partition(" ")
    call = Call(tool, inline(b"{}"), client_capabilities=CAPABILITIES)
    record = await runner.create("ada", call, policy=msgspec.json.decode(policy, type=Policy))
    print(record.task_id, flush=True)  # noqa: T201 - the test reads it


async def deliver(runner: Runner, task_id: str) -> None:
    """Run a task, as the consumer of a queue does, and say whether it was run here."""
    was_run = await runner.run_task("ada", task_id)
    print("ran" if was_run else "passed", task_id, flush=True)  # noqa: T201


async def main() -> None:
    """Run tasks until SIGTERM."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    backend = SqliteBackend(database)
    kind = Queued if has_queue else Runner
    runner = kind(TaskStore(backend), find_body, config=RunnerConfig(**options))
    await runner.start()
    print("ready", flush=True)  # noqa: T201
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)

    async def read() -> None:
        async with asyncio.TaskGroup() as deliveries:
            while line := await lines.readline():
                text = line.decode().strip()
                if text.startswith("run "):
                    deliveries.create_task(deliver(runner, text[4:]))
                else:
                    await create(runner, text)

    reading = asyncio.create_task(read())
    await ended.wait()
    reading.cancel()
    await runner.stop()
    await backend.close()


asyncio.run(main())

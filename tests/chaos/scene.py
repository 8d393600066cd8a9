"""What a process of the chaos tests stands on: a store, a runner, tools, and two files.

What was acknowledged goes into one file and what bodies did into the other, a line at a time with
O_APPEND, before anything else happens. Both outlive the process, and every line has the time of a
clock that all processes of a machine share. They are the oracle's only source beside the store.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from mcp_tasks.domain.record import Call, Policy, inline
from mcp_tasks.jsonio import to_json
from mcp_tasks.runner import Completed, Runner, RunnerConfig, worker
from mcp_tasks.store import StoreConfig, TaskStore


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mcp_tasks.context import TaskContext
    from mcp_tasks.runner import Body, Outcome, TaskRun


OWNER = "ada"
SHORT: dict[str, Any] = {
    "beat": 0.25,
    "fence": 0.8,
    "lease": 1.5,
    "scan": 0.2,
    "look": 0.05,
    "cancel_grace": 0.5,
    "drain": 0.1,
    "cleanup_every": 0,
}
"""The usual proportions, ten times as fast."""

ONCE = Policy()
RERUN = Policy(on_worker_loss="rerun", max_attempts=6)
POISON = Policy(on_worker_loss="rerun")
FOR_EVER = Policy(on_worker_loss="rerun", max_attempts=10_000)
RESUMABLE = Policy(resumable=True, max_attempts=10_000)
EXTERNAL = Policy(external=True)
STORE = StoreConfig(max_active=15_000, max_active_anonymous=2, settle=3.0)
_CLIENT = inline(b'{"elicitation":{}}').inline


async def until(is_so: Callable[[], Awaitable[bool]], seconds: float) -> bool:
    """Look until something is so, for so long at most; false if it never was."""
    end = time.monotonic() + seconds
    while not await is_so():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.01)
    return True


class Go(BaseModel):
    """What is asked for."""

    by: str


class Log:
    """A file of lines that several processes write at once."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        self._lines: list[dict[str, Any]] = []
        self._offset = 0

    def write(self, **what: Any) -> None:
        """Write one line, which is there whatever becomes of the process."""
        line = {"at": time.monotonic_ns(), "pid": os.getpid(), **what}
        os.write(self._file, json.dumps(line).encode() + b"\n")

    def read(self) -> list[dict[str, Any]]:
        """Return all lines so far."""
        while piece := os.pread(self._file, 1 << 20, self._offset):
            whole = piece[: piece.rfind(b"\n") + 1]
            self._lines += [json.loads(line) for line in whole.splitlines()]
            self._offset += len(whole)
        return list(self._lines)


class Scene:
    """A process's store and runner, and what it writes down.

    Args:
        job: As the fork server was given it: `url`, `namespace`, `acks`, `witness`, and settings of
            the runner under `config`. `locks` is false for a process whose lock tells others
            nothing, as on another machine.
    """

    def __init__(self, job: dict[str, Any]) -> None:
        self.name: str = job["name"]
        self.lacks: str = job.get("lacks", "")  # a tool that this process does not have
        self.pace: float = job.get("pace", 0.05)  # seconds that a body takes at the most
        self.acks = Log(job["acks"])
        self.witness = Log(job["witness"])
        if not job.get("locks", True):
            worker.host_id = lambda: f"machine-{os.getpid()}"
        self.store = TaskStore.open(job["url"], namespace=job["namespace"], config=STORE)
        config = RunnerConfig(**(job["times"] if "times" in job else {**SHORT, **job["config"]}))
        self.runner = Runner(self.store, self.find_body, config=config)

    def say(self, what: str, **more: Any) -> None:
        """Write down what happened, in the file of acknowledgements."""
        self.acks.write(who=self.name, what=what, **more)

    async def heard(self, what: str, who: str, seconds: float) -> dict[str, Any] | None:
        """Wait until somebody has said something, for so long at most."""
        found: list[dict[str, Any]] = []

        async def is_said() -> bool:
            lines = self.acks.read()
            found.extend(line for line in lines if line["what"] == what and line["who"] == who)
            return bool(found)

        return found[0] if await until(is_said, seconds) else None

    # --- requests --------------------------------------------------------------------------------

    async def create(
        self, tool: str, policy: Policy, *, here: bool = True, owner: str = OWNER, **more: Any
    ) -> str:
        """Create a task, claimed by this process or not, and write down that it was promised."""
        arguments = inline(to_json({}, what="arguments", max_bytes=99))
        call = Call(tool, arguments, client_capabilities=_CLIENT)
        creator = self.runner if here else self.store
        record = await creator.create(owner, call, policy=policy, **more)
        kind = "resumable" if policy.resumable else policy.on_worker_loss
        self.say("created", task=record.task_id, tool=tool, policy=kind, owner=owner)
        return record.task_id

    async def answer(self, task_id: str) -> None:
        """Answer a task's question, and write down that the answer was taken."""
        before = await self.store.get(OWNER, task_id)
        keys = [question.key for question in before.questions]
        answers = {key: {"action": "accept", "content": {"by": self.name}} for key in keys}
        record = await self.store.answer(OWNER, task_id, answers)
        taken = [entry.key for entry in record.journal.tail if entry.kind == "answer"]
        self.say("answered", task=task_id, keys=[key for key in keys if key in taken])

    async def cancel(self, task_id: str) -> None:
        """Ask for a task's end, and write down that it was promised."""
        record = await self.store.cancel(OWNER, task_id)
        if record.cancel is not None:  # else it had ended already
            self.say("cancelled", task=task_id)

    async def asked(self, task_id: str, seconds: float = 5.0) -> bool:
        """Wait until a task has a question, or has had one."""

        async def is_so() -> bool:
            record = await self.store.get(OWNER, task_id)
            return record.asked > 0 or record.is_terminal

        return await until(is_so, seconds)

    async def ended(self, task_id: str, seconds: float = 5.0) -> bool:
        """Wait until a task has ended."""

        async def is_so() -> bool:
            return (await self.store.get(OWNER, task_id)).is_terminal

        return await until(is_so, seconds)

    # --- tools -----------------------------------------------------------------------------------

    def find_body(self, tool: str) -> Body | None:
        """Return the body of a tool."""
        act = TOOLS.get(tool)
        if act is None or tool == self.lacks:
            return None

        async def body(run: TaskRun) -> Outcome:
            task = run.task
            self.note(task, "start")
            try:
                await task.set_variables({"by": task.attempt})
                said = await act(self, task)
            except BaseException:  # cancelled, or refused by the fence
                self.note(task, "stopped")
                raise
            self.note(task, "end")
            return Completed({"attempt": task.attempt, **said})

        return body

    def note(self, task: TaskContext, what: str, **more: Any) -> None:
        """Write down what a body does."""
        self.witness.write(task=task.task_id, attempt=task.attempt, what=what, **more)


async def _quick(scene: Scene, task: TaskContext) -> dict[str, Any]:
    """End at once."""
    return {}


async def _work(scene: Scene, task: TaskContext) -> dict[str, Any]:
    """Take a moment."""
    await asyncio.sleep(random.uniform(0, scene.pace))  # noqa: S311
    return {}


async def _writes(scene: Scene, task: TaskContext) -> dict[str, Any]:
    """Write again and again on the first attempt; on later ones write nothing, and go on."""
    number = 0
    while task.attempt == 1:
        number += 1
        await task.set_variables({"by": 1, "number": number})
        await asyncio.sleep(0.002)
    scene.note(task, "holds")
    await asyncio.Event().wait()
    return {}


async def _poison(scene: Scene, task: TaskContext) -> dict[str, Any]:
    """End the process."""
    os._exit(42)


async def _hold(scene: Scene, task: TaskContext) -> dict[str, Any]:
    """Wait for ever on the first attempt."""
    if task.attempt == 1:
        await asyncio.Event().wait()
    return {}


async def _asks(scene: Scene, task: TaskContext) -> dict[str, Any]:
    """Ask once."""
    answer = await task.elicit("go", "Go?", Go)
    return {"answer": answer.data.by if answer.data is not None else answer.action}


async def _steps(scene: Scene, task: TaskContext) -> dict[str, Any]:
    """Take three steps, whose values say which attempt made them."""

    async def run(name: str) -> str:
        scene.note(task, "ran", step=name)
        return f"{name} of attempt {task.attempt}"

    values: list[str] = []
    for name in ("one", "two", "three"):
        await asyncio.sleep(random.uniform(0, scene.pace / 3))  # noqa: S311
        values.append(await task.step(name, run, name))
        scene.note(task, "got", step=name, value=values[-1])
    return {"values": values}


TOOLS: dict[str, Callable[[Scene, TaskContext], Awaitable[dict[str, Any]]]] = {
    "quick": _quick,
    "work": _work,
    "writes": _writes,
    "poison": _poison,
    "hold": _hold,
    "asks": _asks,
    "steps": _steps,
}

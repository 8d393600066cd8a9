"""Tools that only start work: the task goes on without a worker, and others finish it."""

# ruff: noqa: TC001 - what tools are annotated with is read at run time

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

from mcp_tasks import (
    ConfigurationError,
    RunnerConfig,
    TaskContext,
    Tasks,
    TaskStore,
    TaskTerminalError,
)
from mcp_tasks.storage.memory import MemoryBackend


if TYPE_CHECKING:
    from .conftest import Serve, Wire


RESULT = {"resultType": "complete", "content": [{"type": "text", "text": "elsewhere"}]}


class Farm:
    """A server, the store that another program has, and what was handed over to it."""

    def __init__(self, store: TaskStore | None = None) -> None:
        self.server: MCPServer[Any] = MCPServer("farm", log_level="CRITICAL")
        self.store = store or TaskStore(MemoryBackend(), namespace="farm")
        self.jobs: list[tuple[str, str]] = []
        self.tasks = Tasks.install(
            self.server, self.store, signals=False, runner_config=RunnerConfig(drain=0.5)
        )

    async def handed_out(self, wire: Wire, task_id: str) -> None:
        """Wait until nobody here has the task any more, and it is as the client sees it."""
        await self.started()
        with anyio.fail_after(10):
            while True:
                if (await self.store.get(*self.job)).worker is None:
                    break
                await anyio.sleep(0.005)
        assert self.job[1] == task_id
        assert (await wire.get(task_id)).result["status"] == "working"

    async def started(self) -> None:
        """Wait until the tool handed a job over."""
        with anyio.fail_after(10):
            while True:
                if self.jobs:
                    return
                await anyio.sleep(0.005)

    @property
    def job(self) -> tuple[str, str]:
        """The owner and the id that were handed over."""
        return self.jobs[0]


@pytest.fixture
def farm() -> Farm:
    """Make one with a tool that starts work."""
    farm = Farm()

    @farm.tasks.tool(external=True)
    async def render(task: TaskContext) -> None:
        farm.jobs.append((task.owner, task.task_id))

    return farm


async def test_a_task_goes_on_without_a_worker_until_others_finish_it(
    farm: Farm, serve: Serve
) -> None:
    """Nobody here takes it again, and its result is what they give."""
    async with serve(farm.server) as wire:
        task_id = await wire.create("render")
        await farm.handed_out(wire, task_id)
        await farm.store.progress(*farm.job, 1, 2)
        await anyio.sleep(0.1)
        assert len(farm.jobs) == 1

        await farm.store.complete_with_result(*farm.job, RESULT)
        done = (await wire.get(task_id)).result

    assert (done["status"], done["result"]) == ("completed", RESULT)
    with pytest.raises(TaskTerminalError):
        await farm.store.complete_with_result(*farm.job, {"content": []})


async def test_it_is_left_alone_when_the_server_stops_and_starts(farm: Farm, serve: Serve) -> None:
    """It belongs to no process: neither a drain nor a start touches it."""
    async with serve(farm.server) as wire:
        task_id = await wire.create("render")
        await farm.handed_out(wire, task_id)
    before = await farm.store.get(*farm.job)

    async with serve(Farm(farm.store).server):
        await anyio.sleep(0.2)
        assert await farm.store.get(*farm.job) == before


async def test_others_may_ask_and_be_answered(farm: Farm, serve: Serve) -> None:
    """An answer does not make a worker take the task."""
    async with serve(farm.server) as wire:
        task_id = await wire.create("render")
        await farm.handed_out(wire, task_id)
        params = {"mode": "form", "message": "?", "requestedSchema": {"type": "object"}}
        await farm.store.ask(*farm.job, "q", "elicitation/create", params)
        assert (await wire.get(task_id)).result["status"] == "input_required"

        await wire.answer(task_id, {"q": {"action": "accept", "content": {}}})
        await farm.handed_out(wire, task_id)
        await anyio.sleep(0.1)

    assert len(farm.jobs) == 1
    assert (await farm.store.get(*farm.job)).attempt == 1


async def test_a_cancel_ends_it_at_once(farm: Farm, serve: Serve) -> None:
    """There is nobody to ask; whoever does the work is refused when it comes to finish."""
    async with serve(farm.server) as wire:
        task_id = await wire.create("render")
        await farm.handed_out(wire, task_id)

        await wire.cancel(task_id)

        assert (await wire.get(task_id)).result["status"] == "cancelled"
    assert (await farm.store.progress(*farm.job, 1)).is_terminal
    with pytest.raises(TaskTerminalError):
        await farm.store.fail(*farm.job, -32603, "too late")


@pytest.mark.parametrize("how", ["finished", "cancelled"])
async def test_an_end_while_the_tool_still_starts_it_stands(
    farm: Farm, serve: Serve, how: str
) -> None:
    """A queue may be faster than the tool that filled it; a person too."""
    gate = anyio.Event()

    @farm.tasks.tool(external=True)
    async def slow(task: TaskContext) -> None:
        farm.jobs.append((task.owner, task.task_id))
        with anyio.CancelScope(shield=True):
            await gate.wait()

    async with serve(farm.server) as wire:
        task_id = await wire.create("slow")
        await farm.started()
        if how == "finished":
            await farm.store.complete_with_result(*farm.job, RESULT)
        else:
            await wire.cancel(task_id)
        gate.set()
        done = await wire.outcome(task_id)
        await anyio.sleep(0.05)

        assert (await wire.get(task_id)).result == done
    assert done["status"] == ("completed" if how == "finished" else "cancelled")


async def test_a_tool_that_fails_to_start_it_ends_it(farm: Farm, serve: Serve) -> None:
    """With the tool's own error, as without `external`."""

    @farm.tasks.tool(external=True)
    async def broken(task: TaskContext) -> None:
        del task
        raise ToolError("the farm is closed")

    async with serve(farm.server) as wire:
        done = await wire.outcome(await wire.create("broken"))

    assert done["status"] == "completed"
    assert done["result"]["isError"] is True
    assert "the farm is closed" in done["result"]["content"][0]["text"]


async def test_a_client_without_tasks_is_refused(farm: Farm, serve: Serve) -> None:
    """There would be nothing to give it."""
    async with serve(farm.server) as wire:
        assert (await wire.undeclared().call("render")).error["code"] == -32021
    assert not farm.jobs


async def test_nobody_finishes_it_in_its_time(serve: Serve) -> None:
    """Then it fails, and says so."""
    farm = Farm()

    @farm.tasks.tool(external=True, ttl=timedelta(milliseconds=300))
    async def render(task: TaskContext) -> None:
        farm.jobs.append((task.owner, task.task_id))

    async with serve(farm.server) as wire:
        task_id = await wire.create("render")
        done = await wire.until(task_id, "failed")

    assert done["error"]["data"]["reason"] == "expired"


def test_a_tool_that_only_starts_work_has_nothing_to_resume(farm: Farm) -> None:
    """The error says what to do instead."""
    with pytest.raises(ConfigurationError, match="on_worker_loss='rerun'"):
        farm.tasks.tool(external=True, resumable=True)(_render)


async def _render(task: TaskContext) -> None:
    del task

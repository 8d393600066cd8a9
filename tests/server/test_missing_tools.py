"""Tools that come and go between deploys: tasks outlive them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from mcp.server.mcpserver import MCPServer

from mcp_tasks import RunnerConfig, Tasks, TaskStore
from mcp_tasks.storage.memory import MemoryBackend


if TYPE_CHECKING:
    from .conftest import Serve


@pytest.fixture
def store() -> TaskStore:
    """What both deploys share."""
    return TaskStore(MemoryBackend(), namespace="app")


def deploy(
    store: TaskStore, tool: str, *, worker: bool = True, ttl: timedelta | None = None
) -> MCPServer[Any]:
    """Make a server with one tool, of this name."""
    server: MCPServer[Any] = MCPServer("app", log_level="CRITICAL")
    config = RunnerConfig(drain=0.2, look=0.05)
    tasks = Tasks.install(server, store, worker=worker, signals=False, runner_config=config)

    @tasks.tool(tool, ttl=ttl)
    async def work() -> str:
        return tool

    return server


async def test_a_result_stays_readable_when_its_tool_is_renamed(
    store: TaskStore, serve: Serve
) -> None:
    """It is in the record; no tool is asked for it."""
    async with serve(deploy(store, "old")) as wire:
        task_id = await wire.create("old")
        done = await wire.outcome(task_id)

    async with serve(deploy(store, "new")) as wire:
        assert (await wire.get(task_id)).result == done
    assert done["result"]["structuredContent"] == {"result": "old"}


async def test_a_task_waits_for_a_deploy_that_has_its_tool(store: TaskStore, serve: Serve) -> None:
    """A worker without it passes it by, and one with it takes it."""
    async with serve(deploy(store, "old", worker=False)) as wire:
        task_id = await wire.create("old")
        async with serve(deploy(store, "new")):
            await anyio.sleep(0.3)
            assert (await wire.get(task_id)).result["status"] == "working"

        async with serve(deploy(store, "old")):
            assert (await wire.outcome(task_id))["status"] == "completed"


async def test_a_task_whose_tool_never_comes_fails_in_its_time_and_says_why(
    store: TaskStore, serve: Serve
) -> None:
    """The operator reads what is missing."""
    brief = timedelta(milliseconds=400)
    async with serve(deploy(store, "old", worker=False, ttl=brief)) as wire:
        task_id = await wire.create("old")
        async with serve(deploy(store, "new")):
            error = (await wire.until(task_id, "failed"))["error"]

    assert error["data"] == {"reason": "expired", "attempt": 0, "mayHaveRun": False}
    assert "no worker began it: is there one that has the tool 'old'?" in error["message"]

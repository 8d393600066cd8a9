"""`timeout=` of a tool, as a client sees it."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from mcp.server.mcpserver import MCPServer

from mcp_tasks import ConfigurationError, Tasks
from mcp_tasks.storage.memory import MemoryBackend

from .shop import Shop


if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Serve, Stage


TEXT = "the tool was stopped: it may run for 0.2 s, and had not ended by then"


@pytest.mark.parametrize(
    "timeout", [0, -1, 0.0, float("inf"), float("nan"), True, "10", timedelta(seconds=10)]
)
def test_what_is_no_number_of_seconds_is_refused(stage: Stage, timeout: Any) -> None:
    """At registration, before the first call waits for ever, or for no time at all."""
    for register in (stage.tasks.tool, stage.tasks.task):
        with pytest.raises(ConfigurationError, match="is not a number of seconds above 0"):
            register(timeout=timeout)(lambda: None)


async def test_a_task_whose_tool_takes_too_long_fails_and_says_why(
    stage: Stage, serve: Serve
) -> None:
    """However the tool was declared."""

    async def added() -> None:
        await anyio.sleep_forever()

    @stage.tasks.tool(timeout=0.2)
    async def declared() -> None:
        await anyio.sleep_forever()

    @stage.server.tool()
    @stage.tasks.task(timeout=0.2)
    async def decorated() -> None:
        await anyio.sleep_forever()

    stage.tasks.add_tool(added, timeout=0.2)
    async with serve(stage.server) as wire:
        for tool in ("added", "declared", "decorated"):
            task = await wire.outcome(await wire.create(tool))
            assert (task["status"], task["statusMessage"]) == ("failed", TEXT)
            assert task["error"] == {
                "code": -32603,
                "message": TEXT,
                "data": {"reason": "timed_out", "timeout": 0.2, "attempt": 1, "mayHaveRun": True},
            }


async def test_a_plain_function_is_left_in_its_thread(stage: Stage, serve: Serve) -> None:
    """The task has ended; what the function does then is nobody's business."""
    began, gate, ended = threading.Event(), threading.Event(), threading.Event()

    @stage.tasks.tool(timeout=1)
    def blocking() -> str:
        began.set()
        gate.wait(10)
        ended.set()
        return "late"

    async with serve(stage.server) as wire:
        task_id = await wire.create("blocking")
        task = await wire.outcome(task_id)
        assert began.is_set()
        gate.set()
        assert await asyncio.to_thread(ended.wait, 5)
        assert (await wire.get(task_id)).result == task

    assert task["error"]["data"]["reason"] == "timed_out"


async def test_it_holds_for_calls_without_a_task(stage: Stage, serve: Serve) -> None:
    """The client waits for the answer then, and gets the same one."""
    gate = threading.Event()

    @stage.tasks.tool(timeout=0.2)
    async def slow() -> None:
        await anyio.sleep_forever()

    @stage.tasks.tool(timeout=0.2)
    def blocking() -> None:
        gate.wait(10)

    @stage.tasks.tool(timeout=0.2)
    async def impatient() -> None:
        raise TimeoutError("its own")

    @stage.tasks.tool(timeout=5)
    async def quick() -> str:
        return "quick"

    async with serve(stage.server) as wire:
        plain = wire.undeclared()
        with anyio.fail_after(5):
            for tool in ("slow", "blocking"):
                error = (await plain.call(tool)).error
                assert (error["code"], error["message"]) == (-32603, TEXT)
                assert error["data"] == {"reason": "timed_out", "timeout": 0.2, "mayHaveRun": True}
            gate.set()
            assert (await plain.call("impatient")).result["isError"] is True
            assert (await plain.call("quick")).result["content"][0]["text"] == "quick"


@pytest.mark.parametrize(("made", "run", "status"), [(0.2, 60, "failed"), (60, 0.2, "completed")])
async def test_a_task_has_the_time_that_its_tool_had_when_it_was_made(
    serve: Serve, made: float, run: float, status: str
) -> None:
    """The record says it, so workers of the release before and after agree."""
    backend = MemoryBackend()

    def server(timeout: float, *, worker: bool) -> MCPServer[Any]:
        mcp: MCPServer[Any] = MCPServer("times", log_level="ERROR")

        @Tasks.install(mcp, backend, worker=worker, signals=False).tool(timeout=timeout)
        async def work() -> None:
            await anyio.sleep(0.5)

        _ = work
        return mcp

    async with serve(server(made, worker=False)) as wire:
        task_id = await wire.create("work")
    async with serve(server(run, worker=True)) as wire:
        assert (await wire.outcome(task_id))["status"] == status


async def test_a_run_after_a_killed_one_has_all_the_time_again(tmp_path: Path) -> None:
    """1.2 s of 2 went with the first process; the second run takes 1.5 s, and a third too long."""
    shop = Shop(tmp_path)
    async with shop.server() as one:
        good = await one.call("bake", {"seconds": 1.5})
        late = await one.call("bake", {"seconds": 30})
        await anyio.sleep(1.2)
    async with shop.server() as two:
        baked = await two.outcome(good.result["taskId"])
        burnt = await two.outcome(late.result["taskId"])

    assert baked["result"]["structuredContent"] == {"result": 2}
    assert burnt["error"]["data"] == {
        "reason": "timed_out",
        "timeout": 2.0,
        "attempt": 2,
        "mayHaveRun": True,
    }
    assert sorted(shop.orders) == [1, 1, 2, 2]

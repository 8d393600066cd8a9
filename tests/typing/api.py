"""What type checkers see of the public surface. Checked by pyright in strict mode, never run.

`assert_type` holds what an editor shows; a line with `pyright: ignore` must be an error, for strict
mode reports an ignore that is not needed.
"""

# ruff: noqa: D101, D103, TC001, TC002, TC003 - the code is the statement, read as a user writes it

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, assert_type

from mcp.server.lowlevel import Server
from mcp.server.mcpserver import Context, MCPServer
from pydantic import BaseModel

from mcp_tasks import (
    Answer,
    Retry,
    SyncTaskContext,
    TaskContext,
    TaskRecord,
    Tasks,
    TaskStore,
    open_backend,
)


class Confirm(BaseModel):
    sure: bool


async def fetch(url: str, tries: int) -> bytes:
    return url.encode() * tries


def parse(data: bytes) -> dict[str, int]:
    return {data.decode(): 1}


mcp = MCPServer("typing")
tasks = Tasks.install(mcp, store="sqlite:///tasks.db", namespace="typing", worker=False)
assert_type(tasks, Tasks)


@tasks.tool(
    "named",
    title="Title",
    meta={"a": 1},
    required=True,
    ttl=timedelta(hours=1),
    poll_interval=timedelta(seconds=1),
    resumable=True,
    on_worker_loss="rerun",
    max_attempts=2,
    timeout=90,
)
async def tool(folder: str, task: TaskContext) -> int:
    data = assert_type(await task.step("fetch", fetch, folder, 2), bytes)
    parsed = assert_type(
        await task.step("parse", parse, data, retry=Retry(attempts=2)), dict[str, int]
    )
    answer = assert_type(await task.elicit("sure", "Sure?", Confirm), Answer[Confirm])
    if answer.data is not None:
        assert_type(answer.data.sure, bool)
    await task.progress(1, total=2, message="half")
    assert_type(await task.set_variables({"stage": 1}), dict[str, Any])
    assert_type(await task.get_variable("stage", int), int | None)
    assert_type(task.attempt, int)
    await task.step("fetch", fetch, 7, 2)  # pyright: ignore[reportCallIssue, reportArgumentType]
    await task.step("fetch", fetch, folder)  # pyright: ignore[reportCallIssue, reportArgumentType]
    return len(parsed)


# The function is what it was.
unchanged: Callable[[str, TaskContext], Coroutine[Any, Any, int]] = tool


@tasks.tool()
def blocking(n: int, task: SyncTaskContext) -> str:
    data = assert_type(task.step("parse", parse, b"x"), dict[str, int])
    assert_type(task.elicit("sure", "Sure?", Confirm), Answer[Confirm])
    return f"{data} {n}"


@mcp.tool()
@tasks.task(resumable=True)
async def stacked(n: int, task: TaskContext, ctx: Context) -> str:
    return f"{n} {task.task_id} {ctx.request_id}"


@mcp.tool()
@tasks.task()
def stacked_blocking(n: int) -> str:
    return str(n)


# Under a decorator of the SDK's the wrapper is a coroutine function, whatever the function was.
wrapped: Callable[[int, TaskContext, Context], Coroutine[Any, Any, str]] = stacked
wrapped_blocking: Callable[[int], Coroutine[Any, Any, str]] = stacked_blocking

tasks.add_tool(parse, "parse", description="Parse", structured_output=False)
tasks.tool(on_worker_loss="sometimes")  # pyright: ignore[reportArgumentType]


class State:
    number: int = 1


@asynccontextmanager
async def state(_: MCPServer[State]) -> AsyncGenerator[State]:
    yield State()


@asynccontextmanager
async def around(task: TaskContext) -> AsyncGenerator[None]:
    assert_type(task.idempotency_key, str)
    yield


public = Tasks(
    around_run=around, owner_of=lambda ctx: ctx.request and ctx.request.headers.get("x-tenant")
)
server = MCPServer[State](
    "public",
    extensions=[public],
    middleware=[public.middleware],
    lifespan=public.lifespan(state),
)
plain = MCPServer("plain", extensions=[public], lifespan=public.lifespan())
Tasks.install(Server("low"), store=open_backend("memory://"))


async def from_outside(store: TaskStore) -> None:
    task = assert_type(await store.get("local", "id"), TaskRecord)
    assert_type(task.is_terminal, bool)

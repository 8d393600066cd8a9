"""Several server processes over one database, on every backend that several can share."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import anyio
import httpx
import pytest

from mcp_tasks.domain.record import Call
from mcp_tasks.storage.base import Initializable
from mcp_tasks.storage.urls import open_backend
from mcp_tasks.store import TaskStore
from mcp_tasks.testing.servers import NAMES, free_port, server_named

from .conftest import Wire


if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator


SCRIPT = Path(__file__).with_name("fleet_server.py")
FORM = {"action": "accept", "content": {"name": "Ada"}}


@pytest.fixture(scope="module", params=["sqlite", *NAMES])
def store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Give the URL of a store that processes can share, with nothing in it."""
    if request.param == "sqlite":
        file = tmp_path_factory.mktemp("fleet") / "tasks.db"
        yield f"sqlite:///{file.as_posix()}"
        return
    with server_named(request.param) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        anyio.run(_set_up, server.url)
        yield server.url


async def _set_up(url: str) -> None:
    backend = open_backend(url)
    if isinstance(backend, Initializable):
        await backend.initialize()
    await backend.close()


class Member(NamedTuple):
    """One process."""

    process: subprocess.Popen[bytes]
    wire: Wire


@pytest.fixture
async def start(store: str) -> AsyncIterator[Callable[[str], Awaitable[Member]]]:
    """Give what starts one more process of an application."""
    async with AsyncExitStack() as stack:

        async def start(namespace: str) -> Member:
            return await stack.enter_async_context(_running(store, namespace))

        yield start


@asynccontextmanager
async def _running(store: str, namespace: str) -> AsyncGenerator[Member]:
    port = free_port()
    process = subprocess.Popen(  # noqa: ASYNC220 - returns at once
        [sys.executable, str(SCRIPT), str(port), namespace],
        env={**os.environ, "MCP_TASKS_STORE": store},
        cwd=SCRIPT.parent,
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as http:
            with anyio.fail_after(30):
                while True:
                    try:
                        await http.post("/", json={})
                    except httpx.TransportError:
                        assert process.poll() is None, "it did not start"
                        await anyio.sleep(0.05)
                    else:
                        break
            yield Member(process, Wire(http))
    finally:
        process.kill()
        process.wait()


async def test_a_task_is_served_by_every_process(
    store: str, start: Callable[[str], Awaitable[Member]]
) -> None:
    """Made on one; polled, answered and cancelled on another."""
    one, two = await start(f"shared-{id(start)}"), await start(f"shared-{id(start)}")

    task_id = await one.wire.create("where")
    mine = (await two.wire.outcome(task_id))["result"]["structuredContent"]["result"]
    assert mine.endswith(str(one.process.pid))

    task_id = await one.wire.create("asking")
    asked = await two.wire.until(task_id, "input_required")
    (key,) = asked["inputRequests"]
    await two.wire.answer(task_id, {key: FORM})
    done = await one.wire.outcome(task_id)
    assert done["result"]["structuredContent"]["result"].startswith("Ada at shared-")

    task_id = await one.wire.create("forever")
    await two.wire.cancel(task_id)
    assert (await two.wire.outcome(task_id))["status"] == "cancelled"


async def test_an_idempotency_key_is_one_task_on_all_processes(
    start: Callable[[str], Awaitable[Member]],
) -> None:
    """Called at once, and again when the task is done."""
    namespace = f"once-{id(start)}"
    members = [await start(namespace), await start(namespace)] * 2
    for number in range(10):
        key = f"{number} of {namespace}".replace(" ", "-").ljust(40, ".")
        found: set[str] = set()

        async def call(wire: Wire, key: str = key, found: set[str] = found) -> None:
            made = await wire.call("where", _meta={"mcp-tasks/idempotencyKey": key})
            found.add(made.result["taskId"])

        async with anyio.create_task_group() as group:
            for member in members:
                group.start_soon(call, member.wire)
        (task_id,) = found
        await members[0].wire.outcome(task_id)
        await call(members[1].wire)
        assert found == {task_id}


async def test_everything_of_an_owner_is_removed_beside_servers(
    store: str, start: Callable[[str], Awaitable[Member]]
) -> None:
    """Running tasks are cancelled first; the servers go on, with room for new tasks."""
    namespace = f"purged-{id(start)}"
    one, two = await start(namespace), await start(namespace)
    key = {"mcp-tasks/idempotencyKey": "k" * 40}
    keyed = (await one.wire.call("where", _meta=key)).result["taskId"]
    await one.wire.outcome(keyed)
    for member in (one, two, one):
        await member.wire.create("forever")
    assert (await two.wire.call("forever")).error["code"] == -32603  # three are the limit

    async with TaskStore.open(store, namespace=namespace) as operator:
        purged = await operator.purge_owner("anonymous", cancel=True)
        for prefix in (
            operator.keys.values("anonymous"),
            operator.keys.rosters("anonymous"),
            operator.keys.uses("anonymous"),
            operator.keys.readies(),
        ):
            assert (await operator.backend.list_by_prefix(prefix)).records == []
        assert (await operator.list("anonymous")).tasks == []

    assert (purged.tasks, purged.keys, purged.unended, purged.left) == (4, 1, 0, 0)
    assert (await one.wire.get(keyed)).error["code"] == -32602
    again = (await two.wire.call("where", _meta=key)).result["taskId"]
    assert again != keyed
    assert (await one.wire.outcome(again))["status"] == "completed"
    for member in (one, two, one):
        await member.wire.create("forever")


async def test_another_process_goes_on_with_the_tasks_of_a_dead_one(
    start: Callable[[str], Awaitable[Member]],
) -> None:
    """Killed without warning; the task keeps its id."""
    namespace = f"dead-{id(start)}"
    one, two = await start(namespace), await start(namespace)
    task_id = await one.wire.create("resumed")
    one.process.kill()

    done = await two.wire.outcome(task_id)

    assert done["result"]["structuredContent"]["result"] == f"{namespace} attempt 2"


async def test_applications_in_one_database_leave_one_another_alone(
    store: str, start: Callable[[str], Awaitable[Member]]
) -> None:
    """Tools have the same names; neither sees, runs, counts or cleans up the other's tasks."""
    a_name, b_name = f"a-{id(start)}", f"b-{id(start)}"
    a, b = await start(a_name), await start(b_name)
    left_behind = await a.wire.create("resumed")
    done = await a.wire.create("where")
    await a.wire.outcome(done)

    # Not seen, and not to be cancelled.
    assert (await b.wire.get(left_behind)).error["code"] == -32602
    assert (await b.wire.cancel(left_behind)).error["code"] == -32602
    # Not counted: three may be active in each.
    for _ in range(2):
        await a.wire.create("forever")
    assert (await a.wire.call("forever")).error["code"] == -32603
    for _ in range(3):
        await b.wire.create("forever")
    # Not run: its process is dead for longer than a lease, and the other has a tool of that name.
    a.process.kill()
    await anyio.sleep(4)
    async with TaskStore.open(store, namespace=a_name) as mine:
        assert (await mine.get("anonymous", left_behind)).attempt == 1
        # Not cleaned up, whoever cleans.
        async with TaskStore.open(store, namespace=b_name) as theirs:
            await theirs.cleanup_expired()
            assert len((await theirs.list("anonymous")).tasks) == 3
        assert len((await mine.list("anonymous")).tasks) == 4
    again = await start(a_name)
    result = (await again.wire.outcome(left_behind))["result"]
    assert result["structuredContent"]["result"] == f"{a_name} attempt 2"


async def test_4_mib_in_and_out_are_whole_on_every_backend(store: str) -> None:
    """And a poll while it runs costs what any poll costs: one small record is read."""
    text = "x" * (4 * 2**20 - 100)
    async with TaskStore.open(store, namespace="large") as mine:
        call = Call(tool="build", arguments=mine.encode({"text": text}, what="arguments"))
        task = await mine.create("ada", call)
        head = await mine.backend.get(mine.keys.task("ada", task.task_id))
        assert len(head.data) < 2048
        assert await mine.load(task, task.call.arguments) == {"text": text}
        await mine.complete_with_result("ada", task.task_id, {"text": text})

    async with TaskStore.open(store, namespace="large") as again:
        found = await again.get("ada", task.task_id)
        assert await again.load(found, found.result) == {"text": text}

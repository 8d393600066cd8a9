"""`tasks/get`, `tasks/update` and `tasks/cancel`: what they answer, and what they refuse."""

# ruff: noqa: TC001 - what tools are annotated with is read at run time

from __future__ import annotations

import base64
import json
import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from mcp.server.mcpserver import MCPServer

from mcp_tasks import TaskContext, Tasks, TaskStore
from mcp_tasks.storage.memory import MemoryBackend


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mcp_tasks.storage.base import StoredRecord

    from .conftest import Reply, Serve, Stage, Wire

EXTENSION = "io.modelcontextprotocol/tasks"
METHODS = ("tasks/get", "tasks/update", "tasks/cancel")
UNKNOWN = "0" * 36


async def send(wire: Wire, method: str, task_id: Any, name: str | None = None) -> Reply:
    """Send a request about a task."""
    params: dict[str, Any] = {"taskId": task_id}
    if method == "tasks/update":
        params["inputResponses"] = {}
    return await wire.post(method, params, name)


@pytest.mark.requirement("T-033")
@pytest.mark.requirement("T-020")
async def test_a_task_is_seen_through_its_life(stage: Stage, serve: Serve) -> None:
    """It starts as working and ends once."""
    gate = anyio.Event()

    @stage.tasks.tool()
    async def wait(task: TaskContext) -> str:
        await task.progress(1, 2, "half way")
        await gate.wait()
        return "done"

    async with serve(stage.server) as wire:
        task_id = await wire.create("wait")
        with anyio.fail_after(5):
            while (seen := (await wire.get(task_id)).result).get("statusMessage") is None:
                pass
        assert (seen["status"], seen["statusMessage"]) == ("working", "half way")
        gate.set()
        assert (await wire.outcome(task_id))["result"]["content"][0]["text"] == "done"


@pytest.mark.requirement("T-041")
async def test_the_outcome_never_changes(stage: Stage, serve: Serve) -> None:
    """Reading is only reading, and a terminal task is the same bytes every time."""

    @stage.tasks.tool()
    async def count() -> int:
        return 1

    async with serve(stage.server) as wire:
        task_id = await wire.create("count")
        await wire.outcome(task_id)
        first = await wire.get(task_id)
        await wire.cancel(task_id)
        await wire.answer(task_id, {"key": 1})

        assert (await wire.get(task_id)).body == first.body


@pytest.mark.requirement("C-003")
@pytest.mark.requirement("T-069")
@pytest.mark.requirement("T-079")
@pytest.mark.parametrize("method", METHODS)
async def test_the_gate_comes_before_the_look_up(stage: Stage, serve: Serve, method: str) -> None:
    """Without the extension a caller does not even learn which ids exist."""

    @stage.tasks.tool()
    async def ping() -> None:
        """Do nothing."""

    async with serve(stage.server) as wire:
        known = await wire.create("ping")
        undeclared = wire.undeclared()
        replies = [await send(undeclared, method, task, task) for task in (known, UNKNOWN)]
        # A header that is wrong too does not change which refusal it is.
        replies.append(await send(undeclared, method, UNKNOWN, "other"))
        listen = {"notifications": {"taskIds": [known]}}
        replies.append(await undeclared.post("subscriptions/listen", listen))

    for reply in replies:
        assert (reply.status, reply.error["code"]) == (400, -32021)
        assert reply.error["data"] == {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}


@pytest.mark.requirement("T-079")
@pytest.mark.parametrize("responses", [None, 5, ["x"], "absent"])
async def test_the_gate_comes_before_the_answers_too(
    stage: Stage, serve: Serve, responses: Any
) -> None:
    """What is wrong first is that the client does not declare the extension."""
    params: dict[str, Any] = {"taskId": UNKNOWN}
    if responses != "absent":
        params["inputResponses"] = responses

    async with serve(stage.server) as wire:
        undeclared = await wire.undeclared().post("tasks/update", params, UNKNOWN)
        declared = await wire.post("tasks/update", params, UNKNOWN)

    assert undeclared.error["code"] == -32021
    assert declared.error == {
        "code": -32602,
        "message": "params.inputResponses is missing or is no object; nothing was answered",
    }


@pytest.mark.requirement("T-076")
@pytest.mark.requirement("T-077")
@pytest.mark.requirement("T-054")
@pytest.mark.requirement("T-061")
@pytest.mark.requirement("T-080")
@pytest.mark.parametrize("method", METHODS)
async def test_unknown_and_malformed_ids_are_refused_in_the_same_bytes(
    stage: Stage, serve: Serve, method: str
) -> None:
    """Nothing in the answer tells one kind from another."""
    ids = [UNKNOWN, "nope", "a:b", "../" * 20, "x" * 10_000, "Z" * 36, "\u00fc"]

    async with serve(stage.server) as wire:
        replies = [await send(wire, method, task, _header(task)) for task in ids]

    assert {(reply.status, reply.body) for reply in replies} == {(400, replies[0].body)}
    assert replies[0].error == {"code": -32602, "message": "task not found"}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("task_id", [7, None, ["x"], {"a": 1}, True])
async def test_an_id_that_is_no_string_is_refused(
    stage: Stage, serve: Serve, method: str, task_id: Any
) -> None:
    """On HTTP no header can match it, so the mismatch is what is reported."""
    async with serve(stage.server) as wire:
        reply = await send(wire, method, task_id, "x")

    assert (reply.status, reply.error["code"]) == (400, -32020)


@pytest.mark.requirement("T-073")
@pytest.mark.requirement("C-001")
@pytest.mark.requirement("C-002")
@pytest.mark.parametrize("method", METHODS)
async def test_the_name_header_must_be_the_id(stage: Stage, serve: Serve, method: str) -> None:
    """A router that sends by the header and a server that reads the body must not differ."""

    @stage.tasks.tool()
    async def ping() -> None:
        """Do nothing."""

    async with serve(stage.server) as wire:
        task = await wire.create("ping")
        for wrong in (None, UNKNOWN, task.upper(), f"=?base64?{'!' * 8}?="):
            reply = await send(wire, method, task, wrong)
            assert (reply.status, reply.error["code"]) == (400, -32020), wrong
        encoded = base64.b64encode(task.encode()).decode()
        for right in (task, f"  {task}\t", f"=?base64?{encoded}?="):
            assert (await send(wire, method, task, right)).result["resultType"] == "complete"


@pytest.mark.requirement("T-074")
async def test_the_method_header_must_be_the_method(stage: Stage, serve: Serve) -> None:
    """The SDK's own check holds for our methods too."""
    async with serve(stage.server) as wire:
        reply = await wire.post("tasks/get", {"taskId": "x"}, "x", Mcp_Method="tools/call")

    assert (reply.status, reply.error["code"]) == (400, -32020)


@pytest.mark.requirement("C-004")
@pytest.mark.requirement("T-013")
@pytest.mark.requirement("T-052")
@pytest.mark.requirement("T-058")
@pytest.mark.requirement("T-060")
@pytest.mark.requirement("T-065")
async def test_acknowledgements_are_empty(stage: Stage, serve: Serve) -> None:
    """No task, no status: what follows is seen by polling."""

    @stage.tasks.tool()
    async def wait() -> None:
        await anyio.sleep_forever()

    async with serve(stage.server) as wire:
        task_id = await wire.create("wait")
        for reply in (
            await wire.answer(task_id, {"never": "asked"}),
            await wire.cancel(task_id),
            await wire.cancel(task_id),
        ):
            assert set(reply.result) == {"resultType", "_meta"}
            assert reply.result["resultType"] == "complete"
        await wire.outcome(task_id)
        assert set((await wire.cancel(task_id)).result) == {"resultType", "_meta"}


@pytest.mark.requirement("T-063")
@pytest.mark.requirement("T-038")
async def test_cancelling_stops_the_tool_and_ends_the_task(stage: Stage, serve: Serve) -> None:
    """The tool can clean up; the task is then cancelled and has no result."""
    cleaned: list[str] = []
    started = anyio.Event()

    @stage.tasks.tool()
    async def wait() -> str:
        try:
            started.set()
            await anyio.sleep_forever()
        finally:
            cleaned.append("up")
        return "never"

    async with serve(stage.server) as wire:
        task_id = await wire.create("wait")
        with anyio.fail_after(5):
            await started.wait()
        await wire.cancel(task_id)
        task = await wire.outcome(task_id)

    assert (task["status"], cleaned) == ("cancelled", ["up"])
    assert not {"result", "error", "inputRequests"} & set(task)


@pytest.mark.requirement("T-062")
async def test_work_that_finished_first_stays_finished(stage: Stage, serve: Serve) -> None:
    """Cancelling a task that has ended changes nothing about it."""

    @stage.tasks.tool()
    async def ping() -> str:
        return "pong"

    async with serve(stage.server) as wire:
        task_id = await wire.create("ping")
        await wire.outcome(task_id)
        await wire.cancel(task_id)
        assert (await wire.get(task_id)).result["status"] == "completed"


@pytest.mark.requirement("T-092")
@pytest.mark.requirement("T-096")
async def test_the_methods_of_2025_11_25_are_gone(stage: Stage, serve: Serve) -> None:
    """There is no list through which tasks could leak, and no blocking result."""
    async with serve(stage.server) as wire:
        for method in ("tasks/list", "tasks/result"):
            reply = await wire.post(method, {"taskId": UNKNOWN})
            assert (reply.status, reply.error["code"]) == (404, -32601)


@pytest.mark.requirement("T-043")
@pytest.mark.requirement("T-081")
async def test_a_task_that_is_not_finished_in_time_fails(stage: Stage, serve: Serve) -> None:
    """It says why, its tool is stopped, and one that is gone is like one that never was."""
    stopped = anyio.Event()

    @stage.tasks.tool(ttl=timedelta(milliseconds=50))
    async def wait() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            stopped.set()

    async with serve(stage.server) as wire:
        task_id = await wire.create("wait")
        await anyio.sleep(0.06)
        task = (await wire.get(task_id)).result
        assert (task["status"], task["error"]["data"]["reason"]) == ("failed", "expired")
        with anyio.fail_after(5):
            await stopped.wait()


@pytest.mark.requirement("T-087")
def test_all_our_methods_are_named_by_the_extension(stage: Stage) -> None:
    """The prefix is reserved for it, and nothing else is ours to take."""
    assert [binding.method for binding in stage.tasks.methods()] == list(METHODS)


@pytest.mark.requirement("T-068")
async def test_listening_to_tasks_is_acknowledged_with_none_for_now(stage: Stage) -> None:
    """What is not reported on must not be promised."""
    from mcp.client import Client  # noqa: PLC0415
    from mcp_types import SubscriptionFilter  # noqa: PLC0415

    from mcp_tasks.client import TasksClient  # noqa: PLC0415

    acknowledged: list[SubscriptionFilter] = []

    async def on_message(message: Any) -> None:
        acknowledged.append(message.params.notifications)

    from mcp_types import (  # noqa: PLC0415
        SubscriptionsListenRequest,
        SubscriptionsListenRequestParams,
        SubscriptionsListenResult,
    )

    wanted = SubscriptionFilter.model_validate({"toolsListChanged": True, "taskIds": [UNKNOWN]})
    request = SubscriptionsListenRequest(
        params=SubscriptionsListenRequestParams(notifications=wanted)
    )
    async with Client(
        stage.server, extensions=[TasksClient()], message_handler=on_message
    ) as client:
        with anyio.move_on_after(5):
            async with anyio.create_task_group() as group:
                group.start_soon(client.session.send_request, request, SubscriptionsListenResult)
                while not acknowledged:  # noqa: ASYNC110 - it is a list
                    await anyio.sleep(0.01)
                group.cancel_scope.cancel()

    assert acknowledged[0].tools_list_changed
    assert not acknowledged[0].model_extra


async def test_no_task_id_is_ever_logged(
    stage: Stage, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """Without authentication the id is all that protects a task."""

    @stage.tasks.tool()
    async def crash() -> None:
        raise RuntimeError("crash")

    with caplog.at_level(logging.DEBUG):
        async with serve(stage.server) as wire:
            task_id = await wire.create("crash")
            await wire.outcome(task_id)
            await send(wire, "tasks/get", task_id, UNKNOWN)
            await wire.cancel(task_id)
        ours = [r for r in caplog.records if r.name.startswith("mcp_tasks")]

    assert not [record for record in ours if task_id in record.getMessage()]


@pytest.mark.requirement("T-078")
async def test_a_store_that_fails_is_an_internal_error(
    stage: Stage, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller learns that it may try again, and nothing of the database."""
    from mcp_tasks.errors import StorageUnavailableError  # noqa: PLC0415
    from mcp_tasks.storage.memory import MemoryBackend  # noqa: PLC0415

    async def away(*_: object) -> None:
        raise StorageUnavailableError("password=hunter2")

    async with serve(stage.server) as wire:
        monkeypatch.setattr(MemoryBackend, "get", away)
        reply = await wire.get(UNKNOWN)
        monkeypatch.undo()

    assert reply.error["code"] == -32603
    assert "the task store is not available" in reply.error["message"]
    assert b"hunter2" not in reply.body


def _header(text: str) -> str:
    """Write a header value as clients do."""
    if text.isascii():
        return text
    return f"=?base64?{base64.b64encode(text.encode()).decode()}?="


def test_the_refusal_of_an_unknown_task_says_nothing_else() -> None:
    """Its text is the same in every place that makes it."""
    from mcp_tasks.errors import TaskNotFoundError  # noqa: PLC0415
    from mcp_tasks.server.refusals import protocol_error  # noqa: PLC0415

    error = protocol_error(TaskNotFoundError()).error
    assert json.loads(error.model_dump_json(exclude_none=True)) == {
        "code": -32602,
        "message": "task not found",
    }


class Overtaken(MemoryBackend):
    """A database in which something happens between two reads.

    Attributes:
        between: What, before the next read of a value that lies beside a record.
    """

    between: Callable[[], Awaitable[None]] | None = None

    async def get(self, key: str) -> StoredRecord:
        """Read, late."""
        between = self.between
        if between is not None and "@blobs" in key:
            self.between = None
            await between()
        return await super().get(key)


@pytest.mark.parametrize("is_lost", [False, True])
async def test_a_poll_that_is_overtaken_shows_the_newer_task(
    serve: Serve, *, is_lost: bool
) -> None:
    """Large values go when others take their place, in another process, between two reads."""
    backend = Overtaken()
    server: MCPServer[Any] = MCPServer("stage", log_level="CRITICAL")
    tasks = Tasks.install(server, TaskStore(backend, namespace="stage"), signals=False)
    seen: list[TaskContext] = []

    @tasks.tool()
    async def wait(task: TaskContext) -> None:
        await task.set_variables({"size": 1, "text": "x" * 9000})
        seen.append(task)
        await anyio.sleep_forever()

    async def overtake() -> None:
        other = TaskStore(backend, namespace="stage")
        if is_lost:
            for record in (await backend.list_by_prefix(blobs)).records:
                await backend.delete(record.key)
        else:
            await other.set_variables(seen[0].owner, seen[0].task_id, {"size": 2})
        await other.close()

    async with serve(server) as wire:
        task_id = await wire.create("wait")
        await wire.until(task_id, "working")
        with anyio.fail_after(5):
            while True:
                if seen:
                    break
                await anyio.sleep(0.005)
        blobs = TaskStore(backend, namespace="stage").keys.blobs(seen[0].owner, task_id)
        backend.between = overtake

        reply = await wire.get(task_id)

        if is_lost:
            assert "is missing" in reply.error["message"]
        else:
            assert reply.result["_meta"]["mcp-tasks/variables"]["size"] == 2
        await wire.cancel(task_id)

"""`Client.call_tool` with `TasksClient`: a task behind it changes nothing for the caller."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import anyio
import pytest
from mcp.client import Client
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CreateMessageResult,
    ElicitResult,
    ErrorData,
    ListRootsResult,
    Root,
    TextContent,
)
from pydantic import FileUrl

from mcp_tasks import TaskContext  # noqa: TC001 - read from annotations
from mcp_tasks.client import TaskCancelledError, TaskHandle, TasksClient

from .conftest import Name


if TYPE_CHECKING:
    from mcp.client import ClientRequestContext
    from mcp_types import CallToolResult, CreateMessageRequestParams, ElicitRequestParams

    from mcp_tasks.client import TaskSnapshot


def text(result: CallToolResult) -> str:
    """Return the text of a result."""
    content = result.content[0]
    assert isinstance(content, TextContent)
    return content.text


async def name_after_message(
    context: ClientRequestContext, params: ElicitRequestParams
) -> ElicitResult:
    """Answer with the question, so that a test sees which answer went where."""
    return ElicitResult(action="accept", content={"name": params.message.rstrip("?").lower()})


@pytest.mark.requirement("T-007")
async def test_a_task_is_followed_to_its_result(stage: Any) -> None:
    """An app that knows nothing of tasks gets what the tool returned."""
    async with Client(stage.server, extensions=[TasksClient()]) as client:
        with anyio.fail_after(5):
            assert text(await client.call_tool("echo", {"text": "hello"})) == "hello"


@pytest.mark.requirement("T-007")
async def test_an_answer_without_a_task_is_passed_on(stage: Any) -> None:
    """Declaring the extension does not ask for a task."""
    async with Client(stage.server, extensions=[TasksClient()]) as client:
        with anyio.fail_after(5):
            assert text(await client.call_tool("plain", {"text": "hello"})) == "hello"


async def test_a_tools_own_error_is_its_result(stage: Any) -> None:
    """Only JSON-RPC errors are exceptions, as without tasks."""
    async with Client(stage.server, extensions=[TasksClient()]) as client:
        with anyio.fail_after(5):
            result = await client.call_tool("broken", {})

    assert result.is_error


async def test_a_failed_task_raises_the_servers_error(stage: Any) -> None:
    """Code, message and data are those of the call without a task."""
    async with Client(stage.server, extensions=[TasksClient()]) as client:
        with anyio.fail_after(5), pytest.raises(MCPError) as caught:
            await client.call_tool("refused", {})

    error = caught.value
    assert (error.code, error.message, error.data) == (-32050, "not today", {"try": "tomorrow"})


async def test_a_cancelled_task_is_told_apart_from_a_failed_one(stage: Any) -> None:
    """Somebody else may cancel the task that a call waits for."""
    tasks = TasksClient()
    async with Client(stage.server, extensions=[tasks]) as client:
        with anyio.fail_after(5):
            handle = await tasks.start(client, "held")
            await handle.cancel()
            with pytest.raises(TaskCancelledError) as caught:
                await handle.result()

    assert caught.value.task_id == handle.task_id


@pytest.mark.parametrize("how", ["given_up", "answered"])
async def test_a_dialog_closes_when_nobody_waits_for_its_answer_any_more(
    stage: Any, how: str
) -> None:
    """The tool gave up waiting, or another client was faster; the task goes on."""
    opened, closed = anyio.Event(), anyio.Event()

    async def elicit(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        opened.set()
        try:
            await anyio.sleep_forever()
        finally:
            closed.set()
        return ElicitResult(action="cancel")

    @stage.tasks.tool()
    async def impatient(task: TaskContext) -> str:
        """Wait for a person for a while, and then for the test."""
        answer = None
        with anyio.move_on_after(0.2 if how == "given_up" else 5):
            answer = await task.elicit("who", "Who?", Name)
        await closed.wait()
        return "nobody" if answer is None else answer.action

    seen: list[TaskSnapshot] = []
    results: list[str] = []
    tasks = TasksClient(on_status=seen.append)
    async with (
        Client(stage.server, extensions=[tasks], elicitation_callback=elicit) as client,
        anyio.create_task_group() as group,
    ):
        with anyio.fail_after(5):

            async def answer() -> None:
                await opened.wait()
                if how == "answered":
                    handle = TaskHandle.resume(client, f"mcp-task:1:{seen[0].task_id}")
                    await handle.answer({"who": ElicitResult(action="decline")})

            group.start_soon(answer)
            results.append(text(await client.call_tool("impatient", {})))

    assert results == ["nobody" if how == "given_up" else "decline"]


async def test_calls_with_one_key_follow_one_task(stage: Any) -> None:
    """The second one may come from another process, which knows no more than the key."""
    tasks, again = TasksClient(), TasksClient()
    async with (
        Client(stage.server, extensions=[tasks]) as client,
        Client(stage.server, extensions=[again]) as other,
    ):
        with anyio.fail_after(5):
            handle = await tasks.start(client, "held", {"text": "a"}, idempotency_key="k")
            found = await again.start(other, "held", {"text": "a"}, idempotency_key="k")
            assert found.task_id == handle.task_id
            stage.gate.set()
            for _ in range(2):
                result = await again.call_tool(other, "held", {"text": "a"}, idempotency_key="k")
                assert text(result) == "a"
            with pytest.raises(MCPError, match="with other arguments") as caught:
                await tasks.call_tool(client, "held", {"text": "b"}, idempotency_key="k")
            assert caught.value.error.code == -32602
            # Without a key each call has a task of its own, whatever else is in its `_meta`.
            assert text(await tasks.call_tool(client, "echo", {"text": "b"})) == "b"
            plain = await tasks.start(client, "held", {"text": "a"}, meta=cast("Any", {"x": 1}))
            assert plain.task_id != handle.task_id


@pytest.mark.requirement("T-059")
async def test_cancelling_the_caller_cancels_the_task(stage: Any) -> None:
    """Work that nobody waits for any more should stop."""
    async with Client(stage.server, extensions=[TasksClient()]) as client:
        with anyio.fail_after(5):
            async with anyio.create_task_group() as group:
                group.start_soon(client.call_tool, "held")
                await stage.started.wait()
                group.cancel_scope.cancel()
            await stage.stopped.wait()


@pytest.mark.requirement("T-046")
async def test_several_questions_are_put_at_the_same_time(stage: Any) -> None:
    """A person may answer the second one first."""
    open_at_once = 0
    both_open = anyio.Event()

    async def elicit(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        nonlocal open_at_once
        open_at_once += 1
        if open_at_once == 2:
            both_open.set()
        await both_open.wait()
        return await name_after_message(context, params)

    client = Client(stage.server, extensions=[TasksClient()], elicitation_callback=elicit)
    async with client:
        with anyio.fail_after(5):
            assert text(await client.call_tool("ask_two", {})) == "first second"


@pytest.mark.requirement("T-047")
@pytest.mark.requirement("T-055")
async def test_a_question_is_put_once_however_often_it_is_polled(stage: Any) -> None:
    """Polling goes on while a dialog is open, and must not open it again."""
    asked: list[str] = []
    seen_open = 0
    polled_often = anyio.Event()

    async def elicit(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        asked.append(str(context.request_id))
        if context.request_id == "first":
            await polled_often.wait()
        return await name_after_message(context, params)

    def on_status(task: TaskSnapshot) -> None:
        nonlocal seen_open
        seen_open += 1
        if list(task.questions) == ["first"]:  # the second is answered, the first was polled again
            polled_often.set()

    tasks = TasksClient(on_status=on_status)
    async with Client(stage.server, extensions=[tasks], elicitation_callback=elicit) as client:
        with anyio.fail_after(5):
            assert text(await client.call_tool("ask_two", {})) == "first second"

    assert sorted(asked) == ["first", "second"]


async def test_a_dialog_closes_when_its_task_ends(stage: Any) -> None:
    """Nobody should answer a question that is no longer asked."""
    opened = anyio.Event()
    closed = anyio.Event()

    async def elicit(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        opened.set()
        try:
            await anyio.sleep_forever()
        finally:
            closed.set()
        raise AssertionError

    tasks = TasksClient()
    async with Client(stage.server, extensions=[tasks], elicitation_callback=elicit) as client:
        with anyio.fail_after(5):
            handle = await tasks.start(client, "ask")
            async with anyio.create_task_group() as group:

                async def cancel_when_open() -> None:
                    await opened.wait()
                    await handle.cancel()

                group.start_soon(cancel_when_open)
                with pytest.raises(TaskCancelledError):
                    await handle.result()

    assert closed.is_set()


async def test_a_refused_elicitation_is_a_no(stage: Any) -> None:
    """The tool hears that the person declined, and decides itself what that means."""

    async def elicit(context: ClientRequestContext, params: ElicitRequestParams) -> ErrorData:
        return ErrorData(code=-1, message="the person is out")

    client = Client(stage.server, extensions=[TasksClient()], elicitation_callback=elicit)
    async with client:
        with anyio.fail_after(5):
            assert text(await client.call_tool("ask", {})) == "decline"


async def test_a_refused_sampling_is_an_error_of_the_call(stage: Any) -> None:
    """There is no "no" to a sampling request, so the task could only wait for ever."""

    async def sample(
        context: ClientRequestContext, params: CreateMessageRequestParams
    ) -> ErrorData:
        return ErrorData(code=-1, message="no model here")

    tasks = TasksClient()
    async with Client(stage.server, extensions=[tasks], sampling_callback=sample) as client:
        with anyio.fail_after(5), pytest.raises(MCPError, match="no model here"):
            await client.call_tool("think", {})


async def test_a_callbacks_exception_reaches_the_caller_as_it_is(stage: Any) -> None:
    """No `ExceptionGroup` around it, and the task does not wait for ever."""
    ended: list[TaskSnapshot] = []

    async def elicit(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        raise LookupError("the dialog is broken")

    tasks = TasksClient(on_status=ended.append)
    async with Client(stage.server, extensions=[tasks], elicitation_callback=elicit) as client:
        with anyio.fail_after(5):
            with pytest.raises(LookupError, match="the dialog is broken"):
                await client.call_tool("ask", {})
            handle = TaskHandle.resume(client, f"mcp-task:1:{ended[0].task_id}")
            with pytest.raises(TaskCancelledError):
                await handle.result()


async def test_sampling_and_roots_go_to_their_callbacks(stage: Any) -> None:
    """A task may ask for all that a live call may ask for."""

    async def sample(
        context: ClientRequestContext, params: CreateMessageRequestParams
    ) -> CreateMessageResult:
        content = TextContent(type="text", text="4")
        return CreateMessageResult(role="assistant", content=content, model="abacus")

    async def roots(context: ClientRequestContext) -> ListRootsResult:
        return ListRootsResult(roots=[Root(uri=FileUrl("file:///data"))])

    client = Client(
        stage.server,
        extensions=[TasksClient()],
        sampling_callback=sample,
        list_roots_callback=roots,
    )
    async with client:
        with anyio.fail_after(5):
            assert text(await client.call_tool("think", {})) == "4 in file:///data"


@pytest.mark.requirement("T-018")
async def test_on_status_is_told_of_each_change_once(stage: Any) -> None:
    """A person watches changes, not polls."""
    seen: list[TaskSnapshot] = []

    async def on_status(task: TaskSnapshot) -> None:
        seen.append(task)
        if len(seen) == 2:
            stage.gate.set()

    tasks = TasksClient(on_status=on_status)
    async with Client(
        stage.server, extensions=[tasks], elicitation_callback=name_after_message
    ) as client:
        with anyio.fail_after(5):
            await client.call_tool("ask", {})

    assert seen[0].status == "working"
    assert seen[-1].status == "completed"
    assert all(before != after for before, after in pairwise(seen))
    assert len({task.task_id for task in seen}) == 1


async def test_an_exception_of_on_status_is_only_logged(
    stage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A progress display that fails costs no result."""

    def on_status(task: TaskSnapshot) -> None:
        raise RuntimeError(task.status)

    tasks = TasksClient(on_status=on_status)
    async with Client(stage.server, extensions=[tasks]) as client:
        with anyio.fail_after(5):
            assert text(await client.call_tool("echo", {"text": "hello"})) == "hello"

    assert "on_status failed" in caplog.text

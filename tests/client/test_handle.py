"""`TaskHandle`: a task in the app's own hands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest
from mcp.client import Client
from mcp_types import ElicitResult, TextContent

from mcp_tasks.client import InvalidHandleError, TaskCancelledError, TaskHandle, TasksClient


if TYPE_CHECKING:
    from mcp.client import ClientRequestContext
    from mcp_types import CallToolResult, ElicitRequestParams


ACCEPT = {"action": "accept", "content": {"name": "Ada"}}


def text(result: CallToolResult) -> str:
    """Return the text of a result."""
    content = result.content[0]
    assert isinstance(content, TextContent)
    return content.text


async def test_start_returns_while_the_task_runs(stage: Any) -> None:
    """That is what a handle is for."""
    tasks = TasksClient()
    async with Client(stage.server, extensions=[tasks]) as client:
        with anyio.fail_after(5):
            handle = await tasks.start(client, "held")
            assert not handle.is_done
            assert (await handle.poll()).status == "working"
            stage.gate.set()
            assert text(await handle.result()) == "released"
            assert handle.is_done


async def test_a_tool_that_answers_without_a_task_gives_a_finished_handle(stage: Any) -> None:
    """The app needs no second path for it."""
    tasks = TasksClient()
    async with Client(stage.server, extensions=[tasks]) as client:
        with anyio.fail_after(5):
            handle = await tasks.start(client, "plain", {"text": "hello"})
            assert handle.is_done
            assert handle.task_id == ""
            assert (await handle.poll()).status == "completed"
            await handle.cancel()
            assert text(await handle.result()) == "hello"
            with pytest.raises(InvalidHandleError, match="without a task"):
                handle.save()


async def test_the_result_can_be_asked_for_again(stage: Any) -> None:
    """The second time nothing is sent; the task may be gone by then."""
    tasks = TasksClient()
    async with Client(stage.server, extensions=[tasks]) as client:
        with anyio.fail_after(5):
            handle = await tasks.start(client, "echo", {"text": "hello"})
            first = await handle.result()
    assert await handle.result() is first


async def test_wait_returns_for_a_question_and_answer_resumes_the_task(stage: Any) -> None:
    """An app with its own way to ask calls no callback."""
    tasks = TasksClient()

    async def unused(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        raise AssertionError("nobody should be asked")

    async with Client(stage.server, extensions=[tasks], elicitation_callback=unused) as client:
        with anyio.fail_after(5):
            handle = await tasks.start(client, "ask_two")
            asked: set[str] = set()
            while not (seen := await handle.wait()).is_terminal:
                asked.update(seen.questions)
                await handle.answer(dict.fromkeys(seen.questions, ACCEPT))
            assert asked == {"first", "second"}
            assert text(await handle.result()) == "Ada Ada"


async def test_an_answer_may_be_one_of_the_sdks_results(stage: Any) -> None:
    """Nobody should have to write the JSON of an `ElicitResult`."""
    tasks = TasksClient()

    async def unused(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        raise AssertionError("nobody should be asked")

    async with Client(stage.server, extensions=[tasks], elicitation_callback=unused) as client:
        with anyio.fail_after(5):
            handle = await tasks.start(client, "ask")
            await handle.wait()
            await handle.answer({"who": ElicitResult(action="accept", content={"name": "Bob"})})
            assert text(await handle.result()) == "Bob"


@pytest.mark.requirement("T-028")
@pytest.mark.requirement("T-032")
async def test_a_saved_task_is_found_by_another_client(stage: Any) -> None:
    """The client that started it may be gone."""
    tasks = TasksClient()
    # The server in this process lives as long as a client is connected to it.
    async with Client(stage.server, extensions=[TasksClient()]):
        async with Client(stage.server, extensions=[tasks]) as client:
            with anyio.fail_after(5):
                saved = (await tasks.start(client, "held")).save()
        stage.gate.set()
        async with Client(stage.server, extensions=[TasksClient()]) as client:
            with anyio.fail_after(5):
                handle = TaskHandle.resume(client, saved)
                assert handle.tool == "held"
                assert text(await handle.result()) == "released"


async def test_leaving_a_handle_leaves_the_task_alone(stage: Any) -> None:
    """A page that is closed must not end the work; `cancel` does."""
    tasks = TasksClient()
    async with Client(stage.server, extensions=[tasks]) as client:
        with anyio.fail_after(5):
            handle = await tasks.start(client, "held")
            async with anyio.create_task_group() as group:
                group.start_soon(handle.result)
                await stage.started.wait()
                group.cancel_scope.cancel()
            assert (await handle.poll()).status == "working"
            await handle.cancel()
            with pytest.raises(TaskCancelledError):
                await handle.result()
            await handle.cancel()


async def test_two_who_wait_for_one_result_ask_once(stage: Any) -> None:
    """One follows the task for both."""
    asked: list[str] = []

    async def elicit(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        asked.append(params.message)
        return ElicitResult(action="accept", content={"name": "Ada"})

    tasks = TasksClient()
    results: list[CallToolResult] = []
    async with Client(stage.server, extensions=[tasks], elicitation_callback=elicit) as client:
        with anyio.fail_after(5):
            handle = await tasks.start(client, "ask")

            async def wait() -> None:
                results.append(await handle.result())

            async with anyio.create_task_group() as group:
                group.start_soon(wait)
                group.start_soon(wait)

    assert len(results) == 2
    assert len(asked) == 1


async def test_the_text_of_a_handle_is_short_and_tells_what_it_is(stage: Any) -> None:
    """It goes into a database column, a log or a chat."""
    tasks = TasksClient()
    async with Client(stage.server, extensions=[tasks]) as client:
        with anyio.fail_after(5):
            handle = await tasks.start(client, "echo", {"text": "a secret"})
            assert str(handle) == f"mcp-task:1:{handle.task_id}?server=stage&tool=echo"


@pytest.mark.parametrize(
    "saved",
    ["", "mcp-task:", "mcp-task:1:", "mcp-task:2:01m8", "01m8", "http://example.com/mcp-task:1:a"],
)
async def test_damaged_text_is_refused(stage: Any, saved: str) -> None:
    """Better here than as "unknown task" from the server."""
    async with Client(stage.server, extensions=[TasksClient()]) as client:
        with pytest.raises(InvalidHandleError):
            TaskHandle.resume(client, saved)


async def test_a_task_of_another_server_is_refused(stage: Any) -> None:
    """Its id would be unknown here, or worse, would be somebody else's."""
    async with Client(stage.server, extensions=[TasksClient()]) as client:
        with pytest.raises(InvalidHandleError, match=r"'reports'.*'stage'"):
            TaskHandle.resume(client, "mcp-task:1:01m8?server=reports")


async def test_any_id_survives_being_saved(stage: Any) -> None:
    """Other servers choose their ids as they like."""
    task_id = "a b/c?d=e&f#g:h%ü"
    async with Client(stage.server, extensions=[TasksClient()]) as client:
        saved = TaskHandle(client.session, task_id, tool="t&t").save()
        again = TaskHandle.resume(client, saved)

    assert (again.task_id, again.tool) == (task_id, "t&t")

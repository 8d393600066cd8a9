"""Questions that a task asks its client: through our context, the SDK's, and rounds of input."""

# ruff: noqa: TC001, TC002 - what tools are annotated with is read at run time

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from mcp.server.mcpserver import Context
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError
from mcp_types import (
    CallToolResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequiredResult,
    SamplingMessage,
    TextContent,
)
from pydantic import BaseModel

from mcp_tasks import SyncTaskContext, TaskContext


if TYPE_CHECKING:
    from .conftest import Serve, Stage, Wire


class Name(BaseModel):
    """Somebody's name."""

    name: str


def accept(**content: Any) -> dict[str, Any]:
    """Accept an elicitation."""
    return {"action": "accept", "content": content}


async def asked(wire: Wire, task_id: str) -> dict[str, Any]:
    """Wait until the task asks, and return what."""
    return (await wire.until(task_id, "input_required"))["inputRequests"]


def text(task: dict[str, Any]) -> str:
    """Return the text of a task's result."""
    assert task["status"] == "completed", task
    return task["result"]["content"][0]["text"]


@pytest.mark.requirement("T-044")
@pytest.mark.parametrize("resumable", [False, True])
async def test_the_context_asks_and_the_answer_comes_back(
    stage: Stage, serve: Serve, *, resumable: bool
) -> None:
    """Both kinds of tool read the same, whether they wait here or are run again."""

    @stage.tasks.tool(resumable=resumable)
    async def greet(task: TaskContext) -> str:
        answer = await task.elicit("who", "Who are you?", Name)
        return f"Hello, {answer.data.name}!" if answer.data else answer.action

    async with serve(stage.server) as wire:
        for response, expected in (
            (accept(name="Ada"), "Hello, Ada!"),
            ({"action": "decline"}, "decline"),
            ({"action": "cancel"}, "cancel"),
        ):
            task_id = await wire.create("greet")
            question = (await asked(wire, task_id))["who"]
            assert question["method"] == "elicitation/create"
            assert question["params"]["message"] == "Who are you?"
            await wire.answer(task_id, {"who": response})
            assert text(await wire.outcome(task_id)) == expected


async def test_plain_functions_ask_too(stage: Stage, serve: Serve) -> None:
    """They block their own thread, and nobody else."""

    @stage.tasks.tool()
    def greet(task: SyncTaskContext) -> str:
        answer = task.elicit("who", "Who are you?", Name)
        return f"Hello, {answer.data.name}!" if answer.data else answer.action

    async with serve(stage.server) as wire:
        task_id = await wire.create("greet")
        await asked(wire, task_id)
        await wire.answer(task_id, {"who": accept(name="Ada")})
        assert text(await wire.outcome(task_id)) == "Hello, Ada!"


async def test_the_sdk_context_asks_through_the_task(stage: Stage, serve: Serve) -> None:
    """`ctx.elicit`, which a plain call of this revision cannot do, works in a task."""

    @stage.tasks.tool()
    async def greet(ctx: Context) -> str:
        result = await ctx.elicit("Who are you?", Name)
        return f"Hello, {result.data.name}!" if result.action == "accept" else result.action

    async with serve(stage.server) as wire:
        task_id = await wire.create("greet")
        (key,) = await asked(wire, task_id)
        await wire.answer(task_id, {key: accept(name="Ada")})
        assert text(await wire.outcome(task_id)) == "Hello, Ada!"


async def test_sampling_and_roots_go_through_the_task(stage: Stage, serve: Serve) -> None:
    """All that a server may ask is asked the same way."""

    @stage.tasks.tool()
    async def ask(ctx: Context) -> str:
        session = ctx.request_context.session
        message = SamplingMessage(role="user", content=TextContent(type="text", text="Hm?"))
        with pytest.warns(MCPDeprecationWarning, match="sampling"):
            sampled = await session.create_message(  # pyright: ignore[reportDeprecated]
                [message], max_tokens=9
            )
        with pytest.warns(MCPDeprecationWarning, match="roots"):
            roots = await session.list_roots()  # pyright: ignore[reportDeprecated]
        assert isinstance(sampled.content, TextContent)
        return f"{sampled.content.text} {roots.roots[0].uri}"

    async with serve(stage.server) as wire:
        wire.capabilities["roots"] = {}
        task_id = await wire.create("ask")
        ((key, question),) = (await asked(wire, task_id)).items()
        assert question["method"] == "sampling/createMessage"
        content = {"type": "text", "text": "yes"}
        await wire.answer(task_id, {key: {"role": "assistant", "content": content, "model": "m"}})
        with anyio.fail_after(5):
            while key in (requests := await asked(wire, task_id)):
                pass
        ((key, question),) = requests.items()
        assert question["method"] == "roots/list"
        await wire.answer(task_id, {key: {"roots": [{"uri": "file:///tmp"}]}})
        assert text(await wire.outcome(task_id)) == "yes file:///tmp"


@pytest.mark.requirement("T-036")
@pytest.mark.requirement("T-057")
@pytest.mark.requirement("T-053")
async def test_several_questions_at_once_can_be_answered_one_by_one(
    stage: Stage, serve: Serve
) -> None:
    """The next poll no longer shows what was answered; the task waits for the rest."""

    @stage.tasks.tool()
    async def both(ctx: Context, task: TaskContext) -> str:
        one, two = await asyncio.gather(
            ctx.elicit("First?", Name), task.elicit("second", "Second?", Name)
        )
        return f"{one.action} {two.action}"

    async with serve(stage.server) as wire:
        task_id = await wire.create("both")
        with anyio.fail_after(5):
            while len(requests := await asked(wire, task_id)) != 2:
                pass
        first = next(key for key in requests if key != "second")
        await wire.answer(task_id, {first: accept(name="one")})
        seen = (await wire.get(task_id)).result
        assert (seen["status"], list(seen["inputRequests"])) == ("input_required", ["second"])
        await wire.answer(task_id, {"second": {"action": "decline"}})
        assert text(await wire.outcome(task_id)) == "accept decline"


@pytest.mark.requirement("T-048")
@pytest.mark.requirement("T-049")
@pytest.mark.requirement("T-050")
async def test_no_key_is_used_twice_in_the_life_of_a_task(stage: Stage, serve: Serve) -> None:
    """A client that remembers what it answered must not miss a question."""

    @stage.tasks.tool()
    async def ask(ctx: Context, task: TaskContext) -> str:
        for number in range(3):
            await ctx.elicit(f"{number}?", Name)
        await task.elicit("key", "?", Name)
        await task.elicit("key", "again?", Name)
        return "never"

    async with serve(stage.server) as wire:
        task_id = await wire.create("ask")
        keys: list[str] = []
        with anyio.fail_after(10):
            while (task := (await wire.get(task_id)).result)["status"] in {
                "working",
                "input_required",
            }:
                for key in task.get("inputRequests", {}):
                    keys.append(key)
                    await wire.answer(task_id, {key: accept(name="x")})

    assert len(keys) == len(set(keys)) == 4
    assert task["status"] == "failed"
    assert "question key 'key' was already used" in task["error"]["message"]


@pytest.mark.requirement("T-056")
async def test_answers_to_nothing_are_acknowledged_whatever_they_hold(
    stage: Stage, serve: Serve
) -> None:
    """Unknown keys and late answers change nothing, and are no error."""

    @stage.tasks.tool()
    async def greet(task: TaskContext) -> str:
        answer = await task.elicit("who", "Who?", Name)
        return answer.data.name if answer.data else ""

    async with serve(stage.server) as wire:
        task_id = await wire.create("greet")
        await asked(wire, task_id)
        everything: list[dict[str, Any]] = [
            {"other": {"ignored": True}},
            {"x": None},
            {"y": [1]},
            {},
        ]
        for junk in everything:
            assert (await wire.answer(task_id, junk)).result["resultType"] == "complete"
        await wire.answer(task_id, {"who": accept(name="first"), "z": 1})
        await wire.answer(task_id, {"who": accept(name="second")})
        assert text(await wire.outcome(task_id)) == "first"
        assert (await wire.answer(task_id, {"who": 5})).result["resultType"] == "complete"


@pytest.mark.parametrize(
    "junk", [None, 5, "yes", [], {}, {"action": "maybe"}, {"action": "accept", "content": 5}]
)
async def test_a_malformed_answer_leaves_the_question(
    stage: Stage, serve: Serve, junk: Any
) -> None:
    """Ours: the specification names no error. Nothing of the request is stored."""

    @stage.tasks.tool()
    async def both(ctx: Context) -> str:
        answers = await asyncio.gather(ctx.elicit("1?", Name), ctx.elicit("2?", Name))
        return " ".join(answer.action for answer in answers)

    async with serve(stage.server) as wire:
        task_id = await wire.create("both")
        with anyio.fail_after(5):
            while len(keys := list(await asked(wire, task_id))) != 2:
                pass
        reply = await wire.answer(task_id, {keys[0]: accept(name="good"), keys[1]: junk})
        assert (reply.status, reply.error["code"]) == (400, -32602)
        assert keys[1] in reply.error["message"]
        assert list(await asked(wire, task_id)) == keys


@pytest.mark.parametrize("responses", [None, 5, "x", []])
async def test_responses_that_are_no_object_are_refused(
    stage: Stage, serve: Serve, responses: Any
) -> None:
    """There is no key to ignore in them."""

    @stage.tasks.tool()
    async def ping() -> None:
        """Do nothing."""

    async with serve(stage.server) as wire:
        reply = await wire.answer(await wire.create("ping"), responses)
        assert (reply.status, reply.error["code"]) == (400, -32602)


@pytest.mark.requirement("C-005")
async def test_a_client_is_only_asked_what_it_declared(stage: Stage, serve: Serve) -> None:
    """It would never answer, and the task would wait for ever."""
    raised: list[MCPError] = []

    @stage.tasks.tool()
    async def sample(ctx: Context) -> None:
        try:
            await ctx.elicit("Who?", Name)
        except MCPError as error:
            raised.append(error)
            raise

    @stage.tasks.tool()
    async def ask(task: TaskContext) -> None:
        await task.elicit("who", "Who?", Name)

    async with serve(stage.server) as wire:
        del wire.capabilities["elicitation"]
        for tool in ("sample", "ask"):
            task = await wire.outcome(await wire.create(tool))
            assert (task["status"], task["error"]["code"]) == ("failed", -32021)
            assert task["error"]["data"] == {"requiredCapabilities": {"elicitation": {}}}

    assert [error.code for error in raised] == [-32021]


@pytest.mark.parametrize("resumable", [False, True])
async def test_a_tool_that_asks_in_rounds_goes_on_in_its_task(
    stage: Stage, serve: Serve, *, resumable: bool
) -> None:
    """`InputRequiredResult` from inside a task: ask each, then call again with typed answers."""
    seen: list[Any] = []

    @stage.server.tool()
    @stage.tasks.task(resumable=resumable)
    async def rounds(ctx: Context) -> CallToolResult | InputRequiredResult:
        seen.append((ctx.input_responses, ctx.request_state))
        done = int(ctx.request_state or "0")
        if done == 2:
            return CallToolResult(content=[TextContent(type="text", text="two rounds")])
        params = ElicitRequestFormParams(
            message=f"{done}?", requested_schema={"type": "object", "properties": {}}
        )
        return InputRequiredResult(
            input_requests={"same": ElicitRequest(params=params)}, request_state=str(done + 1)
        )

    async with serve(stage.server) as wire:
        task_id = await wire.create("rounds")
        keys: list[str] = []
        for _ in range(2):
            with anyio.fail_after(5):
                while set(requests := await asked(wire, task_id)) <= set(keys):
                    pass
            (key,) = requests
            keys.append(key)
            await wire.answer(task_id, {key: accept(n=len(keys))})
        assert text(await wire.outcome(task_id)) == "two rounds"

    assert len(set(keys)) == 2
    responses, state = seen[-1]
    assert state == "2"
    assert isinstance(responses["same"], ElicitResult)
    assert responses["same"].content == {"n": 2}


async def test_without_a_task_asking_says_what_to_do(stage: Stage, serve: Serve) -> None:
    """A client without the extension cannot be asked; the author learns of `required`."""

    @stage.tasks.tool()
    async def greet(task: TaskContext) -> str:
        assert not task.durable
        assert await task.step("one", lambda: 1) == 1
        answer = await task.elicit("who", "Who?", Name)
        return answer.action

    async with serve(stage.server) as wire:
        error = (await wire.undeclared().call("greet")).error

    assert error["code"] == -32603
    assert "required=True" in error["message"]

"""How a call becomes a task, and when it does not."""

# ruff: noqa: TC002 - what tools are annotated with is read at run time

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, cast

import anyio
import pytest
from mcp.client import Client
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.resolve import Elicit, Resolve
from mcp.shared.exceptions import MCPError
from pydantic import BaseModel

from mcp_tasks import StoreConfig, TaskHandle, Tasks, TasksClient


if TYPE_CHECKING:
    from .conftest import Serve, Stage, Wire

PREFIX = "io.modelcontextprotocol"
EXTENSION = f"{PREFIX}/tasks"


class Name(BaseModel):
    """Somebody's name."""

    name: str


async def ask_name() -> Elicit[Name]:
    """Ask for a name before the tool runs."""
    return Elicit("Who?", Name)


@pytest.mark.requirement("T-002")
@pytest.mark.requirement("T-003")
@pytest.mark.requirement("T-098")
@pytest.mark.requirement("T-099")
async def test_the_extension_is_advertised_and_nothing_older(stage: Stage, serve: Serve) -> None:
    """Clients learn from `server/discover` that tasks exist here, and of which kind."""
    async with serve(stage.server) as wire:
        capabilities = (await wire.post("server/discover", {})).result["capabilities"]

    assert capabilities["extensions"][EXTENSION] == {}
    assert "tasks" not in capabilities


@pytest.mark.requirement("T-004")
@pytest.mark.requirement("T-086")
async def test_a_tool_runs_as_a_task_and_its_result_is_the_plain_one(
    stage: Stage, serve: Serve
) -> None:
    """What a task ends with is what the call would have returned."""

    @stage.tasks.tool()
    async def add(a: int, b: int) -> int:
        return a + b

    async with serve(stage.server) as wire:
        task_id = await wire.create("add", {"a": 1, "b": 2})
        task = await wire.outcome(task_id)
        plain = (await wire.undeclared().call("add", {"a": 1, "b": 2})).result

    del plain["_meta"]  # the server's stamp on the response
    assert task["status"] == "completed"
    assert task["result"] == plain
    assert plain["structuredContent"] == {"result": 3}


@pytest.mark.requirement("T-024")
@pytest.mark.requirement("T-025")
async def test_the_id_resolves_as_soon_as_it_is_known(stage: Stage, serve: Serve) -> None:
    """An id that cannot be polled yet would be lost by a client that gives up on the error."""

    @stage.tasks.tool()
    async def wait() -> None:
        await anyio.sleep_forever()

    async with serve(stage.server) as wire:
        for _ in range(20):
            task_id = await wire.create("wait")
            assert (await wire.get(task_id)).result["taskId"] == task_id
            await wire.cancel(task_id)


@pytest.mark.requirement("T-005")
@pytest.mark.requirement("T-097")
async def test_a_plain_tool_never_becomes_a_task(stage: Stage, serve: Serve) -> None:
    """Only the server decides: neither the declaration nor an old `task` parameter asks for one."""

    @stage.server.tool()
    async def greet(name: str) -> str:
        return f"Hello, {name}!"

    async with serve(stage.server) as wire:
        reply = await wire.call("greet", {"name": "Ada"}, task={"ttl": 60_000})

    assert reply.result["resultType"] == "complete"
    assert reply.result["content"][0]["text"] == "Hello, Ada!"


@pytest.mark.requirement("T-006")
async def test_each_request_declares_for_itself(stage: Stage, serve: Serve) -> None:
    """What a client declared a moment ago does not count."""

    @stage.tasks.tool()
    async def ping() -> str:
        return "pong"

    async with serve(stage.server) as wire:
        await wire.create("ping")
        result = (await wire.undeclared().call("ping")).result

    assert result["resultType"] == "complete"
    assert result["content"][0]["text"] == "pong"


@pytest.mark.requirement("T-094")
async def test_the_capability_of_2025_11_25_does_not_declare_the_extension(
    stage: Stage, serve: Serve
) -> None:
    """A client that only knows the older tasks would not understand a task of this kind."""

    @stage.tasks.tool()
    async def ping() -> str:
        return "pong"

    async with serve(stage.server) as wire:
        wire.capabilities = {"tasks": {"list": {}, "cancel": {}}}
        assert (await wire.call("ping")).result["resultType"] == "complete"


@pytest.mark.requirement("T-093")
async def test_an_older_revision_does_not_know_the_extension(stage: Stage) -> None:
    """A client of 2025-11-25 gets the plain result, or the older code where there is none."""

    @stage.tasks.tool()
    async def ping() -> str:
        return "pong"

    @stage.tasks.tool(required=True)
    async def only_as_task() -> None:
        """Do nothing."""

    async with Client(stage.server, mode="legacy", extensions=[TasksClient()]) as client:
        assert client.protocol_version == "2025-11-25"
        assert text_of(await client.call_tool("ping", {})) == "pong"
        with pytest.raises(MCPError, match="runs only as a task") as refusal:
            await client.call_tool("only_as_task", {})
        assert refusal.value.code == -32601
        with pytest.raises(MCPError) as refusal:
            await TaskHandle(client.session, "0" * 36).poll()
        assert refusal.value.code == -32601


@pytest.mark.requirement("T-009")
async def test_a_tool_that_requires_a_task_refuses_others_and_says_what_is_missing(
    stage: Stage, serve: Serve
) -> None:
    """The client learns what to declare; the tool has not run."""
    ran: list[int] = []

    @stage.tasks.tool(required=True)
    async def only_as_task() -> None:
        ran.append(1)

    async with serve(stage.server) as wire:
        reply = await wire.undeclared().call("only_as_task")
        assert (reply.status, reply.error["code"]) == (400, -32021)
        assert reply.error["data"] == {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
        assert ran == []
        await wire.outcome(await wire.create("only_as_task"))
    assert ran == [1]


async def test_bad_arguments_and_unknown_tools_get_the_normal_error_and_no_task(
    stage: Stage, serve: Serve
) -> None:
    """A task that can only fail would cost the client a poll to learn of its own mistake."""

    @stage.tasks.tool()
    async def add(a: int, b: int) -> int:
        return a + b

    async with serve(stage.server) as wire:
        for reply in (
            await wire.call("add", {"a": "one", "b": 2}),
            await wire.call("add", {}),
            await wire.call("no_such_tool"),
        ):
            assert reply.result["isError"] is True
            assert reply.result["resultType"] == "complete"
            assert "taskId" not in reply.result


@pytest.mark.requirement("T-026")
@pytest.mark.requirement("T-027")
async def test_rounds_of_input_end_on_the_call_before_a_task_exists(
    stage: Stage, serve: Serve
) -> None:
    """The client answers its own call first; the task then has those answers."""

    @stage.tasks.tool(required=True)
    async def greet(name: Annotated[Name, Resolve(ask_name)]) -> str:
        return f"Hello, {name.name}!"

    async with serve(stage.server) as wire:
        first = (await wire.call("greet")).result
        assert first["resultType"] == "input_required"
        assert "taskId" not in first
        (key,) = first["inputRequests"]
        answer = {key: {"action": "accept", "content": {"name": "Ada"}}}
        second = await wire.call(
            "greet", inputResponses=answer, requestState=first.get("requestState")
        )
        assert second.result["resultType"] == "task"
        assert not {"inputRequests", "requestState"} & set(second.result)
        task = await wire.outcome(second.result["taskId"])

    assert task["result"]["content"][0]["text"] == "Hello, Ada!"


@pytest.mark.requirement("T-021")
@pytest.mark.requirement("T-084")
async def test_an_error_of_the_tool_is_a_result(stage: Stage, serve: Serve) -> None:
    """`failed` is for protocol errors; a model must be able to read what its tool said."""

    @stage.tasks.tool()
    async def refuse() -> None:
        raise ToolError("the file is locked")

    @stage.tasks.tool()
    async def crash() -> None:
        raise RuntimeError("secret")

    async with serve(stage.server) as wire:
        for tool, text in (("refuse", "the file is locked"), ("crash", "crash")):
            task = await wire.outcome(await wire.create(tool))
            assert (task["status"], task["result"]["isError"]) == ("completed", True)
            assert text in task["result"]["content"][0]["text"]
            assert "secret" not in str(task)


async def test_a_protocol_error_fails_the_task_as_it_is(stage: Stage, serve: Serve) -> None:
    """Code, message and data are the tool's."""

    @stage.tasks.tool()
    async def fail() -> None:
        raise MCPError(-32050, "not today", {"try": "tomorrow"})

    async with serve(stage.server) as wire:
        task = await wire.outcome(await wire.create("fail"))

    assert task["status"] == "failed"
    assert task["error"] == {"code": -32050, "message": "not today", "data": {"try": "tomorrow"}}
    assert "result" not in task


@pytest.mark.requirement("T-075")
@pytest.mark.parametrize(
    "arguments",
    [
        '{"value": NaN}',
        '{"value": -Infinity}',
        '{"value": "\\ud800"}',
        '{"value": ' + "[" * 200 + "]" * 200 + "}",
        '{"value": 9223372036854775808}',
        '{"value": "' + "x" * 2000 + '"}',
    ],
    ids=["nan", "infinity", "surrogate", "deep", "integer", "large"],
)
async def test_arguments_that_cannot_be_stored_are_refused_and_nothing_is_stored(
    serve: Serve, arguments: str
) -> None:
    """The SDK lets these through; databases would each do something else with them."""
    server: MCPServer[Any] = MCPServer("small", log_level="ERROR")
    tasks = Tasks.install(server, "memory://", config=StoreConfig(max_payload_bytes=1000))

    @tasks.tool()
    async def keep(value: Any) -> None:
        """Take anything."""

    async with serve(server) as wire:
        reply = await _send_text(wire, "keep", arguments)
        stored = await _host(tasks).store.list("anonymous")

    assert (reply.status, reply.error["code"]) == (400, -32602)
    assert "arguments cannot be accepted" in reply.error["message"]
    assert stored.tasks == []


async def test_a_bad_result_is_an_error_outcome(stage: Stage, serve: Serve) -> None:
    """Never a task that stays in `working`."""

    @stage.tasks.tool(structured_output=False)
    async def large() -> str:
        return "x" * (5 * 1024 * 1024)

    @stage.tasks.tool(structured_output=False)
    async def surrogate() -> str:
        return "\ud800"

    async with serve(stage.server) as wire:
        for tool, why in (("large", "bytes of JSON"), ("surrogate", "lone surrogate")):
            task = await wire.outcome(await wire.create(tool))
            assert (task["status"], task["error"]["code"]) == ("failed", -32603)
            assert "the tool's result cannot be accepted: " in task["statusMessage"]
            assert why in task["statusMessage"]


@pytest.mark.parametrize(
    ("value", "fits"),
    [("x" * 600, False), ("\x00" * 100, False), ({"a": ["é" * 300]}, False), ("x" * 400, True)],
    ids=["text", "escaped", "wide", "short"],
)
async def test_a_result_that_is_too_large_because_it_is_there_twice_says_so(
    serve: Serve, *, value: Any, fits: bool
) -> None:
    """The tool's author sees half of the size that the text names."""
    server: MCPServer[Any] = MCPServer("twice", log_level="ERROR")
    tasks = Tasks.install(server, "memory://", config=StoreConfig(max_payload_bytes=1000))

    async def give() -> dict[str, Any] | str:
        return value

    tasks.add_tool(give, "both")
    tasks.add_tool(give, "text", structured_output=False)
    async with serve(server) as wire:
        both = await wire.outcome(await wire.create("both"))
        text = await wire.outcome(await wire.create("text"))

    assert text["status"] == "completed"
    assert both["status"] == ("completed" if fits else "failed")
    if not fits:
        assert both["error"]["code"] == -32603
        assert both["error"]["message"].endswith(
            " bytes of JSON, 1000 are allowed (what the tool returned is in it twice, as text and "
            "in structured form; structured_output=False leaves only the text); nothing was stored"
        )


async def test_a_client_may_have_any_name(stage: Stage, serve: Serve) -> None:
    """A long one is left out of the record: nobody could tell what an error about it is about."""

    @stage.tasks.tool()
    async def ask(ctx: Context[Any, Any]) -> str | None:
        params = ctx.request_context.session.client_params
        return params and params.client_info.name

    def called(name: str) -> dict[str, Any]:
        return {"_meta": {f"{PREFIX}/clientInfo": {"name": name, "version": "1"}}}

    seen: list[Any] = []
    async with serve(stage.server) as wire:
        for name in ("n" * 3000, "n" * 15_900, "n" * 50_000):
            reply = await wire.call("ask", **called(name))
            task = await wire.outcome(reply.result["taskId"])
            seen.append(task["result"]["structuredContent"]["result"])

    assert seen == ["n" * 3000, None, None]


async def test_very_many_capabilities_are_refused_by_their_name(stage: Stage, serve: Serve) -> None:
    """Without them the task could not ask, so they are not left out."""

    @stage.tasks.tool()
    async def ping() -> None:
        """Do nothing."""

    async with serve(stage.server) as wire:
        wire.capabilities["experimental"] = {"x": {"y": "z" * 5000}}
        error = (await wire.call("ping")).error

    assert error["code"] == -32602
    assert error["message"].startswith(f"{PREFIX}/clientCapabilities cannot be accepted: ")
    assert "4096 are allowed" in error["message"]


async def test_a_client_that_goes_away_does_not_leave_half_a_task(
    stage: Stage, serve: Serve
) -> None:
    """What was begun is finished: the task exists, or it was never asked for."""
    started = anyio.Event()

    @stage.tasks.tool()
    async def work() -> None:
        started.set()

    async with serve(stage.server) as wire:
        host = _host(stage.tasks)
        put = host.store.backend.put_if_version

        async def slow(*args: Any, **options: Any) -> Any:
            group.cancel_scope.cancel()
            await anyio.sleep(0.01)
            return await put(*args, **options)

        host.store.backend.put_if_version = slow
        async with anyio.create_task_group() as group:
            group.start_soon(wire.call, "work")
        with anyio.fail_after(5):
            await started.wait()


async def test_what_a_tool_calls_in_turn_is_a_part_of_it(stage: Stage, serve: Serve) -> None:
    """A tool that calls another tool must not be turned into a task by it."""

    @stage.tasks.tool(name="inner")
    async def named() -> str:
        return "inner"

    @stage.server.tool()
    async def outer() -> str:
        result = await stage.server.call_tool("inner", {})
        return f"outer of {text_of(result)}"

    @stage.tasks.tool()
    async def outer_task() -> str:
        result = await stage.server.call_tool("inner", {})
        return f"task of {text_of(result)}"

    async with serve(stage.server) as wire:
        assert (await wire.call("outer")).result["content"][0]["text"] == "outer of inner"
        task = await wire.outcome(await wire.create("outer_task"))

    assert task["result"]["content"][0]["text"] == "task of inner"


async def _send_text(wire: Wire, tool: str, arguments: str) -> Any:
    """Send arguments that no JSON encoder would write."""
    encode = wire.http.post

    async def post(url: str, *, content: str, headers: dict[str, str]) -> Any:
        return await encode(url, content=content.replace('"@@"', arguments), headers=headers)

    cast("Any", wire.http).post = post
    return await wire.call(tool, "@@")


def text_of(result: Any) -> str:
    """Return the text of a result."""
    return result.content[0].text


def _host(tasks: Tasks) -> Any:
    return tasks._hosts.current()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]

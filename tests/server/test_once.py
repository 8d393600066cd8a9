"""Calls with an idempotency key: one task, however often and wherever they arrive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import anyio
import httpx
import pytest
from mcp.server.mcpserver.resolve import Elicit, Resolve
from pydantic import BaseModel

from .shop import Shop


if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Reply, Serve, Stage, Wire


def keyed(key: Any) -> dict[str, Any]:
    """Return what a call with a key has more than others."""
    return {"_meta": {"mcp-tasks/idempotencyKey": key}}


def new_key() -> str:
    """Make a key that nobody guesses."""
    return str(uuid4())


class Name(BaseModel):
    """Somebody's name."""

    name: str


async def ask_name() -> Elicit[Name]:
    """Ask for a name before the tool runs."""
    return Elicit("Who?", Name)


async def test_a_repeated_call_is_answered_with_the_same_task(stage: Stage, serve: Serve) -> None:
    """As it is by then; without a key each call is a call of its own."""
    ran: list[int] = []

    @stage.tasks.tool()
    async def order(number: int) -> int:
        ran.append(number)
        return number

    key = new_key()
    async with serve(stage.server) as wire:
        first = (await wire.call("order", {"number": 1}, **keyed(key))).result
        await wire.outcome(first["taskId"])
        again = (await wire.call("order", {"number": 1}, **keyed(key))).result
        other = (await wire.call("order", {"number": 1}, **keyed(new_key()))).result
        await wire.outcome(other["taskId"])
        await wire.outcome(await wire.create("order", {"number": 1}))

    assert (first["resultType"], first["status"]) == ("task", "working")
    assert (again["resultType"], again["status"]) == ("task", "completed")
    assert "result" not in again
    assert again["taskId"] == first["taskId"] != other["taskId"]
    assert ran == [1, 1, 1]


async def test_other_arguments_under_the_same_key_are_refused(stage: Stage, serve: Serve) -> None:
    """With an error that says so, and no second run."""
    ran: list[int] = []

    @stage.tasks.tool()
    async def order(number: int) -> int:
        ran.append(number)
        return number

    key = new_key()
    async with serve(stage.server) as wire:
        first = (await wire.call("order", {"number": 1}, **keyed(key))).result
        reply = await wire.call("order", {"number": 2}, **keyed(key))
        await wire.outcome(first["taskId"])

    assert (reply.status, reply.error["code"]) == (400, -32602)
    assert "with other arguments; no task was created" in reply.error["message"]
    assert ran == [1]


@pytest.mark.parametrize("key", ["", "x" * 31, "x" * 256, "ü" * 40, 7, ["x" * 40], {}])
async def test_what_is_no_key_is_refused(stage: Stage, serve: Serve, key: Any) -> None:
    """A caller who believes in their key must not learn too late that it was none."""

    @stage.tasks.tool()
    async def order() -> None:
        """Do nothing."""

    async with serve(stage.server) as wire:
        reply = await wire.call("order", **keyed(key))

    assert (reply.status, reply.error["code"]) == (400, -32602)
    assert "the idempotency key cannot be accepted" in reply.error["message"]


async def test_no_key_is_none(stage: Stage, serve: Serve) -> None:
    """Some clients write down what they do not have."""

    @stage.tasks.tool()
    async def order() -> None:
        """Do nothing."""

    async with serve(stage.server) as wire:
        made = [(await wire.call("order", **keyed(None))).result["taskId"] for _ in range(2)]

    assert made[0] != made[1]


async def test_nobody_is_asked_again_what_the_first_call_asked(stage: Stage, serve: Serve) -> None:
    """Rounds of input come before a task exists; a repeat finds it before they begin."""

    @stage.tasks.tool()
    async def greet(name: Annotated[Name, Resolve(ask_name)]) -> str:
        return f"Hello, {name.name}!"

    key = new_key()
    async with serve(stage.server) as wire:
        asked = (await wire.call("greet", **keyed(key))).result
        assert asked["resultType"] == "input_required"
        (question,) = asked["inputRequests"]
        answers = {question: {"action": "accept", "content": {"name": "Ada"}}}
        state = asked.get("requestState")
        made = await wire.call("greet", inputResponses=answers, requestState=state, **keyed(key))
        again = await wire.call("greet", **keyed(key))
        task = await wire.outcome(again.result["taskId"])

    assert again.result["taskId"] == made.result["taskId"]
    assert task["result"]["content"][0]["text"] == "Hello, Ada!"


async def test_a_call_without_a_task_knows_no_keys(stage: Stage, serve: Serve) -> None:
    """Nothing is kept of it that could be found."""
    ran: list[int] = []

    @stage.tasks.tool()
    async def order() -> None:
        ran.append(1)

    @stage.server.tool()
    async def plain() -> None:
        ran.append(2)

    key = new_key()
    async with serve(stage.server) as wire:
        for _ in range(2):
            await wire.undeclared().call("order", **keyed(key))
            await wire.call("plain", **keyed(key))

    assert ran == [1, 2, 1, 2]


# --- two processes -------------------------------------------------------------------------------


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """Give one without servers."""
    return Shop(tmp_path)


async def order(wire: Wire, number: int, key: str) -> Reply:
    """Call the tool."""
    return await wire.call("order", {"number": number}, **keyed(key))


async def test_two_servers_that_get_a_call_at_once_run_it_once(shop: Shop) -> None:
    """A client, or a proxy, that tries the other server does not know what the first one does."""
    found: list[tuple[int, str]] = []

    async def call(wire: Wire, number: int, key: str) -> None:
        found.append((number, (await order(wire, number, key)).result["taskId"]))

    async with shop.server() as one, shop.server() as two:
        for number in range(25):
            key = new_key()
            async with anyio.create_task_group() as group:
                for wire in (one, two, one, two):
                    group.start_soon(call, wire, number, key)
            await two.outcome(found[-1][1])

    assert len(set(found)) == 25
    assert sorted(shop.orders) == list(range(25))
    assert len(await shop.task_ids()) == 25


@pytest.mark.parametrize(
    "place",
    [
        "create.before_writes",
        "create.after_roster_before_record",
        "create.after_put_before_reply",
    ],
)
async def test_a_server_killed_under_a_call_leaves_one_task_for_the_one_that_repeats_it(
    shop: Shop, place: str
) -> None:
    """Whether there was a task is not known then, and need not be."""
    key = new_key()
    async with shop.server(f"{place}:kill:1") as one:
        with pytest.raises(httpx.TransportError):
            await order(one, 1, key)
        async with shop.server() as two:
            task_id = (await order(two, 1, key)).result["taskId"]
            assert (await order(two, 1, key)).result["taskId"] == task_id
            refused = await order(two, 2, key)
            task = await two.outcome(task_id)

    assert task["status"] == "completed"
    assert refused.error["code"] == -32602
    assert shop.orders == [1]
    assert await shop.task_ids() == [task_id]

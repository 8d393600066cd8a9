"""Values of a wrong type are refused, and leave the task as it was, readable as before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from mcp_tasks.domain.codec import decode_record, encode_record
from mcp_tasks.domain.record import Call, Policy, Progress, inline
from mcp_tasks.domain.status import TaskStatus
from mcp_tasks.errors import InvalidValueError


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mcp_tasks.store import TaskStore


CALL = Call("tool", inline(b"{}"))
ELICIT: dict[str, Any] = {"mode": "form", "message": "?", "requestedSchema": {}}


class Text(str):
    """A text of a type that the encoder does not know."""

    __slots__ = ()


@dataclass
class Half:
    """Equal to a number, and none."""

    value: float = 0.5


def wrong(value: Any) -> Any:
    """Pass for what is wanted."""
    return value


DOORS: dict[str, Callable[[TaskStore, str], Awaitable[Any]]] = {
    "progress of nothing": lambda s, t: s.progress("ada", t, wrong(None), None, "words"),
    "progress of a text": lambda s, t: s.progress("ada", t, wrong("3")),
    "progress of a truth": lambda s, t: s.progress("ada", t, current=True),
    "progress of an object": lambda s, t: s.progress("ada", t, wrong(Half())),
    "progress of too much": lambda s, t: s.progress("ada", t, 10**400),
    "progress without an end": lambda s, t: s.progress("ada", t, 1, float("inf")),
    "progress with a number to read": lambda s, t: s.progress("ada", t, 1, 2, wrong(3)),
    "a status with a number to read": lambda s, t: s.update_status(
        "ada", t, TaskStatus.WORKING, wrong(5)
    ),
    "an end with a number to read": lambda s, t: s.complete_with_result("ada", t, {}, wrong(5)),
    "a code of letters": lambda s, t: s.fail("ada", t, wrong("x"), "no"),
    "half a code": lambda s, t: s.fail("ada", t, wrong(1.5), "no"),
    "a numbered question": lambda s, t: s.ask("ada", t, wrong(5), "elicitation/create", ELICIT),
    "an odd text as a key": lambda s, t: s.ask("ada", t, Text("k"), "elicitation/create", ELICIT),
    "a numbered method": lambda s, t: s.ask("ada", t, "q", wrong(5), ELICIT),
    "cancelled by a number": lambda s, t: s.cancel("ada", t, by=wrong(5)),
}


@pytest.mark.parametrize("door", DOORS)
async def test_a_value_of_a_wrong_type_is_refused_and_changes_nothing(
    store: TaskStore, door: str
) -> None:
    """The encoder would take it, and the decoder refuse it from then on."""
    task = await store.create("ada", CALL)

    with pytest.raises(InvalidValueError):
        await DOORS[door](store, task.task_id)

    assert await store.get("ada", task.task_id) == task


CREATIONS: dict[str, Callable[[TaskStore], Awaitable[Any]]] = {
    "by a number": lambda s: s.create("ada", CALL, by=wrong(5)),
    "a number between polls": lambda s: s.create("ada", CALL, poll_interval=wrong(1)),
    "half an attempt": lambda s: s.create("ada", CALL, policy=Policy(max_attempts=wrong(2.5))),
    "a numbered tool": lambda s: s.create("ada", Call(wrong(5), inline(b"{}"))),
    "arguments that are no JSON": lambda s: s.create("ada", Call("tool", inline(b"{nope"))),
}


@pytest.mark.parametrize("creation", CREATIONS)
async def test_a_task_of_wrong_types_is_not_created(store: TaskStore, creation: str) -> None:
    """It could never be read, run or removed by hand."""
    with pytest.raises(InvalidValueError):
        await CREATIONS[creation](store)

    assert (await store.list("ada")).tasks == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("progress", Progress(wrong("3"))),
        ("attempt", "1"),
        ("message", ["a"]),
        ("result", inline(b"{nope")),
        ("writes", (1,)),
    ],
)
async def test_what_is_encoded_can_be_decoded(store: TaskStore, field: str, value: Any) -> None:
    """Whatever was checked before: the codec is the last one that looks."""
    record = await store.create("ada", CALL)

    with pytest.raises(InvalidValueError, match="the task's record"):
        encode_record(replace(record, **{field: value}))
    assert decode_record(encode_record(record)) == record


async def test_progress_in_large_numbers_reads_as_such(store: TaskStore) -> None:
    """Not as 1.23457e+06."""
    task = await store.create("ada", CALL)

    shown = await store.progress("ada", task.task_id, 1_234_567, 2_000_000)

    assert shown.message == "1234567 of 2000000"


async def test_too_long_a_message_is_cut(store: TaskStore) -> None:
    """A person reads it; it is no reason to end the task."""
    task = await store.create("ada", CALL)

    shown = await store.progress("ada", task.task_id, 1, 2, "\n" * 5000)

    assert shown.progress is not None
    assert shown.progress.message == "\n" * 4093 + "…"

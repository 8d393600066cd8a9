"""The gate by which values enter a record."""

from __future__ import annotations

import enum
import json
import math
from collections import Counter, OrderedDict, defaultdict
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_tasks.errors import InvalidValueError
from mcp_tasks.jsonio import MAX_DEPTH, MAX_INTEGER, MIN_INTEGER, from_json, to_json


def gate(value: object, **limits: int) -> bytes:
    """Pass a value through the gate."""
    return to_json(value, what="the value", **{"max_bytes": 10_000, **limits})


def nested(depth: int, kind: type[Any]) -> Any:
    """Nest so many containers."""
    value: Any = 1
    for _ in range(depth):
        value = {"a": value} if kind is dict else [value]
    return value


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(MIN_INTEGER, MAX_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(values)
def test_what_passes_comes_back_bit_by_bit(value: Any) -> None:
    """In our decoder and in anybody's: types, the sign of zero, the order of names."""
    data = to_json(value, what="the value", max_bytes=2**20)

    assert repr(from_json(data)) == repr(json.loads(data)) == repr(value)
    assert to_json(from_json(data), what="the value", max_bytes=2**20) == data


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_does_not_have_are_refused(bad: float) -> None:
    """Databases and clients disagree about them."""
    for value in (bad, [bad], {"a": {"b": (1, bad)}}):
        with pytest.raises(InvalidValueError, match="NaN and infinities"):
            gate(value)


@pytest.mark.parametrize("bad", ["\ud800", "a\udfff", "\udc00\ud800"])
def test_text_that_is_no_unicode_is_refused(bad: str) -> None:
    """As a value and as a name."""
    for value in (bad, [bad], {bad: 1}, {"a": {bad: None}}):
        with pytest.raises(InvalidValueError, match="lone surrogate"):
            gate(value)


def test_integers_have_sixty_four_bits() -> None:
    """The edges pass; one more is refused, for other languages would round it."""
    assert gate([MAX_INTEGER, MIN_INTEGER]) == b"[9223372036854775807,-9223372036854775808]"
    for bad in (MAX_INTEGER + 1, MIN_INTEGER - 1, 10**5000):
        with pytest.raises(InvalidValueError, match="beyond 64 bits"):
            gate(bad)


@pytest.mark.parametrize("kind", [list, dict])
def test_depth_is_bounded(kind: type[Any]) -> None:
    """A plain value is depth 0, so so many containers pass and one more fails."""
    gate(nested(MAX_DEPTH, kind))
    gate(nested(3, kind), max_depth=3)
    with pytest.raises(InvalidValueError, match="nested too deeply"):
        gate(nested(MAX_DEPTH + 1, kind))
    with pytest.raises(InvalidValueError, match="nested too deeply"):
        gate(nested(4, kind), max_depth=3)


def test_a_value_that_holds_itself_is_too_deep() -> None:
    """It does not take the process with it."""
    circle: list[Any] = []
    circle.append(circle)
    for value in (circle, nested(100_000, list)):
        with pytest.raises(InvalidValueError, match="nested too deeply"):
            gate(value)


@pytest.mark.parametrize("bad", [b"x", {1}, object(), 1j, range(3), iter([]), Exception, ...])
def test_types_that_json_does_not_have_are_refused(bad: object) -> None:
    """By name, so that the author of a tool finds the place."""
    for value in (bad, [bad], {"a": bad}):
        with pytest.raises(InvalidValueError, match="is not JSON"):
            gate(value)


@pytest.mark.parametrize("name", [1, None, True, 1.5, ("a",), b"a"])
def test_names_are_strings(name: object) -> None:
    """No silent `"1"` that comes back as something else."""
    with pytest.raises(InvalidValueError, match="JSON has only strings"):
        gate({name: 1})


class Colour(enum.StrEnum):
    """A string by another name."""

    RED = "red"


class Level(enum.IntEnum):
    """A number by another name."""

    HIGH = 3


class Mixed(enum.StrEnum):
    """A string as older code makes it."""

    A = "a"


class Text(str):
    """A string with manners of its own."""

    __slots__ = ()


class Number(int):
    """An integer with manners of its own."""


class Real(float):
    """A float with manners of its own."""


class Point(NamedTuple):
    """A tuple with names."""

    x: int
    y: int


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((1, (2,)), b"[1,[2]]"),
        (Colour.RED, b'"red"'),
        (Level.HIGH, b"3"),
        (Mixed.A, b'"a"'),
        (Text("x"), b'"x"'),
        (Number(7), b"7"),
        (Real(1.5), b"1.5"),
        (Point(1, 2), b"[1,2]"),
        (OrderedDict([("b", 1), ("a", 2)]), b'{"b":1,"a":2}'),
        (defaultdict(list, a=[Text("x")]), b'{"a":["x"]}'),
        (Counter("aa"), b'{"a":2}'),
        ({"a": [Level.HIGH, {"b": Number(1)}]}, b'{"a":[3,{"b":1}]}'),
    ],
)
def test_a_subclass_passes_as_what_it_is(value: object, expected: bytes) -> None:
    """Libraries hand out their own strings and numbers."""
    assert gate(value) == expected


@pytest.mark.parametrize("bad", [Real("nan"), Number(2**63), [Real("inf")], Text("\ud800")])
def test_a_subclass_slips_nothing_through(bad: object) -> None:
    """What it is made of is checked all the same."""
    with pytest.raises(InvalidValueError):
        gate(bad)


def test_the_size_is_that_of_the_encoding() -> None:
    """UTF-8, compact; equal is allowed."""
    assert gate({"a": "é"}, max_bytes=10) == '{"a":"é"}'.encode()
    with pytest.raises(InvalidValueError, match="10 bytes of JSON, 9 are allowed"):
        gate({"a": "é"}, max_bytes=9)


def test_a_single_string_may_have_a_limit_of_its_own() -> None:
    """In bytes, at any depth; names are not counted."""
    gate({"x" * 100: ["é" * 5]}, max_string=10)
    for value in ("é" * 6, ["x" * 11], {"a": {"b": "x" * 11}}):
        with pytest.raises(InvalidValueError, match="10 are allowed"):
            gate(value, max_string=10)


def test_a_refusal_names_the_value_and_shows_none_of_it() -> None:
    """It may be logged where secrets do not belong."""
    with pytest.raises(InvalidValueError) as refused:
        to_json({"password": object()}, what="the arguments", max_bytes=10)

    assert str(refused.value) == (
        "the arguments cannot be accepted: a value of type object is not JSON; nothing was stored"
    )
    assert refused.value.code == -32602

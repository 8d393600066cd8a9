"""Variables: merged, checked and measured."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_tasks.domain import variables
from mcp_tasks.errors import InvalidValueError, VariablesTooLargeError


names = st.text(max_size=3)
values = st.none() | st.integers(0, 3) | st.lists(st.none(), max_size=2)


@given(
    st.dictionaries(names, values.filter(lambda value: value is not None)),
    st.dictionaries(names, values),
)
def test_a_merge_takes_what_is_named_and_leaves_the_rest(
    current: dict[str, Any], changes: dict[str, Any]
) -> None:
    """`None` removes a name; other values replace it whole; neither input is touched."""
    before = (dict(current), dict(changes))

    merged = variables.merge(current, changes)

    assert merged == {
        name: changes.get(name, current.get(name))
        for name in current.keys() | changes.keys()
        if changes.get(name, current.get(name)) is not None and changes.get(name, 0) is not None
    }
    assert (current, changes) == before


def test_a_merge_goes_no_deeper() -> None:
    """Whoever sets a value knows all of it."""
    assert variables.merge({"a": {"x": 1}}, {"a": {"y": None}}) == {"a": {"y": None}}


@pytest.mark.parametrize(
    "bad", [{1: 2}, {"a": float("nan")}, {"a": "\ud800"}, {"a": object()}, {"a": {None: 1}}]
)
def test_what_is_no_json_is_no_variable(bad: dict[Any, Any]) -> None:
    """A name, or a value, at any depth."""
    with pytest.raises(InvalidValueError):
        variables.check(bad, max_depth=10, max_string=100)


def test_removing_needs_no_value() -> None:
    """`None` passes every check."""
    variables.check({"a": None}, max_depth=0, max_string=0)


def test_the_size_of_all_is_what_counts() -> None:
    """Equal is allowed; the refusal says both numbers."""
    assert variables.encode({"a": 1}, max_bytes=7) == b'{"a":1}'
    with pytest.raises(VariablesTooLargeError, match="8 bytes of JSON, 7 are allowed"):
        variables.encode({"a": 12}, max_bytes=7)


def test_a_name_that_cannot_be_stored_is_refused() -> None:
    """Before it is merged into anything."""
    with pytest.raises(InvalidValueError):
        variables.encode({"\ud800": 1}, max_bytes=100)

"""A task's variables: memory that its attempts and other programs share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mcp_tasks.errors import InvalidValueError, VariablesTooLargeError
from mcp_tasks.jsonio import to_json


def merge(current: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `current` with `changes`: `None` removes a name, other values replace it whole."""
    merged = dict(current)
    for name, value in changes.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = value
    return merged


def check(changes: Mapping[str, Any], *, max_depth: int, max_string: int) -> None:
    """Refuse changes that are no variables.

    Raises:
        InvalidValueError: They are no mapping, a name is no string, or a value is no JSON, nested
            deeper than `max_depth` (a plain value is 0), or holds a string of over `max_string`
            bytes.
    """
    if not isinstance(changes, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] - a tool's
        raise InvalidValueError("variables", f"{type(changes).__name__} is no mapping")
    for name, value in changes.items():
        if type(name) is not str:
            raise InvalidValueError("variables", "names are strings")
        to_json(
            value,
            what=f"the variable {name!r}",
            max_bytes=2**31,
            max_depth=max_depth,
            max_string=max_string,
        )


def encode(variables: Mapping[str, Any], *, max_bytes: int) -> bytes:
    """Encode all variables.

    Raises:
        VariablesTooLargeError: More than `max_bytes` of JSON; equal is allowed.
    """
    data = to_json(dict(variables), what="variables", max_bytes=2**31)
    if len(data) > max_bytes:
        raise VariablesTooLargeError(len(data), max_bytes)
    return data

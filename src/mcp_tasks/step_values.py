"""How the value of a step becomes JSON and comes back: by the annotation of the step's function."""

from __future__ import annotations

import contextlib
import functools
import inspect
import types
import typing
import weakref
from collections.abc import Awaitable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from pydantic import PydanticUserError, TypeAdapter, ValidationError

from mcp_tasks.errors import InvalidValueError
from mcp_tasks.jsonio import to_json


if TYPE_CHECKING:
    from collections.abc import Callable


MAX_STEP_BYTES: Final = 4 * 1024 * 1024
"""The largest value of a step, as JSON."""


class StepValues:
    """How the value of a step becomes JSON and comes back, by its function's annotation."""

    def __init__(self, annotation: Any) -> None:
        self._adapter: TypeAdapter[Any] = TypeAdapter(annotation)

    def dump(self, key: str, value: Any) -> bytes:
        """Make the JSON that is recorded.

        Raises:
            InvalidValueError: It is not what the function says it returns, or too large.
        """
        what = f"the value of step {key!r}"
        try:
            plain = self._adapter.dump_python(value, mode="json", warnings="error")
        except (ValueError, TypeError) as error:
            problem = f"{type(value).__name__} does not become JSON as what its function returns"
            raise InvalidValueError(what, problem) from error
        return to_json(plain, what=what, max_bytes=MAX_STEP_BYTES)

    def load(self, key: str, data: bytes) -> Any:
        """Make the value that every run of the tool sees, the first one too.

        Raises:
            InvalidValueError: What was recorded does not fit the function any more.
        """
        try:
            return self._adapter.validate_json(data)
        except ValidationError as error:
            errors = error.error_count()
            problem = f"what was recorded is not what the step returns ({errors} errors)"
            raise InvalidValueError(f"the value of step {key!r}", problem) from error


def bare(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Strip partial application, and the instance off a bound method."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return getattr(fn, "__func__", fn)


# By function, and only for as long as it lives: a closure may hold much.
_signatures: weakref.WeakKeyDictionary[Callable[..., Any], tuple[str, StepValues]] = (
    weakref.WeakKeyDictionary()
)


def values_of(key: str, fn: Callable[..., Any]) -> tuple[str, StepValues]:
    """Name `fn`, and find out how to carry what it returns.

    Raises:
        InvalidValueError: What it returns has no form as JSON.
    """
    try:
        known = _signatures.get(fn)
    except TypeError:  # a callable object that cannot be a key
        return _look_at(key, fn)
    if known is None:
        known = _look_at(key, fn)
        with contextlib.suppress(TypeError):
            _signatures[fn] = known
    return known


def _look_at(key: str, fn: Callable[..., Any]) -> tuple[str, StepValues]:
    named: Any = inspect.unwrap(fn)
    target = named if inspect.isroutine(named) or inspect.isclass(named) else type(named).__call__
    name = str(getattr(named, "__qualname__", type(named).__qualname__))
    # Only what it returns matters: its parameters may name what exists for type checkers alone.
    returns = {"return": getattr(target, "__annotations__", {}).get("return", Any)}
    holder = types.SimpleNamespace(__annotations__=returns)
    try:
        annotation = typing.get_type_hints(holder, getattr(target, "__globals__", {}))["return"]
    except (NameError, TypeError) as error:
        problem = (
            f"{name} returns {returns['return']!r}, which cannot be found when it runs ({error}); "
            "import it outside of TYPE_CHECKING"
        )
        raise InvalidValueError(f"the value of step {key!r}", problem) from error
    if typing.get_origin(annotation) in (Awaitable, Coroutine):
        annotation = typing.get_args(annotation)[-1]
    try:
        return name, StepValues(annotation)
    except (PydanticUserError, NameError) as error:
        problem = f"{name} returns {annotation!r}, which has no form as JSON"
        raise InvalidValueError(f"the value of step {key!r}", problem) from error

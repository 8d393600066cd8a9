"""Where a tool wants its task, and what the rest of the world sees of its signature.

The SDK makes a tool's input schema from its signature. The parameter for the task must not show
there, so a wrapper carries a signature without it. Everything that cannot work is refused here, at
registration, in words that say what to do.
"""

from __future__ import annotations

import functools
import inspect
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from mcp_tasks.context import SyncTaskContext, TaskContext
from mcp_tasks.errors import ConfigurationError


if TYPE_CHECKING:
    from collections.abc import Callable

_CONTEXTS = (TaskContext, SyncTaskContext)
_NAMES = ("TaskContext", "SyncTaskContext")
_PASSED_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True)
class Shape:
    """What a wrapper needs to know of the function it wraps.

    Attributes:
        is_async: It is awaited; otherwise it runs in a thread.
        parameter: Where it wants its task; `None` if it does not.
        public: The signature without that parameter; `None` if there is nothing to hide.
    """

    is_async: bool
    parameter: str | None
    public: inspect.Signature | None


def shape_of(fn: Callable[..., Any]) -> Shape:
    """Find out how to call `fn`.

    Raises:
        ConfigurationError: Its parameter for the task is of the wrong kind, in the wrong place,
            there twice, or cannot be resolved.
    """
    is_async = _is_async(fn)
    signature = _signature(fn)
    found: list[str] = []
    for parameter in signature.parameters.values():
        kind = _context_in(parameter.annotation)
        if kind is None:
            _check_elsewhere(fn, parameter)
            continue
        _check_place(fn, parameter)
        _check_kind(fn, parameter, kind, is_async=is_async)
        found.append(parameter.name)
    if len(found) > 1:
        raise ConfigurationError(
            f"{_name(fn)} wants its task twice, as {found[0]!r} and {found[1]!r}; keep one of them"
        )
    if not found:
        return Shape(is_async, None, None)
    kept = [p for p in signature.parameters.values() if p.name != found[0]]
    return Shape(is_async, found[0], signature.replace(parameters=kept))


def hide(wrapper: Callable[..., Any], shape: Shape) -> None:
    """Give a wrapper the signature and annotations that the SDK is to see."""
    if shape.public is None:
        return
    annotations = {
        name: parameter.annotation
        for name, parameter in shape.public.parameters.items()
        if parameter.annotation is not inspect.Parameter.empty
    }
    if shape.public.return_annotation is not inspect.Signature.empty:
        annotations["return"] = shape.public.return_annotation
    wrapper.__annotations__ = annotations
    wrapper.__signature__ = shape.public


def _is_async(fn: Callable[..., Any]) -> bool:
    while isinstance(fn, functools.partial):
        fn = fn.func
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(
        getattr(fn, "__call__", None)  # noqa: B004 - its kind is asked, not whether it is there
    )


def _signature(fn: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of `fn`, with annotations resolved wherever the task depends on it."""
    try:
        return inspect.signature(fn, eval_str=True)
    except Exception as error:  # noqa: BLE001 - an annotation is an expression and may raise anything
        plain = inspect.signature(fn)
        culprit = error
    for parameter in plain.parameters.values():
        text = parameter.annotation
        if isinstance(text, str) and any(name in text for name in _NAMES):
            raise ConfigurationError(
                f"the annotations of {_name(fn)} cannot be resolved ({culprit}), and its parameter "
                f"{parameter.name!r} is annotated {text!r}. Import TaskContext, and every other "
                "type in the signature, where the function is defined: not under TYPE_CHECKING and "
                "not inside another function"
            ) from culprit
    # Nothing here is about tasks, so whether the annotations matter is for the SDK to say.
    return plain


def _context_in(annotation: Any) -> type | None:
    """Return which context an annotation asks for: bare, `Annotated`, or `| None`."""
    if typing.get_origin(annotation) is Annotated:
        return _context_in(typing.get_args(annotation)[0])
    if isinstance(annotation, type):
        return next((kind for kind in _CONTEXTS if issubclass(annotation, kind)), None)
    members = [arm for arm in typing.get_args(annotation) if arm is not type(None)]
    is_optional = len(members) == 1 and len(typing.get_args(annotation)) > 1
    return _context_in(members[0]) if is_optional else None


def _check_elsewhere(fn: Callable[..., Any], parameter: inspect.Parameter) -> None:
    annotation = parameter.annotation
    if any(_context_in(part) or _deep(part) for part in typing.get_args(annotation)):
        raise ConfigurationError(
            f"parameter {parameter.name!r} of {_name(fn)} has a TaskContext inside another type "
            f"({annotation!r}); annotate it with TaskContext itself"
        )


def _deep(annotation: Any) -> bool:
    return any(_context_in(part) or _deep(part) for part in typing.get_args(annotation))


def _check_place(fn: Callable[..., Any], parameter: inspect.Parameter) -> None:
    if parameter.kind not in _PASSED_BY_NAME:
        raise ConfigurationError(
            f"parameter {parameter.name!r} of {_name(fn)} is {parameter.kind.description}, but the "
            "task is passed by name; make it an ordinary parameter"
        )


def _check_kind(
    fn: Callable[..., Any], parameter: inspect.Parameter, kind: type, *, is_async: bool
) -> None:
    wanted = TaskContext if is_async else SyncTaskContext
    if kind is not wanted:
        sort = "an async def" if is_async else "a plain def"
        raise ConfigurationError(
            f"parameter {parameter.name!r} of {_name(fn)} is a {kind.__name__}, but {_name(fn)} is "
            f"{sort}; annotate it with {wanted.__name__}"
        )


def _name(fn: Callable[..., Any]) -> str:
    while isinstance(fn, functools.partial):
        fn = fn.func
    return repr(getattr(fn, "__qualname__", type(fn).__qualname__))

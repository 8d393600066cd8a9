"""Tools that may run as a task: their options, and the wrapper that the server calls for them.

The wrapper is called twice for one task. On the client's request it raises `Escalation` where the
tool would run; in the task's own run it runs the tool, with the task filled in.
"""

from __future__ import annotations

import functools
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

from mcp_tasks.context import SyncTaskContext, TaskContext
from mcp_tasks.domain.record import Policy
from mcp_tasks.errors import ConfigurationError, TaskError
from mcp_tasks.runner import InlineOperations
from mcp_tasks.server.owners import current_principal
from mcp_tasks.server.refusals import protocol_error
from mcp_tasks.server.signatures import hide, shape_of
from mcp_tasks.server.slots import Escalation, Mode, slot


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


_CONTEXTS: Final = (TaskContext, SyncTaskContext)


class TaskTool:
    """What is agreed for a tool: when it needs a task, and what may be done with one.

    Args:
        name: As the server knows it; `None` where the wrapper cannot know.
        required: Refuse calls that cannot become a task.
        ttl: How long a task lives from its creation; `None` for the store's default.
        poll_interval: What clients are told to wait between polls; `None` for the store's default.
        resumable: A run that was lost is begun again from the top and finds its steps and answers.
        on_worker_loss: `fail` ends a task whose worker was lost, `rerun` begins it again.
        max_attempts: How many runs may be lost before the task is given up.

    Raises:
        ConfigurationError: A value that cannot work.
    """

    __slots__ = ("name", "policy", "poll_interval", "required", "ttl")

    def __init__(
        self,
        name: str | None,
        *,
        required: bool,
        ttl: timedelta | None,
        poll_interval: timedelta | None,
        resumable: bool,
        on_worker_loss: Literal["fail", "rerun"],
        max_attempts: int,
    ) -> None:
        for option, value in (("ttl", ttl), ("poll_interval", poll_interval)):
            if value is not None and value < timedelta(milliseconds=1):
                raise ConfigurationError(f"{option}={value!r} is less than a millisecond")
        if on_worker_loss not in ("fail", "rerun"):
            raise ConfigurationError(f"on_worker_loss={on_worker_loss!r} is not 'fail' or 'rerun'")
        if max_attempts < 1:
            raise ConfigurationError(f"max_attempts={max_attempts!r} is less than 1")
        self.name = name
        self.required = required
        self.ttl = ttl
        self.poll_interval = poll_interval
        self.policy = Policy(
            on_worker_loss=on_worker_loss, resumable=resumable, max_attempts=max_attempts
        )


def wrap(fn: Callable[..., Any], tool: TaskTool) -> Callable[..., Awaitable[Any]]:
    """Make the function that the server calls for `fn`.

    It is a coroutine function whatever `fn` is: a plain function runs in a thread of ours, so that
    long tasks do not use up the threads that the SDK's own tools share.

    Raises:
        ConfigurationError: The parameter for the task cannot work; the text says what to do.
    """
    shape = shape_of(fn)
    parameter = shape.parameter

    async def call(*args: Any, **kwargs: Any) -> Any:
        task = _enter(tool)
        if parameter is not None and parameter not in kwargs:
            # A test may call the function itself and bring a context of its own.
            if not any(isinstance(value, _CONTEXTS) for value in args):
                kwargs[parameter] = task if shape.is_async else SyncTaskContext(task)
        try:
            if shape.is_async:
                return await fn(*args, **kwargs)
            return await task.run_sync(functools.partial(fn, *args, **kwargs))
        except TaskError as error:
            # A refusal of the library that a tool does not handle is the protocol's business; the
            # SDK would replace its text by a general one.
            raise protocol_error(error) from error

    functools.update_wrapper(call, fn)
    if not hasattr(fn, "__name__") and tool.name is not None:
        call.__name__ = tool.name
    hide(call, shape)
    return call


def _enter(tool: TaskTool) -> TaskContext:
    """Return the context to run the tool with, or leave by the exception that stands for it."""
    found = slot.get()
    if found is None or (tool.name is not None and found.tool != tool.name):
        return _inline()
    mode = found.mode
    if mode is Mode.OFFER:
        raise Escalation(tool)
    found.mode = Mode.USED
    if mode is Mode.RUN and found.task is not None:
        return found.task
    if mode is Mode.REFUSE and tool.required and found.refuse is not None:
        found.refuse()
    return _inline()


def _inline() -> TaskContext:
    return TaskContext(InlineOperations(), principal=current_principal())

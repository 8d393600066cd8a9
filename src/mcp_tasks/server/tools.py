"""The wrapper that the server calls for a tool that may run as a task.

The wrapper is called twice for one task. On the client's request it raises `Escalation` where the
tool would run; in the task's own run it runs the tool, with the task filled in.
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any, Final

from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR

from mcp_tasks.context import SyncTaskContext, TaskContext
from mcp_tasks.errors import TaskError
from mcp_tasks.runner import InlineOperations
from mcp_tasks.server.owners import current_principal
from mcp_tasks.server.refusals import protocol_error
from mcp_tasks.server.signatures import hide, shape_of
from mcp_tasks.server.slots import Escalation, Mode, slot


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anyio import CapacityLimiter

    from mcp_tasks.server.options import TaskTool


_CONTEXTS: Final = (TaskContext, SyncTaskContext)


def wrap(fn: Callable[..., Any], tool: TaskTool) -> Callable[..., Awaitable[Any]]:
    """Make the function that the server calls for `fn`.

    It is a coroutine function whatever `fn` is: a plain function runs in a thread of ours, so that
    long tasks do not use up the threads that the SDK's own tools share.

    Raises:
        ConfigurationError: The parameter for the task cannot work; the text says what to do.
    """
    shape = shape_of(fn)
    parameter = shape.parameter
    timeout = tool.policy.timeout

    async def call(*args: Any, **kwargs: Any) -> Any:
        task = _enter(tool)
        if (
            parameter is not None
            and parameter not in kwargs
            # Whoever calls the function itself, as a test may, brings a context.
            and not any(isinstance(value, _CONTEXTS) for value in args)
        ):
            kwargs[parameter] = task if shape.is_async else SyncTaskContext(task)
        # The time of a task is kept by who runs it.
        limit = asyncio.timeout(None if task.durable else timeout)
        try:
            async with limit:
                if shape.is_async:
                    return await fn(*args, **kwargs)
                return await task.run_sync(functools.partial(fn, *args, **kwargs), whole=True)
        except TimeoutError as error:
            if not limit.expired():
                raise
            text = f"the tool was stopped: it may run for {timeout:g} s, and had not ended by then"
            data = {"reason": "timed_out", "timeout": timeout, "mayHaveRun": True}
            raise MCPError(INTERNAL_ERROR, text, data) from error
        except SystemExit as error:
            # It would end the server, and the tasks of others with it.
            raise RuntimeError("the tool called sys.exit") from error
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
    limiter = None if found is None else found.limiter
    if found is None or (tool.name is not None and found.tool != tool.name):
        return _inline(limiter)
    mode = found.mode
    if mode is Mode.OFFER:
        raise Escalation(tool)
    found.mode = Mode.USED
    if mode is Mode.RUN and found.task is not None:
        found.external = tool.external
        return found.task
    if mode is Mode.REFUSE and tool.required and found.refuse is not None:
        found.refuse()
    return _inline(limiter)


def _inline(limiter: CapacityLimiter | None) -> TaskContext:
    return TaskContext(InlineOperations(limiter), principal=current_principal())

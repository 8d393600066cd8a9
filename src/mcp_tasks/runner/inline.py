"""The operations behind a context without a task: steps just run, and nothing is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import anyio.to_thread

from mcp_tasks.domain import variables
from mcp_tasks.errors import NotDurableError


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from datetime import timedelta

    from anyio import CapacityLimiter


T = TypeVar("T")


# ruff: noqa: ARG002 - the operations are a protocol, and most of them are refused here


class InlineOperations:
    """What a tool can do when its client cannot be given a task.

    Args:
        limiter: The threads that plain functions run in; `None` for anyio's own.
    """

    durable = False
    cancel_requested = False

    def __init__(self, limiter: CapacityLimiter | None = None) -> None:
        self._limiter = limiter
        self._variables: dict[str, Any] = {}

    async def step(self, key: str, what: str, run: Callable[[], Awaitable[bytes]]) -> bytes:
        """Run the step."""
        return await run()

    async def ask(self, key: str | None, method: str, params: Mapping[str, Any]) -> Any:
        """Refuse: there is nobody to ask."""
        raise NotDurableError("asking the client")

    async def report(self, current: float, total: float | None, message: str | None) -> None:
        """Do nothing: nobody polls."""

    async def variables(self) -> dict[str, Any]:
        """Return this call's variables."""
        return dict(self._variables)

    async def set_variables(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Keep variables for the rest of this call."""
        self._variables = variables.merge(self._variables, changes)
        return dict(self._variables)

    async def extend(self, ttl: timedelta) -> None:
        """Refuse: there is nothing to extend."""
        raise NotDurableError("extending the time to live")

    async def run_sync(self, fn: Callable[[], T], *, whole: bool = False) -> T:
        """Run a blocking function in a thread."""
        return await anyio.to_thread.run_sync(fn, limiter=self._limiter)

"""What is agreed for a tool that may run as a task."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from mcp_tasks.domain.record import Policy
from mcp_tasks.errors import ConfigurationError


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

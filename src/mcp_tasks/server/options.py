"""What is agreed for a tool that may run as a task."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Literal

from mcp_tasks.domain.record import Policy
from mcp_tasks.errors import ConfigurationError
from mcp_tasks.settings import check_type


class TaskTool:
    """What is agreed for a tool: when it needs a task, and what may be done with one.

    Args:
        name: As the server knows it; `None` where the wrapper cannot know.
        required: Refuse calls that cannot become a task.
        ttl: How long a task lives from its creation; `None` for the store's default.
        max_ttl: The longest that the store allows.
        poll_interval: What clients are told to wait between polls; `None` for the store's default.
        resumable: A run that was lost is begun again from the top and finds its steps and answers.
        on_worker_loss: `fail` ends a task whose worker was lost, `rerun` begins it again.
        max_attempts: How many runs may be lost before the task is given up.
        external: The tool only starts work; some other program finishes the task.
        timeout: Seconds that one run may take; `None` for any.

    Raises:
        ConfigurationError: A value that cannot work.
    """

    __slots__ = ("external", "name", "policy", "poll_interval", "required", "ttl")

    def __init__(
        self,
        name: str | None,
        *,
        required: bool,
        ttl: timedelta | None,
        max_ttl: timedelta,
        poll_interval: timedelta | None,
        resumable: bool,
        on_worker_loss: Literal["fail", "rerun"],
        max_attempts: int,
        external: bool,
        timeout: float | None,
    ) -> None:
        check_type("name", name, str, optional=True)
        for option, flag in (
            ("required", required),
            ("resumable", resumable),
            ("external", external),
        ):
            check_type(option, flag, bool)
        check_type("max_attempts", max_attempts, int)
        for option, value in (("ttl", ttl), ("poll_interval", poll_interval)):
            check_type(option, value, timedelta, optional=True)
            if value is not None and value < timedelta(milliseconds=1):
                raise ConfigurationError(f"{option}={value!r} is less than a millisecond")
        if ttl is not None and ttl > max_ttl:
            raise ConfigurationError(f"ttl={ttl!r} is over StoreConfig.max_ttl, {max_ttl!r}")
        if on_worker_loss not in ("fail", "rerun"):
            raise ConfigurationError(f"on_worker_loss={on_worker_loss!r} is not 'fail' or 'rerun'")
        if max_attempts < 1:
            raise ConfigurationError(f"max_attempts={max_attempts!r} is less than 1")
        if timeout is not None:
            timeout = _seconds(timeout)
        if external and resumable:
            raise ConfigurationError(
                "external=True with resumable=True: a tool that only starts work has nothing to "
                "resume; leave resumable out, and say on_worker_loss='rerun' if starting twice "
                "with the same idempotency key does no harm"
            )
        self.name = name
        self.required = required or external
        self.external = external
        self.ttl = ttl
        self.poll_interval = poll_interval
        self.policy = Policy(
            on_worker_loss=on_worker_loss,
            resumable=resumable,
            max_attempts=max_attempts,
            timeout=timeout,
        )


def _seconds(timeout: object) -> float:
    """Check a timeout; what is true, infinite or a `timedelta` was not meant as seconds."""
    if isinstance(timeout, int | float) and timeout is not True and 0 < timeout < math.inf:
        return float(timeout)
    raise ConfigurationError(
        f"timeout={timeout!r} is not a number of seconds above 0, such as 90 or 2.5; leave it out "
        "for a tool that may take any time"
    )

"""Named places in the protocol's order of writes, where a test can end, stop or disturb a process.

Off unless `MCP_TASKS_FAILPOINT=name:action:nth` is set when this module is imported, or a test arms
one. The names are those of the steps of the checked model (`tests/model`), and say what was just
done and what comes next: `claim.after_sheet_before_cas`.

The actions: `kill` ends the process as SIGKILL does, `stop` freezes it until somebody sends
SIGCONT, `raise` raises `FailpointError` from there, `delay` blocks the thread for a second. All of
them happen once, at the `nth` time that the place is passed, from 1.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from typing import Final

from mcp_tasks.errors import ConfigurationError


VARIABLE: Final = "MCP_TASKS_FAILPOINT"
ACTIONS: Final = frozenset({"kill", "stop", "raise", "delay"})
DELAY: Final = 1.0
"""Seconds that `delay` takes."""

NAMES: Final = frozenset(
    {
        "create.before_writes",
        "create.after_roster_before_record",
        "create.after_writes_before_lease",
        "create.after_put_before_reply",
        "run.before_body",
        "run.after_tool_before_commit",
        "commit.after_cas_before_notify",
        "step.after_run_before_cas",
        "step.after_cas_before_return",
        "claim.after_read_before_sheet",
        "claim.after_sheet_before_cas",
        "claim.after_cas_before_run",
        "claim.after_run_before_delete",
        "input.after_put_before_wait",
        "park.after_cas_before_release",
        "notice.after_put_before_cas",
        "update.after_put_before_ack",
        "cancel.after_flag_before_signal",
        "inbox.after_read_before_wake",
        "inbox.after_wake_before_delete",
        "cancel.after_scope_before_cas",
        "hb.before",
        "hb.after",
        "fence.after_register_before_taken",
        "reap.after_read_before_cas",
        "reap.after_worker_cas_before_tasks",
        "reap.after_ready_before_cas",
        "reap.between_tasks",
        "reap.after_tasks_before_sheets",
        "reap.after_sheets_before_worker",
        "drain.after_stop_before_hand_back",
        "drain.after_ready_before_cas",
        "drain.after_sheets_before_worker",
        "ttl.after_read_before_cas",
        "ttl.after_read_before_delete",
        "prune.after_tombstone_before_drop",
    }
)
"""Every name there is. Each is passed somewhere in the code, and is a step of the model."""


class FailpointError(Exception):
    """What `raise` raises: an error that nobody expects at that place."""


class _Armed:
    """One name that something happens at, once."""

    def __init__(self, spec: str) -> None:
        name, _, rest = spec.partition(":")
        action, _, nth = rest.partition(":")
        nth = nth or "1"
        if name not in NAMES or action not in ACTIONS or not nth.isdecimal() or int(nth) < 1:
            raise ConfigurationError(
                f"{VARIABLE} is {spec!r}; it must be name:action:nth, with a name of "
                f"mcp_tasks.failpoints.NAMES, one of {', '.join(sorted(ACTIONS))}, and 1 or more"
            )
        self.name = name
        self.action = action
        self.left = int(nth)

    def hit(self) -> None:
        """Count one passage, and act on the last that is left."""
        self.left -= 1
        if self.left:
            return
        match self.action:
            case "kill":
                os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "raise":
                raise FailpointError(self.name)
            case _:
                time.sleep(DELAY)


_armed: _Armed | None = None


def failpoint(name: str) -> None:
    """Pass the place called `name`. Does nothing unless that is armed."""
    if _armed is not None and _armed.name == name:
        _armed.hit()


def arm(spec: str) -> None:
    """Let something happen at one place, instead of what was armed before.

    Args:
        spec: `name:action:nth`; without `:nth` the first time. Empty for nothing.

    Raises:
        ConfigurationError: It is not of that form, or names what does not exist.
    """
    global _armed  # noqa: PLW0603 - one process, one failpoint
    _armed = _Armed(spec) if spec else None


def is_spent() -> bool:
    """Tell whether something was armed and has happened."""
    return _armed is not None and _armed.left <= 0


if asked := os.environ.get(VARIABLE, ""):
    arm(asked)
    logging.getLogger("mcp_tasks").warning("%s is set: %s, as tests want it", VARIABLE, asked)

"""A fork server: imports everything once, and has a new process in milliseconds.

    python -m tests.chaos.nursery

Each line on stdin is a job, in JSON: a role (`cast.victim`), and what it is told. Each line on
stdout says what became of a process: that it was forked, was stopped, or has ended. When stdin
ends, so does every process that is left.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import select
import signal
import sys
import traceback
from contextlib import suppress
from typing import Any


def main() -> None:
    """Serve until stdin ends."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, _wake)
    for kind in ("sqlite", "redis", "postgres", "dynamodb"):
        importlib.import_module(f"mcp_tasks.storage.{kind}")
    for roles in ("cast", "crowd", "outage", "builds"):
        importlib.import_module(f"tests.chaos.{roles}")
    gc.freeze()
    alive: set[int] = set()
    waiting = b""
    _say(event="ready")
    while True:
        ready, _, _ = select.select([0, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
        _look(alive)
        if 0 not in ready:
            continue
        piece = os.read(0, 65536)
        if not piece:
            break
        *lines, waiting = (waiting + piece).split(b"\n")
        for line in lines:
            job = json.loads(line)
            pid = os.fork()
            if not pid:
                os.close(woken)
                os.close(wake)
                _live(job)
            alive.add(pid)
            _say(event="forked", job=job["number"], pid=pid)
    for pid in alive:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _wake(number: int, frame: object) -> None:
    """Do nothing: the signal is read from the pipe."""


def _live(job: dict[str, Any]) -> None:
    """Be the new process, from its birth to its end."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    code = 1
    try:
        nothing = os.open(os.devnull, os.O_RDWR)
        said = os.open(job["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        for descriptor, now in ((0, nothing), (1, said), (2, said)):
            os.dup2(now, descriptor)
        module, _, name = job["role"].rpartition(".")
        asyncio.run(getattr(importlib.import_module(f"tests.chaos.{module}"), name)(job))
        code = 0
    except BaseException:  # noqa: BLE001 - it must never go on as the fork server
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _look(alive: set[int]) -> None:
    """Say what became of children since the last look."""
    for pid in list(alive):
        found, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
        if not found:
            continue
        if os.WIFSTOPPED(status):
            _say(event="stopped", pid=pid)
        else:
            alive.discard(pid)
            _say(event="ended", pid=pid, code=os.waitstatus_to_exitcode(status))


def _say(**what: Any) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


if __name__ == "__main__":
    main()

"""A client that does anything to a few records, and writes down what it called and was answered.

The beginning of a call is in the file before the call is made, and its answer only afterwards. So
whatever becomes of this process, what is not answered in the file may have happened.
"""

from __future__ import annotations

import asyncio
import os
import random
from typing import TYPE_CHECKING, Any

from tests.chaos.scene import Log

from mcp_tasks.errors import OutcomeUnknownError, StorageError
from mcp_tasks.storage.urls import open_backend
from mcp_tasks.testing.history import Operation
from mcp_tasks.testing.history_rules import leave, perform


if TYPE_CHECKING:
    from collections.abc import Iterable

    from mcp_tasks.storage.base import StorageBackend


CALLERS = 4
CALLS = 100
EACH = 25
"""Calls after which a caller goes on to other records, for the checker takes so many of one."""
KEYS = 3
_LEFT = 0.02
_PAUSE = 0.05


async def client(job: dict[str, Any]) -> None:
    """Make calls, several at once."""
    backend = open_backend(job["url"])
    log = Log(job["history"])
    await asyncio.gather(*(_caller(backend, log, job, number) for number in range(CALLERS)))
    await backend.close()


async def _caller(backend: StorageBackend, log: Log, job: dict[str, Any], number: int) -> None:
    dice = random.Random(f"{job['seed']} {number}")  # noqa: S311
    seen: dict[str, int] = {}
    for count in range(CALLS):
        key = f"{job['key']}-{count // EACH}-{dice.randrange(KEYS)}"
        name = f"{os.getpid()}-{number}-{count}"
        kind = dice.choice(("get", "put", "swap", "swap", "swap", "delete"))
        call = Operation(kind, key, 0, data=name.encode())
        if kind == "swap":
            call = call._replace(expected=seen.get(key, 0))
        log.write(call=name, kind=kind, key=key, data=name, expected=call.expected)
        if dice.random() < _LEFT:
            await leave(perform(backend, call), dice.randrange(4))
            continue
        try:
            done = await perform(backend, call)
        except OutcomeUnknownError:
            continue
        except StorageError:
            log.write(call=name, refused=True)  # it says that nothing happened
            await asyncio.sleep(_PAUSE)
            continue
        log.write(call=name, data=done.data.decode(), version=done.version, conflict=done.conflict)
        seen[key] = 0 if kind == "delete" else done.version


def history(lines: Iterable[dict[str, Any]]) -> list[Operation]:
    """Return what was called, as far as it is not known not to have happened."""
    calls: dict[str, Operation] = {}
    for line in lines:
        name, at = line["call"], line["at"] / 1e9
        if "kind" in line:
            data = b"" if line["kind"] in ("get", "delete") else line["data"].encode()
            calls[name] = Operation(
                line["kind"], line["key"], at, data=data, expected=line["expected"]
            )
        elif "refused" in line:
            del calls[name]
        else:
            data = line["data"].encode() if calls[name].kind == "get" else calls[name].data
            calls[name] = calls[name]._replace(
                ended=at, data=data, version=line["version"], conflict=line["conflict"]
            )
    return list(calls.values())

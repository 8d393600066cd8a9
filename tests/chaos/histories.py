"""Callers of a backend that write down what they call before, and what they were told after."""

from __future__ import annotations

import asyncio
import math
import os
import random
import time
from typing import TYPE_CHECKING, Any

from tests.chaos.scene import Log

from mcp_tasks.errors import (
    OutcomeUnknownError,
    RecordNotFoundError,
    StorageError,
    VersionConflictError,
)
from mcp_tasks.storage.urls import open_backend
from mcp_tasks.testing.history import Operation


if TYPE_CHECKING:
    from mcp_tasks.storage.base import StorageBackend


CALLERS = 4
KEYS = 8
PERIOD = 0.4
"""Seconds for which keys are used, so that none has more calls than can be searched."""


async def call_at_random(job: dict[str, Any]) -> None:
    """Call anything with anything, until killed or until enough was called."""
    backend = open_backend(job["url"])
    log = Log(job["acks"])
    dice = random.Random(job["seed"])  # noqa: S311

    async def caller(number: int) -> None:
        seen: dict[str, int] = {}
        for turn in range(job["calls"]):
            period = int(time.monotonic() / PERIOD)
            key = f"ada:{job['namespace']}-{period}-{dice.randrange(KEYS)}"
            kind = dice.choice(("get", "put", "swap", "swap", "swap", "delete"))
            call = f"{os.getpid()}-{number}-{turn}"
            expected = seen.get(key, 0)
            log.write(what="call", call=call, kind=kind, key=key, expected=expected)
            try:
                answer = await _perform(backend, kind, key, call.encode(), expected)
            except OutcomeUnknownError:
                continue
            except StorageError:
                log.write(what="refused", call=call)
                continue
            log.write(what="answer", call=call, **answer)
            seen[key] = 0 if kind == "delete" else answer["version"]

    await asyncio.gather(*(caller(number) for number in range(CALLERS)))
    await backend.close()


async def _perform(
    backend: StorageBackend, kind: str, key: str, data: bytes, expected: int
) -> dict[str, Any]:
    try:
        match kind:
            case "get":
                found = await backend.get(key)
                return {"version": found.version, "data": bytes(found.data).decode()}
            case "put":
                return {"version": await backend.put(key, data)}
            case "swap":
                return {"version": await backend.put_if_version(key, data, expected)}
            case _:
                return {"version": int(await backend.delete(key))}
    except RecordNotFoundError:
        return {"version": 0, "data": ""}
    except VersionConflictError as conflict:
        return {"version": conflict.actual, "conflict": True}


def read_history(lines: list[dict[str, Any]]) -> list[Operation]:
    """Make a history of what was written down. What was refused has not happened."""
    told = {line["call"]: line for line in lines if line["what"] != "call"}
    history: list[Operation] = []
    for line in lines:
        if line["what"] != "call":
            continue
        end = told.get(line["call"])
        if end is not None and end["what"] == "refused":
            continue
        operation = Operation(
            line["kind"],
            line["key"],
            line["at"],
            math.inf if end is None else end["at"],
            data=b"" if line["kind"] in ("get", "delete") else line["call"].encode(),
            expected=line["expected"] if line["kind"] == "swap" else 0,
        )
        if end is not None:
            operation = operation._replace(
                version=end["version"], conflict=end.get("conflict", False)
            )
            if line["kind"] == "get":
                operation = operation._replace(data=end["data"].encode())
        history.append(operation)
    return history

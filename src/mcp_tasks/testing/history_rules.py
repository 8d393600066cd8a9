"""Concurrent callers see one order of single steps, whatever they call and however it ends."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

from mcp_tasks.errors import OutcomeUnknownError, RecordNotFoundError, VersionConflictError
from mcp_tasks.testing.history import Operation, violation


if TYPE_CHECKING:
    from collections.abc import Coroutine

    from mcp_tasks.storage.base import StorageBackend


_CALLERS = 6
_CALLS = 40
_KEYS = 3
_CANCELLED = 0.1


class HistoryRules:
    """Rules about many callers at once."""

    async def test_histories_are_linearizable(self, backend: StorageBackend) -> None:
        """Also with callers that go away in the middle, whose writes may or may not happen."""
        seed = random.randrange(2**32)  # noqa: S311 - for tests
        history = await _record(backend, random.Random(seed), cancelled=0.0)  # noqa: S311
        history += await _record(backend, random.Random(seed + 1), cancelled=_CANCELLED)  # noqa: S311

        unexplained = violation(history)

        shown = "\n".join(map(str, unexplained or ()))
        assert unexplained is None, f"seed {seed}: no order explains\n{shown}"


async def _record(
    backend: StorageBackend, chance: random.Random, *, cancelled: float
) -> list[Operation]:
    """Let callers do anything to a few keys at once; return what was called and answered."""
    round_ = chance.randrange(10**9)
    history: list[Operation] = []
    loop = asyncio.get_running_loop()

    async def caller(number: int) -> None:
        seen: dict[str, int] = {}
        for call in range(_CALLS):
            key = f"ada:{round_}-{chance.randrange(_KEYS)}"
            kind = chance.choice(("get", "put", "swap", "swap", "swap", "delete"))
            expected = seen.get(key, 0)
            began = Operation(kind, key, loop.time(), data=b"%d-%d" % (number, call))
            if kind == "swap":
                began = began._replace(expected=expected)
            if kind != "get" and chance.random() < cancelled:
                history.append(began)
                await leave(perform(backend, began), chance.randrange(4))
                continue
            task = asyncio.create_task(perform(backend, began))
            await asyncio.wait([task])
            assert not task.cancelled(), f"{began} was cancelled with somebody else's call"
            try:
                ended = task.result()
            except OutcomeUnknownError:
                history.append(began)
                continue
            history.append(ended._replace(ended=loop.time()))
            seen[key] = 0 if kind == "delete" else ended.version

    async with asyncio.timeout(60):
        await asyncio.gather(*(caller(number) for number in range(_CALLERS)))
    return history


async def perform(backend: StorageBackend, call: Operation) -> Operation:
    """Make a call, and return it with its answer."""
    try:
        match call.kind:
            case "get":
                found = await backend.get(call.key)
                return call._replace(version=found.version, data=found.data)
            case "put":
                return call._replace(version=await backend.put(call.key, call.data))
            case "swap":
                version = await backend.put_if_version(call.key, call.data, call.expected)
                return call._replace(version=version)
            case "delete":
                return call._replace(version=int(await backend.delete(call.key)))
    except RecordNotFoundError:
        return call._replace(version=0, data=b"")
    except VersionConflictError as conflict:
        return call._replace(version=conflict.actual, conflict=True)


async def leave(call: Coroutine[Any, Any, Operation], turns: int) -> None:
    """Begin a call, and go away after some turns of the loop."""
    task = asyncio.create_task(call)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()

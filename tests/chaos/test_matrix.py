"""A server struck at every named place, by every action, on every durable backend."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from tests.chaos.conftest import MANY, ROUNDS
from tests.chaos.matrix import SLOWER, BlockedError, Cycle, UnpassedError

from mcp_tasks.failpoints import NAMES
from mcp_tasks.testing.servers import NAMES as SERVERS


if TYPE_CHECKING:
    import random
    from pathlib import Path

    from tests.chaos.conftest import Stores
    from tests.chaos.harness import Nursery


STORES = ("sqlite", *SERVERS)
ACTIONS = ("kill", "stop", "raise")
AT_ONCE = {"sqlite": 6, "redis": 6, "postgres": 6, "dynamodb": 2}
CONFIG = {"dynamodb": SLOWER}
FEW = {"sqlite": 12, "redis": 5, "postgres": 4, "dynamodb": 2}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", STORES)
async def test_every_promise_is_kept_wherever_a_server_is_struck(
    kind: str, children: Nursery, stores: Stores, folder: Path, dice: random.Random
) -> None:
    """Killed, stopped for longer than a lease and woken again, or by an unexpected error."""
    url = await stores.url(kind, folder)
    gate = asyncio.Semaphore(AT_ONCE[kind])

    async def strike(number: int, failpoint: str) -> str:
        async with gate:
            why: Exception | None = None
            for again in range(10):  # if nothing can be said; on a busy machine things go otherwise
                place = folder / f"{number}-{again}"
                place.mkdir()
                mine = await stores.url(kind, place) if kind == "sqlite" else url
                name = f"{place.name}-{dice.randrange(2**32):x}"
                try:
                    cycle = Cycle(children, mine, name, place, config=CONFIG.get(kind))
                    verdict = await cycle.run(failpoint)
                except (BlockedError, UnpassedError) as error:
                    why = error
                    continue
                except Exception as error:  # noqa: BLE001 - told with the others
                    return f"{failpoint}: {error!r}"
                return f"{failpoint}:\n{verdict.shown}" if verdict.faults else ""
            return f"{failpoint}: ten times {why!r}"

    chosen = _choose(kind, dice)
    complaints = await asyncio.gather(*(strike(n, place) for n, place in enumerate(chosen)))

    assert not any(complaints), "\n\n".join(filter(None, complaints))


def _choose(kind: str, dice: random.Random) -> list[str]:
    """Return what to strike: everything; or some places, each in one way."""
    names = sorted(NAMES)
    if ROUNDS >= MANY:
        return [f"{name}:{action}:1" for name in names for action in ACTIONS]
    names = dice.sample(names, FEW[kind])
    first = dice.randrange(3)
    return [f"{name}:{ACTIONS[(first + at) % 3]}:1" for at, name in enumerate(names)]

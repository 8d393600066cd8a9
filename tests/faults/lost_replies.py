"""Writes whose replies are lost, while somebody else writes the same records.

Every write adds one to a number in its record. So a write that was done twice, or not at all, shows
in the number; and its version counts what was written whether or not the number changed.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mcp_tasks.errors import ContentionError, StoreUnavailableError, VersionConflictError
from mcp_tasks.testing.task_samples import CALL


if TYPE_CHECKING:
    from datetime import datetime

    from tests.faults.proxy import Proxy

    from mcp_tasks.domain.record import TaskRecord
    from mcp_tasks.store import TaskStore


OWNER = "ada"
_RECORDS = 16


@dataclass
class Tally:
    """What came of it.

    Attributes:
        writes: Writes through the proxy that were acknowledged.
        replies_lost: Replies that never arrived.
        double: Effects beyond the one that each acknowledged write has.
        missing: Acknowledged writes without an effect.
        false_conflicts: Conflicts that reached the caller.
        unsettled: Writes that nobody can tell of.
        refused: Writes that are known not to have happened, and were begun anew.
    """

    writes: int = 0
    replies_lost: int = 0
    double: int = 0
    missing: int = 0
    false_conflicts: int = 0
    unsettled: int = 0
    refused: int = 0


async def write_with_lost_replies(
    store: TaskStore, other: TaskStore, proxy: Proxy, *, writes: int, chance: float = 0.1
) -> Tally:
    """Write through a proxy that loses replies, each time together with a second writer.

    Args:
        store: Reaches its server through `proxy`.
        other: Reaches the same server without it.
        proxy: Told to lose replies, and to stop that in the end.
        writes: How many writes go through the proxy.
        chance: How likely a reply is lost.
    """
    tally = Tally()
    dice = random.Random(5)  # noqa: S311 - to be the same each time
    tasks = [await other.create(OWNER, CALL) for _ in range(_RECORDS)]
    lost_before = proxy.replies_lost
    proxy.lose_reply = lambda _: dice.random() < chance
    rounds = [len(range(number, writes, _RECORDS)) for number in range(_RECORDS)]

    async def write(task_id: str, times: int) -> None:
        for _ in range(times):
            await asyncio.gather(_add_somehow(store, task_id, tally), _add(other, task_id))

    await asyncio.gather(
        *(write(task.task_id, times) for task, times in zip(tasks, rounds, strict=True))
    )
    proxy.lose_reply = lambda _: False
    tally.replies_lost = proxy.replies_lost - lost_before
    for task, times in zip(tasks, rounds, strict=True):
        found = await other.get(OWNER, task.task_id)
        values = await other.load(found, found.variables)
        stored = await other.backend.get(other.keys.task(OWNER, task.task_id))
        beyond = max(values["sum"], stored.version - 1) - 2 * times
        tally.double += max(beyond, 0)
        tally.missing += max(-beyond, 2 * times - values["sum"], 0)
    return tally


async def _add_somehow(store: TaskStore, task_id: str, tally: Tally) -> None:
    while True:
        try:
            await _add(store, task_id)
        except StoreUnavailableError as error:
            if error.happened is not False:
                tally.unsettled += 1
                return
            tally.refused += 1
        except (ContentionError, VersionConflictError):
            tally.false_conflicts += 1
            return
        else:
            tally.writes += 1
            return


async def _add(store: TaskStore, task_id: str) -> None:
    async def transition(record: TaskRecord, now: datetime) -> TaskRecord:
        values: dict[str, int] = await store.load(record, record.variables) or {}
        new, _ = await store.merge_variables(record, now, {"sum": values.get("sum", 0) + 1})
        return new

    await store.change(OWNER, task_id, transition)

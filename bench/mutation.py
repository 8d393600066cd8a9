"""What one change of a task costs in `TaskStore` alone: CPU time, over a backend that does nothing.

One mutation is all of it: read and decode the record, apply the transition, encode the new record,
compare and swap.
"""

from __future__ import annotations

import statistics
import time
from datetime import timedelta
from typing import TYPE_CHECKING

from msgspec import Raw

from mcp_tasks.domain.record import Call, inline
from mcp_tasks.errors import RecordNotFoundError, VersionConflictError
from mcp_tasks.storage.base import Capabilities, Page, StoredRecord
from mcp_tasks.store import TaskStore


if TYPE_CHECKING:
    from datetime import datetime


_OWNER = "bench"


class NoBackend:
    """Holds what it was given, and nothing else: no expiry, no order, no thread."""

    capabilities = Capabilities(
        durable=False, shared=False, max_record_bytes=2**30, native_expiry=False
    )

    def __init__(self) -> None:
        self.records: dict[str, StoredRecord] = {}

    async def get(self, key: str) -> StoredRecord:
        """Return the record under `key`."""
        try:
            return self.records[key]
        except KeyError:
            raise RecordNotFoundError(key) from None

    async def put(self, key: str, data: bytes, *, expires_at: datetime | None = None) -> int:
        """Write `data` under `key`, whatever is there."""
        del expires_at
        found = self.records.get(key)
        version = found.version + 1 if found else 1
        self.records[key] = StoredRecord(key, data, version)
        return version

    async def put_if_version(
        self, key: str, data: bytes, expected_version: int, *, expires_at: datetime | None = None
    ) -> int:
        """Write `data` under `key` only if its version is still `expected_version`."""
        del expires_at
        found = self.records.get(key)
        actual = found.version if found else 0
        if actual != expected_version:
            raise VersionConflictError(key, expected_version, actual)
        self.records[key] = StoredRecord(key, data, expected_version + 1)
        return expected_version + 1

    async def delete(self, key: str) -> bool:
        """Remove the record under `key`, whatever its version."""
        return self.records.pop(key, None) is not None

    async def list_by_prefix(
        self, prefix: str, *, limit: int = 100, after: str | None = None, reverse: bool = False
    ) -> Page:
        """Return nothing: no mutation lists."""
        del prefix, limit, after, reverse
        return Page([], None)

    async def cleanup_expired(self, now: datetime) -> int:
        """Remove nothing."""
        del now
        return 0

    async def close(self) -> None:
        """Do nothing."""


async def measure(*, rounds: int, count: int) -> tuple[float, int]:
    """Return the microseconds of a mutation, median over the rounds, and the record's bytes."""
    backend = NoBackend()
    store = TaskStore(backend)
    arguments = inline(b'{"text":"%s"}' % (b"x" * 560))
    call = Call(
        tool="bench",
        arguments=arguments,
        protocol_version="2026-07-28",
        client_info=Raw(b'{"name":"bench","version":"1"}'),
    )
    record = await store.create(_OWNER, call, ttl=timedelta(hours=1))
    costs: list[float] = []
    for turn in range(rounds + 1):
        began = time.process_time()
        for number in range(count):
            await store.progress(_OWNER, record.task_id, number, count, f"turn {turn}")
        costs.append((time.process_time() - began) / count * 1e6)
    stored = backend.records[store.keys.task(_OWNER, record.task_id)]
    await store.close()
    return statistics.median(costs[1:]), len(stored.data)

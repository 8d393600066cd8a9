"""What a task costs on the service, in calls and capacity units; the page has the table."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mcp_tasks.domain.record import Call, Policy
from mcp_tasks.runner import Completed, Runner
from mcp_tasks.storage.dynamodb import DynamoDBBackend
from mcp_tasks.storage.dynamodb.driver import open_client
from mcp_tasks.store import TaskStore


if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    from mcp_tasks.runner import Outcome, TaskRun
    from mcp_tasks.storage.dynamodb import DynamoDBOptions
    from mcp_tasks.storage.dynamodb.driver import Payload


PAGE = Path(__file__).parents[3] / "docs" / "backends" / "dynamodb.md"


class Meter:
    """Counts what the service would charge: a unit for each KB written, and for each 4 KB read."""

    def __init__(self) -> None:
        self.units: Counter[str] = Counter()
        self.sizes: dict[str, int] = {}
        self.calls: Counter[str] = Counter()

    def take(self) -> tuple[int, int, int, int]:
        """Return calls and units of writes, calls and units of reads, and begin anew."""
        found = [self.calls["write"], self.units["write"], self.calls["read"], self.units["read"]]
        self.units.clear()
        self.calls.clear()
        return (found[0], found[1], found[2], found[3])

    @asynccontextmanager
    async def connect(self, options: DynamoDBOptions) -> AsyncGenerator[Any]:
        """Open a client that is metered."""
        async with open_client(options) as client:
            yield Metered(client, self)

    def count(self, kind: str, size: int) -> None:
        """Note a call."""
        self.calls[kind] += 1
        self.units[kind] += max(1, -(-size // (1024 if kind == "write" else 4096)))


class Metered:
    """A client whose calls are counted, but for those of the worker about itself."""

    def __init__(self, client: Any, meter: Meter) -> None:
        self._client = client
        self._meter = meter

    def __getattr__(self, operation: str) -> Callable[..., Awaitable[Payload]]:
        async def call(**payload: Any) -> Payload:
            answer: Payload = await getattr(self._client, operation)(**payload)
            if operation == "put_item":
                item = payload["Item"]
                self._meter.sizes[str([item["PK"], item["SK"]])] = size_of(item)
                self._count(item, "write", size_of(item))
            elif operation == "delete_item":
                key = payload["Key"]
                size = self._meter.sizes.get(str([key["PK"], key["SK"]]), 0)
                self._count(key, "write", size)
            elif operation == "get_item":
                self._count(payload["Key"], "read", size_of(answer.get("Item") or {}))
            return answer

        return call

    def _count(self, key: Mapping[str, Any], kind: str, size: int) -> None:
        if not key["PK"]["S"].startswith("OWNER#@workers"):
            self._meter.count(kind, size)


def size_of(item: Mapping[str, Any]) -> int:
    """Return an item's size by the service's rules: names and values, two digits to a byte."""
    size = 0
    for name, typed in item.items():
        (kind, value), *_ = typed.items()
        size += len(name.encode())
        size += len(value) // 2 + 2 if kind == "N" else len(value)
    return size


@pytest.mark.parametrize(("kilobytes", "row"), [(1, "1 KB"), (4096, "4 MiB")])
async def test_the_page_says_what_a_task_costs(
    table: str, options: DynamoDBOptions, kilobytes: int, row: str
) -> None:
    """Arguments and a result of this size, on a worker that has nothing else to do."""
    meter = Meter()
    text = "x" * (kilobytes * 1024 - 100)
    release = asyncio.Event()

    async def body(run: TaskRun) -> Outcome:
        await release.wait()
        return Completed({"text": run.arguments["text"]})

    backend = DynamoDBBackend(options, connect=lambda: meter.connect(options))
    store = TaskStore(backend)
    runner = Runner(store, lambda _: body)
    await runner.start()
    meter.take()

    call = Call("work", store.encode({"text": text}, what="arguments"))
    task = await runner.create("ada", call, policy=Policy())
    created = meter.take()
    await store.get("ada", task.task_id)
    polled = meter.take()
    release.set()
    async with asyncio.timeout(30):
        while runner.attempts:  # noqa: ASYNC110 - the runner's
            await asyncio.sleep(0.02)
    await store.close()  # what was deleted behind the end is done
    ended = meter.take()
    found = await store.get("ada", task.task_id)
    await store.load(found, found.result)
    shown = meter.take()
    await runner.stop()
    await backend.close()

    cells = [f"{created[0]} / {created[1]}", f"{polled[2]} / {polled[3]}"]
    cells += [f"{ended[0]} / {ended[1]}", f"{shown[2]} / {shown[3]}"]
    assert (polled[0], ended[2], shown[0]) == (0, 0, 0)
    assert f"| {row} | {' | '.join(cells)} |" in PAGE.read_text()

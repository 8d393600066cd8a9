"""What the backend says when network or server fail, and what a crash leaves of a large task."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from tests.faults.lost_replies import write_with_lost_replies
from tests.faults.proxy import Proxy

from mcp_tasks.domain.record import Call
from mcp_tasks.errors import (
    OutcomeUnknownError,
    RecordNotFoundError,
    StorageUnavailableError,
    StoreUnavailableError,
)
from mcp_tasks.storage.base import StoredRecord
from mcp_tasks.storage.dynamodb import DynamoDBBackend
from mcp_tasks.storage.dynamodb.driver import open_client
from mcp_tasks.storage.dynamodb.options import parse
from mcp_tasks.storage.dynamodb.table import SHAPE
from mcp_tasks.store import TaskStore
from mcp_tasks.testing.servers.dynamodb import DynaliteServer


if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mcp_tasks.storage.dynamodb import DynamoDBOptions
    from mcp_tasks.testing.servers.dynamodb import MinistackServer


LARGE = "x" * (4 * 2**20 - 100)


@pytest.fixture
async def proxy(ministack: MinistackServer) -> AsyncIterator[Proxy]:
    """Give the wire to the server."""
    async with Proxy("127.0.0.1", ministack.port) as proxy:
        yield proxy


@pytest.fixture
async def wired(
    proxy: Proxy, table: str, options: DynamoDBOptions
) -> AsyncIterator[DynamoDBBackend]:
    """Give a backend on that wire, with little patience."""
    url = f"http://127.0.0.1:{proxy.port}"
    quick = replace(options, endpoint_url=url, timeout=1.0, connect_timeout=1.0, patience=1.0)
    backend = DynamoDBBackend(quick)
    await backend.put("ada:t0", b"x")
    yield backend
    await backend.close()


# --- the network ---------------------------------------------------------------------------------


async def test_every_kind_of_write_can_lose_its_reply(
    wired: DynamoDBBackend, backend: DynamoDBBackend, proxy: Proxy
) -> None:
    """It happened, and the backend neither says so nor sends it again."""
    await wired.put("ada:gone", b"x")
    for call in (
        lambda: wired.put("ada:put", b"x"),
        lambda: wired.put_if_version("ada:create", b"x", 0),
        lambda: wired.put_if_version("ada:t0", b"y", 1),
        lambda: wired.delete("ada:gone"),
    ):
        proxy.lose_reply = lambda _: True
        with pytest.raises(OutcomeUnknownError, match="may or may not have happened"):
            await call()
        proxy.lose_reply = lambda _: False

    assert await backend.get("ada:put") == StoredRecord("ada:put", b"x", 1)
    assert await backend.get("ada:create") == StoredRecord("ada:create", b"x", 1)
    assert await backend.get("ada:t0") == StoredRecord("ada:t0", b"y", 2)
    with pytest.raises(RecordNotFoundError):
        await backend.get("ada:gone")
    assert await wired.put_if_version("ada:t0", b"z", 2) == 3


async def test_a_read_is_sent_again(wired: DynamoDBBackend, proxy: Proxy) -> None:
    """Reading twice does no harm."""
    left = 1

    def lose_one(_: bytes) -> bool:
        nonlocal left
        left -= 1
        return left >= 0

    proxy.lose_reply = lose_one
    assert (await wired.get("ada:t0")).data == b"x"
    left = 1
    assert len((await wired.list_by_prefix("ada:")).records) == 1
    assert proxy.replies_lost == 2


async def test_without_a_server_nothing_is_sent(wired: DynamoDBBackend) -> None:
    """And the caller is told so."""
    nowhere = replace(wired.options, endpoint_url="http://127.0.0.1:1")
    backend = DynamoDBBackend(nowhere)
    for call in (
        backend.put("ada:t0", b"y"),
        backend.put_if_version("ada:t0", b"y", 1),
        backend.delete("ada:t0"),
        backend.get("ada:t0"),
        backend.list_by_prefix("ada:"),
    ):
        with pytest.raises(StorageUnavailableError, match="nothing was written"):
            await call
    await backend.close()


async def test_a_server_that_is_dark_ends_in_an_error(
    wired: DynamoDBBackend, backend: DynamoDBBackend, proxy: Proxy
) -> None:
    """A network that swallows everything and never says so."""
    proxy.silent = True
    async with asyncio.timeout(15):
        with pytest.raises(OutcomeUnknownError, match="no answer in time"):
            await wired.put("ada:t0", b"y")
        with pytest.raises(StorageUnavailableError):
            await wired.get("ada:t0")
    proxy.silent = False
    proxy.cut()

    assert await wired.put_if_version("ada:t0", b"z", (await backend.get("ada:t0")).version)


async def test_lost_replies_have_no_double_effects_and_make_no_false_conflicts(
    proxy: Proxy, table: str, options: DynamoDBOptions
) -> None:
    """A thousand writes, a second writer on each record, and replies that never come."""
    mine = DynamoDBBackend(replace(options, endpoint_url=f"http://127.0.0.1:{proxy.port}"))
    theirs = DynamoDBBackend(options)

    tally = await write_with_lost_replies(
        TaskStore(mine), TaskStore(theirs), proxy, writes=1000, chance=0.05
    )

    await mine.close()
    await theirs.close()
    assert tally.replies_lost >= 30, tally
    assert (tally.writes, tally.double, tally.missing) == (1000, 0, 0), tally
    assert (tally.false_conflicts, tally.unsettled) == (0, 0), tally


# --- the server ----------------------------------------------------------------------------------


async def test_what_was_acknowledged_survives_kill_9_of_the_server() -> None:
    """On the stand-in that keeps its files."""
    with DynaliteServer() as server:
        options = replace(parse(server.url), table="kept", timeout=2.0, patience=1.0)
        async with open_client(options) as client:
            await client.create_table(TableName="kept", **SHAPE)
        backend = DynamoDBBackend(options)
        acknowledged: dict[str, int] = {}

        async def write(caller: int) -> None:
            for number in range(10**9):
                key = f"ada:t{caller:02d}-{number % 20:02d}"
                try:
                    acknowledged[key] = await backend.put(key, b"x" * 500)
                except (OutcomeUnknownError, StorageUnavailableError):
                    return

        callers = [asyncio.create_task(write(caller)) for caller in range(8)]
        while sum(acknowledged.values()) < 500:  # noqa: ASYNC110 - of eight callers
            await asyncio.sleep(0.005)
        server.kill()
        await asyncio.gather(*callers)
        server.start()

        missing = 0
        for key, version in acknowledged.items():
            missing += max(version - (await backend.get(key)).version, 0)
        await backend.close()
    assert sum(acknowledged.values()) >= 500
    assert missing == 0


# --- tasks that are larger than an item ----------------------------------------------------------


class Cut:
    """A backend that breaks off before the write of a given number."""

    def __init__(self, inner: DynamoDBBackend, at: int) -> None:
        self._inner = inner
        self._left = at

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def put(self, *arguments: Any, **options: Any) -> int:
        """Pass on, or break off."""
        self._count()
        return await self._inner.put(*arguments, **options)

    async def put_if_version(self, *arguments: Any, **options: Any) -> int:
        """Pass on, or break off."""
        self._count()
        return await self._inner.put_if_version(*arguments, **options)

    async def delete(self, key: str) -> bool:
        """Pass on, or break off."""
        self._count()
        return await self._inner.delete(key)

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            reason = "the process is gone"
            raise StorageUnavailableError(reason)


def call(store: TaskStore) -> Call:
    """Make a call with 4 MiB of arguments."""
    return Call(tool="build", arguments=store.encode({"text": LARGE}, what="arguments"))


async def test_a_task_with_4_mib_in_and_out_is_whole(backend: DynamoDBBackend) -> None:
    """And its record stays small, so that a poll costs what any poll costs."""
    store = TaskStore(backend)
    task = await store.create("ada", call(store))
    assert await store.load(task, task.call.arguments) == {"text": LARGE}

    await store.complete_with_result("ada", task.task_id, {"text": LARGE})

    found = await TaskStore(backend).get("ada", task.task_id)
    assert await store.load(found, found.result) == {"text": LARGE}
    assert len((await backend.get(store.keys.task("ada", task.task_id))).data) < 2048
    await store.close()


@pytest.mark.parametrize("at", [0, 1, 5, 16, 17, 18])
async def test_a_create_that_breaks_off_leaves_no_task(backend: DynamoDBBackend, at: int) -> None:
    """Before a chunk, between two, and between the last chunk and the head."""
    whole = TaskStore(backend)
    broken = TaskStore(Cut(backend, at))  # pyright: ignore[reportArgumentType] - it passes all on

    with pytest.raises(StoreUnavailableError):
        await broken.create("ada", call(broken))

    assert (await whole.list("ada")).tasks == []
    task = await whole.create("ada", call(whole))
    assert await whole.load(task, task.call.arguments) == {"text": LARGE}
    await whole.close()


@pytest.mark.parametrize("at", [0, 1, 8, 16])
async def test_an_outcome_that_breaks_off_can_be_written_again(
    backend: DynamoDBBackend, at: int
) -> None:
    """The task still runs until its head says otherwise."""
    whole = TaskStore(backend)
    task = await whole.create("ada", call(whole))
    broken = TaskStore(Cut(backend, at))  # pyright: ignore[reportArgumentType] - it passes all on

    with pytest.raises(StoreUnavailableError):
        await broken.complete_with_result("ada", task.task_id, {"text": LARGE})

    assert (await whole.get("ada", task.task_id)).status == "working"
    await whole.complete_with_result("ada", task.task_id, {"text": LARGE})
    found = await whole.get("ada", task.task_id)
    assert await whole.load(found, found.result) == {"text": LARGE}
    await whole.close()


@pytest.mark.parametrize("at", [1, 2, 9])
async def test_a_purge_that_breaks_off_leaves_the_outcome(
    backend: DynamoDBBackend, at: int
) -> None:
    """The arguments go after the end, one chunk after the other; nobody reads them any more."""
    whole = TaskStore(backend)
    task = await whole.create("ada", call(whole))
    broken = TaskStore(Cut(backend, at))  # pyright: ignore[reportArgumentType] - it passes all on

    await broken.complete_with_result("ada", task.task_id, "done")
    await broken.close()

    found = await whole.get("ada", task.task_id)
    assert await whole.load(found, found.result) == "done"
    left = await backend.list_by_prefix(whole.keys.blobs("ada", task.task_id), limit=100)
    assert len(left.records) >= 1  # they expire
    await whole.close()

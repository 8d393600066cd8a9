"""The eighteen DynamoDB tests of the Rust implementation, by their names; some say more here.

They run against a stand-in, and unchanged against the real service with `pytest -m dynamodb_live`
and credentials in the environment. Each works under an owner of its own and leaves nothing behind
that does not expire.
"""

from __future__ import annotations

import os
import uuid
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from mcp_tasks.clock import SystemClock, epoch_ms
from mcp_tasks.errors import RecordNotFoundError, VersionConflictError
from mcp_tasks.storage.base import StoredRecord
from mcp_tasks.storage.dynamodb import DynamoDBBackend, DynamoDBOptions
from mcp_tasks.storage.dynamodb.driver import open_client
from mcp_tasks.storage.dynamodb.options import parse

from .conftest import is_live


if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from datetime import datetime

    from mcp_tasks.testing.servers.dynamodb import MinistackServer


pytestmark = pytest.mark.dynamodb_live


class Place(NamedTuple):
    """A backend, and an owner that nobody else has."""

    backend: DynamoDBBackend
    options: DynamoDBOptions
    owner: str

    def key(self, task: str) -> str:
        """Return the key of one of the owner's tasks."""
        return f"{self.owner}:{task}"

    async def put(self, task: str, data: bytes) -> int:
        """Write what expires."""
        return await self.backend.put(self.key(task), data, expires_at=in_an_hour())

    async def swap(self, task: str, data: bytes, expected: int) -> int:
        """The same for a swap."""
        key = self.key(task)
        return await self.backend.put_if_version(key, data, expected, expires_at=in_an_hour())

    async def raw(self, task: str) -> dict[str, Any]:
        """Return the item as the service has it."""
        async with open_client(self.options) as client:
            where = {"PK": {"S": f"OWNER#{self.owner}"}, "SK": {"S": f"TASK#{task}"}}
            found = await client.get_item(
                TableName=self.options.table, Key=where, ConsistentRead=True
            )
        item: dict[str, Any] = found["Item"]
        return item


def in_an_hour() -> datetime:
    """Return when all that these tests leave behind ends."""
    return SystemClock().now() + timedelta(hours=1)


@asynccontextmanager
async def opened(options: DynamoDBOptions) -> AsyncGenerator[Place]:
    """Give an owner of a table."""
    backend = DynamoDBBackend(options)
    try:
        yield Place(backend, options, f"test-{uuid.uuid4()}")
    finally:
        await backend.close()


@pytest.fixture
async def ddb(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    """Give a place on the real service if that was asked for, else on the stand-in."""
    if is_live(request.config):
        options = DynamoDBOptions(table=os.environ.get("MCP_TASKS_DYNAMODB_TABLE", "mcp_tasks"))
    else:
        ministack: MinistackServer = request.getfixturevalue("ministack")
        options = replace(parse(ministack.url), table="parity")
        await _make(options)
    async with opened(options) as place:
        yield place


async def _make(options: DynamoDBOptions) -> None:
    backend = DynamoDBBackend(options)
    await backend.initialize()
    await backend.close()


# --- get -----------------------------------------------------------------------------------------


async def test_ddb_get_missing_key_returns_not_found(ddb: Place) -> None:
    """And says which."""
    with pytest.raises(RecordNotFoundError) as caught:
        await ddb.backend.get(ddb.key("t1"))

    assert caught.value.key == ddb.key("t1")


async def test_ddb_get_returns_stored_data(ddb: Place) -> None:
    """As it was put, with the version that the put returned."""
    version = await ddb.put("t1", b'{"status": "working"}')

    found = await ddb.backend.get(ddb.key("t1"))
    assert found == StoredRecord(ddb.key("t1"), b'{"status": "working"}', version)


# --- put -----------------------------------------------------------------------------------------


async def test_ddb_put_new_key_returns_version_1(ddb: Place) -> None:
    """Versions begin there."""
    assert await ddb.put("t1", b"x") == 1


async def test_ddb_put_existing_key_increments_version(ddb: Place) -> None:
    """By one."""
    assert await ddb.put("t1", b"one") == 1
    assert await ddb.put("t1", b"two") == 2

    assert await ddb.backend.get(ddb.key("t1")) == StoredRecord(ddb.key("t1"), b"two", 2)


async def test_ddb_put_overwrites_data(ddb: Place) -> None:
    """Nothing of what was there is left."""
    await ddb.put("t1", b"the first and longer one")
    await ddb.put("t1", b"two")

    assert (await ddb.backend.get(ddb.key("t1"))).data == b"two"


# --- put_if_version ------------------------------------------------------------------------------


async def test_ddb_put_if_version_succeeds_on_match(ddb: Place) -> None:
    """With the next version."""
    version = await ddb.put("t1", b"one")

    assert await ddb.swap("t1", b"two", version) == version + 1


async def test_ddb_put_if_version_fails_on_mismatch(ddb: Place) -> None:
    """With the version that is there, and nothing changed."""
    await ddb.put("t1", b"one")

    with pytest.raises(VersionConflictError) as caught:
        await ddb.swap("t1", b"two", 999)

    error = caught.value
    assert (error.key, error.expected, error.actual) == (ddb.key("t1"), 999, 1)
    assert await ddb.backend.get(ddb.key("t1")) == StoredRecord(ddb.key("t1"), b"one", 1)


async def test_ddb_put_if_version_fails_on_missing_key(ddb: Place) -> None:
    """Told from a mismatch by the version 0, and nothing is created."""
    with pytest.raises(VersionConflictError) as caught:
        await ddb.swap("t1", b"x", 1)

    assert (caught.value.expected, caught.value.actual) == (1, 0)
    with pytest.raises(RecordNotFoundError):
        await ddb.backend.get(ddb.key("t1"))


async def test_ddb_put_if_version_updates_data(ddb: Place) -> None:
    """And the attribute that says when the item ends."""
    await ddb.put("t1", b"one")
    at = SystemClock().now() + timedelta(hours=2)
    await ddb.backend.put_if_version(ddb.key("t1"), b"two", 1, expires_at=at)

    assert await ddb.backend.get(ddb.key("t1")) == StoredRecord(ddb.key("t1"), b"two", 2)
    assert int((await ddb.raw("t1"))["expires_at"]["N"]) == -(-epoch_ms(at) // 1000)


# --- delete --------------------------------------------------------------------------------------


async def test_ddb_delete_existing_returns_true(ddb: Place) -> None:
    """It was there."""
    await ddb.put("t1", b"x")

    assert await ddb.backend.delete(ddb.key("t1")) is True


async def test_ddb_delete_missing_returns_false(ddb: Place) -> None:
    """Nothing was."""
    assert await ddb.backend.delete(ddb.key("t1")) is False


async def test_ddb_delete_then_get_returns_not_found(ddb: Place) -> None:
    """At once."""
    await ddb.put("t1", b"x")
    await ddb.backend.delete(ddb.key("t1"))

    with pytest.raises(RecordNotFoundError):
        await ddb.backend.get(ddb.key("t1"))


# --- list_by_prefix ------------------------------------------------------------------------------


async def test_ddb_list_by_prefix_returns_matching(ddb: Place) -> None:
    """Not what belongs to owners that look alike."""
    await ddb.put("t1", b"1")
    await ddb.put("t2", b"2")
    for other in ("%", "_", "-b", "%3Ab", "2"):
        key = f"{ddb.owner}{other}:t3"
        await ddb.backend.put(key, b"3", expires_at=in_an_hour())

    page = await ddb.backend.list_by_prefix(f"{ddb.owner}:")
    assert [record.key for record in page.records] == [ddb.key("t1"), ddb.key("t2")]


async def test_ddb_list_by_prefix_empty_on_no_match(ddb: Place) -> None:
    """An empty page, and no error."""
    page = await ddb.backend.list_by_prefix(f"{ddb.owner}:")

    assert (list(page.records), page.next) == ([], None)


async def test_ddb_list_by_prefix_returns_correct_data_and_versions(ddb: Place) -> None:
    """One of them was written twice."""
    await ddb.put("t1", b"one")
    await ddb.put("t2", b"two")
    await ddb.put("t2", b"three")

    page = await ddb.backend.list_by_prefix(f"{ddb.owner}:")
    assert list(page.records) == [
        StoredRecord(ddb.key("t1"), b"one", 1),
        StoredRecord(ddb.key("t2"), b"three", 2),
    ]


# --- cleanup_expired, and the attribute ----------------------------------------------------------


async def test_ddb_cleanup_expired_returns_zero(ddb: Place) -> None:
    """The service does it."""
    await ddb.put("t1", b"x")

    assert await ddb.backend.cleanup_expired(SystemClock().now()) == 0


async def test_ddb_put_sets_expires_at_attribute_when_ttl_present(ddb: Place) -> None:
    """A whole number of seconds, rounded up."""
    now = SystemClock().now()
    at = now + timedelta(hours=1)
    await ddb.backend.put(ddb.key("t1"), b"x", expires_at=at)

    shown = (await ddb.raw("t1"))["expires_at"]
    assert list(shown) == ["N"]
    assert int(shown["N"]) == -(-epoch_ms(at) // 1000)
    assert now.timestamp() < int(shown["N"]) < now.timestamp() + 7200


async def test_ddb_put_omits_expires_at_when_no_ttl(ddb: Place) -> None:
    """Also where there was one before."""
    key = ddb.key("t1")
    try:
        await ddb.backend.put(key, b"x")
        assert "expires_at" not in await ddb.raw("t1")

        await ddb.put("t1", b"y")
        assert "expires_at" in await ddb.raw("t1")
        await ddb.backend.put(key, b"z")
        assert "expires_at" not in await ddb.raw("t1")
    finally:
        await ddb.backend.delete(key)

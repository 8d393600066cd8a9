"""The nineteen Redis tests of the Rust implementation, by their names; some say more here."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from mcp_tasks.clock import SystemClock, epoch_ms
from mcp_tasks.errors import RecordNotFoundError, VersionConflictError
from mcp_tasks.storage.base import StoredRecord


if TYPE_CHECKING:
    from mcp_tasks.storage.redis import RedisBackend, RedisOptions
    from mcp_tasks.storage.redis.driver import Connection


async def test_redis_get_missing_key_returns_not_found(backend: RedisBackend) -> None:
    """And says which."""
    with pytest.raises(RecordNotFoundError) as caught:
        await backend.get("ada:t1")

    assert caught.value.key == "ada:t1"


async def test_redis_get_returns_stored_data(backend: RedisBackend) -> None:
    """As it was put, with the version that the put returned."""
    version = await backend.put("ada:t1", b'{"status": "working"}')

    assert await backend.get("ada:t1") == StoredRecord("ada:t1", b'{"status": "working"}', version)


async def test_redis_put_new_key_returns_version_1(backend: RedisBackend) -> None:
    """Versions begin there."""
    assert await backend.put("ada:t1", b"x") == 1


async def test_redis_put_existing_key_increments_version(backend: RedisBackend) -> None:
    """By one."""
    assert await backend.put("ada:t1", b"one") == 1
    assert await backend.put("ada:t1", b"two") == 2

    assert await backend.get("ada:t1") == StoredRecord("ada:t1", b"two", 2)


async def test_redis_put_overwrites_data(backend: RedisBackend) -> None:
    """Nothing of what was there is left."""
    await backend.put("ada:t1", b"the first and longer one")
    await backend.put("ada:t1", b"two")

    assert (await backend.get("ada:t1")).data == b"two"


async def test_redis_put_if_version_succeeds_on_match(backend: RedisBackend) -> None:
    """With the next version."""
    version = await backend.put("ada:t1", b"one")

    assert await backend.put_if_version("ada:t1", b"two", version) == version + 1


async def test_redis_put_if_version_fails_on_mismatch(backend: RedisBackend) -> None:
    """With the version that is there, and nothing changed."""
    await backend.put("ada:t1", b"one")

    with pytest.raises(VersionConflictError) as caught:
        await backend.put_if_version("ada:t1", b"two", 999)

    error = caught.value
    assert (error.key, error.expected, error.actual) == ("ada:t1", 999, 1)
    assert await backend.get("ada:t1") == StoredRecord("ada:t1", b"one", 1)


async def test_redis_put_if_version_fails_on_missing_key(backend: RedisBackend) -> None:
    """As a conflict with version 0, and nothing is created."""
    with pytest.raises(VersionConflictError) as caught:
        await backend.put_if_version("ada:t1", b"x", 1)

    assert (caught.value.expected, caught.value.actual) == (1, 0)
    assert (await backend.list_by_prefix("ada:")).records == []


async def test_redis_put_if_version_updates_data(backend: RedisBackend) -> None:
    """The next reader finds it."""
    version = await backend.put("ada:t1", b"one")
    await backend.put_if_version("ada:t1", b"two", version)

    assert (await backend.get("ada:t1")).data == b"two"


async def test_redis_delete_existing_returns_true(backend: RedisBackend) -> None:
    """Something was there."""
    await backend.put("ada:t1", b"x")

    assert await backend.delete("ada:t1") is True


async def test_redis_delete_missing_returns_false(backend: RedisBackend) -> None:
    """Nothing was there."""
    assert await backend.delete("ada:t1") is False


async def test_redis_delete_then_get_returns_not_found(backend: RedisBackend) -> None:
    """It is gone at once."""
    await backend.put("ada:t1", b"x")
    await backend.delete("ada:t1")

    with pytest.raises(RecordNotFoundError):
        await backend.get("ada:t1")


async def test_redis_list_by_prefix_returns_matching(backend: RedisBackend) -> None:
    """Those of the owner that is asked for, whatever others are called."""
    for key in ("ada:t1", "ada:t2", "bob:t3", "ada2:t4", "ad:t5"):
        await backend.put(key, b"x")

    records = (await backend.list_by_prefix("ada:")).records

    assert [record.key for record in records] == ["ada:t1", "ada:t2"]


async def test_redis_list_by_prefix_empty_on_no_match(backend: RedisBackend) -> None:
    """An owner without tasks has none."""
    await backend.put("bob:t1", b"x")

    assert (await backend.list_by_prefix("ada:")).records == []


async def test_redis_list_by_prefix_returns_correct_data_and_versions(
    backend: RedisBackend,
) -> None:
    """As a get of each would."""
    await backend.put("ada:t1", b"one")
    await backend.put("ada:t2", b"old")
    await backend.put("ada:t2", b"two")

    assert (await backend.list_by_prefix("ada:")).records == [
        StoredRecord("ada:t1", b"one", 1),
        StoredRecord("ada:t2", b"two", 2),
    ]


async def test_redis_cleanup_expired_returns_zero(backend: RedisBackend) -> None:
    """The server removes records by itself."""
    now = SystemClock().now()
    await backend.put("ada:t1", b"x", expires_at=now - timedelta(hours=1))

    assert await backend.cleanup_expired(now) == 0


async def test_redis_get_filters_expired_task(backend: RedisBackend) -> None:
    """Nothing is shown after its time."""
    await backend.put("ada:t1", b"x", expires_at=SystemClock().now() - timedelta(hours=1))

    with pytest.raises(RecordNotFoundError) as caught:
        await backend.get("ada:t1")

    assert caught.value.key == "ada:t1"


async def test_redis_put_sets_ttl_when_expires_at_present(
    backend: RedisBackend, options: RedisOptions, wire: Connection
) -> None:
    """A field for people, in seconds, and the server's own expiry to the millisecond."""
    now = SystemClock().now()
    expires_at = now + timedelta(hours=1, milliseconds=1)
    await backend.put("ada:t1", b"x", expires_at=expires_at)

    record = f"{options.prefix}:{{ada}}:r:t1"
    field, left_ms = await wire.ask([("HGET", record, "expires_at"), ("PTTL", record)])
    assert int(field) == -(-epoch_ms(expires_at) // 1000)
    assert int(now.timestamp()) < int(field) < int(now.timestamp()) + 7200
    assert 3_590_000 < left_ms <= 3_600_000


async def test_redis_put_omits_expires_at_when_no_ttl(
    backend: RedisBackend, options: RedisOptions, wire: Connection
) -> None:
    """A record without an end has neither, also if it had one before."""
    await backend.put("ada:t1", b"x")
    await backend.put("ada:t2", b"x", expires_at=SystemClock().now() + timedelta(hours=1))
    await backend.put("ada:t2", b"x")

    for task in ("t1", "t2"):
        record = f"{options.prefix}:{{ada}}:r:{task}"
        assert await wire.ask([("HEXISTS", record, "expires_at"), ("PTTL", record)]) == [0, -1]

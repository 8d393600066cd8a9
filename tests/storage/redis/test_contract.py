"""The Redis backend and the store over it keep the contract."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mcp_tasks.storage.redis import RedisBackend
from mcp_tasks.storage.redis.options import parse
from mcp_tasks.testing import (
    ChangeSourceContract,
    ReopenableContract,
    StorageBackendContract,
    TaskStoreContract,
)
from mcp_tasks.testing.servers.redis import RedisCluster


if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from mcp_tasks.storage.redis import RedisOptions
    from mcp_tasks.testing.servers.redis import RedisServer


class TestRedisBackend(StorageBackendContract, ReopenableContract, ChangeSourceContract):
    """The contract over one server."""

    @pytest.fixture
    async def backend(
        self, redis_server: RedisServer, options: RedisOptions
    ) -> AsyncIterator[RedisBackend]:
        """Give an empty backend."""
        backend = RedisBackend(parse(redis_server.url)[0], options)
        yield backend
        await backend.close()


class TestStoreOverRedis(TaskStoreContract):
    """The rules about tasks over one server."""

    @pytest.fixture
    async def backend(
        self, redis_server: RedisServer, options: RedisOptions
    ) -> AsyncIterator[RedisBackend]:
        """Give an empty backend."""
        backend = RedisBackend(parse(redis_server.url)[0], options)
        yield backend
        await backend.close()


class TestRedisCluster(StorageBackendContract, ReopenableContract, ChangeSourceContract):
    """The contract over a cluster of three."""

    @pytest.fixture(scope="class")
    @classmethod
    def cluster(cls) -> Iterator[RedisCluster]:
        """Give a cluster."""
        with RedisCluster() as cluster:
            yield cluster

    @pytest.fixture
    async def backend(
        self, cluster: RedisCluster, options: RedisOptions
    ) -> AsyncIterator[RedisBackend]:
        """Give an empty backend."""
        backend = RedisBackend(parse(cluster.url)[0], options)
        yield backend
        await backend.close()

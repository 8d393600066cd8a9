"""The database servers that tests run on: each started once, when a test first asks for it.

A test that needs its own (to kill it, to fill it) starts one itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest


if TYPE_CHECKING:
    from collections.abc import Iterator

    from mcp_tasks.testing.servers.dynamodb import DynamoDBServer
    from mcp_tasks.testing.servers.postgres import PostgresServer
    from mcp_tasks.testing.servers.redis import RedisServer


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """Give a Redis-compatible server that keeps what it acknowledges."""
    from mcp_tasks.testing.servers.redis import RedisServer  # noqa: PLC0415 - only when asked for

    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Give a PostgreSQL server."""
    from mcp_tasks.testing.servers.postgres import PostgresServer  # noqa: PLC0415

    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def dynamodb_server() -> Iterator[DynamoDBServer]:
    """Give a DynamoDB stand-in."""
    from mcp_tasks.testing.servers.dynamodb import DynamoDBServer  # noqa: PLC0415

    with DynamoDBServer() as server:
        yield server

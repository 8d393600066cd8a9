"""A table of its own for each test, on the one server that all tests share."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import pytest

from mcp_tasks.storage.postgres import PostgresOptions
from mcp_tasks.storage.postgres.driver import connect
from mcp_tasks.testing.servers.postgres import PostgresServer


if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from mcp_tasks.storage.postgres.driver import Connection


_numbers = count(1)


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio, which is what the driver is written for."""
    return "asyncio"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Give a server, started when a test first asks for it. One that is to be killed is its own."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
async def database(postgres_server: PostgresServer) -> AsyncIterator[Connection]:
    """Give a connection for looking behind the backend, and for making it difficult."""
    connection = await connect(postgres_server.url)
    yield connection
    await connection.close()


@pytest.fixture
async def options(database: Connection) -> AsyncIterator[PostgresOptions]:
    """Give the name of a table that is not there yet; what is made under it goes with the test."""
    options = PostgresOptions(table=f"tasks_{next(_numbers)}")
    yield options
    await database.execute(f"DROP TABLE IF EXISTS {options.identifier}")


@pytest.fixture
def hold(database: Connection, options: PostgresOptions) -> Callable[[str], Awaitable[object]]:
    """Give what locks the row of a key, in the transaction that `database` has begun."""
    row = f"SELECT 1 FROM {options.identifier} WHERE key = $1 FOR UPDATE"  # noqa: S608 - our name
    return lambda key: database.fetch(row, key)

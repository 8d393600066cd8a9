"""A prefix of its own for each test, on the one server that all tests share."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from tests.storage.redis.witness import Witness

from mcp_tasks.storage.redis import RedisBackend, RedisOptions
from mcp_tasks.storage.redis.driver import Connection
from mcp_tasks.storage.redis.options import parse
from mcp_tasks.testing.servers.redis import RedisServer


if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


_numbers = count(1)


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio, which is what the driver is used on."""
    return "asyncio"


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """Give a server, started when a test first asks for it. One that is to be killed is its own."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def options() -> RedisOptions:
    """Give a prefix that nothing has yet."""
    return RedisOptions(prefix=f"test-{next(_numbers)}")


@pytest.fixture
async def backend(redis_server: RedisServer, options: RedisOptions) -> AsyncIterator[RedisBackend]:
    """Give an empty backend."""
    backend = RedisBackend(parse(redis_server.url)[0], options)
    yield backend
    await backend.close()


@pytest.fixture
async def wire(redis_server: RedisServer) -> AsyncIterator[Connection]:
    """Give a connection for looking behind the backend, and for making it difficult."""
    connection = Connection(("127.0.0.1", redis_server.port), {}, 5)
    await connection.open()
    yield connection
    connection.drop()


@pytest.fixture
def index(wire: Connection, options: RedisOptions) -> Callable[[], Any]:
    """Give what reads the two sets of Ada's partition as they are stored."""

    async def read() -> list[list[bytes]]:
        front = f"{options.prefix}:{{ada}}:"
        return await wire.ask([("ZRANGE", f"{front}i", 0, -1), ("ZRANGE", f"{front}x", 0, -1)])

    return read


@pytest.fixture
async def witness(redis_server: RedisServer) -> AsyncIterator[Witness]:
    """Stand between backend and server, and see what goes by."""
    async with Witness("127.0.0.1", redis_server.port) as witness:
        yield witness


@pytest.fixture
async def watched(witness: Witness, options: RedisOptions) -> AsyncIterator[RedisBackend]:
    """Give a connected backend whose wire is watched."""
    backend = RedisBackend.from_url(f"redis://127.0.0.1:{witness.port}?prefix={options.prefix}")
    await backend.put("ada:t0", b"x")
    witness.forget()
    yield backend
    await backend.close()

"""A table of its own for each test, on the two stand-ins that all tests share."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from mcp_tasks.storage.dynamodb import DynamoDBBackend
from mcp_tasks.storage.dynamodb.driver import open_client
from mcp_tasks.storage.dynamodb.options import parse
from mcp_tasks.storage.dynamodb.table import SHAPE
from mcp_tasks.testing.servers.dynamodb import CREDENTIALS, DynaliteServer, MinistackServer


if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from mcp_tasks.storage.dynamodb import DynamoDBOptions
    from mcp_tasks.storage.dynamodb.driver import Client


_numbers = count(1)


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio, which is what the driver is written for."""
    return "asyncio"


@pytest.fixture(scope="session")
def ministack() -> Iterator[MinistackServer]:
    """Give a server, started when a test first asks for it. One that is to be killed is its own."""
    with MinistackServer() as server:
        yield server


@pytest.fixture(scope="session")
def dynalite() -> Iterator[DynaliteServer]:
    """Give the other one."""
    with DynaliteServer() as server:
        yield server


def is_live(config: pytest.Config) -> bool:
    """Tell whether the real service was asked for: `pytest -m dynamodb_live`."""
    return config.getoption("markexpr") == "dynamodb_live"


@pytest.fixture(autouse=True, scope="session")
def credentials(request: pytest.FixtureRequest) -> Iterator[None]:
    """Sign with what both take, and with nothing that this machine may have."""
    if is_live(request.config):
        yield
        return
    with pytest.MonkeyPatch.context() as monkeypatch:
        _sign(monkeypatch)
        yield


def _sign(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def options(ministack: MinistackServer) -> DynamoDBOptions:
    """Give the name of a table that is not there yet."""
    return replace(parse(ministack.url), table=f"tasks_{next(_numbers)}")


@pytest.fixture
async def client(options: DynamoDBOptions) -> AsyncIterator[Client]:
    """Give a client for looking behind the backend, and for making it difficult."""
    async with open_client(options) as client:
        yield client


@pytest.fixture
async def table(client: Client, options: DynamoDBOptions) -> AsyncIterator[str]:
    """Give a table, made by hand; it goes with the test."""
    await client.create_table(TableName=options.table, **SHAPE)
    await client.update_time_to_live(
        TableName=options.table,
        TimeToLiveSpecification={"Enabled": True, "AttributeName": "expires_at"},
    )
    yield options.table
    driver: Any = client
    await driver.delete_table(TableName=options.table)


@pytest.fixture
async def backend(table: str, options: DynamoDBOptions) -> AsyncIterator[DynamoDBBackend]:
    """Give an empty backend."""
    backend = DynamoDBBackend(options)
    yield backend
    await backend.close()

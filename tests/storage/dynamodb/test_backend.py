"""The DynamoDB backend: the contract, and what is its own."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING

import pytest

from mcp_tasks.storage.dynamodb import DynamoDBBackend
from mcp_tasks.storage.dynamodb.driver import open_client
from mcp_tasks.storage.dynamodb.options import parse
from mcp_tasks.storage.dynamodb.table import SHAPE
from mcp_tasks.testing import (
    ReopenableContract,
    StorageBackendContract,
    TaskStoreContract,
)


if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mcp_tasks.storage.dynamodb import DynamoDBOptions
    from mcp_tasks.testing.servers.dynamodb import DynaliteServer


_numbers = count(1)


class TestDynamoDBBackend(StorageBackendContract, ReopenableContract):
    """The contract over ministack."""

    @pytest.fixture
    async def backend(self, table: str, options: DynamoDBOptions) -> AsyncIterator[DynamoDBBackend]:
        """Give an empty backend."""
        backend = DynamoDBBackend(options)
        yield backend
        await backend.close()


class TestOverDynalite(StorageBackendContract, ReopenableContract):
    """The contract over dynalite, which does not say what a failed condition met."""

    @pytest.fixture
    async def backend(self, dynalite: DynaliteServer) -> AsyncIterator[DynamoDBBackend]:
        """Give an empty backend."""
        options = replace(parse(dynalite.url), table=f"contract_{next(_numbers)}")
        async with open_client(options) as client:
            await client.create_table(TableName=options.table, **SHAPE)
        backend = DynamoDBBackend(options)
        yield backend
        await backend.close()


class TestStoreOverDynamoDB(TaskStoreContract):
    """The rules about tasks over ministack."""

    @pytest.fixture
    async def backend(self, table: str, options: DynamoDBOptions) -> AsyncIterator[DynamoDBBackend]:
        """Give an empty backend."""
        backend = DynamoDBBackend(options)
        yield backend
        await backend.close()

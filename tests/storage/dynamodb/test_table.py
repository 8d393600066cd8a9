"""The table: made where it is missing, looked at where it is there, and left alone if another's."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from mcp_tasks.errors import ConfigurationError, StorageUnavailableError
from mcp_tasks.storage.base import Checkable, Initializable
from mcp_tasks.storage.dynamodb import DynamoDBBackend, DynamoDBOptions
from mcp_tasks.storage.dynamodb.options import parse
from mcp_tasks.storage.dynamodb.table import SHAPE
from mcp_tasks.testing.servers.process import free_port


if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mcp_tasks.storage.dynamodb.driver import Client, Payload
    from mcp_tasks.testing.servers.dynamodb import DynaliteServer


@pytest.fixture
async def unmade(options: DynamoDBOptions) -> AsyncIterator[DynamoDBBackend]:
    """Give a backend whose table is not there."""
    backend = DynamoDBBackend(options)
    yield backend
    await backend.close()


async def expiry_of(client: Client, table: str) -> tuple[str, str]:
    """Return what the service says of Time to Live."""
    found = (await client.describe_time_to_live(TableName=table))["TimeToLiveDescription"]
    return found["TimeToLiveStatus"], found.get("AttributeName", "")


async def items_in(client: Client, table: str) -> list[Payload]:
    """Return everything that lies in a table."""
    driver: Any = client
    items: list[Payload] = (await driver.scan(TableName=table))["Items"]
    return items


def test_it_can_be_checked_and_initialized(options: DynamoDBOptions) -> None:
    """Which is how the command line and servers know."""
    assert isinstance(DynamoDBBackend(options), Checkable)
    assert isinstance(DynamoDBBackend(options), Initializable)


# --- making it -----------------------------------------------------------------------------------


async def test_a_missing_table_is_made(unmade: DynamoDBBackend, client: Client) -> None:
    """With its keys, paid by request, and with expiry; then it can be used at once."""
    said = await unmade.initialize()

    table = unmade.options.table
    assert list(said) == [
        f"made table {table!r}: keys PK and SK, paid by request",
        "turned Time to Live on, by 'expires_at'",
    ]
    found = (await client.describe_table(TableName=table))["Table"]
    assert found["KeySchema"] == SHAPE["KeySchema"]
    assert found["AttributeDefinitions"] == SHAPE["AttributeDefinitions"]
    assert found["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    assert await expiry_of(client, table) == ("ENABLED", "expires_at")
    assert await unmade.put("ada:t1", b"x") == 1


async def test_making_it_again_changes_nothing(unmade: DynamoDBBackend) -> None:
    """It is safe in a script that runs with every deployment."""
    await unmade.initialize()
    await unmade.put("ada:t1", b"x")

    assert list(await unmade.initialize()) == [
        f"table {unmade.options.table!r} is there",
        "Time to Live is on, by 'expires_at'",
    ]
    assert (await unmade.get("ada:t1")).version == 1


async def test_several_may_make_it_at_once(unmade: DynamoDBBackend) -> None:
    """All of the servers of a deployment, for example."""
    others = [unmade.reopen() for _ in range(3)]
    try:
        async with asyncio.timeout(30):
            said = await asyncio.gather(*(each.initialize() for each in (unmade, *others)))
    finally:
        for other in others:
            await other.close()

    assert sum(lines[0].startswith("made") for lines in said) == 1


async def test_expiry_is_turned_on_where_it_is_off(unmade: DynamoDBBackend, client: Client) -> None:
    """The table may have been made by hand, without it."""
    table = unmade.options.table
    await client.create_table(TableName=table, **SHAPE)

    assert list(await unmade.initialize()) == [
        f"table {table!r} is there",
        "turned Time to Live on, by 'expires_at'",
    ]
    assert await expiry_of(client, table) == ("ENABLED", "expires_at")


async def test_another_table_is_not_altered(unmade: DynamoDBBackend, client: Client) -> None:
    """Its name was taken; what it is instead is said exactly."""
    table = unmade.options.table
    shape = {
        **SHAPE,
        "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "N"}],
        "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
    }
    await client.create_table(TableName=table, **shape)

    for look in (unmade.initialize, unmade.check):
        with pytest.raises(ConfigurationError) as caught:
            await look()
        assert str(caught.value) == (
            f"table {table!r} is another one: its partition key is 'id' (N), not 'PK' (S); its "
            "sort key is missing, not 'SK' (S). Nothing was changed. Name another table, or delete "
            "this one and run 'mcp-tasks init URL'"
        )
    assert (await expiry_of(client, table))[0] == "DISABLED"


async def test_keys_of_another_type_are_a_difference(
    unmade: DynamoDBBackend, client: Client
) -> None:
    """The names alone do not make it ours."""
    first, _ = SHAPE["AttributeDefinitions"]
    definitions = [first, {"AttributeName": "SK", "AttributeType": "N"}]
    shape = {**SHAPE, "AttributeDefinitions": definitions}
    await client.create_table(TableName=unmade.options.table, **shape)

    with pytest.raises(ConfigurationError, match=r": its sort key is 'SK' \(N\), not 'SK' \(S\)"):
        await unmade.check()


async def test_expiry_by_another_attribute_is_not_altered(
    unmade: DynamoDBBackend, client: Client
) -> None:
    """Somebody wanted it so, and the service takes an hour to change it."""
    table = unmade.options.table
    await client.create_table(TableName=table, **SHAPE)
    wanted = {"Enabled": True, "AttributeName": "ttl"}
    await client.update_time_to_live(TableName=table, TimeToLiveSpecification=wanted)

    with pytest.raises(ConfigurationError, match=r"ENABLED by 'ttl', not by 'expires_at'"):
        await unmade.initialize()

    assert await expiry_of(client, table) == ("ENABLED", "ttl")
    assert "it is by 'ttl'" in (await unmade.check())[0]


async def test_a_server_without_expiry_will_do(dynalite: DynaliteServer) -> None:
    """Readers do not need it."""
    backend = DynamoDBBackend(replace(parse(dynalite.url), table="initialized"))
    said = await backend.initialize()
    assert said[1] == "table 'initialized' is kept by a server without Time to Live"
    assert len(said) == 3  # and what that means
    await backend.close()


# --- looking at it -------------------------------------------------------------------------------


async def test_a_table_as_it_should_be_passes(
    backend: DynamoDBBackend, client: Client, table: str
) -> None:
    """Without a word, and with nothing written."""
    assert list(await backend.check()) == []
    assert await items_in(client, table) == []


async def test_a_missing_table_says_how_to_make_it(unmade: DynamoDBBackend) -> None:
    """At start, and when somebody starts without looking."""
    for call in (unmade.check(), unmade.get("ada:t1"), unmade.put("ada:t1", b"x")):
        with pytest.raises(ConfigurationError, match=r"is not there .* 'mcp-tasks init URL'"):
            await call


async def test_expiry_that_is_off_is_a_warning(unmade: DynamoDBBackend, client: Client) -> None:
    """Nothing goes wrong, but the table grows."""
    await client.create_table(TableName=unmade.options.table, **SHAPE)

    (warning,) = await unmade.check()

    assert "Time to Live should be by 'expires_at', it is DISABLED" in warning


async def test_a_fixed_capacity_is_a_warning(unmade: DynamoDBBackend, client: Client) -> None:
    """It is what throttles."""
    capacity = {"ReadCapacityUnits": 7, "WriteCapacityUnits": 3}
    shape = {**SHAPE, "BillingMode": "PROVISIONED", "ProvisionedThroughput": capacity}
    await client.create_table(TableName=unmade.options.table, **shape)

    warnings = await unmade.check()

    assert "a fixed capacity (7 reads and 3 writes a second)" in warnings[0]


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    """Which is another thing than a wrong setting."""
    url = f"http://127.0.0.1:{free_port()}"
    backend = DynamoDBBackend(DynamoDBOptions(region="us-east-1", endpoint_url=url))
    try:
        for call in (backend.check, backend.initialize):
            with pytest.raises(StorageUnavailableError, match="cannot be reached"):
                await call()
    finally:
        await backend.close()

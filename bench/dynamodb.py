"""Compare-and-swaps of the DynamoDB backend against bare aiobotocore: the same call, nothing else.

The stand-in (ministack) takes most of the time and of the machine; what is compared is what our
side adds to each call.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast

from bench.cas import measure
from mcp_tasks.storage.dynamodb import DynamoDBBackend
from mcp_tasks.storage.dynamodb.driver import open_client
from mcp_tasks.storage.dynamodb.options import parse
from mcp_tasks.testing.servers.dynamodb import MinistackServer


if TYPE_CHECKING:
    from pathlib import Path

    from bench.cas import Swaps


class RawClient:
    """The least that a compare-and-swap on this driver can be."""

    def __init__(self, opening: Any, client: Any) -> None:
        self._opening = opening
        self._client = client

    @classmethod
    async def open(cls, url: str) -> RawClient:
        """Connect, with the settings of the backend's own client."""
        opening = open_client(parse(url))
        return cls(opening, cast("Any", await opening.__aenter__()))

    async def put_if_version(self, key: str, data: bytes, expected_version: int) -> int:
        """Write `data` if the version is still the expected one; return the new one."""
        payload: dict[str, Any] = {
            "TableName": "mcp_tasks",
            "Item": {
                "PK": {"S": "raw"},
                "SK": {"S": key},
                "version": {"N": str(expected_version + 1)},
                "data": {"B": data},
            },
            "ConditionExpression": "attribute_not_exists(PK)",
        }
        if expected_version:
            payload["ConditionExpression"] = "#v = :expected"
            payload["ExpressionAttributeNames"] = {"#v": "version"}
            payload["ExpressionAttributeValues"] = {":expected": {"N": str(expected_version)}}
        await self._client.put_item(**payload)
        return expected_version + 1

    async def close(self) -> None:
        """Let go of the connections."""
        await self._opening.__aexit__(None, None, None)


async def measure_dynamodb(
    folder: Path, callers: tuple[int, ...], *, rounds: int, seconds: float
) -> list[Swaps]:
    """Measure the DynamoDB backend against the bare driver, in turns, on a server of its own.

    Args:
        folder: Where the server keeps its files.
        callers: How many callers there are at once, for each measurement.
        rounds: How many turns each side has.
        seconds: How long a turn takes.
    """
    place = folder / "dynamodb"
    place.mkdir()
    with MinistackServer(place) as server:
        os.environ.update(server.environment)
        ours = DynamoDBBackend.from_url(server.url)
        await ours.initialize()
        raw = await RawClient.open(server.url)
        try:
            return [
                await measure("dynamodb", ours, raw, count, rounds=rounds, seconds=seconds)
                for count in callers
            ]
        finally:
            await ours.close()
            await raw.close()

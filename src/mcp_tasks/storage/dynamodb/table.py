"""The table: what it has to be, how it is made, and what is looked at before a server starts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from mcp_tasks.errors import ConfigurationError, StorageUnavailableError
from mcp_tasks.storage.dynamodb.driver import ConditionFailedError, code_of
from mcp_tasks.storage.dynamodb.items import NAMES, key_of, number


if TYPE_CHECKING:
    from collections.abc import Sequence

    from mcp_tasks.storage.dynamodb.driver import Payload
    from mcp_tasks.storage.dynamodb.engine import Engine


EXPIRY = "expires_at"
SHAPE: Payload = {
    "AttributeDefinitions": [
        {"AttributeName": "PK", "AttributeType": "S"},
        {"AttributeName": "SK", "AttributeType": "S"},
    ],
    "KeySchema": [
        {"AttributeName": "PK", "KeyType": "HASH"},
        {"AttributeName": "SK", "KeyType": "RANGE"},
    ],
    "BillingMode": "PAY_PER_REQUEST",
}

_UNTIL_ACTIVE = 120.0
_PAUSE = 0.2
_NOWHERE = "@check:rights"
_NEVER = "attribute_exists(PK) AND attribute_not_exists(PK)"


async def examine(engine: Engine, table: str) -> Sequence[str]:
    """Return warnings about `table`; asks for every right that is needed, and changes nothing.

    Raises:
        ConfigurationError: It cannot work with it.
        StorageUnavailableError: The service did not answer.
    """
    warnings: list[str] = []
    try:
        found = await _describe(engine, table)
    except ConfigurationError as error:
        if not _is_denied(error):
            raise
        warnings.append(_unseen(table, "dynamodb:DescribeTable"))
    else:
        _require(found, table)
        warnings += _doubts(found, table)
    try:
        status, attribute = await _describe_expiry(engine, table)
    except ConfigurationError as error:
        if not _is_denied(error):
            raise
        warnings.append(_unseen(table, "dynamodb:DescribeTimeToLive"))
    else:
        if attribute != EXPIRY or status not in ("ENABLED", "ENABLING"):
            now = f"it is by {attribute!r}" if status == "ENABLED" else f"it is {status}"
            warnings.append(
                f"table {table!r} does not remove what has expired: Time to Live should be by "
                f"{EXPIRY!r}, {now}. Tasks end in time all the same, but what they leave is paid "
                "for: run 'mcp-tasks init URL'"
            )
    await _try_rights(engine, table)
    return warnings


async def ensure(engine: Engine, table: str) -> Sequence[str]:
    """Make `table` and turn its expiry on, unless that was done.

    Returns:
        What was found and what was done.

    Raises:
        ConfigurationError: There is another table of that name; it was not altered.
        StorageUnavailableError: The service did not answer.
    """
    done = f"table {table!r} is there"
    try:
        await _describe(engine, table)
    except ConfigurationError as error:
        if _cause(error) != "ResourceNotFoundException":
            raise
        if await _create(engine, table):
            done = f"made table {table!r}: keys PK and SK, paid by request"
    _require(await _until_active(engine, table), table)
    return [done, await _turn_expiry_on(engine, table)]


# --- looking -------------------------------------------------------------------------------------


async def _describe(engine: Engine, table: str) -> Payload:
    found: Payload = (await engine.ask("describe_table", {"TableName": table}))["Table"]
    return found


async def _describe_expiry(engine: Engine, table: str) -> tuple[str, str]:
    """Return the status of Time to Live, and by which attribute it goes."""
    try:
        answer = await engine.ask("describe_time_to_live", {"TableName": table})
    except StorageUnavailableError as error:
        if _cause(error) != "UnknownOperationException":
            raise
        return "UNKNOWN", ""
    found = answer.get("TimeToLiveDescription", {})
    return found.get("TimeToLiveStatus", "DISABLED"), found.get("AttributeName", "")


def _require(found: Payload, table: str) -> None:
    types = {a["AttributeName"]: a["AttributeType"] for a in found["AttributeDefinitions"]}
    keys = {k["KeyType"]: k["AttributeName"] for k in found["KeySchema"]}
    different = [
        f"its {what} key is {_shown(keys.get(kind), types)}, not {_shown(wanted, {wanted: 'S'})}"
        for kind, what, wanted in (("HASH", "partition", "PK"), ("RANGE", "sort", "SK"))
        if (keys.get(kind), types.get(keys.get(kind))) != (wanted, "S")
    ]
    if different:
        msg = (
            f"table {table!r} is another one: {'; '.join(different)}. Nothing was changed. Name "
            "another table, or delete this one and run 'mcp-tasks init URL'"
        )
        raise ConfigurationError(msg)
    status = found["TableStatus"]
    if status not in ("ACTIVE", "UPDATING"):
        msg = f"table {table!r} is {status}; nothing was changed. Wait until it is ACTIVE"
        raise ConfigurationError(msg)


def _shown(name: str | None, types: dict[str, str]) -> str:
    return "missing" if name is None else f"{name!r} ({types.get(name)})"


def _doubts(found: Payload, table: str) -> list[str]:
    warnings: list[str] = []
    if found.get("Replicas") and found.get("MultiRegionConsistency") != "STRONG":
        warnings.append(
            f"table {table!r} has replicas in other regions, where the last writer wins: all "
            "servers must use this one region"
        )
    mode = found.get("BillingModeSummary", {}).get("BillingMode", "PROVISIONED")
    if mode == "PROVISIONED":
        given = found.get("ProvisionedThroughput", {})
        warnings.append(
            f"table {table!r} has a fixed capacity ({given.get('ReadCapacityUnits')} reads and "
            f"{given.get('WriteCapacityUnits')} writes a second): more is refused, and tasks wait. "
            "Let it scale, or be paid by request"
        )
    return warnings


async def _try_rights(engine: Engine, table: str) -> None:
    """Make each kind of call once, those that write under a condition that never holds."""
    key = key_of(_NOWHERE)
    here: Payload = {"TableName": table}
    never = {**here, "ConditionExpression": _NEVER}
    update = {
        "Key": key,
        "UpdateExpression": "SET #v = :0",
        "ExpressionAttributeNames": {"#v": NAMES["#v"]},
        "ExpressionAttributeValues": {":0": number(0)},
    }
    query = {
        "KeyConditionExpression": "PK = :pk",
        "ExpressionAttributeValues": {":pk": key["PK"]},
        "ConsistentRead": True,
        "Limit": 1,
    }
    calls: list[tuple[str, dict[str, Any]]] = [
        ("get_item", {**here, "Key": key, "ConsistentRead": True}),
        ("query", {**here, **query}),
        ("put_item", {**never, "Item": key}),
        ("update_item", {**never, **update}),
        ("delete_item", {**never, "Key": key}),
    ]
    for operation, payload in calls:
        try:
            await engine.ask(operation, payload)
        except ConditionFailedError:
            continue


def _unseen(table: str, right: str) -> str:
    return f"table {table!r} could not be looked at: the credentials lack {right}"


def _is_denied(error: ConfigurationError) -> bool:
    return _cause(error).startswith("AccessDenied")


def _cause(error: Exception) -> str:
    cause = error.__cause__
    return code_of(cause) if isinstance(cause, Exception) else ""


# --- making --------------------------------------------------------------------------------------


async def _create(engine: Engine, table: str) -> bool:
    """Make the table; return False if somebody else did meanwhile."""
    try:
        await engine.ask("create_table", {"TableName": table, **SHAPE})
    except StorageUnavailableError as error:
        if _cause(error) != "ResourceInUseException":
            raise
        return False
    return True


async def _until_active(engine: Engine, table: str) -> Payload:
    until = engine.loop.time() + _UNTIL_ACTIVE
    while True:
        try:
            found = await _describe(engine, table)
        except ConfigurationError as error:
            # The service may not see yet what was made just now.
            if _cause(error) != "ResourceNotFoundException" or engine.loop.time() > until:
                raise
        else:
            if found["TableStatus"] != "CREATING" or engine.loop.time() > until:
                return found
        await asyncio.sleep(_PAUSE)


async def _turn_expiry_on(engine: Engine, table: str) -> str:
    status, attribute = await _describe_expiry(engine, table)
    if status == "UNKNOWN":
        return f"table {table!r} is kept by a server without Time to Live"
    if status in ("ENABLED", "ENABLING") and attribute == EXPIRY:
        return f"Time to Live is on, by {EXPIRY!r}"
    if status != "DISABLED":
        msg = (
            f"Time to Live of table {table!r} is {status} by {attribute!r}, not by {EXPIRY!r}; "
            "nothing was changed. Turn it off, wait for an hour, and run 'mcp-tasks init URL' again"
        )
        raise ConfigurationError(msg)
    wanted = {"Enabled": True, "AttributeName": EXPIRY}
    try:
        await engine.ask(
            "update_time_to_live", {"TableName": table, "TimeToLiveSpecification": wanted}
        )
    except StorageUnavailableError as error:
        if _cause(error) != "UnknownOperationException":
            raise
        return f"table {table!r} is kept by a server without Time to Live"
    except ConfigurationError as error:
        # Somebody else may have done it meanwhile.
        is_on = (await _describe_expiry(engine, table))[1] == EXPIRY
        if _cause(error) != "ValidationException" or not is_on:
            raise
    return f"turned Time to Live on, by {EXPIRY!r}"

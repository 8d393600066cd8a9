"""The six methods of the storage protocol over one table of DynamoDB."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Self

from mcp_tasks.clock import SystemClock, epoch_ms
from mcp_tasks.errors import (
    BackendClosedError,
    ConfigurationError,
    RecordNotFoundError,
    RecordTooLargeError,
    VersionConflictError,
)
from mcp_tasks.storage.base import Capabilities, Page
from mcp_tasks.storage.dynamodb.driver import ConditionFailedError, open_client
from mcp_tasks.storage.dynamodb.engine import Engine
from mcp_tasks.storage.dynamodb.items import (
    MAX_RECORD_BYTES,
    NAMES,
    OWNER,
    TASK,
    check_text,
    expiry_of,
    is_expired,
    key_of,
    number,
    record_of,
    version_of,
)
from mcp_tasks.storage.dynamodb.options import DynamoDBOptions, parse, place_of
from mcp_tasks.storage.dynamodb.table import ensure, examine
from mcp_tasks.storage.keys import MAX_KEY_BYTES
from mcp_tasks.storage.ranges import listing_range


if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from datetime import datetime

    from mcp_tasks.storage.base import StoredRecord
    from mcp_tasks.storage.dynamodb.driver import Client, Opening, Payload


_LIVE = "(attribute_not_exists(expires_ms) OR expires_ms > :now)"
_ABSENT = "(attribute_not_exists(PK) OR expires_ms <= :now)"
_MOST_AT_ONCE = 1000

_engines_of_parents: list[Engine] = []


class BorrowedDynamoDBBackend:
    """Keep records in one DynamoDB table, over a client that somebody else opens and closes.

    It is bound to the event loop of that client, so workers write their heartbeats on it too. Give
    the client a configuration that sends nothing again by itself
    (`retries={"total_max_attempts": 1}`): a write that was done, and is sent again, conflicts with
    itself.

    Args:
        connect: Gives the client.
        options: Which table, and how it is used; what concerns the client is the client's.
    """

    capabilities = Capabilities(
        durable=True, shared=True, max_record_bytes=MAX_RECORD_BYTES, native_expiry=True
    )

    def __init__(self, connect: Callable[[], Opening], options: DynamoDBOptions) -> None:
        self._connect = connect
        self.options = options
        self._engine: Engine | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}(table={self.options.table!r})"

    # --- the six methods -------------------------------------------------------------------------

    async def get(self, key: str) -> StoredRecord:
        """Return the record under `key`. One strongly consistent read."""
        where = key_of(key)
        found = await self._enter().ask(
            "get_item", self._of_table({"Key": where, "ConsistentRead": True})
        )
        item = found.get("Item")
        if not item or is_expired(item, _now_ms()):
            raise RecordNotFoundError(key)
        return record_of(item, key)

    async def put(self, key: str, data: bytes, *, expires_at: datetime | None = None) -> int:
        """Write `data` under `key`, whatever is there. One call; three where a record expired."""
        where, expiry = self._checked(key, data, expires_at)
        engine = self._enter()
        sets = "".join(f", {name} = :{name}" for name in expiry)
        payload = {
            "Key": where,
            "UpdateExpression": f"SET #d = :d, #v = if_not_exists(#v, :0) + :1{sets}"
            + ("" if expiry else " REMOVE expires_at, expires_ms"),
            "ConditionExpression": _LIVE,
            "ExpressionAttributeNames": NAMES,
            "ReturnValues": "UPDATED_NEW",
        }
        values = {":d": {"B": data}, ":0": number(0), ":1": number(1)}
        values |= {f":{name}": value for name, value in expiry.items()}
        while True:
            now = {":now": number(_now_ms())}
            payload["ExpressionAttributeValues"] = values | now
            try:
                done = await engine.write("update_item", self._of_table(payload), key)
                return int(done["Attributes"]["version"]["N"])
            except ConditionFailedError:
                # What lies there has expired: replace exactly that. If somebody else does so
                # first, theirs is there to be counted on.
                over = {"ConditionExpression": _ABSENT, "ExpressionAttributeValues": now}
                item = {**where, "version": number(1), "data": {"B": data}, **expiry}
                try:
                    await engine.write("put_item", self._of_table({"Item": item, **over}), key)
                except ConditionFailedError:
                    continue
                return 1

    async def put_if_version(
        self, key: str, data: bytes, expected_version: int, *, expires_at: datetime | None = None
    ) -> int:
        """Write `data` under `key` only if its version is still `expected_version`. One call."""
        where, expiry = self._checked(key, data, expires_at)
        engine = self._enter()
        version = expected_version + 1
        item = {**where, "version": number(version), "data": {"B": data}, **expiry}
        while True:
            now_ms = _now_ms()
            payload: Payload = {
                "Item": item,
                "ExpressionAttributeValues": {":now": number(now_ms)},
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            }
            if expected_version:
                payload["ConditionExpression"] = f"#v = :expected AND {_LIVE}"
                payload["ExpressionAttributeNames"] = {"#v": "version"}
                payload["ExpressionAttributeValues"][":expected"] = number(expected_version)
            else:
                payload["ConditionExpression"] = _ABSENT
            try:
                await engine.write("put_item", self._of_table(payload), key)
            except ConditionFailedError as failed:
                actual = version_of(failed.item or await self._look(engine, where), now_ms)
                if actual != expected_version:
                    raise VersionConflictError(key, expected_version, actual) from None
                # It was looked at later than it was refused, and is as expected by now.
            else:
                return version

    async def delete(self, key: str) -> bool:
        """Remove the record under `key`, whatever its version. One call.

        An expired one is left to the service.
        """
        payload = {
            "Key": key_of(key),
            "ConditionExpression": f"attribute_exists(PK) AND {_LIVE}",
            "ExpressionAttributeValues": {":now": number(_now_ms())},
        }
        try:
            await self._enter().write("delete_item", self._of_table(payload), key)
        except ConditionFailedError:
            return False
        return True

    async def list_by_prefix(
        self, prefix: str, *, limit: int = 100, after: str | None = None, reverse: bool = False
    ) -> Page:
        """Return one page of the records whose key starts with `prefix`, in key order.

        One call for each megabyte; more where expired records lie in between.
        """
        check_text(prefix)
        check_text(after or "")
        first, end = listing_range(prefix, limit=limit, after=after, reverse=reverse)
        engine = self._enter()
        if end <= first or len(prefix.encode()) > MAX_KEY_BYTES:
            return Page([], None)
        partition, _, sort = prefix.partition(":")
        payload = self._of_table(
            {
                "ConsistentRead": True,
                "KeyConditionExpression": "PK = :pk AND begins_with(SK, :sk)",
                "FilterExpression": _LIVE,
                "ScanIndexForward": not reverse,
            }
        )
        of_range = {":pk": {"S": OWNER + partition}, ":sk": {"S": TASK + sort}}
        if after is not None and after.startswith(prefix):
            # It need not exist, nor be a key. No key lies between one that is too long and its
            # first bytes, as long as those are more than a key has.
            begin = after.partition(":")[2].encode()[: MAX_KEY_BYTES + 1].decode(errors="ignore")
            payload["ExclusiveStartKey"] = {"PK": of_range[":pk"], "SK": {"S": TASK + begin}}
        records: list[StoredRecord] = []
        batch = limit + 1
        while True:
            payload["Limit"] = min(batch, _MOST_AT_ONCE)
            payload["ExpressionAttributeValues"] = of_range | {":now": number(_now_ms())}
            found = await engine.ask("query", payload)
            for item in found["Items"]:
                key = f"{partition}:{item['SK']['S'].removeprefix(TASK)}"
                records.append(record_of(item, key))
            if len(records) > limit:
                return Page(records[:limit], records[limit - 1].key)
            if not found.get("LastEvaluatedKey"):
                return Page(records, None)
            # A megabyte was full, or what was looked at had expired: then look at more.
            payload["ExclusiveStartKey"] = found["LastEvaluatedKey"]
            batch = max(limit + 1 - len(records), 2 * batch - len(found["Items"]))

    async def cleanup_expired(self, now: datetime) -> int:  # noqa: ARG002 - not needed
        """Do nothing: the service removes expired records by itself."""
        self._enter()
        return 0

    async def close(self) -> None:
        """Let go of the client. Safe to call twice; calls under way end first."""
        self._closed = True
        engine, self._engine = self._engine, None
        if engine is not None and engine.process == os.getpid() and not engine.loop.is_closed():
            await engine.close()

    # --- beside them -----------------------------------------------------------------------------

    async def check(self) -> Sequence[str]:
        """Look at the table, its settings and the rights without changing them."""
        return await examine(self._enter(), self.options.table)

    async def initialize(self) -> Sequence[str]:
        """Make the table and turn its expiry on, as far as that was not done, then check it."""
        engine = self._enter()
        done = await ensure(engine, self.options.table)
        return [*done, *await examine(engine, self.options.table)]

    async def _look(self, engine: Engine, where: Payload) -> Payload:
        """Return what a conflict has to say of an item, where the refusal did not say it."""
        payload = {
            "Key": where,
            "ConsistentRead": True,
            "ProjectionExpression": "#v, expires_ms",
            "ExpressionAttributeNames": {"#v": "version"},
        }
        found = await engine.ask("get_item", self._of_table(payload))
        item: Payload = found.get("Item") or {}
        return item

    def _of_table(self, payload: Payload) -> Payload:
        return {"TableName": self.options.table, **payload}

    def _checked(
        self, key: str, data: bytes, expires_at: datetime | None
    ) -> tuple[Payload, Payload]:
        where = key_of(key)
        if len(data) > MAX_RECORD_BYTES:
            raise RecordTooLargeError(key, len(data), MAX_RECORD_BYTES)
        return where, expiry_of(expires_at)

    def _enter(self) -> Engine:
        """Return what serves the running loop."""
        loop = asyncio.get_running_loop()
        engine = self._engine
        if engine is not None and engine.loop is loop and engine.process == os.getpid():
            return engine
        if self._closed:
            raise BackendClosedError
        if engine is not None:
            if engine.process != os.getpid():
                # The connections are the parent's: not to be used, and not to be closed.
                _engines_of_parents.append(engine)
            elif engine.loop.is_running():
                msg = (
                    "this backend is in use by another event loop; "
                    "open a second one for this loop with reopen()"
                )
                raise ConfigurationError(msg)
        self._engine = engine = Engine(self._connect, self.options)
        return engine


class DynamoDBBackend(BorrowedDynamoDBBackend):
    """Keep records in one DynamoDB table, which any number of servers may share.

    A write is acknowledged when the service has it in several places. The service removes expired
    records by itself; until then nobody sees them. Whether one has expired goes by the clock of
    this machine. Connects at first use. One event loop at a time; `reopen` gives a second backend
    for another.

    Args:
        options: Everything that is not the driver's.
        connect: Called for each client that is needed, with no arguments; gives what
            `session.create_client("dynamodb", …)` of aiobotocore does. `None` for the credentials
            and the region that AWS tools would find. Turn the driver's retries off
            (`retries={"total_max_attempts": 1}`): a write that was done, and is sent again,
            conflicts with itself.
    """

    def __init__(
        self,
        options: DynamoDBOptions | None = None,
        *,
        connect: Callable[[], Opening] | None = None,
    ) -> None:
        options = options or DynamoDBOptions()
        super().__init__(connect or partial(open_client, options), options)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(table={self.options.table!r}{place_of(self.options)})"

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Return the backend that `url` names. Nothing is opened yet.

        `docs/backends/dynamodb.md` lists the options.

        Raises:
            ConfigurationError: The URL cannot be used. It is not shown.
        """
        return cls(parse(url))

    @classmethod
    def from_env(cls, *, table: str = "mcp_tasks") -> Self:
        """Return a backend on `table`, with everything else as the AWS tools find it."""
        return cls(DynamoDBOptions(table=table))

    @staticmethod
    def from_client(
        client: Client, options: DynamoDBOptions | None = None
    ) -> BorrowedDynamoDBBackend:
        """Return a backend over an open client, which the caller closes, after the backend."""
        return BorrowedDynamoDBBackend(partial(_lent, client), options or DynamoDBOptions())

    def reopen(self) -> Self:
        """Return a second, independent backend on the same table. The caller closes it."""
        return type(self)(replace(self.options), connect=self._connect)


@asynccontextmanager
async def _lent(client: Client) -> AsyncGenerator[Client]:
    """Give what is not ours to close."""
    yield client


def _now_ms() -> int:
    return epoch_ms(SystemClock().now())

"""A service that is too busy: refused calls are sent again, unanswered writes never."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import httpx
import pytest

from mcp_tasks.errors import OutcomeUnknownError, StorageUnavailableError
from mcp_tasks.storage.base import StoredRecord
from mcp_tasks.storage.dynamodb import DynamoDBBackend


if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from mcp_tasks.storage.dynamodb import DynamoDBOptions
    from mcp_tasks.testing.servers.dynamodb import MinistackServer


BUSY = ("ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded")


class Refusal(NamedTuple):
    """An answer instead of the service's."""

    status: int
    code: str


class BusyService:
    """The service behind a door: some requests are answered at the door and go no further.

    Attributes:
        refusals: For the requests to come, one each; the others pass.
        refused: By operation.
        passed: By operation.
    """

    def __init__(self, real: str) -> None:
        self.refusals: list[Refusal] = []
        self.refused: Counter[str] = Counter()
        self.passed: Counter[str] = Counter()
        self.port = 0
        self._real = real

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        """Listen for as long as the block lasts."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with httpx.AsyncClient(base_url=self._real) as self._http:
            yield
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                lines = [line.partition(": ") for line in head.split("\r\n")[1:] if line]
                headers = {name.lower(): value for name, _, value in lines}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                operation = headers["x-amz-target"].rpartition(".")[2]
                if self.refusals:
                    refusal = self.refusals.pop(0)
                    self.refused[operation] += 1
                    kind = f"com.amazonaws.dynamodb.v20120810#{refusal.code}"
                    status, answer = refusal.status, json.dumps({"__type": kind, "message": "busy"})
                else:
                    self.passed[operation] += 1
                    del headers["host"]
                    found = await self._http.post("/", content=body, headers=headers)
                    status, answer = found.status_code, found.text
                data = answer.encode()
                writer.write(
                    f"HTTP/1.1 {status} X\r\ncontent-type: application/x-amz-json-1.0\r\n"
                    f"content-length: {len(data)}\r\n\r\n".encode()
                    + data
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@pytest.fixture
async def service(ministack: MinistackServer) -> AsyncIterator[BusyService]:
    """Give a door before the stand-in."""
    service = BusyService(ministack.endpoint)
    async with service.open():
        yield service


@pytest.fixture
async def busy(
    service: BusyService, table: str, options: DynamoDBOptions
) -> AsyncIterator[DynamoDBBackend]:
    """Give a backend that goes through that door, with two seconds of patience."""
    backend = DynamoDBBackend(
        replace(options, endpoint_url=f"http://127.0.0.1:{service.port}", patience=2.0)
    )
    await backend.put("ada:t0", b"x")
    service.passed.clear()
    yield backend
    await backend.close()


@pytest.mark.parametrize("code", BUSY)
async def test_what_was_refused_is_sent_again(
    busy: DynamoDBBackend, service: BusyService, code: str
) -> None:
    """A refusal says that nothing was done, so that even a write may be tried again."""
    refusals = [Refusal(400, code)] * 2

    service.refusals = list(refusals)
    assert await busy.put_if_version("ada:t0", b"y", 1) == 2
    service.refusals = list(refusals)
    assert await busy.put("ada:t1", b"x") == 1
    service.refusals = list(refusals)
    assert await busy.get("ada:t0") == StoredRecord("ada:t0", b"y", 2)
    service.refusals = list(refusals)
    assert len((await busy.list_by_prefix("ada:")).records) == 2
    service.refusals = list(refusals)
    assert await busy.delete("ada:t1") is True

    once = {"PutItem": 1, "UpdateItem": 1, "GetItem": 1, "Query": 1, "DeleteItem": 1}
    assert service.passed == once
    assert service.refused == dict.fromkeys(once, 2)


async def test_a_service_that_stays_busy_is_an_error(
    busy: DynamoDBBackend, service: BusyService
) -> None:
    """After a while, with pauses that grow; and nothing got through meanwhile."""
    service.refusals = [Refusal(400, BUSY[0])] * 10_000
    began = asyncio.get_running_loop().time()

    for call in (busy.put_if_version("ada:t0", b"y", 1), busy.get("ada:t0")):
        with pytest.raises(StorageUnavailableError, match=r"Provisioned.*nothing was written"):
            await call

    taken = asyncio.get_running_loop().time() - began
    assert taken < 4.5
    assert not service.passed
    assert 4 <= service.refused["PutItem"] <= 12  # 2 s of pauses from 50 ms on, doubling
    service.refusals = []
    assert await busy.get("ada:t0") == StoredRecord("ada:t0", b"x", 1)


async def test_many_callers_of_a_busy_service_all_come_through(
    busy: DynamoDBBackend, service: BusyService
) -> None:
    """Each write has its effect once, however often it was refused."""
    service.refusals = [Refusal(400, BUSY[1])] * 60

    versions = await asyncio.gather(*(busy.put("ada:t0", b"y") for _ in range(30)))

    assert sorted(versions) == list(range(2, 32))
    assert service.passed == {"UpdateItem": 30}


@pytest.mark.parametrize(
    "refusal", [Refusal(500, "InternalServerError"), Refusal(503, "ServiceUnavailable")]
)
async def test_a_write_that_may_have_happened_is_not_sent_again(
    busy: DynamoDBBackend, service: BusyService, refusal: Refusal
) -> None:
    """The service says of these itself that the outcome is open; a read is asked again."""
    for call in (
        busy.put("ada:t0", b"y"),
        busy.put_if_version("ada:t0", b"y", 1),
        busy.delete("ada:t0"),
    ):
        service.refusals = [refusal]
        with pytest.raises(OutcomeUnknownError, match="may or may not have happened"):
            await call
    assert not service.passed

    service.refusals = [refusal]
    assert await busy.get("ada:t0") == StoredRecord("ada:t0", b"x", 1)

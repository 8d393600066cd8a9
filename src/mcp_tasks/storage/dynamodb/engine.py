"""What belongs to one event loop of one process: the client, and how its calls are made."""

from __future__ import annotations

import asyncio
import os
import random
from typing import TYPE_CHECKING

from mcp_tasks.errors import ConfigurationError, OutcomeUnknownError
from mcp_tasks.storage.dynamodb.driver import (
    DRIVER_ERRORS,
    Verdict,
    failed_condition,
    judge,
    reason,
    translate,
)


if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_tasks.storage.dynamodb.driver import Client, Opening, Payload
    from mcp_tasks.storage.dynamodb.options import DynamoDBOptions


_READ_TRIES = 3
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0


class Engine:
    """The running part of a backend.

    Args:
        connect: Gives the client; entered at first use, left by `close`.
        options: How the backend was set up.
    """

    def __init__(self, connect: Callable[[], Opening], options: DynamoDBOptions) -> None:
        self.loop = asyncio.get_running_loop()
        self.process = os.getpid()
        self._connect = connect
        self._options = options
        self._opening: Opening | None = None
        self._client: asyncio.Task[Client] | None = None
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def ask(self, operation: str, payload: Payload) -> Payload:
        """Make a call that may be made twice; again when it fails, a few times.

        Raises:
            ConditionFailedError: Its condition did not hold.
            ConfigurationError: It cannot be answered like this.
            StorageUnavailableError: It was not answered.
        """
        return await self._persist(operation, payload, None)

    async def write(self, operation: str, payload: Payload, key: str) -> Payload:
        """Make a call that writes, once; again only while the service is too busy to begin it.

        Raises:
            ConditionFailedError: Its condition did not hold.
            ConfigurationError: It cannot be done like this. Nothing was written.
            StorageUnavailableError: It was not sent, or the service stayed too busy.
            OutcomeUnknownError: It may have happened.
        """
        return await self._persist(operation, payload, key)

    async def close(self) -> None:
        """Let the calls under way end, then let go of the client."""
        await self._idle.wait()
        client, self._client = self._client, None
        if client is not None:
            await asyncio.wait([client])
        opening, self._opening = self._opening, None
        if opening is not None:
            await opening.__aexit__(None, None, None)

    async def _persist(self, operation: str, payload: Payload, writes: str | None) -> Payload:
        self._under_way += 1
        self._idle.clear()
        try:
            until = self.loop.time() + self._options.patience
            pause = _FIRST_PAUSE
            tries = 1
            while True:
                try:
                    return await self._call(operation, payload)
                except DRIVER_ERRORS as error:
                    failed = failed_condition(error)
                    if failed is not None:
                        raise failed from None
                    verdict = judge(error)
                    if writes is not None and verdict is Verdict.UNKNOWN:
                        raise OutcomeUnknownError(writes, f"DynamoDB: {reason(error)}") from error
                    again = verdict is Verdict.BUSY or (
                        writes is None and verdict is not Verdict.REFUSED and tries < _READ_TRIES
                    )
                    # Nobody waits longer than the others for nothing: a random part of the pause.
                    wait = random.uniform(pause / 2, pause)  # noqa: S311 - not a secret
                    if not again or self.loop.time() + wait > until:
                        raise translate(error, self._options.table) from error
                await asyncio.sleep(wait)
                pause = min(2 * pause, _LONGEST_PAUSE)
                tries += 1
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    async def _call(self, operation: str, payload: Payload) -> Payload:
        """Make one call, and give up on its answer in time."""
        client = await self._opened()
        # The driver's own limits are for one read of the socket, and none is for its queue.
        async with asyncio.timeout(self._options.connect_timeout + self._options.timeout):
            answer: Payload = await getattr(client, operation)(**payload)
        return answer

    async def _opened(self) -> Client:
        """Return the client; callers that come together wait for the same one."""
        if self._client is None:
            self._client = self.loop.create_task(self._open())
        client = self._client
        try:
            return await asyncio.shield(client)
        except BaseException:
            if client.done() and self._client is client and client.exception() is not None:
                self._client = None
            raise

    async def _open(self) -> Client:
        try:
            opening = self._connect()
            client = await opening.__aenter__()
        except DRIVER_ERRORS as error:
            raise translate(error, self._options.table) from error
        except ValueError:
            # The driver's words show the URL.
            msg = "the endpoint_url of DynamoDB is no URL; nothing was changed"
            raise ConfigurationError(msg) from None
        self._opening = opening
        return client

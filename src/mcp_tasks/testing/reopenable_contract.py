"""The contract of backends that can be opened a second time, for another loop or process."""

from __future__ import annotations

import asyncio
from typing import Protocol

from mcp_tasks.errors import VersionConflictError
from mcp_tasks.storage.base import Reopenable, StorageBackend, StoredRecord
from mcp_tasks.testing.contract import Contract


class ReopenableBackend(StorageBackend, Reopenable, Protocol):
    """Both of them."""


class ReopenableContract(Contract):
    """What a backend does that has `reopen`. Each test is given an empty one."""

    async def test_a_second_one_shares_the_records(self, backend: ReopenableBackend) -> None:
        """Each sees at once what the other wrote, and they race for one version."""
        second = backend.reopen()
        try:
            await backend.put("ada:t1", b"first")
            assert await second.get("ada:t1") == StoredRecord("ada:t1", b"first", 1)

            await second.put_if_version("ada:t1", b"second", 1)
            assert await backend.get("ada:t1") == StoredRecord("ada:t1", b"second", 2)

            async with asyncio.timeout(10):
                outcomes = await asyncio.gather(
                    *(
                        handle.put_if_version("ada:t1", b"race", 2)
                        for _ in range(8)
                        for handle in (backend, second)
                    ),
                    return_exceptions=True,
                )
            assert outcomes.count(3) == 1
            assert sum(isinstance(outcome, VersionConflictError) for outcome in outcomes) == 15
        finally:
            await second.close()

    async def test_a_second_one_lives_on_its_own(self, backend: ReopenableBackend) -> None:
        """Closing the first does not close it."""
        second = backend.reopen()
        try:
            await backend.put("ada:t1", b"x")
            await backend.close()

            assert (await second.get("ada:t1")).data == b"x"
            assert await second.put("ada:t1", b"y") == 2
        finally:
            await second.close()

    async def test_a_second_one_works_on_another_loop(self, backend: ReopenableBackend) -> None:
        """It is there for the heartbeat, which has a thread and a loop of its own."""
        second = backend.reopen()
        await backend.put("ada:t1", b"x")

        async def beat() -> int:
            try:
                return await second.put("ada:t1", b"y")
            finally:
                await second.close()

        async with asyncio.timeout(10):
            assert await asyncio.to_thread(asyncio.run, beat()) == 2
        assert (await backend.get("ada:t1")).data == b"y"

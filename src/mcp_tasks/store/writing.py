"""Writes that are settled: one place where a backend's errors become the store's.

A write that was not answered may have happened, or may still happen. Only sending the *same*
compare-and-swap again settles it: once it holds or conflicts, no copy of it can land any more.
"""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from mcp_tasks.errors import (
    OutcomeUnknownError,
    RecordNotFoundError,
    RecordTooLargeError,
    StorageError,
    StoreUnavailableError,
    VersionConflictError,
)


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator
    from datetime import datetime

    from mcp_tasks.storage.base import StorageBackend


T = TypeVar("T")
_log = logging.getLogger("mcp_tasks.store")


@contextmanager
def translated() -> Generator[None]:
    """Turn what a backend raises into what the store raises.

    `RecordNotFoundError` and `VersionConflictError` pass: they are answers, not failures.
    """
    try:
        yield
    except OutcomeUnknownError as error:
        raise StoreUnavailableError(happened=None) from error
    except (VersionConflictError, RecordNotFoundError):
        raise
    except StorageError as error:
        _log.warning("the task store failed: %s", error)
        raise StoreUnavailableError(happened=False) from error


async def swap(
    backend: StorageBackend,
    key: str,
    data: bytes,
    expected: int,
    expires_at: datetime | None,
    patience: float,
) -> tuple[int | None, bool]:
    """Compare-and-swap until the outcome is definite.

    Args:
        backend: Where.
        key: The record.
        data: Its new body.
        expected: The version it must have.
        expires_at: When it ceases to exist.
        patience: Seconds to go on sending the same write while nobody answers.

    Returns:
        The new version, or `None` for a conflict; and whether a write went unanswered meanwhile,
        so that a conflict may be with one's own write.

    Raises:
        StoreUnavailableError: It failed (`happened` false), or is still unknown after `patience`
            (`happened` None).
        RecordTooLargeError: Nothing was written.
    """
    unanswered = False
    deadline = 0.0
    delay = 0.01
    while True:
        try:
            return await backend.put_if_version(key, data, expected, expires_at=expires_at), False
        except VersionConflictError:
            return None, unanswered
        except RecordTooLargeError:
            raise
        except OutcomeUnknownError as error:
            now = asyncio.get_running_loop().time()
            deadline = deadline or now + patience
            unanswered = True
            if now >= deadline:
                raise StoreUnavailableError(happened=None) from error
        except StorageError as error:
            # Only a write that was never answered keeps us here: its copy may still land.
            if not unanswered:
                _log.warning("the task store failed: %s", error)
                raise StoreUnavailableError(happened=False) from error
            if asyncio.get_running_loop().time() >= deadline:
                raise StoreUnavailableError(happened=None) from error
        await asyncio.sleep(random.uniform(0, delay))  # noqa: S311 - jitter is no secret
        delay = min(2 * delay, 1.0)


async def repeat(write: Callable[[], Awaitable[object]], patience: float) -> None:
    """Put or delete what may be put or deleted twice, until that is answered.

    That is what has a key of its own for ever: an entry of an index, a record nobody was told of.

    Raises:
        StoreUnavailableError: It may not have happened. No record of a task is changed by that.
    """
    deadline = asyncio.get_running_loop().time() + patience
    delay = 0.01
    while True:
        try:
            await write()
        except OutcomeUnknownError as error:
            if asyncio.get_running_loop().time() >= deadline:
                raise StoreUnavailableError(happened=False) from error
        except StorageError as error:
            _log.warning("the task store failed: %s", error)
            raise StoreUnavailableError(happened=False) from error
        else:
            return
        await asyncio.sleep(random.uniform(0, delay))  # noqa: S311 - jitter is no secret
        delay = min(2 * delay, 1.0)


_under_way: set[asyncio.Task[Any]] = set()  # the loop itself would let go of them


async def shielded(work: Coroutine[Any, Any, T]) -> T:
    """Do `work` to its end though the caller is cancelled: a write is not left half done."""
    task = asyncio.create_task(work)
    _under_way.add(task)
    task.add_done_callback(_under_way.discard)
    return await asyncio.shield(task)


async def back_off(tries: int) -> None:
    """Wait a random moment that grows with every try, so that writers of one record spread out."""
    await asyncio.sleep(random.uniform(0, min(0.0005 * 2**tries, 0.1)))  # noqa: S311

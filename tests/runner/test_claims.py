"""Claims whose outcome nobody told: a task that was claimed is run, or found by others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mcp_tasks import failpoints
from mcp_tasks.errors import OutcomeUnknownError, StorageUnavailableError


if TYPE_CHECKING:
    from collections.abc import Iterator

    from mcp_tasks.context import TaskContext

    from .conftest import Stand


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    """Leave no failpoint armed."""
    yield
    failpoints.arm("")


async def attempt_number(task: TaskContext) -> int:
    """Say which attempt this is."""
    return task.attempt


async def test_a_claim_that_landed_before_the_database_went_away_is_run_when_it_is_back(
    shared: Stand,
) -> None:
    """Nobody else may take it while its worker lives, so that worker has to find out."""
    shared.tool(attempt_number)
    runner = await shared.runner()
    link = shared.link(runner)
    task_key = ""
    refused = 0

    async def lose_the_claim(operation: str, key: str) -> None:
        if operation == "put_if_version" and key == task_key and not refused:
            link.before = refuse
            raise OutcomeUnknownError(key, "the reply was lost")

    async def refuse(operation: str, key: str) -> None:
        nonlocal refused
        if operation == "get" and key == task_key:
            refused += 1
            if refused < 3:
                raise StorageUnavailableError("the link is cut")
            link.before = None

    record = await shared.store.create(
        shared.owner, shared.call("attempt_number"), policy=shared.rerun
    )
    task_key = shared.store.keys.task(shared.owner, record.task_id)
    link.after = lose_the_claim

    assert await shared.value(record.task_id) == 1
    assert refused == 3


async def test_a_claim_that_an_unexpected_error_came_after_is_found_by_the_next_worker(
    shared: Stand,
) -> None:
    """Its entry on the sheet stays, and so does the worker's record."""
    shared.tool(attempt_number)
    first = await shared.runner()
    failpoints.arm("claim.after_cas_before_run:raise")
    task_id = await shared.create(None, "attempt_number", policy=shared.rerun)
    await shared.until(failpoints.is_spent)
    await shared.stop(first)
    await shared.runner()

    assert await shared.value(task_id) == 2

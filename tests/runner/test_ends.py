"""How an attempt ends when its cancellation comes at the very last moment."""

from __future__ import annotations

from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from mcp_tasks.context import TaskContext

    from .conftest import Stand


async def test_a_cancellation_that_comes_with_the_last_write_of_a_body_leaves_no_task_behind(
    shared: Stand,
) -> None:
    """The body ends before it is cancelled, and its last write must not meet that cancellation."""

    async def writes_and_ends(task: TaskContext) -> str:
        await task.set_variable("a", 1)
        return "done"

    shared.tool(writes_and_ends)
    runner = await shared.runner()
    link = shared.link(runner)
    requests: list[str] = []

    async def cancel_first(operation: str, key: str) -> None:
        task_id = key.rpartition(":")[2]
        if operation == "put_if_version" and task_id in runner.attempts and not requests:
            requests.append(task_id)
            await shared.store.cancel(shared.owner, task_id)

    link.before = cancel_first
    task_id = await shared.create(runner, "writes_and_ends")

    assert await shared.value(task_id) == "done"
    assert requests == [task_id]

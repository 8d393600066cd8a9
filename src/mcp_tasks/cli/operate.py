"""What operators do with a store, without the server: list, show, purge."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from unicodedata import category

from rich.cells import cell_len

from mcp_tasks.errors import ConfigurationError
from mcp_tasks.protocol.v2026_07_28 import status_message
from mcp_tasks.store import TaskStore


if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from rich.console import Console

    from mcp_tasks.domain.record import TaskRecord
    from mcp_tasks.storage.base import StorageBackend
    from mcp_tasks.store.purge import Holdings


async def list_tasks(url: str, namespace: str, owner: str, *, limit: int, console: Console) -> None:
    """Print the newest tasks of an owner."""
    async with _existing(url, namespace) as store:
        page = await store.list(owner, limit=limit)
    if not page.tasks and not page.damaged:
        console.print(f"{owner!r} has no tasks in the namespace {namespace!r}")
        return
    for line in _table(page.tasks, console.width if console.is_terminal else None):
        console.print(line)
    if page.damaged:
        console.print(f"{_count(page.damaged, 'record')} cannot be read; the log names them")
    if page.cursor is not None:
        console.print(f"There are more; these are the newest {len(page.tasks)}. See --limit.")


async def show_task(
    url: str, namespace: str, owner: str, task_id: str, *, console: Console
) -> None:
    """Print what the record of a task says, without arguments, answers and results.

    Raises:
        TaskNotFoundError: The owner has no such task in this namespace.
    """
    async with _existing(url, namespace) as store:
        task = await store.get(owner, task_id)
    facts = {
        "task": task.task_id,
        "tool": task.call.tool,
        "status": task.status.value,
        "says": status_message(task) or "",
        "created": f"{task.created_at:%Y-%m-%d %H:%M:%S}",
        "updated": f"{task.updated_at:%Y-%m-%d %H:%M:%S}",
        "lives until": f"{task.deadline:%Y-%m-%d %H:%M:%S}",
        "attempt": str(task.attempt),
        "worker": task.worker or "",
        "cancelled": "asked for" if task.cancel is not None else "",
        "questions": ", ".join(question.key for question in task.questions),
    }
    width = max(map(len, facts)) + 2
    for name, value in facts.items():
        if value:
            console.print(f"{name:{width}}{_plain(value)}")


async def purge_expired(url: str, *, console: Console) -> None:
    """Remove what has expired, and say how much it was."""
    async with _existing(url, "") as store:
        removed = await store.cleanup_expired()
    console.print(f"removed {removed} expired records")


async def count_tasks(url: str, namespace: str, owner: str) -> Holdings:
    """Count what an owner has."""
    async with _existing(url, namespace) as store:
        return await store.holdings(owner)


async def purge_owner(
    url: str, namespace: str, owner: str, *, cancel: bool, console: Console
) -> bool:
    """Remove everything of an owner, and say what it was.

    Returns:
        True if nothing is left.

    Raises:
        OwnerActiveError: There are tasks that have not ended, and `cancel` is false.
    """
    async with _existing(url, namespace) as store:
        purged = await store.purge_owner(owner, cancel=cancel)
        await store.cleanup_expired()
    console.print(
        f"removed {_count(purged.tasks, 'task')} of {owner!r} in the namespace {namespace!r}, "
        f"{_count(purged.values, 'piece')} of large values, "
        f"{_count(purged.keys, 'idempotency key')}, "
        f"{_count(purged.entries, 'other record')}"
    )
    if purged.unended:
        console.print(
            f"not ended though cancelled: {_count(purged.unended, 'task')}. A worker that still "
            "runs one can write nothing any more"
        )
    if purged.left:
        console.print(
            f"left: {_count(purged.left, 'task')}, created meanwhile or written by a newer "
            "release. Run this again, with that release"
        )
    return not purged.left


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


@asynccontextmanager
async def _existing(url: str, namespace: str) -> AsyncGenerator[TaskStore]:
    """Open a store that is there; a mistyped path must not make an empty one.

    Raises:
        ConfigurationError: There is no such file. None was made.
    """
    async with TaskStore.open(url, namespace=namespace) as store:
        require_there(store.backend)
        yield store


def require_there(backend: StorageBackend) -> None:
    """Refuse a file that is not there: opening would make it.

    Raises:
        ConfigurationError: There is no such file. None was made.
    """
    path = getattr(backend, "path", None)  # of a backend that keeps a file
    if isinstance(path, Path) and not path.exists():
        raise ConfigurationError(
            f"there is no file {str(path)!r}; nothing was made. If the path is right, make it with "
            "'mcp-tasks init URL'"
        )


def _table(tasks: Sequence[TaskRecord], width: int | None) -> list[str]:
    """Lay tasks out in columns, a line for each, so that a line that is searched for is whole.

    Where a window of `width` cells is too narrow for that, what a task runs and says stands below
    it.
    """
    if not tasks:
        return []
    said = [(_plain(task.call.tool), _plain(status_message(task) or "")) for task in tasks]
    facts = [
        (task.task_id, task.status.value, str(task.attempt), f"{task.updated_at:%Y-%m-%d %H:%M:%S}")
        for task in tasks
    ]
    heads = _columns([("task", "status", "attempt", "updated"), *facts])
    tails = _columns([("tool", "says"), *said])
    lines = [f"{head}  {tail}".rstrip() for head, tail in zip(heads, tails, strict=True)]
    if width is None or max(map(cell_len, lines)) <= width:
        return lines
    below = [f"    {tool}: {says}" if says else f"    {tool}" for tool, says in said]
    pairs = zip(heads[1:], below, strict=True)
    return [heads[0], *(line.rstrip() for pair in pairs for line in pair)]


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)
        )
        for row in rows
    ]


def _plain(text: str) -> str:
    """Return what a client or a tool has said, without power over the terminal.

    Escape sequences, line breaks and marks that turn the direction of writing are shown as `repr`
    shows them.
    """
    return "".join(
        char if char.isprintable() or category(char) == "Zs" else repr(char)[1:-1] for char in text
    )

"""`mcp-tasks purge --owner`: asks, refuses, removes, and says what."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING

import anyio
import pytest
from typer.testing import CliRunner

from mcp_tasks.cli.main import app
from mcp_tasks.domain.record import Call, inline
from mcp_tasks.store import TaskStore


if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Name a store with tasks of two owners; one of ada's three has not ended."""
    url = f"sqlite:///{(tmp_path / 'tasks.db').as_posix()}"

    async def fill() -> None:
        async with TaskStore.open(url, namespace="reports") as store:
            call = Call("build", inline(b"{}"))
            for owner in ("ada", "bob"):
                for number in range(3):
                    task = await store.create(owner, call)
                    if number:
                        await store.complete_with_result(owner, task.task_id, "y" * 10_000)

    anyio.run(fill)
    return url


def purge(url: str, *arguments: str) -> tuple[int, str]:
    """Run the command without a terminal."""
    done = CliRunner().invoke(app, ["purge", "--store", url, *arguments])
    return done.exit_code, done.output


def counts(url: str) -> dict[str, int]:
    """Count the tasks of each owner."""

    async def count() -> dict[str, int]:
        async with TaskStore.open(url, namespace="reports") as store:
            return {name: len((await store.list(name)).tasks) for name in ("ada", "bob")}

    return anyio.run(count)


ADA = ("--owner", "ada", "--namespace", "reports")


def test_everything_of_an_owner_is_removed_and_it_says_what(url: str) -> None:
    """The task that has not ended is cancelled first, as asked."""
    code, output = purge(url, *ADA, "--cancel", "--yes")

    assert code == 0
    assert output == (
        "removed 3 tasks of 'ada' in the namespace 'reports', 2 pieces of large values, "
        "0 idempotency keys, 4 other records\n"
    )
    assert counts(url) == {"ada": 0, "bob": 3}
    code, output = purge(url, *ADA, "--yes")
    assert code == 0
    assert output == (
        "removed 0 tasks of 'ada' in the namespace 'reports', 0 pieces of large values, "
        "0 idempotency keys, 0 other records\n"
    )


def test_tasks_that_have_not_ended_are_a_reason_to_refuse(url: str) -> None:
    """With the remedy, and an exit code that a script can use."""
    code, output = purge(url, *ADA, "--yes")

    assert code == 2
    assert output == (
        "mcp-tasks: tasks that have not ended: 1; nothing was removed. Wait for their ends, or let "
        "the purge cancel them (--cancel, cancel=True)\n"
    )
    assert counts(url) == {"ada": 3, "bob": 3}


def test_without_a_terminal_it_wants_to_be_told(url: str) -> None:
    """A script that forgot something must not remove anything."""
    code, output = purge(url, *ADA, "--cancel")

    assert code == 2
    assert output == (
        "mcp-tasks: say --yes to remove all of 'ada' in the namespace 'reports': 3 tasks, 1 of "
        "them not ended; nothing was removed\n"
    )
    assert counts(url) == {"ada": 3, "bob": 3}


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
@pytest.mark.parametrize(("answer", "code", "left"), [("y", 0, 0), ("n", 1, 3), ("", 1, 3)])
def test_on_a_terminal_it_asks(url: str, answer: str, code: int, left: int) -> None:
    """Nothing is removed for a mere return."""
    ours, theirs = pty.openpty()
    os.write(ours, f"{answer}\n".encode())
    done = subprocess.run(
        [sys.executable, "-m", "mcp_tasks.cli", "purge", "--store", url, *ADA, "--cancel"],
        stdin=theirs,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(ours)
    os.close(theirs)

    assert "Remove all of 'ada' in the namespace 'reports': 3 tasks, 1 of them not" in done.stdout
    assert ("nothing was removed" in done.stdout) is (left == 3)
    assert done.returncode == code
    assert counts(url) == {"ada": left, "bob": 3}


@pytest.mark.parametrize(
    "arguments",
    [("--owner", "ada", "--yes"), ("--namespace", "reports"), ("--yes",), ("--cancel",)],
)
def test_options_that_belong_together_are_given_together(
    url: str, arguments: tuple[str, ...]
) -> None:
    """In another namespace an owner of this name may be somebody else."""
    code, output = purge(url, *arguments)

    assert code == 2
    assert "--owner" in output
    assert counts(url) == {"ada": 3, "bob": 3}


def test_tasks_that_are_left_are_reported(url: str) -> None:
    """A record of a newer release is not ours to remove."""

    async def seal() -> None:
        async with TaskStore.open(url, namespace="reports") as store:
            page = await store.backend.list_by_prefix(store.keys.tasks("ada"))
            await store.backend.put(page.records[1].key, b"\x01sealed")

    anyio.run(seal)
    code, output = purge(url, *ADA, "--cancel", "--yes")

    assert code == 1
    assert "removed 2 tasks" in output
    assert "left: 1 task, created meanwhile or written by a newer release." in output


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """A typo must not look as if all was gone already."""
    code, output = purge(f"sqlite:///{(tmp_path / 'taks.db').as_posix()}", *ADA, "--yes")

    assert code == 2
    assert "there is no file" in output
    assert list(tmp_path.iterdir()) == []

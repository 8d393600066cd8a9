"""What operators see of a store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest
from typer.testing import CliRunner

from mcp_tasks.cli.main import app
from mcp_tasks.domain.record import Call, inline
from mcp_tasks.store import TaskStore


if TYPE_CHECKING:
    from pathlib import Path


SECRET = "a secret argument"  # noqa: S105 - a stand-in for what must not be shown


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Name a store in an empty folder."""
    return f"sqlite:///{(tmp_path / 'tasks.db').as_posix()}"


@pytest.fixture
def task_id(url: str) -> str:
    """Put one task into the store."""

    async def create() -> str:
        async with TaskStore.open(url, namespace="reports") as store:
            call = Call(tool="build", arguments=inline(f'{{"text":"{SECRET}"}}'.encode()))
            return (await store.create("ada", call)).task_id

    return anyio.run(create)


def command(*arguments: str, columns: int = 200) -> tuple[int, str]:
    """Run the command; return its exit code and what it wrote."""
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": str(columns)})
    return done.exit_code, done.output


def test_list_and_show_say_where_a_task_stands(url: str, task_id: str) -> None:
    """And nothing of what it carries."""
    where = ("--store", url, "--namespace", "reports", "--owner", "ada")

    for arguments in (("list", *where), ("show", task_id, *where)):
        code, output = command(*arguments)
        assert code == 0
        assert task_id in output
        assert "build" in output
        assert "working" in output
        assert SECRET not in output


def test_another_owners_task_is_not_found(url: str, task_id: str) -> None:
    """In one line, with an exit code that a script can use."""
    code, output = command("show", task_id, "--store", url, "--namespace", "reports")

    assert (code, output) == (2, "mcp-tasks: task not found\n")


@pytest.mark.usefixtures("task_id")
def test_purge_says_how_much_it_removed(url: str) -> None:
    """A task that lives is not touched."""
    code, output = command("purge", "--store", url)

    assert (code, output) == (0, "removed 0 expired records\n")


def test_a_store_that_cannot_be_named_is_an_error_in_one_line() -> None:
    """No traceback for a typo."""
    code, output = command("list", "--store", "sqlight:///tasks.db", "--namespace", "reports")

    assert code == 2
    assert output.startswith("mcp-tasks: ")
    assert output.count("\n") == 1


def test_an_id_is_shown_whole_in_a_narrow_window(url: str, task_id: str) -> None:
    """It is what one copies for the next command."""
    where = ("--store", url, "--namespace", "reports", "--owner", "ada")

    code, output = command("list", *where, columns=60)

    assert code == 0
    assert task_id in output


@pytest.mark.usefixtures("task_id")
def test_where_there_are_no_tasks_it_says_whose_it_looked_for(url: str) -> None:
    """Most often it is the wrong namespace or owner."""
    code, output = command("list", "--store", url, "--namespace", "rapports")

    assert (code, output) == (0, "'anonymous' has no tasks in the namespace 'rapports'\n")


@pytest.mark.parametrize("name", ["list", "purge"])
def test_a_file_that_is_not_there_is_not_made(tmp_path: Path, name: str) -> None:
    """A typo must not look like an empty store."""
    where = ("--store", f"sqlite:///{(tmp_path / 'taks.db').as_posix()}")
    namespace = ("--namespace", "reports") if name == "list" else ()

    code, output = command(name, *where, *namespace)

    assert code == 2
    assert "there is no file" in output
    assert list(tmp_path.iterdir()) == []

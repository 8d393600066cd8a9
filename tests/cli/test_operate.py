"""What operators see of a store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest
from typer.testing import CliRunner

from mcp_tasks.cli.main import app
from mcp_tasks.domain.record import Call, inline
from mcp_tasks.domain.status import TaskStatus
from mcp_tasks.protocol.v2026_07_28 import create_result
from mcp_tasks.store import TaskStore


if TYPE_CHECKING:
    from pathlib import Path


HOSTILE = (
    "[/oops] [link=http://evil]click[/link] :smile: \x1b[2J\x1b]0;title\x07 one\ntwo \u202eabc"
)
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


@pytest.fixture
def talkative(url: str) -> str:
    """Put a task into the store whose texts are full of what means something to a terminal."""

    async def create() -> str:
        async with TaskStore.open(url, namespace="reports") as store:
            task = await store.create("ada", Call(tool="[/build]", arguments=inline(b"{}")))
            await store.progress("ada", task.task_id, 1, 2, HOSTILE)
            await store.ask("ada", task.task_id, "[/key]\x1b[2J", "elicitation/create", {})
            return task.task_id

    return anyio.run(create)


def command(*arguments: str, window: int | None = None) -> tuple[int, str]:
    """Run the command, in a window of so many columns or in a pipe.

    Returns:
        Its exit code and what it wrote.
    """
    terminal = {"FORCE_COLOR": "1", "COLUMNS": str(window)} if window else {"COLUMNS": "80"}
    done = CliRunner().invoke(app, arguments, env=terminal)
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


def test_operators_and_clients_are_told_the_same(url: str, task_id: str) -> None:
    """How far a task is, in the same words; and not any more when it has ended."""
    where = ("--store", url, "--namespace", "reports", "--owner", "ada")

    async def report() -> str:
        async with TaskStore.open(url, namespace="reports") as store:
            record = await store.progress("ada", task_id, 19_900_000, 20_000_000, None)
            return create_result(record)["statusMessage"]

    async def end() -> None:
        async with TaskStore.open(url, namespace="reports") as store:
            await store.complete_with_result("ada", task_id, {"content": []})

    said = anyio.run(report)
    assert said == "19900000 of 20000000"
    assert command("list", *where)[1].endswith(f"  build  {said}\n")
    anyio.run(end)
    assert command("list", *where)[1].endswith("  build\n")
    assert "says" not in command("show", task_id, *where)[1]


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


def test_what_clients_and_tools_say_is_shown_and_not_obeyed(url: str, talkative: str) -> None:
    """Anybody's text may stand in a list: it makes no link, moves no cursor and stops nothing."""
    where = ("--store", url, "--namespace", "reports", "--owner", "ada")

    for window in (None, 80, 300):
        for arguments in (("list", *where), ("show", talkative, *where)):
            code, output = command(*arguments, window=window)
            assert code == 0
            assert "[/build]" in output
            assert "[/oops] [link=http://evil]click[/link] :smile: " in output
            assert r"\x1b[2J\x1b]0;title\x07 one\ntwo \u202eabc" in output
            assert not [char for char in output if not char.isprintable() and char != "\n"]
    assert r"questions    [/key]\x1b[2J" in output


def test_names_on_the_command_line_are_no_markup(url: str, task_id: str) -> None:
    """A namespace may be called anything."""
    code, output = command("list", "--store", url, "--namespace", "[/x]", "--owner", "[b]")

    assert (code, output) == (0, "'[b]' has no tasks in the namespace '[/x]'\n")
    assert task_id


def test_a_pipe_gets_a_line_for_each_task(url: str, task_id: str) -> None:
    """What is searched for with grep is on one line, whole, however long that is."""
    where = ("--store", url, "--namespace", "reports", "--owner", "ada")
    long = "word " * 100 + "end"

    async def tell() -> str:
        async with TaskStore.open(url, namespace="reports") as store:
            await store.update_status("ada", task_id, TaskStatus.COMPLETED, message=long)
            task = await store.create("ada", Call(tool="読む", arguments=inline(b"{}")))
            return f"{task.updated_at:%Y-%m-%d %H:%M:%S}"

    made = anyio.run(tell)
    code, output = command("list", *where)
    head, first, second = output.splitlines()

    assert code == 0
    assert head.split() == ["task", "status", "attempt", "updated", "tool", "says"]
    assert first.endswith(f"  working    0        {made}  読む")
    assert second.startswith(f"{task_id}  completed  0        ")
    assert second.endswith(f"  build  {long}")


def test_a_narrow_window_shows_the_tool_below_its_task(url: str, task_id: str) -> None:
    """Nothing is broken in the middle: an id is what one copies for the next command."""
    where = ("--store", url, "--namespace", "reports", "--owner", "ada")

    code, output = command("list", *where, window=80)
    head, first, second = output.splitlines()

    assert code == 0
    assert head.split() == ["task", "status", "attempt", "updated"]
    assert first.startswith(f"{task_id}  working  0  ")
    assert len(first) <= 80
    assert second == "    build"
    assert len(command("list", *where, window=120)[1].splitlines()) == 2


@pytest.mark.parametrize("window", [None, 80])
def test_a_list_of_damaged_records_alone_says_how_many(
    url: str, task_id: str, window: int | None
) -> None:
    """It is the moment in which an operator needs the command."""

    async def damage() -> None:
        async with TaskStore.open(url, namespace="reports") as store:
            page = await store.backend.list_by_prefix("reports/ada:")
            await store.backend.put(page.records[0].key, b"{")

    anyio.run(damage)
    code, output = command(
        "list", "--store", url, "--namespace", "reports", "--owner", "ada", window=window
    )

    assert code == 0
    assert output == "1 record cannot be read; the log names them\n"
    assert task_id not in output


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

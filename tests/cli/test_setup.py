"""`mcp-tasks init` and `mcp-tasks check`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from mcp_tasks.cli.main import app
from mcp_tasks.testing.servers.postgres import PostgresServer
from mcp_tasks.testing.servers.redis import RedisServer


if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def command(*arguments: str) -> tuple[int, str]:
    """Run the command; return its exit code and what it wrote."""
    done = CliRunner().invoke(app, arguments)
    return done.exit_code, done.output


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """Give a server."""
    with PostgresServer() as server:
        yield server


def test_a_table_is_made_and_then_found(postgres: PostgresServer) -> None:
    """Twice does no harm, and before it `check` says what is missing."""
    url = f"{postgres.url}?table=made&create=false"

    code, said = command("check", url)
    assert code == 2
    assert "mcp-tasks init URL" in said

    code, said = command("init", url)
    assert (code, "Made table 'made'" in said) == (0, True)
    assert command("init", url) == (0, "all is as it should be\n")
    assert command("check", url) == (0, "nothing to warn of\n")


def test_what_is_risky_is_a_warning_and_exit_code_1() -> None:
    """A server that keeps nothing."""
    with RedisServer(settings={"appendonly": "no"}) as server:
        code, said = command("check", server.url)

    assert code == 1
    assert said.startswith("warning: The Redis server keeps nothing on disk")


def test_a_server_that_needs_nothing_is_looked_at() -> None:
    """What is risky is said here too, and is no failure."""
    with RedisServer(settings={"appendonly": "no"}) as server:
        code, said = command("init", server.url)

    setting_up, warning = said.splitlines()
    assert code == 0
    assert setting_up.endswith("needs no setting up")
    assert warning.startswith("warning: The Redis server keeps nothing on disk")


def test_a_file_is_made_and_can_then_be_looked_at(tmp_path: Path) -> None:
    """By `init` alone: looking makes none, and says how to."""
    path = tmp_path / "new" / "tasks.db"
    url = f"sqlite:///{path.as_posix()}"

    code, said = command("check", url)
    assert code == 2
    assert "there is no file" in said
    assert said.endswith(
        "nothing was made. If the path is right, make it with 'mcp-tasks init URL'\n"
    )
    assert list(tmp_path.iterdir()) == []
    assert command("init", url) == (0, f"Made the file {str(path)!r}\n")
    assert command("init", url) == (0, "all is as it should be\n")
    assert command("check", url) == (0, "nothing to warn of\n")
    assert command("list", "--store", url, "--namespace", "reports")[0] == 0


def test_a_file_that_cannot_be_made_is_said_with_the_reason(tmp_path: Path) -> None:
    """In one line, before a server starts on it."""
    (tmp_path / "file").write_text("in the way")
    url = f"sqlite:///{(tmp_path / 'file' / 'tasks.db').as_posix()}"

    code, said = command("init", url)

    assert code == 2
    assert "tasks.db: " in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("name", ["init", "check"])
def test_a_file_of_another_application_is_refused_and_left_alone(tmp_path: Path, name: str) -> None:
    """Nothing to warn of would be wrong."""
    path = tmp_path / "letter.txt"
    path.write_text("Dear Ada, " * 100)

    code, said = command(name, f"sqlite:///{path.as_posix()}")

    assert code == 2
    assert "is not a task database" in said
    assert path.read_text() == "Dear Ada, " * 100


def test_a_server_that_is_not_there_is_one_line() -> None:
    """No traceback, and no password."""
    url = "redis://:hunter2@127.0.0.1:1?connect_timeout=0.2"

    for name in ("init", "check"):
        code, said = command(name, url)
        assert (code, "hunter2" in said) == (2, False)
        assert said.count("\n") == 1

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


def test_a_store_that_needs_nothing_says_so(tmp_path: Path) -> None:
    """And a file is not made by looking."""
    url = f"sqlite:///{(tmp_path / 'tasks.db').as_posix()}"

    code, said = command("init", url)
    assert (code, "needs no setting up" in said) == (0, True)
    code, said = command("check", url)
    assert (code, "there is no file" in said) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_not_there_is_one_line() -> None:
    """No traceback, and no password."""
    url = "redis://:hunter2@127.0.0.1:1?connect_timeout=0.2"

    for name in ("init", "check"):
        code, said = command(name, url)
        assert (code, "hunter2" in said) == (0 if name == "init" else 2, False)
        assert said.count("\n") == 1

"""The server that the tests start: it keeps what it has, and anybody can start it."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING

import pytest

from mcp_tasks.errors import ConfigurationError
from mcp_tasks.storage.postgres.driver import connect
from mcp_tasks.testing.servers.postgres import BINARIES, PostgresServer, packaged


if TYPE_CHECKING:
    from pathlib import Path


def ask(server: PostgresServer, statement: str) -> list[object]:
    """Run a statement on it and return the first column."""

    async def run() -> list[object]:
        connection = await connect(server.url)
        rows = await connection.fetch(statement)
        await connection.close()
        return [row[0] for row in rows]

    return asyncio.run(run())


def test_it_comes_back_with_what_it_had() -> None:
    """After a crash as after an orderly end, at once, under the same address."""
    with PostgresServer() as server:
        assert ask(server, "SHOW fsync") == ["on"]
        ask(server, "CREATE TABLE kept AS SELECT 1 AS one")
        for end in (server.kill, server.stop):
            url = server.url
            end()
            server.start()
            assert ask(server, "SELECT one FROM kept") == [1]
            assert server.url == url
        folder = server.folder
    assert not folder.exists()


def test_binaries_that_its_user_cannot_reach_are_copied(tmp_path: Path) -> None:
    """Root's checkout may lie in a private folder, and PostgreSQL does not run as root."""
    binaries = packaged()[0]
    package = binaries.parent.parent
    hidden = tmp_path / "hidden"
    for place in (binaries.parent, package.with_name(f"{package.name}.libs")):
        if place.exists():
            shutil.copytree(place, hidden / place.relative_to(package.parent), symlinks=True)
    hidden.chmod(0o700)

    with PostgresServer(binaries=hidden / binaries.relative_to(package.parent)) as server:
        assert ask(server, "SELECT 1") == [1]


def test_the_environment_names_other_binaries(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """To test on the version that one runs."""
    monkeypatch.setenv(BINARIES, str(packaged()[-1]))
    with PostgresServer(settings={"max_connections": "7"}) as server:
        assert ask(server, "SHOW max_connections") == ["7"]

    monkeypatch.setenv(BINARIES, str(tmp_path))
    server = PostgresServer()
    with pytest.raises(ConfigurationError, match="holds no 'postgres'"):
        server.start()
    server.close()

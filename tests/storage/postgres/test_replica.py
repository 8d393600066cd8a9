"""A server and its hot standby: writes and reads go to the one that takes writes, and follow it."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from mcp_tasks.errors import StorageReadOnlyError
from mcp_tasks.storage.postgres import PostgresBackend
from mcp_tasks.storage.postgres.driver import connect
from mcp_tasks.testing.servers.postgres import PostgresServer, packaged


if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def primary() -> Iterator[PostgresServer]:
    """Give a server that may be killed."""
    with PostgresServer(binaries=packaged()[0]) as server:
        yield server


@pytest.fixture
def standby(primary: PostgresServer) -> Iterator[PostgresServer]:
    """Give a copy of it that follows it."""
    server = PostgresServer(binaries=packaged()[0])
    owner = primary.data.stat()
    os.chown(server.folder, owner.st_uid, owner.st_gid)
    subprocess.run(
        [
            *(packaged()[0] / "pg_basebackup", "-D", server.data, "-R", "-c", "fast"),
            *("-h", "127.0.0.1", "-p", str(primary.port), "-U", "postgres"),
        ],
        check=True,
        user=owner.st_uid if os.geteuid() == 0 else None,
        cwd=server.folder,
    )
    with server:
        yield server


async def test_a_standby_alone_is_refused(standby: PostgresServer) -> None:
    """For reads too: it may not have seen yet what was acknowledged."""
    backend = PostgresBackend(standby.url)

    for call in (backend.check(), backend.get("ada:t1"), backend.put("ada:t1", b"x")):
        with pytest.raises(StorageReadOnlyError, match="no server there takes writes"):
            await call
    await backend.close()


async def test_a_url_with_both_finds_the_primary_before_and_after_a_failover(
    primary: PostgresServer, standby: PostgresServer
) -> None:
    """In whatever order they stand there."""
    await _wait_until_it_follows(primary)
    both = f"127.0.0.1:{standby.port},127.0.0.1:{primary.port}"
    backend = PostgresBackend(
        f"postgresql://postgres@{both}/postgres?synchronous_commit=remote_apply"
    )
    assert await backend.put("ada:t1", b"x") == 1

    primary.kill()
    promoting = await connect(standby.url)
    await promoting.fetch("SELECT pg_promote()")
    await promoting.execute("ALTER SYSTEM RESET synchronous_standby_names")
    await promoting.fetch("SELECT pg_reload_conf()")
    await promoting.close()

    assert (await backend.get("ada:t1")).data == b"x"
    assert await backend.put_if_version("ada:t1", b"y", 1) == 2
    await backend.close()


async def _wait_until_it_follows(primary: PostgresServer) -> None:
    """Have the primary wait for its standby before it acknowledges anything."""
    connection = await connect(primary.url)
    await connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
    await connection.fetch("SELECT pg_reload_conf()")
    await connection.close()

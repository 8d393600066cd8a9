"""`mcp-tasks verify`: the contract on a live database, of which nothing is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import anyio
import apsw
import pytest

from mcp_tasks.storage.base import Initializable, Reopenable
from mcp_tasks.storage.urls import open_backend
from mcp_tasks.testing import (
    ChangeSourceContract,
    ReopenableContract,
    StorageBackendContract,
)
from mcp_tasks.testing.apart import Written, remove_all, set_apart
from mcp_tasks.testing.servers import NAMES, server_named


if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from pathlib import Path

    from mcp_tasks.storage.base import StorageBackend


COMMAND = (sys.executable, "-m", "mcp_tasks.cli", "verify")


class TestApart(StorageBackendContract, ReopenableContract, ChangeSourceContract):
    """Keys of one's own change nothing."""

    @pytest.fixture
    async def backend(self, tmp_path: Path) -> AsyncIterator[StorageBackend]:
        """Give an empty one."""
        real = open_backend(f"sqlite:///{(tmp_path / 'tasks.db').as_posix()}")
        written = Written()
        yield set_apart(real, "@verify.x.", written)
        await real.close()
        assert isinstance(real, Reopenable)
        again = real.reopen()
        await remove_all(again, written)
        assert await remove_all(again, written) == 0
        await again.close()


@pytest.fixture(scope="module", params=["sqlite", *NAMES])
def database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Give the URL of a database in which somebody has a record, and what its driver needs."""
    environment: Mapping[str, str] = {}
    with ExitStack() as stack:
        if request.param == "sqlite":
            file = tmp_path_factory.mktemp("verify") / "tasks.db"
            url = f"sqlite:///{file.as_posix()}"
        else:
            server = stack.enter_context(server_named(request.param))
            url, environment = server.url, server.environment
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in environment.items():
            patch.setenv(name, value)
        anyio.run(_put, url)
        yield url, {**os.environ, **environment}


async def _put(url: str) -> None:
    backend = open_backend(url)
    if isinstance(backend, Initializable):
        await backend.initialize()
    await backend.put("ada:t1", b"somebody's")
    await backend.close()


async def _get(url: str) -> bytes:
    backend = open_backend(url)
    try:
        return (await backend.get("ada:t1")).data
    finally:
        await backend.close()


def rows(url: str) -> list[str]:
    """Return every key in a SQLite file, expired or not."""
    connection = apsw.Connection(url.removeprefix("sqlite:///"))
    try:
        return [str(key) for (key,) in connection.execute("SELECT key FROM records")]
    finally:
        connection.close()


@pytest.mark.timeout(240)
def test_every_backend_of_ours_is_verified(
    database: tuple[str, Mapping[str, str]], tmp_path: Path
) -> None:
    """All of the contract, and what was there before stays as the only thing."""
    url, environment = database
    report = tmp_path / "report.json"

    done = subprocess.run(
        [*COMMAND, url, "--json", str(report)],
        env=dict(environment),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(report.read_text())
    assert said["verified"] is True
    assert said["left_behind"] == 0
    assert len(said["tests"]) >= 230
    assert {result["outcome"] for result in said["tests"].values()} == {"passed"}
    assert f"{len(said['tests'])} passed, 0 failed" in done.stdout
    assert anyio.run(_get, url) == b"somebody's"
    if url.startswith("sqlite:"):
        assert rows(url) == ["ada:t1"]


def test_a_broken_backend_is_told_by_the_names_of_what_fails(tmp_path: Path) -> None:
    """And the exit code says so too."""
    report = tmp_path / "report.json"
    script = (
        "from mcp_tasks.storage.memory import MemoryBackend\n"
        "async def delete(self, key): return True\n"
        "MemoryBackend.delete = delete\n"
        "from mcp_tasks.cli.main import app\n"
        f"app(['verify', 'memory://', '--json', {str(report)!r}])\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )

    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAILED TestBackend::test_a_deleted_record_is_gone: " in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    failed = json.loads(report.read_text())["tests"]["TestBackend::test_a_deleted_record_is_gone"]
    assert failed["outcome"] == "failed"
    assert "DID NOT RAISE" in failed["reason"]


@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM], ids=lambda told: told.name)
@pytest.mark.parametrize("times", [1, 2])
def test_a_run_that_is_stopped_leaves_nothing_either(
    tmp_path: Path, told: signal.Signals, times: int
) -> None:
    """Neither a person at the keyboard nor a CI job that is over its time has to clean up."""
    file = tmp_path / "tasks.db"
    url = f"sqlite:///{file.as_posix()}"
    anyio.run(_put, url)

    with subprocess.Popen(
        [*COMMAND, url], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        while "expires_at" not in process.stdout.readline():
            pass
        for _ in range(times):
            process.send_signal(told)
            time.sleep(0.01)  # one that comes while the last one is not handled yet is lost
        rest = process.stdout.read()
        code = process.wait(30)

    assert code == 1
    assert "interrupted; this is no verdict" in rest
    assert times == 2 or "Traceback" not in rest
    assert rows(url) == ["ada:t1"]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqlite:////no/such/folder/tasks.db", "there is no file"),
        ("reddis://", "known are memory://"),
        ("redis://127.0.0.1:1?connect_timeout=0.1", "is not available"),
    ],
)
def test_what_cannot_be_verified_is_said_in_one_line(url: str, says: str) -> None:
    """Before anything was written."""
    done = subprocess.run([*COMMAND, url], capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_without_the_kit_it_says_what_to_install() -> None:
    """The extra is not part of what servers need."""
    script = (
        "import sys\n"
        "sys.modules['pytest'] = None\n"
        "from mcp_tasks.cli.main import app\n"
        "app(['verify', 'memory://'])\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )

    assert done.returncode == 2
    assert "pip install 'mcp-tasks[testing]'" in done.stderr

"""What the SQLite backend makes of the file that it is given, and of the folder around it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import apsw
import pytest

from mcp_tasks.errors import (
    ConfigurationError,
    StorageCorruptError,
    StorageFormatError,
    StorageReadOnlyError,
    StorageUnavailableError,
)
from mcp_tasks.storage.base import Checkable, Initializable
from mcp_tasks.storage.sqlite import SqliteBackend
from mcp_tasks.storage.sqlite.file import open_writer


if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file will be."""
    return tmp_path / "tasks.db"


async def test_a_missing_folder_is_made(tmp_path: Path) -> None:
    """A first start needs no preparation."""
    backend = SqliteBackend(tmp_path / "a" / "b" / "tasks.db")

    assert await backend.put("ada:t1", b"x") == 1
    await backend.close()
    assert (tmp_path / "a" / "b" / "tasks.db").exists()


async def test_a_read_alone_makes_the_file(path: Path) -> None:
    """Reading first is as good as writing first."""
    backend = SqliteBackend(path)

    assert not (await backend.list_by_prefix("ada:")).records
    await backend.close()


async def test_only_setting_up_makes_the_file(tmp_path: Path, path: Path) -> None:
    """A look at what is not there is no use of it, and setting up says what it did."""
    backend = SqliteBackend(path)

    assert isinstance(backend, Initializable)
    assert isinstance(backend, Checkable)
    assert await backend.check() == []
    assert not (tmp_path / "tasks.db").exists()
    assert await backend.initialize() == [f"Made the file {str(path)!r}"]
    assert await backend.initialize() == []
    assert await backend.check() == []
    await backend.close()


def test_a_new_file_can_be_opened_by_many_at_once(tmp_path: Path) -> None:
    """Whoever is late sees the file half made by none: not yet ours, or ours."""
    for turn in range(30):
        path = tmp_path / f"{turn}.db"
        ready = threading.Barrier(6)

        def open_together(path: Path = path, ready: threading.Barrier = ready) -> None:
            ready.wait()
            open_writer(path, busy_timeout=5).close()

        with ThreadPoolExecutor(6) as pool:
            for opened in [pool.submit(open_together) for _ in range(6)]:
                opened.result()


async def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    """It names the place and the reason; reads and writes agree."""
    (tmp_path / "file").write_text("in the way")
    backend = SqliteBackend(tmp_path / "file" / "tasks.db")

    for call in (backend.get("ada:t1"), backend.put("ada:t1", b"x")):
        with pytest.raises(StorageUnavailableError, match=r"tasks\.db"):
            await call
    await backend.close()


async def test_a_folder_in_the_place_of_the_file_is_an_error(tmp_path: Path) -> None:
    """Not a crash, and not a hanging call."""
    backend = SqliteBackend(tmp_path)

    with pytest.raises(StorageUnavailableError, match="test_a_folder"):
        await backend.put("ada:t1", b"x")
    await backend.close()


async def test_what_could_not_be_opened_can_be_opened_later(tmp_path: Path) -> None:
    """A backend does not remember that it failed."""
    (tmp_path / "file").write_text("in the way")
    backend = SqliteBackend(tmp_path / "file" / "tasks.db")
    with pytest.raises(StorageUnavailableError):
        await backend.put("ada:t1", b"x")

    (tmp_path / "file").unlink()

    assert await backend.put("ada:t1", b"x") == 1
    await backend.close()


async def test_a_file_that_is_no_database_is_left_alone(path: Path) -> None:
    """The error says so, and not a byte has changed."""
    diary = b"Dear diary, " * 1000
    _fill(path, diary)
    backend = SqliteBackend(path)

    for call in (backend.get("ada:t1"), backend.put("ada:t1", b"x")):
        with pytest.raises(StorageCorruptError, match=r"tasks\.db is damaged or is not a task"):
            await call
    await backend.close()
    assert _contents(path) == diary


async def test_a_damaged_file_is_said_to_be_damaged(path: Path) -> None:
    """Rather than records that are said not to be there."""
    backend = SqliteBackend(path)
    for number in range(50):
        await backend.put(f"ada:t{number:02d}", bytes(3000))
    await backend.close()
    stored, page = _contents(path), 4096
    _fill(path, stored[:page] + b"\xff" * (len(stored) - page))

    damaged = SqliteBackend(path)
    for call in (damaged.get("ada:t07"), damaged.list_by_prefix("ada:")):
        with pytest.raises(StorageCorruptError):
            await call
    with pytest.raises(StorageCorruptError):
        await damaged.put("ada:t07", b"x")
    await damaged.close()


async def test_another_applications_database_is_left_alone(path: Path) -> None:
    """A wrong path in a configuration must not add a table to somebody's accounts."""
    other = apsw.Connection(str(path))
    other.execute("CREATE TABLE accounts(name)").fetchall()
    other.close()
    before = _contents(path)
    backend = SqliteBackend(path)

    with pytest.raises(StorageCorruptError, match="another application"):
        await backend.put("ada:t1", b"x")
    await backend.close()
    assert _contents(path) == before


async def test_a_newer_format_is_left_alone(path: Path) -> None:
    """An old release beside a new one says to upgrade, and does not guess."""
    backend = SqliteBackend(path)
    await backend.put("ada:t1", b"x")
    await backend.close()
    newer = apsw.Connection(str(path))
    newer.pragma("user_version", 99)
    newer.close()

    old = SqliteBackend(path)
    for call in (old.get("ada:t1"), old.put("ada:t1", b"x")):
        with pytest.raises(StorageFormatError, match=r"format 99.*Upgrade mcp-tasks"):
            await call
    await old.close()


@pytest.mark.parametrize("name", [":memory:", ""])
def test_a_database_in_memory_is_refused(name: str) -> None:
    """Its reader would not see its writer; there is a backend for that."""
    with pytest.raises(ConfigurationError, match="memory://"):
        SqliteBackend(name)


def test_lock_files_have_a_place_beside_the_file(path: Path) -> None:
    """Where every process that shares the file finds them."""
    assert SqliteBackend(path).lock_directory == path.parent


# --- access rights -------------------------------------------------------------------------------

# In a process of its own, because root may write everywhere.
_TRY_TO_WRITE = """
import asyncio, os, sys
from mcp_tasks.errors import StorageError
from mcp_tasks.storage.base import Checkable, Initializable
from mcp_tasks.storage.sqlite import SqliteBackend
from mcp_tasks.storage.sqlite.file import open_writer
if os.getuid() == 0:
    os.setuid(65534)

async def main():
    backend = SqliteBackend(sys.argv[1])
    for call in (backend.put("ada:t1", b"x"), backend.get("ada:t0")):
        try:
            await call
        except StorageError as error:
            print(type(error).__name__, error)
        else:
            print("done")
    await backend.close()

asyncio.run(main())
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can reach into (pytest's own are private)."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)
        Path(folder).chmod(0o777)


@pytest.mark.skipif(sys.platform == "win32", reason="access rights are not mode bits there")
@pytest.mark.parametrize("protected", ["file", "folder", "empty folder"])
def test_what_cannot_be_written_says_so(open_folder: Path, protected: str) -> None:
    """With the place, and what to do about it."""
    path = open_folder / "tasks.db"
    if protected != "empty folder":
        asyncio.run(_make(path))
        path.chmod(0o444 if protected == "file" else 0o666)
    if protected != "file":
        open_folder.chmod(0o555)

    tried = subprocess.run(
        [sys.executable, "-c", _TRY_TO_WRITE, str(path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    write, read = tried.stdout.splitlines() or [tried.stderr] * 2
    for said in (write, read):
        assert said.startswith(f"{StorageReadOnlyError.__name__} {path} cannot be written")
        assert "Give this process write access" in said


async def _make(path: Path) -> None:
    backend = SqliteBackend(path)
    await backend.put("ada:t0", b"x")
    await backend.close()


def _contents(path: Path) -> bytes:
    return path.read_bytes()


def _fill(path: Path, contents: bytes) -> None:
    path.write_bytes(contents)

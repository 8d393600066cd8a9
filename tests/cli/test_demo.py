"""The demo as a user starts it, on a small folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parents[2]


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `mcp-tasks demo` without a terminal."""
    command = [sys.executable, "-m", "mcp_tasks.cli", "demo", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", timeout=100, check=False
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder with files, two of them the same, and what is not counted."""
    for number in range(12):
        place = tmp_path / f"part-{number % 3}"
        place.mkdir(exist_ok=True)
        (place / f"file-{number}.txt").write_text(f"number {number % 11}\n")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "left-out.pyc").write_bytes(b"x")
    return tmp_path


def test_the_demo_shows_a_task_that_outlives_its_server(folder: Path) -> None:
    """The first thing a stranger runs must work, and must say what happened."""
    done = demo(str(folder))

    assert done.returncode == 0, done.stdout + done.stderr
    assert "kill -9: process" in done.stdout
    assert "Restarted: process" in done.stdout
    assert "ok     each of the 13 steps ran once" in done.stdout
    assert "1 copies, SHA-256 of the whole list" in done.stdout
    assert "12 files" in done.stdout
    assert "FAILED" not in done.stdout
    assert "All checks passed" in done.stdout


@pytest.mark.parametrize(
    ("store", "words"),
    [
        ("redis", "the Redis server"),
        ("postgres", "the PostgreSQL server"),
        ("dynamodb", "the ministack server"),
    ],
)
def test_the_demo_runs_on_a_server_that_it_starts(folder: Path, store: str, words: str) -> None:
    """The same task, the same kill, and another store under it."""
    done = demo(str(folder), "--store", store)

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"found the task in {words}" in done.stdout
    assert "All checks passed" in done.stdout


def test_the_demo_says_which_stores_there_are(folder: Path) -> None:
    """One line for a name that is none."""
    done = demo(str(folder), "--store", "reddis")

    assert done.returncode == 2
    assert "known are memory://" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("store", "says"),
    [
        ("memory://", "what memory:// keeps ends with its server, and the demo kills that"),
        ("redis://127.0.0.1:1", "the task database is not available: Redis: Connection refused"),
        ("postgresql://127.0.0.1:1/tasks", "the task database is not available: "),
    ],
)
def test_the_demo_refuses_a_store_that_it_cannot_show(folder: Path, store: str, says: str) -> None:
    """In one line, before anything is started."""
    done = demo(str(folder), "--store", store)

    assert done.returncode == 2
    assert says in done.stderr
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)


def test_the_demo_refuses_a_folder_with_nothing_to_kill_in_the_middle_of(tmp_path: Path) -> None:
    """Better than a demo that fails its own checks."""
    done = demo(str(tmp_path))

    assert done.returncode == 2
    assert "0 readable files" in done.stderr


def test_the_example_is_the_server_that_the_demo_runs() -> None:
    """A user starts from `examples/`, an installed demo from the package; they must not drift."""
    example = ROOT / "examples" / "manifest_server.py"
    packaged = ROOT / "src" / "mcp_tasks" / "cli" / "manifest_server.py"

    assert example.read_bytes() == packaged.read_bytes()

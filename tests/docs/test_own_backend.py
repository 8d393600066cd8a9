"""The page about a backend of one's own: what it shows keeps the contract, and its claims hold."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.docs.conftest import DOCS_SRC

from mcp_tasks import TaskStore
from mcp_tasks.domain.record import Call, inline
from mcp_tasks.testing import StorageBackendContract


if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType


PAGE = Path(__file__).parents[2] / "docs" / "backends" / "your-own.md"


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in a folder with the files of the page."""
    for name in ("own_backend.py", "test_own_backend.py"):
        (folder / name).write_text((DOCS_SRC / name).read_text())
    command = [sys.executable, "-m", "pytest", "-q", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_example_keeps_the_contract(tmp_path: Path) -> None:
    """Run as its own docstring says."""
    said = re.search(r"`pytest (-.+)`", (DOCS_SRC / "test_own_backend.py").read_text())
    assert said is not None

    done = run(tmp_path, *said[1].split())

    assert done.returncode == 0, done.stdout
    passed = re.search(r"^(\d+) passed", done.stdout, re.MULTILINE)
    assert passed is not None
    tests = [name for name in dir(StorageBackendContract) if name.startswith("test_")]
    assert int(passed[1]) > 2 * len(tests)


@pytest.mark.parametrize("kind", ["TestJournalBackend", "TestTasks"])
def test_a_forgotten_setting_is_named(tmp_path: Path, kind: str) -> None:
    """Not pytest's words about an async fixture, which say nothing of the settings."""
    done = run(tmp_path, "test_own_backend.py", "-k", kind, "--maxfail=1")

    assert 'set anyio_mode = "auto" in the settings of pytest' in done.stdout
    assert "async fixture" not in done.stdout


def test_a_mark_is_as_good_as_the_setting(tmp_path: Path) -> None:
    """Projects mark their modules where not all of their tests are coroutines."""
    marked = (DOCS_SRC / "test_own_backend.py").read_text() + "\n\npytestmark = pytest.mark.anyio\n"
    (tmp_path / "test_marked.py").write_text(marked)

    done = run(tmp_path, "test_marked.py", "-k", "deleted or gone")

    assert done.returncode == 0, done.stdout


async def test_the_example_is_durable(tmp_path: Path, load: Callable[[str], ModuleType]) -> None:
    """A store goes on from the file alone."""
    make = load("own_backend").JournalBackend
    call = Call(tool="build", arguments=inline(b"{}"))
    backend = make(tmp_path / "journal")
    async with TaskStore(backend) as store:
        task = await store.create("ada", call)
        await store.set_result("ada", task.task_id, {"done": True})
    await backend.close()

    again = make(tmp_path / "journal")
    async with TaskStore(again) as store:
        assert await store.get_result("ada", task.task_id) == {"done": True}
    await again.close()


def test_the_index_says_how_many_tests_there_are() -> None:
    """A number that is wrong makes the rest look wrong."""
    tests = [name for name in dir(StorageBackendContract) if name.startswith("test_")]
    index = PAGE.with_name("index.md").read_text()

    assert f"{len(tests)} tests of six methods" in index

"""The page about a backend of one's own: what it shows keeps the contract, and its claims hold."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.docs.conftest import DOCS_SRC

from mcp_tasks import TaskStore
from mcp_tasks.domain.record import Call, inline
from mcp_tasks.testing import StorageBackendContract


if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType


PAGE = Path(__file__).parents[2] / "docs" / "backends" / "your-own.md"


def test_the_example_keeps_the_contract(tmp_path: Path) -> None:
    """Run as the page says, with the settings that it names."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nanyio_mode = auto\n")
    for name in ("own_backend.py", "test_own_backend.py"):
        (tmp_path / name).write_text((DOCS_SRC / name).read_text())

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "anyio", "-q", "test_own_backend.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout
    passed = re.search(r"^(\d+) passed", done.stdout, re.MULTILINE)
    assert passed is not None
    tests = [name for name in dir(StorageBackendContract) if name.startswith("test_")]
    assert int(passed[1]) > 2 * len(tests)


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

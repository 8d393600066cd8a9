"""The command itself."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run some Python in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )


def test_a_missing_extra_is_named_with_its_remedy() -> None:
    """Whoever installed the library alone still has the script."""
    done = python("import sys; sys.modules['typer'] = None; import mcp_tasks.cli as c; c.main()")

    assert done.returncode == 1
    assert done.stderr == (
        "the mcp-tasks command needs the typer package: pip install 'mcp-tasks[cli]'\n"
    )


def test_version_says_what_is_installed() -> None:
    """The first thing that a bug report needs."""
    done = python(
        "import sys; sys.argv = ['mcp-tasks', '--version']; import mcp_tasks.cli as c; c.main()"
    )

    assert (done.returncode, done.stdout) == (0, f"mcp-tasks {version('mcp-tasks')}\n")

"""`docs/names.md` has every public name."""

from __future__ import annotations

import subprocess
import sys

import mcp_tasks

from .pages import rows, sections


SECTIONS = sections("names.md")


def test_every_public_name_has_its_row() -> None:
    """And no other has one."""
    shown = [row[0].strip("`") for body in SECTIONS.values() for row in rows(body)]

    assert sorted(shown) == sorted(mcp_tasks.__all__)


def test_programs_beside_the_server_do_not_pay_for_the_sdk() -> None:
    """As the page says of these names."""
    names = ", ".join(row[0].strip("`") for row in rows(SECTIONS["Programs beside the server"]))
    code = f"import sys; from mcp_tasks import {names}; sys.exit('mcp' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_errors_stand_under_their_roots() -> None:
    """Who catches `TaskError` catches what the page says."""
    for name, what in rows(SECTIONS["Errors"]):
        error = getattr(mcp_tasks, name.strip("`"))
        assert issubclass(error, mcp_tasks.MCPTasksError)
        if name != "`TaskError`":
            assert issubclass(error, mcp_tasks.TaskError) is what.startswith("a `TaskError`: ")

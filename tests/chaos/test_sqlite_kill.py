"""What SQLite acknowledged outlives the process: a few kills here, `make chaos` does many."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from tests.chaos.sqlite_kill import kill_rounds


if TYPE_CHECKING:
    from pathlib import Path


ROUNDS = int(os.environ.get("MCP_TASKS_CHAOS_ROUNDS") or 3)


@pytest.mark.timeout(60 + 5 * ROUNDS)
def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    """The page cache outlives a process; that the commit came before the answer, we must see to."""
    tally = kill_rounds(tmp_path / "tasks.db", ROUNDS)

    assert tally.acknowledged > 0
    assert (tally.missing, tally.integrity) == (0, "ok")

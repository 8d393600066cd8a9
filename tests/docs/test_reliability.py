"""`docs/reliability.md`: what it names is there."""

from __future__ import annotations

import re

from mcp_tasks import failpoints
from mcp_tasks.errors import ContentionError
from mcp_tasks.runner import RunnerConfig
from mcp_tasks.store import StoreConfig

from .pages import ROOT, text


PAGE = text("reliability.md")


def test_the_failpoints_are_as_many_as_it_says() -> None:
    """And the one that it shows is one of them, as are the actions."""
    counted = re.search(r"The code has (\d+) \*failpoints\*", PAGE)
    assert counted is not None
    assert int(counted[1]) == len(failpoints.NAMES)
    cycles = re.search(r"raised at: (\d+) cycles", PAGE)
    assert cycles is not None
    assert int(cycles[1]) == 3 * len(failpoints.NAMES)
    assert "claim.after_sheet_before_cas" in failpoints.NAMES
    for action in failpoints.ACTIONS:
        assert f"`{action}`" in PAGE
    assert failpoints.VARIABLE in PAGE


def test_every_test_that_it_names_is_there() -> None:
    """A figure whose command is gone cannot be checked."""
    named = set(re.findall(r"`(tests/chaos/[a-z_]+\.py)`", PAGE))

    assert len(named) >= 6
    assert [path for path in named if not (ROOT / path).is_file()] == []
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "MCP_TASKS_CHAOS_ROUNDS=$(N) MCP_TASKS_CHAOS_SEED=$(SEED)" in makefile


def test_the_error_that_it_quotes_is_the_error_there_is() -> None:
    """With the number of tries that is the default."""
    assert f"`{ContentionError(StoreConfig().max_tries)}`" in PAGE


def test_the_times_that_it_tells_are_the_defaults() -> None:
    """Those of the fence and of the look at all workers."""
    config = RunnerConfig()
    assert f"From {config.fence:.0f} s on a worker stops" in PAGE
    assert f"within another {config.scan * 1.2:.1f} s" in PAGE

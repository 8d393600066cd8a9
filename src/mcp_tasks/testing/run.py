"""A run of the contracts over a database that others use, as a plugin of pytest."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypedDict

import pytest

from mcp_tasks.clock import SystemClock
from mcp_tasks.ids import new_name
from mcp_tasks.storage.urls import open_backend
from mcp_tasks.testing.apart import Written, remove_all, set_apart


if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection

    from mcp_tasks.testing.apart import Apart


class Result(TypedDict):
    """What came of a test."""

    group: str
    outcome: str
    seconds: float
    reason: str


class ContractRun:
    """Gives each test a backend with keys of its own, and notes what came of it.

    Args:
        url: Which backend.
        left_out: Test classes that are not for it.
        say: Takes a line for each group of rules, when it is done.

    Attributes:
        results: By test.
    """

    def __init__(self, url: str, left_out: Collection[str], say: Callable[[str], None]) -> None:
        self.results: dict[str, Result] = {}
        self._url = url
        self._left_out = left_out
        self._say = say
        self._written = Written()
        self._group = ""
        self._groups: dict[str, str] = {}
        self._session: pytest.Session | None = None
        self._stopping = False

    @pytest.fixture
    async def apart(self) -> AsyncIterator[Apart]:
        """Open the backend anew."""
        backend = set_apart(open_backend(self._url), f"@verify.{new_name()}.", self._written)
        yield backend
        await backend.close()

    def stop(self) -> None:
        """End the run behind the test that runs; at once if it was told so already."""
        if self._stopping:
            raise KeyboardInterrupt
        self._stopping = True
        if self._session is not None:
            self._session.shouldstop = "told to stop"

    async def sweep(self) -> tuple[int, int]:
        """Remove what the tests left, and look again; returns how much was there each time."""
        backend = open_backend(self._url)
        try:
            removed = await remove_all(backend, self._written)
            await backend.cleanup_expired(SystemClock().now())
            return removed, await remove_all(backend, self._written)
        finally:
            await backend.close()

    def finish_group(self) -> None:
        """Say how the rules did that were tested last."""
        mine = [result for result in self.results.values() if result["group"] == self._group]
        if not mine:
            return
        passed = sum(result["outcome"] == "passed" for result in mine)
        seconds = sum(result["seconds"] for result in mine)
        failed = f", {len(mine) - passed} FAILED" if passed < len(mine) else ""
        self._say(f"{self._group.rstrip('.'):<57} {passed:>3} passed{failed}, {seconds:.1f} s")

    # --- called by pytest ------------------------------------------------------------------------

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Keep what a run is stopped by."""
        self._session = session
        if self._stopping:
            session.shouldstop = "told to stop"

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Choose the tests, and note which rules each belongs to."""
        items[:] = [item for item in items if item.nodeid.split("::")[1] not in self._left_out]
        for item in items:
            function: Any = getattr(item, "function", None)
            name = function.__qualname__.partition(".")[0]
            rules = getattr(sys.modules[function.__module__], name)
            self._groups[item.nodeid] = (rules.__doc__ or name).partition(".\n")[0].split(". ")[0]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what came of a test, or of its surroundings."""
        if report.when != "call" and report.passed:
            return
        name = report.nodeid.partition("::")[2]
        group = self._groups[report.nodeid]
        if group != self._group:
            self.finish_group()
            self._group = group
        if name not in self.results or not report.passed:
            self.results[name] = {
                "group": group,
                "outcome": report.outcome,
                "seconds": round(report.duration, 3),
                "reason": "" if report.passed else report.longreprtext,
            }

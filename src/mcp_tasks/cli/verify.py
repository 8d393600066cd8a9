"""Running the contract of storage backends against a live database."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from mcp_tasks.cli.operate import require_there
from mcp_tasks.errors import ConfigurationError
from mcp_tasks.storage.base import ChangeSource, Checkable, Reopenable
from mcp_tasks.storage.urls import open_backend


if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from rich.console import Console

    from mcp_tasks.storage.base import Capabilities


_SETTINGS = "[pytest]\nanyio_mode = auto\n"
_OPTIONS = ("-p", "anyio", "-p", "no:terminal", "-p", "no:cacheprovider", "--import-mode=importlib")


def verify(url: str, *, report: Path | None, console: Console) -> bool:
    """Run every contract that the backend behind `url` has to keep, and print what came of it.

    Everything is written under keys of its own and removed at the end, also after a failure, and
    after SIGINT and SIGTERM, which end the run behind the test that runs; a second one ends that
    test too. What a run that is killed outright has written stays, under keys that begin with
    `@verify.`.

    Args:
        url: The store. It is there, and set up.
        report: A file for the whole result as JSON.
        console: Where the report is printed.

    Returns:
        True if every test passed and nothing was left behind.

    Raises:
        ConfigurationError: The database cannot be used, or the kit is not installed.
        StorageError: The database cannot be reached. Nothing was written.
    """
    try:
        import pytest  # noqa: PLC0415 - only the kit needs it

        from mcp_tasks.testing import verification  # noqa: PLC0415
        from mcp_tasks.testing.run import ContractRun  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"the contract kit needs {error.name}: pip install 'mcp-tasks[testing]'"
        ) from error

    subject = anyio.run(_look, url)
    console.print(f"mcp-tasks {version('mcp-tasks')} verifies {subject.name}", highlight=False)
    for warning in subject.warnings:
        console.print(f"warning: {warning}", highlight=False)

    run = ContractRun(
        url, subject.left_out, lambda line: console.print(f"  {line}", highlight=False)
    )
    began = time.perf_counter()
    with _when_told_to_stop(lambda: None):  # nothing keeps it from removing what it wrote
        try:
            with (
                tempfile.TemporaryDirectory() as folder,
                _without_other_plugins(),
                _when_told_to_stop(run.stop),
            ):
                settings = Path(folder, "pytest.ini")
                settings.write_text(_SETTINGS)
                command = ["-c", str(settings), *_OPTIONS, "--pyargs", verification.__name__]
                code = pytest.main(command, plugins=[run])
        finally:
            removed, left = anyio.run(run.sweep)
    seconds = time.perf_counter() - began

    if code == pytest.ExitCode.INTERRUPTED:
        console.print("interrupted; this is no verdict", highlight=False)
    elif not run.results:
        raise ConfigurationError(f"pytest could not run the contract (exit code {int(code)})")
    run.finish_group()
    failed = [name for name, result in run.results.items() if result["outcome"] != "passed"]
    for name in failed:
        console.print(f"FAILED {name}: {_last_words(run.results[name]['reason'])}", highlight=False)
    good = code == pytest.ExitCode.OK and not failed and not left
    console.print(
        f"{len(run.results) - len(failed)} passed, {len(failed)} failed, {seconds:.1f} s; "
        f"{removed} records removed, {left} left behind",
        highlight=False,
    )
    if report is not None:
        whole = {
            "mcp_tasks": version("mcp-tasks"),
            "backend": subject.name,
            "capabilities": subject.capabilities._asdict(),
            "warnings": subject.warnings,
            "verified": good,
            "seconds": round(seconds, 1),
            "left_behind": left,
            "tests": run.results,
        }
        report.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
        console.print(f"wrote {report}", highlight=False)
    return good


class Subject:
    """What is verified, as found before anything was written."""

    def __init__(
        self, name: str, capabilities: Capabilities, warnings: list[str], left_out: list[str]
    ) -> None:
        self.name = name
        self.capabilities = capabilities
        self.warnings = warnings
        self.left_out = left_out


async def _look(url: str) -> Subject:
    backend = open_backend(url)
    try:
        require_there(backend)
        warnings = list(await backend.check()) if isinstance(backend, Checkable) else []
        await backend.list_by_prefix("@verify:", limit=1)
        left_out: list[str] = []
        if not isinstance(backend, Reopenable):
            left_out += ["TestReopening", "TestHints"]
        elif not isinstance(backend, ChangeSource):
            left_out += ["TestHints"]
        return Subject(repr(backend), backend.capabilities, warnings, left_out)
    finally:
        await backend.close()


@contextmanager
def _when_told_to_stop(act: Callable[[], None]) -> Generator[None]:
    """Do this on SIGINT and SIGTERM, as CI systems and containers stop what takes too long."""

    def told(_number: int, _frame: object) -> None:
        act()

    before = {number: signal.signal(number, told) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _without_other_plugins() -> Generator[None]:
    """Keep what is installed beside the kit from changing what the tests do."""
    name = "PYTEST_DISABLE_PLUGIN_AUTOLOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _last_words(reason: str) -> str:
    """Return the error itself out of what pytest says of it; the report has the whole."""
    said = [line[1:].strip() for line in reason.splitlines() if line.startswith("E")]
    return said[0] if said else reason.strip().rpartition("\n")[2]

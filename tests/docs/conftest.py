"""What pages show, run: files of `docs_src/` as modules in this process, or as processes."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from .pages import DOCS_SRC


if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path
    from types import ModuleType


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The SDK's HTTP path is asyncio."""
    return "asyncio"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Return a function that runs a file of `docs_src/`, with its tasks in memory."""
    monkeypatch.setenv("MCP_TASKS_STORE", "memory://")

    def run(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, DOCS_SRC / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return run


class Desk:
    """A folder with all of `docs_src/`, where port 8000 is a free one.

    Attributes:
        folder: Which.
        port: The free one.
        url: Of the server on it.
        environment: Of the processes, on top of this one's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/mcp"
        self.environment: dict[str, str] = {
            "MCP_TASKS_STORE": f"sqlite:///{(folder / 'tasks.db').as_posix()}",
            "HOME": str(folder),
            "XDG_STATE_HOME": str(folder / "state"),
        }
        for source in DOCS_SRC.glob("*.py"):
            text = source.read_text(encoding="utf-8").replace("8000", str(self.port))
            (folder / source.name).write_text(text, encoding="utf-8")

    @contextmanager
    def python(self, *arguments: str) -> Generator[subprocess.Popen[str]]:
        """Run Python in the folder, and kill it at the end if it still runs.

        What it writes to its standard error goes to `errors.log`.
        """
        with (
            (self.folder / "errors.log").open("a") as errors,
            subprocess.Popen(
                [sys.executable, *arguments],
                cwd=self.folder,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            ) as process,
        ):
            try:
                yield process
            finally:
                process.kill()

    @contextmanager
    def server(self, *arguments: str) -> Generator[subprocess.Popen[str]]:
        """Run a server in the folder, and wait until it listens."""
        with self.python(*arguments) as process:
            self.until(self._listens)
            yield process

    def output(self, *arguments: str) -> str:
        """Run Python to its end and return what it printed."""
        with self.python(*arguments) as process:
            printed, _ = process.communicate(timeout=60)
        assert process.returncode == 0, self.errors()
        return printed

    def errors(self) -> str:
        """Return what all processes wrote to their standard error."""
        return (self.folder / "errors.log").read_text(encoding="utf-8")

    def until(self, happened: Callable[[], Any], seconds: float = 30) -> None:
        """Wait for something that another process does."""
        end = time.monotonic() + seconds
        while not happened():
            assert time.monotonic() < end, f"it did not happen; {self.errors()}"
            time.sleep(0.02)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Give a folder with the code of all pages."""
    return Desk(tmp_path)

"""The README's server does what the README says: killed in the middle, its task goes on."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest


if TYPE_CHECKING:
    from collections.abc import Generator


DOCS_SRC = Path(__file__).parents[2] / "docs_src"

# The second batch waits until it is let go, so that the kill always falls into it.
HELD_SERVER = """
import pathlib, time
import quickstart

digest = quickstart.digest

def held(files):
    with open("digested", "a") as witness:
        print(files[0], file=witness)
    if pathlib.Path(files[0]).name == "100.txt":
        pathlib.Path("reached").touch()
        while not pathlib.Path("go").exists():
            time.sleep(0.01)
    return digest(files)

held.__annotations__ = digest.__annotations__
quickstart.digest = held
quickstart.mcp.run("streamable-http", port=8000)
"""


@contextmanager
def _python(*arguments: str, cwd: Path) -> Generator[subprocess.Popen[str]]:
    with (
        (cwd / "errors.log").open("a") as errors,
        subprocess.Popen(
            [sys.executable, *arguments],
            cwd=cwd,
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


def _await_file(path: Path) -> None:
    until = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < until, f"{path.name} did not appear"
        time.sleep(0.01)


def _await_port(port: int) -> None:
    until = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < until, "the server did not start"
            time.sleep(0.05)
        else:
            return


@pytest.fixture
def port(tmp_path: Path) -> int:
    """Copy the quickstart to `tmp_path`, on a free port in place of 8000."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    sources = {path.name: path.read_text() for path in DOCS_SRC.glob("quickstart*.py")}
    for name, text in {**sources, "held.py": HELD_SERVER}.items():
        (tmp_path / name).write_text(text.replace("8000", str(port)))
    return port


def test_the_quickstart_survives_kill_9(tmp_path: Path, port: int) -> None:
    """The first thing a stranger tries is what the README shows."""
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(250):
        (folder / f"{number:03}.txt").write_text(f"file {number}")

    with _python("held.py", cwd=tmp_path) as server:
        _await_port(port)
        with _python("quickstart_client.py", str(folder), cwd=tmp_path) as client:
            _await_file(tmp_path / "reached")
            server.kill()
            server.wait()
            (tmp_path / "go").touch()
            with _python("held.py", cwd=tmp_path):
                shown, _ = client.communicate(timeout=60)

    *states, outcome = shown.splitlines()
    assert outcome == f"250 files, {_expected(folder)}"
    assert len({state.split()[0] for state in states}) == 1, "one task, the same one all the time"
    digested = [Path(line).name for line in (tmp_path / "digested").read_text().splitlines()]
    assert digested == ["000.txt", "100.txt", "100.txt", "200.txt"], (
        "only what was cut off ran again"
    )


def _expected(folder: Path) -> str:
    files = sorted(folder.iterdir())
    parts: list[str] = []
    for start in range(0, len(files), 100):
        sums = [hashlib.sha256(file.read_bytes()).digest() for file in files[start : start + 100]]
        parts.append(hashlib.sha256(b"".join(sums)).hexdigest())
    return hashlib.sha256("".join(parts).encode()).hexdigest()

"""The build before the present one, and servers that say which of the two they run."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING, Any

from tests.chaos import crowd
from tests.chaos.harness import ROOT
from tests.chaos.scene import FOR_EVER, TOOLS, Scene, until

import mcp_tasks


if TYPE_CHECKING:
    from pathlib import Path

    from mcp_tasks.context import TaskContext


async def member(job: dict[str, Any]) -> None:
    """Be a member of a crowd, and say of which build."""
    scene = Scene(job)
    scene.say("build", path=mcp_tasks.__file__)
    for _ in range(2):
        await scene.create("stays", FOR_EVER, here=False)
    await scene.store.close()
    await crowd.member(job)


async def _stays(scene: Scene, task: TaskContext) -> dict[str, Any]:
    """Run for as long as servers are replaced, ten seconds at most; handed on, run again."""

    async def is_over() -> bool:
        return over(scene.acks.path.parent).exists()

    await until(is_over, 10)
    return {}


TOOLS["stays"] = _stays


def over(folder: Path) -> Path:
    """Return the file that is there when no more servers are replaced."""
    return folder / "over"


class NoBuildError(Exception):
    """There is no earlier build to be had; the text says why."""


def previous_build(folder: Path) -> Path:
    """Put the source before the last commit that changed it under `folder`.

    Returns:
        What goes first on `PYTHONPATH`.

    Raises:
        NoBuildError: This is no repository, it holds only the newest commits, or these tests need
            what the earlier build does not have yet.
    """
    commits = _run("git", "rev-list", "--max-count=2", "HEAD", "--", "src").stdout.split()
    if len(commits) < 2:
        raise NoBuildError("no earlier commit is here")
    earlier = commits[1].decode()
    packed = _run("git", "archive", earlier, "src").stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    source = folder / "src"
    tried = _run(sys.executable, "-c", f"import {__name__}", PYTHONPATH=str(source))
    if tried.returncode:
        said = tried.stderr.decode().strip().splitlines()
        raise NoBuildError(f"commit {earlier[:9]} cannot run these tests: {said[-1]}")
    return source


def _run(*words: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command in the repository; whether it succeeded is for the caller to see."""
    return subprocess.run(
        words, capture_output=True, cwd=ROOT, env={**os.environ, **environment}, check=False
    )

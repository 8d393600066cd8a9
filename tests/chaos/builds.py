"""The build before the present one, and servers that say which of the two they run."""

from __future__ import annotations

import io
import subprocess
import tarfile
from typing import TYPE_CHECKING, Any

from tests.chaos import crowd
from tests.chaos.harness import ROOT
from tests.chaos.scene import Log

import mcp_tasks


if TYPE_CHECKING:
    from pathlib import Path


async def member(job: dict[str, Any]) -> None:
    """Be a member of a crowd, and say of which build."""
    Log(job["acks"]).write(who=job["name"], what="build", path=mcp_tasks.__file__)
    await crowd.member(job)


def previous_build(folder: Path) -> Path | None:
    """Put the source before the last commit that changed it under `folder`.

    Returns:
        What goes first on `PYTHONPATH`; `None` where there is no such commit: in a copy that is no
        repository, or holds nothing but its newest commit.
    """
    commits = _git("rev-list", "--max-count=2", "HEAD", "--", "src").split()
    if len(commits) < 2:
        return None
    with tarfile.open(fileobj=io.BytesIO(_git("archive", commits[1].decode(), "src"))) as archive:
        archive.extractall(folder, filter="data")
    return folder / "src"


def _git(*words: str) -> bytes:
    """Return what git says; nothing if it cannot."""
    return subprocess.run(
        ["git", *words],  # noqa: S607 - wherever the system has it
        capture_output=True,
        cwd=ROOT,
        check=False,
    ).stdout

"""An MCP server whose one tool takes its time: it makes a SHA-256 manifest of a folder, in steps.

    python manifest_server.py [PORT]

Kill it in the middle of a call and start it again: the same task goes on with the next batch of
files. `$MCP_TASKS_STORE` says where tasks are kept (`sqlite:///tasks.db`, for example); without it
they are in a SQLite file in your data folder.
"""

import asyncio
import hashlib
import os
import sys
from collections import defaultdict
from datetime import timedelta
from pathlib import Path

import uvicorn
from mcp.server.mcpserver import MCPServer
from pydantic import BaseModel

from mcp_tasks import TaskContext, Tasks


mcp = MCPServer("manifest", log_level="WARNING")
tasks = Tasks.install(mcp)

SKIPPED = {".git", "__pycache__", "site-packages"}
BATCHES = 24


class Entry(BaseModel):
    """One file."""

    path: str
    size: int
    sha256: str


class Choice(BaseModel):
    """The answer to the tool's question."""

    include: bool


class Manifest(BaseModel):
    """What the tool returns.

    Attributes:
        files: How many files there are.
        bytes: How large they are together.
        sha256: Of the whole list, one line `sha256  size  path` for each file.
        copies: How many files have the same content as an earlier one.
        duplicates: Those files and the earlier ones, if they were asked for.
        attempts: How often the tool was started to get here.
    """

    files: int
    bytes: int
    sha256: str
    copies: int
    duplicates: list[list[str]] | None
    attempts: int


def list_files(folder: str) -> list[str]:
    """List the files under `folder`, sorted; links, and names that are not UTF-8, are left out."""
    found: list[str] = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in SKIPPED]
        for name in names:
            path = Path(place, name)
            relative = path.relative_to(folder).as_posix()
            if path.is_file() and not path.is_symlink() and relative.isprintable():
                found.append(relative)
    witness("list")
    return sorted(found)


def read_files(number: int, folder: str, paths: list[str]) -> list[Entry]:
    """Read one batch of files; those that cannot be read are left out."""
    entries: list[Entry] = []
    for path in paths:
        try:
            content = Path(folder, path).read_bytes()
        except OSError:
            continue
        sha256 = hashlib.sha256(content).hexdigest()
        entries.append(Entry(path=path, size=len(content), sha256=sha256))
    witness(f"batch-{number}")
    return entries


@tasks.tool(resumable=True, poll_interval=timedelta(milliseconds=200))
async def manifest(folder: str, task: TaskContext, pause: float = 0.0) -> Manifest:
    """Make a manifest of a folder: every file with its size and SHA-256, and what is there twice.

    Args:
        folder: Where to look.
        task: The task that this call runs in.
        pause: Seconds to rest after each batch, so that a person can watch.
    """
    fresh = False

    def read(number: int, paths: list[str]) -> list[Entry]:
        nonlocal fresh
        fresh = True  # not so when the batch is already in the journal: then this never runs
        return read_files(number, folder, paths)

    files = await task.step("list", list_files, folder)
    batch = max(1, -(-len(files) // BATCHES))
    total = -(-len(files) // batch)
    entries: list[Entry] = []
    for number in range(1, total + 1):
        fresh = False
        part = files[(number - 1) * batch : number * batch]
        entries += await task.step(f"batch-{number}", read, number, part)
        if fresh:
            await task.progress(number, total, f"{number}/{total} batches")
            print(f"recorded batch {number} of {total}", file=sys.stderr, flush=True)
            await asyncio.sleep(pause)

    same: defaultdict[str, list[str]] = defaultdict(list)
    for entry in entries:
        same[entry.sha256].append(entry.path)
    duplicates = sorted(paths for paths in same.values() if len(paths) > 1)
    copies = sum(len(paths) - 1 for paths in duplicates)
    answer = await task.elicit("duplicates", f"{copies} files are copies. List them?", Choice)
    wanted = answer.data is not None and answer.data.include

    lines = "".join(f"{entry.sha256}  {entry.size}  {entry.path}\n" for entry in entries)
    return Manifest(
        files=len(entries),
        bytes=sum(entry.size for entry in entries),
        sha256=hashlib.sha256(lines.encode()).hexdigest(),
        copies=copies,
        duplicates=duplicates if wanted else None,
        attempts=task.attempt,
    )


def witness(step: str) -> None:
    """Note in the file at `$MANIFEST_WITNESS`, if that is set, that a step has done its work."""
    path = os.environ.get("MANIFEST_WITNESS")
    if path:
        with Path(path).open("a") as file:
            file.write(f"{step}\n")


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
    uvicorn.run(mcp.streamable_http_app(), host="127.0.0.1", port=port, log_level="warning")

"""A tool that survives `kill -9`: one SHA-256 over every file below a folder."""

import hashlib
from pathlib import Path

from mcp.server import MCPServer

from mcp_tasks import TaskContext, Tasks


mcp = MCPServer("fingerprints")
tasks = Tasks.install(mcp, store="sqlite:///tasks.db")


def find(folder: str) -> list[str]:
    return sorted(str(path) for path in Path(folder).rglob("*") if path.is_file())


def digest(files: list[str]) -> str:
    total = hashlib.sha256()
    for file in files:
        total.update(hashlib.sha256(Path(file).read_bytes()).digest())
    return total.hexdigest()


@tasks.tool(resumable=True)
async def fingerprint(folder: str, task: TaskContext) -> str:
    """Return one SHA-256 over every file below a folder."""
    files = await task.step("find", find, folder)
    parts: list[str] = []
    for start in range(0, len(files), 100):
        # Recorded once: after a crash this returns what was recorded and reads nothing again.
        parts.append(await task.step(f"files-{start}", digest, files[start : start + 100]))
        await task.progress(start, len(files), f"{start} of {len(files)} files")
    return f"{len(files)} files, {hashlib.sha256(''.join(parts).encode()).hexdigest()}"


if __name__ == "__main__":
    mcp.run("streamable-http", port=8000)

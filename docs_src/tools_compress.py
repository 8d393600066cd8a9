"""A resumable tool: steps with retries, a question, progress and variables."""

import gzip
from pathlib import Path

from mcp.server import MCPServer
from pydantic import BaseModel

from mcp_tasks import Retry, TaskContext, Tasks


mcp = MCPServer("archive")
tasks = Tasks.install(mcp)


class Confirm(BaseModel):
    go: bool


def find(folder: str) -> list[str]:
    return sorted(str(path) for path in Path(folder).glob("*.txt"))


def compress_one(file: str) -> int:
    # A crash right after this runs it again: it then makes the same file again.
    text = Path(file).read_bytes()
    Path(f"{file}.gz").write_bytes(gzip.compress(text, mtime=0))
    return len(text)


@tasks.tool(resumable=True)
async def compress(folder: str, task: TaskContext) -> str:
    """Compress every text file in a folder, after asking."""
    files = await task.step("find", find, folder)
    answer = await task.elicit("go", f"Compress {len(files)} files?", Confirm)
    if answer.data is None or not answer.data.go:
        return "left alone"
    total = 0
    for number, file in enumerate(files, start=1):
        total += await task.step(f"compress-{file}", compress_one, file, retry=Retry(on=(OSError,)))
        await task.progress(number, len(files), f"{number} of {len(files)} files")
        await task.set_variables({"bytes": total})
    return f"{len(files)} files, {total} bytes"


if __name__ == "__main__":
    mcp.run("streamable-http", port=8000)

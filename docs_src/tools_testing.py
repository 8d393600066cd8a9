"""Tests of `tools_compress.py`, through a real client, in this process and in memory.

MCP_TASKS_STORE=memory:// pytest tools_testing.py
"""

import gzip
from pathlib import Path

import pytest
from mcp import Client
from mcp.client import ClientRequestContext
from mcp_types import ElicitRequestParams, ElicitResult, TextContent

from mcp_tasks import TasksClient
from tools_compress import mcp


pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def agree(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
    return ElicitResult(action="accept", content={"go": True})


async def test_every_text_file_is_compressed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.txt").write_text("three")
    shown: dict[str, object] = {}

    tasks = TasksClient(on_status=lambda task: shown.update(task.variables))
    async with Client(mcp, extensions=[tasks], elicitation_callback=agree) as client:
        result = await client.call_tool("compress", {"folder": str(tmp_path)})

    assert result.content == [TextContent(type="text", text="2 files, 8 bytes")]
    assert gzip.decompress((tmp_path / "a.txt.gz").read_bytes()) == b"one"
    assert shown == {"bytes": 8}

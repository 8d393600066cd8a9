"""What `docs/servers.md` says about the ways to make a server, done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError

from mcp_tasks import ConfigurationError, TasksClient, reconnecting_http


if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from .conftest import Desk


async def test_the_public_way_has_tasks_and_its_own_lifespan(
    load: Callable[[str], ModuleType],
) -> None:
    """Of tools that were declared before the server and after it."""
    module = load("servers_public")
    with pytest.raises(ConfigurationError, match=r"put @mcp\.tool\(\) and, below it"):
        module.tasks.tool()(module.count)

    tasks = TasksClient()
    async with Client(module.mcp, extensions=[tasks]) as client:
        handle = await tasks.start(client, "translate", {"text": "good day Ada"})
        assert (await handle.result()).structured_content == {"result": "buon giorno Ada"}
        handle = await tasks.start(client, "count", {"text": "good day Ada"})
        assert (await handle.result()).structured_content == {"result": 3}


async def test_a_low_level_server_survives_kill_9(desk: Desk) -> None:
    """As any other."""
    tasks = TasksClient()

    with desk.server("servers_low_level.py") as first:
        async with Client(reconnecting_http(desk.url), extensions=[tasks]) as client:
            assert [tool.name for tool in (await client.list_tools()).tools] == ["wait"]
            with pytest.raises(MCPError, match="there is no tool 'other'"):
                await client.call_tool("other", {})
            handle = await tasks.start(client, "wait", {"seconds": 2})
            await anyio.sleep(0.5)
            first.kill()
            first.wait()
            with desk.server("servers_low_level.py"), anyio.fail_after(30):
                result = await handle.result()
    assert [block.text for block in result.content if block.type == "text"] == ["attempt 2"]

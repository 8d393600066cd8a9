"""What of the SDK is used, and where: an upgrade should have one module to look at."""

from __future__ import annotations

import re
from pathlib import Path

from mcp.server.lowlevel import Server
from mcp.server.mcpserver import MCPServer

import mcp_tasks.server
from mcp_tasks.server.middleware import low_level


SERVER = Path(mcp_tasks.server.__file__).parent
PRIVATE = re.compile(r"_lowlevel_server|_tool_manager|\.lifespan = |\.middleware\.append|import _")


def test_only_one_module_uses_what_is_private_or_provisional() -> None:
    """The middleware chain, the low-level server inside and the lifespan attribute."""
    found = {
        path.name
        for path in SERVER.rglob("*.py")
        if any(PRIVATE.search(line) for line in path.read_text(encoding="utf-8").splitlines())
    }

    assert found == {"middleware.py"}


def test_no_module_imports_a_private_one_of_the_sdk() -> None:
    """A leading underscore is a promise that it will change."""
    pattern = re.compile(r"(from|import) mcp[\w.]*\._")
    found = [p.name for p in SERVER.rglob("*.py") if pattern.search(p.read_text(encoding="utf-8"))]

    assert found == []


def test_the_low_level_server_is_where_we_look() -> None:
    """The one private attribute that there is no public way to."""
    server = Server("low")

    assert low_level(server) is server
    inner = low_level(MCPServer("high"))
    assert isinstance(inner, Server)
    assert inner.name == "high"
    assert callable(inner.lifespan)
    assert isinstance(inner.middleware, list)
    assert isinstance(inner.extensions, dict)
    assert inner.get_request_handler("tools/call") is not None

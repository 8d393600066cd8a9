"""Refusals of the library as the SDK's protocol errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mcp.shared.exceptions import MCPError
from mcp_types import MISSING_REQUIRED_CLIENT_CAPABILITY

from mcp_tasks.errors import ClientCapabilityError
from mcp_tasks.protocol.v2026_07_28 import EXTENSION


if TYPE_CHECKING:
    from mcp_tasks.errors import TaskError


def protocol_error(error: TaskError) -> MCPError:
    """Make the JSON-RPC error that a refusal leaves with: its code, its text, nothing else.

    Spec: 2026-07-28 tasks, T-075 and T-080.
    """
    data: Any = None
    if isinstance(error, ClientCapabilityError):
        data = {"requiredCapabilities": {error.capability: {}}}
    return MCPError(error.code, str(error), data)


def missing_extension() -> MCPError:
    """Make the error for a client that did not declare the extension on this request.

    Spec: 2026-07-28 tasks, T-009.
    """
    return MCPError(
        MISSING_REQUIRED_CLIENT_CAPABILITY,
        f"this needs the extension {EXTENSION}, which the client did not declare on this request",
        {"requiredCapabilities": {"extensions": {EXTENSION: {}}}},
    )

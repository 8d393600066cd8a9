"""Whose task it is: the one thing that every look-up depends on.

An owner is a string that the store compares and never takes apart. Ours are `local`, `anonymous`,
and principals, which say first what they are, by its length: no client can make up one that reads
like another. What a server's own rule returns is the owner as it is, so that `--owner physics`
finds it; in return such a rule may not name ours.

A task that belongs to somebody else does not exist. Spec: 2026-07-28 tasks, T-090 and T-092.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import principal_components
from mcp.server.mcpserver import authenticated_principal
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR

from mcp_tasks.domain.record import Principal
from mcp_tasks.store import ANONYMOUS, LOCAL


if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp.server.context import ServerRequestContext

    from mcp_tasks.storage.base import StorageBackend

    OwnerOf = Callable[[ServerRequestContext[Any, Any]], str | None]


_PRINCIPAL: Final = "9:principal:"


def owner_of(
    ctx: ServerRequestContext[Any, Any], rule: OwnerOf | None, *, is_local_store: bool
) -> str:
    """Return the owner of what this request makes, and of what it may see.

    An authenticated caller is its client, issuer and subject, as the SDK tells principals apart. A
    caller on the same machine, over stdio or in process, is `local` as long as the store is on this
    machine too. All others are `anonymous`: the task's id is their only key, and nothing is listed.

    Args:
        ctx: The request.
        rule: The server's own; where it returns `None`, and without one, the above holds.
        is_local_store: The store is in this process or in a file.

    Raises:
        MCPError: `rule` returned what cannot be an owner. Nothing was looked up.
    """
    named = None if rule is None else rule(ctx)
    if named is not None:
        return _checked(named)
    principal = authenticated_principal(ctx)
    if principal is not None:
        return _PRINCIPAL + principal
    return LOCAL if is_local_store and ctx.request is None else ANONYMOUS


def _checked(owner: object) -> str:
    """Refuse what would be an owner by mistake, or one that other callers share.

    Raises:
        MCPError: See there.
    """
    if not isinstance(owner, str):
        kind = type(owner).__name__
        problem = f"a value of type {kind}; it must return a str, or None for the usual rule"
    elif not owner:
        problem = "an empty name; it must return a name, or None for the usual rule"
    elif owner in (ANONYMOUS, LOCAL) or owner.startswith(_PRINCIPAL):
        kind = _PRINCIPAL if owner.startswith(_PRINCIPAL) else owner
        problem = f"{kind!r}, which other callers have; put something in front, such as 'tenant:'"
    else:
        return str(owner)
    raise MCPError(INTERNAL_ERROR, f"this server's owner_of returned {problem}")


def current_principal() -> Principal | None:
    """Return who calls, as the authorization server knows them, without their token."""
    token = get_access_token()
    if token is None:
        return None
    client_id, issuer, subject = principal_components(token)
    return Principal(client_id, issuer, subject, tuple(token.scopes))


def is_local(backend: StorageBackend) -> bool:
    """Tell whether a backend keeps its data on this machine, for those that we know."""
    # Imported late: the module of a backend may need its driver.
    from mcp_tasks.storage.memory import MemoryBackend  # noqa: PLC0415
    from mcp_tasks.storage.sqlite import SqliteBackend  # noqa: PLC0415

    return isinstance(backend, MemoryBackend | SqliteBackend)

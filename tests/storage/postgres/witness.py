"""Sees what a backend sends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mcp_tasks.storage.postgres.driver import connect


if TYPE_CHECKING:
    from mcp_tasks.storage.postgres.driver import Connection


class Witness:
    """Opens connections for a backend and notes each statement on them.

    Attributes:
        statements: What the backend sent; the driver's own questions about types are left out.
        opened: How many connections.
    """

    def __init__(self) -> None:
        self.statements: list[str] = []
        self.opened = 0
        self._connections: list[Connection] = []

    async def connect(self, dsn: str | None, /, **settings: Any) -> Connection:
        """Open one, as the driver does."""
        self.opened += 1
        connection: Any = await connect(dsn, **settings)
        connection.add_query_logger(self._note)
        self._connections.append(connection)
        return connection

    def _note(self, record: Any) -> None:
        if "set_config" not in record.query and "typeinfo" not in record.query:
            self.statements.append(record.query)

    @property
    def closed(self) -> int:
        """How many of them are closed."""
        return sum(connection.is_closed() for connection in self._connections)

    @property
    def all_are_closed(self) -> bool:
        """Tell whether none is open."""
        return self.closed == self.opened

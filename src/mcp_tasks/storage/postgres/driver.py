"""What is used of asyncpg, with types, and what its errors mean.

The one question about an error that matters: can the statement have happened? An ERROR that the
server reports has undone it. Everything else that ends a statement after it was sent (a connection
that breaks, a server that shuts down, no answer in time) leaves it open.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

import asyncpg  # pyright: ignore[reportMissingTypeStubs] - it has none

from mcp_tasks.errors import (
    ConfigurationError,
    StorageCorruptError,
    StorageFullError,
    StorageReadOnlyError,
    StorageUnavailableError,
)


if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from mcp_tasks.errors import MCPTasksError


Row: TypeAlias = "Sequence[Any]"

_GOOD_BYE = 2.0


class Connection(Protocol):
    """What is used of the driver's connection."""

    async def fetch(self, query: str, *args: Any) -> list[Row]:
        """Run one statement and return its rows."""
        ...

    async def execute(self, query: str, *args: Any) -> str:
        """Run one statement, or several without arguments, and return the last one's tag."""
        ...

    async def add_listener(self, channel: str, callback: Callable[..., object]) -> None:
        """LISTEN."""
        ...

    def add_termination_listener(self, callback: Callable[..., object]) -> None:
        """Have `callback` called when the connection is gone."""
        ...

    def get_server_version(self) -> tuple[int, ...]:
        """Return the server's version; the first number is the major one."""
        ...

    def is_closed(self) -> bool:
        """Tell whether it is known to be gone."""
        ...

    def terminate(self) -> None:
        """Drop it at once. A statement under way fails."""
        ...

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the driver's
        """Say good-bye and close it."""
        ...


class Connect(Protocol):
    """Opens a connection, as `asyncpg.connect` does."""

    async def __call__(self, dsn: str | None, /, **settings: Any) -> Connection:
        """Open it; `settings` as in `asyncpg.connect`."""
        ...


connect: Connect = cast("Any", asyncpg).connect


async def part(connection: Connection) -> None:
    """Say good-bye to the server, and close a connection that nobody uses."""
    with suppress(*DRIVER_ERRORS):
        await connection.close(timeout=_GOOD_BYE)


@contextmanager
def deadline(connection: Connection, seconds: float) -> Generator[None]:
    """Drop `connection`, and so let its statement fail, when this takes longer.

    Not by a timeout of the driver's: that asks the server to stop, over the same network that does
    not answer.
    """
    timer = asyncio.get_running_loop().call_later(seconds, connection.terminate)
    try:
        yield
    finally:
        timer.cancel()


# What the driver raises, and what the socket under it does.
DRIVER_ERRORS: tuple[type[Exception], ...] = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,  # TimeoutError and ConnectionError too
)

# Undone by the server because of what others did at the moment: worth another try at once.
_TRANSIENT = ("40001", "40P01")
# About the values in one row, or a row that somebody holds: the others of a batch may pass alone.
_OF_ONE_ROW = ("22", "23", "53100", "54", "55P03")
# Even as an ERROR these do not say that nothing happened.
_UNKNOWN = ("08", "40003", "57P")


def may_have_happened(error: Exception) -> bool:
    """Tell whether a statement that was sent, and failed with `error`, can have been done."""
    if not isinstance(error, asyncpg.PostgresError):
        return True
    state = state_of(error)
    return not state or state.startswith(_UNKNOWN) or _severity(error) in ("FATAL", "PANIC")


def is_transient(error: Exception) -> bool:
    """Tell whether the same statement, sent again at once, has a fair chance."""
    return state_of(error) in _TRANSIENT


def is_of_one_row(error: Exception) -> bool:
    """Tell whether a batch may have failed for one of its rows."""
    return state_of(error).startswith(_OF_ONE_ROW) and not may_have_happened(error)


def state_of(error: Exception) -> str:
    """Return the SQLSTATE, empty if there is none."""
    state: Any = getattr(error, "sqlstate", None)
    return state if isinstance(state, str) else ""


def reason(error: Exception) -> str:
    """Return the error in words: no address, no DSN, and no details, which may quote a record."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or type(error).__name__}"
    if isinstance(error, socket.gaierror):
        return "the host name is not known"
    if isinstance(error, OSError):
        return os.strerror(error.errno) if error.errno else "it cannot be reached"
    if isinstance(error, asyncpg.ConnectionDoesNotExistError):
        return "the connection was lost"
    text = str(error.args[0]) if error.args else ""
    return text if isinstance(error, asyncpg.PostgresError) and text else type(error).__name__


def translate(error: Exception, table: str) -> MCPTasksError:
    """Return what `error` means to a caller whose statement has not happened."""
    where = f"table {table!r}"
    why = reason(error)
    state = state_of(error)
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return StorageReadOnlyError(where, "no server there takes writes")
    if state == "25006":
        return StorageReadOnlyError(where, why)
    if state == "53100":
        return StorageFullError(where, why)
    if state.startswith(("XX001", "XX002", "23")):
        return StorageCorruptError(where, why)
    if isinstance(error, asyncpg.ClientConfigurationError):
        return ConfigurationError("the URL of the PostgreSQL server cannot be used: " + why)
    if state in ("42P01", "3F000"):
        return ConfigurationError(
            f"{where} is not there ({why}); nothing was changed. Run 'mcp-tasks init URL' once, or "
            "leave out create=false"
        )
    if state == "42501":
        return ConfigurationError(
            f"the role may not do this with {where} ({why}); nothing was changed. It needs SELECT, "
            "INSERT, UPDATE and DELETE on the table, and CREATE on the schema to make it"
        )
    if state.startswith(("28", "3D", "42", "0A", "22", "26")):
        return ConfigurationError(f"PostgreSQL refuses to work like this: {why}")
    return StorageUnavailableError(f"PostgreSQL: {why}")


def _severity(error: Exception) -> str:
    found: Any = getattr(error, "severity_en", None) or getattr(error, "severity", None)
    return found if isinstance(found, str) else ""

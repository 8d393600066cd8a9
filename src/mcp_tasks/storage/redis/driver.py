"""What is used of redis-py, with types, and what its errors mean.

The one question about an error that matters: can the command have happened? What the server answers
is definite. A connection that breaks after something was sent leaves it open.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import socket
import ssl
from typing import TYPE_CHECKING, Any, cast

import hiredis
from redis import exceptions
from redis.asyncio.connection import Connection as PlainConnection
from redis.asyncio.connection import SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from mcp_tasks.errors import (
    BackendClosedError,
    ConfigurationError,
    StorageCorruptError,
    StorageFullError,
    StorageReadOnlyError,
    StorageUnavailableError,
)
from mcp_tasks.storage.redis.scripts import ALL


if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mcp_tasks.errors import MCPTasksError


Part = bytes | str | int
Command = tuple[Part, ...]

# Straight to it: the driver's own way there takes twice as long. Its stub knows one part only.
_pack: Callable[[Command], bytes] = cast("Any", hiredis).pack_command

# Error answers; `BusyLoadingError` is one although the driver counts it among broken connections.
ANSWERS = (exceptions.ResponseError, exceptions.BusyLoadingError, exceptions.AuthenticationError)
# What the driver raises when there is no answer, and what the socket under it does.
BROKEN = (exceptions.ConnectionError, exceptions.TimeoutError, exceptions.InvalidResponse, OSError)

# Not done, for a reason that passes: the server starts, elects, moves, or is busy with a script.
_PASSING = {
    *("LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "NOREPLICAS", "READONLY"),
}
_CODES = re.compile(
    r"\b(LOADING|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|BUSY|NOREPLICAS|READONLY|OOM|MISCONF|WRONGTYPE|"
    r"NOPERM|NOAUTH|WRONGPASS|NOSCRIPT|MOVED|ASK|CROSSSLOT)\b"
)
# What a script may not do has no code of its own.
_FORBIDDEN = re.compile(r"ACL failure in script|The user executing the script can't")
_CODE_OF_CLASS: dict[type[Exception], str] = {
    exceptions.BusyLoadingError: "LOADING",
    exceptions.MasterDownError: "MASTERDOWN",
    exceptions.ClusterDownError: "CLUSTERDOWN",
    exceptions.TryAgainError: "TRYAGAIN",
    exceptions.ReadOnlyError: "READONLY",
    exceptions.OutOfMemoryError: "OOM",
    exceptions.NoPermissionError: "NOPERM",
    exceptions.AuthenticationError: "WRONGPASS",
    exceptions.NoScriptError: "NOSCRIPT",
    exceptions.MovedError: "MOVED",
    exceptions.AskError: "ASK",
}


class Connection:
    """One connection, with nothing of the driver's own retries, health checks and timeouts.

    Args:
        node: Host and port.
        settings: What the driver's connection is made with, and `ssl`.
        connect_timeout: How long connecting and logging in may take, in seconds.

    Raises:
        ConfigurationError: The driver does not take these settings.
    """

    def __init__(
        self, node: tuple[str, int], settings: dict[str, Any], connect_timeout: float
    ) -> None:
        settings = dict(settings)
        make: Any = SSLConnection if settings.pop("ssl", False) else PlainConnection
        self.node = node
        self._dropped = False
        self._connect_timeout = connect_timeout
        given: dict[str, Any] = {
            "client_name": "mcp-tasks",
            **settings,
            "host": node[0],
            "port": node[1],
            "protocol": 2,
            "retry": Retry(NoBackoff(), 0),
            "socket_timeout": None,
            "socket_connect_timeout": connect_timeout,
            "health_check_interval": 0,
            "decode_responses": False,
            "driver_info": None,
        }
        try:
            self._inner: Any = make(**given)
        except (TypeError, ValueError, exceptions.RedisError) as error:
            unknown = re.search(r"argument '(\w+)'", str(error))
            what = f": unknown option {unknown[1]!r}" if unknown else f" ({type(error).__name__})"
            msg = f"the URL of the Redis server cannot be used{what}"
            raise ConfigurationError(msg) from None

    async def open(self, *, scripts: bool = True) -> None:
        """Connect, log in and load the scripts.

        Raises:
            Exception: One of `ANSWERS` or `BROKEN`.
        """
        try:
            async with asyncio.timeout(self._connect_timeout):
                await self._inner.connect()
                if scripts:
                    await self._load()
        except BaseException:
            self.drop()
            raise

    async def _load(self) -> None:
        for answer in await self.ask([("SCRIPT", "LOAD", script.text) for script in ALL]):
            if isinstance(answer, Exception):
                raise answer

    async def ask(self, commands: Iterable[Command]) -> list[Any]:
        """Send commands at once and return their answers; error answers are among them.

        Raises:
            Exception: One of `BROKEN`.
        """
        commands = list(commands)
        await self.send(commands)
        return [await self.receive() for _ in commands]

    async def send(self, commands: Iterable[Command]) -> None:
        """Send commands, without waiting for answers."""
        if self._dropped:  # the driver would connect anew
            raise exceptions.ConnectionError
        packed = b"".join([_pack(command) for command in commands])
        await self._inner.send_packed_command(packed, check_health=False)

    async def receive(self, *, quiet: float = math.inf) -> Any:
        """Return the next answer, or what the server says by itself; an error answer too.

        Args:
            quiet: How long to wait, in seconds.

        Raises:
            Exception: One of `BROKEN`.
        """
        try:
            return await self._inner.read_response(timeout=quiet, disconnect_on_error=False)
        except ANSWERS as answer:
            return answer

    @property
    def is_alive(self) -> bool:
        """False when it was dropped, or the server has closed it."""
        reader = cast("asyncio.StreamReader | None", self._inner._reader)  # noqa: SLF001 - no other way
        return not self._dropped and reader is not None and not reader.at_eof()

    def drop(self) -> None:
        """Close it at once. Whoever waits for an answer gets an error."""
        self._dropped = True
        writer = cast("asyncio.StreamWriter | None", self._inner._writer)  # noqa: SLF001 - at once
        if writer is not None:
            writer.transport.abort()
            self._inner._close()  # noqa: SLF001 - or it would complain when it is collected


def code_of(answer: Exception) -> str:
    """Return the code of an error answer, such as `READONLY`; empty for another."""
    for kind, code in _CODE_OF_CLASS.items():
        if isinstance(answer, kind):
            return code
    # Older servers put the error of a command within a script into a sentence of their own.
    if _FORBIDDEN.search(str(answer)):
        return "NOPERM"
    found = _CODES.search(str(answer))
    return found[1] if found else ""


def is_passing(answer: Exception) -> bool:
    """Tell whether a command that was refused so has a chance a little later."""
    return code_of(answer) in _PASSING


def reason(error: Exception) -> str:
    """Return the error in words: no address and no password."""
    cause: BaseException = error
    while isinstance(cause, exceptions.ConnectionError | exceptions.TimeoutError) and (
        cause.__context__ or cause.__cause__
    ):
        cause = cause.__cause__ or cause.__context__ or cause
    if isinstance(cause, TimeoutError | exceptions.TimeoutError):
        return "no answer in time"
    if isinstance(cause, ssl.SSLError):
        return f"TLS failed: {cause.reason or type(cause).__name__}"
    if isinstance(cause, socket.gaierror):
        return "the host name is not known"
    if isinstance(cause, asyncio.IncompleteReadError | exceptions.ConnectionError):
        return "the connection was lost"
    if isinstance(cause, OSError):
        return os.strerror(cause.errno) if cause.errno else "it cannot be reached"
    return str(cause) if isinstance(cause, exceptions.ResponseError) else type(cause).__name__


def translate(error: Exception) -> MCPTasksError:
    """Return what `error` means to a caller whose command has not happened."""
    if isinstance(error, ConfigurationError | StorageUnavailableError | BackendClosedError):
        return error
    if not isinstance(error, ANSWERS):
        return StorageUnavailableError(f"Redis: {reason(error)}")
    code, where = code_of(error), "the Redis server"
    why = f"{code}: {error}" if code and code not in str(error) else str(error)
    if code == "OOM":
        return StorageFullError(where, why)
    if code in ("READONLY", "MISCONF"):
        return StorageReadOnlyError(where, why)
    if code == "WRONGTYPE":
        return StorageCorruptError(where, f"a key of ours holds something else: {why}")
    if code in ("MOVED", "ASK", "CROSSSLOT"):
        return ConfigurationError("this server is part of a cluster: use redis+cluster://host:port")
    if code in ("NOPERM", "NOAUTH", "WRONGPASS"):
        return ConfigurationError(
            f"the Redis server does not let this user in, or not do this ({why}); nothing was "
            "changed. See the rights that docs/backends/redis.md lists"
        )
    return StorageUnavailableError(f"Redis: {why}")

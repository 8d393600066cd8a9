"""What can be set, and how a URL says it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple
from urllib.parse import unquote_plus

from mcp_tasks.errors import ConfigurationError


_MAX_NAME_BYTES = 63
_YES = ("true", "yes", "on", "1")
_NO = ("false", "no", "off", "0")


@dataclass(frozen=True, kw_only=True)
class PostgresOptions:
    """How a backend uses its database.

    Attributes:
        table: The table, found along the role's `search_path`, or `schema.table`.
        create: Make the table at first use, and bring an older one up to date.
        prepared: Keep prepared statements and settings on each connection. False for a proxy that
            gives every transaction another server connection, such as PgBouncer.
        pool: The most connections that are open at once.
        connect_timeout: How long to try to connect, or to wait for one of the connections to be
            free, in seconds.
        timeout: How long one statement may take, in seconds.

    Raises:
        ConfigurationError: One of them cannot work.
    """

    table: str = "mcp_tasks"
    create: bool = True
    prepared: bool = True
    pool: int = 4
    connect_timeout: float = 5.0
    timeout: float = 10.0

    def __post_init__(self) -> None:
        parts = self.table.split(".")
        if len(parts) > 2 or any(  # noqa: PLR2004 - schema and table
            not part or "\0" in part or len(part.encode()) > _MAX_NAME_BYTES for part in parts
        ):
            msg = f"a table is 'table' or 'schema.table', not {self.table!r}"
            raise ConfigurationError(msg)
        if self.pool < 1 or self.connect_timeout <= 0 or self.timeout <= 0:
            msg = "pool must be at least 1, timeout and connect_timeout more than 0"
            raise ConfigurationError(msg)

    @property
    def identifier(self) -> str:
        """The table as SQL writes it."""
        return ".".join('"' + part.replace('"', '""') + '"' for part in self.table.split("."))


class Parsed(NamedTuple):
    """A URL taken apart.

    Attributes:
        dsn: What the driver gets.
        options: What is ours.
        notify: Whether hints were asked for.
    """

    dsn: str
    options: PostgresOptions
    notify: bool


def parse(url: str) -> Parsed:
    """Take our options out of `url`; what is left is the driver's.

    Raises:
        ConfigurationError: An option has a value that it cannot have. The URL is not shown.
    """
    front, _, query = url.partition("?")
    options, notify = PostgresOptions(), False
    kept: list[str] = []
    for pair in query.split("&") if query else ():
        name, _, value = pair.partition("=")
        value = unquote_plus(value)
        match name:
            case "table":
                options = replace(options, table=value)
            case "create":
                options = replace(options, create=_flag(name, value))
            case "prepared":
                options = replace(options, prepared=_flag(name, value))
            case "notify":
                notify = _flag(name, value)
            case "pool":
                options = replace(options, pool=int(_number(name, value)))
            case "connect_timeout":
                options = replace(options, connect_timeout=_number(name, value))
            case "timeout":
                options = replace(options, timeout=_number(name, value))
            case _:
                kept.append(pair)
    return Parsed("?".join([front, "&".join(kept)] if kept else [front]), options, notify)


def names_in(dsn: str) -> set[str]:
    """Return the names of what the query of `dsn` sets."""
    _, _, query = dsn.partition("?")
    return {unquote_plus(pair.partition("=")[0]) for pair in query.split("&")}


def _flag(name: str, value: str) -> bool:
    if value.lower() in _YES:
        return True
    if value.lower() in _NO:
        return False
    msg = f"postgresql://…?{name}= takes true or false"
    raise ConfigurationError(msg)


def _number(name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        msg = f"postgresql://…?{name}= takes a number"
        raise ConfigurationError(msg) from None

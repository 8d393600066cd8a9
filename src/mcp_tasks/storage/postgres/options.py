"""What can be set, and how a URL says it."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, replace
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, unquote_plus

from mcp_tasks.errors import ConfigurationError
from mcp_tasks.storage.addresses import check_address, unusable


_MAX_NAME_BYTES = 63
_YES = ("true", "yes", "on", "1")
_NO = ("false", "no", "off", "0")
_FORM = "postgresql://user:password@host:5432/database"
_HAS_PORT = re.compile(r"(^[^:]*|\]):[0-9]+$")
_PORTS = re.compile(r"[0-9]{1,5}(,[0-9]{1,5})*")
_DRIVERS_OPTIONS = (
    "sslmode",
    "sslnegotiation",
    "sslrootcert",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
    "target_session_attrs",
    "gsslib",
)


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
                options = replace(options, pool=_whole(name, value))
            case "connect_timeout":
                options = replace(options, connect_timeout=_number(name, value))
            case "timeout":
                options = replace(options, timeout=_number(name, value))
            case _:
                kept.append(pair)
    return Parsed("?".join([front, "&".join(kept)] if kept else [front]), options, notify)


def check_dsn(dsn: str) -> None:
    """Refuse what the driver could not read, in words that show nothing of it.

    Raises:
        ConfigurationError: Some part cannot be read. It is named.
    """
    check_address(dsn, "PostgreSQL", _FORM)
    query = dsn.partition("?")[2]
    if query and not all("=" in pair for pair in query.split("&")):
        raise unusable("PostgreSQL", "its options are name=value, joined by '&'", _FORM)
    ports = parse_qs(query).get("port", ["5432"])[-1]
    if not _PORTS.fullmatch(ports):
        raise unusable("PostgreSQL", "its port is no number", _FORM)


def refused(error: ValueError) -> ConfigurationError:
    """Return what the driver has against a URL. Its own words may quote a part of that."""
    named = [option for option in _DRIVERS_OPTIONS if option in str(error)]
    what = f"its option {named[0]!r} has a value" if named else "it has a part"
    return unusable("PostgreSQL", f"{what} that the driver does not take", _FORM)


def place_of(dsn: str | None) -> str:
    """Say where the server is, for logs: hosts, ports and database, no user, no password."""
    front, _, query = (dsn or "").partition("?")
    options = {name: values[-1] for name, values in parse_qs(query).items()}
    place, _, database = front.partition("://")[2].rpartition("@")[2].partition("/")
    port = os.environ.get("PGPORT", "5432")
    if not place and "host" not in options and "service" in options:
        return f"service {options['service']}"
    if not place:
        place = options.get("host") or os.environ.get("PGHOST", "localhost")
        port = options.get("port") or port
    hosts = unquote(place).split(",")
    ports = port.split(",")
    if len(ports) != len(hosts):
        ports = [port] * len(hosts)
    named = [
        host if _HAS_PORT.search(host) else f"{host}:{port}"
        for host, port in zip(hosts, ports, strict=True)
    ]
    others = options.get("dbname") or options.get("database") or os.environ.get("PGDATABASE", "")
    return f"{','.join(named)}/{unquote(database) or others}".removesuffix("/")


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
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        msg = f"postgresql://…?{name}= takes a number"
        raise ConfigurationError(msg)
    return number


def _whole(name: str, value: str) -> int:
    number = _number(name, value)
    if not number.is_integer():
        msg = f"postgresql://…?{name}= takes a whole number"
        raise ConfigurationError(msg)
    return int(number)

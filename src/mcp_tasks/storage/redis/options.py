"""What can be set, and how a URL says it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from urllib.parse import unquote_plus, urlsplit

from redis.asyncio.connection import parse_url

from mcp_tasks.errors import ConfigurationError
from mcp_tasks.storage.addresses import check_address, shown, unusable


_YES = ("true", "yes", "on", "1")
_NO = ("false", "no", "off", "0")
_SENTINEL_PORT = 26379
_PORT = 6379
_FORM = "redis://user:password@host:6379/0"
_FORMS = {
    "redis+sentinel": "redis+sentinel://user:password@host:26379,host:26379/service/0",
    "redis+cluster": "redis+cluster://user:password@host:6379,host:6379",
}
# The driver's own words quote the URL; this part of them is the name of an option that it knows.
_BAD_OPTION = re.compile(r"Invalid value for '(\w+)'")


@dataclass(frozen=True, kw_only=True)
class RedisOptions:
    """How a backend uses its server.

    Attributes:
        prefix: Begins every key. No braces.
        hints: Tell other processes of every write, by a message on the channel `<prefix>:changes`.
        connect_timeout: How long to try to connect, in seconds.
        timeout: How long an answer may take, in seconds.

    Raises:
        ConfigurationError: One of them cannot work.
    """

    prefix: str = "mcp_tasks"
    hints: bool = True
    connect_timeout: float = 5.0
    timeout: float = 5.0

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if not self.prefix or not self.prefix.isascii() or set("{}") & set(self.prefix):
            msg = f"prefix is {self.prefix!r}; it must be ASCII, not empty, and without braces"
            raise ConfigurationError(msg)
        if not (0 < self.timeout < math.inf and 0 < self.connect_timeout < math.inf):
            msg = "timeout and connect_timeout are seconds, more than 0"
            raise ConfigurationError(msg)


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where the server is, and how to connect.

    Attributes:
        kind: One server, one that Sentinel finds, or a cluster.
        nodes: Host and port: the server, the sentinels, or some nodes of the cluster.
        service: What the sentinels call the server.
        settings: What the driver's connection is made with.
        sentinel_settings: The same for the sentinels.
    """

    kind: Literal["single", "sentinel", "cluster"]
    nodes: tuple[tuple[str, int], ...]
    service: str = ""
    # Passwords: never in a repr.
    settings: dict[str, Any] = field(default_factory=dict[str, Any], repr=False)
    sentinel_settings: dict[str, Any] = field(default_factory=dict[str, Any], repr=False)

    def __str__(self) -> str:
        """Say where the server is, for logs: no user, no password."""
        service = f"/{self.service}" if self.service else ""
        database = "" if self.kind == "cluster" else f"/{self.settings.get('db', 0)}"
        return f"{self.kind} {shown(self.nodes)}{service}{database}"


def parse(url: str) -> tuple[Target, RedisOptions]:
    """Take our options out of `url`; what is left is the driver's.

    Raises:
        ConfigurationError: The URL cannot be used. It is not shown.
    """
    front, _, query = url.partition("?")
    scheme, _, rest = front.partition("://")
    scheme = scheme.lower()
    check_address(url, "Redis", _FORMS.get(scheme, _FORM))
    options = RedisOptions()
    sentinel: dict[str, Any] = {}
    kept: list[str] = []
    is_tls = scheme in ("rediss", "valkeys")
    for pair in query.split("&") if query else ():
        name, _, value = pair.partition("=")
        value = unquote_plus(value)
        match name:
            case "prefix":
                options = replace(options, prefix=value)
            case "hints":
                options = replace(options, hints=_flag(name, value))
            case "connect_timeout":
                options = replace(options, connect_timeout=_number(name, value))
            case "timeout":
                options = replace(options, timeout=_number(name, value))
            case "ssl":
                is_tls = _flag(name, value)
            case "sentinel_username" | "sentinel_password":
                sentinel[name.removeprefix("sentinel_")] = value
            case _:
                kept.append(pair)
    if not scheme.startswith("redis+"):
        return _single(rest, kept, is_tls=is_tls), options
    users, at, place = rest.rpartition("@")
    hosts, _, path = place.partition("/")
    if scheme == "redis+sentinel":
        service, _, db = path.partition("/")
        if not service:
            msg = "redis+sentinel:// names the service: redis+sentinel://host:26379,host/service"
            raise ConfigurationError(msg)
        single = _single(f"{users}{at}localhost/{db or 0}", kept, is_tls=is_tls)
        nodes = _nodes(hosts, _SENTINEL_PORT)
        sentinel_settings = {**_transport(single.settings), **sentinel}
        return replace(
            single,
            kind="sentinel",
            nodes=nodes,
            service=unquote_plus(service),
            sentinel_settings=sentinel_settings,
        ), options
    if path.strip("/0"):
        msg = "a Redis cluster has one database only, number 0: leave the path out"
        raise ConfigurationError(msg)
    single = _single(f"{users}{at}localhost", kept, is_tls=is_tls)
    return replace(single, kind="cluster", nodes=_nodes(hosts, _PORT)), options


def _single(rest: str, kept: list[str], *, is_tls: bool) -> Target:
    query = "?" + "&".join(kept) if kept else ""
    try:
        settings: dict[str, Any] = dict(
            parse_url(f"{'rediss' if is_tls else 'redis'}://{rest}{query}")
        )
    except ValueError as error:
        option = _BAD_OPTION.search(str(error))
        what = f"its option {option[1]!r} has a value" if option else "it has a part"
        raise unusable("Redis", f"{what} that the driver does not take", _FORM) from None
    if "db" not in settings and rest.rpartition("@")[2].partition("/")[2]:
        msg = "a Redis database is a number: redis://host:port/0"
        raise ConfigurationError(msg)
    settings.pop("connection_class", None)
    settings["ssl"] = is_tls
    node = (settings.pop("host", "localhost"), settings.pop("port", _PORT))
    return Target(kind="single", nodes=(node,), settings=settings)


def _nodes(hosts: str, port: int) -> tuple[tuple[str, int], ...]:
    found = [urlsplit(f"//{host}") for host in hosts.split(",") if host]
    nodes = tuple((node.hostname or "localhost", node.port or port) for node in found)
    if not nodes:
        msg = "a Redis URL names hosts as 'host:port,host:port'"
        raise ConfigurationError(msg)
    return nodes


def _transport(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what concerns the way to the server and not the server: TLS."""
    return {name: value for name, value in settings.items() if name.startswith("ssl")}


def _flag(name: str, value: str) -> bool:
    if value.lower() in _YES:
        return True
    if value.lower() in _NO:
        return False
    msg = f"redis://…?{name}= takes true or false"
    raise ConfigurationError(msg)


def _number(name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        msg = f"redis://…?{name}= takes a number"
        raise ConfigurationError(msg) from None

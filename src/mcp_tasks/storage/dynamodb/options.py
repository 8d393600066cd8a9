"""What can be set, and how a URL says it."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, unquote_plus

from mcp_tasks.errors import ConfigurationError


_TABLE = re.compile(r"[A-Za-z0-9_.-]{3,255}")
_ENDPOINT = re.compile(r"https?://(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9_.-]+)(:[0-9]{1,5})?(/.*)?")


@dataclass(frozen=True, kw_only=True)
class DynamoDBOptions:
    """How a backend uses its table.

    Attributes:
        table: The table.
        region: Where it is; `None` for what the environment or the profile says.
        endpoint_url: Another address than the region's, as of a stand-in; `None` for the region's.
        profile: The profile in the AWS configuration files; `None` for what the environment says.
        pool: The most connections that are open at once.
        connect_timeout: How long to try to connect, in seconds.
        timeout: How long an answer may take, in seconds.
        patience: How long to go on when the table is throttled, in seconds.

    Raises:
        ConfigurationError: One of them cannot work.
    """

    table: str = "mcp_tasks"
    region: str | None = None
    endpoint_url: str | None = None
    profile: str | None = None
    pool: int = 50
    connect_timeout: float = 3.0
    timeout: float = 5.0
    patience: float = 5.0

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if not _TABLE.fullmatch(self.table):
            msg = (
                f"a table has 3 to 255 letters, digits, '_', '-' or '.' for a name, not "
                f"{self.table!r}"
            )
            raise ConfigurationError(msg)
        if self.endpoint_url is not None and not _ENDPOINT.fullmatch(self.endpoint_url):
            msg = "endpoint_url is an address such as http://localhost:8000, without credentials"
            raise ConfigurationError(msg)
        if self.pool < 1 or min(self.connect_timeout, self.timeout) <= 0 or self.patience < 0:
            msg = (
                "pool must be at least 1, timeout and connect_timeout more than 0, and patience "
                "not less"
            )
            raise ConfigurationError(msg)


def parse(url: str) -> DynamoDBOptions:
    """Return what `dynamodb://table?region=…` says. The table may be left out.

    Raises:
        ConfigurationError: The URL cannot be used. It is not shown, for it may hold a secret that
            does not belong there.
    """
    front, _, query = url.partition("?")
    table = unquote(front.partition("://")[2])
    if "@" in table or "/" in table or ":" in table:
        msg = (
            "dynamodb:// takes the name of the table and options, as in "
            "'dynamodb://mcp_tasks?region=eu-west-1'; credentials come from the environment, a "
            "profile or the machine's role"
        )
        raise ConfigurationError(msg)
    given: dict[str, Any] = {"table": table} if table else {}
    for pair in query.split("&") if query else ():
        name, _, value = pair.partition("=")
        value = unquote_plus(value)
        match name:
            case "region" | "endpoint_url" | "profile":
                given[name] = value or None
            case "pool":
                given[name] = _whole(name, value)
            case "connect_timeout" | "timeout" | "patience":
                given[name] = _number(name, value)
            case _:
                msg = (
                    "dynamodb://… takes region, endpoint_url, profile, pool, connect_timeout, "
                    "timeout and patience; one of its options is none of these"
                )
                raise ConfigurationError(msg)
    return DynamoDBOptions(**given)


def place_of(options: DynamoDBOptions) -> str:
    """Say where the table is, for logs, as far as options and environment say it."""
    endpoint = (
        options.endpoint_url
        or os.environ.get("AWS_ENDPOINT_URL_DYNAMODB")
        or os.environ.get("AWS_ENDPOINT_URL", "")
    )
    named = {
        "region": options.region or os.environ.get("AWS_DEFAULT_REGION"),
        "profile": options.profile or os.environ.get("AWS_PROFILE"),
        "endpoint": endpoint.partition("://")[2].rpartition("@")[2].partition("/")[0],
    }
    return "".join(f", {name}={value!r}" for name, value in named.items() if value)


def _number(name: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        msg = f"dynamodb://…?{name}= takes a number"
        raise ConfigurationError(msg)
    return number


def _whole(name: str, value: str) -> int:
    number = _number(name, value)
    if not number.is_integer():
        msg = f"dynamodb://…?{name}= takes a whole number"
        raise ConfigurationError(msg)
    return int(number)

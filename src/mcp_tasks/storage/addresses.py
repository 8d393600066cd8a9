"""The address in the URL of a server: what is wrong with it, and how it is shown.

A driver's own words may quote a part of a URL, and with it a password. These never do.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mcp_tasks.errors import ConfigurationError


if TYPE_CHECKING:
    from collections.abc import Iterable


_HOST = re.compile(r"(?:\[[^\[\]]*\]|[^\[\]:]*)(?::(?P<port>.*))?", re.DOTALL)
_PORT = re.compile(r"[0-9]{1,5}")
_MAX_PORT = 65535


def check_address(url: str, product: str, form: str) -> None:
    """Refuse a URL with an address that cannot be read, and say which part of it is wrong.

    Args:
        url: `scheme://user:password@host:port,host:port/path?name=value`, of which all but the
            scheme may be left out.
        product: Whose server it is.
        form: How such a URL is written.

    Raises:
        ConfigurationError: It cannot be read. Nothing of it is shown.
    """
    problem = _problem(url)
    if problem is not None:
        raise unusable(product, problem, form)


def unusable(product: str, problem: str, form: str) -> ConfigurationError:
    """Return the error that says what is wrong with a URL, and how it is written."""
    return ConfigurationError(
        f"the URL of the {product} server cannot be used: {problem}; its form is {form}"
    )


def shown(nodes: Iterable[tuple[str, int | str]]) -> str:
    """Return hosts and ports as a URL has them."""
    return ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in nodes)


def _problem(url: str) -> str | None:
    front, _, query = url.partition("?")
    users, _, place = front.partition("://")[2].rpartition("@")
    names = [pair.partition("=")[0] for pair in query.split("&")]
    if set(users) & set("/@[]") or "#" in front or any("@" in name for name in names):
        return "in a user, a password and a path, '/ ? # @ [ ]' are percent-encoded, '/' as %2F"
    hosts = place.partition("/")[0].split(",")
    if len(hosts) > 1 and "" in hosts:
        return "one of its hosts is empty"
    for host in hosts:
        found = _HOST.fullmatch(host)
        port = found and found["port"]
        if found is None or ":" in (port or ""):
            return "an address of IPv6 stands in brackets, as [::1]"
        if port and not (_PORT.fullmatch(port) and 0 < int(port) <= _MAX_PORT):
            return f"its port is no number from 1 to {_MAX_PORT}"
        try:
            urlsplit(f"//{users}@{host}")
        except ValueError:
            return "its host is no name and no address"
    return None

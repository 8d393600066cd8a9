"""`open_backend(url)`: one line of configuration instead of an import.

A backend is one row of the table below and is imported only when its scheme is asked for. What
stands behind the scheme is the driver's to parse; nothing of it is shown in an error, because it
may hold a password.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from mcp_tasks.errors import ConfigurationError


if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from mcp_tasks.storage.base import StorageBackend


class _Scheme(NamedTuple):
    """Where the backend of a scheme is.

    Attributes:
        module: To be imported.
        make: Name of what to look up in it: called with the URL, it returns the backend.
        extra: What to install for its driver; empty if that comes with us.
    """

    module: str
    make: str
    extra: str


_REDIS = _Scheme("mcp_tasks.storage.redis", "RedisBackend.from_url", "redis")
_POSTGRES = _Scheme("mcp_tasks.storage.postgres", "PostgresBackend.from_url", "postgres")

_ELSEWHERE = {
    "redis": _REDIS,
    "rediss": _REDIS,
    "valkey": _REDIS,
    "valkeys": _REDIS,
    "redis+sentinel": _REDIS,
    "redis+cluster": _REDIS,
    "postgresql": _POSTGRES,
    "postgres": _POSTGRES,
    "dynamodb": _Scheme("mcp_tasks.storage.dynamodb", "DynamoDBBackend.from_url", "dynamodb"),
}

_FORMS = (
    "memory://, sqlite:///relative.db, sqlite:////absolute.db, redis://…, rediss://…, "
    "valkey://…, valkeys://…, redis+sentinel://…, redis+cluster://…, postgresql://…, dynamodb://…"
)


def open_backend(url: str) -> StorageBackend:
    """Return the backend that `url` names. Nothing is opened yet: that happens at first use.

    `memory://` keeps tasks in this process. `sqlite:///tasks.db` is a file in the current folder,
    which is looked up now; `sqlite:////var/lib/tasks.db` has an absolute path (four slashes), and
    `sqlite:///~/tasks.db` lies in the user's home. On Windows: `sqlite:///C:/folder/tasks.db`.

    Args:
        url: One of those, or the URL of a server. Characters that mean something in a URL
            (`?`, `#`, `%`) are percent-encoded in a path.

    Raises:
        ConfigurationError: No such scheme, a URL that cannot work, or a driver that is not
            installed. Never shows more of `url` than its scheme.
    """
    scheme, colon, rest = url.partition("://")
    scheme = scheme.lower()
    if not colon or not scheme:
        msg = f"a store is named by a URL with '://'; known are {_FORMS}"
        raise ConfigurationError(msg)
    if scheme == "memory":
        return _open_memory(rest)
    if scheme == "sqlite":
        return _open_sqlite(rest)
    found = _ELSEWHERE.get(scheme)
    if found is None:
        msg = f"no backend for {_shown(scheme)}; known are {_FORMS}"
        raise ConfigurationError(msg)
    make: Callable[[str], StorageBackend] = _look_up(scheme, found)
    return make(url)


def _open_memory(rest: str) -> StorageBackend:
    from mcp_tasks.storage.memory import MemoryBackend  # noqa: PLC0415 - only what is asked for

    if rest:
        msg = "memory:// takes nothing behind it: each call makes an empty store of its own"
        raise ConfigurationError(msg)
    return MemoryBackend()


def _open_sqlite(rest: str) -> StorageBackend:
    # As SQLAlchemy has it: between the second and the third slash would stand a server.
    path = unquote(rest[1:])
    if path in ("", ":memory:") and rest.startswith("/"):
        msg = "sqlite:// needs a file, as in 'sqlite:///tasks.db'; for memory use 'memory://'"
        raise ConfigurationError(msg)
    if not rest.startswith("/"):
        msg = (
            "sqlite:// takes three slashes before a relative path ('sqlite:///tasks.db') and four "
            "before an absolute one ('sqlite:////var/lib/tasks.db')"
        )
        raise ConfigurationError(msg)
    if "?" in rest or "#" in rest:
        msg = "sqlite:// takes no options; in a path, write '?' as %3F and '#' as %23"
        raise ConfigurationError(msg)
    from mcp_tasks.storage.sqlite import SqliteBackend  # noqa: PLC0415 - needs its driver

    return SqliteBackend(Path(path))


def _look_up(scheme: str, found: _Scheme) -> Callable[[str], StorageBackend]:
    try:
        module: ModuleType = import_module(found.module)
    except ModuleNotFoundError as error:
        msg = (
            f"{scheme}:// needs a package that is not installed ({error.name}): "
            f"pip install 'mcp-tasks[{found.extra}]'"
        )
        raise ConfigurationError(msg) from error
    make: object = module
    for name in found.make.split("."):
        make = getattr(make, name)
    return make  # pyright: ignore[reportReturnType] - the table says what it is


def _shown(scheme: str) -> str:
    """Return a scheme as it may be shown: a password with no scheme before it is none."""
    is_scheme = scheme.isascii() and scheme.replace("+", "").replace("-", "").isalnum()
    return repr(f"{scheme}://") if is_scheme and len(scheme) <= 20 else "this URL"  # noqa: PLR2004

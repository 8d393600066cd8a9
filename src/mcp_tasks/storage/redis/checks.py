"""What is looked at before a server starts: version, role, and whether anything is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp_tasks.errors import ConfigurationError


if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mcp_tasks.storage.redis.driver import Connection


_OLDEST = (6, 2)

_NOTHING_KEPT = (
    "The Redis server keeps nothing on disk: when it restarts, all tasks are gone. Set "
    "'appendonly yes' and 'appendfsync always'."
)
_SNAPSHOTS_ONLY = (
    "The Redis server keeps snapshots only: when it crashes, what was written since the last one "
    "is gone. Set 'appendonly yes' and 'appendfsync always'."
)
_FLUSHED_LATER = (
    "The Redis server flushes what it acknowledged only later (appendfsync is {}): a crash of its "
    "machine loses the last second or more. Set 'appendfsync always'."
)
_EVICTS = (
    "The Redis server throws tasks away when memory is short (maxmemory-policy is {}). Set "
    "'maxmemory-policy noeviction'."
)


async def examine(connection: Connection, kind: str) -> Sequence[str]:
    """Return warnings about the server behind `connection`.

    Raises:
        ConfigurationError: It cannot work.
        Exception: One of the driver's errors.
    """
    info, *settings = await connection.ask(
        [("INFO",), ("CONFIG", "GET", "save"), ("CONFIG", "GET", "appendfsync")]
    )
    if isinstance(info, Exception):
        raise info
    facts = _facts(info)
    _require(facts, kind)
    # A managed service may not tell its settings; then there may be snapshots.
    save, appendfsync = (
        None if isinstance(answer, Exception) or len(answer) < 2 else answer[1].decode()  # noqa: PLR2004 - name and value
        for answer in settings
    )
    warnings: list[str] = []
    if facts.get("aof_enabled") != "1":
        warnings.append(_NOTHING_KEPT if save == "" else _SNAPSHOTS_ONLY)
    elif appendfsync not in (None, "always"):
        warnings.append(_FLUSHED_LATER.format(appendfsync))
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        warnings.append(_EVICTS.format(policy))
    return warnings


def _require(facts: Mapping[str, str], kind: str) -> None:
    # Valkey calls the Redis release that it is compatible with `redis_version`.
    version = facts.get("redis_version", "0")
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < _OLDEST:
        msg = f"the Redis server is version {version}; 6.2 or later is needed"
        raise ConfigurationError(msg)
    is_cluster = facts.get("cluster_enabled") == "1"
    if is_cluster and kind != "cluster":
        msg = "this server is part of a cluster: use redis+cluster://host:port"
        raise ConfigurationError(msg)
    if facts.get("role") not in (None, "master"):
        msg = "this Redis server is a replica, which takes no writes: name the primary"
        raise ConfigurationError(msg)


def _facts(info: bytes) -> dict[str, str]:
    lines = info.decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)

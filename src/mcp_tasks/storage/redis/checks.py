"""What is looked at before a server starts: version, role, and whether anything is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp_tasks.errors import ConfigurationError
from mcp_tasks.storage.redis.driver import code_of


if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mcp_tasks.storage.redis.driver import Connection


_OLDEST = (6, 2)

_NOTHING_KEPT = (
    "the Redis server keeps nothing on disk: when it restarts, all tasks are gone. Set "
    "'appendonly yes' and 'appendfsync always'"
)
_SNAPSHOTS_ONLY = (
    "the Redis server keeps snapshots only: when it crashes, what was written since the last one "
    "is gone. Set 'appendonly yes' and 'appendfsync always'"
)


async def examine(connection: Connection, kind: str) -> Sequence[str]:
    """Return warnings about the server behind `connection`.

    Raises:
        ConfigurationError: It cannot work.
        Exception: One of the driver's errors.
    """
    answers = await connection.ask([("INFO",), ("CONFIG", "GET", "save")])
    if isinstance(answers[0], Exception):
        raise answers[0]
    facts = _facts(answers[0])
    _require(facts, kind)
    warnings: list[str] = []
    if facts.get("aof_enabled") != "1":
        # A managed service may not tell; then there may be snapshots.
        is_secret = isinstance(answers[1], Exception) and code_of(answers[1]) != ""
        save = b"?" if is_secret or isinstance(answers[1], Exception) else _value(answers[1])
        warnings.append(_SNAPSHOTS_ONLY if save else _NOTHING_KEPT)
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        warnings.append(
            f"the Redis server may throw tasks away when memory is short (maxmemory-policy is "
            f"{policy}). Set 'maxmemory-policy noeviction'"
        )
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


def _value(answer: Sequence[bytes]) -> bytes:
    return answer[1] if len(answer) > 1 else b""

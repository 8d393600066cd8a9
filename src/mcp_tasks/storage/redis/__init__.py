"""The Redis backend, for Redis 6.2 and later and for Valkey: one server, Sentinel, or a cluster.

Every write is one script, so that it is atomic, and all calls that wait together go out at once on
one connection. `docs/backends/redis.md` says how to set the server up so that it keeps what it
acknowledges.
"""

from mcp_tasks.storage.redis.backend import RedisBackend
from mcp_tasks.storage.redis.options import RedisOptions


__all__ = ["RedisBackend", "RedisOptions"]

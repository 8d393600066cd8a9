"""Real database servers from packages: no root, no containers, on 127.0.0.1, gone when closed.

For tests, and for trying a backend out. Not for data that anybody wants to keep.
"""

from mcp_tasks.errors import ConfigurationError
from mcp_tasks.testing.servers.process import ServerProcess, free_port


__all__ = ["NAMES", "ServerProcess", "free_port", "server_named"]

NAMES = ("redis", "postgres", "dynamodb")
"""What `server_named` knows."""


def server_named(name: str) -> ServerProcess:
    """Make a server of a kind, not started yet. Its `start` says which package is missing.

    Raises:
        ConfigurationError: There is no such kind.
    """
    match name:
        case "redis":
            from mcp_tasks.testing.servers.redis import RedisServer  # noqa: PLC0415 - one of three

            return RedisServer()
        case "postgres":
            from mcp_tasks.testing.servers.postgres import PostgresServer  # noqa: PLC0415

            return PostgresServer()
        case "dynamodb":
            from mcp_tasks.testing.servers.dynamodb import MinistackServer  # noqa: PLC0415

            return MinistackServer()
        case _:
            msg = f"no server is called {name!r}; there are {', '.join(NAMES)}"
            raise ConfigurationError(msg)

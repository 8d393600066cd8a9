"""Real database servers from packages: no root, no containers, on 127.0.0.1, gone when closed.

For tests, and for trying a backend out. Not for data that anybody wants to keep.
"""

from mcp_tasks.testing.servers.process import ServerProcess, free_port


__all__ = ["ServerProcess", "free_port"]

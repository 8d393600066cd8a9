"""Tasks on a server made with the official SDK: the extension, its tools, and how they are run."""

from mcp_tasks.server.tasks import Tasks


__all__ = ["Tasks"]

"""The SQLite backend: one file, nothing to install or run beside it. The default.

`backend.py` is the six methods, `commit.py` the thread and the transactions that writes share,
`file.py` what is in the file and what its errors mean.
"""

from mcp_tasks.storage.sqlite.backend import SqliteBackend


__all__ = ["SqliteBackend"]

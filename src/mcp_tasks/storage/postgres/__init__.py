"""The PostgreSQL backend: one table, for any number of servers.

`backend.py` is the six methods, `statements.py` their SQL, `batch.py` how writers that wait share a
statement, `engine.py` what belongs to one event loop, `connections.py` the connections, `driver.py`
what is used of the driver and what its errors mean, `schema.py` the table and how it is made,
`options.py` the URL, `hints.py` LISTEN and NOTIFY.
"""

from mcp_tasks.storage.postgres.backend import NotifyingPostgresBackend, PostgresBackend
from mcp_tasks.storage.postgres.options import PostgresOptions


__all__ = ["NotifyingPostgresBackend", "PostgresBackend", "PostgresOptions"]

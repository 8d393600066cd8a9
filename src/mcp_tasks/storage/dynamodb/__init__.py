"""The DynamoDB backend: one table, for any number of servers.

`backend.py` is the six methods, `items.py` how a record becomes an item, `engine.py` what belongs
to one event loop and when a call is sent again, `driver.py` what is used of the driver and what its
errors mean, `table.py` the table and how it is made, `options.py` the URL.
"""

from mcp_tasks.storage.dynamodb.backend import BorrowedDynamoDBBackend, DynamoDBBackend
from mcp_tasks.storage.dynamodb.options import DynamoDBOptions


__all__ = ["BorrowedDynamoDBBackend", "DynamoDBBackend", "DynamoDBOptions"]

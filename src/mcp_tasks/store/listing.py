"""Pages of an owner's tasks, newest first, and the cursors between them.

A cursor is sealed: it names the owner it was made for and carries a code made with a key that all
processes of a namespace share (`@config:seal`, made by whoever needs it first). So every server can
read it, nobody can make one, and an owner cannot use another's.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from typing import TYPE_CHECKING, NamedTuple

from mcp_tasks.errors import InvalidCursorError, RecordNotFoundError
from mcp_tasks.ids import is_task_id
from mcp_tasks.store.writing import swap, translated


if TYPE_CHECKING:
    from mcp_tasks.domain.record import TaskRecord
    from mcp_tasks.storage.base import StorageBackend
    from mcp_tasks.storage.keys import Keys


_CODE_BYTES = 16


class TaskPage(NamedTuple):
    """Some tasks of an owner, newest first.

    Attributes:
        tasks: The records.
        cursor: Pass it for the next page; `None` when there is none.
        damaged: How many records of the page could not be read. They are logged, and left alone.
    """

    tasks: list[TaskRecord]
    cursor: str | None
    damaged: int = 0


class Seal:
    """Makes and opens cursors."""

    def __init__(self, backend: StorageBackend, keys: Keys) -> None:
        self._backend = backend
        self._key = keys.config("seal")
        self._secret: bytes | None = None

    async def make(self, owner: str, task_id: str) -> str:
        """Make the cursor behind `task_id`."""
        code = _code(await self._load(), owner, task_id)
        return base64.urlsafe_b64encode(code + task_id.encode("ascii")).decode("ascii").rstrip("=")

    async def open(self, owner: str, cursor: str) -> str:
        """Return the task id that a cursor names.

        Raises:
            InvalidCursorError: It was not made here, not for this owner, or is damaged.
        """
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True)
            task_id = raw[_CODE_BYTES:].decode("ascii")
        except (binascii.Error, ValueError):
            raise InvalidCursorError from None
        code = _code(await self._load(), owner, task_id)
        if not is_task_id(task_id) or not hmac.compare_digest(code, raw[:_CODE_BYTES]):
            raise InvalidCursorError
        return task_id

    async def _load(self) -> bytes:
        while self._secret is None:
            with translated():
                self._secret = await self._read()
            if self._secret is None:
                await swap(self._backend, self._key, secrets.token_bytes(32), 0, None, 5.0)
        return self._secret

    async def _read(self) -> bytes | None:
        try:
            return (await self._backend.get(self._key)).data
        except RecordNotFoundError:
            return None


def _code(secret: bytes, owner: str, task_id: str) -> bytes:
    message = f"{len(owner)}:{owner}{task_id}".encode("utf-8", "surrogatepass")
    return hmac.digest(secret, message, hashlib.sha256)[:_CODE_BYTES]

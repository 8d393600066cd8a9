"""Values beside the record: written before the record that names them, and never changed.

So a record never names a value that is not there, and a torn write cannot be. A blob that no record
came to name (a crash between, a refused transition) is removed by its expiry.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from msgspec import UNSET, Raw

from mcp_tasks.domain.record import Blob, Payload, inline
from mcp_tasks.errors import RecordFormatError, RecordNotFoundError
from mcp_tasks.ids import new_name
from mcp_tasks.store.writing import swap, translated


if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from mcp_tasks.domain.record import TaskRecord
    from mcp_tasks.storage.base import StorageBackend
    from mcp_tasks.storage.keys import Keys
    from mcp_tasks.store.config import StoreConfig


class Payloads:
    """Reads and writes the values that lie beside the records of one store."""

    def __init__(self, backend: StorageBackend, keys: Keys, config: StoreConfig) -> None:
        self._backend = backend
        self._keys = keys
        self._config = config
        self.chunk_bytes = min(config.max_chunk_bytes, backend.capabilities.max_record_bytes)
        self.inline_bytes = min(config.max_inline_bytes, self.chunk_bytes // 4)

    async def place(
        self, data: bytes, owner: str, task_id: str, expires_at: datetime, *, limit: int = 0
    ) -> Payload:
        """Make a payload of `data`: in the record up to `limit` bytes, else a blob.

        A `limit` of 0 is the configured one, and none can be over that.

        Raises:
            StoreUnavailableError: The blob could not be written. Nothing names it.
        """
        if len(data) <= min(limit or self.inline_bytes, self.inline_bytes):
            return inline(data)
        blob = await self.write(data, owner, task_id, expires_at)
        return Payload(UNSET, blob)

    async def write(self, data: bytes, owner: str, task_id: str, expires_at: datetime) -> Blob:
        """Write `data` as a blob, all chunks at once."""
        name, step = new_name(), self.chunk_bytes
        pieces = [data[at : at + step] for at in range(0, len(data), step)] or [b""]
        await asyncio.gather(
            *(
                self.write_chunk(piece, owner, task_id, name, number, expires_at)
                for number, piece in enumerate(pieces)
            )
        )
        return Blob(name, len(pieces), len(data))

    async def write_chunk(
        self,
        data: bytes,
        owner: str,
        task_id: str,
        name: str,
        number: int,
        expires_at: datetime,
    ) -> bool:
        """Create one chunk. False if one with other content lies there already."""
        key = self._keys.blob(owner, task_id, name, number)
        version, _ = await swap(self._backend, key, data, 0, expires_at, self._config.settle)
        if version is not None:
            return True
        with translated():
            return (await self._backend.get(key)).data == data

    async def read(self, payload: Payload, owner: str, task_id: str) -> bytes | Raw:
        """Return the JSON of a payload.

        Raises:
            RecordFormatError: A part of it is gone.
            StoreUnavailableError: The database did not answer.
        """
        if payload.blob is None:
            return payload.inline if isinstance(payload.inline, Raw) else b"null"
        return b"".join(await self.chunks(payload.blob, owner, task_id))

    async def chunks(self, blob: Blob, owner: str, task_id: str) -> list[bytes]:
        """Return the chunks of a blob, in order."""
        keys = [self._keys.blob(owner, task_id, blob.name, n) for n in range(blob.chunks)]
        try:
            with translated():
                found = await asyncio.gather(*(self._backend.get(key) for key in keys))
        except RecordNotFoundError as error:
            raise RecordFormatError("a part of a value beside it is missing") from error
        return [record.data for record in found]

    async def delete(self, blobs: Iterable[Blob], owner: str, task_id: str) -> None:
        """Remove blobs that no reader needs any more. What is left goes by its expiry."""
        keys = [
            self._keys.blob(owner, task_id, blob.name, number)
            for blob in blobs
            for number in range(blob.chunks)
        ]
        with translated():
            await asyncio.gather(*(self._backend.delete(key) for key in keys))


def blobs_to_run(record: TaskRecord) -> set[Blob]:
    """Name the blobs that only a run of the task needs: nobody reads them after its end."""
    payloads = [record.call.arguments]
    if record.call.input_responses is not None:
        payloads.append(record.call.input_responses)
    payloads += [entry.value for entry in record.journal.tail]
    payloads += [question.params for question in record.questions]
    return {*record.journal.sealed, *[p.blob for p in payloads if p.blob is not None]}

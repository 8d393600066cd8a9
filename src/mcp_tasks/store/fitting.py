"""Bringing a record to its size: what is large goes beside it, before the record that names it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from msgspec import UNSET, Raw
from msgspec.structs import replace

from mcp_tasks.domain import journal
from mcp_tasks.domain.codec import encode_record
from mcp_tasks.domain.record import Blob, Payload
from mcp_tasks.errors import InvalidValueError
from mcp_tasks.ids import new_name


if TYPE_CHECKING:
    from datetime import datetime

    from mcp_tasks.domain.record import Call, Question, TaskRecord
    from mcp_tasks.store.config import StoreConfig
    from mcp_tasks.store.payloads import Payloads


_MIN_INLINE = 128
"""A value that is not longer stays in its record always: a reference to it is hardly shorter."""

_BLOB = Blob("x" * 16, 10**5, 10**9)
_BESIDE = Payload(UNSET, _BLOB)
"""What a value beside a record is in it, at the longest."""


class Fitting:
    """Moves values out of records, for one store."""

    def __init__(self, payloads: Payloads, config: StoreConfig) -> None:
        self._payloads = payloads
        self._config = config

    async def fit(self, record: TaskRecord, run: str, max_bytes: int) -> tuple[TaskRecord, bytes]:
        """Bring a record to its size, and encode it: what is large goes beside it.

        Raises:
            InvalidValueError: Without all that it is still too large, or it is no JSON. Nothing was
                put beside it.
        """
        limit = self._payloads.inline_bytes
        call = record.call
        seals = record.journal.tail_size > journal.TAIL_BYTES
        parts = call.arguments.weight > limit or (
            call.input_responses is not None and call.input_responses.weight > limit
        )
        if seals or parts:
            _check_bare(record, max_bytes)
        if seals:
            record = await self._seal_journal(record, run or new_name())
        if parts:
            record = replace(record, call=await self._call_beside(record, limit))
        data = encode_record(record)
        if len(data) > max_bytes:
            _check_bare(record, max_bytes)
            record = await self._spill(record, run)
            data = encode_record(record)
        return record, data

    async def _call_beside(self, record: TaskRecord, limit: int) -> Call:
        call = record.call
        return replace(
            call,
            arguments=await self._beside(record, call.arguments, limit),
            input_responses=call.input_responses
            and await self._beside(record, call.input_responses, limit),
        )

    async def _beside(self, record: TaskRecord, payload: Payload, limit: int) -> Payload:
        """Put a value of a record beside it, if it is longer than `limit`."""
        if payload.weight <= limit:
            return payload
        data = bytes(payload.inline) if isinstance(payload.inline, Raw) else b"null"
        return await self.place(data, record.owner, record.task_id, record.created_at, limit=1)

    async def _seal_journal(self, record: TaskRecord, name: str) -> TaskRecord:
        sealed = record.journal
        size = min(journal.TAIL_BYTES, self._payloads.chunk_bytes // 2)
        for entries in journal.split(record.journal.tail, size):
            data = journal.encode_chunk(entries)
            while not await self._payloads.write_chunk(
                data,
                record.owner,
                record.task_id,
                name,
                journal.next_chunk(sealed, name),
                self.blobs_gone_at(record.created_at),
            ):
                name = new_name()  # an earlier try put other entries there
            sealed = journal.seal(sealed, name, len(data))
        return replace(record, journal=sealed)

    async def _spill(self, record: TaskRecord, run: str) -> TaskRecord:
        """Put everything of a record beside it that can lie there."""

        async def move(payload: Payload) -> Payload:
            return await self._beside(record, payload, _MIN_INLINE)

        async def move_params(question: Question) -> Question:
            return replace(question, params=await move(question.params))

        if record.journal.tail:
            record = await self._seal_journal(record, run or new_name())
        questions = await asyncio.gather(*map(move_params, record.questions))
        return replace(
            record,
            call=await self._call_beside(record, _MIN_INLINE),
            questions=tuple(questions),
            variables=record.variables and await move(record.variables),
            result=record.result and await move(record.result),
        )

    async def place(
        self, data: bytes, owner: str, task_id: str, created_at: datetime, *, limit: int = 0
    ) -> Payload:
        """Make a payload of JSON for a task: in its record, or beside it when it is large."""
        expires_at = self.blobs_gone_at(created_at)
        return await self._payloads.place(data, owner, task_id, expires_at, limit=limit)

    def blobs_gone_at(self, created_at: datetime) -> datetime:
        """Return the last moment at which anything may need what lies beside a task's record."""
        config = self._config
        return created_at + config.max_ttl + config.retention + config.grace


def _check_bare(record: TaskRecord, max_bytes: int) -> None:
    """Refuse a record that is too large even with all its values beside it, before any is placed.

    Raises:
        InvalidValueError: It is.
    """

    def beside(payload: Payload) -> Payload:
        return _BESIDE if payload.weight > _MIN_INLINE else payload

    call = record.call
    sealed = record.journal.sealed + ((_BLOB,) if record.journal.tail else ())
    bare = replace(
        record,
        call=replace(
            call,
            arguments=beside(call.arguments),
            input_responses=call.input_responses and beside(call.input_responses),
        ),
        questions=tuple(replace(q, params=beside(q.params)) for q in record.questions),
        variables=record.variables and beside(record.variables),
        result=record.result and beside(record.result),
        journal=replace(record.journal, sealed=sealed, tail=(), tail_size=0),
    )
    size = len(encode_record(bare))
    if size > max_bytes:
        problem = f"{size} bytes even without its values, {max_bytes} are allowed"
        raise InvalidValueError("the task's record", problem)

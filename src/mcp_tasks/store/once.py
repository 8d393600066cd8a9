"""One task for one idempotency key, however often and wherever the call arrives.

A caller that does not know whether its call arrived sends it again under the same key. The key of
an owner and a tool has one record, its *use*: which task it stands for, and what the arguments
were. It is created by compare-and-swap before anything else of the task, so of any number of
servers one decides the task's id.

A use says which task there is to be, not that it is there: whoever made it may be dead, or slow.
So nobody waits for anybody. Whoever finds a use without its task makes that very task, under that
id; the create of its record lets one through, and all answer with the one that is there. All writes
of a create may be made twice: a roster takes an id once, the entry for workers is the same, and the
record is created or is there.

A use of some age is not helped along any more, since its task could have been there and be gone. A
tombstone is put under the old id first, so that a create which slept through all that finds it and
looks again; then the use is swapped for one with a new id. The same happens when the task is past
its time to live: that frees the key.
"""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from mcp_tasks.domain.codec import TOMBSTONE
from mcp_tasks.errors import (
    ContentionError,
    IdempotencyKeyError,
    InvalidValueError,
    RecordFormatError,
    RecordNotFoundError,
)
from mcp_tasks.jsonio import from_json
from mcp_tasks.store.config import ANONYMOUS
from mcp_tasks.store.creation import Creation
from mcp_tasks.store.index import waits_for_a_worker
from mcp_tasks.store.writing import back_off, swap, translated


if TYPE_CHECKING:
    from mcp_tasks.domain.record import Call, Payload, Policy, TaskRecord
    from mcp_tasks.store.changes import Versioned


MAX_KEY: Final = 255
"""Characters of an idempotency key."""

MIN_ANONYMOUS_KEY: Final = 32
"""Characters of one of a caller that nobody can tell from others."""

_VISIBLE: Final = re.compile(r"[!-~]+")
_FRESH: Final = timedelta(minutes=1)
"""For how long the task of a use is made by whoever finds it missing."""


class Use(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a key stands for.

    Attributes:
        task_id: The task.
        arguments: A digest of the call's arguments.
        created_at: When the key came to stand for this task.
        ttl: How long the task lives from then on, unless something extends it.
    """

    task_id: str
    arguments: str
    created_at: datetime
    ttl: timedelta


_encoder = msgspec.json.Encoder(order="sorted")
_decoder = msgspec.json.Decoder(Use)


def decode_use(data: bytes) -> Use | None:
    """Decode what a key stands for; `None` if it is damaged."""
    try:
        return _decoder.decode(data)
    except msgspec.DecodeError:
        return None


def check_key(owner: str, key: Any) -> str:
    """Return an idempotency key, if it is one.

    For `anonymous` the key opens the task as its id does, so it must not be guessed either.

    Raises:
        InvalidValueError: Not 1 to 255 visible ASCII characters; or less than 32 for `anonymous`.
    """
    what = "the idempotency key"
    if not isinstance(key, str) or not _VISIBLE.fullmatch(key):
        raise InvalidValueError(what, "it is not a string of visible ASCII characters")
    if len(key) > MAX_KEY:
        raise InvalidValueError(what, f"{len(key)} characters, {MAX_KEY} are allowed")
    if owner == ANONYMOUS and len(key) < MIN_ANONYMOUS_KEY:
        problem = (
            f"{len(key)} characters. Without authentication whoever knows the key gets the task, "
            f"so it needs {MIN_ANONYMOUS_KEY} that nobody guesses, such as a random UUID"
        )
        raise InvalidValueError(what, problem)
    return key


class CreationOnce(Creation):
    """Creation, and the way to make a task once for a key."""

    async def find_once(
        self, owner: str, tool: str, key: str, arguments: Payload
    ) -> TaskRecord | None:
        """Return the task that an idempotency key stands for, if there is one.

        Raises:
            InvalidValueError: It is no key.
            IdempotencyKeyError: It stands for a call with other arguments.
            StoreUnavailableError: The database did not answer.
        """
        check_key(owner, key)
        use, _ = await self._use(self._place(owner, tool, key))
        found = None if use is None else await self._task(owner, use)
        if use is None or found is None or self._is_past(found.record):
            return None
        return await self._again(use, found, _digest(arguments))

    async def create_once(
        self,
        owner: str,
        key: str,
        call: Call,
        *,
        policy: Policy | None = None,
        ttl: timedelta | None = None,
        poll_interval: timedelta | None = None,
        by: str | None = None,
    ) -> TaskRecord:
        """Create a task that waits for any worker, or return the one that the key stands for.

        Safe to call again, and by several at once in any processes: all get one task, whatever
        became of it meanwhile. The key is free again when that task is past its time to live.

        Args:
            owner: As in `create`. The key is one of this owner's, for this tool.
            key: The idempotency key.
            call: As in `create`.
            policy: As in `create`.
            ttl: As in `create`.
            poll_interval: As in `create`.
            by: As in `create`.

        Raises:
            InvalidValueError: It is no key. No task was created.
            IdempotencyKeyError: It stands for a call with other arguments. No task was created.
            QuotaExceededError: No task was created; the key may be used again.
            StoreUnavailableError: With `happened` None there may be a task; the same key finds it.
            ContentionError: As in `change`.
        """
        check_key(owner, key)
        place, arguments = self._place(owner, call.tool, key), _digest(call.arguments)
        use: Use | None = None
        version = 0  # as if the key were new, which the write finds out
        if self.quota.is_full(owner):
            use, version = await self._use(place)
        for tries in range(self.config.max_tries):
            record = self._new(owner, call, policy, ttl, poll_interval, by)
            if use is None:
                self._refuse_if_full(owner)
                use = Use(record.task_id, arguments, record.created_at, record.ttl)
                version = await self._set_use(place, use, version)
                if not version:
                    await back_off(tries)
                    use, version = await self._use(place)
                    continue
            else:
                found = await self._task(owner, use)
                if found is not None and not self._is_past(found.record):
                    return await self._again(use, found, arguments)
                if found is not None or not self._is_fresh(use):
                    if found is not None or await self._bury(owner, use):
                        use = None
                    continue
                _compare(use, arguments)
                record = replace(
                    record,
                    task_id=use.task_id,
                    created_at=use.created_at,
                    updated_at=use.created_at,
                    ttl=use.ttl,
                )
            written = await self.make(record)
            if written is not None:
                return written.record
            if await self._task(owner, use) is None:  # a tombstone
                use = None
        raise ContentionError(self.config.max_tries)

    async def _again(self, use: Use, found: Versioned, arguments: str) -> TaskRecord:
        """Return a task that is there, once it is sure that a worker finds it."""
        _compare(use, arguments)
        record = found.record
        if waits_for_a_worker(record) and record.attempt == 0:
            # Its record is there, but the entry beside it may not be: they were written together.
            await self.index.put_ready(record, 1)
            self.changes.publish(found)
        return record

    async def _task(self, owner: str, use: Use) -> Versioned | None:
        return await self.find(owner, use.task_id)

    def _is_past(self, record: TaskRecord) -> bool:
        return self.clock.now() >= record.deadline

    def _is_fresh(self, use: Use) -> bool:
        """Tell whether the task of a use cannot have been there and be gone again."""
        return abs(self.clock.now() - use.created_at) < min(_FRESH, use.ttl)

    async def _bury(self, owner: str, use: Use) -> bool:
        """Make sure that the task of a use never comes to be. False if it did meanwhile."""
        # When the tombstone goes, the record of a create that slept till then is long expired.
        expires_at = max(
            self.clock.now() + self.config.grace,
            use.created_at + use.ttl + 2 * self.config.grace,
        )
        key = self.keys.task(owner, use.task_id)
        await swap(self.backend, key, TOMBSTONE, 0, expires_at, self.config.settle)
        return await self._task(owner, use) is None

    # --- uses ------------------------------------------------------------------------------------

    def _place(self, owner: str, tool: str, key: str) -> str:
        text = f"{len(tool)}:{tool}{key}".encode("utf-8", "surrogatepass")
        digest = base64.b32encode(hashlib.sha256(text).digest()).decode("ascii")
        return self.keys.use(owner, digest.rstrip("=").lower())

    async def _use(self, place: str) -> tuple[Use | None, int]:
        try:
            with translated():
                found = await self.backend.get(place)
        except RecordNotFoundError:
            return None, 0
        use = decode_use(found.data)
        if use is None:
            raise RecordFormatError("what its idempotency key stands for is damaged")
        return use, found.version

    async def _set_use(self, place: str, use: Use, version: int) -> int:
        """Let a key stand for a task; 0 if somebody was faster."""
        gone_at = self.fitting.blobs_gone_at(use.created_at)
        data = _encoder.encode(use)
        settle = self.config.settle
        committed, _ = await swap(self.backend, place, data, version, gone_at, settle)
        return committed or 0


def _compare(use: Use, arguments: str) -> None:
    if use.arguments != arguments:
        raise IdempotencyKeyError


def _digest(arguments: Payload) -> str:
    """Return the same text for the same arguments, in whatever order their names came."""
    if not isinstance(arguments.inline, Raw):
        raise InvalidValueError("arguments", "they lie beside another task")
    return hashlib.sha256(_encoder.encode(from_json(arguments.inline))).hexdigest()

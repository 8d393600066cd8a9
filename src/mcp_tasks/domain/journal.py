"""The journal: what a resumable task has behind it, and must not do or ask again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from mcp_tasks.domain.record import Blob, Entry, Journal
from mcp_tasks.errors import JournalFullError


if TYPE_CHECKING:
    from collections.abc import Iterable


TAIL_BYTES = 16 * 1024
"""A tail of this size is sealed into a blob with the next entry."""

_ENTRY_OVERHEAD = 48

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(tuple[Entry, ...])


def append(
    journal: Journal, entries: Iterable[Entry], *, max_entries: int, max_bytes: int
) -> Journal:
    """Return `journal` with `entries` behind what it has; those it has already are left out.

    Raises:
        JournalFullError: It would hold more than `max_entries`, or values of more than `max_bytes`.
    """
    known = {(entry.kind, entry.key) for entry in journal.tail}
    fresh = [entry for entry in entries if (entry.kind, entry.key) not in known]
    if not fresh:
        return journal
    count = journal.count + len(fresh)
    if count > max_entries:
        raise JournalFullError("entries", max_entries)
    size = journal.size + sum(entry.value.size for entry in fresh)
    if size > max_bytes:
        raise JournalFullError("bytes", max_bytes)
    return Journal(
        sealed=journal.sealed,
        tail=(*journal.tail, *fresh),
        tail_size=journal.tail_size + sum(_weight(entry) for entry in fresh),
        count=count,
        size=size,
    )


def _weight(entry: Entry) -> int:
    value = 64 if entry.value.blob is not None else entry.value.size
    return _ENTRY_OVERHEAD + len(entry.key) + len(entry.what) + value


def encode_chunk(entries: tuple[Entry, ...]) -> bytes:
    """Encode entries as the chunk of a blob."""
    return _encoder.encode(entries)


def decode_chunk(data: bytes) -> tuple[Entry, ...]:
    """Decode what `encode_chunk` made."""
    return _decoder.decode(data)


def split(entries: tuple[Entry, ...], size: int) -> list[tuple[Entry, ...]]:
    """Divide entries into runs of about `size` bytes each, in order; no entry is divided."""
    runs: list[list[Entry]] = [[]]
    room = size
    for entry in entries:
        weight = _weight(entry)
        if weight > room and runs[-1]:
            runs.append([])
            room = size
        runs[-1].append(entry)
        room -= weight
    return [tuple(run) for run in runs]


def seal(journal: Journal, name: str, size: int) -> Journal:
    """Return `journal` with its tail moved into the next chunk of blob `name`, of `size` bytes."""
    last = journal.sealed[-1] if journal.sealed else None
    if last is not None and last.name == name:
        sealed = (*journal.sealed[:-1], Blob(name, last.chunks + 1, last.size + size))
    else:
        sealed = (*journal.sealed, Blob(name, 1, size))
    return replace(journal, sealed=sealed, tail=(), tail_size=0)


def next_chunk(journal: Journal, name: str) -> int:
    """Return the number that the next chunk of blob `name` has."""
    last = journal.sealed[-1] if journal.sealed else None
    return last.chunks if last is not None and last.name == name else 0

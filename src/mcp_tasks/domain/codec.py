"""Records as bytes, over releases.

- A release reads a new format one version before it writes it.
- Fields that this release does not know survive a rewrite.
- A release older than a record's `min_writer` may read it but never write it.
- A body whose first byte is not `{` is a sealed envelope (kept free for encryption and
  compression); this release knows none.

A tombstone is a record-shaped refusal: it lies under a task's key so that a create which is still
on its way fails, and reads as if nothing were there.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from mcp_tasks.domain.record import FORMAT, TaskRecord
from mcp_tasks.errors import InvalidValueError, RecordFormatError


TOMBSTONE = b'{"tombstone":true}'

_decoder = msgspec.json.Decoder(TaskRecord)
_fields = msgspec.json.Decoder(dict[str, Raw])
_encoder = msgspec.json.Encoder()
_KNOWN = frozenset(TaskRecord.__struct_fields__)


def encode_record(record: TaskRecord) -> bytes:
    """Encode a record. The same record gives the same bytes.

    What comes out can be decoded again: a value of a wrong type, which the encoder would take and
    the decoder refuse, must not make the task unreadable for good.

    Raises:
        RecordFormatError: The record may only be written by a newer release.
        InvalidValueError: A text in it is no Unicode, or a value is of a wrong type.
    """
    if record.min_writer > FORMAT:
        problem = f"it wants a release that writes format {record.min_writer}, this one {FORMAT}"
        raise RecordFormatError(problem)
    try:
        body = _encoder.encode(
            msgspec.structs.replace(record, unknown={}) if record.unknown else record
        )
        _decoder.decode(body)
    except UnicodeEncodeError:
        raise InvalidValueError("the task's record", "a string holds a lone surrogate") from None
    except (TypeError, OverflowError, msgspec.DecodeError) as error:
        raise InvalidValueError("the task's record", str(error)) from error
    if not record.unknown:
        return body
    extra = _encoder.encode(record.unknown)
    return body[:-1] + b"," + extra[1:]


def decode_record(data: bytes) -> TaskRecord | None:
    """Decode a record; `None` for a tombstone.

    Raises:
        RecordFormatError: The bytes are damaged, or sealed in a way this release does not know.
    """
    if data == TOMBSTONE:
        return None
    if data[:1] != b"{":
        raise RecordFormatError("it is sealed in a way that this release does not know")
    try:
        record = _decoder.decode(data)
        if record.format <= FORMAT:
            return record
        fields = _fields.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecordFormatError(f"it is damaged ({error or type(error).__name__})") from error
    unknown = {name: Raw(bytes(raw)) for name, raw in fields.items() if name not in _KNOWN}
    return msgspec.structs.replace(record, unknown=unknown)

"""How a record becomes an item of the table, and back.

`PK` and `SK` are the two parts of the key. `expires_at` is for DynamoDB, which removes an item some
time after that second; `expires_ms` is for readers and writers, to whom the item does not exist
from that millisecond on, removed or not. Items that do not expire have neither.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

from mcp_tasks.clock import epoch_ms
from mcp_tasks.errors import InvalidKeyError, StorageCorruptError
from mcp_tasks.storage.base import StoredRecord
from mcp_tasks.storage.keys import MAX_KEY_BYTES, split


if TYPE_CHECKING:
    from collections.abc import Mapping


Item: TypeAlias = "Mapping[str, Any]"

OWNER = "OWNER#"
TASK = "TASK#"
NAMES = {"#v": "version", "#d": "data"}  # both are words that expressions keep for themselves
# The service counts names and values of an item together, 400 KB at most. Beside `data`: the six
# names, both fronts, the longest key, and three numbers of up to 21 bytes.
_ITEM_BYTES = 400 * 1024
_BESIDE = len("PKSKversiondataexpires_atexpires_ms" + OWNER + TASK) + MAX_KEY_BYTES + 3 * 21
MAX_RECORD_BYTES = (_ITEM_BYTES - _BESIDE) // 1024 * 1024


def key_of(key: str) -> dict[str, Any]:
    """Return the primary key under which `key` lies.

    Raises:
        InvalidKeyError: It is no key.
    """
    partition, sort = split(key)
    return {"PK": {"S": OWNER + partition}, "SK": {"S": TASK + sort}}


def check_text(text: str) -> None:
    """Refuse what is no text in UTF-8.

    Raises:
        InvalidKeyError: It is not.
    """
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidKeyError(text, "it is not text") from None


def number(value: int) -> dict[str, str]:
    """Return a number as the service takes it."""
    return {"N": str(value)}


def ms_of(moment: datetime) -> int:
    """Return a time in milliseconds since 1970.

    Raises:
        TypeError: It has no time zone.
    """
    if moment.tzinfo is None:
        msg = "a time needs a time zone"
        raise TypeError(msg)
    try:
        return epoch_ms(moment.astimezone(UTC))
    except OverflowError:
        return epoch_ms(datetime.max.replace(tzinfo=UTC))


def expiry_of(expires_at: datetime | None) -> dict[str, Any]:
    """Return the attributes that say when an item ends; none if it does not."""
    if expires_at is None:
        return {}
    ms = ms_of(expires_at)
    return {"expires_at": number(-(-ms // 1000)), "expires_ms": number(ms)}


def record_of(item: Item, key: str) -> StoredRecord:
    """Return the record that an item holds.

    Raises:
        StorageCorruptError: The item was not written by a backend.
    """
    try:
        return StoredRecord(key, bytes(item["data"]["B"]), int(item["version"]["N"]))
    except (KeyError, ValueError, TypeError):
        raise StorageCorruptError(
            f"the item of {key!r}", "it has no 'version' that is a number, or no binary 'data'"
        ) from None


def version_of(item: Item, now_ms: int) -> int:
    """Return the version that an item counts as at a time: 0 when it has expired."""
    if not item or is_expired(item, now_ms):
        return 0
    return int(item["version"]["N"])


def is_expired(item: Item, now_ms: int) -> bool:
    """Tell whether an item does not exist any more at a time."""
    ms = item.get("expires_ms")
    return ms is not None and int(ms["N"]) <= now_ms

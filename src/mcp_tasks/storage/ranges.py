"""Listing by prefix as one range of keys, for backends that keep their keys sorted.

Everything is compared by code point, which is also the byte order of UTF-8.
"""

from __future__ import annotations

from typing import NamedTuple

from mcp_tasks.storage.keys import split_prefix


_LAST = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)


class KeyRange(NamedTuple):
    """The keys `first <= key < end`; empty when `end <= first`."""

    first: str
    end: str


def listing_range(prefix: str, *, limit: int, after: str | None, reverse: bool) -> KeyRange:
    """Turn the arguments of `list_by_prefix` into the range of keys that they leave.

    Raises:
        InvalidKeyError: `prefix` does not hold exactly one colon, or has an empty partition.
        ValueError: `limit` is less than 1.
    """
    split_prefix(prefix)
    if limit < 1:
        msg = f"a page holds at least 1 record, not {limit}"
        raise ValueError(msg)
    first, end = prefix, _behind(prefix)
    if after is not None:
        if reverse:
            end = min(end, after)
        else:
            # No string lies between a key and the same key with a NUL behind it.
            first = max(first, after + "\0")
    return KeyRange(first, end)


def _behind(prefix: str) -> str:
    """Return the least string above all that begin with `prefix`, which holds a colon."""
    # The colon, at the latest, can be raised.
    kept = prefix.rstrip(chr(_LAST))
    code = ord(kept[-1]) + 1
    if code in _SURROGATES:
        code = _SURROGATES.stop
    return kept[:-1] + chr(code)

"""The one gate by which values enter a record: what is JSON everywhere, and nothing else.

The host SDK lets NaN, lone surrogates, integers of thousands of digits and arrays 900 deep through;
databases and encoders then disagree about them. So whatever enters a record (arguments, results,
answers, variables, step values) passes `to_json` first, and gets the same answer on every backend.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from mcp_tasks.errors import InvalidValueError


MAX_DEPTH = 64
MAX_INTEGER = 2**63 - 1
MIN_INTEGER = -(2**63)

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()


def to_json(
    value: object, *, what: str, max_bytes: int, max_depth: int = MAX_DEPTH, max_string: int = 0
) -> bytes:
    """Encode `value` as compact UTF-8 JSON, or refuse it.

    Args:
        value: Dictionaries with string keys, lists, tuples (which become lists), strings, numbers,
            booleans and `None`.
        what: How the error names the value, such as "arguments".
        max_bytes: The longest encoding, in bytes; equal is allowed.
        max_depth: How deep containers may nest; a plain value is depth 0.
        max_string: The longest string value in UTF-8 bytes; 0 for no limit of its own.

    Raises:
        InvalidValueError: NaN or an infinity, an integer beyond 64 bits, a lone surrogate, a type
            or key that JSON does not have, too deep, too large.
    """
    _check(value, what, max_depth, max_string)
    try:
        encoded = _encoder.encode(value)
    except UnicodeEncodeError:
        raise InvalidValueError(what, "a string holds a lone surrogate") from None
    if len(encoded) > max_bytes:
        problem = f"{len(encoded)} bytes of JSON, {max_bytes} are allowed"
        raise InvalidValueError(what, problem)
    return encoded


def from_json(data: bytes | msgspec.Raw) -> Any:
    """Decode what `to_json` made."""
    return _decoder.decode(data)


def _check(value: object, what: str, room: int, max_string: int) -> None:
    kind = type(value)
    if kind is str:
        if max_string and len(value) * 4 > max_string:  # type: ignore[arg-type]
            _check_length(value, what, max_string)  # type: ignore[arg-type]
    elif kind is dict:
        if room <= 0:
            raise InvalidValueError(what, "nested too deeply")
        for name, item in value.items():  # type: ignore[attr-defined]
            if type(name) is not str:
                problem = f"a key of type {type(name).__name__}, JSON has only strings"
                raise InvalidValueError(what, problem)
            _check(item, what, room - 1, max_string)
    elif kind is list or kind is tuple:
        if room <= 0:
            raise InvalidValueError(what, "nested too deeply")
        for item in value:  # type: ignore[attr-defined]
            _check(item, what, room - 1, max_string)
    elif value is None or kind is bool:
        pass
    elif kind is int:
        if not MIN_INTEGER <= value <= MAX_INTEGER:  # type: ignore[operator]
            raise InvalidValueError(what, "an integer beyond 64 bits")
    elif kind is float:
        if not math.isfinite(value):  # type: ignore[arg-type]
            raise InvalidValueError(what, "NaN and infinities are not JSON")
    elif isinstance(value, str | int | float | dict | list | tuple):
        _check(_plain(value), what, room, max_string)
    else:
        raise InvalidValueError(what, f"a value of type {kind.__name__} is not JSON")


def _plain(value: object) -> object:
    """Strip a subclass (an `IntEnum`, a `defaultdict`) down to the JSON type that it is."""
    for base in (str, int, float, dict, list, tuple):
        if isinstance(value, base):
            return base(value)  # type: ignore[call-overload]
    return value


def _check_length(value: str, what: str, max_string: int) -> None:
    size = len(value.encode("utf-8", "surrogatepass"))
    if size > max_string:
        raise InvalidValueError(what, f"a string of {size} bytes, {max_string} are allowed")

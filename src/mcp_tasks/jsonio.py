"""The one gate by which values enter a record: what is JSON everywhere, and nothing else.

The host SDK lets NaN, lone surrogates, integers of thousands of digits and arrays 900 deep through;
databases and encoders then disagree about them. So whatever enters a record (arguments, results,
answers, variables, step values) passes `to_json` first, and gets the same answer on every backend.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import Any, cast

import msgspec

from mcp_tasks.errors import InvalidValueError


MAX_DEPTH = 64
MAX_INTEGER = 2**63 - 1
MIN_INTEGER = -(2**63)

_JSON_TYPES: tuple[type[Any], ...] = (str, int, float, dict, list, tuple)
_ALWAYS_FINE: frozenset[type[Any]] = frozenset((str, bool, type(None)))
_NONE: frozenset[type[Any]] = frozenset()


def _plain(value: Any) -> Any:
    """Strip a subclass (a `numpy.float64`, a `defaultdict`) down to the JSON type that it is."""
    if isinstance(value, Enum):
        return value.value
    for base in _JSON_TYPES:
        if isinstance(value, base):
            return base(value)
    raise NotImplementedError  # `_check` lets nothing else through


_encoder = msgspec.json.Encoder(enc_hook=_plain)
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


def _check(value: Any, what: str, room: int, max_string: int) -> None:
    # Most values are strings in flat containers: those are passed without a call of their own.
    fine = _NONE if max_string else _ALWAYS_FINE
    kind = cast("type[Any]", type(value))
    if kind is str:
        if max_string and len(value) * 4 > max_string:
            _check_length(value, what, max_string)
    elif kind is dict:
        if room <= 0:
            raise InvalidValueError(what, "nested too deeply")
        for name, item in value.items():
            if type(name) is not str:
                problem = f"a key of type {type(name).__name__}, JSON has only strings"
                raise InvalidValueError(what, problem)
            if type(item) not in fine:
                _check(item, what, room - 1, max_string)
    elif kind is list or kind is tuple:
        if room <= 0:
            raise InvalidValueError(what, "nested too deeply")
        for item in value:
            if type(item) not in fine:
                _check(item, what, room - 1, max_string)
    elif value is None or kind is bool:
        pass
    elif kind is int:
        if not MIN_INTEGER <= value <= MAX_INTEGER:
            raise InvalidValueError(what, "an integer beyond 64 bits")
    elif kind is float:
        if not math.isfinite(value):
            raise InvalidValueError(what, "NaN and infinities are not JSON")
    elif isinstance(value, _JSON_TYPES):
        _check(_plain(value), what, room, max_string)
    else:
        raise InvalidValueError(what, f"a value of type {kind.__name__} is not JSON")


def _check_length(value: str, what: str, max_string: int) -> None:
    size = len(value.encode("utf-8", "surrogatepass"))
    if size > max_string:
        raise InvalidValueError(what, f"a string of {size} bytes, {max_string} are allowed")

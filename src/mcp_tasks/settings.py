"""The types of settings, checked where a setting is given.

A type checker says the same, but settings are written by people without one, too. What passes here
with a wrong type would be found by the first task, in words that name no setting.
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Final

from mcp_tasks.errors import ConfigurationError


_WORDS: Final[dict[type, str]] = {
    bool: "True or False",
    int: "a whole number",
    float: "a finite number",
    str: "a string",
    timedelta: "a timedelta, such as timedelta(hours=2)",
}


def check_type(name: str, value: object, kind: type, *, optional: bool = False) -> None:
    """Refuse a setting of a wrong type.

    A `bool` is no number here, and a whole number will do where a `float` is wanted.

    Args:
        name: How the error names the setting, such as `StoreConfig.max_active`.
        value: What was given.
        kind: What it has to be: `bool`, `int`, `float`, `str`, `timedelta` or a class of ours.
        optional: `None` will do, too.

    Raises:
        ConfigurationError: It is something else. Names the setting, the value and what is wanted.
    """
    if value is None and optional:
        return
    if kind is float:
        fits = isinstance(value, int | float) and -math.inf < value < math.inf
    else:
        fits = isinstance(value, kind)
    if not fits or (isinstance(value, bool) and kind is not bool):
        wanted = _WORDS.get(kind, f"a {kind.__name__}")
        raise ConfigurationError(f"{name} is {value!r}; it must be {wanted}")

"""Identifiers: task ids sorted by creation and not to be guessed, and short random names.

A task id is 36 characters of lower-case base32 (Crockford's alphabet, so that they sort as their
bits do): 10 for 48 bits of milliseconds since 1970, 26 for 130 random bits.

Spec: 2026-07-28 tasks, T-089 (no third party can guess an id). The time prefix is ours.
"""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

from mcp_tasks.clock import epoch_ms, from_epoch_ms


if TYPE_CHECKING:
    from datetime import datetime


_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]
_LETTERS = frozenset(_ALPHABET)
_LETTER_OF_BYTE = (_ALPHABET * 8).encode("ascii")
TASK_ID_LENGTH = 36
SHORT_ID_LENGTH = 16


def new_task_id(now: datetime) -> str:
    """Make a task id: unguessable, never made twice, sorted by `now` to the millisecond."""
    ms = epoch_ms(now)
    moment = "".join([_PAIRS[(ms >> shift) & 1023] for shift in (40, 30, 20, 10, 0)])
    return moment + _letters(os.urandom(26))


def moment_of(task_id: str) -> datetime:
    """Return when a task id was made, as its maker's clock had it."""
    ms = 0
    for letter in task_id[:10]:
        ms = ms << 5 | _ALPHABET.index(letter)
    return from_epoch_ms(ms)


def is_task_id(text: str) -> bool:
    """Tell whether `text` has the form of a task id, so that other text costs no look-up."""
    return len(text) == TASK_ID_LENGTH and _LETTERS.issuperset(text)


def short(task_id: str) -> str:
    """Return what of a task's id may be shown: enough to find it by, too little to open it with.

    Without authentication the id is all that protects a task. Left out are 100 random bits.
    """
    return task_id[:SHORT_ID_LENGTH]


# Names have to be unique, not secret, and each one from the system would be a call of its own. The
# generator is ours alone, so that a program that seeds `random` does not make two workers one.
_names = random.Random()  # noqa: S311
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_names.seed)


def new_name() -> str:
    """Make a random name of 16 characters (80 bits): a worker's incarnation, a blob, a write.

    Unique, also across forks, but not secret: whoever sees enough of them can tell the next.
    """
    return _letters(_names.randbytes(16))


def _letters(random_bytes: bytes) -> str:
    # 256 is a multiple of 32, so every letter is equally likely: 5 bits of each random byte count.
    return random_bytes.translate(_LETTER_OF_BYTE).decode("ascii")

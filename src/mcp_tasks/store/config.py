"""The limits and times of a store, in one frozen table."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from mcp_tasks.errors import ConfigurationError
from mcp_tasks.settings import check_type


ANONYMOUS = "anonymous"
"""The owner of all callers that nobody can tell apart. The task's id is then its only key."""

LOCAL = "local"
"""The owner of calls from the same machine's user: in process, or over stdio."""

_CENTURY = timedelta(days=36_525)
_KIB = 1024
_MIB = 1024 * _KIB
_LEAST_HEAD = 4 * _KIB


@dataclass(frozen=True, kw_only=True)
class StoreConfig:
    """Limits and times. All of them hold for every process that shares the store.

    Attributes:
        default_ttl: How long a task lives, from its creation, when nothing else is asked for.
        max_ttl: The longest that may be asked for; also what asking a question extends to.
        retention: How long an outcome stays readable after the end; the task's ttl if smaller.
        grace: How long a task that was not finished in time is still shown as failed.
        poll_interval: What clients are told to wait between polls.
        max_active: Tasks of one owner that have not ended.
        max_active_anonymous: The same for all anonymous callers together.
        max_payload_bytes: Arguments, a result or an answer, as JSON.
        max_inline_bytes: Larger values go beside the record.
        max_head_bytes: The record without what lies beside it.
        max_chunk_bytes: One piece of what lies beside it.
        max_variables_bytes: All variables together, as JSON.
        max_variable_depth: Containers in a variable's value; a plain value is 0.
        max_string_bytes: One string in a variable, as UTF-8.
        max_questions: Unanswered at once.
        max_questions_ever: Over the life of a task.
        max_steps: Entries of a journal.
        max_journal_bytes: Their values.
        max_tries: Attempts at one compare-and-swap under contention.
        page_size: Tasks in a page of a list unless asked otherwise.
        max_page_size: The most in a page.
        settle: Seconds that a request waits for a write whose outcome is unknown.
    """

    default_ttl: timedelta = timedelta(hours=24)
    max_ttl: timedelta = timedelta(days=7)
    retention: timedelta = timedelta(hours=24)
    grace: timedelta = timedelta(hours=1)
    poll_interval: timedelta = timedelta(seconds=1)
    max_active: int = 100
    max_active_anonymous: int = 1_000
    max_payload_bytes: int = 4 * _MIB
    max_inline_bytes: int = 4 * _KIB
    max_head_bytes: int = 32 * _KIB
    max_chunk_bytes: int = 256 * _KIB
    max_variables_bytes: int = _MIB
    max_variable_depth: int = 10
    max_string_bytes: int = 64 * _KIB
    max_questions: int = 64
    max_questions_ever: int = 1_000
    max_steps: int = 10_000
    max_journal_bytes: int = 64 * _MIB
    max_tries: int = 16
    page_size: int = 50
    max_page_size: int = 500
    settle: float = 10.0

    def __post_init__(self) -> None:
        """Refuse settings that contradict one another.

        Raises:
            ConfigurationError: A time or limit is not of its type or not positive, the head has no
                room for a task, the default ttl is over the maximum, or the maximum is over a
                hundred years.
        """
        for name, value in vars(self).items():
            default: object = getattr(StoreConfig, name)
            check_type(f"StoreConfig.{name}", value, type(default))
            if value <= (timedelta(0) if isinstance(value, timedelta) else 0):
                raise ConfigurationError(f"StoreConfig.{name} is {value!r}; it must be positive")
        if self.max_head_bytes < _LEAST_HEAD:
            raise ConfigurationError(
                f"StoreConfig.max_head_bytes is {self.max_head_bytes}; it must be {_LEAST_HEAD} or "
                "more, or no task has room"
            )
        if self.default_ttl > self.max_ttl:
            raise ConfigurationError(
                f"StoreConfig.default_ttl ({self.default_ttl}) is over max_ttl ({self.max_ttl})"
            )

        if self.max_ttl > _CENTURY:
            raise ConfigurationError(f"StoreConfig.max_ttl is {self.max_ttl}, over {_CENTURY}")

    def max_active_of(self, owner: str) -> int:
        """Return how many active tasks `owner` may have."""
        return self.max_active_anonymous if owner == ANONYMOUS else self.max_active

"""Errors: one tree, plain words, and nothing that gets lost on the way."""

from __future__ import annotations

import copy
import inspect
import pickle
import re

import pytest

from mcp_tasks import errors
from mcp_tasks.domain.status import TaskStatus


MADE: list[errors.MCPTasksError] = [
    errors.ConfigurationError("it cannot work"),
    errors.RecordNotFoundError("a:b"),
    errors.VersionConflictError("a:b", 3, 5),
    errors.RecordTooLargeError("a:b", 20, 10),
    errors.InvalidKeyError("ab", "no colon"),
    errors.OutcomeUnknownError("a:b", "time is up"),
    errors.StorageUnavailableError("it is away"),
    errors.StorageFullError("disk", "no room"),
    errors.StorageReadOnlyError("file", "mode 444"),
    errors.StorageCorruptError("file", "no header"),
    errors.StorageFormatError("file", 3, 2),
    errors.BackendClosedError(),
    errors.TaskNotFoundError(),
    errors.InvalidTransitionError(TaskStatus.WORKING, TaskStatus.WORKING),
    errors.TaskTerminalError(TaskStatus.FAILED, TaskStatus.WORKING),
    errors.TaskExpiredError(),
    errors.NotReadyError(TaskStatus.WORKING),
    errors.QuotaExceededError(100),
    errors.InvalidValueError("the result", "too large"),
    errors.VariablesTooLargeError(20, 10),
    errors.InvalidAnswerError("q", "Name", 2),
    errors.InvalidTtlError(-1.0, 1000.0),
    errors.InvalidCursorError(),
    errors.QuestionKeyError("q"),
    errors.JournalMismatchError("k", "load", "save"),
    errors.IdempotencyKeyError(),
    errors.OwnerActiveError(3),
    errors.JournalFullError("steps", 10),
    errors.LeaseLostError(2),
    errors.NotDurableError("task.elicit"),
    errors.ClientCapabilityError("elicitation"),
    errors.ContentionError(16),
    errors.RecordFormatError("it is damaged"),
    errors.StoreUnavailableError(happened=None),
    errors.TaskCancelledError("01m88", "by its owner"),
    errors.TaskUnreachableError("mcp-task:1:01m88", 60.0, "Connection closed"),
    errors.InvalidHandleError("it names no task"),
]
ids = [type(error).__name__ for error in MADE]


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (errors.InvalidKeyError("ab", "no colon"), "nothing was read or written. A key is"),
        (errors.NotReadyError("working"), "Only a 'completed' one has"),
        (errors.JournalFullError("entries", 10), "or raise StoreConfig.max_steps"),
        (errors.JournalFullError("bytes", 10), "or raise StoreConfig.max_journal_bytes"),
        (errors.LeaseLostError(2), "Stop working on it"),
        (errors.RecordFormatError("it is damaged"), "restore it from a backup"),
    ],
)
def test_a_text_says_what_to_do(error: errors.MCPTasksError, remedy: str) -> None:
    """Who reads it has no page at hand."""
    assert remedy in str(error)


def test_every_error_is_here() -> None:
    """A new class is tested too."""
    abstract = {errors.MCPTasksError, errors.StorageError, errors.TaskError}
    known = {
        value
        for value in vars(errors).values()
        if inspect.isclass(value) and issubclass(value, errors.MCPTasksError)
    }

    assert known - abstract == {type(error) for error in MADE}


def test_the_tree_in_the_documentation_is_the_tree() -> None:
    """It is what people read first."""
    documented = re.findall(r"(?:^|─ )(\w+Error)\b", errors.__doc__ or "", re.MULTILINE)

    classes = {cls for error in MADE for cls in type(error).__mro__}
    assert sorted(documented) == sorted(
        cls.__name__ for cls in classes if cls.__module__ == errors.__name__
    )


@pytest.mark.parametrize("error", MADE, ids=ids)
def test_an_error_survives_a_pickle_and_a_copy(error: errors.MCPTasksError) -> None:
    """It crosses processes and thread pools, with its attributes and its words."""
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301 - our own
        assert type(other) is type(error)
        assert (other.args, str(other), vars(other)) == (error.args, str(error), vars(error))


@pytest.mark.parametrize("error", MADE, ids=ids)
def test_an_error_says_something_in_plain_words(error: errors.MCPTasksError) -> None:
    """Starting small, for it is part of a longer sentence, and never in the notation of an enum."""
    text = str(error)

    assert text
    assert not text[0].isupper()
    assert "<" not in text


def test_what_a_client_did_wrong_and_what_we_did_have_their_codes() -> None:
    """The code of each cause reaches the wire."""
    codes = {
        type(error).__name__: error.code for error in MADE if isinstance(error, errors.TaskError)
    }

    assert {name for name, code in codes.items() if code == errors.INVALID_PARAMS} == {
        "TaskNotFoundError",
        "InvalidTransitionError",
        "TaskTerminalError",
        "TaskExpiredError",
        "NotReadyError",
        "InvalidValueError",
        "VariablesTooLargeError",
        "InvalidAnswerError",
        "InvalidTtlError",
        "InvalidCursorError",
        "IdempotencyKeyError",
    }
    assert set(codes.values()) == {-32602, -32603, -32021}

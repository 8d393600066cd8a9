"""Every error of the library, in one tree.

```
MCPTasksError
├── StorageError                 a backend says this; the store translates it in one place
│   ├── RecordNotFoundError          no such key (or it has expired)
│   ├── VersionConflictError         the record changed since it was read
│   ├── RecordTooLargeError          more bytes than the database takes
│   ├── InvalidKeyError              not `partition:sort`, or too long
│   ├── OutcomeUnknownError          the write may or may not have happened
│   ├── StorageUnavailableError      the database cannot be reached or does not answer
│   ├── StorageFullError             disk or quota of the database is used up
│   ├── StorageReadOnlyError         the database refuses writes
│   ├── StorageCorruptError          what is stored is damaged
│   ├── StorageFormatError           written by a newer release
│   └── BackendClosedError           the backend was closed
├── TaskError                    the store says this; each has the JSON-RPC code it leaves with
│   ├── TaskNotFoundError            no such task for this owner
│   ├── InvalidTransitionError       the status table does not allow it
│   │   └── TaskTerminalError        the task has ended
│   ├── TaskExpiredError             the task is past its time to live
│   ├── NotReadyError                the task has no result, or none yet
│   ├── QuotaExceededError           too many active tasks
│   ├── OwnerActiveError             tasks that were to be removed have not ended
│   ├── InvalidValueError            a value that JSON, or a limit, does not allow
│   │   ├── VariablesTooLargeError
│   │   └── InvalidAnswerError       a person's answer is not what was asked for
│   ├── InvalidTtlError              a time to live out of range
│   ├── InvalidCursorError           a page cursor we did not issue
│   ├── QuestionKeyError             a question's key was used before
│   ├── IdempotencyKeyError          an idempotency key was used for another call
│   ├── JournalMismatchError         a re-run does not match what was recorded
│   ├── JournalFullError             too many steps, or too large
│   ├── LeaseLostError               another worker may run this task now
│   ├── NotDurableError              the call runs without a task
│   ├── ClientCapabilityError        the client did not declare what a question needs
│   ├── ContentionError              too many writers at once
│   ├── RecordFormatError            the record is damaged, or of a newer release
│   └── StoreUnavailableError        a `StorageError` seen from above
├── ConfigurationError           a setting that cannot work; raised at start
├── TaskCancelledError           for a client: the task was cancelled, and has no result
├── TaskUnreachableError         for a client: no good answer about the task for too long
└── InvalidHandleError           for a client: no text of a saved task, or of another server's
```

Texts are made in `__str__` from stored arguments, so errors pickle, compare and log without
anybody parsing a sentence. A `TaskError` never names an owner; no error shows a record's contents.
"""

from __future__ import annotations


class MCPTasksError(Exception):
    """The root of every error that this library raises on purpose."""


class ConfigurationError(MCPTasksError):
    """A setting that cannot work. Raised at start, before anything was stored."""


# --- storage -------------------------------------------------------------------------------------


class StorageError(MCPTasksError):
    """A backend could not do what it was asked. Subclasses say what state that leaves."""


class RecordNotFoundError(StorageError):
    """No record under this key, or one that has expired."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return f"no record under {self.key!r}"


class VersionConflictError(StorageError):
    """The record changed since the caller read it. Nothing was written."""

    def __init__(self, key: str, expected: int, actual: int) -> None:
        super().__init__(key, expected, actual)
        self.key = key
        self.expected = expected
        self.actual = actual

    def __str__(self) -> str:
        found = f"at version {self.actual}" if self.actual else "absent"
        wanted = f"version {self.expected}" if self.expected else "absent"
        return f"record {self.key!r} is {found}, not {wanted}; nothing was written"


class RecordTooLargeError(StorageError):
    """The record is larger than the database takes. Nothing was written."""

    def __init__(self, key: str, size: int, limit: int) -> None:
        super().__init__(key, size, limit)
        self.key = key
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return (
            f"record {self.key!r} has {self.size} bytes, this backend takes {self.limit}; "
            "nothing was written"
        )


class InvalidKeyError(StorageError):
    """Not a key of the form `partition:sort`. Nothing was read or written."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(key, reason)
        self.key = key
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"invalid key {self.key!r}: {self.reason}; nothing was read or written. A key is "
            "'partition:sort', each as mcp_tasks.storage.keys.encode makes it of a text"
        )


class OutcomeUnknownError(StorageError):
    """The database did not answer a write: it may have happened, or may still happen.

    Sending the *same* compare-and-swap again until it holds or conflicts settles it; reading the
    record again does not.
    """

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(key, reason)
        self.key = key
        self.reason = reason

    def __str__(self) -> str:
        return f"a write of {self.key!r} may or may not have happened: {self.reason}"


class StorageUnavailableError(StorageError):
    """The database cannot be reached or does not answer. Nothing was written."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"the task database is not available: {self.reason}; nothing was written"


class StorageFullError(StorageError):
    """The disk or the quota of the database is used up. Nothing was written."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(where, reason)
        self.where = where
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.where} is full ({self.reason}); nothing was written. Free some space"


class StorageReadOnlyError(StorageError):
    """The database refuses writes. Nothing was written."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(where, reason)
        self.where = where
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"{self.where} cannot be written ({self.reason}); nothing was written. "
            "Give this process write access there, or choose another store"
        )


class StorageCorruptError(StorageError):
    """What is stored is damaged. Nothing was changed; nothing is hidden either."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(where, reason)
        self.where = where
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"{self.where} is damaged or is not a task database ({self.reason}); nothing was "
            "changed. Restore it from a backup, or move it away to start with an empty one"
        )


class StorageFormatError(StorageError):
    """The database was made by a newer release. Nothing was changed."""

    def __init__(self, where: str, found: int, known: int) -> None:
        super().__init__(where, found, known)
        self.where = where
        self.found = found
        self.known = known

    def __str__(self) -> str:
        return (
            f"{self.where} has format {self.found}, this release knows up to {self.known}; "
            "nothing was changed. Upgrade mcp-tasks"
        )


class BackendClosedError(StorageError):
    """The backend was closed. Nothing was read or written."""

    def __str__(self) -> str:
        return "this backend was closed; nothing was read or written"


# --- tasks ---------------------------------------------------------------------------------------

INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603


class TaskError(MCPTasksError):
    """The store refuses. `code` is the JSON-RPC code with which it reaches a client."""

    code: int = INTERNAL_ERROR


class TaskNotFoundError(TaskError):
    """No such task for this owner.

    The same words whether the task never existed, is gone, or belongs to somebody else.
    """

    code = INVALID_PARAMS

    def __str__(self) -> str:
        return "task not found"


class InvalidTransitionError(TaskError):
    """The status table does not allow this change. Nothing was changed."""

    code = INVALID_PARAMS

    def __init__(self, current: str, wanted: str) -> None:
        # Plain text, for a `StrEnum` shows itself as `<TaskStatus.WORKING: 'working'>`.
        self.current = str(current)
        self.wanted = str(wanted)
        super().__init__(self.current, self.wanted)

    def __str__(self) -> str:
        if self.current == self.wanted:
            return f"the task is already {self.current!r}; nothing was changed"
        return f"a task that is {self.current!r} cannot become {self.wanted!r}; nothing was changed"


class TaskTerminalError(InvalidTransitionError):
    """The task has ended: nothing about it changes any more. Nothing was changed."""

    def __str__(self) -> str:
        return f"the task has ended as {self.current!r}; nothing was changed"


class TaskExpiredError(TaskError):
    """The task is past its time to live. Nothing was changed."""

    code = INVALID_PARAMS

    def __str__(self) -> str:
        return "the task has expired; nothing was changed"


class NotReadyError(TaskError):
    """The task has no result: it has not ended, or it ended without one."""

    code = INVALID_PARAMS

    def __init__(self, status: str) -> None:
        self.status = str(status)
        super().__init__(self.status)

    def __str__(self) -> str:
        return f"the task is {self.status!r}; it has no result. Only a 'completed' one has"


class QuotaExceededError(TaskError):
    """The owner has as many active tasks as are allowed. No task was created."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return (
            f"{self.limit} tasks are active, which is the limit; no task was created. "
            "Cancel one, or wait for one to end"
        )


class OwnerActiveError(TaskError):
    """Tasks of an owner that were to be removed have not ended. Nothing was removed."""

    def __init__(self, active: int) -> None:
        super().__init__(active)
        self.active = active

    def __str__(self) -> str:
        return (
            f"tasks that have not ended: {self.active}; nothing was removed. Wait for their ends, "
            "or let the purge cancel them (--cancel, cancel=True)"
        )


class InvalidValueError(TaskError):
    """A value that the store does not take: not JSON, too deep, too large. Nothing was stored."""

    code = INVALID_PARAMS

    def __init__(self, what: str, problem: str) -> None:
        super().__init__(what, problem)
        self.what = what
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.what} cannot be accepted: {self.problem}; nothing was stored"


class VariablesTooLargeError(InvalidValueError):
    """All variables together would be over the limit. Nothing was stored."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__("variables", f"{size} bytes of JSON, {limit} are allowed")
        self.args = (size, limit)
        self.size = size
        self.limit = limit


class InvalidAnswerError(InvalidValueError):
    """An answer does not fit the model of its question. It stays recorded, as the first one."""

    def __init__(self, key: str, model: str, errors: int) -> None:
        super().__init__(f"the answer to {key!r}", f"it does not fit {model}")
        self.args = (key, model, errors)
        self.key = key
        self.model = model
        self.errors = errors

    def __str__(self) -> str:
        return (
            f"the answer to {self.key!r} does not fit {self.model} ({self.errors} errors); "
            "it stays recorded. Ask again under another key"
        )


class InvalidTtlError(TaskError):
    """A time to live out of range. Nothing was changed."""

    code = INVALID_PARAMS

    def __init__(self, ttl_ms: float, max_ttl_ms: float) -> None:
        super().__init__(ttl_ms, max_ttl_ms)
        self.ttl_ms = ttl_ms
        self.max_ttl_ms = max_ttl_ms

    def __str__(self) -> str:
        return (
            f"a time to live of {self.ttl_ms:.0f} ms is not between 1 and "
            f"{self.max_ttl_ms:.0f} ms; nothing was changed"
        )


class InvalidCursorError(TaskError):
    """A page cursor that this server did not issue to this owner, or that is damaged."""

    code = INVALID_PARAMS

    def __str__(self) -> str:
        return "invalid cursor; ask for the first page without one"


class QuestionKeyError(TaskError):
    """A question's key was used before in this task, for another question. Nothing was asked."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return (
            f"the question key {self.key!r} was already used in this task; nothing was asked. "
            "Give each question its own key"
        )


class IdempotencyKeyError(TaskError):
    """An idempotency key was used before for this tool, with other arguments. Nothing was done."""

    code = INVALID_PARAMS

    def __str__(self) -> str:
        return (
            "the idempotency key was used before for this tool with other arguments; no task was "
            "created. Give each call its own key, and repeat a call as it was"
        )


class JournalMismatchError(TaskError):
    """A re-run does not match what an earlier attempt recorded under this key."""

    def __init__(self, key: str, recorded: str, found: str) -> None:
        super().__init__(key, recorded, found)
        self.key = key
        self.recorded = recorded
        self.found = found

    def __str__(self) -> str:
        if self.recorded == f"{self.found} earlier in this run":
            return (
                f"step {self.key!r} runs twice in one run of the tool, both times as {self.found}. "
                "Give each step its own key; in a loop, put the number into it"
            )
        return (
            f"step {self.key!r} was recorded as {self.recorded}, now it is {self.found}. "
            "Keys must name the same work on every run; give changed work a new key"
        )


class JournalFullError(TaskError):
    """The task has as many steps, or as large ones, as are allowed. The step was not recorded."""

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(what, limit)
        self.what = what
        self.limit = limit

    def __str__(self) -> str:
        setting = "max_journal_bytes" if self.what == "bytes" else "max_steps"
        return (
            f"the journal holds {self.limit} {self.what}, which is the limit; nothing was "
            f"recorded. Do more work in one step, or raise StoreConfig.{setting}"
        )


class LeaseLostError(TaskError):
    """Another worker may run this task now; nothing was written. Stop working on it."""

    def __init__(self, attempt: int) -> None:
        super().__init__(attempt)
        self.attempt = attempt

    def __str__(self) -> str:
        return (
            f"attempt {self.attempt} no longer runs this task; nothing was written. "
            "Stop working on it"
        )


class NotDurableError(TaskError):
    """The call runs without a task, so there is nobody to ask and nothing to extend."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return (
            f"{self.what} needs a task, and this call runs without one: the client did not declare "
            "the Tasks extension, or it was no client that called. Give the tool required=True to "
            "refuse such calls of clients, or look at task.durable first"
        )


class ClientCapabilityError(TaskError):
    """The client that made the task did not declare what this question needs. Nothing was asked.

    Spec: 2026-07-28 core, C-005.
    """

    code = -32021

    def __init__(self, capability: str) -> None:
        super().__init__(capability)
        self.capability = capability

    def __str__(self) -> str:
        return (
            f"the client did not declare the capability {self.capability!r}, so it cannot be "
            "asked; nothing was asked"
        )


class ContentionError(TaskError):
    """Too many writers changed the record at once. Nothing was changed; try again."""

    def __init__(self, tries: int) -> None:
        super().__init__(tries)
        self.tries = tries

    def __str__(self) -> str:
        return f"the task changed {self.tries} times while it was written; try again"


class RecordFormatError(TaskError):
    """The record cannot be read, or not be written by this release. Nothing was changed."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return (
            f"the task's record cannot be used: {self.problem}; nothing was changed. Upgrade this "
            "process if a newer release wrote it, or restore it from a backup"
        )


class StoreUnavailableError(TaskError):
    """The database failed. `__cause__` says how; `happened` is None when nobody can know.

    Attributes:
        happened: False when nothing was written, None when it may have been.
    """

    def __init__(self, *, happened: bool | None = False) -> None:
        super().__init__(happened)
        self.happened = happened

    def __str__(self) -> str:
        state = "nothing was changed" if self.happened is False else "it may have happened"
        return f"the task store is not available; {state}. Try again"

    def __reduce__(self) -> tuple[object, ...]:
        return (_store_unavailable, (self.happened,))


def _store_unavailable(happened: bool | None) -> StoreUnavailableError:  # noqa: FBT001 - for pickle
    return StoreUnavailableError(happened=happened)


# --- clients -------------------------------------------------------------------------------------

# An error of the task or of the server arrives as the SDK's `MCPError`, with the server's code.


class TaskCancelledError(MCPTasksError):
    """The task was cancelled, by this client or by somebody else. It has no result."""

    def __init__(self, task_id: str, message: str | None = None) -> None:
        super().__init__(task_id, message)
        self.task_id = task_id
        self.message = message

    def __str__(self) -> str:
        why = f": {self.message}" if self.message else ""
        return f"the task {self.task_id} was cancelled{why}"


class TaskUnreachableError(MCPTasksError):
    """The server gave no answer that helps for as long as the client was ready to wait.

    Internal errors of the server count as none, for its database may be away. The task may still
    run, or wait for its server to come back. `saved` finds it again:
    `TaskHandle.resume(client, error.saved)`.

    Attributes:
        saved: The task, as `TaskHandle.save` returns it.
        seconds: For how long the client tried.
        reason: The text of the last error; the error itself is the `__cause__`.
    """

    def __init__(self, saved: str, seconds: float, reason: str) -> None:
        super().__init__(saved, seconds, reason)
        self.saved = saved
        self.seconds = seconds
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"no good answer about the task for {self.seconds:.1f} s (the last error: "
            f"{self.reason}); it may still run. "
            f"Find it again with TaskHandle.resume(client, {self.saved!r})"
        )


class InvalidHandleError(MCPTasksError):
    """This text is no saved `TaskHandle`, or one of another server or of a newer release."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return f"cannot resume this task: {self.problem}"

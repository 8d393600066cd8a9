"""A task as it is stored: one frozen value that holds all that is needed to run the call again.

The record is small: it stays under 32 KB whatever the task carries. A larger value lies beside it,
in a blob that the record names, and is fetched only by who wants it. So a poll of a running task
reads little, and one compare-and-swap of the record is still the whole of every change.

New fields are added here, at the top level of the record, never inside a nested shape: an older
release keeps top-level fields that it does not know (`mcp_tasks.domain.codec`).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

import msgspec
from msgspec import UNSET, Raw, UnsetType

from mcp_tasks.domain.status import TERMINAL, TaskStatus


FORMAT = 1
"""The record format that this release writes."""

RECENT_WRITES = 8
"""How many write ids a record remembers."""


class Blob(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A value that lies beside the record.

    Attributes:
        name: Random; part of its keys.
        chunks: Over how many keys it is spread, at least 1.
        size: Bytes of JSON in all.
    """

    name: str
    chunks: int
    size: int


class Payload(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A JSON value, either here or in a blob. `null` is a value; an absent one is no `Payload`."""

    inline: Raw | UnsetType = UNSET
    blob: Blob | None = None

    @property
    def size(self) -> int:
        """Bytes of JSON."""
        return self.blob.size if self.blob is not None else len(self.inline)  # type: ignore[arg-type]

    @property
    def weight(self) -> int:
        """Bytes of it that lie in the record itself."""
        return 64 if self.blob is not None else len(self.inline)  # type: ignore[arg-type]


def inline(data: bytes) -> Payload:
    """Make a payload that is kept in the record."""
    return Payload(Raw(data))


class Principal(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Who called, as the authorization server knows them. Never a token."""

    client_id: str
    issuer: str | None = None
    subject: str | None = None
    scopes: tuple[str, ...] = ()


class Call(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The request that the task carries out: enough to make it again without a live client.

    Attributes:
        tool: The tool's name.
        arguments: A JSON object.
        protocol_version: The MCP revision of the request.
        input_responses: Answers given before the task existed, a JSON object by key.
        request_state: What the tool gave the client to bring back with those answers.
        client_info: As the client declared it.
        client_capabilities: As declared on this request; decides what a tool may ask.
        principal: Who called; `None` without authentication.
        traceparent: The caller's trace context (W3C).
    """

    tool: str
    arguments: Payload
    protocol_version: str = ""
    input_responses: Payload | None = None
    request_state: str | None = None
    client_info: Raw | UnsetType = UNSET
    client_capabilities: Raw | UnsetType = UNSET
    principal: Principal | None = None
    traceparent: str | None = None


class Policy(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What may be done with the task when its worker is lost.

    Fixed at creation, except that a body may hand its task out.

    Attributes:
        on_worker_loss: `fail` ends the task, for its body may have had effects; `rerun` starts the
            body again.
        resumable: The body is started again from the top and finds its recorded steps and answers.
        max_attempts: How many attempts may be lost before the task is given up.
        external: No worker takes the task; some other program finishes it. So from the beginning,
            or since its body handed it out.
        timeout: Seconds that one run of the body may take; `None` for any.
    """

    on_worker_loss: Literal["fail", "rerun"] = "fail"
    resumable: bool = False
    max_attempts: int = 3
    external: bool = False
    timeout: float | None = None

    @property
    def is_restartable(self) -> bool:
        """True when a body that may have begun can be started again."""
        return self.resumable or self.on_worker_loss == "rerun"


class Question(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A request to the client that has no answer yet.

    Attributes:
        key: Unique over the life of the task. Spec: 2026-07-28 tasks, T-048.
        method: `elicitation/create`, `sampling/createMessage` or `roots/list`.
        params: The request's parameters.
        asked_at: When.
        digest: Of what is asked, by which a later run knows whether it asks the same; empty where
            no run asks.
    """

    key: str
    method: str
    params: Payload
    asked_at: datetime
    digest: str = ""


class Entry(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One line of the journal: something that happened and will not happen again.

    Attributes:
        key: Unique in the journal together with `kind`.
        kind: `step` for a step's value, `answer` for an answer to a question.
        value: What came of it.
        what: What it was (a function's name, a method), to notice that a key names other work now.
        by: Who answered, where that is known.
    """

    key: str
    kind: Literal["step", "answer"]
    value: Payload
    what: str = ""
    by: str | None = None


class Journal(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What a task has behind it: the latest entries here, the earlier ones sealed in blobs.

    Attributes:
        sealed: Blobs in order; each chunk is a JSON array of entries.
        tail: The entries since then.
        tail_size: About how many bytes `tail` has in the record.
        count: Entries in all.
        size: Bytes of values in all.
    """

    sealed: tuple[Blob, ...] = ()
    tail: tuple[Entry, ...] = ()
    tail_size: int = 0
    count: int = 0
    size: int = 0


class Progress(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """How far the body says it is."""

    current: float
    total: float | None = None
    message: str | None = None


class Failure(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The JSON-RPC error in which a task ended."""

    code: int
    message: str
    data: Raw | UnsetType = UNSET


class Mark(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """That something was requested, when, and by whom as far as that is known."""

    at: datetime
    by: str | None = None


class TaskRecord(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """Everything that is known of a task.

    Attributes:
        format: The format this record was written in; never lowered.
        min_writer: A release that knows only lower formats may read the record, not change it.
        ttl: Counts from `created_at`; after it the task is over, whatever it was.
        worker: The incarnation that runs it now.
        attempt: How many times the task was claimed.
        lost: How many of those attempts ended with their worker.
        cancel: That its end was asked for.
        questions: Those without an answer. Answered ones are journal entries.
        asked: How many questions there were in all.
        variables: A JSON object.
        result: With status `completed`.
        error: With status `failed`.
        writes: Ids of the last writes, so that a writer can recognise its own.
        unknown: Fields of a newer release, kept as they were.
    """

    format: int
    min_writer: int
    task_id: str
    owner: str
    status: TaskStatus
    created_at: datetime
    updated_at: datetime
    ttl: timedelta
    poll_interval: timedelta
    call: Call
    policy: Policy
    created_by: str | None = None
    message: str | None = None
    worker: str | None = None
    attempt: int = 0
    lost: int = 0
    cancel: Mark | None = None
    progress: Progress | None = None
    variables: Payload | None = None
    questions: tuple[Question, ...] = ()
    asked: int = 0
    journal: Journal = Journal()
    result: Payload | None = None
    error: Failure | None = None
    ended_at: datetime | None = None
    writes: tuple[str, ...] = ()
    unknown: dict[str, Raw] = {}

    @property
    def is_terminal(self) -> bool:
        """True when nothing about the task changes any more."""
        return self.status in TERMINAL

    @property
    def deadline(self) -> datetime:
        """The end of its life, if nothing extends it."""
        return self.created_at + self.ttl

    def is_held_by(self, worker: str, attempt: int) -> bool:
        """Tell whether this attempt of this worker may still write the record (the fence)."""
        return self.worker == worker and self.attempt == attempt and self.status not in TERMINAL

"""What a tool sees of its task: `TaskContext`, and `SyncTaskContext` for plain `def` tools.

The context says what a tool may do; how it is done durably is the runner's (`Operations`). The same
context, with operations that keep nothing, serves a call that runs without a task.
"""

from __future__ import annotations

import functools
import inspect
import json
import random
from dataclasses import dataclass
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Generic,
    Literal,
    Protocol,
    TypeVar,
    TypeVarTuple,
    cast,
    overload,
)

import anyio
import anyio.from_thread
from pydantic import BaseModel, TypeAdapter, ValidationError

from mcp_tasks.errors import ConfigurationError, InvalidAnswerError, InvalidValueError, TaskError
from mcp_tasks.settings import check_type
from mcp_tasks.step_values import bare, values_of


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping
    from datetime import timedelta

    from mcp_tasks.domain.record import Principal


T = TypeVar("T")
ModelT = TypeVar("ModelT", bound=BaseModel)
Ts = TypeVarTuple("Ts")

MAX_KEY_CHARACTERS: Final = 255
"""The longest key of a step or a question."""


@dataclass(frozen=True)
class Answer(Generic[T]):
    """What came back for a question.

    Attributes:
        action: `accept` with `data`, `decline` for a "no", `cancel` for a closed dialog.
        data: The answer, validated; `None` unless accepted.
    """

    action: Literal["accept", "decline", "cancel"]
    data: T | None = None


@dataclass(frozen=True)
class Retry:
    """How often a step is tried before its exception leaves it.

    Attributes:
        attempts: Tries in all, at least 1.
        delay: Seconds before the second try; the wait is random between 0 and this (full jitter).
        factor: By how much `delay` grows from try to try.
        max_delay: Its upper bound, in seconds.
        on: Which exceptions are worth another try.

    Raises:
        ConfigurationError: A value that cannot work.
    """

    attempts: int = 3
    delay: float = 1.0
    factor: float = 2.0
    max_delay: float = 60.0
    on: tuple[type[Exception], ...] = (Exception,)

    def __post_init__(self) -> None:
        """Refuse what would be found when the first try has failed, and hide why it has.

        Raises:
            ConfigurationError: A value of a wrong type or size.
        """
        check_type("Retry.attempts", self.attempts, int)
        if self.attempts < 1:
            raise ConfigurationError(f"Retry.attempts is {self.attempts}; it must be 1 or more")
        for name in ("delay", "factor", "max_delay"):
            value: float = getattr(self, name)
            check_type(f"Retry.{name}", value, float)
            if value < 0:
                raise ConfigurationError(f"Retry.{name} is {value!r}; it must be 0 or more")
        if not _are_exceptions(self.on):
            raise ConfigurationError(
                f"Retry.on is {self.on!r}; it must be a tuple of classes of Exception, such as "
                "(OSError,)"
            )

    def waits(self) -> Iterator[float]:
        """Yield the longest wait before each try but the first, in seconds."""
        wait = self.delay
        for _ in range(self.attempts - 1):
            yield min(wait, self.max_delay)
            # Never a power of `factor`: that overflows long before this does.
            wait = min(wait * self.factor, self.max_delay)


def _are_exceptions(kinds: object) -> bool:
    return isinstance(kinds, tuple) and all(
        inspect.isclass(kind) and issubclass(kind, Exception)
        for kind in cast("tuple[object, ...]", kinds)
    )


class Operations(Protocol):
    """What lies behind a context: a running attempt, or nothing durable at all."""

    @property
    def durable(self) -> bool:
        """True when what is recorded outlives the process."""
        ...

    @property
    def cancel_requested(self) -> bool:
        """True once somebody asked for the end of the task."""
        ...

    async def step(self, key: str, what: str, run: Callable[[], Awaitable[bytes]]) -> bytes:
        """Return the recorded JSON of step `key`, or run it and record what it gave."""
        ...

    async def ask(self, key: str | None, method: str, params: Mapping[str, Any]) -> Any:
        """Put a request to the client and return its answer, a JSON value."""
        ...

    async def report(self, current: float, total: float | None, message: str | None) -> None:
        """Show how far the work is."""
        ...

    async def variables(self) -> dict[str, Any]:
        """Return the task's variables."""
        ...

    async def set_variables(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Merge `changes` into the variables and return all of them."""
        ...

    async def extend(self, ttl: timedelta) -> None:
        """Let the task live for `ttl` from now on, at least."""
        ...

    async def run_sync(self, fn: Callable[[], T], *, whole: bool = False) -> T:
        """Run a blocking function in a thread of ours; `whole` if it is all that the tool does."""
        ...


class TaskContext:
    """A tool's view of the task that it runs in.

    Declare a parameter of this type in a tool made with `@tasks.tool()`; it is filled in and does
    not show in the tool's schema.

    Attributes:
        task_id: The task's id; empty when the call runs without a task.
        owner: Whose task it is, as `TaskStore` wants it; empty without a task.
        attempt: Which run of the body this is, from 1. Exact: no two runs share a number.
        idempotency_key: The same on every attempt: hand it to whatever must not happen twice.
        principal: Who called, or `None` without authentication. Never a token.
        durable: True in a task. False when the call runs without one: steps then just run, and
            `elicit` raises `NotDurableError`.
    """

    def __init__(
        self,
        operations: Operations,
        *,
        task_id: str = "",
        owner: str = "",
        attempt: int = 1,
        idempotency_key: str = "",
        principal: Principal | None = None,
    ) -> None:
        self._operations = operations
        self.task_id = task_id
        self.owner = owner
        self.attempt = attempt
        self.idempotency_key = idempotency_key
        self.principal = principal

    def __repr__(self) -> str:
        return f"<TaskContext {self.task_id or 'without a task'} attempt {self.attempt}>"

    @property
    def durable(self) -> bool:
        """True in a task, false when the call runs without one."""
        return self._operations.durable

    @property
    def cancel_requested(self) -> bool:
        """True once somebody asked for the end of the task. A blocking tool should look at it."""
        return self._operations.cancel_requested

    @overload
    async def step(
        self,
        key: str,
        fn: Callable[[*Ts], Awaitable[T]],
        *args: *Ts,
        retry: Retry | None = None,
    ) -> T: ...

    @overload
    async def step(
        self, key: str, fn: Callable[[*Ts], T], *args: *Ts, retry: Retry | None = None
    ) -> T: ...

    async def step(
        self, key: str, fn: Callable[..., Any], *args: Any, retry: Retry | None = None
    ) -> Any:
        """Run `fn(*args)` once in the life of the task, and remember what it returned.

        In a `resumable` tool the value is recorded before it is returned; after a crash the next
        attempt gets the recorded value and `fn` does not run again. A crash between the end of
        `fn` and its record runs it again: at least once, recorded exactly once. In other tools
        the step just runs.

        The value goes through `fn`'s return annotation to JSON and back, on the first run too, so
        that every run sees the same. A plain `def` runs in a thread.

        Args:
            key: Names the work, the same on every run, unique in the task.
            fn: A coroutine function or a plain function.
            *args: Its arguments.
            retry: How often to try again when `fn` raises; `None` for once.

        Raises:
            InvalidValueError: The value is no JSON, or too large, or the key too long. Nothing was
                recorded.
            JournalMismatchError: This key was recorded for something else.
            JournalFullError: Too many steps. Nothing was recorded.
            LeaseLostError: Another worker may run this task now; stop.
            TypeError: The key is no text. Nothing was run.
        """
        key = _plain(key)
        name, values = values_of(key, bare(fn))

        async def run() -> bytes:
            return values.dump(key, await self._call(fn, args, retry))

        return values.load(key, await self._operations.step(key, name, run))

    async def _call(
        self, fn: Callable[..., Any], args: tuple[Any, ...], retry: Retry | None
    ) -> Any:
        waits = iter(()) if retry is None else retry.waits()
        while True:
            try:
                if inspect.iscoroutinefunction(bare(fn)):
                    return await fn(*args)
                value = await self._operations.run_sync(functools.partial(fn, *args))
                return await value if inspect.isawaitable(value) else value
            except TaskError:
                raise
            except Exception as error:
                longest = next(waits, None)
                if retry is None or longest is None or not isinstance(error, retry.on):
                    raise
                await anyio.sleep(random.uniform(0, longest))  # noqa: S311 - jitter is no secret

    async def elicit(self, key: str, message: str, schema: type[ModelT]) -> Answer[ModelT]:
        """Ask the person behind the client, and wait for the answer as long as it takes.

        In a `resumable` tool waiting costs nothing: the task is parked, the answer may come hours
        later and on any server, and the tool is then run again from the top, where this call
        returns the recorded answer. So an `asyncio.timeout` around it never ends: the tool, and its
        clock, are gone while it waits. In other tools the call waits in the process, a timeout ends
        it, and the question is then withdrawn.

        Args:
            key: Names the question; unique in the task.
            message: What the person reads.
            schema: A flat model of strings, numbers, booleans and enumerations.

        Raises:
            NotDurableError: The call runs without a task.
            ClientCapabilityError: The client did not declare `elicitation`. Nothing was asked.
            InvalidAnswerError: The answer does not fit `schema`. It stays recorded.
            QuestionKeyError: The key was used for another question.
            TypeError: The key is no text. Nothing was asked.
        """
        key = _plain(key)
        params = {
            "mode": "form",
            "message": message,
            "requestedSchema": schema.model_json_schema(),
        }
        raw = await self._operations.ask(key, "elicitation/create", params)
        answer = cast("dict[str, Any]", raw) if isinstance(raw, dict) else {}
        action = answer.get("action")
        if action == "accept":
            try:
                return Answer("accept", schema.model_validate(answer.get("content") or {}))
            except ValidationError as error:
                raise InvalidAnswerError(key, schema.__name__, error.error_count()) from error
        return Answer("decline" if action == "decline" else "cancel")

    async def request(
        self, method: str, params: Mapping[str, Any], *, key: str | None = None
    ) -> dict[str, Any]:
        """Put any request that MCP lets a task make to the client, and wait for its answer.

        Args:
            method: `elicitation/create`, `sampling/createMessage` or `roots/list`.
            params: As the specification has them.
            key: As for `elicit`; `None` numbers it, which is only safe on a re-run as long as the
                tool asks in the same order.

        Raises:
            NotDurableError: The call runs without a task.
            ClientCapabilityError: The client did not declare what this needs. Nothing was asked.
            TypeError: The key is no text. Nothing was asked.
        """
        return await self._operations.ask(None if key is None else _plain(key), method, params)

    async def progress(
        self, current: float, total: float | None = None, message: str | None = None
    ) -> None:
        """Show how far the work is: polls see the latest. Not durable, at most one write a second.

        Args:
            current: How much is done.
            total: Of how much, if that is known.
            message: What is going on, for a person; otherwise made from the numbers.
        """
        await self._operations.report(current, total, message)

    async def variables(self) -> dict[str, Any]:
        """Return a copy of all the task's variables, as they are now: one read of the store.

        Other programs may have set some meanwhile, by `TaskStore.set_variables`.
        """
        return await self._operations.variables()

    async def get_variable(self, name: str, kind: type[T] | None = None) -> T | None:
        """Return one variable, or `None` when there is none or it is no `kind`.

        Args:
            name: Its name.
            kind: Any type that pydantic reads from JSON: a model, a dataclass, a date, an
                enumeration; `None` takes what is there.
        """
        value = (await self._operations.variables()).get(name)
        if value is None or kind is None:
            return value
        try:
            # As JSON, in which a date is a text and a tuple a list; and nothing is guessed.
            return TypeAdapter(kind).validate_json(json.dumps(value), strict=True)
        except ValidationError:
            return None

    async def set_variables(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Merge `changes` into the task's variables and save them.

        Variables outlive the process: the next attempt starts with the last ones saved. The
        client sees them too, under `_meta` of `tasks/get`, except for names that begin with `_`.

        Args:
            changes: Names to new values. `None` removes the name; a name left out keeps its
                value. Values are replaced whole, not merged deeper.

        Returns:
            All variables after the merge, a copy.

        Raises:
            VariablesTooLargeError: All together would be over the limit. Nothing was saved.
            InvalidValueError: `changes` is no mapping, or a value is no JSON, too deep, or holds
                too long a string.
            LeaseLostError: Another worker may run this task now; stop.
        """
        return await self._operations.set_variables(changes)

    async def set_variable(self, name: str, value: Any) -> None:
        """Set one variable; `None` removes it. As `set_variables`."""
        await self._operations.set_variables({name: value})

    async def delete_variable(self, name: str) -> None:
        """Remove one variable, if it is there."""
        await self._operations.set_variables({name: None})

    async def extend(self, ttl: timedelta) -> None:
        """Let the task live for at least `ttl` from now on.

        A task that a worker runs is extended by itself; this is for work that goes on elsewhere.

        Raises:
            NotDurableError: The call runs without a task.
            InvalidTtlError: That is beyond the maximum. Nothing was changed.
        """
        await self._operations.extend(ttl)

    async def run_sync(self, fn: Callable[[], T], *, whole: bool = False) -> T:
        """Run a blocking function in a thread of this library's, not of the SDK's.

        Cancelling does not stop the thread; look at `cancel_requested` in it. It counts among
        `RunnerConfig.max_threads` until it ends.

        Args:
            fn: What to run.
            whole: It is all that the tool does: while it waits for a thread, the tool does not run,
                and its `timeout` stands still.
        """
        return await self._operations.run_sync(fn, whole=whole)


class SyncTaskContext:
    """`TaskContext` for plain `def` tools: the same methods, blocking.

    For use in the thread that runs the tool, nowhere else.
    """

    def __init__(self, task: TaskContext) -> None:
        self._task = task
        self.task_id = task.task_id
        self.owner = task.owner
        self.attempt = task.attempt
        self.idempotency_key = task.idempotency_key
        self.principal = task.principal

    @property
    def durable(self) -> bool:
        """True in a task, false when the call runs without one."""
        return self._task.durable

    @property
    def cancel_requested(self) -> bool:
        """True once somebody asked for the end of the task; look at it now and then."""
        return self._task.cancel_requested

    def step(self, key: str, fn: Callable[[*Ts], T], *args: *Ts, retry: Retry | None = None) -> T:
        """Run `fn(*args)` once in the life of the task. As `TaskContext.step`."""
        call = functools.partial(self._task.step, key, fn, *args, retry=retry)
        return anyio.from_thread.run(call)

    def elicit(self, key: str, message: str, schema: type[ModelT]) -> Answer[ModelT]:
        """Ask the person behind the client. As `TaskContext.elicit`."""
        return anyio.from_thread.run(self._task.elicit, key, message, schema)

    def request(
        self, method: str, params: Mapping[str, Any], *, key: str | None = None
    ) -> dict[str, Any]:
        """Put a request to the client. As `TaskContext.request`."""
        return anyio.from_thread.run(functools.partial(self._task.request, key=key), method, params)

    def progress(
        self, current: float, total: float | None = None, message: str | None = None
    ) -> None:
        """Show how far the work is. As `TaskContext.progress`."""
        anyio.from_thread.run(self._task.progress, current, total, message)

    def variables(self) -> dict[str, Any]:
        """Return a copy of all the task's variables."""
        return anyio.from_thread.run(self._task.variables)

    def get_variable(self, name: str, kind: type[T] | None = None) -> T | None:
        """Return one variable. As `TaskContext.get_variable`."""
        return anyio.from_thread.run(self._task.get_variable, name, kind)

    def set_variables(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Merge `changes` into the variables. As `TaskContext.set_variables`."""
        return anyio.from_thread.run(self._task.set_variables, changes)

    def set_variable(self, name: str, value: Any) -> None:
        """Set one variable; `None` removes it."""
        anyio.from_thread.run(self._task.set_variable, name, value)

    def delete_variable(self, name: str) -> None:
        """Remove one variable, if it is there."""
        anyio.from_thread.run(self._task.delete_variable, name)

    def extend(self, ttl: timedelta) -> None:
        """Let the task live for at least `ttl` from now on. As `TaskContext.extend`."""
        anyio.from_thread.run(self._task.extend, ttl)


def _plain(key: object) -> str:
    """Return a key as the very type that is stored; a subclass of `str` may come from anywhere.

    Raises:
        TypeError: It is no text.
        InvalidValueError: It is too long: keys are in the record itself.
    """
    if not isinstance(key, str):
        msg = f"a key is a text, not {type(key).__name__}: {key!r}"
        raise TypeError(msg)
    if len(key) > MAX_KEY_CHARACTERS:
        problem = f"{len(key)} characters, {MAX_KEY_CHARACTERS} are allowed"
        raise InvalidValueError(f"the key {key[:20]!r}…", problem)
    return str.__str__(key)

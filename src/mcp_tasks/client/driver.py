"""Follows one task to its end: polls, puts questions, tells the app.

Polling goes on while a question is with the app. So several questions are put at once, each is
answered when its answer comes, and a dialog closes by itself when the task ends without it, when
somebody else answers, or when the tool waits no more.

Spec: 2026-07-28 tasks, T-022, T-029, T-031, T-044, T-045, T-047, T-055.
"""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING, Any, Final

import anyio

from mcp_tasks.client.questions import ask
from mcp_tasks.client.snapshot import snapshot


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from anyio.abc import TaskGroup

    from mcp_tasks.client.link import TaskLink
    from mcp_tasks.client.snapshot import TaskSnapshot


logger = logging.getLogger(__name__)

_POLL_INTERVAL: Final = 1.0
"""How long to wait between polls, in seconds, when the server does not say."""

_SHORTEST_INTERVAL: Final = 0.02
"""A server that says 0 is not polled without a pause."""

_LONGEST_INTERVAL: Final = 3600.0
"""A server that says a year is asked before."""

_MOST_DIALOGS: Final = 64
"""How many questions of one task are with the app at once; the others wait their turn."""


class Driver:
    """What one client knows of one task while it follows it.

    Args:
        link: The way to the task.
        on_status: Told of every change that was seen, in order. May be a coroutine function. An
            exception of its own is logged and goes no further.
        last: What is known already.
    """

    def __init__(
        self,
        link: TaskLink,
        on_status: Callable[[TaskSnapshot], Awaitable[None] | None] | None,
        last: TaskSnapshot | None = None,
    ) -> None:
        self.last = last
        self._link = link
        self._on_status = on_status
        self._answered: set[str] = set()
        self._poll_now = anyio.Event()

    async def announce(self) -> None:
        """Tell the app what is known before the first poll."""
        if self.last is not None:
            await self._tell(self.last)

    async def poll(self) -> TaskSnapshot:
        """Read the task once and tell the app if it changed. A task that has ended stays so."""
        if self.last is not None and self.last.is_terminal and _has_outcome(self.last):
            return self.last
        seen = snapshot(await self._link.get())
        changed = seen != self.last
        self.last = seen
        if changed:
            await self._tell(seen)
        return seen

    async def answer(self, answers: Mapping[str, Any]) -> None:
        """Send answers; their keys are not put to the app any more."""
        await self._link.update(answers)
        self._answered.update(answers)
        self._poll_now.set()

    async def cancel(self) -> None:
        """Ask for the end of the task, and look soon whether it came."""
        await self._link.cancel()
        self._poll_now.set()

    def open_questions(self, seen: TaskSnapshot) -> dict[str, Mapping[str, Any]]:
        """Return the questions that were not answered from here, by key."""
        return {key: raw for key, raw in seen.questions.items() if key not in self._answered}

    async def pause(self, seen: TaskSnapshot) -> None:
        """Wait until the next poll is due: the task's interval, or until an answer was sent."""
        wanted = seen.poll_interval
        seconds = _POLL_INTERVAL if wanted is None else wanted.total_seconds()
        with anyio.move_on_after(min(max(seconds, _SHORTEST_INTERVAL), _LONGEST_INTERVAL)):
            await self._poll_now.wait()
        self._poll_now = anyio.Event()

    async def finish(self) -> TaskSnapshot:
        """Follow the task to its end, putting its questions to the app's callbacks.

        Raises:
            MCPError: The server does not know the task, or a question could not be put.
            TaskUnreachableError: The server did not answer for too long.
            Exception: Whatever a callback raised, as it is.
        """
        failures: list[Exception] = []
        final: TaskSnapshot | None = None
        async with anyio.create_task_group() as group:
            try:
                final = await self._follow(group, failures)
            except Exception as error:  # noqa: BLE001 - raised below, outside of the group
                failures.append(error)
            group.cancel_scope.cancel()
        if final is not None:
            return final
        raise failures[0]

    async def _follow(self, group: TaskGroup, failures: list[Exception]) -> TaskSnapshot:
        asked: set[str] = set()
        dialogs: dict[str, anyio.CancelScope] = {}

        async def put(key: str, question: Mapping[str, Any]) -> None:
            answer: dict[str, Any] | None = None
            try:
                with dialogs[key]:
                    answer = await ask(self._link.session, key, question)
                del dialogs[key]
                if answer is not None:
                    await self.answer({key: answer})
            except Exception as error:  # noqa: BLE001 - raised by `finish`, outside of the group
                failures.append(error)
                group.cancel_scope.cancel()

        while True:
            seen = await self.poll()
            if seen.is_terminal:
                return seen
            for key in dialogs.keys() - seen.questions.keys():
                dialogs[key].cancel()  # answered elsewhere, or the tool waits no more
            for key, question in self.open_questions(seen).items():
                if key not in asked and len(dialogs) < _MOST_DIALOGS:
                    asked.add(key)
                    dialogs[key] = anyio.CancelScope()
                    group.start_soon(put, key, question)
            await self.pause(seen)

    async def _tell(self, seen: TaskSnapshot) -> None:
        if self._on_status is None:
            return
        try:
            told = self._on_status(seen)
            if inspect.isawaitable(told):
                await told
        except Exception:
            logger.exception("on_status failed for the task %s", seen.task_id)


def _has_outcome(seen: TaskSnapshot) -> bool:
    """Tell a task that was read from one that was announced: `CreateTaskResult` has no payload."""
    return seen.result is not None or seen.error is not None or seen.status == "cancelled"

"""Polling, against a scripted session: intervals, and a server that comes and goes."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
from mcp.client import Client
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CONNECTION_CLOSED,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    REQUEST_TIMEOUT,
    ElicitResult,
)

from mcp_tasks.client import TaskHandle, TasksClient, TaskUnreachableError
from mcp_tasks.client.wire import Acknowledgement, DetailedTask


if TYPE_CHECKING:
    from mcp_types import Result


AWAY = MCPError(CONNECTION_CLOSED, "no answer from the server")
SAVED = "mcp-task:1:01m8"


def task(status: str = "working", **more: Any) -> DetailedTask:
    """Make what `tasks/get` answers."""
    now = datetime(2026, 8, 1, tzinfo=UTC)
    fields: dict[str, Any] = {"pollIntervalMs": 1, **more}
    return DetailedTask.model_validate(
        {"taskId": "01m8", "status": status, "createdAt": now, "lastUpdatedAt": now, **fields}
    )


DONE = task("completed", result={"content": [{"type": "text", "text": "done"}]})


class ScriptedSession:
    """Answers each request with the next line of a script.

    Attributes:
        sent: Method and time of each request.
    """

    server_info = None

    def __init__(self, *script: Result | MCPError) -> None:
        self.sent: list[tuple[str, float]] = []
        self._script = list(script)

    async def send_request(self, request: Any, result_type: type[Result], **_: Any) -> Result:
        """Take one request."""
        self.sent.append((request.method, anyio.current_time()))
        answer = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        if isinstance(answer, MCPError):
            raise answer
        return answer


def handle(session: ScriptedSession, *, retry_for: float = 60.0) -> TaskHandle:
    """Make a handle on a scripted session."""
    scripted: Any = session
    return TaskHandle(scripted, "01m8", retry_for=retry_for)


@pytest.mark.requirement("T-029")
async def test_the_poll_interval_is_respected_also_when_it_changes() -> None:
    """The server knows best how long its work takes."""
    session = ScriptedSession(task(pollIntervalMs=20), task(pollIntervalMs=150), DONE)

    with anyio.fail_after(5):
        await handle(session).result()

    (_, first), (_, second), (_, third) = session.sent
    assert second - first >= 0.02
    assert third - second >= 0.15


async def test_the_first_poll_is_made_at_once() -> None:
    """Servers hold it for a moment, so that a short task costs one poll and no interval."""
    session = ScriptedSession(DONE)

    with anyio.fail_after(5):
        began = anyio.current_time()
        await handle(session).result()

    assert session.sent[0][1] - began < 0.5


@pytest.mark.requirement("T-031")
@pytest.mark.parametrize("code", [CONNECTION_CLOSED, REQUEST_TIMEOUT, INTERNAL_ERROR])
async def test_a_server_that_is_away_for_a_moment_is_asked_again(code: int) -> None:
    """Its restart must not look like the end of the task."""
    away = MCPError(code, "away")
    session = ScriptedSession(task(), away, away, DONE)

    with anyio.fail_after(5):
        result = await handle(session).result()

    assert not result.is_error
    assert len(session.sent) == 4


async def test_an_answer_is_sent_again_when_the_server_was_away() -> None:
    """The first answer under a key counts, so sending it twice is harmless, losing it is not."""
    session = ScriptedSession(AWAY, Acknowledgement())

    with anyio.fail_after(5):
        await handle(session).answer({"who": {"action": "decline"}})

    assert [method for method, _ in session.sent] == ["tasks/update", "tasks/update"]


async def test_a_server_that_stays_away_is_given_up_with_the_way_back() -> None:
    """Waiting is bounded, and the task can be taken up later."""
    with anyio.fail_after(5), pytest.raises(TaskUnreachableError) as caught:
        await handle(ScriptedSession(AWAY), retry_for=0.3).result()

    assert caught.value.saved == SAVED
    assert caught.value.__cause__ is AWAY


async def test_a_server_that_answers_with_errors_is_given_up_with_what_it_said() -> None:
    """A damaged record is no silence, and who reads the text alone must be able to tell."""
    session = ScriptedSession(MCPError(INTERNAL_ERROR, "the task's record cannot be used"))

    with anyio.fail_after(5), pytest.raises(TaskUnreachableError) as caught:
        await handle(session, retry_for=0.3).poll()

    assert 0 < caught.value.seconds <= 0.3
    assert re.fullmatch(
        r"no good answer about the task for 0\.[0-3] s \(the last error: the task's record cannot "
        r"be used\); it may still run\. Find it again with TaskHandle\.resume\(client, '.+'\)",
        str(caught.value),
    )


async def test_what_the_server_refuses_is_final() -> None:
    """An unknown task does not come back by asking again."""
    session = ScriptedSession(MCPError(INVALID_PARAMS, "task not found"))

    with anyio.fail_after(5), pytest.raises(MCPError, match="task not found"):
        await handle(session).poll()

    assert len(session.sent) == 1


async def test_a_session_that_is_over_is_not_tried_again() -> None:
    """Only a new client can help then, and the error says with which task."""
    session = ScriptedSession(MCPError(CONNECTION_CLOSED, "Connection closed"))

    with anyio.fail_after(5), pytest.raises(TaskUnreachableError, match="Connection closed"):
        await handle(session).poll()

    assert len(session.sent) == 1


async def test_a_task_that_was_seen_to_end_is_not_polled_again() -> None:
    """Nothing about it changes any more, and the server may have forgotten it."""
    session = ScriptedSession(DONE)
    one = handle(session)

    with anyio.fail_after(5):
        await one.poll()
        await one.poll()
        await one.result()

    assert len(session.sent) == 1


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        ({}, "content: Field required"),
        ({"content": [], "resultType": "task"}, "resultType is 'task'"),
        ({"content": [], "resultType": 5}, "resultType"),
        ({"content": "text"}, "content: Input should be a valid list"),
    ],
)
async def test_a_result_that_is_none_is_a_mistake_of_the_server(
    result: dict[str, Any], problem: str
) -> None:
    """An app that handles the errors of a call must not meet pydantic's."""
    session = ScriptedSession(task("completed", result=result))

    with anyio.fail_after(5), pytest.raises(MCPError) as caught:
        await handle(session).result()

    assert caught.value.code == INTERNAL_ERROR
    text = str(caught.value)
    assert text.startswith("the task is completed, but its result is not the result of a tool (")
    assert problem in text


class LiteralSession(ScriptedSession):
    """Answers with JSON, which is read as the SDK's session reads it, and puts questions aside.

    Attributes:
        dialogs: The keys of the questions that are with the app.
        most: How many there were at once.
    """

    def __init__(self, **answer: Any) -> None:
        super().__init__(task())
        now = "2026-08-01T00:00:00Z"
        self.answer: dict[str, Any] = {"taskId": "01m8", "status": "working", "createdAt": now}
        self.answer |= {"lastUpdatedAt": now, **answer}
        self.dialogs: list[str] = []
        self.most = 0
        self.turn = anyio.Semaphore(0)

    async def send_request(self, request: Any, result_type: type[Result], **_: Any) -> Result:
        """Take one request."""
        self.sent.append((request.method, anyio.current_time()))
        await anyio.lowlevel.checkpoint()
        if request.method == "tasks/update":
            for key in request.params.input_responses:
                del self.answer["inputRequests"][key]
            if not self.answer["inputRequests"]:
                self.answer |= {"status": "completed", "result": {"content": []}}
            return Acknowledgement()
        return result_type.model_validate(self.answer, by_name=False)

    async def dispatch_input_request(self, context: Any, request: Any) -> ElicitResult:
        """Open a dialog, until the test lets one go."""
        self.dialogs.append(context.request_id)
        self.most = max(self.most, len(self.dialogs))
        await self.turn.acquire()
        self.dialogs.remove(context.request_id)
        return ElicitResult(action="decline")


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ({"status": "zombie"}, "status: Input should be"),
        ({"createdAt": "soon"}, "createdAt: Input should be a valid datetime"),
        ({"taskId": None}, "taskId: Input should be a valid string"),
        ({"pollIntervalMs": "often"}, "pollIntervalMs: Input should be a valid integer"),
        ({"inputRequests": [1]}, "inputRequests: Input should be a valid dictionary"),
    ],
)
async def test_an_answer_that_is_none_is_an_error_at_once(
    answer: dict[str, Any], problem: str
) -> None:
    """It does not get better by asking again, and is no error of pydantic's for the app."""
    session = LiteralSession(**answer)

    with anyio.fail_after(5), pytest.raises(MCPError) as caught:
        await handle(session).result()

    assert caught.value.code == INTERNAL_ERROR
    assert str(caught.value).startswith(
        "the server's answer about the task is not what the Tasks extension says ("
    )
    assert problem in str(caught.value)
    assert len(session.sent) == 1


async def test_a_task_that_is_announced_in_no_form_is_an_error_of_the_call() -> None:
    """The SDK reads the answer to a call, before this library sees it."""

    async def handler(_context: Any, _params: Any) -> Any:
        return {"resultType": "task", "taskId": "01m8", "status": "zombie"}

    server: Server[Any] = Server("bad", on_call_tool=handler)
    async with Client(server, extensions=[TasksClient()]) as client:
        with anyio.fail_after(5), pytest.raises(MCPError, match="not what the Tasks extension"):
            await client.call_tool("x", {})


@pytest.mark.parametrize("milliseconds", [10**30, -(10**30)])
async def test_a_time_beyond_all_calendars_is_a_long_one(milliseconds: int) -> None:
    """Numbers of the server do not end a call."""
    session = LiteralSession(ttlMs=milliseconds, pollIntervalMs=milliseconds)

    seen = await handle(session).poll()

    longest = timedelta(days=36_500) if milliseconds > 0 else timedelta(0)
    assert (seen.ttl, seen.poll_interval) == (longest, longest)
    assert seen.created_at + longest > datetime(2026, 1, 1, tzinfo=UTC)


async def test_an_app_has_a_bounded_number_of_dialogs() -> None:
    """A server that asks thousands of questions at once must not bury a person in them."""
    question: dict[str, Any] = {
        "method": "elicitation/create",
        "params": {"message": "?", "requestedSchema": {"type": "object", "properties": {}}},
    }
    session = LiteralSession(
        status="input_required",
        pollIntervalMs=1,
        inputRequests={str(number): question for number in range(150)},
    )

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(handle(session).result)
            while session.most < 64:
                await anyio.lowlevel.checkpoint()
            for _ in range(150):
                session.turn.release()

    assert session.most == 64
    assert session.answer["status"] == "completed"


async def test_a_failure_that_names_no_error_is_still_one() -> None:
    """Some servers leave out what they must send."""
    session = ScriptedSession(task("failed", statusMessage="out of paper"))

    with anyio.fail_after(5), pytest.raises(MCPError, match="out of paper"):
        await handle(session).result()

"""What `docs/external.md` says, done: two programs and a store, and a function behind a queue."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from aiobotocore.session import AioSession  # pyright: ignore[reportMissingTypeStubs] - it has none
from mcp import Client

from mcp_tasks import TasksClient, TaskStore, reconnecting_http
from mcp_tasks.testing.servers.dynamodb import CREDENTIALS, REGION, MinistackServer

from .pages import text


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import ModuleType

    from mcp_tasks import TaskHandle

    from .conftest import Desk


ARGUMENTS = {"scene": "sunrise", "frames": 20}


async def shows(handle: TaskHandle, message: str) -> None:
    """Wait until a task says something."""
    with anyio.fail_after(30):
        while True:
            if (await handle.poll()).message == message:
                return
            await anyio.sleep(0.02)


def test_the_job_survives_the_worker_and_the_server(desk: Desk) -> None:
    """Both are killed in the middle; the client gets one result."""

    async def scenario() -> None:
        tasks = TasksClient()
        server = ("-m", "uvicorn", "external_server:app", "--port", str(desk.port))
        done = "sunrise: 20 frames"
        with desk.server(*server) as first:
            async with Client(reconnecting_http(desk.url), extensions=[tasks]) as client:
                handle = await tasks.start(client, "render", ARGUMENTS)
                with desk.python("external_worker.py"):
                    await shows(handle, "5 of 20")
                first.kill()
                first.wait()
                with desk.server(*server), desk.python("external_worker.py"):
                    with anyio.fail_after(30):
                        result = await handle.result()
        assert result.structured_content == {"result": done}
        desk.until(lambda: not list((desk.folder / "jobs").iterdir()))

    anyio.run(scenario)


def test_a_job_whose_task_was_cancelled_is_dropped(desk: Desk) -> None:
    """The program finds out by its next word."""

    async def scenario() -> None:
        tasks = TasksClient()
        with desk.server("-m", "uvicorn", "external_server:app", "--port", str(desk.port)):
            async with Client(reconnecting_http(desk.url), extensions=[tasks]) as client:
                handle = await tasks.start(client, "render", {"scene": "night", "frames": 1000})
                with desk.python("external_worker.py"):
                    await shows(handle, "5 of 1000")
                    await handle.cancel()
                    desk.until(lambda: not list((desk.folder / "jobs").iterdir()))
                assert (await handle.poll()).status == "cancelled"

    anyio.run(scenario)


@pytest.mark.parametrize("state", ["Render", "Finish the task", "Fail the task"])
def test_the_state_machine_leads_somewhere(state: str) -> None:
    """Every state that is named is there, and the last ones are ends."""
    machine = json.loads(text("external.md").partition("```json\n")[2].partition("```")[0])
    states = machine["States"]
    assert machine["StartAt"] in states
    named = [states[state].get("Next"), *(c["Next"] for c in states[state].get("Catch", []))]
    assert all(name in states for name in named if name) or states[state]["End"]
    assert any(named) != bool(states[state].get("End"))


class Cloud(MinistackServer):
    """With queues, too."""

    def _settings(self) -> Mapping[str, str]:
        return {**super()._settings(), "SERVICES": "dynamodb,sqs"}


@pytest.fixture
def ministack(monkeypatch: pytest.MonkeyPatch) -> Iterator[MinistackServer]:
    """Give a stand-in for DynamoDB and SQS, with the page's table."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with Cloud() as server:
        command = [str(Path(sys.executable).with_name("mcp-tasks")), "init", server.url]
        subprocess.run(command, check=True, capture_output=True)
        monkeypatch.setenv("MCP_TASKS_STORE", server.url)
        monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        yield server


def test_a_function_behind_a_queue_finishes_what_the_tool_sent(
    ministack: MinistackServer, load: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Delivered twice, beside a message for a task that is gone, and with the store away."""
    function = load("external_lambda")
    monkeypatch.setenv("MCP_TASKS_STORE", ministack.url)

    async def send() -> dict[str, Any]:
        session: Any = AioSession()
        async with session.create_client("sqs") as sqs:
            queue = await sqs.create_queue(QueueName="render")
            monkeypatch.setenv("RENDER_QUEUE", queue["QueueUrl"])
            tasks = TasksClient()
            async with Client(load("external_sqs").mcp, extensions=[tasks]) as client:
                await tasks.start(client, "render", ARGUMENTS)
                with anyio.fail_after(20):
                    while True:
                        got = await sqs.receive_message(
                            QueueUrl=queue["QueueUrl"], WaitTimeSeconds=1
                        )
                        if got.get("Messages"):
                            return {"messageId": "1", "body": got["Messages"][0]["Body"]}

    message = anyio.run(send)
    job = json.loads(message["body"])
    gone = {"messageId": "2", "body": json.dumps({**job, "task_id": "0" * len(job["task_id"])})}

    for _ in range(2):
        answer = function.handler({"Records": [message, gone]}, None)
        assert answer == {"batchItemFailures": []}

    async def result() -> Any:
        async with TaskStore.open(ministack.url, namespace="render") as store:
            return await store.get_result(job["owner"], job["task_id"])

    assert anyio.run(result)["structuredContent"] == {"result": "sunrise: 20 frames"}
    ministack.kill()
    assert function.handler({"Records": [message]}, None) == {
        "batchItemFailures": [{"itemIdentifier": "1"}]
    }

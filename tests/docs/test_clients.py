"""What `docs/clients.md` says, done by the programs that it shows."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from mcp import Client
from mcp.server import MCPServer
from mcp.shared.exceptions import MCPError

from mcp_tasks import (
    InvalidHandleError,
    TaskCancelledError,
    TaskHandle,
    Tasks,
    TasksClient,
    TaskUnreachableError,
    reconnecting_http,
)

from .pages import text


if TYPE_CHECKING:
    from pathlib import Path

    from mcp_tasks import TaskSnapshot

    from .conftest import Desk


@pytest.fixture
def letters(tmp_path: Path) -> str:
    """Give a folder with two text files."""
    folder = tmp_path / "letters"
    folder.mkdir()
    (folder / "a.txt").write_text("one")
    (folder / "b.txt").write_text("three")
    return str(folder)


def test_a_call_shows_its_progress_and_answers_what_is_asked(desk: Desk, letters: str) -> None:
    """The first program of the page."""
    with desk.server("tools_compress.py"):
        lines = desk.output("clients_call.py", letters).splitlines()

    assert "Compress 2 files?" in lines
    assert lines[0].startswith("working")
    assert lines[-1] == "2 files, 8 bytes"


def test_a_task_is_found_again_by_another_process(desk: Desk, letters: str) -> None:
    """The programs of the page, with a restart of the server between them."""
    with desk.server("tools_compress.py"):
        saved = desk.output("clients_start.py", letters).strip()
    with desk.server("tools_compress.py"):
        printed = desk.output("clients_resume.py", saved, "yes")

    assert printed.splitlines() == ["Compress 2 files?", "{'result': '2 files, 8 bytes'}"]
    assert printed in text("clients.md")


def test_a_task_is_cancelled_by_another_process(desk: Desk, letters: str) -> None:
    """`no` is the other word that the program takes."""
    with desk.server("tools_compress.py"):
        saved = desk.output("clients_start.py", letters).strip()
        printed = desk.output("clients_resume.py", saved, "no")

    assert "was cancelled" in printed


def test_a_call_that_is_made_again_finds_its_task(desk: Desk, letters: str) -> None:
    """The program of the page, run twice, with another process of the server the second time."""
    key = "0b6f2f9e-8e0e-4c39-9a50-6a1a7b1a6a55"
    with desk.server("tools_compress.py"):
        printed = desk.output("clients_again.py", key, letters)
    with desk.server("tools_compress.py"):
        again = desk.output("clients_again.py", key, letters)

    assert f"$ python clients_again.py $key /data/letters\n{printed}" in text("clients.md")
    assert f"$ python clients_again.py $key /data/letters\n{again}" in text("clients.md")
    assert printed.splitlines()[1:] == again.splitlines()


def test_a_call_that_finds_no_server_is_made_again(desk: Desk, letters: str) -> None:
    """The server dies, and nobody knows whether it had the call."""
    key = "1b6f2f9e-8e0e-4c39-9a50-6a1a7b1a6a55"
    desk.environment["MCP_TASKS_FAILPOINT"] = "create.after_roster_before_record:kill:1"
    with desk.server("tools_compress.py") as server:
        del desk.environment["MCP_TASKS_FAILPOINT"]
        with desk.python("clients_again.py", key, letters) as client:
            server.wait(30)
            with desk.server("tools_compress.py"):
                printed, _ = client.communicate(timeout=60)

    assert printed.splitlines() == ["Compress 2 files?", "{'result': '2 files, 8 bytes'}"]


def test_a_call_whose_server_comes_later_waits_for_it(desk: Desk, letters: str) -> None:
    """Where nobody answers at the start is no other case than where nobody answers later."""
    key = "2b6f2f9e-8e0e-4c39-9a50-6a1a7b1a6a55"
    with desk.python("clients_again.py", key, letters) as client:
        with pytest.raises(subprocess.TimeoutExpired):
            client.wait(3)
        with desk.server("tools_compress.py"):
            printed, _ = client.communicate(timeout=60)

    assert printed.splitlines() == ["Compress 2 files?", "{'result': '2 files, 8 bytes'}"]


def small_server() -> MCPServer[Any]:
    """Make a server in memory with one tool that never ends."""
    mcp: MCPServer[Any] = MCPServer("small", log_level="ERROR")
    tasks = Tasks.install(mcp, "memory://", signals=False)

    @tasks.tool()
    async def forever() -> str:
        await anyio.sleep_forever()
        return "never"

    @mcp.tool()
    async def plain() -> str:
        return "at once"

    _ = (forever, plain)
    return mcp


async def test_giving_up_a_call_cancels_its_task() -> None:
    """Nobody pays for work that nobody waits for."""
    seen: list[TaskSnapshot] = []
    tasks = TasksClient(on_status=seen.append)
    async with Client(small_server(), extensions=[tasks]) as client:
        with anyio.move_on_after(0.2):
            await client.call_tool("forever", {})

        handle = TaskHandle.resume(client, f"mcp-task:1:{seen[0].task_id}")
        with pytest.raises(TaskCancelledError), anyio.fail_after(5):
            await handle.result()


async def test_leaving_a_handle_alone_leaves_its_task_alone() -> None:
    """Only `cancel` ends it."""
    tasks = TasksClient()
    async with Client(small_server(), extensions=[tasks]) as client:
        handle = await tasks.start(client, "forever")
        with anyio.move_on_after(0.1):
            await handle.result()

        assert (await handle.poll()).status == "working"
        await handle.cancel()
        await handle.cancel()


async def test_a_tool_without_a_task_gives_a_handle_that_is_done() -> None:
    """Its result is there; there is nothing to save."""
    tasks = TasksClient()
    async with Client(small_server(), extensions=[tasks]) as client:
        handle = await tasks.start(client, "plain")

        assert handle.is_done
        assert (await handle.result()).structured_content == {"result": "at once"}
        with pytest.raises(InvalidHandleError):
            handle.save()


async def test_a_server_of_another_name_is_refused_before_anything_is_sent() -> None:
    """A saved text is no use to another server."""
    async with Client(small_server(), extensions=[TasksClient()]) as client:
        with pytest.raises(InvalidHandleError, match="belongs to the server 'archive'"):
            TaskHandle.resume(client, "mcp-task:1:abc?server=archive&tool=compress")
        with pytest.raises(MCPError, match="task not found"):
            await TaskHandle.resume(client, "mcp-task:1:abc").poll()


async def test_a_server_that_stays_away_leaves_the_task_to_be_found(
    desk: Desk, letters: str
) -> None:
    """The error says where to find it."""
    tasks = TasksClient(retry_for=0.5)
    with desk.server("tools_compress.py") as server:
        async with Client(reconnecting_http(desk.url), extensions=[tasks]) as client:
            handle = await tasks.start(client, "compress", {"folder": letters})
            server.kill()
            server.wait()

            with pytest.raises(TaskUnreachableError) as caught:
                await handle.poll()

            assert caught.value.saved == handle.save()
            with pytest.raises(MCPError, match="may or may not have been done"):
                await client.call_tool("compress", {"folder": letters})


async def test_the_transport_of_the_sdk_ends_with_its_first_refused_connection(
    desk: Desk, letters: str
) -> None:
    """Why the page shows another one. When this fails the page can say less."""
    tasks = TasksClient(retry_for=2)

    async def lose(server: subprocess.Popen[str]) -> None:
        async with Client(desk.url, extensions=[tasks]) as client:
            handle = await tasks.start(client, "compress", {"folder": letters})
            server.kill()
            server.wait()
            with anyio.fail_after(10):
                await handle.poll()

    with (
        desk.server("tools_compress.py") as server,
        pytest.raises((ExceptionGroup, MCPError, TaskUnreachableError)),
    ):
        await lose(server)

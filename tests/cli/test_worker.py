"""Serving and running apart: `worker=False` on one side, `mcp-tasks worker` on the other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import anyio
import pytest
from mcp.client import Client
from typer.testing import CliRunner

from mcp_tasks import TasksClient
from mcp_tasks.cli.main import app
from mcp_tasks.testing.servers import free_port


if TYPE_CHECKING:
    from collections.abc import Generator


HERE = Path(__file__).parent


class Run(NamedTuple):
    """A line of the witness."""

    number: str
    at: float
    pid: int


class Tiers:
    """Web processes and workers over one store.

    Args:
        folder: For the database and the witness.
    """

    def __init__(self, folder: Path) -> None:
        self.witness = folder / "witness"
        self.witness.touch()
        self._environment = {
            **os.environ,
            "MCP_TASKS_STORE": f"sqlite:///{(folder / 'tasks.db').as_posix()}",
            "WITNESS": str(self.witness),
        }

    def runs(self) -> list[Run]:
        """Read what the tools wrote down."""
        lines = [line.split() for line in self.witness.read_text().splitlines()]
        return [Run(number, float(at), int(pid)) for number, at, pid in lines]

    @contextmanager
    def web(self) -> Generator[str]:
        """Serve, and yield the URL."""
        port = free_port()
        arguments = ("uvicorn", "tiers:app", "--port", str(port), "--log-level", "error")
        with self._process(*arguments):
            yield f"http://127.0.0.1:{port}/mcp"

    @contextmanager
    def worker(self) -> Generator[subprocess.Popen[bytes]]:
        """Run tasks; yields the process."""
        with self._process("mcp_tasks.cli", "worker", "tiers:mcp") as process:
            yield process

    @contextmanager
    def _process(self, *arguments: str) -> Generator[subprocess.Popen[bytes]]:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=HERE,
            env=self._environment,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def tiers(tmp_path: Path) -> Tiers:
    """Give an empty store."""
    return Tiers(tmp_path)


@contextmanager
def patience(seconds: float) -> Generator[None]:
    """Fail after so many seconds."""
    with anyio.fail_after(seconds):
        yield


async def connected(stack: ExitStack, tiers: Tiers) -> str:
    """Start a web process and wait until it answers."""
    url = stack.enter_context(tiers.web())
    port = int(url.rpartition(":")[2].partition("/")[0])
    with patience(30):
        while True:
            try:
                async with await anyio.connect_tcp("127.0.0.1", port):
                    return url
            except OSError:  # it does not listen yet
                await anyio.sleep(0.05)


async def started(tiers: Tiers, number: str, times: int = 1) -> Run:
    """Wait until a tool was run so many times; return the last run."""
    with patience(30):
        while True:
            runs = [run for run in tiers.runs() if run.number == number]
            if len(runs) >= times:
                return runs[times - 1]
            await anyio.sleep(0.02)


async def test_a_worker_runs_what_others_serve(tiers: Tiers) -> None:
    """The process that serves runs nothing, before and after."""
    with ExitStack() as stack:
        url = await connected(stack, tiers)
        tasks = TasksClient()
        async with Client(url, extensions=[tasks]) as client:
            waiting = await tasks.start(client, "note", {"number": 1})
            await anyio.sleep(1.5)
            assert tiers.runs() == []
            worker = stack.enter_context(tiers.worker())
            with patience(30):
                result = await waiting.result()
        assert result.structured_content == {"result": f"1 by {worker.pid}"}
        assert [run.pid for run in tiers.runs()] == [worker.pid]


async def test_sigterm_hands_the_work_to_another_worker(tiers: Tiers) -> None:
    """Short work is let finish, the rest goes on elsewhere, and the exit is a clean one."""
    with ExitStack() as stack:
        url = await connected(stack, tiers)
        tasks = TasksClient()
        first = stack.enter_context(tiers.worker())
        async with Client(url, extensions=[tasks]) as client:
            endless = await tasks.start(client, "forever", {})
            assert (await started(tiers, "forever")).pid == first.pid
            short = await tasks.start(client, "note", {"number": 1, "seconds": 0.5})
            await started(tiers, "1")
            first.send_signal(signal.SIGTERM)
            assert await anyio.to_thread.run_sync(first.wait) == 0
            with patience(10):
                assert (await short.result()).structured_content == {"result": f"1 by {first.pid}"}
            second = stack.enter_context(tiers.worker())
            assert (await started(tiers, "forever", 2)).pid == second.pid
            await endless.cancel()


async def test_workers_come_and_go_under_load(tiers: Tiers) -> None:
    """Two processes serve, 1 to 4 to 1 workers run: each task once, and soon."""
    total = 1_000
    asked: dict[str, float] = {}
    answers: list[str] = []
    tasks = TasksClient()

    with ExitStack() as stack:
        urls = [await connected(stack, tiers) for _ in range(2)]
        numbers = iter(range(total))

        async def client(url: str) -> None:
            async with Client(url, extensions=[tasks]) as client:
                for number in numbers:
                    asked[str(number)] = time.monotonic()
                    arguments = {"number": number, "seconds": number % 5 / 100}
                    handle = await tasks.start(client, "note", arguments)
                    result = await handle.result()
                    assert result.structured_content is not None
                    answers.append(result.structured_content["result"])

        async def answered(count: int) -> None:
            while len(answers) < count:  # noqa: ASYNC110 - of sixteen clients
                await anyio.sleep(0.05)

        async def scale() -> None:
            later = [stack.enter_context(tiers.worker()) for _ in range(3)]
            await answered(total * 2 // 3)
            for worker in later:
                worker.send_signal(signal.SIGTERM)
            for worker in later:
                assert await anyio.to_thread.run_sync(worker.wait) == 0

        one = stack.enter_context(tiers.worker())
        with patience(120):
            async with anyio.create_task_group() as group:
                for _ in range(8):
                    for url in urls:
                        group.start_soon(client, url)
                await answered(total // 10)
                group.start_soon(scale)

    runs = tiers.runs()
    assert sorted(int(run.number) for run in runs) == list(range(total))
    assert sorted(int(answer.split()[0]) for answer in answers) == list(range(total))
    pids = {str(run.pid) for run in runs}
    assert str(one.pid) in pids
    assert len(pids) == 4
    waits = sorted(run.at - asked[run.number] for run in runs)
    assert waits[total * 99 // 100] <= 2.0, "seconds from the call to the start, p99"


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("tiers", "write package.module:server"),
        ("no_such_module:mcp", "no module 'no_such_module'"),
        ("./tiers:mcp", "'./tiers' is no module; write"),
        ("tiers.py:mcp", "'tiers.py' is no module; write"),
        (".tiers:mcp", "'.tiers' is no module; write"),
        ("a..b:mcp", "'a..b' is no module; write"),
        ("json:nothing", "has no 'nothing'"),
        ("json:dumps", "json:dumps is a function; name the MCPServer"),
        ("mcp_tasks.cli.manifest_server:mcp.nothing", "has no 'mcp.nothing'"),
    ],
)
def test_what_is_no_server_is_said_in_one_line(target: str, says: str) -> None:
    """Nobody has to read a traceback for a mistyped name."""
    done = CliRunner().invoke(app, ["worker", target])

    assert done.exit_code == 2
    assert says in done.output
    assert done.output.count("\n") == 1


def test_a_worker_whose_database_is_away_says_so_in_one_line(tmp_path: Path) -> None:
    """Where it looked, and what to do."""
    code = (
        "from mcp.server import MCPServer\nfrom mcp_tasks import Tasks\n"
        "mcp = MCPServer('away', log_level='ERROR')\nTasks.install(mcp, 'redis://127.0.0.1:1')\n"
    )
    (tmp_path / "away.py").write_text(code)

    command = [sys.executable, "-m", "mcp_tasks.cli", "worker", "away:mcp"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    said = done.stderr.splitlines()[-1]
    assert said.startswith("mcp-tasks: the task database is not available: Redis: Connection")
    assert "127.0.0.1:1" in said
    assert said.endswith("or name another store with store=… or MCP_TASKS_STORE.")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("mcp = MCPServer('bare')", "'bare' has no tasks: add Tasks.install"),
        (
            "mcp = MCPServer('bare'); Tasks.install(mcp, store='memory://')",
            "'bare' keeps its tasks in its own memory, where a worker finds none",
        ),
    ],
)
def test_a_server_without_shared_tasks_needs_no_worker(
    code: str, says: str, tmp_path: Path
) -> None:
    """It would wait for ever for work that cannot come."""
    head = "from mcp.server import MCPServer\nfrom mcp_tasks import Tasks\n"
    (tmp_path / "bare.py").write_text(head + code)

    command = [sys.executable, "-m", "mcp_tasks.cli", "worker", "bare:mcp"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr

"""`mcp-tasks demo`: a task outlives the server that runs it, shown on a real folder.

Everything here is what a user would have: a server process with a store (a SQLite file unless
asked otherwise), a client over HTTP, a kill.
The checks use none of the library: a file that the steps write themselves, and a count of the
folder with other code.
"""

from __future__ import annotations

import re
import sysconfig
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import anyio
import anyio.to_thread
from mcp.client import Client
from mcp_types import ElicitResult
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mcp_tasks.cli.count import count
from mcp_tasks.cli.demo_process import DemoServer
from mcp_tasks.cli.demo_store import demo_store
from mcp_tasks.client import TasksClient, reconnecting_http
from mcp_tasks.errors import ConfigurationError


if TYPE_CHECKING:
    from types import TracebackType

    from mcp.client import ClientRequestContext
    from mcp_types import ElicitRequestParams
    from rich.console import Console

    from mcp_tasks.cli.count import Count
    from mcp_tasks.client import TaskSnapshot


KILL_AT = 0.4
"""After which share of the batches the server is killed."""

_FEWEST = 2
_LIMIT = 300.0
BATCHES_DONE = re.compile(r"(\d+)/(\d+) batches")


class Screen:
    """A bar on a terminal; plain lines where there is none."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._progress = Progress(
            TextColumn("  {task.description:<18}"),
            BarColumn(40),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._bar = self._progress.add_task("working", total=None)
        self._said = -1

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        """Write one line above the bar."""
        self.console.print(text, highlight=False)

    def show(self, task: TaskSnapshot) -> None:
        """Show how far the task is."""
        found = BATCHES_DONE.search(task.message or "")
        if found:
            done, total = int(found[1]), int(found[2])
            self._progress.update(self._bar, completed=done, total=total)
            if not self.console.is_terminal and done != self._said:
                self._said = done
                self.say(f"  {done:>3} of {total} batches")
        self._progress.update(self._bar, description=task.status.value.replace("_", " "))


@dataclass
class Story:
    """What happened, as far as it matters for the checks."""

    task_id: str = ""
    killed_after: int = 0
    seen: str = ""
    seen_before_kill: str = ""
    away: float = 0.0
    questions: list[str] = field(default_factory=list[str])
    questions_before_kill: int = 0
    result: dict[str, Any] = field(default_factory=dict[str, Any])
    steps: list[str] = field(default_factory=list[str])
    batches: int = 0
    pids: list[int] = field(default_factory=list[int])


async def run(folder: Path | None, store: str, console: Console) -> bool:
    """Run the demo and tell how it went.

    Args:
        folder: What to make a manifest of; Python's own standard library if `None`.
        store: As `demo_store` takes it.
        console: Where to tell.

    Returns:
        True if every check held.

    Raises:
        ConfigurationError: The store cannot be shown, or the folder has too few files.
        StorageError: The store cannot be reached.
    """
    place = (folder or Path(sysconfig.get_path("stdlib"))).resolve()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mcp-tasks-demo-", ignore_cleanup_errors=True) as temp:
        async with demo_store(store, Path(temp)) as kept_in:
            console.print(f"Counting {place} first, with other code than the tool's …")
            expected = await anyio.to_thread.run_sync(count, place)
            if expected.files < _FEWEST:
                raise ConfigurationError(
                    f"{place} has {expected.files} readable files; the demo needs {_FEWEST} or "
                    "more, to kill its server in the middle of them. Name another folder"
                )
            story = await _show(DemoServer(Path(temp), kept_in), place, expected, console)
    return _tell(story, expected, kept_in.words, console, time.monotonic() - began)


async def _show(server: DemoServer, place: Path, expected: Count, console: Console) -> Story:
    try:
        with anyio.fail_after(_LIMIT), Screen(console) as screen:
            return await _play(server, place, _pause(expected.files), screen)
    except BaseException:
        console.print("the demo stopped; the server's last words:", server.log(), sep="\n")
        raise
    finally:
        server.kill()


def _pause(files: int) -> float:
    """Return how long the tool rests after each batch, so that all takes a few seconds."""
    return min(1.0, max(0.25, 6 / files))


async def _play(server: DemoServer, folder: Path, pause: float, screen: Screen) -> Story:
    story = Story()
    progress_seen = anyio.Event()

    def on_status(task: TaskSnapshot) -> None:
        if BATCHES_DONE.search(task.message or ""):
            story.seen = task.message or ""
            progress_seen.set()
        screen.show(task)

    async def elicit(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        del context
        story.questions.append(params.message)
        screen.say(f"  The task asks: {params.message!r}  Answer: yes")
        return ElicitResult(action="accept", content={"include": True})

    async def kill_and_restart() -> None:
        await server.recorded(lambda done, total: done >= KILL_AT * total)
        with anyio.move_on_after(pause / 2):
            await progress_seen.wait()
        server.kill()
        gone = time.monotonic()
        story.killed_after = server.done
        story.seen_before_kill = story.seen
        story.questions_before_kill = len(story.questions)
        screen.say(
            f"  kill -9: process {server.pids[-1]} is dead after batch {story.killed_after}"
            f" of {server.batches}"
        )
        await server.start()
        screen.say(f"  Restarted: process {server.pids[-1]}, same store, same port")
        await server.recorded(lambda done, _: done > story.killed_after)
        story.away = time.monotonic() - gone

    await server.start()
    screen.say(f"A server with the tool `manifest`, process {server.pids[-1]}, at {server.url}")
    screen.say(f"A client calls it for {folder}")
    tasks = TasksClient(on_status=on_status)
    async with Client(
        reconnecting_http(server.url), extensions=[tasks], elicitation_callback=elicit
    ) as client:
        handle = await tasks.start(client, "manifest", {"folder": str(folder), "pause": pause})
        story.task_id = handle.task_id
        screen.say(f"The answer is a task: {handle.task_id}")
        async with anyio.create_task_group() as group:
            group.start_soon(kill_and_restart)
            story.result = dict((await handle.result()).structured_content or {})
    story.steps = server.steps()
    story.batches = server.batches
    story.pids = server.pids
    return story


def _tell(story: Story, expected: Count, store: str, console: Console, took: float) -> bool:
    """Print what happened and whether it was right."""
    result = story.result
    wanted = ["list", *(f"batch-{number}" for number in range(1, story.batches + 1))]
    twice = sorted(step for step, times in Counter(story.steps).items() if times > 1)
    same = {
        name: result.get(name) == getattr(expected, name)
        for name in ("files", "bytes", "sha256", "copies", "duplicates")
    }
    checks = {
        f"one kill, one restart: two server processes ({', '.join(map(str, story.pids))})": len(
            story.pids
        )
        == 2,  # noqa: PLR2004 - the one killed and the one after it
        f"killed in the middle: after batch {story.killed_after} of {story.batches}, progress seen"
        f" ({story.seen_before_kill or 'none'})": 0 < story.killed_after < story.batches
        and bool(story.seen_before_kill),
        f"each of the {len(wanted)} steps ran once, by the file that the steps write themselves"
        + (f" (twice: {', '.join(twice)})" if twice else ""): sorted(story.steps) == sorted(wanted),
        "one question, asked and answered after the restart": len(story.questions) == 1
        and story.questions_before_kill == 0,
        f"the result is right: {expected.files} files, {expected.bytes} bytes, {expected.copies}"
        " copies, SHA-256 of the whole list"
        + "".join(f" (different: {name})" for name, right in same.items() if not right): all(
            same.values()
        ),
    }
    console.print()
    console.print("What just happened", style="bold")
    console.print(
        f"A tool call over {expected.files} files became the task {story.task_id}.\n"
        f"Its server was killed without warning after batch {story.killed_after} of"
        f" {story.batches}, between two steps.\n"
        f"A new process found the task in {store}; {story.away:.1f} s after the kill it"
        f" had done the next batch.\n"
        "The client saw a pause, nothing else, and then answered the tool's question.\n"
        "(Had the kill hit a step at work, that step would have run again: only what is recorded"
        " is never repeated.)",
        highlight=False,
    )
    console.print()
    for what, held in checks.items():
        console.print(f"  {'ok    ' if held else 'FAILED'} {what}", highlight=False)
    good = all(checks.values())
    console.print()
    console.print(f"{'All checks passed' if good else 'Not as it should be'}, {took:.1f} s.")
    return good

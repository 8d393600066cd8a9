"""The commands. Each says on its own help page what it does."""

import logging
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import anyio
import typer
from rich.console import Console

from mcp_tasks.cli.demo import run
from mcp_tasks.cli.operate import (
    count_tasks,
    list_tasks,
    purge_expired,
    purge_owner,
    show_task,
)
from mcp_tasks.cli.setup import check, initialize
from mcp_tasks.errors import ConfigurationError, MCPTasksError, OwnerActiveError
from mcp_tasks.store.config import ANONYMOUS


T = TypeVar("T")

Store = Annotated[
    str,
    typer.Option(
        envvar="MCP_TASKS_STORE",
        help="Where the tasks are: sqlite:///tasks.db, redis://…, postgresql://…",
    ),
]
Url = Annotated[str, typer.Argument(metavar="URL", help="The store: postgresql://…, dynamodb://…")]
Namespace = Annotated[
    str,
    typer.Option(help="Whose tasks: the name of the server, if it was given no other namespace."),
]
Owner = Annotated[
    str, typer.Option(help="Whose tasks within it; `local` for servers on stdio and a local file.")
]

app = typer.Typer(
    name="mcp-tasks",
    help="Durable MCP Tasks: tool calls that outlive the process that runs them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if wanted:
        typer.echo(f"mcp-tasks {version('mcp-tasks')}")
        raise typer.Exit


@app.callback()
def common(
    _version: Annotated[  # noqa: FBT002 - typer makes an option of it
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Durable MCP Tasks: tool calls that outlive the process that runs them."""


@app.command()
def demo(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="DIR",
            exists=True,
            file_okay=False,
            readable=True,
            help="The folder to make a manifest of; Python's own standard library if left out.",
        ),
    ] = None,
    store: Annotated[
        str,
        typer.Option(
            help="Where the task is kept: sqlite; redis, postgres or dynamodb, which are started "
            "for it from their packages; or the URL of a store.",
        ),
    ] = "sqlite",
) -> None:
    """Kill a server in the middle of a tool call, restart it, and see the same task finish."""
    try:
        good = anyio.run(run, folder, store, _console())
    except MCPTasksError as error:
        _fail(error)
    raise typer.Exit(0 if good else 1)


@app.command("list")
def list_(
    store: Store,
    namespace: Namespace,
    owner: Owner = ANONYMOUS,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many.")] = 50,
) -> None:
    """List an owner's tasks, newest first."""
    _run(partial(list_tasks, store, namespace, owner, limit=limit, console=_console()))


@app.command()
def show(task_id: str, store: Store, namespace: Namespace, owner: Owner = ANONYMOUS) -> None:
    """Show where a task stands, without its arguments, answers and result."""
    _run(partial(show_task, store, namespace, owner, task_id, console=_console()))


@app.command()
def worker(
    server: Annotated[
        str, typer.Argument(metavar="MODULE:SERVER", help="Your server, such as reports.app:mcp")
    ],
) -> None:
    """Run the tasks of a server without serving it, until SIGTERM or Ctrl-C."""
    from mcp_tasks.server.working import load_server, run_worker  # noqa: PLC0415 - loads the SDK

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        found = load_server(server)
    except MCPTasksError as error:
        _fail(error)
    _run(partial(run_worker, found))


@app.command()
def purge(
    store: Store,
    owner: Annotated[
        str | None, typer.Option(help="Remove everything of this owner instead.")
    ] = None,
    namespace: Annotated[
        str | None, typer.Option(help="With --owner: whose tasks, as for `list`.")
    ] = None,
    cancel: Annotated[  # noqa: FBT002 - typer makes an option of it
        bool,
        typer.Option(
            "--cancel",
            help="With --owner: cancel tasks that have not ended, and give them half a minute. "
            "Otherwise they are a reason to remove nothing.",
        ),
    ] = False,
    yes: Annotated[  # noqa: FBT002 - as above
        bool, typer.Option("--yes", help="With --owner: do not ask.")
    ] = False,
) -> None:
    """Remove what has expired, in all namespaces; or with --owner everything of one owner.

    Exit code 1 if it was not confirmed, or if tasks are left that were created meanwhile.
    """
    if owner is None:
        if namespace is not None or cancel or yes:
            _fail(ConfigurationError("--namespace, --cancel and --yes go with --owner"))
        _run(partial(purge_expired, store, console=_console()))
        return
    if namespace is None:
        _fail(ConfigurationError("--owner needs the --namespace in which to remove everything"))
    found = _run(partial(count_tasks, store, namespace, owner))
    if found.active and not cancel:
        _fail(OwnerActiveError(found.active))
    if not yes:
        what = f"all of {owner!r} in the namespace {namespace!r}: {found.tasks} tasks"
        ended = f", {found.active} of them not ended" if found.active else ""
        if not sys.stdin.isatty():
            _fail(ConfigurationError(f"say --yes to remove {what}{ended}; nothing was removed"))
        if not typer.confirm(f"Remove {what}{ended}?"):
            typer.echo("nothing was removed")
            raise typer.Exit(1)
    work = partial(purge_owner, store, namespace, owner, cancel=cancel, console=_console())
    raise typer.Exit(0 if _run(work) else 1)


@app.command()
def init(url: Url) -> None:
    """Set a database up for tasks, or say exactly what is in the way. Safe to run again."""
    _run(partial(initialize, url, console=_console()))


@app.command("check")
def check_(url: Url) -> None:
    """Look at a database without changing it. Exit code 1 if there is something to warn of."""
    good = _run(partial(check, url, console=_console()))
    raise typer.Exit(0 if good else 1)


@app.command("verify")
def verify_(
    url: Url,
    report: Annotated[
        Path | None,
        typer.Option("--json", dir_okay=False, help="Write the whole result to this file."),
    ] = None,
) -> None:
    """Run the contract of storage backends against a live database, and leave nothing behind.

    Needs the extra `testing`. Exit code 1 if a test failed.
    """
    from mcp_tasks.cli.verify import verify  # noqa: PLC0415 - loads the kit

    try:
        good = verify(url, report=report, console=_console())
    except MCPTasksError as error:
        _fail(error)
    raise typer.Exit(0 if good else 1)


def _console() -> Console:
    """Print what is given as it is: it may hold what clients and tools say."""
    return Console(markup=False, emoji=False, highlight=False, soft_wrap=True)


def _run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    try:
        return anyio.run(work)
    except MCPTasksError as error:
        _fail(error)


def _fail(error: Exception) -> NoReturn:
    """Say in one line what went wrong; a wrong word on the command line is no reason for a box."""
    typer.echo(". ".join([f"mcp-tasks: {error}", *getattr(error, "__notes__", ())]), err=True)
    raise typer.Exit(2)

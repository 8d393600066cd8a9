"""The commands. Each says on its own help page what it does."""

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import anyio
import typer
from rich.console import Console

from mcp_tasks.cli.demo import NothingToShowError, run


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
) -> None:
    """Kill a server in the middle of a tool call, restart it, and see the same task finish."""
    try:
        good = anyio.run(run, folder, Console(soft_wrap=True))
    except NothingToShowError as error:
        raise typer.BadParameter(str(error), param_hint="DIR") from None
    raise typer.Exit(0 if good else 1)

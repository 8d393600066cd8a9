"""The `mcp-tasks` command. Only here are its extra packages needed."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command; without its extra packages, say what to install."""
    try:
        from mcp_tasks.cli.main import app  # noqa: PLC0415 - so that the lack of it can be told
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in {"typer", "rich", "uvicorn"}:
            raise
        sys.exit(
            f"the mcp-tasks command needs the {error.name} package: pip install 'mcp-tasks[cli]'"
        )
    app()

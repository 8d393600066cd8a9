"""Looking at a database before servers use it, and setting it up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp_tasks.cli.operate import require_there
from mcp_tasks.storage.base import Checkable, Initializable
from mcp_tasks.storage.urls import open_backend


if TYPE_CHECKING:
    from rich.console import Console


async def initialize(url: str, *, console: Console) -> None:
    """Set the database up, and say what was found and done. At least it is looked at.

    Raises:
        ConfigurationError: What is there is something else, or may not be changed.
        StorageError: The database cannot be reached.
    """
    backend = open_backend(url)
    try:
        if isinstance(backend, Initializable):
            said = await backend.initialize() or ["all is as it should be"]
        else:
            said = [f"{backend!r} needs no setting up"]
            if isinstance(backend, Checkable):
                said += [f"warning: {warning}" for warning in await backend.check()]
        for sentence in said:
            console.print(sentence)
    finally:
        await backend.close()


async def check(url: str, *, console: Console) -> bool:
    """Look at the database without changing it, and print what is risky.

    Returns:
        True if there is nothing to warn of.

    Raises:
        ConfigurationError: It cannot work.
        StorageError: The database cannot be reached.
    """
    backend = open_backend(url)
    try:
        require_there(backend)
        warnings = list(await backend.check()) if isinstance(backend, Checkable) else []
    finally:
        await backend.close()
    for warning in warnings:
        console.print(f"warning: {warning}")
    if not warnings:
        console.print("nothing to warn of")
    return not warnings

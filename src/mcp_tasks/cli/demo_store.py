"""Where the demo's server keeps its task: a file, a server started for it, or one that is there."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

import anyio.to_thread

from mcp_tasks.errors import ConfigurationError
from mcp_tasks.storage.base import Checkable, Initializable
from mcp_tasks.storage.urls import open_backend


if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from pathlib import Path

    from mcp_tasks.testing.servers import ServerProcess


_SERVERS = ("redis", "postgres", "dynamodb")


class DemoStore(NamedTuple):
    """A store for the demo.

    Attributes:
        url: Where it is.
        environment: What a process needs in its environment to use it.
        words: What to call it.
    """

    url: str
    environment: Mapping[str, str]
    words: str


@asynccontextmanager
async def demo_store(name: str, folder: Path) -> AsyncGenerator[DemoStore]:
    """Give a store that can be used at once.

    Args:
        name: `sqlite`, the name of a server that is started for it and stopped again, or a URL.
        folder: Where a file may go.

    Raises:
        ConfigurationError: The server is not installed, or the URL cannot work.
        StorageError: The database cannot be reached.
    """
    if name == "sqlite":
        url = f"sqlite:///{(folder / 'tasks.db').as_posix()}"
        yield DemoStore(url, {}, "the SQLite file")
    elif name in _SERVERS:
        server = _server(name)
        try:
            await anyio.to_thread.run_sync(server.start)
            os.environ.update(server.environment)  # the set-up needs it, and so do its children
            await _set_up(server.url)
            yield DemoStore(server.url, server.environment, f"the {server.name} server")
        finally:
            await anyio.to_thread.run_sync(server.close)
    else:
        await _set_up(name)
        yield DemoStore(name, {}, f"the store behind {name.partition(':')[0]}://")


def _server(name: str) -> ServerProcess:
    try:
        from mcp_tasks.testing.servers import server_named  # noqa: PLC0415 - needs its extra
    except ModuleNotFoundError as error:
        msg = f"the servers come with an extra ({error.name}): pip install 'mcp-tasks[testing]'"
        raise ConfigurationError(msg) from error
    return server_named(name)


async def _set_up(url: str) -> None:
    backend = open_backend(url)
    try:
        if not backend.capabilities.durable:
            raise ConfigurationError(
                f"what {url.partition('://')[0]}:// keeps ends with its server, and the demo kills "
                "that; nothing was started. Leave --store out, or name a store that lasts"
            )
        if isinstance(backend, Initializable):
            await backend.initialize()
        elif isinstance(backend, Checkable):
            await backend.check()
    finally:
        await backend.close()

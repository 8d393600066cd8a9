"""Where a server's tasks are kept, and under which name.

Nothing is opened here: a place is found when the server is made, and the database is opened when
the first transport starts.
"""

from __future__ import annotations

import hashlib
import inspect
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import platformdirs

from mcp_tasks.errors import ConfigurationError
from mcp_tasks.storage.base import Reopenable
from mcp_tasks.storage.keys import encode
from mcp_tasks.storage.urls import open_backend
from mcp_tasks.store import TaskStore


if TYPE_CHECKING:
    from mcp_tasks.storage.base import StorageBackend
    from mcp_tasks.store import StoreConfig


ENVIRONMENT: Final = "MCP_TASKS_STORE"
"""The variable that names the store where the code does not."""

UNNAMED: Final = "mcp-server"
"""What the SDK calls a server that was given no name."""


class Place:
    """A store that can be opened, closed and opened again.

    Args:
        store: A URL, a backend, a store, or `None`: then `$MCP_TASKS_STORE`, else a SQLite file in
            the user's data directory.
        namespace: Whose tasks these are; `None` for the name of the server.
        server: The name of the server.
        file: Where the server was made, which names a server without a name in its default store.
        config: Limits and times; not with a store that has its own.

    Raises:
        ConfigurationError: The store cannot be named, or two servers could be taken for one.
    """

    def __init__(
        self,
        store: str | StorageBackend | TaskStore | None,
        *,
        namespace: str | None,
        server: str,
        file: str,
        config: StoreConfig | None,
    ) -> None:
        self._config = config
        self._store: TaskStore | None = None
        self._is_ours = False
        if isinstance(store, TaskStore):
            _check_own(store, namespace, config)
            self._store = store
            self._backend = store.backend
            self._namespace = store.keys.namespace
            return
        store = store or os.environ.get(ENVIRONMENT) or None
        if store is None:
            from mcp_tasks.storage.sqlite import SqliteBackend  # noqa: PLC0415 - needs its driver

            self._namespace = _default_name(server, file) if namespace is None else namespace
            self._backend: StorageBackend = SqliteBackend(default_file(self._namespace))
            self._is_ours = True
            return
        self._is_ours = isinstance(store, str)
        self._backend = open_backend(store) if isinstance(store, str) else store
        if namespace is None and server == UNNAMED and self._backend.capabilities.shared:
            raise ConfigurationError(
                "this server has no name, and others may use the same store; a worker would then "
                "run the tools of another server. Name it, MCPServer('my-server'), or pass "
                "namespace='my-server'"
            )
        self._namespace = server if namespace is None else namespace

    def __str__(self) -> str:
        return f"{self._backend!r}, namespace {self._namespace!r}"

    def open(self) -> TaskStore:
        """Return the store, for the running event loop. The database is opened at first use."""
        if self._store is None:
            self._store = TaskStore(self._backend, namespace=self._namespace, config=self._config)
        return self._store

    async def close(self) -> None:
        """Close what this place opened; memory is kept, for it would be lost.

        The store can be opened again, at the same place.
        """
        store, backend = self._store, self._backend
        if not self._is_ours or store is None or not backend.capabilities.durable:
            return
        self._store = None
        if isinstance(backend, Reopenable):
            self._backend = backend.reopen()
        await store.close()
        await backend.close()


def default_file(namespace: str) -> Path:
    """Return the file that keeps the tasks of `namespace` when no store is named."""
    folder = platformdirs.user_data_dir("mcp-tasks", appauthor=False)
    return Path(folder) / f"{encode(namespace)}.db"


def caller_file() -> str:
    """Return the file of the code that called into this package."""
    package = __name__.partition(".")[0]
    frame = inspect.currentframe()
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name != package and not name.startswith(f"{package}."):
            return str(Path(frame.f_code.co_filename).absolute())
        frame = frame.f_back
    return ""


def _default_name(server: str, file: str) -> str:
    """Name the tasks of a server in its default store.

    The default store is the user's, shared by all servers of theirs that have no name; the file
    that makes the server tells them apart, and is the same after a restart.
    """
    if server != UNNAMED:
        return server
    return f"{UNNAMED}-{hashlib.sha256(file.encode()).hexdigest()[:12]}"


def _check_own(store: TaskStore, namespace: str | None, config: StoreConfig | None) -> None:
    if namespace is not None and namespace != store.keys.namespace:
        raise ConfigurationError(
            f"namespace={namespace!r}, but the store has {store.keys.namespace!r}; leave one out"
        )
    if config is not None and config != store.config:
        raise ConfigurationError("the store has a config of its own; leave config= out")

"""What `Tasks` is given, looked at before anything is made of it."""

from __future__ import annotations

import inspect

from mcp.server.lowlevel import Server
from mcp.server.mcpserver import MCPServer

from mcp_tasks.errors import ConfigurationError
from mcp_tasks.runner import RunnerConfig
from mcp_tasks.settings import check_type
from mcp_tasks.store import StoreConfig, TaskStore


def check_arguments(
    *,
    store: object,
    namespace: object,
    worker: object,
    owner_of: object,
    around_run: object,
    signals: object,
    config: object,
    runner_config: object,
) -> None:
    """Refuse at once what cannot work; a server would find out at its first task.

    Raises:
        ConfigurationError: An argument that cannot be what it is called. Says what to pass.
    """
    _check_store(store)
    check_type("namespace", namespace, str, optional=True)
    check_type("worker", worker, bool)
    check_type("signals", signals, bool)
    check_type("config", config, StoreConfig, optional=True)
    check_type("runner_config", runner_config, RunnerConfig, optional=True)
    _check_function("owner_of", owner_of, "a plain def from a request to an owner, or None")
    _check_function(
        "around_run",
        around_run,
        "a function from a TaskContext to an async context manager, as @asynccontextmanager makes "
        "one",
    )


def check_server(server: object) -> None:
    """Refuse what is no server.

    Raises:
        ConfigurationError: Says what to pass.
    """
    if not isinstance(server, MCPServer | Server):
        raise ConfigurationError(
            f"a {type(server).__name__} is no server; pass the MCPServer, or the low-level Server, "
            "that has the tools, and not an application made of it"
        )


def _check_store(store: object) -> None:
    if store is None or isinstance(store, str | TaskStore) or hasattr(store, "put_if_version"):
        return
    # Not the value: a URL in bytes would show its password.
    raise ConfigurationError(
        f"store is a {type(store).__name__}; pass a URL such as 'sqlite:///tasks.db', a backend or "
        "a TaskStore"
    )


def _check_function(name: str, value: object, wanted: str) -> None:
    if value is None:
        return
    what = ""
    if inspect.iscoroutinefunction(value) or inspect.isasyncgenfunction(value):
        what = ", an async def"
    elif callable(value):
        return
    raise ConfigurationError(f"{name} is {value!r}{what}; it must be {wanted}")

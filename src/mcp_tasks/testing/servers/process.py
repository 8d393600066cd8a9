"""A database server of our own: one process on 127.0.0.1, with a folder that goes when it goes."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from mcp_tasks.errors import ConfigurationError


if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType


HOST = "127.0.0.1"
_PAUSE = 0.01
_LAST_WORDS = 2000


class ServerProcess:
    """Starts one server, stops exactly that one, and can kill it or start it again in between.

    Port and folder stay the same from the first `start` to `close`, so that a server that comes
    back is found where it was, with what it kept. As a context manager it is started and closed.

    Args:
        folder: Where it keeps its files; `None` for a new one, removed by `close`.
        patience: How many seconds it may take until it answers, or until it has ended.
    """

    name = "server"

    def __init__(self, folder: Path | None = None, *, patience: float = 60) -> None:
        self._temporary = folder is None
        self.folder = (folder or Path(tempfile.mkdtemp(prefix="mcp-tasks-"))).absolute()
        self.port = free_port()
        self._patience = patience
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The store URL that a backend is opened with."""
        raise NotImplementedError

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process that opens `url` needs in its environment; usually nothing."""
        return {}

    @property
    def pid(self) -> int:
        """The running server's process id."""
        return self._running().pid

    def start(self) -> None:
        """Start it and return once it answers.

        Raises:
            ConfigurationError: It is not installed, ended at once, or did not answer in time; the
                message has its last words. Nothing is left running.
        """
        if self._process is not None:
            msg = f"{self.name} runs already, as process {self._process.pid}"
            raise ConfigurationError(msg)
        self._prepare()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the command is our own
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env={**os.environ, **self._settings()},
                user=self._user(),
            )
        until = time.monotonic() + self._patience
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                self._finish(signal.SIGTERM)
                msg = f"{self.name} did not come up; its last words:\n{self._last_words()}"
                raise ConfigurationError(msg)
            time.sleep(_PAUSE)

    def kill(self) -> None:
        """End it as a crash does (SIGKILL), and wait until it is gone."""
        self._running()
        self._finish(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)

    def stop(self) -> None:
        """End it in order, and wait until it is gone. Nothing happens when it does not run."""
        if self._process is not None:
            self._finish(signal.SIGTERM)

    def close(self) -> None:
        """Stop it and remove the folder, if it was a temporary one."""
        self.stop()
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _prepare(self) -> None:
        """Make what the server wants to find before it starts."""

    def _command(self) -> Sequence[str]:
        """Return what to run."""
        raise NotImplementedError

    def _settings(self) -> Mapping[str, str]:
        """Return what to add to the server's own environment."""
        return {}

    def _user(self) -> int | None:
        """Return the id of the user to run as (the caller must be root); `None` for its own."""
        return None

    def _answers(self) -> bool:
        """Say whether clients can use it now."""
        with suppress(OSError), socket.create_connection((HOST, self.port), 1):
            return True
        return False

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            msg = f"{self.name} does not run"
            raise ConfigurationError(msg)
        return self._process

    def _finish(self, how: signal.Signals) -> None:
        process, self._process = self._running(), None
        with suppress(ProcessLookupError):
            process.send_signal(how)
        try:
            process.wait(self._patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    @property
    def _log(self) -> Path:
        return self.folder / "server.log"

    def _last_words(self) -> str:
        return self._log.read_text(errors="replace")[-_LAST_WORDS:]


def free_port() -> int:
    """Return a loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port

"""Noticing at once that a process on the same machine is dead.

Each worker holds a lock on a file named by its incarnation; the operating system lets go of it when
the process ends, however it ends. Whoever can have the lock knows that the worker is dead. Anything
else (the lock is held, the file is missing, it was written on another machine) says nothing, and
the lease decides.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import uuid
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs


if TYPE_CHECKING:
    from typing import IO


if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: IO[bytes]) -> bool:
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
else:
    import fcntl

    def _try_lock(file: IO[bytes]) -> bool:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True


# POSIX gives a process its own locks again, and drops them when it closes any descriptor of the
# file: so the files that this process has locked are never touched a second time.
_held: set[str] = set()

if hasattr(os, "register_at_fork"):  # a child has none of its parent's locks
    os.register_at_fork(after_in_child=_held.clear)


@cache
def host_id() -> str:
    """Name this machine since its last start, so that a file of another one is told apart."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    # Without a boot id (macOS, Windows) the machine itself: a lock does not outlive a restart.
    return f"{platform.node()}-{uuid.getnode():012x}"


class ProcessLock:
    """A lock that this process holds until it ends.

    Args:
        path: The file; made if need be.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")
        if not _try_lock(self._file):
            self._file.close()
            raise OSError(f"{path} is locked by another process")
        _held.add(str(path))

    def release(self, *, remove: bool = True) -> None:
        """Let go of the lock.

        Args:
            remove: Remove the file too. One that stays says that its worker is dead.
        """
        if remove:
            with contextlib.suppress(OSError):
                self.path.unlink()
        self._file.close()
        _held.discard(str(self.path))


def lock_folder(backend: object) -> Path:
    """Return where the locks of a backend's workers lie: beside its file if it has one."""
    beside = getattr(backend, "lock_directory", None)
    if isinstance(beside, Path) and os.access(beside, os.W_OK):
        return beside
    return Path(platformdirs.user_state_dir("mcp-tasks")) / "workers"


def is_dead(path: str, host: str) -> bool:
    """Tell whether the worker that held the lock at `path` is surely dead.

    Args:
        path: Of the lock file.
        host: What `host_id` said where it was made.
    """
    if not path or path in _held or host != host_id():
        return False
    try:
        with Path(path).open("r+b") as file:
            return _try_lock(file)
    except OSError:
        return False


def forget(path: str) -> None:
    """Remove the lock file of a dead worker."""
    with contextlib.suppress(OSError):
        Path(path).unlink()

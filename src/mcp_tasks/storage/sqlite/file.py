"""The file behind the SQLite backend: how it is opened, what is in it, and what its errors mean.

Not for reading or writing records: that is `sqlite.py`. Format 1 is one table; a change to it needs
a new number, and a release reads a new format one version before it writes it.
"""

from __future__ import annotations

import errno
import os
import time
from typing import TYPE_CHECKING

import apsw

from mcp_tasks.errors import (
    BackendClosedError,
    StorageCorruptError,
    StorageFormatError,
    StorageFullError,
    StorageReadOnlyError,
    StorageUnavailableError,
)


if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from mcp_tasks.errors import StorageError


FORMAT = 1
APPLICATION_ID = 0x4D435054  # "MCPT"

# An ordinary table: a row of a WITHOUT ROWID table spills into overflow pages from 1 KB on. The
# key compares byte by byte, so that one owner's records are one range.
_SCHEMA = f"""
CREATE TABLE records(
    key TEXT NOT NULL UNIQUE COLLATE BINARY,
    version INTEGER NOT NULL,
    expires_at INTEGER,
    data BLOB NOT NULL
);
CREATE INDEX records_by_expiry ON records(expires_at) WHERE expires_at IS NOT NULL;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT};
"""

_RETRY_PAUSE = 0.01


# --- errors --------------------------------------------------------------------------------------

_FULL = (apsw.FullError,)
_READ_ONLY = (apsw.ReadOnlyError, apsw.PermissionsError, apsw.AuthError)
_CORRUPT = (
    apsw.ConstraintError,
    apsw.CorruptError,
    apsw.FormatError,
    apsw.MismatchError,
    apsw.NotADBError,
    apsw.SQLError,  # our statements are right; it is the table that is not the one we made
)
_CLOSED = (apsw.ConnectionClosedError, apsw.CursorClosedError)
_UNAVAILABLE = (
    apsw.AbortError,
    apsw.BusyError,
    apsw.CantOpenError,
    apsw.IOError,
    apsw.InterruptError,
    apsw.LockedError,
    apsw.NoLFSError,
    apsw.NoMemError,
    apsw.ProtocolError,
    apsw.SchemaChangeError,
    # These would be mistakes of ours. They still must not pass for anything but a failure.
    apsw.BindingsError,
    apsw.ConnectionNotClosedError,
    apsw.EmptyError,
    apsw.ExecTraceAbort,
    apsw.ExecutionCompleteError,
    apsw.ExtensionLoadingError,
    apsw.ForkingViolationError,
    apsw.IncompleteExecutionError,
    apsw.InternalError,
    apsw.InvalidContextError,
    apsw.MisuseError,
    apsw.NoFTS5Error,
    apsw.NotFoundError,
    apsw.RangeError,
    apsw.ThreadingViolationError,
    apsw.TooBigError,
    apsw.VFSFileClosedError,
    apsw.VFSNotImplementedError,
)

# A COMMIT that fails like this has written nothing. After any other failure the transaction may
# still be found, complete, in the log that a recovery reads.
COMMIT_WROTE_NOTHING = (apsw.BusyError, *_FULL, *_READ_ONLY)


class DriverErrors:
    """A context manager that turns the driver's exceptions into ours, naming the file.

    Reusable, and cheap enough for every read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, (apsw.Error, OSError)):
            raise self.translate(error) from error

    def translate(self, error: apsw.Error | OSError) -> StorageError:
        """Return what `error` means to a caller of the backend."""
        where = str(self._path)
        reason = str(error) or type(error).__name__
        if isinstance(error, OSError):
            return _from_os(error, where)
        if isinstance(error, _FULL) or _is_full(error):
            return StorageFullError(where, reason)
        if isinstance(error, _READ_ONLY):
            return StorageReadOnlyError(where, reason)
        if isinstance(error, _CORRUPT):
            return StorageCorruptError(where, reason)
        if isinstance(error, _CLOSED):
            return BackendClosedError()
        if isinstance(error, apsw.CantOpenError) and self._cannot_write():
            return StorageReadOnlyError(where, reason)
        # Everything in `_UNAVAILABLE`, and what a later driver may add.
        return StorageUnavailableError(f"{where}: {reason}")

    def _cannot_write(self) -> bool:
        """Tell whether access rights explain that the file, or those beside it, did not open."""
        for place in (self._path.parent, self._path):
            if place.exists() and not os.access(place, os.R_OK | os.W_OK):
                return True
        return False


def mapped_exceptions() -> tuple[type[apsw.Error], ...]:
    """Return the driver's exceptions that have a place in the table above."""
    return (*_FULL, *_READ_ONLY, *_CORRUPT, *_CLOSED, *_UNAVAILABLE)


def _is_full(error: apsw.Error) -> bool:
    # No room for the shared-memory file beside the database is reported as a failed read or write.
    return getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_SHMSIZE


def _from_os(error: OSError, where: str) -> StorageError:
    reason = error.strerror or str(error)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StorageReadOnlyError(where, reason)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFullError(where, reason)
    return StorageUnavailableError(f"{where}: {reason}")


# --- opening -------------------------------------------------------------------------------------


def open_writer(path: Path, *, busy_timeout: float) -> apsw.Connection:
    """Open the file for writing, and make it and its folder where there is none.

    Several processes may do this at once. May wait up to `busy_timeout` seconds for them.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + busy_timeout
    while True:
        connection = apsw.Connection(str(path))
        try:
            _prepare(connection, path, busy_timeout)
        except apsw.BusyError:
            # Turning a new file to WAL does not wait for others who do the same, it fails.
            connection.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_PAUSE)
        except BaseException:
            connection.close()
            raise
        else:
            return connection


def open_reader(path: Path, *, busy_timeout: float) -> apsw.Connection:
    """Open a file that `open_writer` opened before, for reading only."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    connection.set_busy_timeout(round(busy_timeout * 1000))
    connection.execute("PRAGMA query_only = 1").fetchall()
    return connection


def _prepare(connection: apsw.Connection, path: Path, busy_timeout: float) -> None:
    connection.set_busy_timeout(round(busy_timeout * 1000))
    if connection.readonly("main"):
        raise StorageReadOnlyError(str(path), "the file is read-only")
    connection.execute("BEGIN").fetchall()  # one state of the file: others may be making it now
    there = _check_format(connection, path)
    connection.execute("COMMIT").fetchall()
    # For a new file: a page of a listing reads half as many, and a commit costs the same.
    connection.execute("PRAGMA page_size = 8192").fetchall()
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    # A commit is on the disk before it is acknowledged; on macOS that takes more than fsync.
    connection.execute("PRAGMA synchronous = FULL").fetchall()
    connection.execute("PRAGMA fullfsync = 1").fetchall()
    connection.execute("PRAGMA cache_size = -16000").fetchall()
    connection.execute("PRAGMA journal_size_limit = 67108864").fetchall()
    if not there:
        connection.execute("BEGIN IMMEDIATE").fetchall()
        # Looked at again: another process may have made the table since.
        if not _check_format(connection, path):
            connection.execute(_SCHEMA).fetchall()
        connection.execute("COMMIT").fetchall()


def _check_format(connection: apsw.Connection, path: Path) -> bool:
    """Tell whether our table is there; refuse a file that is another's, or newer than we know."""
    application = int(connection.pragma("application_id") or 0)
    version = int(connection.pragma("user_version") or 0)
    if application == APPLICATION_ID:
        if version > FORMAT:
            raise StorageFormatError(str(path), version, FORMAT)
        return True
    in_use = connection.execute("SELECT EXISTS (SELECT 1 FROM sqlite_schema)").fetchall()[0][0]
    if application or version or in_use:
        raise StorageCorruptError(str(path), "it belongs to another application")
    return False

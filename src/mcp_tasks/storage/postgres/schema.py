"""The table: how it is made, how it is recognised, and what a database has to be for it.

Its format stands in its comment. A change to the table is another entry of `STEPS`, which makes
another format; a release reads a new format one version before it writes it.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, NamedTuple

from mcp_tasks.errors import ConfigurationError, StorageFormatError


if TYPE_CHECKING:
    from mcp_tasks.storage.postgres.driver import Connection
    from mcp_tasks.storage.postgres.options import PostgresOptions


OLDEST = 13

# What makes format n out of format n - 1. The key compares byte by byte, so that one owner's
# records are one range. A body is mostly JSON that somebody reads soon: not worth compressing.
# The room left in each page lets a change of a record stay on its page, and leave the indexes
# alone.
STEPS = (
    """
CREATE TABLE {table} (
    key text COLLATE "C" PRIMARY KEY,
    version bigint NOT NULL,
    expires_at timestamptz,
    data bytea NOT NULL
) WITH (fillfactor = 70);
ALTER TABLE {table} ALTER COLUMN data SET STORAGE EXTERNAL;
CREATE INDEX ON {table} (expires_at) WHERE expires_at IS NOT NULL;
""",
)

_COLUMNS = {
    "key": 'text COLLATE "C"',
    "version": "bigint",
    "expires_at": "timestamp with time zone",
    "data": "bytea",
}
_COMMENT = re.compile(r"mcp-tasks format (\d+)\b")

_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('mcp-tasks ' || $1, 0))"
# A name is looked up among what is there now, everything else among what was there when the
# statement began. So a table counts once its row of `pg_class` is seen, as its comment then is.
_INSPECT = """
SELECT
    current_setting('server_encoding'),
    found.oid IS NOT NULL,
    obj_description(found.oid, 'pg_class'),
    ARRAY(
        SELECT a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
            || coalesce(' COLLATE "' || nullif(c.collname, 'default') || '"', '')
        FROM pg_attribute AS a LEFT JOIN pg_collation AS c ON c.oid = a.attcollation
        WHERE a.attrelid = found.oid AND a.attnum > 0 AND NOT a.attisdropped
    )::text[]
FROM (SELECT to_regclass($1) AS oid) AS named LEFT JOIN pg_class AS found USING (oid)
"""
_PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE")
_EXAMINE = """
SELECT
    has_table_privilege(oid, 'SELECT'), has_table_privilege(oid, 'INSERT'),
    has_table_privilege(oid, 'UPDATE'), has_table_privilege(oid, 'DELETE'),
    relpersistence::text
FROM pg_class WHERE oid = to_regclass($1)
"""
_DURABILITY = """
SELECT
    current_setting('fsync'), current_setting('full_page_writes'),
    current_setting('synchronous_commit'), current_setting('statement_timeout')
"""


class Found(NamedTuple):
    """What is in the place of the table.

    Attributes:
        format: Its format; 0 if there is no table.
        columns: Its columns, `name type`.
    """

    format: int
    columns: list[str]


async def inspect(connection: Connection, options: PostgresOptions) -> Found:
    """Look at what is there.

    Raises:
        ConfigurationError: The server is too old, its encoding does not do, or the table is not
            one of ours.
        StorageFormatError: It is one of a newer release.
    """
    major = connection.get_server_version()[0]
    if major < OLDEST:
        msg = f"this is PostgreSQL {major}; mcp-tasks needs {OLDEST} or newer"
        raise ConfigurationError(msg)
    row = (await connection.fetch(_INSPECT, options.identifier))[0]
    encoding, is_there, comment, columns = row[0], row[1], row[2], list(row[3])
    if encoding != "UTF8":
        msg = f"the database has the encoding {encoding}; mcp-tasks needs one with UTF8"
        raise ConfigurationError(msg)
    if not is_there:
        return Found(0, [])
    marked = _COMMENT.match(comment or "")
    if marked is None:
        msg = (
            f"table {options.table!r} is another's: its comment does not begin with "
            "'mcp-tasks format'; nothing was changed. Choose another name with table="
        )
        raise ConfigurationError(msg)
    format_ = int(marked[1])
    if format_ > len(STEPS):
        raise StorageFormatError(f"table {options.table!r}", format_, len(STEPS))
    return Found(format_, columns)


async def ensure(connection: Connection, options: PostgresOptions) -> list[str]:
    """Have the table in today's format. Several processes may do this at once.

    Returns:
        What was done, a sentence each; nothing if all was there.

    Raises:
        ConfigurationError: It is not there and may not be made, or it is something else.
        StorageFormatError: It is one of a newer release.
    """
    found = await inspect(connection, options)
    done: list[str] = []
    if found.format < len(STEPS):
        if not options.create:
            raise ConfigurationError(_missing(options, found))
        done = await _bring_up_to_date(connection, options)
        found = await inspect(connection, options)
    _compare(found, options)
    return done


async def examine(connection: Connection, options: PostgresOptions) -> list[str]:
    """Look at table, rights and settings, and change nothing.

    Returns:
        What is risky, a sentence each.

    Raises:
        ConfigurationError: It cannot work.
        StorageFormatError: The table is one of a newer release.
    """
    found = await inspect(connection, options)
    if found.format < len(STEPS):
        if not options.create or not await _may_create(connection, options):
            raise ConfigurationError(_missing(options, found))
    else:
        _compare(found, options)
    warnings: list[str] = []
    for row in await connection.fetch(_EXAMINE, options.identifier):
        lacking = [name for name, has in zip(_PRIVILEGES, row[:4], strict=True) if not has]
        if lacking:
            msg = f"the role lacks {', '.join(lacking)} on table {options.table!r}; GRANT it"
            raise ConfigurationError(msg)
        if row[4] == "u":
            warnings.append(
                f"Table {options.table!r} is unlogged: a crash of the server empties it. "
                f"Run ALTER TABLE {options.identifier} SET LOGGED."
            )
    fsync, full_pages, commit, limit = (await connection.fetch(_DURABILITY))[0]
    if "off" in (fsync, full_pages):
        warnings.append(
            "fsync or full_page_writes is off: a crash of the machine may lose or damage "
            "everything. Turn them on."
        )
    if commit == "off":
        warnings.append(
            "synchronous_commit is off: a crash of the server loses acknowledged writes of the "
            "last moments. Set it to on for this role."
        )
    if limit == "0":
        warnings.append(
            "There is no statement_timeout, so a stuck statement ends with an unknown outcome. "
            "Set one for this role (ALTER ROLE … SET statement_timeout)."
        )
    return warnings


async def _bring_up_to_date(connection: Connection, options: PostgresOptions) -> list[str]:
    await connection.execute("BEGIN")
    try:
        await connection.fetch(_LOCK, options.table)
        # Looked at again: another process may have done it since.
        before = (await inspect(connection, options)).format
        for step in STEPS[before:]:
            await connection.execute(step.format(table=options.identifier))
        if before < len(STEPS):
            await connection.execute(
                f"COMMENT ON TABLE {options.identifier} IS 'mcp-tasks format {len(STEPS)}'"
            )
        await connection.execute("COMMIT")
    except asyncio.CancelledError:
        connection.terminate()
        raise
    except Exception:
        if not connection.is_closed():
            await connection.execute("ROLLBACK")
        raise
    if before == len(STEPS):
        return []
    if before == 0:
        return [f"Made table {options.table!r}, format {len(STEPS)}."]
    return [f"Brought table {options.table!r} from format {before} to {len(STEPS)}."]


async def _may_create(connection: Connection, options: PostgresOptions) -> bool:
    schema, dot, _ = options.identifier.rpartition(".")
    place = "to_regnamespace($1)" if dot else "to_regnamespace(coalesce($1, current_schema()))"
    rows = await connection.fetch(
        f"SELECT coalesce(has_schema_privilege({place}, 'CREATE'), false)", schema if dot else None
    )
    return bool(rows[0][0])


def _compare(found: Found, options: PostgresOptions) -> None:
    wanted = {f"{name} {kind}" for name, kind in _COLUMNS.items()}
    lacking = wanted.difference(found.columns)
    if lacking:
        msg = (
            f"table {options.table!r} is not as mcp-tasks made it: it lacks "
            f"{', '.join(sorted(lacking))}; it has {', '.join(found.columns)}"
        )
        raise ConfigurationError(msg)


def _missing(options: PostgresOptions, found: Found) -> str:
    state = f"has format {found.format}, not {len(STEPS)}" if found.format else "is not there"
    return (
        f"table {options.table!r} {state}, and this role or create=false does not let it be made; "
        "nothing was changed. Run 'mcp-tasks init URL' once, as a role with CREATE on the schema"
    )

"""The SQL of the six methods, each over as many rows as wait together.

Rules that hold for all of them:

- Keys of one statement are distinct, and sorted: two statements that meet on several rows then lock
  them in one order, so that none waits for the other in a circle.
- A row past its `expires_at` is treated as if it were not there, by the server's clock at the
  moment when the row is looked at.
- A swap and a create return the rows that were *not* written, with the version that stands in their
  way as it was when the statement began: usually nothing comes back. If that version is the
  expected one, somebody wrote in between, and the statement is simply sent again.
"""

# ruff: noqa: S608 - all that is put into the SQL is the quoted name of the table

from __future__ import annotations

from typing import NamedTuple


class Statements(NamedTuple):
    """The SQL for one table. `n` counts the rows of a statement from 1."""

    get: str
    put: str
    create: str
    swap: str
    delete: str
    forward: str
    backward: str
    clean_up: str


def statements_for(table: str) -> Statements:
    """Return the SQL for `table`, which is quoted already."""
    alive = "(t.expires_at IS NULL OR t.expires_at > clock_timestamp())"
    # Read by a subquery for each row that was refused, and only for those.
    actual = (
        f"coalesce((SELECT t.version FROM {table} AS t WHERE t.key = asked.key AND {alive}), 0)"
    )
    refused = f"""
SELECT asked.n, {actual}
FROM unnest($1::text[]) WITH ORDINALITY AS asked(key, n)
WHERE asked.n NOT IN (SELECT written.n FROM written)
"""
    listing = f"""
SELECT t.key, t.data, t.version FROM {table} AS t
WHERE t.key >= $1 AND t.key < $2 AND t.key > $3 AND {alive}
"""
    return Statements(
        get=f"""
SELECT t.key, t.data, t.version FROM {table} AS t WHERE t.key = ANY($1::text[]) AND {alive}
""",
        put=f"""
INSERT INTO {table} AS t (key, expires_at, data, version)
SELECT asked.key, asked.expires_at, asked.data, 1
FROM unnest($1::text[], $2::timestamptz[], $3::bytea[]) AS asked(key, expires_at, data)
ON CONFLICT (key) DO UPDATE SET
    version = CASE WHEN {alive} THEN t.version + 1 ELSE 1 END,
    expires_at = excluded.expires_at,
    data = excluded.data
RETURNING t.key, t.version
""",
        create=f"""
WITH written AS (
    INSERT INTO {table} AS t (key, expires_at, data, version)
    SELECT asked.key, asked.expires_at, asked.data, 1
    FROM unnest($1::text[], $2::timestamptz[], $3::bytea[]) AS asked(key, expires_at, data)
    ON CONFLICT (key) DO UPDATE SET
        version = 1, expires_at = excluded.expires_at, data = excluded.data
        WHERE NOT {alive}
    RETURNING t.key
)
SELECT asked.n, {actual}
FROM unnest($1::text[]) WITH ORDINALITY AS asked(key, n)
WHERE asked.key COLLATE "C" NOT IN (SELECT written.key FROM written)
""",
        swap=f"""
WITH written AS (
    UPDATE {table} AS t
    SET version = t.version + 1, expires_at = asked.expires_at, data = asked.data
    FROM unnest($1::text[], $2::timestamptz[], $3::bytea[], $4::bigint[]) WITH ORDINALITY
        AS asked(key, expires_at, data, version, n)
    WHERE t.key = asked.key AND t.version = asked.version AND {alive}
    RETURNING asked.n
)
{refused}
""",
        delete=f"""
DELETE FROM {table} AS t USING unnest($1::text[]) WITH ORDINALITY AS asked(key, n)
WHERE t.key = asked.key
RETURNING asked.n, {alive}
""",
        forward=f"{listing} ORDER BY t.key LIMIT $4",
        backward=f"{listing} ORDER BY t.key DESC LIMIT $4",
        # Rows that a writer holds are left for the next time.
        clean_up=f"""
WITH removed AS (
    DELETE FROM {table} WHERE ctid = ANY (ARRAY(
        SELECT t.ctid FROM {table} AS t
        WHERE t.expires_at <= $1 AND t.expires_at <= clock_timestamp()
        ORDER BY t.expires_at LIMIT $2
        FOR UPDATE SKIP LOCKED
    ))
    RETURNING 1
)
SELECT count(*) FROM removed
""",
    )

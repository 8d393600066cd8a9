"""The table: made once, recognised, never taken from others; and what a database must allow."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.storage.postgres.witness import Witness

from mcp_tasks.errors import (
    ConfigurationError,
    StorageFormatError,
    StorageFullError,
    StorageReadOnlyError,
)
from mcp_tasks.storage.base import Checkable, Initializable
from mcp_tasks.storage.postgres import PostgresBackend, PostgresOptions, schema


if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mcp_tasks.storage.postgres.driver import Connection
    from mcp_tasks.testing.servers.postgres import PostgresServer


@pytest.fixture
async def backend(
    postgres_server: PostgresServer, options: PostgresOptions
) -> AsyncIterator[PostgresBackend]:
    """Give a backend whose table is not there yet."""
    backend = PostgresBackend(postgres_server.url, options)
    yield backend
    await backend.close()


@pytest.fixture
async def role(database: Connection, options: PostgresOptions) -> AsyncIterator[str]:
    """Give a role that may do nothing yet."""
    role = f"role_of_{options.table}"
    await database.execute(f"CREATE ROLE {role} LOGIN")
    yield role
    await database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def as_role(server: PostgresServer, role: str) -> str:
    """Return the URL for a role."""
    return f"postgresql://{role}@127.0.0.1:{server.port}/postgres"


# --- making it -----------------------------------------------------------------------------------


async def test_the_first_use_makes_the_table(
    backend: PostgresBackend, options: PostgresOptions, database: Connection
) -> None:
    """As the documentation shows it."""
    await backend.put("ada:t1", b"x")

    columns = await database.fetch(
        "SELECT a.attname, format_type(a.atttypid, a.atttypmod), c.collname, a.attstorage::text"
        " FROM pg_attribute AS a LEFT JOIN pg_collation AS c ON c.oid = a.attcollation"
        " WHERE a.attrelid = $1::text::regclass AND a.attnum > 0 ORDER BY a.attnum",
        options.identifier,
    )
    assert [tuple(column) for column in columns] == [
        ("key", "text", "C", "x"),
        ("version", "bigint", None, "p"),
        ("expires_at", "timestamp with time zone", None, "p"),
        ("data", "bytea", None, "e"),
    ]
    found = await database.fetch(
        "SELECT obj_description(oid, 'pg_class'), reloptions FROM pg_class WHERE oid ="
        " $1::text::regclass",
        options.identifier,
    )
    assert tuple(found[0]) == ("mcp-tasks format 1", ["fillfactor=70"])


async def test_initialize_says_what_it_did_and_may_be_called_again(
    backend: PostgresBackend, options: PostgresOptions
) -> None:
    """By whoever deploys, each time."""
    assert isinstance(backend, Initializable)

    assert await backend.initialize() == [f"Made table '{options.table}', format 1."]
    assert await backend.initialize() == []
    assert await backend.put("ada:t1", b"x") == 1


async def test_initialize_works_where_create_is_off(
    postgres_server: PostgresServer, options: PostgresOptions
) -> None:
    """That is what it is for: the application may then run without the right to create."""
    off = PostgresBackend(postgres_server.url, replace(options, create=False))

    assert len(await off.initialize()) == 1
    assert await off.put("ada:t1", b"x") == 1
    await off.close()


async def test_a_missing_table_is_an_error_where_create_is_off(
    postgres_server: PostgresServer, options: PostgresOptions
) -> None:
    """At start and at use, with what to do; and it works once that was done."""
    off = PostgresBackend(postgres_server.url, replace(options, create=False))

    for call in (off.check(), off.get("ada:t1"), off.put("ada:t1", b"x")):
        with pytest.raises(ConfigurationError, match="mcp-tasks init"):
            await call
    await off.initialize()
    assert await off.put("ada:t1", b"x") == 1
    await off.close()


async def test_a_table_dropped_under_way_is_an_error(
    backend: PostgresBackend, options: PostgresOptions, database: Connection
) -> None:
    """It is not made again behind the administrator's back."""
    await backend.put("ada:t1", b"x")
    await database.execute(f"DROP TABLE {options.identifier}")

    for call in (backend.get("ada:t1"), backend.put("ada:t1", b"x"), backend.list_by_prefix("a:")):
        with pytest.raises(ConfigurationError, match="is not there"):
            await call


async def test_many_make_the_table_at_once(
    postgres_server: PostgresServer, options: PostgresOptions, database: Connection
) -> None:
    """A deployment starts all of its processes together."""
    for number in range(10):
        table = replace(options, table=f"{options.table}_{number}")
        backends = [PostgresBackend(postgres_server.url, table) for _ in range(8)]

        versions = await asyncio.gather(*(backend.put("ada:t1", b"x") for backend in backends))

        for backend in backends:
            await backend.close()
        await database.execute(f"DROP TABLE {table.identifier}")
        assert sorted(versions) == list(range(1, 9))


_MAKE = """
import asyncio, sys
from mcp_tasks.storage.postgres import PostgresBackend
async def main():
    backend = PostgresBackend.from_url(sys.argv[1])
    print(await backend.put("ada:t1", b"x"))
    await backend.close()
asyncio.run(main())
"""


async def test_processes_make_the_table_at_once(
    postgres_server: PostgresServer, options: PostgresOptions
) -> None:
    """Each with its own connections."""
    url = f"{postgres_server.url}?table={options.table}"
    started = [
        subprocess.Popen(  # noqa: ASYNC220 - it does not wait for it
            [sys.executable, "-c", _MAKE, url],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(5)
    ]
    said = [process.communicate(timeout=60)[0].strip() for process in started]

    assert sorted(said) == ["1", "2", "3", "4", "5"]


async def test_a_table_in_a_schema_and_with_any_name(
    postgres_server: PostgresServer, database: Connection
) -> None:
    """Names are quoted, not pasted."""
    await database.execute('CREATE SCHEMA "my Schema"')
    backend = PostgresBackend(
        postgres_server.url, PostgresOptions(table='my Schema.Tasks"; DROP TABLE x')
    )
    try:
        assert await backend.put("ada:t1", b"x") == 1
        assert await backend.check() == []
        await backend.close()
    finally:
        await database.execute('DROP SCHEMA "my Schema" CASCADE')


async def test_a_missing_schema_is_an_error(postgres_server: PostgresServer) -> None:
    """It is not made: whose it is, somebody decides."""
    backend = PostgresBackend(postgres_server.url, PostgresOptions(table="nowhere.tasks"))

    for call in (backend.check(), backend.put("ada:t1", b"x"), backend.initialize()):
        with pytest.raises(ConfigurationError, match="nowhere"):
            await call
    await backend.close()


# --- recognising it ------------------------------------------------------------------------------


async def test_anothers_table_is_left_alone(
    backend: PostgresBackend, options: PostgresOptions, database: Connection
) -> None:
    """A wrong name in a configuration must not write into somebody's accounts."""
    await database.execute(f"CREATE TABLE {options.identifier} (name text)")

    for call in (backend.check(), backend.initialize(), backend.put("ada:t1", b"x")):
        with pytest.raises(ConfigurationError, match=r"another's.*nothing was changed"):
            await call
    assert await database.execute(f"ALTER TABLE {options.identifier} DROP name")


async def test_a_table_that_was_changed_is_described(
    backend: PostgresBackend, options: PostgresOptions, database: Connection
) -> None:
    """With what is wanted and what is there."""
    await backend.initialize()
    await database.execute(
        f'ALTER TABLE {options.identifier} ALTER key TYPE text COLLATE "default"'
    )

    for call in (backend.check(), backend.initialize(), backend.put("ada:t1", b"x")):
        with pytest.raises(ConfigurationError, match='lacks key text COLLATE "C"; it has key text'):
            await call


async def test_a_newer_format_is_left_alone(
    backend: PostgresBackend, options: PostgresOptions, database: Connection
) -> None:
    """An old release beside a new one says to upgrade, and does not guess."""
    await backend.initialize()
    await database.execute(f"COMMENT ON TABLE {options.identifier} IS 'mcp-tasks format 99'")

    for call in (backend.get("ada:t1"), backend.put("ada:t1", b"x")):
        with pytest.raises(StorageFormatError, match=r"format 99.*Upgrade mcp-tasks"):
            await call
    for call in (backend.check(), backend.initialize()):
        with pytest.raises(ConfigurationError, match=r"format 99.*Upgrade mcp-tasks"):
            await call


async def test_an_older_format_is_brought_up_to_date_once(
    postgres_server: PostgresServer,
    options: PostgresOptions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And not by who may not create."""
    old = PostgresBackend(postgres_server.url, options)
    await old.put("ada:t1", b"x")
    await old.close()
    step = "ALTER TABLE {table} ADD COLUMN more text"
    monkeypatch.setattr(schema, "STEPS", (*schema.STEPS, step))

    off = PostgresBackend(postgres_server.url, replace(options, create=False))
    with pytest.raises(ConfigurationError, match="has format 1, not 2"):
        await off.put("ada:t1", b"x")
    new = [PostgresBackend(postgres_server.url, options) for _ in range(3)]
    assert sorted(await asyncio.gather(*(each.put("ada:t1", b"y") for each in new))) == [2, 3, 4]
    assert await off.get("ada:t1")
    for each in (off, *new):
        await each.close()


# --- what the database allows --------------------------------------------------------------------


async def test_a_role_without_rights_is_told_which(
    postgres_server: PostgresServer, options: PostgresOptions, role: str, database: Connection
) -> None:
    """First to make the table, then to use it; with those of the documentation it works."""
    backend = PostgresBackend(as_role(postgres_server, role), options)
    assert isinstance(backend, Checkable)
    for call in (backend.check(), backend.put("ada:t1", b"x"), backend.initialize()):
        with pytest.raises(ConfigurationError, match="CREATE on the schema"):
            await call

    owner = PostgresBackend(postgres_server.url, options)
    await owner.initialize()
    await owner.close()
    with pytest.raises(ConfigurationError, match="lacks SELECT, INSERT, UPDATE, DELETE on table"):
        await backend.check()
    with pytest.raises(ConfigurationError, match="needs SELECT, INSERT, UPDATE and DELETE"):
        await backend.put("ada:t1", b"x")

    await database.execute(
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {options.identifier} TO {role}"
    )
    assert await backend.check() == []
    assert await backend.put("ada:t1", b"x") == 1
    assert await backend.put_if_version("ada:t1", b"x", 1) == 2
    assert await backend.delete("ada:t1") is True
    await backend.close()


async def test_a_role_with_the_documented_rights_makes_the_table(
    postgres_server: PostgresServer, options: PostgresOptions, role: str, database: Connection
) -> None:
    """CREATE on the schema, and no more."""
    await database.execute(f"GRANT CREATE ON SCHEMA public TO {role}")
    backend = PostgresBackend(as_role(postgres_server, role), options)

    assert await backend.check() == []
    assert await backend.initialize() == [f"Made table '{options.table}', format 1."]
    assert await backend.put("ada:t1", b"x") == 1
    await backend.close()


async def test_a_role_that_may_only_read_transactions_is_refused(
    postgres_server: PostgresServer, options: PostgresOptions, role: str, database: Connection
) -> None:
    """Before the first task, not with it."""
    await database.execute(f"ALTER ROLE {role} SET default_transaction_read_only = on")
    backend = PostgresBackend(as_role(postgres_server, role), options)

    for call in (backend.check(), backend.put("ada:t1", b"x"), backend.get("ada:t1")):
        with pytest.raises(StorageReadOnlyError, match="cannot be written"):
            await call
    await backend.close()


async def test_a_server_that_turns_read_only_is_said_to_be(
    postgres_server: PostgresServer, options: PostgresOptions, database: Connection
) -> None:
    """On connections that were open before; the next one looks for a server that takes writes."""
    witness = Witness()
    backend = PostgresBackend(postgres_server.url, options, connect=witness.connect)
    await backend.put("ada:t1", b"x")
    await database.execute("ALTER SYSTEM SET default_transaction_read_only = on")
    await database.fetch("SELECT pg_reload_conf()")
    try:
        async with asyncio.timeout(5):
            with pytest.raises(StorageReadOnlyError, match="cannot be written"):
                await _put_for_ever(backend)
    finally:
        await database.execute("SET default_transaction_read_only = off")
        await database.execute("ALTER SYSTEM RESET default_transaction_read_only")
        await database.fetch("SELECT pg_reload_conf()")

    assert witness.closed == witness.opened == 1
    async with asyncio.timeout(5):
        while True:
            with suppress(StorageReadOnlyError):
                assert await backend.put("ada:t1", b"y") > 1
                break
    await backend.close()


async def test_a_full_disk_is_said_to_be_full(
    backend: PostgresBackend, options: PostgresOptions, database: Connection
) -> None:
    """As the server reports it; others of the batch may still find room."""
    await backend.put("ada:t1", b"x")
    await database.execute(f"""
        CREATE FUNCTION full_{options.table}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF length(NEW.data) < 100 THEN RETURN NEW; END IF;
            RAISE 'could not extend file: No space left on device' USING ERRCODE = 'disk_full';
        END $$;
        CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON {options.identifier}
            FOR EACH ROW EXECUTE FUNCTION full_{options.table}()
    """)
    outcomes = await asyncio.gather(
        backend.put("ada:t1", b"y"), backend.put("ada:t2", bytes(100)), return_exceptions=True
    )
    await database.execute(f"DROP FUNCTION full_{options.table} CASCADE")

    assert outcomes[0] == 2
    assert isinstance(outcomes[1], StorageFullError)
    assert "No space left" in str(outcomes[1])
    assert await backend.put("ada:t2", bytes(100)) == 1


async def test_check_warns_of_what_loses_tasks(
    postgres_server: PostgresServer, options: PostgresOptions, database: Connection
) -> None:
    """Each warning says what to do; a sound database has none."""
    backend = PostgresBackend(postgres_server.url, options)
    await backend.initialize()
    assert await backend.check() == []
    await backend.close()
    await database.execute(f"ALTER TABLE {options.identifier} SET UNLOGGED")

    careless = PostgresBackend(
        f"{postgres_server.url}?synchronous_commit=off&statement_timeout=0", options
    )
    said = await careless.check()
    await careless.close()

    assert [warning for warning in said if "SET LOGGED" in warning]
    assert [warning for warning in said if "synchronous_commit is off" in warning]
    assert [warning for warning in said if "statement_timeout" in warning]


async def test_check_makes_nothing(
    backend: PostgresBackend, options: PostgresOptions, database: Connection
) -> None:
    """It only looks."""
    assert await backend.check() == []

    assert (await database.fetch("SELECT to_regclass($1)", options.identifier))[0][0] is None


async def test_a_database_of_another_encoding_is_refused(
    postgres_server: PostgresServer, database: Connection
) -> None:
    """Keys and their order are those of UTF-8."""
    await database.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C'")
    backend = PostgresBackend(postgres_server.url.removesuffix("postgres") + "latin")
    try:
        for call in (backend.check(), backend.put("ada:t1", b"x")):
            with pytest.raises(ConfigurationError, match="LATIN1"):
                await call
        await backend.close()
    finally:
        await database.execute("DROP DATABASE latin WITH (FORCE)")


async def test_a_wrong_database_or_role_is_an_error_that_says_so(
    postgres_server: PostgresServer,
) -> None:
    """At start and at use."""
    front = f"127.0.0.1:{postgres_server.port}"
    for url, words in (
        (f"postgresql://postgres@{front}/nowhere", "nowhere"),
        (f"postgresql://nobody-known@{front}/postgres", "nobody-known"),
        (f"postgresql://postgres@{front}/postgres?unknown_setting=x", "unknown_setting"),
    ):
        backend = PostgresBackend(url)
        for call in (backend.check(), backend.put("ada:t1", b"x"), backend.initialize()):
            with pytest.raises(ConfigurationError, match=words):
                await call
        await backend.close()


async def test_a_wrong_password_is_an_error_that_does_not_show_it(
    postgres_server: PostgresServer, role: str, database: Connection
) -> None:
    """Nor the right one."""
    await database.execute(f"ALTER ROLE {role} PASSWORD 'the-right-one'")
    rules = postgres_server.data / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text(f"host all {role} 127.0.0.1/32 scram-sha-256\n{before}")
    await database.fetch("SELECT pg_reload_conf()")
    try:
        await asyncio.sleep(0.1)
        url = as_role(postgres_server, f"{role}:a-wrong-one")
        backend = PostgresBackend(url)
        for call in (backend.check(), backend.put("ada:t1", b"x")):
            with pytest.raises(ConfigurationError, match="password authentication failed") as error:
                await call
            assert "wrong-one" not in repr(error.value) + repr(error.value.__cause__)
        await backend.close()
    finally:
        rules.write_text(before)
        await database.fetch("SELECT pg_reload_conf()")


async def _put_for_ever(backend: PostgresBackend) -> None:
    while True:
        await backend.put("ada:t1", b"x")

"""What a URL says, what the driver's errors mean, and that neither shows a password."""

from __future__ import annotations

import pickle
from importlib import import_module
from typing import Any, cast

import pytest

from mcp_tasks.errors import (
    ConfigurationError,
    MCPTasksError,
    StorageCorruptError,
    StorageFullError,
    StorageReadOnlyError,
    StorageUnavailableError,
)
from mcp_tasks.storage.postgres import NotifyingPostgresBackend, PostgresBackend, PostgresOptions
from mcp_tasks.storage.postgres.driver import (
    DRIVER_ERRORS,
    is_of_one_row,
    is_transient,
    may_have_happened,
    reason,
    state_of,
    translate,
)
from mcp_tasks.storage.postgres.options import parse
from mcp_tasks.storage.urls import open_backend


driver: Any = import_module("asyncpg")  # it has no types


def kinds(root: type[Exception]) -> set[type[Exception]]:
    """Return every exception of the driver that is a `root`."""
    found = cast("dict[str, object]", vars(driver.exceptions))
    return {kind for kind in found.values() if isinstance(kind, type) and issubclass(kind, root)}


def error(state: str, words: str = "the server's words", severity: str = "ERROR") -> Exception:
    """Return what the driver raises for a SQLSTATE."""
    return driver.PostgresError.new({"C": state, "M": words, "S": severity, "V": severity})


# --- URLs ----------------------------------------------------------------------------------------


def test_our_options_are_taken_out_and_the_rest_is_the_drivers() -> None:
    """Whatever it is, and as it was written."""
    parsed = parse(
        "postgresql://ada:p%40ss@a:1,b:2/tasks?sslmode=verify-full&table=app.tasks&create=false"
        "&prepared=off&pool=7&connect_timeout=2.5&timeout=30&application_name=a%26b"
    )

    assert parsed.dsn == (
        "postgresql://ada:p%40ss@a:1,b:2/tasks?sslmode=verify-full&application_name=a%26b"
    )
    assert parsed.options == PostgresOptions(
        table="app.tasks", create=False, prepared=False, pool=7, connect_timeout=2.5, timeout=30
    )
    assert not parsed.notify


def test_a_url_without_options_is_left_as_it_is() -> None:
    """With the defaults of everything."""
    url = "postgres://ada@db/tasks"

    assert parse(url) == (url, PostgresOptions(), False)
    assert parse(url + "?pool=4") == (url, PostgresOptions(), False)


def test_the_url_decides_which_backend_it_is() -> None:
    """Only one that is asked for hints can be watched."""
    assert type(open_backend("postgres://db/tasks")) is PostgresBackend
    assert type(open_backend("postgresql://db/tasks?notify=true")) is NotifyingPostgresBackend


@pytest.mark.parametrize(
    "query",
    [
        "create=perhaps",
        "prepared=",
        "notify=2",
        "pool=many",
        "pool=0",
        "timeout=0",
        "timeout=-1",
        "connect_timeout=soon",
        "table=",
        "table=a.b.c",
        "table=.a",
        f"table={'x' * 64}",
        "notify=true&prepared=false",
    ],
)
def test_an_option_that_cannot_work_is_an_error(query: str) -> None:
    """At once, and without the URL."""
    with pytest.raises(ConfigurationError) as caught:
        open_backend(f"postgresql://ada:secret@db/tasks?{query}")

    assert "secret" not in str(caught.value)
    assert "ada" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ada:secret@127.0.0.1:1/tasks?sslmode=secret",
        "postgresql://ada:secret@127.0.0.1:1/tasks?connect_timeout=0.1",
    ],
)
async def test_no_error_shows_the_url(url: str) -> None:
    """Not in its own words, and not in those of the driver's error behind it."""
    backend = PostgresBackend.from_url(url)
    for call in (backend.check(), backend.get("ada:t1")):
        with pytest.raises(MCPTasksError) as caught:
            await call
        shown = f"{caught.value!r} {caught.value} {caught.value.__cause__!r}"
        assert "secret" not in shown
    await backend.close()


# --- errors --------------------------------------------------------------------------------------


def test_every_exception_of_the_driver_is_one_that_is_caught() -> None:
    """A new kind is looked at before it reaches a user as something else."""
    public = {kind for kind in kinds(Exception) if not issubclass(kind, Warning)}

    assert len(public) > 200
    assert {kind for kind in public if not issubclass(kind, DRIVER_ERRORS)} == set()


def test_every_state_of_the_server_has_its_meaning() -> None:
    """And one that nobody knows is a failure, too."""
    # 08003 has words of its own.
    states = {state_of(kind("words")) for kind in kinds(driver.PostgresError)} - {"", "08003"}
    assert len(states) > 200
    for state in [*states, "ZZ999"]:
        meaning = translate(error(state), "mcp_tasks")
        assert isinstance(meaning, MCPTasksError)
        assert "the server's words" in str(meaning)
        assert pickle.loads(pickle.dumps(meaning)).args == meaning.args  # noqa: S301 - our own


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("25006", StorageReadOnlyError),
        ("53100", StorageFullError),
        ("53200", StorageUnavailableError),
        ("53300", StorageUnavailableError),
        ("55P03", StorageUnavailableError),
        ("57014", StorageUnavailableError),
        ("57P03", StorageUnavailableError),
        ("XX000", StorageUnavailableError),
        ("XX001", StorageCorruptError),
        ("XX002", StorageCorruptError),
        ("28P01", ConfigurationError),
        ("28000", ConfigurationError),
        ("3D000", ConfigurationError),
        ("3F000", ConfigurationError),
        ("42501", ConfigurationError),
        ("42P01", ConfigurationError),
        ("42703", ConfigurationError),
    ],
)
def test_what_a_state_means(state: str, kind: type[Exception]) -> None:
    """The cause decides what somebody can do about it."""
    assert type(translate(error(state), "mcp_tasks")) is kind


def test_what_may_have_happened_and_what_has_not() -> None:
    """An ERROR of the server has undone the statement; an end of the connection has not."""
    open_ends = [
        driver.ConnectionDoesNotExistError("closed in the middle of operation"),
        driver.InterfaceError("closed"),
        driver.InternalClientError("confused"),
        ConnectionResetError(104, "reset"),
        TimeoutError(),
        error("08006"),
        error("40003"),
        error("57P01", severity="FATAL"),
        error("57P02", severity="FATAL"),
        error("XX000", severity="PANIC"),
    ]
    undone = [error(state) for state in ("40001", "40P01", "57014", "55P03", "53100", "XX000")]

    assert [found for found in open_ends if not may_have_happened(found)] == []
    assert [found for found in undone if may_have_happened(found)] == []
    assert [is_transient(found) for found in undone] == [True, True, False, False, False, False]
    assert [is_of_one_row(found) for found in undone] == [False, False, False, True, True, False]


def test_the_details_of_an_error_are_not_shown() -> None:
    """They quote the row that was refused."""
    refused = driver.PostgresError.new(
        {"C": "23514", "M": "new row violates a check", "D": "Failing row contains (the-contents)"}
    )

    assert "the-contents" in str(refused)
    assert "the-contents" not in str(translate(refused, "mcp_tasks")) + reason(refused)

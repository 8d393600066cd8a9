"""`open_backend`: one line of configuration, and errors that say what to write instead."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mcp_tasks.errors import ConfigurationError
from mcp_tasks.storage import urls
from mcp_tasks.storage.memory import MemoryBackend
from mcp_tasks.storage.sqlite import SqliteBackend
from mcp_tasks.storage.urls import open_backend


if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_memory_is_a_store_of_its_own() -> None:
    """Two calls share nothing."""
    first, second = open_backend("memory://"), open_backend("memory://")

    assert isinstance(first, MemoryBackend)
    assert first is not second


def test_three_slashes_name_a_relative_path(in_folder: Path) -> None:
    """As SQLAlchemy has it."""
    assert _path("sqlite:///data/tasks.db") == in_folder / "data" / "tasks.db"


def test_a_relative_path_is_looked_up_once(
    in_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that changes its folder later keeps its tasks."""
    backend = open_backend("sqlite:///tasks.db")
    (in_folder / "elsewhere").mkdir()
    monkeypatch.chdir(in_folder / "elsewhere")

    assert repr(backend) == f"SqliteBackend({str(in_folder / 'tasks.db')!r})"


def test_four_slashes_name_an_absolute_path() -> None:
    """The fourth belongs to the path."""
    assert _path("sqlite:////var/lib/tasks.db") == Path("/var/lib/tasks.db")


def test_a_tilde_is_the_home_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration file has no shell that would expand it."""
    monkeypatch.setenv("HOME", "/home/ada")

    assert _path("sqlite:///~/tasks.db") == Path("/home/ada/tasks.db")


def test_a_path_may_be_percent_encoded(in_folder: Path) -> None:
    """It is a URL, and a folder may be called anything."""
    assert _path("sqlite:///my%20tasks%3F.db") == in_folder / "my tasks?.db"
    assert _path("sqlite:///my tasks.db") == in_folder / "my tasks.db"


def test_the_case_of_a_scheme_does_not_count() -> None:
    """Nor does it in any URL."""
    assert isinstance(open_backend("MEMORY://"), MemoryBackend)


def test_opening_makes_no_file(in_folder: Path) -> None:
    """It runs at import, before a fork and in tests; a file is made at first use."""
    open_backend("sqlite:///data/tasks.db")

    assert not list(in_folder.iterdir())


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqlite://", "three slashes"),
        ("sqlite://tasks.db", "three slashes"),
        ("sqlite://host/tasks.db", "three slashes"),
        ("sqlite:///", "memory://"),
        ("sqlite:///:memory:", "memory://"),
        ("sqlite:///tasks.db?mode=ro", "%3F"),
        ("memory://x", "nothing behind"),
        ("", "known are memory://"),
        ("tasks.db", "known are memory://"),
        ("sqlite:tasks.db", "known are memory://"),
        ("://x", "known are memory://"),
        ("mysql://localhost/tasks", "'mysql://'; known are memory://"),
        ("dynamodb://host/tasks", "name of the table"),
        ("dynamodb://tasks?pool=inf", "pool= takes a number"),
        ("dynamodb://tasks?pool=1.5", "pool= takes a whole number"),
        ("dynamodb://tasks?timeout=nan", "timeout= takes a number"),
        ("dynamodb://tasks?endpoint_url=localhost:8000", "such as http://localhost:8000"),
        ("postgresql://db?pool=inf", "pool= takes a number"),
        ("postgresql://db?pool=1.5", "pool= takes a whole number"),
        ("postgresql://db?timeout=nan", "timeout= takes a number"),
    ],
)
def test_a_url_that_cannot_work_says_what_to_write(url: str, says: str) -> None:
    """At start, not at the first task."""
    with pytest.raises(ConfigurationError, match=says):
        open_backend(url)


def test_every_scheme_is_among_the_known_ones() -> None:
    """Who mistypes one finds it in the error."""
    with pytest.raises(ConfigurationError) as caught:
        open_backend("valky://db")

    known = str(caught.value).partition("known are")[2]
    aliases = {"postgres"}
    for scheme in urls._ELSEWHERE.keys() - aliases:  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        assert f" {scheme}://…" in known


@pytest.mark.parametrize(
    ("url", "form"),
    [
        ("redis://ada:hunter2@{}/0", "redis://user:password@host:6379/0"),
        ("valkeys://ada:hunter2@{}/0", "redis://user:password@host:6379/0"),
        (
            "redis+sentinel://ada:hunter2@db,{}/service/0?sentinel_password=hunter2",
            "redis+sentinel://user:password@host:26379,host:26379/service/0",
        ),
        (
            "redis+cluster://ada:hunter2@db,{}",
            "redis+cluster://user:password@host:6379,host:6379",
        ),
        ("postgresql://ada:hunter2@{}/tasks", "postgresql://user:password@host:5432/database"),
        (
            "postgresql://ada:hunter2@db,{}/tasks?sslmode=require",
            "postgresql://user:password@host:5432/database",
        ),
    ],
)
@pytest.mark.parametrize(
    ("host", "part"),
    [
        ("db:notaport", "its port is no number from 1 to 65535"),
        ("db:0", "its port is no number from 1 to 65535"),
        ("db:65536", "its port is no number from 1 to 65535"),
        ("db:" + "9" * 5000, "its port is no number from 1 to 65535"),
        ("::1:6379", "an address of IPv6 stands in brackets"),
        ("[::1", "an address of IPv6 stands in brackets"),
        ("db,,db", "one of its hosts is empty"),
        ("d\u2105b", "its host is no name and no address"),
    ],
)
def test_the_wrong_part_of_an_address_is_named(url: str, form: str, host: str, part: str) -> None:
    """With the form of the whole, and nothing of what was given."""
    with pytest.raises(ConfigurationError) as caught:
        open_backend(url.format(host))

    said = str(caught.value)
    assert part in said
    assert said.endswith(f"its form is {form}")
    assert "hunter2" not in said
    assert "notaport" not in said


@pytest.mark.parametrize("sign", "/?#@[]")
@pytest.mark.parametrize(
    "url",
    [
        "redis://ada:hunter{}2@db/0",
        "redis+sentinel://ada:hunter{}2@db/service",
        "redis+cluster://ada:hunter{}2@db",
        "postgresql://ada:hunter{}2@db/tasks",
    ],
)
def test_a_password_that_is_not_encoded_is_not_taken_for_an_address(url: str, sign: str) -> None:
    """Its parts would be tried as hosts and ports, and logged as such."""
    with pytest.raises(ConfigurationError, match="are percent-encoded, '/' as %2F") as caught:
        open_backend(url.format(sign))

    assert "hunter" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("redis://ada:hunter2@db?db=hunter2", "its option 'db' has a value"),
        ("postgresql://ada:hunter2@db/tasks?hunter2", "its options are name=value"),
        ("postgresql://ada:hunter2@/tasks?host=db&port=hunter2", "its port is no number"),
    ],
)
def test_the_wrong_option_is_named(url: str, part: str) -> None:
    """Its value is not: it may be a password in the wrong place."""
    with pytest.raises(ConfigurationError) as caught:
        open_backend(url)

    assert part in str(caught.value)
    assert "hunter2" not in str(caught.value)


async def test_what_the_driver_refuses_later_is_named_too() -> None:
    """PostgreSQL's reads its URL when it connects."""
    for option in ("sslmode", "sslnegotiation", "target_session_attrs"):
        backend = open_backend(f"postgresql://ada:hunter2@127.0.0.1:1/tasks?{option}=hunter2")
        with pytest.raises(
            ConfigurationError, match=f"its option '{option}' has a value"
        ) as caught:
            await backend.put("ada:t1", b"")
        assert "hunter2" not in str(caught.value)
        await backend.close()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://db", "RedisBackend(single db:6379/0, prefix='mcp_tasks')"),
        ("rediss://ada:hunter2@[::1]:7/3?prefix=p", "RedisBackend(single [::1]:7/3, prefix='p')"),
        (
            "redis+sentinel://:hunter2@a,b:1/main/2?sentinel_password=hunter2",
            "RedisBackend(sentinel a:26379,b:1/main/2, prefix='mcp_tasks')",
        ),
        (
            "redis+cluster://ada:hunter2@a,b:1",
            "RedisBackend(cluster a:6379,b:1, prefix='mcp_tasks')",
        ),
        (
            "postgresql://ada:hunter2@db:7/tasks",
            "PostgresBackend(db:7/tasks, table='mcp_tasks')",
        ),
        (
            "postgresql://ada:hunter2@a,[::1]:7/my%20tasks?table=t&password=hunter2",
            "PostgresBackend(a:5432,[::1]:7/my tasks, table='t')",
        ),
        (
            "postgresql:///tasks?host=/run/pg,b&port=1,2&user=hunter2&notify=true",
            "NotifyingPostgresBackend(/run/pg:1,b:2/tasks, table='mcp_tasks')",
        ),
        ("postgresql://?dbname=d", "PostgresBackend(pg.example:8/d, table='mcp_tasks')"),
        ("postgresql://?service=main", "PostgresBackend(service main, table='mcp_tasks')"),
        ("postgresql://", "PostgresBackend(pg.example:8/of-env, table='mcp_tasks')"),
        ("dynamodb://tasks", "DynamoDBBackend(table='tasks', region='eu-north-1')"),
        (
            "dynamodb://jobs?region=eu-west-1&profile=p&endpoint_url=http://db:8000/",
            "DynamoDBBackend(table='jobs', region='eu-west-1', profile='p', endpoint='db:8000')",
        ),
    ],
)
def test_a_repr_says_where_the_store_is(
    url: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged at start, to be compared: the place, and neither user nor password."""
    for name, value in {
        "PGHOST": "pg.example",
        "PGPORT": "8" if "pg.example" in shown else "5432",
        "PGDATABASE": "of-env",
        "AWS_DEFAULT_REGION": "eu-north-1",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_DYNAMODB"):
        monkeypatch.delenv(name, raising=False)

    assert repr(open_backend(url)) == shown


@pytest.mark.parametrize(
    "url",
    [
        "mysql://ada:hunter2@db/tasks",
        "redis://:hunter2@db?timeout=hunter2",
        "redis://:hunter2@db?hunter=hunter2",
        "redis+sentinel://:hunter2@db",
        "redis+cluster://:hunter2@db/1",
        "postgresql://ada:hunter2@db/tasks?pool=hunter2",
        "dynamodb://ada:hunter2@tasks",
        "dynamodb://tasks?secret=hunter2",
        "hunter2@db://x",
        "ada:hunter2@db",
        "sqlite://ada:hunter2@db/tasks",
        "memory://hunter2",
        "hunter2/x://",
    ],
)
def test_no_error_shows_a_password(url: str) -> None:
    """Errors are logged, and logs are sent around."""
    with pytest.raises(ConfigurationError) as caught:
        open_backend(url)

    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(caught.value)


@pytest.fixture
def backend_without_its_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Add a scheme whose module is there and whose driver is not."""
    (tmp_path / "lonely_backend.py").write_text("import a_driver_that_is_not_there\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    lonely = urls._Scheme("lonely_backend", "LonelyBackend", "lonely")  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setitem(urls._ELSEWHERE, "lonely", lonely)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    yield
    sys.modules.pop("lonely_backend", None)


@pytest.mark.usefixtures("backend_without_its_driver")
def test_a_missing_driver_names_its_extra() -> None:
    """And the command that installs it."""
    with pytest.raises(ConfigurationError, match=r"pip install 'mcp-tasks\[lonely\]'") as caught:
        open_backend("lonely://ada:hunter2@db")

    assert "a_driver_that_is_not_there" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def _path(url: str) -> Path:
    backend = open_backend(url)
    assert isinstance(backend, SqliteBackend)
    return backend.path

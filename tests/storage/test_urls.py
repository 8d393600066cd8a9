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
    ],
)
def test_a_url_that_cannot_work_says_what_to_write(url: str, says: str) -> None:
    """At start, not at the first task."""
    with pytest.raises(ConfigurationError, match=says):
        open_backend(url)


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

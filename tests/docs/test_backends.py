"""`docs/backends/`: the figures in it are those of the code."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mcp_tasks import RunnerConfig
from mcp_tasks.storage.base import ChangeSource
from mcp_tasks.storage.dynamodb import DynamoDBBackend, DynamoDBOptions
from mcp_tasks.storage.dynamodb.options import parse
from mcp_tasks.storage.dynamodb.table import SHAPE
from mcp_tasks.storage.memory import MemoryBackend
from mcp_tasks.storage.postgres import PostgresBackend
from mcp_tasks.storage.redis import RedisBackend
from mcp_tasks.storage.sqlite import SqliteBackend
from mcp_tasks.testing import StorageBackendContract


if TYPE_CHECKING:
    from mcp_tasks.storage.base import StorageBackend


PAGES = Path(__file__).resolve().parents[2] / "docs" / "backends"
BACKENDS: dict[str, type[StorageBackend]] = {
    "memory": MemoryBackend,
    "sqlite": SqliteBackend,
    "postgres": PostgresBackend,
    "redis": RedisBackend,
    "dynamodb": DynamoDBBackend,
}


def page(name: str) -> str:
    """Return a page."""
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


def row(name: str) -> list[str]:
    """Return a row of the table to choose by, without its name."""
    found = re.search(rf"^\| {re.escape(name)} \|(.*)\|$", page("index"), re.MULTILINE)
    assert found is not None
    return [cell.strip() for cell in found[1].split(" | ")]


@pytest.mark.parametrize("name", BACKENDS)
def test_the_largest_record_is_what_the_backend_takes(name: str) -> None:
    """In the table and on its page."""
    limit = BACKENDS[name].capabilities.max_record_bytes  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType] - it stands on the class
    shown = f"{limit // 2**20} MiB" if limit % 2**20 == 0 else f"{limit // 1024} KiB"

    assert row("largest record")[list(BACKENDS).index(name)] == shown
    assert f"The largest record is {shown}" in page(name)


def test_the_table_tells_who_gives_hints() -> None:
    """As the code has it; PostgreSQL's is a class of its own."""
    gives = [hasattr(backend, "watch") for backend in BACKENDS.values()]

    assert [cell == "yes" for cell in row("hints of changes")] == gives
    assert hasattr(ChangeSource, "watch")


def test_the_times_of_sqlite_are_those_of_the_code() -> None:
    """Waiting for a writer, and for the clean-up."""
    waits = inspect.signature(SqliteBackend).parameters["busy_timeout"].default

    assert f"wait for up to {waits:g} seconds" in page("sqlite").replace("\n", " ")
    assert f"every {RunnerConfig().cleanup_every / 60:g} minutes" in page("sqlite")


def test_the_number_of_rules_is_right() -> None:
    """It grows."""
    tests = [name for name in dir(StorageBackendContract) if name.startswith("test_")]

    assert f"{len(tests)} tests of six methods" in page("index")


def test_every_option_of_dynamodb_has_its_row_and_its_default() -> None:
    """And the URL takes it."""
    shown = dict(re.findall(r"^\| `(\w+)` \| (?:`([^`]+)`)? ?\| ", page("dynamodb"), re.MULTILINE))
    there = {
        field.name: field.default for field in fields(DynamoDBOptions) if field.name != "table"
    }

    for name, default in there.items():
        assert shown[name] == ("" if default is None else f"{default:g}")
        value = "7" if default is not None else "http://eu" if name == "endpoint_url" else "eu"
        assert str(getattr(parse(f"dynamodb://t_1?{name}={value}"), name)).startswith(value)


def test_the_template_makes_the_table_that_init_makes() -> None:
    """Names, kinds, billing and expiry."""
    template = page("dynamodb").partition("```yaml")[2].partition("```")[0]

    for attribute in SHAPE["AttributeDefinitions"]:
        name, kind = attribute["AttributeName"], attribute["AttributeType"]
        assert f"AttributeName: {name}, AttributeType: {kind}" in template
    for key in SHAPE["KeySchema"]:
        assert f"AttributeName: {key['AttributeName']}, KeyType: {key['KeyType']}" in template
    assert f"BillingMode: {SHAPE['BillingMode']}" in template
    assert "AttributeName: expires_at, Enabled: true" in template


def test_the_policy_names_what_the_backend_calls() -> None:
    """No more and no less."""
    policy = json.loads(page("dynamodb").partition("```json")[2].partition("```")[0])
    source = Path(__file__).resolve().parents[2] / "src/mcp_tasks/storage/dynamodb/backend.py"
    called = set(re.findall(r'"((?:get|put|update|delete)_item|query)"', source.read_text()))

    allowed = {action.removeprefix("dynamodb:") for action in policy["Statement"][0]["Action"]}
    assert {name.replace("_", "").lower() for name in called} == {name.lower() for name in allowed}

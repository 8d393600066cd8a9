"""The tables of defaults are what the code has."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import runpy
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from typer.main import get_command

from mcp_tasks import Retry, RunnerConfig, StoreConfig, TaskHandle, Tasks, TasksClient
from mcp_tasks.cli.main import app

from .pages import DOCS_SRC, rows, sections


if TYPE_CHECKING:
    from collections.abc import Callable


PAGE = "configuration.md"
SECTIONS = sections(PAGE)
SECONDS = {"s": 1, "h": 3600, "day": 86400, "days": 86400}
BYTES = {"KiB": 1024, "MiB": 1024**2}


def value(cell: str) -> Any:
    """Read a default: Python in backticks, or a number with its unit."""
    if cell.startswith("`"):
        return ast.literal_eval(cell.strip("`"))
    number, _, unit = cell.partition(" ")
    if unit in SECONDS:
        return timedelta(seconds=float(number) * SECONDS[unit])
    return float(number) * BYTES[unit] if unit else float(number)


def table(heading: str) -> dict[str, Any]:
    """Read a table: names to values."""
    return {row[0].strip("`"): value(row[1]) for row in rows(SECTIONS[heading])}


def plain(there: Any) -> Any:
    """Bring a default of the code to the form of the page: a float that is a time is in seconds."""
    return float(there) if type(there) is int else there


def assert_same(shown: dict[str, Any], there: dict[str, Any]) -> None:
    """Compare; a time in seconds is shown with its unit."""
    assert shown.keys() == there.keys()
    for name, given in shown.items():
        in_code = plain(there[name])
        if isinstance(given, timedelta) and isinstance(in_code, float):
            in_code = timedelta(seconds=in_code)
        assert given == in_code, name


@pytest.mark.parametrize("config", [StoreConfig, RunnerConfig], ids=lambda c: c.__name__)
def test_the_table_of_a_config_is_complete_and_true(config: type[Any]) -> None:
    """Somebody sizes a machine by this table."""
    there = {field.name: field.default for field in dataclasses.fields(config)}

    assert_same(table(f"`{config.__name__}`"), there)


def test_the_table_of_retries_is_true() -> None:
    """How long a step tries is decided by it."""
    there = {field.name: field.default for field in dataclasses.fields(Retry)}
    assert there.pop("on") == (Exception,)

    assert_same(table("A step's `Retry`"), there)


def defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the defaults of a function's optional parameters."""
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is not inspect.Parameter.empty
        and parameter.kind is not inspect.Parameter.POSITIONAL_ONLY
    }


def test_the_table_of_install_is_complete_and_true() -> None:
    """Both ways in take the same."""
    shown = table("`Tasks.install`")

    assert shown == defaults(Tasks.install) == defaults(Tasks)


def test_the_table_of_a_tool_is_complete_and_true() -> None:
    """All three ways to make a tool take the same."""
    shown = table("A tool")

    assert_same(shown, defaults(Tasks.task))
    for register in (Tasks.tool, Tasks.add_tool):
        assert_same(shown, {name: defaults(register)[name] for name in shown})


def test_the_table_of_the_client_is_complete_and_true() -> None:
    """A handle that is resumed waits as long as the client that made it."""
    shown = table("`TasksClient`")

    assert_same(shown, defaults(TasksClient))
    assert_same(shown, defaults(TaskHandle.resume))


def test_what_is_fixed_is_true() -> None:
    """Names in the table are names in the code."""
    shown = table("Fixed")
    there: dict[str, Any] = {}
    for name in shown:
        module, _, constant = name.rpartition(".")
        there[name] = getattr(importlib.import_module(module), constant)

    assert_same(shown, there)


def test_the_environment_is_read_under_the_name_that_is_shown() -> None:
    """The one variable."""
    places = importlib.import_module("mcp_tasks.server.places")

    assert f"`{places.ENVIRONMENT}`" in SECTIONS["`Tasks.install`"]


def test_the_commands_that_read_the_environment_are_those_that_are_named() -> None:
    """The others look at whatever database they are told to."""
    command: Any = get_command(app)
    reads: dict[bool, set[str]] = {True: set(), False: set()}
    for name, one in command.commands.items():
        for parameter in one.params:
            if parameter.name in ("store", "url") and name != "demo":
                reads[parameter.envvar == "MCP_TASKS_STORE"].add(name)

    said = SECTIONS["`Tasks.install`"].partition("`--store` of")[2].partition("want the URL")[0]
    with_it, _, without = said.partition(".")
    named = [set(re.findall(r"`(?:mcp-tasks )?(\w+)`", part)) for part in (with_it, without)]
    assert named == [reads[True], reads[False]]


def test_the_example_works() -> None:
    """What the page shows is accepted."""
    names = runpy.run_path(str(DOCS_SRC / "configuration.py"))

    assert isinstance(names["tasks"], Tasks)

"""The manifest and the tests agree, in both directions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .requirements import REQUIREMENTS


TESTS = Path(__file__).parent
MARK = re.compile(r"mark\.requirement\(\s*\"([^\"]+)\"")


@pytest.fixture(scope="module")
def named() -> dict[str, set[str]]:
    """Return the files that name each id, found as text so that a chosen few tests suffice."""
    found: dict[str, set[str]] = {}
    for path in TESTS.rglob("*.py"):
        for name in MARK.findall(path.read_text(encoding="utf-8")):
            found.setdefault(name, set()).add(path.name)
    return found


def test_every_id_that_a_test_names_is_in_the_manifest(named: dict[str, set[str]]) -> None:
    """A typing mistake would prove nothing, silently."""
    assert {name: files for name, files in named.items() if name not in REQUIREMENTS} == {}


def test_every_requirement_has_a_test_or_a_reason(named: dict[str, set[str]]) -> None:
    """What nobody tests is known to be untested."""
    tested = {name for name, rule in REQUIREMENTS.items() if not rule.untested}

    assert tested - named.keys() == set()


def test_a_reason_is_dropped_once_there_is_a_test(named: dict[str, set[str]]) -> None:
    """Or the manifest would go on calling it deferred."""
    excused = {name for name, rule in REQUIREMENTS.items() if rule.untested}

    assert excused & named.keys() == set()

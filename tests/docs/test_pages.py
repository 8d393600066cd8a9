"""Pages show code that runs, and their links lead somewhere."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from .pages import DOCS, DOCS_SRC, PAGES, ROOT, anchors, included, name


if TYPE_CHECKING:
    from pathlib import Path


LINK = re.compile(r"\[[^\]]*\]\(\s*(?P<target>[^)\s]+)\)")
# Made by others than this page's authors, or told in prose: their blocks show a form, not a file.
FORMS = ("docs/decisions/", "docs/backends/", "CONTRIBUTING.md", "CHANGELOG.md")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_python_that_is_shown_is_a_whole_file(page: Path) -> None:
    """Code that nobody runs is wrong sooner or later."""
    source = page.read_text(encoding="utf-8")
    shown = included(source)

    for path, code in shown:
        assert code == (ROOT / path).read_text(encoding="utf-8"), f"the page differs from {path}"
    if not name(page).startswith(FORMS):
        assert len(shown) == source.count("```python")


def test_every_file_of_code_is_shown() -> None:
    """A file that no page shows is of no use to a reader."""
    shown = {path for page in PAGES for path, _ in included(page.read_text(encoding="utf-8"))}

    assert shown == {f"docs_src/{file.name}" for file in DOCS_SRC.glob("*.py")}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_to_a_heading_that_is_there(page: Path) -> None:
    """A reader who follows a link finds what it promised."""
    missing: list[str] = []
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = page if not path else (page.parent / path).resolve()
        if not there.exists() or (
            anchor and anchor not in anchors(there.read_text(encoding="utf-8"))
        ):
            missing.append(target)

    assert not missing


def test_every_page_is_on_the_map() -> None:
    """A page that the index does not name is not found."""
    index = (DOCS / "index.md").read_text(encoding="utf-8")

    for page in DOCS.glob("*.md"):
        assert page.name == "index.md" or f"({page.name})" in index


def test_nobody_is_told_to_install_what_is_not_released() -> None:
    """The README says how, and other pages say the same."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    is_released = "there is no published release yet" not in readme

    for page in PAGES:
        named = set(re.findall(r"pip install '?(\.|mcp-tasks)", page.read_text(encoding="utf-8")))
        assert named <= ({"mcp-tasks"} if is_released else {"."}), name(page)


def test_the_readme_is_short() -> None:
    """It is read before anybody has decided to use this."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150

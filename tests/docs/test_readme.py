"""The README shows what is in `docs_src/`, and its links lead somewhere."""

import re
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

INCLUDED = re.compile(r"<!-- (?P<path>docs_src/\S+) -->\n```python\n(?P<code>.*?)```\n", re.DOTALL)
LINK = re.compile(r"\]\((?P<target>[^)#\s]+)")


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_every_python_block_is_a_whole_file_that_runs() -> None:
    """Code that nobody runs is wrong sooner or later."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = [(match["path"], match["code"]) for match in INCLUDED.finditer(readme)]

    assert shown
    assert len(shown) == readme.count("```python")
    for path, code in shown:
        assert code == (ROOT / path).read_text(encoding="utf-8"), f"README differs from {path}"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    """A reader who follows a link finds a page there."""
    targets = [match["target"] for match in LINK.finditer(page.read_text(encoding="utf-8"))]

    missing = [
        target for target in targets if "://" not in target and not (page.parent / target).exists()
    ]

    assert not missing

"""The pages as tests see them: their blocks, headings, anchors and tables."""

from __future__ import annotations

import re
from pathlib import Path


ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
DOCS_SRC = ROOT / "docs_src"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])

_FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_INCLUDED = re.compile(r"<!-- (docs_src/\S+) -->\n```python\n(.*?)```\n", re.DOTALL)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def name(page: Path) -> str:
    """Name a page in the ids of tests."""
    return str(page.relative_to(ROOT))


def text(page: str) -> str:
    """Return a page of `docs/`."""
    return (DOCS / page).read_text(encoding="utf-8")


def prose(page: str) -> str:
    """Return a page of `docs/` without its blocks."""
    return _FENCED.sub("", text(page))


def included(source: str) -> list[tuple[str, str]]:
    """Return the files that a page shows, with what it shows of them."""
    return _INCLUDED.findall(source)


def anchors(source: str) -> set[str]:
    """Return what `#…` may name in a page, as GitHub makes it from headings."""
    found: dict[str, int] = {}
    for heading in _HEADING.findall(_FENCED.sub("", source)):
        slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        found[slug] = found.get(slug, 0) + 1
    repeated = {f"{slug}-{n}" for slug, times in found.items() for n in range(1, times)}
    return found.keys() | repeated


def sections(page: str) -> dict[str, str]:
    """Return the text under each heading of a page of `docs/`, up to the next heading."""
    parts = _HEADING.split(prose(page))
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rows(section: str) -> list[list[str]]:
    """Return the cells of the tables in a section, without their heads."""
    lines = [line for line in section.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    is_rule = [set("".join(row)) <= set("-: ") for row in cells]
    return [
        row
        for number, row in enumerate(cells)
        if not is_rule[number] and (number + 1 >= len(cells) or not is_rule[number + 1])
    ]


def pattern(shown: str) -> re.Pattern[str]:
    """Make a pattern of a text in which `…` stands for what differs."""
    return re.compile(".+".join(re.escape(part) for part in shown.split("…")), re.DOTALL)

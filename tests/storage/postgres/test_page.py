"""What `docs/backends/postgres.md` shows is what there is."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mcp_tasks.storage.postgres import PostgresOptions
from mcp_tasks.storage.postgres.options import parse
from mcp_tasks.storage.postgres.schema import STEPS


if TYPE_CHECKING:
    from mcp_tasks.storage.postgres.driver import Connection


PAGE = (Path(__file__).parents[3] / "docs" / "backends" / "postgres.md").read_text(encoding="utf-8")
SQL = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)


def test_the_table_is_the_one_that_is_made() -> None:
    """An administrator may make it by hand from there."""
    made = "".join(step.format(table='"mcp_tasks"') for step in STEPS).strip()

    assert SQL[0].strip() == (
        f"{made}\nCOMMENT ON TABLE \"mcp_tasks\" IS 'mcp-tasks format {len(STEPS)}';"
    )


async def test_every_statement_runs(database: Connection) -> None:
    """In the order of the page."""
    await database.execute("BEGIN; CREATE ROLE app")
    for statements in SQL:
        await database.execute(statements)
    for right in re.findall(r"`(GRANT .*?) TO …`", PAGE):
        await database.execute(f"{right} TO app")
    await database.execute("ROLLBACK")

    assert len(SQL) == 3


def test_every_option_has_its_row_and_its_default() -> None:
    """And the URL takes it."""
    shown = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", PAGE, re.MULTILINE))
    options = asdict(PostgresOptions()) | {"notify": False}

    assert set(shown) == set(options)
    for name, default in options.items():
        wanted = str(default).lower() if isinstance(default, bool) else default
        assert shown[name] == (f"{wanted:g}" if isinstance(wanted, (int, float)) else wanted)
        assert parse(f"postgresql://db?{name}={shown[name]}") == parse("postgresql://db")

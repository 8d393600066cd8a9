"""`python -m mcp_tasks.cli`: the `mcp-tasks` command where scripts are not on the path."""

from mcp_tasks.cli import main


main()

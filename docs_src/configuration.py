"""Where each setting goes."""

from datetime import timedelta

from mcp.server import MCPServer

from mcp_tasks import RunnerConfig, StoreConfig, TaskContext, Tasks


mcp = MCPServer("reports")
tasks = Tasks.install(
    mcp,
    store="memory://",
    config=StoreConfig(max_active=20, poll_interval=timedelta(milliseconds=200)),
    runner_config=RunnerConfig(max_running=16, drain=60),
)


@tasks.tool(resumable=True, ttl=timedelta(hours=2), poll_interval=timedelta(seconds=5))
async def build(task: TaskContext) -> str:
    """Build a report."""
    return f"built as {task.task_id}"

"""Runs handlers under a worker's lease, and takes over what dead workers leave."""

from mcp_tasks.runner.config import RunnerConfig
from mcp_tasks.runner.inline import InlineOperations
from mcp_tasks.runner.outcome import Body, Completed, Failed, HandedOut, Outcome, TaskRun
from mcp_tasks.runner.runner import Runner


__all__ = [
    "Body",
    "Completed",
    "Failed",
    "HandedOut",
    "InlineOperations",
    "Outcome",
    "Runner",
    "RunnerConfig",
    "TaskRun",
]

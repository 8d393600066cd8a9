"""The times and sizes of a runner, in one frozen table."""

from __future__ import annotations

from dataclasses import dataclass

from mcp_tasks.errors import ConfigurationError
from mcp_tasks.settings import check_type


_MAY_BE_ZERO = {
    "cancel_grace",
    "drain",
    "get_hold",
    "progress_every",
    "cleanup_every",
    "loop_watch",
}


@dataclass(frozen=True, kw_only=True)
class RunnerConfig:
    """Times are in seconds. Those of the lease must be the same in all processes.

    Attributes:
        max_running: Bodies at once in this process; further tasks wait as rows, for any worker.
        max_threads: Threads for plain `def` tools and steps.
        beat: Between two heartbeats of a worker.
        lease: A worker unchanged for so long, as another one sees it, is dead.
        fence: A worker without a good beat for so long takes itself for dead.
        scan: Between two looks for dead workers, give or take a fifth.
        look: Between two looks for tasks that wait, and for word from other processes.
        cancel_grace: A body that ignores its cancellation for so long is cut off.
        drain: How long running bodies may go on at shutdown.
        get_hold: How long a `get` waits for the next change of a task that runs here; 0 for not.
        progress_every: Between two writes that carry nothing but progress.
        cleanup_every: Between two clean-ups of what has expired, by one worker of the namespace;
            0 for none, when something else calls `TaskStore.cleanup_expired`.
        loop_watch: What keeps the event loop from turning for so long is named in a warning; 0 for
            no watch.
    """

    max_running: int = 128
    max_threads: int = 32
    beat: float = 5.0
    lease: float = 15.0
    fence: float = 10.0
    scan: float = 2.0
    look: float = 1.0
    cancel_grace: float = 10.0
    drain: float = 20.0
    get_hold: float = 0.05
    progress_every: float = 1.0
    cleanup_every: float = 600.0
    loop_watch: float = 1.0

    def __post_init__(self) -> None:
        """Refuse times with which a live worker would be taken for dead.

        Raises:
            ConfigurationError: Not `beat < fence < lease`, no room to run, or a value that is none.
        """
        for name, value in vars(self).items():
            default: object = getattr(RunnerConfig, name)
            check_type(f"RunnerConfig.{name}", value, type(default))
            may_be_zero = name in _MAY_BE_ZERO
            if value < 0 or (value == 0 and not may_be_zero):
                raise ConfigurationError(
                    f"RunnerConfig.{name} is {value!r}; it must be "
                    f"{'0 or more' if may_be_zero else 'more than 0'}"
                )
        if not 0 < self.beat < self.fence < self.lease:
            raise ConfigurationError(
                f"beat ({self.beat} s) must be less than fence ({self.fence} s), and fence less "
                f"than lease ({self.lease} s)"
            )

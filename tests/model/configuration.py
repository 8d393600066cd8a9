"""What is searched: who is there, what they do, and how much goes wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


Body = Literal["plain", "step", "hang", "wait", "talk", "park", "linger"]


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One small system. Processes are numbered, those that run tasks first.

    Attributes:
        name: For the table.
        workers: Processes that run tasks.
        servers: Processes that only serve.
        creates: Who creates which task.
        in_turn: Each create begins only after the one before was acknowledged.
        mode: What may be done when a worker is lost: nothing, run again, or resume.
        body: `plain` ends at once; `step` records a step first; `hang` runs until it is cancelled;
            `wait` waits for an answer in its process, `talk` does so and then hangs; `park` waits
            for its answers without a worker; `linger` waits in its process at first, as one does
            that has something else to do, and then without a worker.
        questions: How many a body asks, at once.
        cancels: Who asks for the end of which task, at any time after it was told the id.
        answers: Who answers which question of which task: (process, task, question).
        drains: Processes that may be told to stop.
        deliveries: Who is told by a queue to run which task, at any time, perhaps twice.
        kills: How many processes may die.
        lapses: How many leases may run out under a process that lives.
        lost: How many writes happen though nobody answers.
        late: How many writes nobody answers, and happen at any later time or never.
        unsure: Kinds of keys whose writes may go unanswered.
        restarts: How many dead processes come back.
        limit: Active tasks of the one owner; 0 for no roster at all.
        max_attempts: Lost attempts after which a task is given up.
        room: Entries in a block of a run sheet.
        trims: What is over leaves a sheet, though nothing is added to it.
        gives_up: Requests may end while a write of theirs is unanswered.
        ages: Tasks that may pass their time to live, and later be gone altogether.
        extends: Tasks whose worker lets them live longer.
        fences: A worker whose beats fail hands back what another may start.
        loops: A worker takes its own earlier incarnation over beside its other work, as the code
            does. Else the loop that looks for dead workers finds it.
        closely: Look at the named moments between two operations too.
        mistakes: What is wrong on purpose.
    """

    name: str
    workers: int = 2
    servers: int = 0
    creates: tuple[tuple[int, int], ...] = ((0, 0),)
    in_turn: bool = False
    mode: Literal["once", "rerun", "resume"] = "once"
    body: Body = "plain"
    questions: int = 1
    cancels: tuple[tuple[int, int], ...] = ()
    answers: tuple[tuple[int, int, int], ...] = ()
    drains: tuple[int, ...] = ()
    deliveries: tuple[tuple[int, int], ...] = ()
    kills: int = 1
    lapses: int = 0
    lost: int = 0
    late: int = 0
    unsure: tuple[str, ...] = ("task", "sheet", "worker", "roster")
    restarts: int = 0
    limit: int = 0
    max_attempts: int = 2
    room: int = 9
    trims: bool = False
    gives_up: bool = False
    ages: tuple[int, ...] = ()
    extends: tuple[int, ...] = ()
    fences: bool = False
    loops: bool = False
    closely: bool = False
    mistakes: frozenset[str] = frozenset()

    @property
    def tasks(self) -> int:
        """How many tasks there are."""
        return 1 + max(t for _, t in self.creates)

    @property
    def is_restartable(self) -> bool:
        """True when a body that may have begun can be started again."""
        return self.mode != "once"

    def is_wrong(self, mistake: str) -> bool:
        """Tell whether a mistake is planted."""
        return mistake in self.mistakes

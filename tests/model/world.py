"""A configuration as something to search: what clients ask for, what goes wrong, and time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.model.database import replaced
from tests.model.machine import Machine
from tests.model.processes import (
    AGES,
    LATE,
    LEFT,
    PROCESSES,
    PROMISES,
    THREADS,
    Left,
    Process,
)
from tests.model.rules import Promise
from tests.model.search import Step, ViolationError
from tests.model.store import (
    INDEX,
    LIVE,
    NOBODY,
    PARTS,
    ROSTER,
    TASKS,
    WORKERS,
    Found,
    delete,
    get,
    put,
    version_of,
)


if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.model.search import State


class World(Machine):
    """What `search` is given."""

    # --- states ----------------------------------------------------------------------------------

    def initial(self) -> list[State]:
        """All processes are up, and the creates are under way."""
        c = self.configuration
        processes = [Process(worker=w, latest=w) for w in range(c.workers)]
        processes += [Process(is_good=False)] * c.servers
        workers = tuple((("worker", w), Found(1, LIVE)) for w in range(c.workers))
        left = Left(
            c.kills,
            c.lapses,
            c.lost,
            c.late,
            c.restarts,
            c.cancels,
            c.answers,
            c.drains,
            c.deliveries,
            c.extends,
            c.creates[1:] if c.in_turn else (),
        )
        promises = (Promise(),) * c.tasks
        ages = (0,) * (c.tasks + 1)
        none: frozenset[Any] = frozenset()
        states: list[State] = [
            ((), (), (), workers, (), tuple(processes), none, promises, left, none, ages)
        ]
        for w in range(c.workers):
            states = self._all(states, w, "scan", (w,))
            states = self._all(states, w, "beat", (w,))
        for p, t in c.creates[:1] if c.in_turn else c.creates:
            states = self._all(states, p, *self._create(processes[p], t))
        return states

    @staticmethod
    def _create(process: Process, t: int) -> tuple[str, tuple[int, ...]]:
        """Name the actor that creates a task: it is run here, or waits for whoever can."""
        if process.is_good and not process.is_draining:
            return "create", (process.worker, t)
        return "create_ready", (t,)

    def _all(self, states: list[State], p: int, name: str, args: tuple[Any, ...]) -> list[State]:
        return [after for state in states for after in self.go_on(state, (p, name, args, ()))]

    def is_at_rest(self, state: State) -> bool:
        """Tell whether all that was promised is kept, and nothing lies about."""
        return self.rules.is_at_rest(state)

    def must_come_to_rest(self, state: State) -> bool:
        """Tell whether a worker is left."""
        workers = state[PROCESSES][: self.configuration.workers]
        return any(process.is_up and not process.is_draining for process in workers)

    def steps(self, state: State) -> Iterator[Step]:
        """Return all that can happen in `state`."""
        for thread in state[THREADS]:
            if state[PROCESSES][thread[0]].is_up:
                yield from self.steps_of(state, thread)
        yield from self._requests(state)
        yield from self._faults(state)
        if self.configuration.ages:
            yield from self._time(state)

    # --- what is asked for -----------------------------------------------------------------------

    def _requests(self, state: State) -> Iterator[Step]:
        left: Left = state[LEFT]
        up = [process.is_up for process in state[PROCESSES]]
        for p, t in left.creates[:1]:
            process: Process = state[PROCESSES][p]
            if process.is_up and state[PROMISES][t - 1].is_told:
                now = left._replace(creates=left.creates[1:])
                yield from self._asked(state, now, p, *self._create(process, t))
        for request in left.cancels:
            if up[request[0]] and state[PROMISES][request[1]].is_told:
                now = left._replace(cancels=_without(left.cancels, request))
                yield from self._asked(state, now, request[0], "cancel", request)
        for answer in left.answers:
            if up[answer[0]] and state[PROMISES][answer[1]].is_told:
                now = left._replace(answers=_without(left.answers, answer))
                yield from self._asked(state, now, answer[0], "answer", answer)
        for request in left.deliveries:
            process: Process = state[PROCESSES][request[0]]
            if process.is_up and process.worker != NOBODY and not process.is_draining:
                now = left._replace(deliveries=_without(left.deliveries, request))
                args = (process.worker, request[1], None)
                yield from self._asked(state, now, request[0], "claim", args)
        for t in left.extends:
            for thread in state[THREADS]:
                if thread[1] in ("run", "waiting") and thread[2][1] == t and up[thread[0]]:
                    now = left._replace(extends=_without(left.extends, t))
                    yield from self._asked(state, now, thread[0], "extend", thread[2][:2])
        for p in left.drains:
            process = state[PROCESSES][p]
            if process.is_up and process.worker != NOBODY and process.is_good:
                now = left._replace(drains=_without(left.drains, p))
                draining = self.with_process(state, p, process._replace(is_draining=True))
                yield from self._asked(draining, now, p, "drain", (process.worker,))

    def _asked(
        self, state: State, left: Left, p: int, name: str, args: tuple[Any, ...]
    ) -> Iterator[Step]:
        label = (f"process {p} is asked to {name}", args)
        try:
            for after in self.go_on(replaced(state, LEFT, left), (p, name, args, ())):
                yield Step(label, is_own=False, state=after)
        except ViolationError as error:
            raise ViolationError(error.rule, label) from None

    # --- what goes wrong -------------------------------------------------------------------------

    def _faults(self, state: State) -> Iterator[Step]:
        left: Left = state[LEFT]
        busy = {thread[0] for thread in state[THREADS] if thread[1] not in ("scan", "beat")}
        for p, process in enumerate(state[PROCESSES]):
            is_good = process.is_up and process.is_good and not process.is_draining
            # What happens to an idle process only costs states.
            if process.is_up and p in busy and left.kills:
                after = self.ended(replaced(state, LEFT, left._replace(kills=left.kills - 1)), p)
                yield Step(("process", p, "KILLED"), is_own=False, state=after)
            if is_good and p in busy and left.lapses:
                after = replaced(state, LEFT, left._replace(lapses=left.lapses - 1))
                after = self.with_process(after, p, process._replace(is_good=False))
                yield Step(("process", p, "ITS LEASE RUNS OUT"), is_own=False, state=after)
            if not process.is_up and left.restarts and not process.is_draining:
                after = replaced(state, LEFT, left._replace(restarts=left.restarts - 1))
                yield Step(("process", p, "RESTARTED"), is_own=False, state=self._again(after, p))
            if self.configuration.fences and process.is_up and not process.is_good:
                yield from self._fence(state, p, process)
        for key, version, value, tag in state[LATE]:
            after = replaced(state, LATE, state[LATE] - {(key, version, value, tag)})
            label = ("LANDS LATE", key, "at", version, value)
            if version_of(state[PARTS[key[0]]], key) == version:
                try:
                    after = self.written(after, key, version, value, tag)
                except ViolationError as error:
                    raise ViolationError(error.rule, label) from None
            yield Step(label, is_own=False, state=after)

    def _again(self, state: State, p: int) -> State:
        w = state[PROCESSES][p].latest + self.configuration.workers
        state = self.with_process(state, p, Process(worker=w, latest=w))
        return self.registered(
            replaced(state, WORKERS, put(state[WORKERS], ("worker", w), LIVE)), p, w
        )

    def _fence(self, state: State, p: int, process: Process) -> Iterator[Step]:
        """Let a worker whose beats fail act on that; bodies that may not run again go on."""
        w = process.worker
        is_fencing = any(thread[0] == p and thread[1] == "fence" for thread in state[THREADS])
        c = self.configuration
        fences = c.is_restartable or c.is_wrong("fence_stops_all")
        if w != NOBODY and fences and not is_fencing:
            for after in self.go_on(state, (p, "fence", (w,), ())):
                yield Step(("process", p, "fences itself"), is_own=True, state=after)

    # --- time ------------------------------------------------------------------------------------

    def _time(self, state: State) -> Iterator[Step]:
        ages = state[AGES]
        for t in self.configuration.ages:
            if ages[t] == 0 or (ages[t] == 1 and not self._is_being_written(state, t)):
                after = replaced(state, AGES, (*ages[:t], ages[t] + 1, *ages[t + 1 :]))
                if ages[t] == 1:  # what is gone is not seen any more, whoever removes it
                    after = replaced(after, TASKS, delete(after[TASKS], ("task", t)))
                    left = tuple(item for item in after[INDEX] if item[0][:2] != ("ready", t))
                    after = replaced(after, INDEX, left)
                yield Step(("TIME PASSES for task", t), is_own=False, state=after)
        roster = get(state[ROSTER], ("roster",))
        is_old = roster is not None and all(ages[t] == 2 for t in roster.value)
        if is_old and not ages[-1]:
            after = replaced(replaced(state, ROSTER, ()), AGES, (*ages[:-1], 1))
            yield Step(("TIME PASSES for the roster",), is_own=False, state=after)
        if ages[-1]:
            for after in self.go_on(state, (self.configuration.workers - 1, "clean", (), ())):
                yield Step(("cleans up",), is_own=False, state=after)

    def _is_being_written(self, state: State, t: int) -> bool:
        """Tell whether somebody has looked at the time and not written yet.

        A record outlives its time by the store's grace, and no write takes that long.
        """
        wanted = (self._wanted(*thread[1:]) for thread in state[THREADS])
        return any(want[0] == "cas" and want[2] == ("task", t) for want in wanted)


def _without(items: tuple[Any, ...], item: Any) -> tuple[Any, ...]:
    at = items.index(item)
    return (*items[:at], *items[at + 1 :])

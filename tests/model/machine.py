"""The whole system as one value, and how its actors move it on.

A state is eleven parts (numbered in `store` and `processes`): the database, what each process has
in memory, the actors under way, what was promised, what may still go wrong, and writes that nobody
answered.

Actors are not kept as running generators: an actor is its name, its arguments and its answers so
far, and is asked anew what it wants next. So a state is a plain value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.model.actors import UNANSWERED
from tests.model.database import STORE, Database, replaced
from tests.model.processes import (
    AGES,
    BODIES,
    BUSY,
    HOLDERS,
    PROCESSES,
    PROMISES,
    THREADS,
    Process,
)
from tests.model.search import Step, ViolationError
from tests.model.store import (
    INDEX,
    NOBODY,
    SHEETS,
    TAKEN,
    TASKS,
    TOMBSTONE,
    WORKERS,
    get,
    put,
    told,
)
from tests.model.workers import Protocol


if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.model.actors import Request
    from tests.model.configuration import Configuration
    from tests.model.processes import Thread
    from tests.model.search import Label, State
    from tests.model.store import Found


WAITS = frozenset({"lock", "wait", "lapsed", "held", "settled", "pick"})
"""Requests that may have to wait for something in the process."""


class Machine(Database):
    """A configuration as something to search.

    Attributes:
        reached: The named moments that were come by.
    """

    def __init__(self, configuration: Configuration) -> None:
        super().__init__(configuration)
        self.reached: set[str] = set()
        self._protocol = Protocol(configuration)
        self._known: dict[tuple[str, tuple[Any, ...], tuple[Any, ...]], Request] = {}

    # --- actors ----------------------------------------------------------------------------------

    def _wanted(self, name: str, args: tuple[Any, ...], answers: tuple[Any, ...]) -> Request:
        """Return what an actor wants next."""
        key = (name, args, answers)
        wanted = self._known.get(key)
        if wanted is None:
            actor = getattr(self._protocol, name)(*args)
            try:
                wanted = next(actor)
                for answer in answers:
                    wanted = actor.send(answer)
            except StopIteration as end:
                wanted = end.value or ("end",)
            self._known[key] = wanted
        return wanted

    def steps_of(self, state: State, thread: Thread) -> Iterator[Step]:
        """Return what an actor can do next: its request to the database, with every answer."""
        p, name, args, answers = thread
        wanted = self._wanted(name, args, answers)
        label = ("process", p, name, args, wanted)
        if wanted[0] in STORE or wanted[0] == "moment":
            self.reached.add(wanted[1])
        without = replaced(state, THREADS, state[THREADS] - {thread})
        try:
            for answer, after in self._answers(without, p, wanted):
                for end in self.go_on(after, (p, name, args, (*answers, answer))):
                    yield Step((*label, "->", answer), answer != UNANSWERED, end)
        except ViolationError as error:
            raise ViolationError(error.rule, error.step or label) from None

    @staticmethod
    def told(label: Label) -> str:
        """Put a step into words: who did it, what was asked of the database, and the answer."""
        if label[:1] != ("process",) or len(label) < 5:
            return " ".join(told(word) for word in label)
        _, p, name, args, wanted, *answer = label
        kind, *words = wanted
        at = f"  [{words[0]}]" if kind in STORE and words[0] else ""
        if kind == "cas":
            _, key, version, value, _ = words
            act = f"{told(key)}, version {version}, becomes {told(value)}"
        else:
            act = " ".join(told(word) for word in (kind, *words[kind in STORE :]))
        end = f": {told(answer[1])}" if answer and answer[1] is not None else ""
        return f"process {p}, {name}({', '.join(told(arg) for arg in args[:3])}): {act}{end}{at}"

    def go_on(self, state: State, thread: Thread) -> list[State]:
        """Let an actor decide what it can by itself, in every way, up to its next step."""
        p, name, args, answers = thread
        while True:
            wanted = self._wanted(name, args, answers)
            kind = wanted[0]
            if kind == "end" or self._is_idle_loop(state, p, name, args):
                return [self._tidied(state, p)]
            if kind in STORE or (kind == "moment" and self.configuration.closely):
                break
            if kind in WAITS:
                if kind != "lock" or wanted[1] in state[PROCESSES][p].locked:
                    break
                state = self._with_lock(state, p, wanted[1])
                answer = None
            elif kind == "choose":
                ways = [(p, name, args, (*answers, choice)) for choice in wanted[1]]
                return [after for way in ways for after in self.go_on(state, way)]
            elif kind == "become":
                name, args, answers = wanted[1], wanted[2], ()
                continue
            elif kind == "spawn":
                (state,) = self.go_on(state, (p, wanted[1], wanted[2], ()))
                answer = None
            else:
                answer, state = self._decide(state, p, wanted)
            answers = (*answers, answer)
        return [replaced(state, THREADS, state[THREADS] | {(p, name, args, answers)})]

    @staticmethod
    def _is_idle_loop(state: State, p: int, name: str, args: tuple[Any, ...]) -> bool:
        """Tell whether a loop comes round again for a worker that is no more."""
        is_loop = name in ("scan", "beat")
        return is_loop and (args[0] == NOBODY or args[0] != state[PROCESSES][p].worker)

    def _tidied(self, state: State, p: int) -> State:
        """Forget what nobody in a process will ask for again, which makes many states one."""
        process: Process = state[PROCESSES][p]
        here = [thread for thread in state[THREADS] if thread[0] == p]
        workers = {process.worker, *(args[0] for _, _, args, _ in here if args)}
        held = {args[:2] for _, name, args, _ in here if name in HOLDERS}
        sheets = tuple(sheet for sheet in process.sheets if sheet[0] in workers)
        woken = process.woken & held
        if sheets == process.sheets and woken == process.woken:
            return state
        return self.with_process(state, p, process._replace(sheets=sheets, woken=woken))

    def _decide(self, state: State, p: int, wanted: Request) -> tuple[Any, State]:
        """Carry out what a process decides by itself."""
        kind, *words = wanted
        process: Process = state[PROCESSES][p]
        answer: Any = None
        if kind == "moment":
            self.reached.add(words[0])
        elif kind == "good":
            answer = process.worker == words[0] and self._is_good(process)
        elif kind == "alone":
            answer = not any(
                other == p and name in HOLDERS and tuple(args[:2]) == tuple(words)
                for other, name, args, _ in state[THREADS]
            )
        elif kind == "here":
            answer = self.configuration.workers > p == words[1] % self.configuration.workers
        elif kind == "expired":
            answer = state[AGES][words[0]] > 0
        elif kind == "once_claimed":
            answer = (words[0], words[2]) in state[PROMISES][words[1]].claims
        elif kind == "ack":
            state = replaced(state, PROMISES, self.rules.acknowledged(state, words))
        elif kind == "begin":
            state = replaced(state, PROMISES, self.rules.begun(state, *words))
        elif kind == "hush":
            woken = process.woken - {(words[0], words[1])}
            state = self.with_process(state, p, process._replace(woken=woken))
        elif kind == "tell":
            if not self._is_old_news(state, p, *words):
                woken = process.woken | {(words[0], words[1])}
                state = self.with_process(state, p, process._replace(woken=woken))
        elif kind == "block":
            answer = process.next_block(words[0], words[1], self.configuration.room)
        elif kind == "noted":
            state = self._noted(state, p, *words)
        elif kind == "unlock":
            state = self.with_process(
                state, p, process._replace(locked=process.locked - {words[0]})
            )
        elif kind == "forget":
            if process.worker == words[0]:  # nobody writes out what is over for an earlier one
                state = self.with_process(state, p, process.forgetting(*words))
        elif kind == "stop":
            answer, state = self._stopped(state, p, *words)
        elif kind == "lost":
            state = self._lost(state, p, words[0])
        elif kind == "new_name":
            answer = process.latest + self.configuration.workers
            state = self.with_process(state, p, process._replace(latest=answer))
        elif kind == "registered":
            state = self.registered(state, words[0], words[1])
        elif kind == "renewed":
            state = self.with_process(state, p, process._replace(is_good=True, version=words[1]))
        elif kind == "exit":
            state = self.ended(state, p)
        else:
            raise AssertionError(wanted)
        return answer, state

    def _is_old_news(self, state: State, p: int, w: int, t: int, version: int = 0) -> bool:
        """Tell whether a body began with a record that is as new: no reason not to tell it."""
        return self.configuration.is_wrong("news_of_old_ignored") and any(
            thread[:2] == (p, "run") and thread[2][:2] == (w, t) and version <= thread[2][3].version
            for thread in state[THREADS]
            if version
        )

    def _is_good(self, process: Process) -> bool:
        """Tell whether a process may take something on, as it sees that itself."""
        is_good = process.is_good or self.configuration.is_wrong("self_fence_never")
        return is_good and not process.is_draining

    @staticmethod
    def with_process(state: State, p: int, process: Process) -> State:
        """Return a state with one process changed."""
        processes = state[PROCESSES]
        return replaced(state, PROCESSES, (*processes[:p], process, *processes[p + 1 :]))

    def _with_lock(self, state: State, p: int, w: int) -> State:
        process = state[PROCESSES][p]
        return self.with_process(state, p, process._replace(locked=process.locked | {w}))

    def _noted(
        self, state: State, p: int, w: int, number: int, version: int, entries: frozenset[Any]
    ) -> State:
        """Remember a block as written.

        Where every write is answered, and so none is under way unseen, its version says nothing
        that its being there does not: it is called 1 again, which makes many states one.
        """
        key = ("sheet", w, number)
        found = get(state[SHEETS], key)
        c = self.configuration
        is_plain = not (c.lost or c.late) or "sheet" not in c.unsure
        if is_plain and found is not None and found.version == version:
            version = 1
            state = replaced(state, SHEETS, put(state[SHEETS], key, entries))
        process: Process = state[PROCESSES][p]
        forgets = not c.is_wrong("trim_drops_again")
        noting = process.noting(w, number, version, entries, forgets=forgets)
        return self.with_process(state, p, noting)

    def _stopped(self, state: State, p: int, w: int, t: int, n: int) -> tuple[str, State]:
        """Stop a body. One that had begun may go on all the same, for it may not listen."""
        begun = n in state[PROMISES][t].started
        bodies = {
            thread
            for thread in state[THREADS]
            if thread[0] == p and thread[1] in BODIES and thread[2][:3] == (w, t, n)
        }
        gone = {thread for thread in bodies if not begun or self._wanted(*thread[1:])[0] == "wait"}
        return "started" if begun else "claimed", replaced(state, THREADS, state[THREADS] - gone)

    def _lost(self, state: State, p: int, w: int) -> State:
        """Learn that `w` was taken over: stop its bodies, and go on as somebody new.

        Their tasks stay on the sheet of `w`, whoever stopped them: it is what finds them.
        """
        process: Process = state[PROCESSES][p]
        if process.worker != w or process.is_draining:
            return state
        state = self.with_process(state, p, process._replace(worker=NOBODY, is_good=False))
        idle = {
            thread
            for thread in state[THREADS]
            if thread[0] == p
            and thread[2][:1] == (w,)
            and self._wanted(*thread[1:])[0] in ("wait", "pick", "lapsed")
        }
        state = replaced(state, THREADS, state[THREADS] - idle)
        if self.configuration.is_wrong("lost_forgets"):
            process = state[PROCESSES][p]
            for _, name, args, _ in idle:
                if name in BODIES:
                    process = process.forgetting(w, args[1])
            state = self.with_process(state, p, process)
            if process.has_over(w):
                (state,) = self.go_on(state, (p, "trim", (w,), ()))
        (state,) = self.go_on(state, (p, "renew", (p, w), ()))
        return state

    def registered(self, state: State, p: int, w: int) -> State:
        """Let a process begin to work as `w`, whose record was written."""
        process = state[PROCESSES][p]
        process = process._replace(worker=w, is_good=True, version=1)
        state = self.with_process(state, p, process)
        for name in ("scan", "beat"):
            (state,) = self.go_on(state, (p, name, (w,), ()))
        return state

    def ended(self, state: State, p: int) -> State:
        """Let a process be no more. What it has sent may land all the same."""
        process: Process = state[PROCESSES][p]
        gone = Process(
            is_up=False, latest=process.latest, is_good=False, is_draining=process.is_draining
        )
        state = self.with_process(state, p, gone)
        left = frozenset(thread for thread in state[THREADS] if thread[0] != p)
        return replaced(state, THREADS, left)

    def _answers(self, state: State, p: int, wanted: Request) -> Iterable[tuple[Any, State]]:
        """Return every answer to a request, with the state after it; none while it must wait."""
        kind, *words = wanted
        if kind == "moment":
            return [(None, state)]
        if kind in WAITS:
            return self._waits(state, p, kind, words)
        return self.answers(state, kind, words[1:])

    # --- waiting ---------------------------------------------------------------------------------

    def _waits(
        self, state: State, p: int, kind: str, words: list[Any]
    ) -> Iterable[tuple[Any, State]]:
        process: Process = state[PROCESSES][p]
        if kind == "pick":
            looks = self._is_good(process)
            return [(found, state) for found in self._found(state, p)] if looks else []
        if kind == "lock":
            free = words[0] not in process.locked
            return [(None, self._with_lock(state, p, words[0]))] if free else []
        if kind == "wait":
            told = (words[0], words[1])
            if told not in process.woken:
                return []
            return [
                (None, self.with_process(state, p, process._replace(woken=process.woken - {told})))
            ]
        if kind == "lapsed":
            is_so = process.worker == words[0] and not process.is_draining
            is_so = is_so and not self._is_good(process)
            return [(process.version, state)] if is_so else []
        if any(thread[0] == p and thread[1] in BUSY for thread in state[THREADS]):
            return []
        if kind == "settled":
            return [(None, state)]
        held = {
            (thread[2][1], thread[2][2])
            for thread in state[THREADS]
            if thread[0] == p and thread[1] in BODIES and thread[2][0] == words[0]
        }
        return [(tuple(sorted(held)), state)]

    def _found(self, state: State, p: int) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """Return what the loop of a worker may come upon next."""
        process: Process = state[PROCESSES][p]
        w = process.worker
        for key, _ in state[INDEX]:
            if key[0] == "ready":
                yield "claim", (w, key[1], key[2])
            elif key[1] == w:
                yield "inbox_entry", key[1:]
        for key, found in state[WORKERS]:
            if key[1] != w and self._is_dead(state, key[1], found):
                yield "reap", (w, key[1], found)
        if self.configuration.trims and process.has_over(w):
            yield "trim", (w,)
        for t, age in enumerate(state[AGES]):
            if age == 1 and self.configuration.ages:
                record = get(state[TASKS], ("task", t))
                if record is not None and record.value != TOMBSTONE and not record.value.is_over:
                    yield "look", (t, w)

    def _is_dead(self, state: State, d: int, found: Found) -> bool:
        """Tell whether others may find worker `d` dead: `lease` shows that only then they do."""
        process: Process = state[PROCESSES][d % self.configuration.workers]
        is_alive = process.is_up and process.worker == d and process.is_good
        return found.value == TAKEN or not is_alive

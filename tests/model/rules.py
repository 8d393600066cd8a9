"""What must hold: the rules that every write, start and answer keeps, and what rest is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from tests.model.processes import AGES, LATE, PROCESSES, PROMISES, THREADS
from tests.model.search import ViolationError
from tests.model.store import (
    ASKING,
    FAILED,
    INDEX,
    NOBODY,
    SHEETS,
    TASKS,
    TOMBSTONE,
    WORKERS,
    WORKING,
    get,
)


if TYPE_CHECKING:
    from tests.model.configuration import Configuration
    from tests.model.search import State
    from tests.model.store import Record, Tag


class Promise(NamedTuple):
    """What is remembered of a task beside the database, only to check the rules.

    Attributes:
        is_told: Somebody was told its id.
        started: The attempts whose body began.
        claims: (worker, attempt) of the claims that were written.
    """

    is_told: bool = False
    started: frozenset[int] = frozenset()
    claims: frozenset[tuple[int, int]] = frozenset()


class Rules:
    """The rules of one configuration."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration

    # --- nothing bad happens ---------------------------------------------------------------------

    def acknowledged(self, state: State, words: list[Any]) -> tuple[Promise, ...]:
        """Check that what is acknowledged is durable. Returns the promises after it."""
        what, t, *question = words
        record = _record(state, t)
        if state[AGES][t] > 1:
            return state[PROMISES]  # it is gone, and so is all that was promised of it
        if what == "create":
            _require(record is not None, "create acknowledged, but there is no record")
            return self._promised(state, t, state[PROMISES][t]._replace(is_told=True))
        if record is not None and not record.is_over:
            is_kept = record.cancel if what == "cancel" else question[0] in record.answered
            _require(is_kept, f"{what} acknowledged, but not recorded")
        return state[PROMISES]

    def begun(self, state: State, w: int, t: int, n: int) -> tuple[Promise, ...]:
        """Check that a body may begin. Returns the promises after it."""
        c = self._configuration
        promise: Promise = state[PROMISES][t]
        _require(n not in promise.started, f"attempt {n} was started twice")
        _require((w, n) in promise.claims, f"worker {w} starts attempt {n}, which it never claimed")
        if c.mode == "once":
            _require(not promise.started, "the body was started twice in at-most-once mode")
        if c.mode == "rerun":
            free = len(c.drains) + c.lapses  # attempts that were handed back do not count
            _require(n <= c.max_attempts + free, "more attempts than allowed")
        return self._promised(state, t, promise._replace(started=promise.started | {n}))

    def written(self, state: State, t: int, new: Any, tag: Tag) -> State:
        """Check a write of a record that is about to hold. Returns the state with what it shows."""
        found = get(state[TASKS], ("task", t))
        kind, *by = tag
        if found is not None and found.value != TOMBSTONE:
            self._check_change(found.value, new, kind, tuple(by))
            if new.status == FAILED and kind == "attempt":
                process = state[PROCESSES][by[0] % self._configuration.workers]
                is_right = process.is_draining or self._configuration.limit
                _require(is_right, "given up by a worker that does not stop, and was not taken")
        if kind != "claim":
            return state
        if found is not None:  # at its birth the sheet may follow: its start waits for that
            is_found = get(state[WORKERS], ("worker", by[0])) is not None
            _require(is_found, "claimed for a worker that nobody looks after any more")
        promise: Promise = state[PROMISES][t]
        promise = promise._replace(claims=promise.claims | {(by[0], by[1])})
        promises = self._promised(state, t, promise)
        return (*state[:PROMISES], promises, *state[PROMISES + 1 :])

    def _check_change(self, old: Record, new: Record, kind: str, by: tuple[int, ...]) -> None:
        _require(not old.is_over, "a terminal task changed")
        _require(new.cancel or not old.cancel, "a recorded cancel was lost")
        _require(new.answered >= old.answered, "a recorded answer was lost")
        _require(not new.open & new.answered, "asked again what was answered")
        is_right = new.is_over or bool(new.open) == (new.status == ASKING)
        _require(is_right, "a question is open, and it does not wait; or the other way round")
        _require(new.steps >= old.steps, "a recorded step was lost")
        if kind == "attempt":
            text = f"attempt {by} wrote over attempt {(old.worker, old.attempt)} (worker, number)"
            _require((old.worker, old.attempt) == by, text)
        if kind == "claim":
            _require(old.worker == NOBODY, "claimed while another worker runs it")
            _require(not old.cancel, "claimed after its cancel was recorded")
        c = self._configuration
        if new.status == FAILED and kind != "expire" and c.is_restartable and not c.limit:
            is_used_up = new.lost >= c.max_attempts
            _require(is_used_up, "given up though another attempt was allowed")

    def check_roster(self, state: State) -> None:
        """Check that the owner has no more active tasks than allowed."""
        limit = self._configuration.limit
        if not limit:
            return
        active = 0
        for t, promise in enumerate(state[PROMISES]):
            record = _record(state, t)
            is_known = promise.is_told or promise.started
            if record is not None and not record.is_over and is_known and not state[AGES][t]:
                active += 1
        if active > limit:
            raise ViolationError(f"{active} active tasks of an owner with a limit of {limit}")

    def _promised(self, state: State, t: int, promise: Promise) -> tuple[Promise, ...]:
        promises = state[PROMISES]
        changed = (*promises[:t], promise, *promises[t + 1 :])
        self.check_roster((*state[:PROMISES], changed, *state[PROMISES + 1 :]))
        return changed

    # --- something good can happen ---------------------------------------------------------------

    def is_at_rest(self, state: State) -> bool:
        """Tell whether every task that was told is over, waits rightly or runs, and all is tidy."""
        workers = state[PROCESSES][: self._configuration.workers]
        live = {p.worker for p in workers if p.is_up and p.is_good}
        if state[LATE]:
            return True  # until these have landed or never will, there is no telling
        return (
            all(self._is_well(state, t, live) for t, p in enumerate(state[PROMISES]) if p.is_told)
            and all(self._is_tidy(state, key, live) for key, _ in state[INDEX])
            and all(self._is_kept(state, key[1], found.value, live) for key, found in state[SHEETS])
            and all(key[1] in live for key, _ in state[WORKERS])
        )

    def _is_well(self, state: State, t: int, live: set[int]) -> bool:
        """Tell whether a task is over, or waits for its client or its cancellation as it should."""
        record = _record(state, t)
        if record is None or record.is_over:
            return True
        if state[AGES][t]:
            return False
        if record.worker == NOBODY:
            return record.status == ASKING and bool(record.open) and not record.cancel
        body = self._configuration.body
        waits = any(
            name in ("run", "waiting") and args[:3] == (record.worker, t, record.attempt)
            for _, name, args, _ in state[THREADS]
        )
        may_wait = (body in ("hang", "talk") and record.status == WORKING) or bool(record.open)
        return record.worker in live and waits and may_wait and not record.cancel

    @staticmethod
    def _is_tidy(state: State, key: Any, live: set[int]) -> bool:
        """Tell whether an entry of an index has to be there, or its expiry removes it."""
        if key[0] == "ready":
            record = _record(state, key[1])
            return record is None or not (record.is_over or record.attempt >= key[2] > 0)
        record = _record(state, key[2])
        return not (key[1] in live and record is not None and record.worker != key[1])

    def _is_kept(
        self, state: State, w: int, entries: frozenset[tuple[int, int]], live: set[int]
    ) -> bool:
        """Tell whether a sheet names only what its worker has."""
        if w not in live:
            # Written by a worker that was taken over before: its expiry removes it.
            return get(state[WORKERS], ("worker", w)) is None
        for t, n in entries if self._configuration.trims else ():
            record = _record(state, t)
            if record is None or (record.worker, record.attempt) != (w, n):
                return False
        return True


def _require(holds: object, rule: str) -> None:
    if not holds:
        raise ViolationError(rule)


def _record(state: State, t: int) -> Record | None:
    found = get(state[TASKS], ("task", t))
    return None if found is None or found.value == TOMBSTONE else found.value

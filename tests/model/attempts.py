"""One attempt at a task: its body, its writes, and how it is given back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.model.actors import OK, Actors, as_record, become, get, put
from tests.model.store import ASKING, CANCELLED, COMPLETED, FAILED, NOBODY, NOTHING, WORKING, Found


if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.model.actors import Actor
    from tests.model.store import Record


class Attempts(Actors):
    """The actors of an attempt: `n` of task `t`, by worker `w`."""

    def run(self, w: int, t: int, n: int, found: Found) -> Actor:
        """Run the body, from the record as it was claimed."""
        yield ("moment", "run.before_body")
        yield ("begin", w, t, n)
        body = self.configuration.body
        record: Record = found.value
        if self.is_wrong("news_of_old_ignored"):
            yield ("hush", w, t)
        elif record.cancel:
            # Its claim was not answered at first, and this came on top of it.
            return become("finish", w, t, n, found, CANCELLED)
        if body == "step" and not record.steps:
            at = "step.after_run_before_cas"
            written = yield from self._write(w, t, n, found, lambda r: r._replace(steps=1), at)
            if written is None:
                return become("forget", w, t)
            found = written
            yield ("moment", "step.after_cas_before_return")
        if body == "hang":
            yield ("wait", w, t)
            return become("finish", w, t, n, found, CANCELLED)
        if body in ("wait", "talk", "park", "linger"):
            missing = frozenset(range(self.configuration.questions)) - record.answered
            if missing:
                return become("ask", w, t, n, found, missing)
            if body == "talk":
                return become("waiting", w, t, n)
        return become("finish", w, t, n, found, COMPLETED)

    def ask(self, w: int, t: int, n: int, found: Found, missing: frozenset[int]) -> Actor:
        """Put all questions in one write, and with it leave the task if it can wait without us."""
        parks = self.configuration.body == "park"

        def asked(record: Record) -> Record:
            if parks and record.cancel:
                return record._replace(status=CANCELLED, worker=NOBODY, open=NOTHING)
            worker = NOBODY if parks else w
            still = missing if self.is_wrong("asks_again") else missing - record.answered
            return record._replace(
                status=ASKING if still else record.status, worker=worker, open=record.open | still
            )

        written = yield from self._write(w, t, n, found, asked)
        if written is None:
            return become("forget", w, t)
        if parks:
            yield ("moment", "park.after_cas_before_release")
            return become("forget", w, t)
        yield ("moment", "input.after_put_before_wait")
        if self.configuration.body == "linger":
            return become("park", w, t, n, written)
        return become("waiting", w, t, n)

    def park(self, w: int, t: int, n: int, found: Found) -> Actor:
        """Leave a task whose questions were put earlier, unless all are answered by now."""

        def parked(record: Record) -> Record:
            if record.cancel:
                return record._replace(status=CANCELLED, worker=NOBODY, open=NOTHING)
            if not record.open and not self.is_wrong("parks_answered"):
                return record
            return record._replace(worker=NOBODY)

        written = yield from self._write(w, t, n, found, parked)
        if written is not None and written.value.worker == w:
            return become("finish", w, t, n, written, COMPLETED)
        yield ("moment", "park.after_cas_before_release")
        return become("forget", w, t)

    def waiting(self, w: int, t: int, n: int) -> Actor:
        """Wait for word, and believe only the record."""
        yield ("wait", w, t)
        found = yield get(("task", t))
        record = as_record(found)
        if record is None or not self._holds(record, w, n):
            return become("forget", w, t)
        if record.cancel:
            return become("finish", w, t, n, found, CANCELLED)
        if not record.open and record.answered and self.configuration.body == "wait":
            return become("finish", w, t, n, found, COMPLETED)
        return become("waiting", w, t, n)

    def finish(self, w: int, t: int, n: int, found: Found, outcome: str) -> Actor:
        """Write how the body ended."""
        at = "run.after_tool_before_commit"
        if outcome == CANCELLED:
            at = "cancel.after_scope_before_cas"

        def over(record: Record) -> Record:
            return record._replace(status=outcome, worker=NOBODY, open=NOTHING)

        yield from self._write(w, t, n, found, over, at)
        yield ("moment", "commit.after_cas_before_notify")
        return become("forget", w, t)

    def forget(self, w: int, t: int) -> Actor:
        """Note that the task is no longer the worker's; its entry goes with the next swap."""
        yield ("forget", w, t)

    def extend(self, w: int, t: int) -> Actor:
        """Let a task that is run here live for longer; refused when it is past its time."""
        found = yield get(("task", t))
        record = as_record(found)
        if record is None or record.worker != w or record.is_over or (yield ("expired", t)):
            return
        # No field of the record: its time to live is part of the world.
        yield ("cas", "", ("task", t), found.version, record, ("extend",))

    def _holds(self, record: Record, w: int, n: int) -> bool:
        """Tell whether attempt `n` of `w` may still write this record."""
        if record.is_over:
            return False
        if self.is_wrong("fence_no_attempt"):
            return True
        if self.is_wrong("fence_attempt_only"):
            return record.attempt == n
        return record.is_held_by(w, n)

    def _write(
        self,
        w: int,
        t: int,
        n: int,
        found: Found,
        change: Callable[[Record], Record],
        at: str = "",
    ) -> Actor:
        """Make one write of an attempt, under the fence. Returns what was written, or nothing."""
        while True:
            new = change(found.value)
            if new == found.value:
                return found
            got = yield from self.swap(("task", t), found, new, tag=("attempt", w, n), at=at)
            if got == OK:
                return Found(found.version + 1, new)
            found = yield get(("task", t))
            record = as_record(found)
            if record is None or not self._holds(record, w, n):
                return None
            # Where nothing is left to change, it is its own write, which nobody answered.

    # --- giving a task back ----------------------------------------------------------------------

    def hand_back(self, w: int, t: int, n: int, state: str) -> Actor:
        """Give a task up whose body is `started`, `claimed` and no more, or just `created`.

        The last one is acknowledged after that, unless a takeover ended it: that it was never
        started is no answer to a create.
        """
        while True:
            found = yield get(("task", t))
            record = as_record(found)
            if record is None or not self._holds(record, w, n) or record.worker != w:
                break
            at = "drain.after_ready_before_cas"
            new = yield from self.freed(record, t, started=state == "started")
            got = yield from self.swap(("task", t), found, new, tag=("attempt", w, n), at=at)
            if got == OK:
                record = new
                break
        is_overtaken = record is not None and record.status == FAILED and record.attempt == 1
        if state == "created" and found is not None and not is_overtaken:
            yield ("ack", "create", t)
        return become("forget", w, t)

    def freed(self, record: Record, t: int, *, started: bool, lost: bool = False) -> Actor:
        """Return a record as it goes on without its worker; `@ready` is written before that.

        Args:
            record: As it is.
            t: Whose it is.
            started: The body may have begun.
            lost: Its worker is dead, and did not let go of it by itself.
        """
        configuration = self.configuration
        free = record._replace(worker=NOBODY, lost=record.lost + lost)
        if record.cancel and not self.is_wrong("handback_ignores_cancel"):
            return free._replace(status=CANCELLED, open=NOTHING)
        if started and not configuration.is_restartable:
            return free._replace(status=FAILED, open=NOTHING)
        if lost and record.attempt == 1 and configuration.limit:
            roster = yield get(("roster",))
            is_admitted = roster is not None and t in roster.value
            if not is_admitted and not self.is_wrong("takeover_unadmitted"):
                return free._replace(status=FAILED, open=NOTHING)
        counted = record.attempt if self.is_wrong("handback_counted") else free.lost
        if lost and counted >= configuration.max_attempts:
            return free._replace(status=FAILED, open=NOTHING)
        if record.status == ASKING and configuration.mode == "resume":
            return free  # parked
        if not self.is_wrong("takeover_marker_never"):
            yield put(self.ready(t, record.attempt + 1))
        return free._replace(status=WORKING, open=NOTHING)

"""What workers do beside running bodies: look for work and for the dead, beat, and stop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.model.actors import OK, UNANSWERED, as_record, become, delete, get, put
from tests.model.attempts import Attempts
from tests.model.requests import Requests
from tests.model.store import CANCELLED, LIVE, NOBODY, OTHER, TAKEN, WORKING, Found


if TYPE_CHECKING:
    from tests.model.actors import Actor
    from tests.model.store import Key


class Protocol(Requests, Attempts):
    """All actors. Those here belong to worker `w`."""

    def scan(self, w: int) -> Actor:
        """Follow whatever is found: an entry of `@ready` or of the inbox, or a dead worker."""
        name, args = yield ("pick", w)
        return become(name, *args)

    # --- claim -----------------------------------------------------------------------------------

    def claim(self, w: int, t: int, n: int | None) -> Actor:
        """Claim a task for attempt `n`; for whichever is next (`None`) if a queue brought it.

        Read, note it on the sheet, look at the lease, swap: in this order and no other.
        """
        entry = None if n is None else self.ready(t, n)
        claimed = yield from self._claim(w, t, n, entry)
        if claimed is not None:
            yield ("moment", "claim.after_cas_before_run")
            yield ("spawn", "run", (w, t, claimed.value.attempt, claimed))
            if entry is not None and not self.is_wrong("ready_deleted_first"):
                return become("claimed", w, entry)
        if entry is not None:
            return become("scan", w)

    def claimed(self, w: int, entry: Key) -> Actor:
        """Remove the entry that was followed, and look on."""
        yield delete(entry, "claim.after_run_before_delete")
        return become("scan", w)

    def _claim(self, w: int, t: int, announced: int | None, entry: Key | None) -> Actor:
        """Return the record as claimed, or nothing."""
        if self.is_wrong("claim_check_first") and not (yield ("good", w)):
            return None
        found = yield get(("task", t))
        record = as_record(found)
        if record is None:
            if self.is_wrong("ready_drop_absent") and entry is not None:
                yield delete(entry)
            return None
        n = record.attempt + 1
        announced = n if announced is None else announced
        is_stale = record.is_over or n > announced
        if self.is_wrong("ready_without_number"):
            is_stale = record.is_over or record.worker != NOBODY
        if entry is not None and is_stale:
            yield delete(entry)
            return None
        if record.worker != NOBODY or record.status != WORKING or n < announced:
            if self.is_wrong("ready_drop_early") and entry is not None:
                yield delete(entry)
            return None  # written ahead of its record
        if record.cancel:
            yield from self.swap(("task", t), found, record._replace(status=CANCELLED))
            return None
        if not self.is_wrong("claim_not_alone") and not (yield ("alone", w, t)):
            return None
        if self.is_wrong("ready_deleted_first") and entry is not None:
            yield delete(entry)
        yield ("moment", "claim.after_read_before_sheet")
        is_late = self.is_wrong("sheet_after_claim")
        if not is_late and not (yield from self.note(w, t, n)):
            return None
        looks = not (self.is_wrong("claim_check_first") or self.is_wrong("claim_stale_lease"))
        claimed = None
        if not looks or (yield ("good", w)):
            claimed = yield from self._swap_claim(w, t, n, found)
        if claimed is None:
            yield ("forget", w, t)
        elif is_late:
            yield from self.note(w, t, n)
        return claimed

    def _swap_claim(self, w: int, t: int, n: int, found: Found) -> Actor:
        """Write the claim. Returns the record as claimed; nothing if another has it.

        Its own write, which nobody answered, is known by what the record says *now*: that `w` has
        it for attempt `n`. That the write once happened is not enough, nor is that it is on top.
        """
        keeps = self.is_wrong("claim_keeps_attempt") and found.value.attempt
        attempt = found.value.attempt if keeps else n
        new = found.value._replace(worker=w, attempt=attempt)
        tag, at = ("claim", w, attempt), "claim.after_sheet_before_cas"
        got = yield from self.swap(("task", t), found, new, tag=tag, at=at)
        if got == OK:
            return Found(found.version + 1, new)
        there = yield get(("task", t))
        record = as_record(there)
        if record is None:
            return None
        is_own = record.is_held_by(w, attempt)
        if self.is_wrong("settle_by_write_id"):
            is_own = there == (found.version + 1, new)
        if self.is_wrong("claim_unheld"):
            is_own = record.status == WORKING and (yield ("once_claimed", w, t, attempt))
        return there if is_own else None

    # --- word from other processes ---------------------------------------------------------------

    def inbox_entry(self, w: int, t: int, version: int) -> Actor:
        """Follow an entry of the inbox. It goes only after the record was read."""
        entry = ("inbox", w, t, version)
        if self.is_wrong("inbox_deleted_unread"):
            yield delete(entry)
        found = yield get(("task", t))
        record = as_record(found)
        if record is None or record.is_over or record.worker != w:
            yield delete(entry)
        elif found.version >= version or self.is_wrong("inbox_without_number"):
            yield ("moment", "inbox.after_read_before_wake")
            if record.cancel or record.answered:
                yield ("tell", w, t, found.version)
            yield delete(entry, "inbox.after_wake_before_delete")
        elif self.is_wrong("inbox_drop_early"):
            yield delete(entry)
        return become("scan", w)

    # --- taking over -----------------------------------------------------------------------------

    def reap(self, w: int, d: int, found: Found) -> Actor:
        """Take over worker `d`, seen as `found` for a whole lease, or known to be dead."""
        if not self.is_wrong("reaper_forces"):
            if found.value != TAKEN:
                at = "reap.after_read_before_cas"
                if (yield from self.swap(("worker", d), found, TAKEN, at=at)) != OK:
                    return become("scan", w)
        else:
            yield put(("worker", d), "reap.after_read_before_cas")
        entries = yield ("list", "reap.after_worker_cas_before_tasks", d)
        if self.is_wrong("worker_deleted_first"):
            yield delete(("worker", d))
        if self.is_wrong("sheet_deleted_first"):
            yield ("del_sheets", "", d)
        return become("take", w, d, entries)

    def take(self, w: int, d: int, entries: tuple[tuple[int, int], ...]) -> Actor:
        """Free what is left of `d`: one write a task, then the sheets, the worker record last."""
        if not entries:
            yield ("del_sheets", "reap.after_tasks_before_sheets", d)
            yield delete(("worker", d), "reap.after_sheets_before_worker")
            return become("scan", w)
        (t, _), *others = entries
        found = yield get(("task", t), "reap.between_tasks")
        record = as_record(found)
        if record is not None and not record.is_over and (yield ("expired", t)):
            yield from self.expire(t, found)
            return become("take", w, d, entries)
        if record is None or record.is_over or record.worker not in (d, NOBODY):
            return become("take", w, d, tuple(others))
        new = record
        at = ""
        if record.worker == d:
            at = "reap.after_ready_before_cas"
            new = yield from self.freed(record, t, started=True, lost=True)
        elif self.is_wrong("no_touch"):
            return become("take", w, d, tuple(others))
        # Else written as it is: a claim that `d` began before it stopped then finds it changed.
        got = yield from self.swap(("task", t), found, new, at=at)
        return become("take", w, d, tuple(others) if got == OK else entries)

    # --- the own life ----------------------------------------------------------------------------

    def beat(self, w: int) -> Actor:
        """Win a lease back that had run out; or learn that somebody took over."""
        version = yield ("lapsed", w)
        is_sent = False
        while True:
            got = yield ("cas", "hb.before", ("worker", w), version, LIVE, OTHER)
            if got == OK:
                break
            if got == UNANSWERED:
                is_sent = True
                continue
            if not is_sent or (yield get(("worker", w))) != (version + 1, LIVE):
                yield ("lost", w)
                return
            # Its own beat, which nobody answered. It counts from when it was sent, so only the
            # next one surely wins the lease back (`lease` looks at the times).
            version, is_sent = version + 1, False
        yield ("moment", "hb.after")
        yield ("renewed", w, version + 1)
        return become("beat", w)

    def renew(self, p: int, d: int) -> Actor:
        """Go on under a new name after `d` was taken over, and take that one's tasks over oneself.

        No name is written twice: one whose write nobody answers is left to the reapers.
        """
        while True:
            w = yield ("new_name",)
            if (yield ("cas", "", ("worker", w), 0, LIVE, OTHER)) == OK:
                break
        yield ("registered", p, w)
        found = yield get(("worker", d), "fence.after_register_before_taken")
        if found is not None and self.configuration.loops:
            return become("reap", NOBODY, d, found)

    def drain(self, w: int) -> Actor:
        """Stop: hand back what is left, then end the worker record, so that nobody has to wait."""
        tasks = yield ("held", w)  # waits until nothing is being claimed, created or finished
        yield ("moment", "drain.after_stop_before_hand_back")
        for t, n in tasks:
            state = yield ("stop", w, t, n)
            yield ("spawn", "hand_back", (w, t, n, state))
        yield ("settled", w)
        yield ("del_sheets", "", w)
        yield delete(("worker", w), "drain.after_sheets_before_worker")
        yield ("exit",)

    def fence(self, w: int) -> Actor:
        """Beats fail: hand back what another worker could start meanwhile."""
        for t, n in (yield ("held", w)):
            state = yield ("stop", w, t, n)
            yield ("spawn", "hand_back", (w, t, n, state))

    # --- what is over ----------------------------------------------------------------------------

    def clean(self) -> Actor:
        """Remove what has expired, if it still is then: its key may live again meanwhile."""
        yield ("sweep", "ttl.after_read_before_delete", ("roster",))

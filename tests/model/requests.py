"""What clients ask for: creating a task, cancelling it, answering its questions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.model.actors import CONFLICT, OK, Actors, as_record, become, delete, get, put
from tests.model.store import (
    ASKING,
    CANCELLED,
    FAILED,
    NOBODY,
    NOTHING,
    OTHER,
    TOMBSTONE,
    WORKING,
    Found,
    Record,
)


if TYPE_CHECKING:
    from tests.model.actors import Actor
    from tests.model.store import Tag


class Requests(Actors):
    """The actors of requests. `p` is the process that serves one, `t` the task."""

    # --- create ----------------------------------------------------------------------------------

    def create(self, w: int, t: int) -> Actor:
        """Create a task that worker `w` runs from its birth.

        Record, run sheet and roster are written at the same time, so in any order: nobody knows the
        id before all three are there.
        """
        parts = ["record", "sheet", *(["roster"] if self.configuration.limit else [])]
        if self.is_wrong("roster_after_start"):
            parts.remove("roster")
        is_admitted = is_made = is_noted = True
        yield ("moment", "create.before_writes")
        while parts:
            part = yield ("choose", tuple(parts))
            parts.remove(part)
            if part == "record":
                born = Record(worker=w, attempt=1)
                is_made = yield from self._insert(t, born, ("claim", w, 1))
            elif part == "sheet":
                is_noted = yield from self.note(w, t, 1)
            else:
                is_admitted = yield from self._admit(t)
        if not is_made:
            return become("forget", w, t)  # the tool would now try again under a new id
        if not is_admitted or not is_noted:
            yield delete(("task", t))
            return become("forget", w, t)
        yield ("moment", "create.after_writes_before_lease")
        if not (yield ("good", w)) and not self.is_wrong("create_stale_start"):
            return become("hand_back", w, t, 1, "created")
        yield ("moment", "create.after_put_before_reply")
        yield ("ack", "create", t)
        return become("run", w, t, 1, Found(1, Record(worker=w, attempt=1)))

    def create_ready(self, t: int) -> Actor:
        """Create a task for whoever has a free slot: roster first, then record and `@ready`."""
        yield ("moment", "create.before_writes")
        if self.configuration.limit and not (yield from self._admit(t)):
            return
        parts = ["record", "ready"]
        while parts:
            part = yield ("choose", tuple(parts))
            parts.remove(part)
            at = "create.after_roster_before_record" if len(parts) == 1 else ""
            if part == "record":
                if not (yield from self._insert(t, Record(), OTHER, at)):
                    return
            elif not self.is_wrong("ack_before_ready"):
                yield put(self.ready(t, 1), at)
        yield ("moment", "create.after_put_before_reply")
        yield ("ack", "create", t)
        if self.is_wrong("ack_before_ready"):
            yield put(self.ready(t, 1))

    def _insert(self, t: int, record: Record, tag: Tag, at: str = "") -> Actor:
        """Write a new record; false if a tombstone lies there."""
        if (yield from self.swap(("task", t), None, record, tag=tag, at=at)) == OK:
            return True
        return as_record((yield get(("task", t)))) is not None  # else its own, unanswered

    def _admit(self, t: int) -> Actor:
        """Put a task on its owner's roster; false if that is full of active tasks."""
        limit = self.configuration.limit
        while True:
            known = yield get(("roster",))
            ids: frozenset[int] = NOTHING if known is None else known.value
            if t in ids:
                return True
            kept = ids
            if len(ids) >= limit:
                for other in sorted(ids):
                    if not (yield from self._is_active(other)):
                        kept -= {other}
                if len(kept) >= limit:
                    return False
            at = "prune.after_tombstone_before_drop" if kept != ids else ""
            if (yield from self.swap(("roster",), known, kept | {t}, at=at)) == OK:
                return True

    def _is_active(self, t: int) -> Actor:
        """Tell whether a task on the roster is active, or may still become so.

        An id without a record may belong to a create under way: that is made impossible first. So
        is the longer life of a task that has passed its time.
        """
        found = yield get(("task", t))
        if found is None and not self.is_wrong("prune_absent"):
            if (yield from self.swap(("task", t), None, TOMBSTONE)) == OK:
                return False
            found = yield get(("task", t))
        if found is not None and (yield ("expired", t)):
            if self.is_wrong("prune_unended"):
                return False
            yield from self.expire(t, found)
            found = yield get(("task", t))
        record = as_record(found)
        return record is not None and not record.is_over

    def expire(self, t: int, found: Found) -> Actor:
        """End a task that is past its time, unless somebody was faster. Nothing else may."""
        record = as_record(found)
        if record is not None and not record.is_over:
            new = record._replace(status=FAILED, worker=NOBODY, open=NOTHING)
            yield from self.swap(
                ("task", t), found, new, tag=("expire",), at="ttl.after_read_before_cas"
            )

    def look(self, t: int, w: int) -> Actor:
        """Read a task that is past its time, which ends it. If it runs here, its body hears."""
        found = yield get(("task", t))
        if found is not None and (yield ("expired", t)):
            yield from self.expire(t, found)
        yield ("tell", w, t)
        return become("scan", w)

    # --- cancel and answer -----------------------------------------------------------------------

    def cancel(self, p: int, t: int) -> Actor:
        """Ask for the end of a task."""
        if self.is_wrong("cancel_ack_first"):
            yield ("ack", "cancel", t)
        while True:
            found = yield get(("task", t))
            record = as_record(found)
            if record is None or record.is_over:
                break
            if record.worker == NOBODY:
                new = record._replace(status=CANCELLED, cancel=True, open=NOTHING)
                if (yield from self.swap(("task", t), found, new)) == OK:
                    break
            elif record.cancel:
                # An earlier request may have died before its word got through.
                if (yield ("here", p, record.worker)):
                    yield ("tell", record.worker, t)
                else:
                    yield put(self.inbox(record.worker, t, found.version))
                break
            else:
                got = yield from self._swap_and_tell(p, t, found, record._replace(cancel=True))
                if got == OK:
                    yield ("moment", "cancel.after_flag_before_signal")
                    break
                if got != CONFLICT:
                    return
        yield ("ack", "cancel", t)

    def answer(self, p: int, t: int, q: int) -> Actor:
        """Answer question `q`. The first answer counts."""
        while True:
            found = yield get(("task", t))
            record = as_record(found)
            if record is None or record.is_over or q in record.answered:
                break
            if q not in record.open:
                return  # nobody asked that, or not yet: nothing to keep
            left = record.open - {q}
            frees = self.is_wrong("one_answer_frees")
            new = record._replace(
                status=ASKING if left and not frees else WORKING,
                open=left,
                answered=record.answered | {q},
            )
            if record.worker != NOBODY:
                got = yield from self._swap_and_tell(p, t, found, new)
                if got not in (OK, CONFLICT):
                    return
            else:
                entry = self.ready(t, record.attempt + 1)
                is_late = self.is_wrong("answer_marker_after")
                if (frees or not left) and not is_late:
                    yield put(entry)
                got = yield from self.swap(
                    ("task", t), found, new, at="notice.after_put_before_cas"
                )
                if got == OK and not left and is_late:
                    yield put(entry)
            if got == OK:
                yield ("moment", "update.after_put_before_ack")
                break
        yield ("ack", "answer", t, q)

    def _swap_and_tell(self, p: int, t: int, found: Found, new: Record) -> Actor:
        """Write what the worker that runs the task must hear of. Returns what came of it.

        The word is written first, under the version that the record will have. A worker in this
        very process hears by mouth once the write holds. But where nobody answers the write, nobody
        may be left to say so: then the word is written after all, before it is sent again.
        """
        w = new.worker
        is_here = yield ("here", p, w)
        entry = self.inbox(w, t, found.version + 1)
        is_after = self.is_wrong("inbox_after_flag") or self.is_wrong("inbox_without_number")
        if not is_here and not is_after:
            yield put(entry)
        while True:
            at = "notice.after_put_before_cas"
            got = yield ("cas", at, ("task", t), found.version, new, OTHER)
            if got in (OK, CONFLICT):
                break
            if is_here and not self.is_wrong("word_of_mouth_only"):
                yield put(entry)
            if self.configuration.gives_up and (yield ("choose", (True, False))):
                return "gave up"
        if got == OK and is_after and not is_here:
            yield put(entry)
        if got == OK and is_here:
            yield ("tell", w, t)
        return got

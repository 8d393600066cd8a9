"""The configurations that are searched: the quick ones in every test run, all by `make model`.

A small system is enough: a mistake of a protocol shows with two workers, one or two tasks and one
or two faults at the worst moments, and the search tries all moments.
"""

from __future__ import annotations

from functools import partial

from tests.model.configuration import Configuration


_once = Configuration
_rerun = partial(Configuration, mode="rerun")
_resume = partial(Configuration, mode="resume")

# Who asks for what: processes 0 and 1 run tasks, process 2, where there is one, only serves.
_BY_A_SERVER = ((2, 0),)
_CANCEL = ((1, 0),)
_ANSWER = ((1, 0, 0),)
_ANSWERS = ((1, 0, 0), (1, 0, 1))

QUICK = (
    # --- one task, created by a worker that runs it ----------------------------------------------
    _once(name="once", lapses=1),
    _once(name="once-lost-reply", lost=1),
    _rerun(name="rerun", kills=2),
    _rerun(name="rerun-lapse", kills=0, lapses=1),
    _rerun(name="rerun-step", body="step", kills=2),
    _rerun(name="restart", workers=1, kills=2, restarts=2),
    _once(name="drain-once", drains=(0,)),
    _rerun(name="drain-rerun", body="step", drains=(0,)),
    _rerun(name="drain-cancel", body="hang", drains=(0,), cancels=_CANCEL),
    _rerun(name="cancel-hang", body="hang", cancels=_CANCEL),
    _rerun(name="cancel-plain", cancels=_CANCEL),
    # --- run sheets in blocks, with what is over trimmed -----------------------------------------
    _rerun(name="blocks", creates=((0, 0), (0, 1)), room=1),
    _rerun(
        name="blocks-trim",
        creates=((0, 0), (0, 1)),
        room=1,
        trims=True,
        lost=1,
        unsure=("sheet",),
    ),
    _resume(name="park-trim", body="park", answers=_ANSWER, trims=True),
    # --- a worker whose beats fail, and one with more loops than one -----------------------------
    _rerun(name="fence-alone", workers=1, body="step", kills=0, lapses=1, fences=True),
    _resume(
        name="fence-wait-alone",
        workers=1,
        body="wait",
        answers=((0, 0, 0),),
        kills=0,
        lapses=1,
        fences=True,
    ),
    # --- questions -------------------------------------------------------------------------------
    _resume(name="wait", body="wait", answers=_ANSWER),
    _resume(name="park", body="park", answers=_ANSWER),
    _resume(name="talk-cancel", body="talk", answers=_ANSWER, cancels=_CANCEL),
    _resume(name="questions-wait", body="wait", questions=2, answers=_ANSWERS),
    _resume(name="questions-park", body="park", questions=2, answers=_ANSWERS),
    _resume(name="questions-linger", body="linger", questions=2, answers=_ANSWERS),
    # --- one that only serves --------------------------------------------------------------------
    _once(name="server-once", servers=1, creates=_BY_A_SERVER),
    _resume(name="server-wait", servers=1, creates=_BY_A_SERVER, body="wait", answers=((2, 0, 0),)),
    # --- the roster of one owner, at its limit ---------------------------------------------------
    _once(name="quota", creates=((0, 0), (1, 1)), limit=1),
    # --- time to live ----------------------------------------------------------------------------
    _rerun(name="expiry", body="hang", ages=(0,), extends=(0,)),
    _resume(name="expiry-wait", body="wait", answers=_ANSWER, ages=(0,)),
    _once(
        name="expiry-quota",
        creates=((0, 0), (1, 1), (1, 2)),
        in_turn=True,
        body="hang",
        kills=0,
        ages=(0,),
        limit=1,
    ),
)

LONG = (
    _once(name="once-more", kills=2, lapses=1),
    _rerun(name="rerun-step-lapse", body="step", lapses=1),
    _rerun(name="rerun-late-write", kills=0, late=1, lapses=1, unsure=("task",)),
    _once(name="drain-once-lapse", drains=(0,), lapses=1),
    _rerun(name="drain-rerun-lapse", body="step", drains=(0,), kills=0, lapses=1),
    _resume(name="drain-wait", body="wait", drains=(0,), answers=_ANSWER),
    _rerun(name="cancel-hang-lapse", body="hang", cancels=_CANCEL, lapses=1),
    _once(name="cancel-lapse", cancels=_CANCEL, kills=0, lapses=1),
    _rerun(name="fence", body="hang", kills=0, lapses=1, fences=True),
    _once(name="fence-once", body="hang", kills=0, lapses=1, fences=True, cancels=_CANCEL),
    _once(name="loops-once", lapses=1, loops=True),
    _rerun(name="loops-rerun", kills=0, lapses=1, loops=True),
    _resume(
        name="questions-lost-reply",
        body="wait",
        questions=2,
        answers=((1, 0, 0), (0, 0, 1)),
        lost=1,
    ),
    _resume(name="linger-drain", body="linger", answers=_ANSWER, drains=(0,)),
    _rerun(name="trim-lapse", trims=True, kills=0, lapses=1),
    _resume(name="wait-lapse", body="wait", answers=_ANSWER, lapses=1),
    _resume(name="wait-cancel", body="wait", answers=_ANSWER, cancels=_CANCEL),
    _resume(name="park-lapse", body="park", answers=_ANSWER, kills=0, lapses=1),
    _resume(name="park-cancel", body="park", answers=_ANSWER, cancels=((0, 0),)),
    _rerun(
        name="queue-twice",
        servers=1,
        creates=_BY_A_SERVER,
        deliveries=((0, 0), (0, 0), (1, 0)),
    ),
    _rerun(name="restart-lapse", workers=1, kills=2, lapses=1, restarts=2),
    _once(
        name="cancel-lost-reply",
        servers=1,
        creates=_BY_A_SERVER,
        cancels=_CANCEL,
        kills=0,
        lost=1,
        late=1,
    ),
    _once(name="server-lapse", servers=1, creates=_BY_A_SERVER, kills=0, lapses=1),
    _once(name="server-once-lapse", servers=1, creates=_BY_A_SERVER, lapses=1),
    _rerun(name="server-cancel", servers=1, creates=_BY_A_SERVER, body="hang", cancels=((2, 0),)),
    _resume(name="server-park", servers=1, creates=_BY_A_SERVER, body="park", answers=((2, 0, 0),)),
    _once(name="two-once", creates=((0, 0), (0, 1))),
    _rerun(name="two-rerun", creates=((0, 0), (1, 1))),
    _rerun(name="two-drain", creates=((0, 0), (0, 1)), drains=(0,), kills=0),
    _rerun(name="quota-rerun", creates=((0, 0), (1, 1)), limit=1),
    _once(name="expiry-lapse", body="hang", kills=0, lapses=1, ages=(0,)),
    _once(
        name="expiry-quota-extend",
        creates=((0, 0), (1, 1)),
        in_turn=True,
        body="hang",
        kills=0,
        ages=(0,),
        extends=(0,),
        limit=1,
    ),
    _once(name="quota-server", servers=1, creates=((2, 0), (0, 1)), limit=1),
)

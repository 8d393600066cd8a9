"""What can be done wrong: each mistake, and a small configuration whose search must find it.

A mistake is a name that the actors ask for (`is_wrong`), so the wrong way stands beside the right
one in the code. Several of these were in the first draft of the protocol; the decision page tells
which. A search that finds nothing says something only because these searches do.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from tests.model.configuration import Configuration


class Mistake(NamedTuple):
    """One thing done wrong.

    Attributes:
        what: What is done, as a sentence.
        where: What is searched.
        needs: Another mistake without which this one does no harm.
        is_long: To search all of it, without the mistake, takes more than a few seconds.
    """

    what: str
    where: Configuration
    needs: str = ""
    is_long: bool = False


ONCE = Configuration(name="once")
RERUN = Configuration(name="rerun", mode="rerun")
LAPSED = Configuration(name="lapsed", mode="rerun", kills=0, lapses=1)
TWICE = replace(RERUN, kills=2, restarts=1)
FREED = Configuration(name="freed", kills=1, lapses=1)
SERVER = Configuration(name="server", mode="rerun", servers=1, creates=((2, 0),))
LATE_CLAIM = replace(SERVER, mode="once", kills=0, lapses=1)
CALM = replace(SERVER, kills=0)
CANCEL = Configuration(name="cancel", mode="rerun", body="hang", cancels=((1, 0),))
PARK = Configuration(name="park", mode="resume", body="park", answers=((1, 0, 0),))
WAIT = Configuration(name="wait", mode="resume", body="wait", answers=((1, 0, 0),))
TALK = replace(WAIT, body="talk", cancels=((1, 0),), kills=0)
DRAIN = Configuration(name="drain", mode="rerun", body="step", drains=(0,), kills=0)
QUOTA = Configuration(name="quota", creates=((0, 0), (1, 1)), limit=1, kills=0)
IN_TURN = replace(QUOTA, in_turn=True)
BLOCKS = replace(RERUN, creates=((0, 0), (0, 1)), room=1)


MISTAKES = {
    # --- as a first reading of the design had it -------------------------------------------------
    "ready_without_number": Mistake(
        "@ready entries carry no number: a slow delete removes the next attempt's entry",
        replace(CALM, body="step", drains=(0,)),
    ),
    "inbox_without_number": Mistake(
        "inbox entries carry no number: the delete after acting removes the next word", TALK
    ),
    "inbox_after_flag": Mistake(
        "word is written after the answer: a death between leaves a body that waits for ever", WAIT
    ),
    "no_touch": Mistake(
        "a takeover leaves an unclaimed task as it is: a claim of the dead worker lands later",
        LATE_CLAIM,
        is_long=True,
    ),
    "settle_by_write_id": Mistake(
        "only one's own write on top settles a lost reply: another on top hides one's own claim",
        replace(CALM, cancels=((2, 0),), lost=1),
    ),
    "settle_by_reading": Mistake(
        "a look that does not show the write settles it: it lands later", replace(CALM, late=1)
    ),
    "prune_absent": Mistake("a roster drops an id whose create is still under way", QUOTA),
    "takeover_unadmitted": Mistake(
        "a task whose create was about to be refused is run again after a crash",
        replace(QUOTA, mode="rerun", kills=1),
    ),
    "claim_not_alone": Mistake(
        "two coroutines of one process claim a task, and one takes the other's claim for its own",
        replace(CALM, deliveries=((0, 0), (0, 0))),
    ),
    # --- creating --------------------------------------------------------------------------------
    "roster_after_start": Mistake("a create is acknowledged without waiting for the roster", QUOTA),
    "ack_before_ready": Mistake("a create is acknowledged before its @ready entry", SERVER),
    "create_stale_start": Mistake(
        "a create that outlived its worker's lease starts its body all the same",
        FREED,
    ),
    # --- claiming --------------------------------------------------------------------------------
    "sheet_after_claim": Mistake("the run sheet is written after the claim", SERVER),
    "claim_stale_lease": Mistake(
        "a worker claims without a look at its own lease", LATE_CLAIM, is_long=True
    ),
    "claim_check_first": Mistake(
        "the lease is looked at before the record is read", LATE_CLAIM, is_long=True
    ),
    "ready_deleted_first": Mistake("the @ready entry is deleted before the claim", SERVER),
    "ready_drop_early": Mistake(
        "an @ready entry ahead of its record is taken for garbage", replace(PARK, kills=0)
    ),
    "ready_drop_absent": Mistake("an @ready entry without a record is taken for garbage", CALM),
    # --- running ---------------------------------------------------------------------------------
    "fence_no_attempt": Mistake("a write of an attempt checks neither worker nor attempt", LAPSED),
    "fence_attempt_only": Mistake(
        "a hand-back keeps the attempt, the next claim too, and the fence compares no worker",
        DRAIN,
        needs="claim_keeps_attempt",
    ),
    # --- cancel and answer -----------------------------------------------------------------------
    "cancel_ack_first": Mistake("a cancel is acknowledged before it is durable", CANCEL),
    "inbox_drop_early": Mistake(
        "word ahead of its record is taken for garbage", replace(CANCEL, kills=0)
    ),
    "inbox_deleted_unread": Mistake("word is deleted before the record is read", CANCEL),
    "answer_marker_after": Mistake(
        "the @ready entry is written after the answer to a parked task", PARK
    ),
    # --- beats, hand-backs, time ------------------------------------------------------------------
    "claim_unheld": Mistake(
        "a claim whose answer was lost counts though the task was taken away since",
        replace(CALM, lost=1, lapses=1, unsure=("task",)),
        is_long=True,
    ),
    "reaper_forces": Mistake(
        "a takeover writes `taken` over whatever the worker wrote since it was seen", LAPSED
    ),
    "handback_counted": Mistake(
        "attempts that were handed back count as lost ones", replace(DRAIN, kills=1, restarts=1)
    ),
    "word_of_mouth_only": Mistake(
        "an answer for a worker of one's own process has no entry, though its write is unanswered",
        replace(WAIT, answers=((0, 0, 0),), kills=0, lost=1, gives_up=True),
    ),
    "prune_unended": Mistake(
        "a roster drops a task past its time without ending it: its worker may let it live on",
        replace(IN_TURN, body="hang", ages=(0,), extends=(0,)),
        is_long=True,
    ),
    "sweep_blind": Mistake(
        "a clean-up removes what lies there, not only what it saw expired",
        replace(IN_TURN, body="hang", ages=(0,), creates=((0, 0), (1, 1), (1, 2))),
    ),
    "news_of_old_ignored": Mistake(
        "a body does not look at the record it begins with, and word of that is old news to it",
        replace(CALM, body="hang", cancels=((2, 0),), lost=1, unsure=("task",)),
    ),
    # --- several questions at once ---------------------------------------------------------------
    "one_answer_frees": Mistake(
        "a parked task may be claimed after its first answer, though a question is open",
        replace(PARK, questions=2, answers=((1, 0, 0), (1, 0, 1))),
    ),
    "parks_answered": Mistake(
        "a task is left without a worker though its last answer came before that",
        replace(PARK, body="linger", kills=0),
    ),
    "asks_again": Mistake(
        "questions whose write was unanswered are put again after a conflict, answered or not",
        replace(WAIT, kills=0, lost=1, unsure=("task",)),
    ),
    # --- run sheets in blocks --------------------------------------------------------------------
    "sheet_unlocked": Mistake(
        "two coroutines write one block: the second starts anew from what it knows, and loses one",
        BLOCKS,
    ),
    "one_block_taken": Mistake("a takeover looks at the first block alone", BLOCKS),
    "trim_drops_again": Mistake(
        "a task that its worker claims again is still over on its sheet, and trimmed",
        replace(PARK, trims=True),
    ),
    "lost_forgets": Mistake(
        "a worker that was taken over takes its bodies' tasks off its sheet when it stops them",
        replace(WAIT, answers=(), kills=0, lapses=1),
    ),
    # --- the database away -----------------------------------------------------------------------
    "fence_stops_all": Mistake(
        "a worker whose beats fail gives up what may not run again, though nobody took it",
        replace(ONCE, body="hang", kills=0, lapses=1, fences=True, cancels=((1, 0),)),
        is_long=True,
    ),
    # --- losing a worker -------------------------------------------------------------------------
    "handback_ignores_cancel": Mistake(
        "a takeover does not look at the cancel flag", replace(WAIT, answers=(), cancels=((1, 0),))
    ),
    "self_fence_never": Mistake("a worker whose lease ran out goes on as if it had not", LAPSED),
    "takeover_marker_never": Mistake("a takeover frees a task without an @ready entry", RERUN),
    "worker_deleted_first": Mistake(
        "a takeover deletes the worker record before it frees the tasks", TWICE
    ),
    "sheet_deleted_first": Mistake(
        "a takeover deletes the sheets before it frees the tasks", TWICE
    ),
}


def planted(name: str) -> Configuration:
    """Return the configuration in which mistake `name` is made."""
    mistake = MISTAKES[name]
    return replace(mistake.where, name=name, mistakes=frozenset({name, mistake.needs}))

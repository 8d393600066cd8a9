"""Beat against reaper, with clocks: a worker's record is never taken while its lease is good.

The other searches take that for granted. Here time is a number: a worker and a reaper with clocks
of different rates, beats that are slow, unanswered or land late, looks that take a while, and a
database that is away. Versions are told by how many the database is ahead of whoever knows one, so
that the same situation later is the same state.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from tests.model.search import Step, ViolationError


if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.model.search import Label, State


BEAT, FENCE, LEASE = 4, 8, 12
"""As the configured 5, 10 and 15 seconds: by the worker's clock, the worker's, the reaper's."""

RETRY, GAP = 1, 5
"""A beat that failed is sent again so soon. After so long without a look all is observed anew."""


@dataclass(frozen=True, kw_only=True)
class Race:
    """What is searched.

    Attributes:
        name: For the table.
        rates: How far the worker's and the reaper's clock go in one tick of time.
        unanswered: Beats that nobody answers: they land, land late, or never do.
        outages: How often the database may be away.
        is_prompt: The worker does all that it can do before time goes on; then it must not be taken
            at all. Else it may stand still at any moment for any time.
        mistake: What is wrong on purpose.
    """

    name: str
    rates: tuple[int, int] = (1, 1)
    unanswered: int = 0
    outages: int = 0
    is_prompt: bool = False
    mistake: str = ""


class Beat(NamedTuple):
    """A beat that was sent and has not reached the database."""

    ahead: int
    is_waited_for: bool = True


class Now(NamedTuple):
    """A state.

    Attributes:
        is_taken: The record says so.
        ahead: By how many versions the database is ahead of what the worker knows.
        good: Worker's time since it sent its last good beat.
        due: Worker's time until the next beat.
        unsure: Worker's time since it sent the first of the beats that nobody answered.
        asked: Worker's time since it sent the beat that it waits for.
        answer: What has come back for that.
        is_lost: The worker knows that it was taken.
        beats: On their way to the database.
        seen: The reaper's sight: how far the database is ahead of it.
        since: Reaper's time since that sight.
        looked: Reaper's time since it last began a look that succeeded.
        looking: Reaper's time since it began the look that is under way.
        is_old: When that began, the sight was a lease old.
        wants: It found the worker dead: how far the database is ahead of the version of that.
        is_away: The database is.
        unanswered: How many beats may still go unanswered.
        outages: How often the database may still go away.
    """

    is_taken: bool = False
    ahead: int = 0
    good: int = 0
    due: int = BEAT
    unsure: int | None = None
    asked: int | None = None
    answer: str = ""
    is_lost: bool = False
    beats: tuple[Beat, ...] = ()
    seen: int | None = None
    since: int = 0
    looked: int = 0
    looking: int | None = None
    is_old: bool = False
    wants: int | None = None
    is_away: bool = False
    unanswered: int = 0
    outages: int = 0

    @property
    def is_good(self) -> bool:
        """True while the worker takes its lease for good."""
        return not self.is_lost and self.good < FENCE


class Lease:
    """A race as something to search."""

    def __init__(self, race: Race) -> None:
        self.race = race

    def initial(self) -> list[State]:
        """The worker has just registered, and nobody has seen it."""
        return [Now(unanswered=self.race.unanswered, outages=self.race.outages)]

    def steps(self, state: State) -> Iterator[Step]:
        """Return all that can happen in `state`."""
        now = Now(*state)
        for label, after in self._all(now):
            if after.is_taken and after.is_good:
                raise ViolationError("taken though its lease is good", (label,))
            if after.is_taken and self.race.is_prompt:
                raise ViolationError("taken though it beats as it should", (label,))
            yield Step((label,), is_own=True, state=after)

    def told(self, label: Label) -> str:
        """Put a step into words."""
        return " ".join(label)

    def is_at_rest(self, state: State) -> bool:
        """Nothing has to come about here."""
        return True

    def must_come_to_rest(self, state: State) -> bool:
        """Nothing has to come about here."""
        return False

    def _all(self, now: Now) -> Iterator[tuple[str, Now]]:
        if now.is_taken:
            # What matters from here on is only whether the worker ever thinks its lease good.
            yield from self._worker(now)
            yield from self._database(now)
            return
        if not (self.race.is_prompt and self._must_act(now)):
            yield self._tick(now)
        yield from self._worker(now)
        yield from self._database(now)
        yield from self._reaper(now)
        if now.is_away:
            yield "the database is back", now._replace(is_away=False)
        elif now.outages:
            yield "THE DATABASE IS AWAY", now._replace(is_away=True, outages=now.outages - 1)

    @staticmethod
    def _must_act(now: Now) -> bool:
        """Tell whether a worker that does not stand still acts before time goes on."""
        if now.is_lost:
            return False
        if now.asked is None:
            return now.due <= 0
        limit = max(FENCE - (now.good - now.asked), BEAT)  # a beat that hangs is given up
        return bool(now.answer) or not now.is_away or now.asked >= limit

    def _tick(self, now: Now) -> tuple[str, Now]:
        mine, other = self.race.rates
        return "time passes", now._replace(
            good=min(now.good + mine, 2 * FENCE),
            due=max(now.due - mine, 0) if now.asked is None else now.due,
            unsure=None if now.unsure is None else min(now.unsure + mine, FENCE),
            asked=None if now.asked is None else min(now.asked + mine, FENCE),
            since=min(now.since + other, LEASE),
            looked=min(now.looked + other, GAP + 1),
            looking=None if now.looking is None else min(now.looking + other, GAP + 1),
        )

    # --- the worker ------------------------------------------------------------------------------

    def _worker(self, now: Now) -> Iterator[tuple[str, Now]]:
        if now.is_lost:
            return
        if now.asked is None:
            if now.due <= 0:
                beats = tuple(sorted((*now.beats, Beat(now.ahead))))
                yield "the worker beats", now._replace(asked=0, beats=beats)
        elif now.answer:
            yield f"the worker hears: {now.answer}", self._heard(now, now.asked)

    def _heard(self, now: Now, asked: int) -> Now:
        after = now._replace(asked=None, answer="", due=BEAT)
        if now.answer == "ok":
            good = 0 if self._is_wrong("beat_counts_from_answer") else asked
            return after._replace(ahead=now.ahead - 1, good=good, unsure=None)
        if now.answer == "refused":
            return after._replace(due=RETRY)
        if now.answer == "nothing":
            return after._replace(due=RETRY, unsure=asked if now.unsure is None else now.unsure)
        # A conflict: with its own beat, whose answer was lost, or with who took it.
        if now.unsure is None or now.is_taken or now.ahead != 1:
            return after._replace(is_lost=True)
        good = asked if self._is_wrong("own_beat_counts_anew") else now.unsure
        return after._replace(ahead=0, good=good, unsure=None, due=0)

    # --- the database ----------------------------------------------------------------------------

    def _database(self, now: Now) -> Iterator[tuple[str, Now]]:
        if now.is_away:
            for beat in now.beats:
                if beat.is_waited_for:
                    beats = _without(now.beats, beat)
                    yield "the beat is refused", now._replace(beats=beats, answer="refused")
                    late = _delayed(beats, beat)
                    yield "nobody answers the beat", now._replace(beats=late, answer="nothing")
            return
        for beat in dict.fromkeys(now.beats):
            left = now._replace(beats=_without(now.beats, beat))
            is_ok = beat.ahead == 0 and not now.is_taken
            landed = _moved_on(left) if is_ok else left
            if not beat.is_waited_for:
                yield "a beat lands late", landed
                continue
            yield "the beat arrives", landed._replace(answer="ok" if is_ok else "conflict")
            if now.unanswered:
                landed = landed._replace(unanswered=now.unanswered - 1, answer="nothing")
                yield "THE BEAT ARRIVES UNANSWERED", landed
                late = _delayed(left.beats, beat)
                left = left._replace(unanswered=now.unanswered - 1, answer="nothing", beats=late)
                yield "THE BEAT IS DELAYED", left

    # --- the reaper ------------------------------------------------------------------------------

    def _reaper(self, now: Now) -> Iterator[tuple[str, Now]]:
        if now.wants is not None:
            if now.wants == 0 or self._is_wrong("taken_by_force"):
                yield "the reaper takes the worker", now._replace(is_taken=True)
            else:
                yield "the reaper finds that it beats", now._replace(wants=None, seen=None)
        elif now.looking is None:
            if not now.is_away:
                # There was a gap of so long: what was seen before it does not count.
                is_anew = now.looked > GAP and not self._is_wrong("gap_ignored")
                seen = None if is_anew else now.seen
                is_old = now.since >= LEASE
                yield "the reaper begins to look", now._replace(looking=0, seen=seen, is_old=is_old)
        elif now.is_away:
            yield "the look fails", now._replace(looking=None, is_old=False)
        else:
            yield "the reaper sees the record", self._saw(now, now.looking)

    def _saw(self, now: Now, looking: int) -> Now:
        """Take note of what a look shows, which began `looking` ago."""
        after = now._replace(looking=None, looked=looking, is_old=False)
        if now.seen != 0:
            # Seen when the answer came: the beat may be as young as that.
            since = looking if self._is_wrong("seen_when_asked") else 0
            return after._replace(seen=0, since=since)
        # The time that the look took does not count: perhaps nobody could beat meanwhile.
        is_old = now.since >= LEASE if self._is_wrong("aged_while_looking") else now.is_old
        return after._replace(wants=0) if is_old else after

    def _is_wrong(self, mistake: str) -> bool:
        return self.race.mistake == mistake


def _moved_on(now: Now) -> Now:
    """Return a state with one more version in the database. More than 3 is as good as 3.

    No late beat can land any more, for versions do not come again.
    """
    beats = [Beat(min(beat.ahead + 1, 3)) for beat in now.beats if beat.is_waited_for]
    return now._replace(
        ahead=min(now.ahead + 1, 3),
        beats=tuple(beats),
        seen=None if now.seen is None else 1,
        wants=None if now.wants is None else 1,
    )


def _delayed(beats: tuple[Beat, ...], beat: Beat) -> tuple[Beat, ...]:
    """Add a beat that may land late: two that expect the same version are as good as one."""
    return tuple(sorted({*beats, Beat(beat.ahead, is_waited_for=False)}))


def _without(beats: tuple[Beat, ...], beat: Beat) -> tuple[Beat, ...]:
    at = beats.index(beat)
    return (*beats[:at], *beats[at + 1 :])


QUICK_RACES = (
    Race(name="beats", rates=(2, 2)),
    Race(name="beats-unanswered", rates=(2, 2), unanswered=1),
    Race(name="beats-clocks", rates=(2, 3), unanswered=1),
    Race(name="beats-outage", rates=(2, 2), outages=1, is_prompt=True),
)

LONG_RACES = (
    Race(name="beats-finely"),
    Race(name="beats-outage-finely", outages=1, is_prompt=True),
)

RACE_MISTAKES = {
    "beat_counts_from_answer": (
        "a beat counts from when its answer came, and not from when it was sent",
        Race(name="beats", rates=(2, 2)),
    ),
    "own_beat_counts_anew": (
        "an unanswered beat of one's own counts from when it was found, not from when it was sent",
        Race(name="beats", rates=(4, 4), unanswered=1),
    ),
    "taken_by_force": (
        "`taken` is written over whatever was written since",
        Race(name="beats", rates=(2, 2)),
    ),
    "gap_ignored": (
        "what was seen before an outage counts after it",
        Race(name="beats", rates=(2, 2), outages=1, is_prompt=True),
    ),
    "aged_while_looking": (
        "a look that hangs through an outage counts the time in which nobody could beat",
        Race(name="beats", rates=(2, 2), outages=1, is_prompt=True),
    ),
    "seen_when_asked": (
        "a record counts as seen from when the look began, and not from when it was read",
        Race(name="beats"),
    ),
}


def raced(name: str) -> Lease:
    """Return the race in which mistake `name` is made."""
    return Lease(replace(RACE_MISTAKES[name][1], mistake=name))

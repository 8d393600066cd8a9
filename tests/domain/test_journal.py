"""The journal: what happened once does not happen again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_tasks.domain import journal
from mcp_tasks.domain.record import Blob, Entry, Journal, Payload, inline
from mcp_tasks.errors import JournalFullError


def entry(key: str, value: bytes = b"1") -> Entry:
    """Make the entry of a step."""
    return Entry(key, "step", inline(value), "work")


def append(old: Journal, *entries: Entry, count: int = 100, size: int = 1000) -> Journal:
    """Append within limits."""
    return journal.append(old, entries, max_entries=count, max_bytes=size)


def test_entries_stay_in_order() -> None:
    """A run that begins anew reads them so."""
    new = append(append(Journal(), entry("a")), entry("b", b"[1]"), entry("c"))

    assert [found.key for found in new.tail] == ["a", "b", "c"]
    assert (new.count, new.size) == (3, 5)
    assert new.tail_size > 5


def test_an_entry_that_is_there_is_not_appended_again() -> None:
    """The answer to its write may have been lost; nothing to append is no change."""
    old = append(Journal(), entry("a"), entry("b"))

    assert append(old, entry("a"), entry("b", b"2")) is old
    assert [found.key for found in append(old, entry("b"), entry("c")).tail] == ["a", "b", "c"]


def test_a_step_and_an_answer_may_have_the_same_key() -> None:
    """They are told apart by their kind."""
    answer = Entry("a", "answer", inline(b"2"))

    assert append(append(Journal(), entry("a")), answer).count == 2


def test_a_journal_may_be_as_long_and_as_large_as_its_limits() -> None:
    """Equal is allowed; a value beside the record counts with its whole size."""
    beside = Entry("big", "step", Payload(blob=Blob("b", 1, 90)))
    assert append(Journal(), entry("a"), entry("b"), count=2, size=2).count == 2
    with pytest.raises(JournalFullError, match="2 entries"):
        append(Journal(), entry("a"), entry("b"), entry("c"), count=2)
    with pytest.raises(JournalFullError, match="91 bytes"):
        append(Journal(), entry("a"), entry("b"), beside, size=91)
    assert append(Journal(), entry("a"), beside, size=91).size == 91


def test_sealing_moves_the_tail_and_keeps_the_account() -> None:
    """One run's chunks make one blob, another run's another."""
    old = append(Journal(), entry("a"), entry("b"))

    first = journal.seal(old, "run-1", 40)
    assert journal.next_chunk(first, "run-1") == 1
    assert journal.next_chunk(first, "run-2") == 0
    second = journal.seal(append(first, entry("c")), "run-1", 20)
    third = journal.seal(append(second, entry("d")), "run-2", 7)

    assert third.sealed == (Blob("run-1", 2, 60), Blob("run-2", 1, 7))
    assert (third.tail, third.tail_size, third.count, third.size) == ((), 0, 4, 4)


@given(
    entries=st.lists(st.tuples(st.text(max_size=20), st.binary(max_size=50)), max_size=40),
    size=st.integers(1, 500),
)
def test_dividing_keeps_every_entry_in_order(entries: list[tuple[str, bytes]], size: int) -> None:
    """No run is empty, and none is much over its size unless one entry is."""
    made = tuple(entry(key, b'"%d"' % len(value) + b" " * len(value)) for key, value in entries)

    runs = journal.split(made, size)

    assert tuple(found for run in runs for found in run) == made
    assert all(runs) or not made
    for run in runs:
        weight = sum(48 + len(found.key) + len(found.what) + found.value.size for found in run)
        assert len(run) <= 1 or weight <= size


def test_a_chunk_comes_back_whole() -> None:
    """Values that are JSON stay the bytes that they were."""
    entries = (
        entry("a", b"null"),
        Entry("b", "answer", Payload(blob=Blob("x", 2, 9)), "sampling/createMessage", "eve"),
    )

    assert journal.decode_chunk(journal.encode_chunk(entries)) == entries

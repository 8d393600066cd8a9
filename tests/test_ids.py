"""Identifiers."""

from __future__ import annotations

import multiprocessing
import random
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_tasks.clock import epoch_ms, from_epoch_ms
from mcp_tasks.ids import TASK_ID_LENGTH, is_task_id, new_name, new_task_id


NOW = datetime(2026, 7, 28, tzinfo=UTC)
moments = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 30)).map(  # noqa: DTZ001 - made aware
    lambda moment: moment.replace(tzinfo=UTC)
)


@given(moments, moments)
def test_ids_sort_as_their_moments_do(one: datetime, other: datetime) -> None:
    """A list in order of keys is a list in order of creation, to the millisecond."""
    first, second = new_task_id(one), new_task_id(other)

    assert is_task_id(first)
    assert len(first) == TASK_ID_LENGTH
    if epoch_ms(one) != epoch_ms(other):
        assert (first < second) == (one < other)


def test_every_letter_is_as_likely_as_any_other_in_every_place() -> None:
    """130 random bits are 130 bits only if none is predictable."""
    made = [new_task_id(NOW)[10:] for _ in range(4096)]

    for place in range(26):
        counts = Counter(text[place] for text in made)
        assert len(counts) == 32
        assert min(counts.values()) > 128 * 0.4


def test_names_are_never_made_twice() -> None:
    """They name what is never written again."""
    assert len({new_name() for _ in range(10_000)}) == 10_000
    assert {len(new_name()) for _ in range(100)} == {16}


@pytest.mark.parametrize(
    "text",
    ["", "0" * 35, "0" * 37, "A" * 36, "i" * 36, "\uff10" * 36, "0" * 35 + "\n", "0" * 35 + ":"],
)
def test_other_text_is_no_id(text: str) -> None:
    """It costs no look-up, and reaches no key."""
    assert not is_task_id(text)


@given(moments)
def test_milliseconds_are_rounded_up(moment: datetime) -> None:
    """Nothing expires early."""
    back = from_epoch_ms(epoch_ms(moment))

    assert timedelta(0) <= back - moment < timedelta(milliseconds=1)
    assert epoch_ms(back) == epoch_ms(moment)


def test_a_forked_process_makes_other_names() -> None:
    """Two workers of one name would take each other's tasks."""
    context = multiprocessing.get_context("fork")
    names = context.SimpleQueue()
    child = context.Process(target=lambda: names.put([new_name() for _ in range(100)]))
    child.start()
    theirs = names.get()
    child.join()

    assert not set(theirs) & {new_name() for _ in range(100)}


def test_a_seeded_program_makes_other_names() -> None:
    """A program that seeds `random` for its own ends must not make its workers one."""
    random.seed(7)
    first = new_name()
    random.seed(7)

    assert new_name() != first

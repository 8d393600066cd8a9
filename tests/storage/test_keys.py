"""Keys: no owner reaches another's records, whatever it is called."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_tasks.errors import InvalidKeyError
from mcp_tasks.storage.keys import MAX_KEY_BYTES, MAX_PART_BYTES, Keys, encode, split, split_prefix
from mcp_tasks.storage.ranges import listing_range


# Names that somebody who attacks would choose, and any text at all, broken surrogates included.
_NASTY = st.text(alphabet=":/@~%._-*? aA\x00\ud800\U0010ffff\u00e9", max_size=8)
_ANY = st.text(alphabet=st.characters(exclude_categories=()), max_size=300)
NAMES = _NASTY | _ANY


@given(NAMES, NAMES)
def test_distinct_owners_never_share_a_key(one: str, other: str) -> None:
    """Two owners are two partitions, also those too long to be written out."""
    keys = Keys()

    assert (keys.task(one, "t1") == keys.task(other, "t1")) == (one == other)
    assert (keys.tasks(one) == keys.tasks(other)) == (one == other)


@given(NAMES, NAMES, NAMES)
def test_no_owner_is_the_beginning_of_another(one: str, other: str, task_id: str) -> None:
    """Listing an owner's tasks shows nobody else's."""
    keys = Keys()

    begins = keys.task(other, task_id).startswith(keys.tasks(one))

    assert begins == (one == other)


@given(NAMES, NAMES, NAMES)
def test_no_task_is_the_beginning_of_another_in_its_payloads(
    owner: str, one: str, other: str
) -> None:
    """Deleting the payloads of `t1` leaves those of `t10` and `t1.x` alone.

    Ids with a dot are none of ours, so they are left out here.
    """
    if "." in one or "." in other:
        return
    keys = Keys()

    begins = keys.blob(owner, other, "x", 0).startswith(keys.blobs(owner, one))

    assert begins == (one == other)


@given(NAMES, NAMES, NAMES)
def test_namespaces_are_worlds_of_their_own(namespace: str, owner: str, other: str) -> None:
    """No owner can be called so that it lies in a namespace, or outside of its own."""
    inside, outside = Keys(namespace), Keys()
    if not namespace:
        return

    assert inside.task(owner, "t1") != outside.task(other, "t1")
    assert inside.workers() != outside.tasks(other)
    assert not outside.task(other, "t1").startswith(inside.tasks(owner))


@given(NAMES, NAMES)
def test_distinct_namespaces_share_nothing(one: str, other: str) -> None:
    """Two applications on one database do not see each other's tasks or workers."""
    first, second = Keys(one), Keys(other)

    assert (first.task("ada", "t1") == second.task("ada", "t1")) == (one == other)
    assert (first.workers() == second.workers()) == (one == other)
    assert (first.readies() == second.readies()) == (one == other)


@given(NAMES)
def test_no_owner_reaches_our_own_partitions(owner: str) -> None:
    """Workers and run sheets are not to be had by an owner called like them."""
    keys = Keys()

    for ours in (keys.workers(), keys.readies(), keys.sheets("w1"), keys.inboxes("w1")):
        assert keys.tasks(owner) != ours
        assert not keys.task(owner, "t1").startswith(ours)


@given(NAMES, NAMES, NAMES)
def test_every_key_is_well_formed(namespace: str, owner: str, task_id: str) -> None:
    """Of any name: one colon, letters that every database takes, not too long."""
    keys = Keys(namespace)

    for key in (keys.task(owner, task_id), keys.blob(owner, task_id, "n" * 16, 99999)):
        partition, sort = split(key)
        assert f"{partition}:{sort}" == key
        assert key.isascii()
        assert key.isprintable()
        assert len(key) <= MAX_KEY_BYTES


@given(NAMES)
def test_encoding_keeps_to_its_letters_and_its_length(part: str) -> None:
    """So `:`, `/` and `@` are ours alone, and `~` only begins what was too long or empty."""
    encoded = encode(part)

    assert 0 < len(encoded) <= MAX_PART_BYTES
    assert not set(":/@ ") & set(encoded)
    assert "~" not in encoded[1:]


def test_a_plain_name_stays_readable() -> None:
    """Whoever looks into the database finds their way."""
    assert Keys("reports").task("ada", "t1") == "reports/ada:t1"


@given(st.integers(min_value=0), NAMES)
def test_an_entry_can_be_taken_apart(number: int, worker: str) -> None:
    """Into the task and the attempt or version that it announces."""
    keys = Keys("reports")

    assert keys.entry(keys.ready("t1", number)) == ("t1", number)
    assert keys.entry(keys.inbox(encode(worker), "t1", number)) == ("t1", number)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("ada", "no ':'"),
        ("ada:t1:x", "more than one"),
        (":t1", "empty"),
        ("ada:", "empty"),
        ("ada:" + "t" * MAX_KEY_BYTES, "longer than"),
    ],
)
def test_a_bad_key_is_refused_with_the_reason(key: str, reason: str) -> None:
    """The error says what is wrong with it."""
    with pytest.raises(InvalidKeyError, match=reason):
        split(key)


def test_a_prefix_has_its_colon() -> None:
    """Without it, it would reach into partitions that begin like it."""
    assert split_prefix("ada:") == ("ada", "")
    assert split_prefix("ada:t1.") == ("ada", "t1.")
    for bad in ("ada", ":t", "ada:t:"):
        with pytest.raises(InvalidKeyError):
            split_prefix(bad)


_TEXT = st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=6).map(
    lambda text: text.replace(":", ";")
)
_TIGHT = st.text(alphabet="ab\x00\U0010ffff\ud7ff\ue000", max_size=4)
SORTS = _TEXT | _TIGHT


@given(SORTS, SORTS)
def test_a_range_holds_exactly_what_begins_with_the_prefix(begin: str, sort: str) -> None:
    """Also at the edges of Unicode."""
    first, end = listing_range(f"ada:{begin}", limit=1, after=None, reverse=False)

    assert (first <= f"ada:{sort}" < end) == sort.startswith(begin)


@given(SORTS, SORTS, st.booleans())
def test_after_cuts_a_range_right_behind_a_key(seen: str, sort: str, reverse: bool) -> None:  # noqa: FBT001 - hypothesis
    """The key itself is left out, and its nearest neighbour is not."""
    first, end = listing_range("ada:", limit=1, after=f"ada:{seen}", reverse=reverse)

    assert (first <= f"ada:{sort}" < end) == (sort < seen if reverse else sort > seen)


@given(SORTS)
def test_a_range_can_be_encoded(begin: str) -> None:
    """A database takes UTF-8, which has no surrogates."""
    for bound in listing_range(f"ada:{begin}", limit=1, after=None, reverse=False):
        bound.encode()


def test_a_page_of_nothing_is_refused() -> None:
    """It would never end."""
    with pytest.raises(ValueError, match="at least 1"):
        listing_range("ada:", limit=0, after=None, reverse=False)

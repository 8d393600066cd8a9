"""Records as bytes, over releases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw
from msgspec.structs import replace

from mcp_tasks.domain.codec import TOMBSTONE, decode_record, encode_record
from mcp_tasks.domain.record import (
    FORMAT,
    Blob,
    Call,
    Entry,
    Failure,
    Journal,
    Mark,
    Payload,
    Policy,
    Principal,
    Progress,
    Question,
    TaskRecord,
    inline,
)
from mcp_tasks.domain.status import TaskStatus
from mcp_tasks.errors import InvalidValueError, RecordFormatError


texts = st.text(max_size=8)
maybe = st.none() | texts
counts = st.integers(0, 2**53)
moments = st.datetimes(datetime(2000, 1, 1), datetime(2200, 1, 1)).map(  # noqa: DTZ001 - made aware
    lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000, tzinfo=UTC)
)
spans = st.integers(1, 10**12).map(lambda ms: timedelta(milliseconds=ms))
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | texts
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
raws = json_values.map(lambda value: Raw(msgspec.json.encode(value)))
blobs = st.builds(Blob, texts, counts, counts)
payloads = raws.map(lambda raw: inline(bytes(raw))) | st.builds(Payload, st.just(UNSET), blobs)
marks = st.builds(Mark, moments, maybe)
entries = st.builds(Entry, texts, st.sampled_from(["step", "answer"]), payloads, texts, maybe)
records = st.builds(
    TaskRecord,
    format=st.just(FORMAT),
    min_writer=st.just(FORMAT),
    task_id=texts,
    owner=texts,
    status=st.sampled_from(TaskStatus),
    created_at=moments,
    updated_at=moments,
    ttl=spans,
    poll_interval=spans,
    call=st.builds(
        Call,
        texts,
        payloads,
        texts,
        st.none() | payloads,
        maybe,
        raws | st.just(UNSET),
        raws | st.just(UNSET),
        st.none()
        | st.builds(Principal, texts, maybe, maybe, st.lists(texts, max_size=2).map(tuple)),
        maybe,
    ),
    policy=st.builds(
        Policy, st.sampled_from(["fail", "rerun"]), st.booleans(), counts, st.booleans()
    ),
    created_by=maybe,
    message=maybe,
    worker=maybe,
    attempt=counts,
    lost=counts,
    cancel=st.none() | marks,
    progress=st.none()
    | st.builds(
        Progress,
        st.floats(allow_nan=False, allow_infinity=False),
        st.none() | st.floats(allow_nan=False, allow_infinity=False),
        maybe,
    ),
    variables=st.none() | payloads,
    questions=st.lists(st.builds(Question, texts, texts, payloads, moments), max_size=2).map(tuple),
    asked=counts,
    journal=st.builds(
        Journal,
        st.lists(blobs, max_size=2).map(tuple),
        st.lists(entries, max_size=2).map(tuple),
        counts,
        counts,
        counts,
    ),
    result=st.none() | payloads,
    error=st.none()
    | st.builds(Failure, st.integers(-(2**31), 2**31), texts, raws | st.just(UNSET)),
    ended_at=st.none() | moments,
    writes=st.lists(texts, max_size=8).map(tuple),
)


@given(records)
def test_a_record_comes_back_as_it_was(record: TaskRecord) -> None:
    """And the same record gives the same bytes, so a terminal body never changes."""
    data = encode_record(record)

    found = decode_record(data)

    assert found is not None
    assert found == record
    assert encode_record(found) == data
    assert data.startswith(b"{")


@given(records, st.dictionaries(texts, json_values, max_size=4))
def test_fields_of_a_newer_format_survive_a_rewrite(
    record: TaskRecord, extra: dict[str, Any]
) -> None:
    """Releases run side by side, and neither may lose what the other wrote."""
    extra = {f"new-{name}": value for name, value in extra.items()}
    body = {**msgspec.json.decode(encode_record(record)), "format": FORMAT + 1, **extra}

    found = decode_record(msgspec.json.encode(body))
    assert found is not None
    rewritten = encode_record(replace(found, message="changed"))

    again = msgspec.json.decode(rewritten)
    assert {name: again.get(name) for name in extra} == extra
    assert (again["message"], again["format"]) == ("changed", FORMAT + 1)
    assert decode_record(rewritten) == replace(found, message="changed")


@given(records)
def test_a_record_for_newer_writers_is_read_and_not_written(record: TaskRecord) -> None:
    """This release would break what it does not know."""
    body = {**msgspec.json.decode(encode_record(record)), "format": 9, "min_writer": FORMAT + 1}

    found = decode_record(msgspec.json.encode(body))

    assert found is not None
    assert found.task_id == record.task_id
    with pytest.raises(RecordFormatError, match=f"format {FORMAT + 1}, this one {FORMAT}"):
        encode_record(found)


def test_null_and_nothing_are_two_things() -> None:
    """A result of null is a result."""
    for payload in (inline(b"null"), None):
        data = msgspec.json.encode({"value": payload})
        assert msgspec.json.decode(data, type=dict[str, Payload | None])["value"] == payload


def test_a_tombstone_reads_as_nothing() -> None:
    """It lies under a task's key so that a create which is still on its way fails."""
    assert decode_record(TOMBSTONE) is None


@pytest.mark.parametrize("body", [b"\x01\x02", b"", b" {}", b"[]", b"\xff", b"null"])
def test_a_sealed_envelope_is_named_as_such(body: bytes) -> None:
    """A first byte that is not `{` is kept free for encryption and compression."""
    with pytest.raises(RecordFormatError, match="sealed"):
        decode_record(body)


@given(records, st.data())
def test_a_damaged_record_is_an_error_and_nothing_else(
    record: TaskRecord, data: st.DataObject
) -> None:
    """Whatever is left of it: an operator gets one kind of error, not a traceback."""
    body = encode_record(record)
    cut = data.draw(st.integers(1, len(body) - 1))

    with pytest.raises(RecordFormatError, match="damaged"):
        decode_record(body[:cut])


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"format":1}',
        b'{"format":"1"}',
        b'{"tombstone":false}',
        b"{" + b'"a":[' * 5000 + b"]" * 5000 + b"}",
        b'{"format":2,"a":"\xff"}',
    ],
)
def test_a_record_that_is_none_is_damaged(body: bytes) -> None:
    """It is JSON, or nearly, and still no record."""
    with pytest.raises(RecordFormatError, match="damaged"):
        decode_record(body)


def test_a_text_that_is_no_unicode_is_refused_at_the_door() -> None:
    """Whatever field it came by; nothing else catches them all."""
    now = datetime(2026, 7, 28, tzinfo=UTC)
    record = TaskRecord(
        format=FORMAT,
        min_writer=FORMAT,
        task_id="t",
        owner="\ud800",
        status=TaskStatus.WORKING,
        created_at=now,
        updated_at=now,
        ttl=timedelta(1),
        poll_interval=timedelta(1),
        call=Call("report", inline(b"{}")),
        policy=Policy(),
    )

    with pytest.raises(InvalidValueError, match="lone surrogate"):
        encode_record(record)

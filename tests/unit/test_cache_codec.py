"""Stored responses as bytes: what is written is read, whatever else is read is no entry."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxyd.cache.codec import decode, encode
from llmproxyd.cache.interface import Entry

TIMES = st.floats(allow_nan=False)
TEXT = st.binary(max_size=20)
FIELD = st.tuples(TEXT, TEXT)

STRATEGIES: dict[str, st.SearchStrategy[Any]] = {
    "status": st.integers(0, 65535),
    "reason": TEXT,
    "headers": st.lists(FIELD, max_size=5),
    "body": st.binary(max_size=300),
    "varied": st.lists(st.tuples(TEXT, st.none() | TEXT), max_size=3).map(tuple),
    "requested": TIMES,
    "received": TIMES,
    "lifetime": TIMES,
    "age": TIMES,
    "etag": st.none() | TEXT,
    "last_modified": st.none() | TEXT,
    "must_revalidate": st.booleans(),
    "no_cache": st.booleans(),
    "stale_if_error": TIMES,
    "stale_while_revalidate": TIMES,
    "url": TEXT,
    "method": TEXT,
    "project": st.text(max_size=10),
}
ENTRIES = st.builds(Entry, **STRATEGIES)


def entry(**more: Any) -> Entry:
    given = {
        "status": 200,
        "reason": b"OK",
        "headers": [(b"Content-Type", b"text/plain")],
        "body": b"\0\xff",
        "requested": 1.5,
        "received": 2.5,
        "lifetime": 60.0,
        "age": 0.0,
    }
    return Entry(**{**given, **more})


def test_every_field_of_an_entry_is_tried_here() -> None:
    # What serving it has found out is found out again where it is read.
    assert {one.name for one in fields(Entry)} == set(STRATEGIES) | {"ready"}


@given(ENTRIES)
def test_what_is_written_is_read(one: Entry) -> None:
    assert decode(encode(one)) == one


@given(st.binary(max_size=400))
def test_anything_else_is_no_entry(data: bytes) -> None:
    decode(data)


@given(ENTRIES, st.data())
def test_damaged_entry_is_no_entry_or_a_whole_one(one: Entry, data: st.DataObject) -> None:
    raw = bytearray(encode(one))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    found = decode(bytes(raw))
    assert found is None or len(encode(found)) == len(raw)


@given(ENTRIES, st.data())
def test_entry_that_was_cut_off_is_none(one: Entry, data: st.DataObject) -> None:
    raw = encode(one)
    assert decode(raw[: data.draw(st.integers(0, len(raw) - 1))]) is None
    assert decode(raw + b"\0") is None


def test_length_beyond_all_bounds_is_read_without_memory() -> None:
    raw = bytearray(encode(entry()))
    raw[4:8] = b"\xff\xff\xff\xff"
    assert decode(bytes(raw)) is None


def test_time_that_is_no_number_is_no_entry() -> None:
    assert decode(encode(entry(lifetime=float("nan")))) is None


@pytest.mark.parametrize("more", [{"status": 70_000}, {"status": -1}, {"headers": [(b"a", b"b")] * 70_000}])
def test_what_does_not_fit_is_said(more: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        encode(entry(**more))

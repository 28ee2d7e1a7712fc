"""JSON read strictly."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxyd.admin.body import MAX_DEPTH, read_json
from llmproxyd.errors import Refused

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(), below, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_json_is_read(value: Any) -> None:
    if "Infinity" not in json.dumps(value):
        assert read_json(json.dumps(value).encode()) == value


@given(
    st.binary(max_size=60)
    | st.text(alphabet='{}[]",:0123456789eE+-.\\untrefalsNI', max_size=40).map(str.encode)
)
def test_no_bytes_do_more_than_be_refused(data: bytes) -> None:
    with suppress(Refused):
        read_json(data)


@pytest.mark.parametrize(
    "data",
    [b'{"a": 1, "a": 1}', b'{"x": {"a": 1, "a": 2}}', b"NaN", b"[Infinity]", b"[" * (MAX_DEPTH + 1), b"\xff"],
)
def test_what_others_take_is_refused(data: bytes) -> None:
    with pytest.raises(Refused):
        read_json(data)


def test_depth_counts_no_brackets_within_texts() -> None:
    assert read_json(json.dumps({"a": "[" * 50 + '\\"' + "{" * 50}).encode())
    deepest = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert read_json(deepest) is not None

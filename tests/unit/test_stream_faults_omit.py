"""Members taken out of JSON texts: those alone, and no other byte."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxyd.faults.omit import without
from llmproxyd.providers.base import Place, Usage

USAGE: Place = ("usage",)


@pytest.mark.parametrize(
    ("data", "places", "left"),
    [
        ('{"usage":1}', [USAGE], "{}"),
        ('{ "usage" : 1 }', [USAGE], "{  }"),
        ('{"usage":{"a":[1,{"b":2}]},"x":1}', [USAGE], '{"x":1}'),
        ('{"x":1,"usage":{"a":1}}', [USAGE], '{"x":1}'),
        ('{"x":1 ,\n "usage":2 ,\n "y":3 }', [USAGE], '{"x":1 ,\n "y":3 }'),
        ('{"usage":1,"x":2,"usage":3}', [USAGE], '{"x":2}'),
        ('{"usage":1,"usage":3}', [USAGE], "{}"),
        ('{"u":1,"v":2,"x":3}', [("u",), ("v",)], '{"x":3}'),
        ('{"x":3,"u":1,"v":2}', [("u",), ("v",)], '{"x":3}'),
        ('{"u":1,"x":3,"v":2}', [("u",), ("v",)], '{"x":3}'),
        ('{"usage":null,"x":1}', [USAGE], '{"usage":null,"x":1}'),
        ('{"usage":false}', [USAGE], "{}"),
        ('{"message":{"usage":1},"usage":2}', [("message", "usage")], '{"message":{},"usage":2}'),
        ('{"message":{"usage":1,"x":[ ]},"usage":2}', [("message", "usage"), USAGE], '{"message":{"x":[ ]}}'),
        ('{"a":{"b":{"c":1,"d":2}}}', [("a", "b", "c"), ("a", "x")], '{"a":{"b":{"d":2}}}'),
        ('{"a":{"b":1}}', [("a",), ("a", "b")], "{}"),
        ('{"a":[{"usage":1}]}', [("a", "usage")], '{"a":[{"usage":1}]}'),
        ('{"a":"usage","b":"{\\"usage\\":1}"}', [USAGE], '{"a":"usage","b":"{\\"usage\\":1}"}'),
        ('{"\\u0075sage":1,"x":1.50e+1}', [USAGE], '{"x":1.50e+1}'),
        ("\r\n\t {}", [USAGE], "\r\n\t {}"),
        ('\ufeff\n{"usage":1,"é":"\U0001f600"}', [USAGE], '\ufeff\n{"é":"\U0001f600"}'),
        ('[{"usage":1}]', [USAGE], '[{"usage":1}]'),
        ('{"usage":1', [USAGE], '{"usage":1'),
        ('{"usage":1,', [USAGE], '{"usage":1,'),
        ('{"usage":1,}', [USAGE], '{"usage":1,}'),
        ('{"usage" 1}', [USAGE], '{"usage" 1}'),
        ('{"usage":1 "x":2}', [USAGE], '{"usage":1 "x":2}'),
        ("{usage:1}", [USAGE], "{usage:1}"),
        ("", [USAGE], ""),
        ('{"usage":1}', [], '{"usage":1}'),
    ],
)
def test_members_are_taken_out(data: str, places: list[Place], left: str) -> None:
    assert without(data.encode(), places) == left.encode()


def test_bytes_that_are_no_text_stay() -> None:
    assert without(b'{"usage":1,"x":"\xff\xc3"}', [USAGE]) == b'{"x":"\xff\xc3"}'


def test_what_is_nested_too_deeply_stays() -> None:
    deep = b'{"usage":1,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert without(deep, [USAGE]) == deep


NAMES = st.sampled_from(["usage", "a", "b", "c", '"\\,{'])
VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=4) | st.just('"usage":1,'),
    lambda one: st.lists(one, max_size=3) | st.dictionaries(NAMES, one, max_size=4),
    max_leaves=12,
)


def removed(value: Any, places: list[Place]) -> Any:
    """The same on values."""
    if not isinstance(value, dict):
        return value
    found = {}
    for name, member in value.items():
        if member is not None and (name,) in places:
            continue
        found[name] = removed(member, [place[1:] for place in places if place[0] == name and len(place) > 1])
    return found


@given(
    st.dictionaries(NAMES, VALUES, max_size=5),
    st.lists(st.lists(NAMES, min_size=1, max_size=3).map(tuple), max_size=3),
    st.sampled_from([None, 0, 2]),
    st.booleans(),
    st.sampled_from([(",", ":"), (" ,\t", " : "), (",\r\n", ":\n")]),
)
@settings(max_examples=500, deadline=None)
def test_the_rest_is_the_same_value(
    value: dict[str, Any], places: list[Place], indent: int | None, ascii_only: bool, marks: tuple[str, str]
) -> None:
    data = json.dumps(value, indent=indent, ensure_ascii=ascii_only, separators=marks).encode()
    left = without(data, places)
    assert json.loads(left) == removed(value, places)
    if removed(value, places) == value:
        assert left == data


@given(st.binary(max_size=60) | st.text(alphabet='{}[]":,\\ usage1n', max_size=40).map(str.encode))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_taken_without_raising(data: bytes) -> None:
    left = without(data, [USAGE, ("usage", "usage")])
    assert len(left) <= len(data)


def test_counts_stand_below_every_root() -> None:
    tokens = {"input": ("usage", "in"), "output": ("usage", "out")}
    usage = Usage(model=("model",), tokens=tokens, cost=("price",), roots=((), ("message",)))
    assert usage.counts == {("usage",), ("price",), ("message", "usage"), ("message", "price")}
    apart = Usage(model=(), tokens=tokens, members=(("usage", "in"),))
    assert apart.counts == {("usage", "in")}

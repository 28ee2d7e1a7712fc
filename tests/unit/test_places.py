"""What an answer tells is found in one walk, and it is what a look at each place by itself finds."""

from __future__ import annotations

import json

from hypothesis import example, given
from hypothesis import strategies as st

from llmproxyd.inspection.findings import parsed
from llmproxyd.providers.places import Place, Places, at

KEYS = st.sampled_from(["a", "b", "c"])
PLACES = st.dictionaries(
    st.sampled_from(["input", "output", "total", "cached", "written"]),
    st.lists(KEYS, min_size=1, max_size=3).map(tuple),
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats(allow_nan=False)
    | st.sampled_from(["", "a", "é"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=20,
)


def number(value: object) -> int | None:
    return value if type(value) is int and value >= 0 else None


def one_by_one(places: dict[str, Place], value: object) -> dict[str, int]:
    found = {meaning: number(at(value, place)) for meaning, place in places.items()}
    return {meaning: count for meaning, count in found.items() if count is not None}


@given(PLACES, VALUES, VALUES)
@example({"input": ("a", "b"), "output": ("a", "c")}, {"a": [{"b": 1}, {"c": 2}]}, {"a": {"b": None}})
@example({"input": ("a",), "output": ("a", "b")}, {"a": {"b": 1}}, {"a": 1})
@example({"input": ("a", "b")}, {"a": [{"b": -1}, {"b": 1}]}, None)
def test_one_walk_finds_what_a_look_at_each_place_finds(
    places: dict[str, Place], first: object, second: object
) -> None:
    walk, found = Places(places), dict[str, int]()
    for value in (first, second):
        walk.gather(value, number, found)
    assert found == one_by_one(places, first) | one_by_one(places, second)


def test_of_an_array_the_first_object_that_has_the_rest_is_taken() -> None:
    value = {"choices": [7, {"index": 0}, {"finish": None}, {"finish": "stop"}, {"finish": "length"}]}
    assert at(value, ("choices", "finish")) == "stop"
    assert at(value, ("choices", "index")) == 0
    assert at(value, ("choices", "index", "more")) is None
    assert at(value, ()) is value


SPOILT = st.sampled_from(
    [b"", b" ", b"\n\t", b"}", b"x", b"\xa0", b"\xc2\xa0", b"\x00", b"\xff", b"\xef\xbb\xbf"]
)


@given(
    VALUES,
    st.sampled_from(["utf-8", "utf-16-le", "utf-16-be", "utf-32-le"]),
    SPOILT,
    SPOILT,
    st.data() | st.none(),
)
@example({"a": 1}, "utf-8", b"", b" \r\n", None)
def test_json_is_read_as_python_reads_it(
    value: object, encoding: str, before: bytes, behind: bytes, data: st.DataObject | None
) -> None:
    text = json.dumps(value, ensure_ascii=False).encode(encoding)
    cut = len(text) if data is None else data.draw(st.integers(0, len(text)))
    body = before + text[:cut] + behind
    try:
        expected = json.loads(body.decode(json.detect_encoding(body), "replace"))
    except ValueError:
        expected = None
    assert parsed(body) == expected

"""Where an event of a stream ends, however the stream is cut into pieces."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmproxyd.http.framing import (
    ArrayTracker,
    Framing,
    LineTracker,
    SSETracker,
    Tracker,
    tracker,
)

# References: they look at all that was fed so far, one byte at a time.


def sse_boundary(fed: bytes) -> bool:
    """A blank line was the last thing: https://html.spec.whatwg.org/#parsing-an-event-stream."""
    lines = re.sub(rb"\r\n|\r", b"\n", fed)
    return lines in (b"", b"\n") or lines.endswith(b"\n\n")


def line_boundary(fed: bytes) -> bool:
    return fed == b"" or fed.endswith(b"\n")


def array_boundary(fed: bytes) -> bool:
    """The opening bracket, or the end of an element, was the last thing but white space."""
    depth, last, in_string, escaped = 0, b"", False, False
    for code in fed:
        char = bytes((code,))
        if in_string:
            if escaped:
                escaped = False
            elif char == b"\\":
                escaped = True
            elif char == b'"':
                in_string = False
            continue
        if char.isspace():
            continue
        last = char
        if char == b'"':
            in_string = True
        elif char in b"[{":
            depth += 1
        elif char in b"]}":
            depth -= 1
    return depth == 1 and not in_string and last in (b"[", b"]", b"}")


def array_empty(fed: bytes) -> bool:
    return fed.strip() in (b"", b"[", b"[]") or re.fullmatch(rb"\s*\[\s*\]?\s*", fed) is not None


# Streams.

TRICKY = st.text(st.sampled_from('"\\{}[],:\n\r\t aé😀\x00'), max_size=12)
VALUES = st.recursive(
    TRICKY | st.integers() | st.booleans() | st.none() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TRICKY, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.lists(st.dictionaries(TRICKY, VALUES, max_size=3), max_size=4)


@st.composite
def arrays(draw: st.DrawFn) -> bytes:
    text = json.dumps(
        draw(OBJECTS | st.lists(VALUES, max_size=4)),
        indent=draw(st.sampled_from([None, 0, 2])),
        separators=draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\r\n", " : ")])),
        ensure_ascii=draw(st.booleans()),
    )
    return (
        draw(st.sampled_from(["", " ", "\n"])).encode() + text.encode() + draw(st.sampled_from([b"", b"\n"]))
    )


SOUP = st.lists(
    st.sampled_from([b"[", b"]", b"{", b"}", b",", b'"', b"\\", b" ", b"\n", b"a", b"1", b"\xff"])
).map(b"".join)
LINES = st.text(st.sampled_from("data: x{}é"), max_size=6)


@st.composite
def sse_streams(draw: st.DrawFn, endings: tuple[str, ...] = ("\n", "\r\n", "\r")) -> bytes:
    ending = draw(st.sampled_from(endings))
    lines = draw(st.lists(LINES, max_size=8))
    return "".join(line + ending for line in lines).encode()


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    found = [data[start:end] for start, end in pairwise(places)]
    return [*found, b""]


CUTS = st.lists(st.integers(0, 10_000), max_size=20)


def check(
    made: Tracker,
    data: bytes,
    cuts: list[int],
    boundary: Callable[[bytes], bool],
    skip: Callable[[bytes], bool] = lambda _: False,
) -> None:
    fed = b""
    for piece in pieces(data, cuts):
        made.feed(piece)
        fed += piece
        if not skip(fed):
            assert made.at_boundary == boundary(fed), fed


def half_a_line_end(fed: bytes) -> bool:
    """The next byte decides whether CR alone was meant."""
    return fed.endswith(b"\r")


@settings(deadline=None)
@given(sse_streams(endings=("\n", "\r")), CUTS)
@example(b"data: a\n\ndata: b\n\n", [9])
def test_sse_boundary_is_found_in_any_split(data: bytes, cuts: list[int]) -> None:
    check(SSETracker(), b"data: x" + data, cuts, sse_boundary)


@settings(deadline=None)
@given(sse_streams(endings=("\r\n",)), CUTS)
@example(b"data: a\r\n\r\ndata: b\r\n\r\n", [9, 10, 11, 12])
def test_sse_boundary_is_found_where_lines_end_in_two_bytes(data: bytes, cuts: list[int]) -> None:
    check(SSETracker(), b"data: x" + data, cuts, sse_boundary, skip=half_a_line_end)


@pytest.mark.parametrize(
    "data", [b"data: x\n\r\n", b"data: x\r\r\n", b"data: x\r\n\n", b"data: x\r\n\r", b"data: x\r\n\r\n"]
)
def test_sse_blank_line_ends_an_event_whatever_ended_the_line_before(data: bytes) -> None:
    made = SSETracker()
    for code in data:
        made.feed(bytes((code,)))
    assert made.at_boundary


@pytest.mark.parametrize(
    "data",
    [b"data: x", b"data: x\n", b"data: x\r\n", b"data: x\r", b"data: x\n\n:", b"\n\nd", b"data: x\n \n"],
)
def test_sse_within_an_event_is_no_boundary(data: bytes) -> None:
    made = SSETracker()
    for code in data:
        made.feed(bytes((code,)))
    assert not made.at_boundary
    whole = SSETracker()
    whole.feed(data)
    assert not whole.at_boundary


@settings(deadline=None)
@given(OBJECTS, st.sampled_from([b"\n", b"\r\n"]), CUTS)
def test_ndjson_boundary_is_found_in_any_split(objects: list[object], ending: bytes, cuts: list[int]) -> None:
    data = b"".join(json.dumps(one).encode() + ending for one in objects)
    check(LineTracker(), data, cuts, line_boundary)


@given(arrays(), CUTS)
@example(b'[{"a":"\\\\"},{"a":"\\""}]', list(range(30)))
@example(b'[{"a":"}],{[\\\\\\""} , {"b":[1,{}]}]', list(range(40)))
@settings(max_examples=300, deadline=None)
def test_array_boundary_is_found_in_any_split(data: bytes, cuts: list[int]) -> None:
    check(ArrayTracker(), data, cuts, array_boundary)


@settings(deadline=None)
@given(arrays())
def test_array_boundary_is_found_byte_by_byte(data: bytes) -> None:
    check(ArrayTracker(), data, list(range(len(data))), array_boundary)


@given(SOUP, CUTS)
@example(b'"\\', [])
@example(b'"\\\\"', [2, 3])
@settings(max_examples=300, deadline=None)
def test_array_tracker_reads_nonsense_the_same_in_any_split(data: bytes, cuts: list[int]) -> None:
    """Up to where the array ends: what a broken upstream sends after it is no event."""
    data = b"[" + data
    whole = ArrayTracker()
    for number, code in enumerate(data):
        whole.feed(bytes((code,)))
        if whole._depth == 0:
            data = data[:number]
            break
    check(ArrayTracker(), data, cuts, array_boundary)


@pytest.mark.parametrize(
    "data", [b"{", b'{"error": {}', b'{"a": [1]', b'{"a": {"b": 1}\n', b'{"a": {}}', b"1", b'"x"']
)
def test_value_that_is_no_array_has_no_boundary_within(data: bytes) -> None:
    """An error object, as Gemini answers ``alt=sse``: nothing can be added to it."""
    made = ArrayTracker()
    made.feed(data)
    assert not made.at_boundary


ARRAYS = [
    (b"", False, True),
    (b" ", False, True),
    (b"[", True, True),
    (b"[ \n", True, True),
    (b"[{", False, False),
    (b'[{"a": 1}', True, False),
    (b'[{"a": 1}\n', True, False),
    (b'[{"a": 1},', False, False),
    (b'[{"a": 1},\n', False, False),
    (b'[{"a": 1}\n,\r\n{"b"', False, False),
    (b'[{"a": {}', False, False),
    (b'[{"a": []}', True, False),
    (b'[{"a": "}"', False, False),
    (b'[{"a": "]"}', True, False),
    (b'[{"a": "\\"}"', False, False),
    (b'[{"a": "\\\\"}', True, False),
    (b'[{"a": 1}]', False, False),
    (b"[]", False, True),
]


@pytest.mark.parametrize(("data", "boundary", "empty"), ARRAYS)
def test_array_position(data: bytes, boundary: bool, empty: bool) -> None:
    whole, split = ArrayTracker(), ArrayTracker()
    whole.feed(data)
    for code in data:
        split.feed(bytes((code,)))
    for made in (whole, split):
        assert made.at_boundary == boundary
        assert made.empty == empty


@pytest.mark.parametrize("made", [SSETracker(), LineTracker()])
def test_before_any_byte_is_a_boundary(made: Tracker) -> None:
    assert made.at_boundary
    assert made.empty
    made.feed(b"")
    assert made.at_boundary
    assert made.empty


@pytest.mark.parametrize("kind", [SSETracker, LineTracker])
def test_first_byte_begins_an_event(kind: type[Tracker]) -> None:
    made = kind()
    made.feed(b"d")
    assert not made.empty
    assert not made.at_boundary


@settings(deadline=None)
@given(arrays(), CUTS)
def test_array_is_empty_until_its_first_element_begins(data: bytes, cuts: list[int]) -> None:
    made, fed = ArrayTracker(), b""
    for piece in pieces(data, cuts):
        made.feed(piece)
        fed += piece
        assert made.empty == array_empty(fed), fed


def test_tracker_keeps_no_more_than_a_few_bytes_of_a_long_stream() -> None:
    made = SSETracker()
    for _ in range(100):
        made.feed(b"x" * 100_000)
    assert len(made._tail) <= 4


def test_long_strings_are_read_in_one_go() -> None:
    made = ArrayTracker()
    made.feed(b'[{"a": "' + b"x" * 2_000_000)
    made.feed(b'\\"' * 500_000)
    assert not made.at_boundary
    made.feed(b'"}')
    assert made.at_boundary


@pytest.mark.parametrize(
    ("framing", "kind"),
    [
        (Framing.SSE, SSETracker),
        (Framing.NDJSON, LineTracker),
        (Framing.JSON_ARRAY, ArrayTracker),
        (Framing.EVENT_STREAM, type(None)),
    ],
)
def test_tracker_of_a_framing(framing: Framing, kind: type[object]) -> None:
    assert isinstance(tracker(framing), kind)

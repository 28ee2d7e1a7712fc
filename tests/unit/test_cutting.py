"""Streams cut into events: byte for byte, wherever the bytes were split, however large an event is."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_sse import CASES, cut, event_frame, frame

from llmproxyd.http.cutting import LastPart, Part, cutter
from llmproxyd.http.framing import Framing
from llmproxyd.http.pieces import again, closed, event_of, lead_of, swapped, with_data
from llmproxyd.http.sse import Event, EventReader

SSE, NDJSON, ARRAY, FRAMES = Framing.SSE, Framing.NDJSON, Framing.JSON_ARRAY, Framing.EVENT_STREAM


def pieces_of(framing: Framing, parts: Iterable[bytes], limit: int = 1000) -> list[bytes]:
    """All pieces of a stream, what is left over at its end among them."""
    one = cutter(framing, limit)
    found = [piece for part in parts for piece in one.feed(part)]
    rest = one.rest()
    return [*found, rest] if rest else found


def brief(value: object) -> str | None:
    """An id of a test: frames are no text to read."""
    return "frame" if isinstance(value, bytes) and value.startswith(b"\0") else None


def merged(pieces: list[bytes]) -> list[bytes]:
    """The parts of one large event in one."""
    found: list[bytes] = []
    large = False
    for piece in pieces:
        if large:
            found[-1] += piece
        else:
            found.append(bytes(piece))
        large = isinstance(piece, Part) and not isinstance(piece, LastPart)
    return found


PIECES: list[tuple[str, Framing, list[bytes]]] = [
    ("one event", SSE, [b"data: 1\n\n"]),
    ("named events", SSE, [b"event: a\ndata: 1\n\n", b"event: b\ndata: 2\n\n"]),
    ("crlf", SSE, [b"event: a\r\ndata: 1\r\n\r\n", b"data: 2\r\n\r\n"]),
    ("cr", SSE, [b"data: 1\r\r", b"data: 2\r\r", b"data: 3\r\r"]),
    ("mixed ends", SSE, [b"data: 1\r\n\n", b"data: 2\n\r\n", b"data: 3\r\r\n", b"data: 4\n\n"]),
    ("a comment is no part of the event behind it", SSE, [b": x\n", b"data: 1\n\n"]),
    ("a comment and its blank line", SSE, [b": OPENROUTER PROCESSING\n", b"\n", b"data: 1\n\n"]),
    ("a comment within an event", SSE, [b"data: 1\n: x\ndata: 2\n\n"]),
    ("blank lines", SSE, [b"\n", b"\r\n", b"data: 1\n\n", b"\n"]),
    ("left unfinished", SSE, [b"data: 1\n\n", b"data: 2\n"]),
    ("byte order mark", SSE, [b"\xef\xbb\xbfdata: 1\n\n"]),
    ("bare JSON", SSE, [b"data: 1\n\n", b'{"error":\n{}}\n\n']),
    ("lines", NDJSON, [b'{"a":1}\n', b'{"b":2}\r\n', b"\n", b'{"c":3}']),
    ("array", ARRAY, [b'[{"a":1}', b',\r\n{"b":[2]}', b'\n, {"c":"]},{"}', b"\n]", b"\n"]),
    ("array without elements", ARRAY, [b"[]"]),
    ("array of arrays", ARRAY, [b"[[1,2]", b",[3]", b"]"]),
    ("an object alone", ARRAY, [b' {"error":{"code":1}}', b"\n"]),
    ("array with quotes", ARRAY, [b'[{"a":"\\"}]\\\\"}', b',{"b":"[{"}', b"]"]),
    ("array left unfinished", ARRAY, [b'[{"a":1}', b',{"b":"x']),
    ("frames", FRAMES, [event_frame("a", b"{}"), event_frame("b", b'{"x":1}'), frame(b"")]),
    ("a frame left unfinished", FRAMES, [event_frame("a", b"{}"), event_frame("b", b"{}")[:-3]]),
]
by_case = pytest.mark.parametrize(
    ("framing", "expected"), [case[1:] for case in PIECES], ids=[case[0] for case in PIECES]
)


@by_case
def test_each_event_is_a_piece(framing: Framing, expected: list[bytes]) -> None:
    assert pieces_of(framing, [b"".join(expected)]) == expected


@by_case
def test_pieces_do_not_depend_on_how_the_bytes_came(framing: Framing, expected: list[bytes]) -> None:
    data = b"".join(expected)
    for at in range(1, len(data)):
        assert pieces_of(framing, [data[:at], data[at:]]) == expected, at
    assert pieces_of(framing, cut(data)) == expected
    assert pieces_of(framing, [part for byte in cut(data) for part in (b"", byte)]) == expected


@pytest.mark.parametrize(("framing", "data"), [case[1:3] for case in CASES], ids=[case[0] for case in CASES])
def test_pieces_hold_the_events_that_a_reader_finds(framing: Framing, data: bytes) -> None:
    reader = EventReader(framing)
    found = [event_of(framing, piece) for piece in pieces_of(framing, [data], len(data) + 1)]
    assert [event for event in found if event] == [*reader.feed(data), *reader.end()]


def test_an_event_is_given_out_with_its_last_byte() -> None:
    for _, framing, expected in PIECES:
        one = cutter(framing)
        for piece in expected[:-1]:
            if piece.endswith(b"\r"):
                continue  # half of a CRLF, for all that is known
            assert b"".join(one.feed(piece)).endswith(piece)


def test_a_comment_is_not_held_back() -> None:
    one = cutter(SSE)
    assert one.feed(b": keep-alive\n") == [b": keep-alive\n"]
    assert one.feed(b"\ndata: 1\n: within\n") == [b"\n"]
    assert one.feed(b"\n") == [b"data: 1\n: within\n\n"]


# -- too large ---------------------------------------------------------------------------

LARGE = [
    (SSE, b"data: 1\n\n", b"data: " + b"x" * 3000 + b"\n\n"),
    (SSE, b"data: 1\r\n\r\n", b"data: " + b"x\r\ndata: " * 300 + b"\r\n\r\n"),
    (NDJSON, b'{"a":1}\n', b'{"a":"' + b"x" * 3000 + b'"}\n'),
    (ARRAY, b',{"a":1}', b',{"a":["' + b"x[" * 1500 + b'",1,{}]}'),
    (FRAMES, event_frame("a", b"{}"), event_frame("a", b"x" * 3000)),
]

by_large = pytest.mark.parametrize(
    ("framing", "small", "large"), LARGE, ids=["lf", "crlf", "lines", "array", "frames"]
)


@by_large
@pytest.mark.parametrize("size", [1, 7, 100, 10000])
def test_what_is_too_large_passes_in_parts(framing: Framing, small: bytes, large: bytes, size: int) -> None:
    opening = b"[" if framing is ARRAY else b""
    events = [opening + small.lstrip(b",") if opening else small, large, small, large, large, small]
    found = pieces_of(framing, cut(b"".join(events), size))
    assert merged(found) == events
    assert [piece for piece in found if not isinstance(piece, Part)] == [events[0], small, small]
    assert sum(isinstance(piece, LastPart) for piece in found) == 3


@by_large
def test_no_more_is_kept_than_the_limit(framing: Framing, small: bytes, large: bytes) -> None:
    one = cutter(framing, 1000)
    given = got = 0
    for byte in cut((b"[" if framing is ARRAY else b"") + large + small + large, 3):
        given += len(byte)
        got += sum(map(len, one.feed(byte)))
        assert given - got <= 1000 + 3


def test_bytes_that_are_no_frames_pass() -> None:
    data = event_frame("a", b"{}") + b"HTTP/1.1 200 OK\r\n" * 1000
    found = pieces_of(FRAMES, cut(data, 10))
    assert found[0] == event_frame("a", b"{}")
    assert b"".join(found) == data
    assert not any(isinstance(piece, LastPart) for piece in found)


ALPHABETS = {
    SSE: [b"\r", b"\n", b"\r\n", b":", b"data", b"data: ", b"event: x", b"{}", b"y", b"[DONE]", b"\xe4"],
    NDJSON: [b"\n", b"\r", b"{}", b'"', b" ", b"x"],
    ARRAY: [b"[", b"]", b"{", b"}", b",", b'"', b"\\", b" ", b"x", b"\n"],
    FRAMES: [event_frame("a", b"{}"), b"\0", b"\0\0\0\x20", frame(b"")[:13], b"x" * 20],
}


@st.composite
def streams(draw: st.DrawFn) -> tuple[Framing, list[bytes]]:
    framing = draw(st.sampled_from(list(Framing)))
    text = b"".join(draw(st.lists(st.sampled_from(ALPHABETS[framing]), max_size=40)))
    data = draw(st.just(text) | st.binary(max_size=60))
    places = sorted(draw(st.sets(st.integers(0, len(data)), max_size=8)))
    ends = [*places, len(data)]
    return framing, [data[begin:end] for begin, end in zip([0, *places], ends, strict=True)]


@given(streams(), st.sampled_from([1, 5, 20, 1000]))
@settings(max_examples=600, deadline=None)
@example((SSE, [b"::", b"\n", b"\n"]), 1)
@example((SSE, [b"a\r", b"\n\r", b"\nb"]), 5)
@example((ARRAY, [b'"\\', b'"', b"["]), 1000)
def test_any_bytes_come_out_as_they_came(stream: tuple[Framing, list[bytes]], limit: int) -> None:
    framing, parts = stream
    found = pieces_of(framing, parts, limit)
    data = b"".join(parts)
    assert b"".join(found) == data
    assert all(found), "no piece is empty"
    assert merged(found) == merged(pieces_of(framing, [data], limit))


# -- what pieces hold --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("framing", "piece", "lead", "event"),
    [
        (SSE, b"event: a\ndata: 1\n\n", b"", Event("a", b"1")),
        (SSE, b"data: [DONE]\n\n", b"", Event("", b"[DONE]")),
        (SSE, b": x\n", b"", None),
        (SSE, b"\n", b"", None),
        (SSE, b"data: {}", b"", Event("", b"{}")),
        (SSE, b"data: {", b"", None),
        (NDJSON, b' {"a":1}\r\n', b"", Event("", b'{"a":1}')),
        (NDJSON, b"\n", b"", None),
        (ARRAY, b'[{"a":1}', b"[", Event("", b'{"a":1}')),
        (ARRAY, b'\r\n, {"a":1}', b"\r\n, ", Event("", b'{"a":1}')),
        (ARRAY, b'\xef\xbb\xbf [ {"a":1}', b"\xef\xbb\xbf [ ", Event("", b'{"a":1}')),
        (ARRAY, b"\n]", b"", None),
        (ARRAY, b"[]", b"", None),
        (ARRAY, b'{"error":{}}', b"", Event("", b'{"error":{}}')),
        (FRAMES, event_frame("metadata", b"{}"), b"", Event("metadata", b"{}")),
    ],
    ids=brief,
)
def test_a_piece_tells_its_event(framing: Framing, piece: bytes, lead: bytes, event: Event | None) -> None:
    assert event_of(framing, piece) == event
    assert lead_of(framing, piece) == lead


@pytest.mark.parametrize(
    ("framing", "piece", "new", "expected"),
    [
        (SSE, b"id: 7\ndata: {}\n: x\n\n", b"[1]", b"id: 7\ndata: [1]\n: x\n\n"),
        (SSE, b"data:{}\r\n\r\n", b"[1]", b"data:[1]\r\n\r\n"),
        (SSE, b"data: {\ndata:}\n\n", b"[1]", b"data: [1]\n\n"),
        (SSE, b"data: {\ndata:}\n\n", b"1\n2", b"data: 1\ndata:2\n\n"),
        (SSE, b"data: {}\n\n", b"1\n2\n3", b"data: 1\ndata: 2\ndata: 3\n\n"),
        (SSE, b"data: {}", b"1\n2", b"data: 1\ndata: 2"),
        (SSE, b"data\ndata: {}\n\n", b"[\n1]", b"data:[\ndata: 1]\n\n"),
        (SSE, b"\xef\xbb\xbfdata: {}\n\n", b"[1]", b"\xef\xbb\xbfdata: [1]\n\n"),
        (SSE, b"{}\n\n", b"[1]", b"{}\n\n"),
        (NDJSON, b" {} \r\n", b"[1]", b" [1] \r\n"),
        (ARRAY, b',\n{"a":[]}', b"{}", b",\n{}"),
        (ARRAY, b"[ []", b"{}", b"[ {}"),
        (FRAMES, event_frame("a", b"{}"), b"[1,2]", event_frame("a", b"[1,2]")),
        (FRAMES, event_frame("a", b"{}"), b"", event_frame("a", b"")),
    ],
    ids=brief,
)
def test_other_data_keep_the_framing(framing: Framing, piece: bytes, new: bytes, expected: bytes) -> None:
    event = event_of(framing, piece)
    assert event is not None or framing is SSE or framing is ARRAY
    assert with_data(framing, piece, event.data if event else b"[]", new) == expected


def test_a_frame_with_other_data_has_its_checksums_right() -> None:
    found = with_data(FRAMES, event_frame("a", b"{}"), b"{}", b"x" * 300)
    assert int.from_bytes(found[:4], "big") == len(found)
    assert int.from_bytes(found[8:12], "big") == zlib.crc32(found[:8])
    assert int.from_bytes(found[-4:], "big") == zlib.crc32(found[:-4])


@pytest.mark.parametrize(
    ("framing", "first", "second", "twice", "turned"),
    [
        (SSE, b"data: 1\n\n", b"data: 2\n\n", b"data: 1\n\n" * 2, b"data: 2\n\ndata: 1\n\n"),
        (SSE, b"data: 1\n", b"data: 2", b"data: 1\n\ndata: 1\n", b"data: 2\n\ndata: 1\n"),
        (SSE, b"data: 1\r\r", b"data: 2\r\n\r\n", b"data: 1\r\r" * 2, b"data: 2\r\n\r\ndata: 1\r\r"),
        (NDJSON, b"1\n", b"2", b"1\n1\n", b"2\n1\n"),
        (ARRAY, b"[{}", b",\n[]", b"[{},\n{}", b"[[],\n{}"),
        (ARRAY, b", {}", b",[]", b", {},\n{}", b", [],{}"),
    ],
)
def test_events_come_twice_or_in_turn(
    framing: Framing, first: bytes, second: bytes, twice: bytes, turned: bytes
) -> None:
    assert again(framing, first) == twice
    assert swapped(framing, first, second) == turned


@given(
    st.lists(st.dictionaries(st.text(max_size=3), st.text(max_size=5), min_size=1, max_size=3), min_size=2)
)
@settings(deadline=None)
def test_an_array_stays_one_whichever_elements_come_twice_or_in_turn(values: list[dict[str, str]]) -> None:
    pieces = pieces_of(ARRAY, [json.dumps(values).encode()], 100_000)
    assert len(pieces) == len(values) + 1
    doubled = again(ARRAY, pieces[0]) + b"".join(pieces[1:])
    assert json.loads(doubled) == [values[0], *values]
    turned = swapped(ARRAY, pieces[0], pieces[1]) + b"".join(pieces[2:])
    assert json.loads(turned) == [values[1], values[0], *values[2:]]


def test_an_event_without_its_end_gets_one() -> None:
    assert closed(SSE, b"data: 1") == b"data: 1\n\n"
    assert closed(SSE, b"data: 1\r\n") == b"data: 1\r\n\n"
    assert closed(SSE, b"data: 1\n\r\n") == b"data: 1\n\r\n"
    assert closed(ARRAY, b"[{}") == b"[{}"

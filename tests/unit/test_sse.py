"""The events of streams, however they are cut into pieces, however large, however broken."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmproxyd.http.framing import Framing
from llmproxyd.http.sse import LIMIT, Event, EventReader

SSE, NDJSON, ARRAY, FRAMES = Framing.SSE, Framing.NDJSON, Framing.JSON_ARRAY, Framing.EVENT_STREAM


def read(framing: Framing, pieces: Iterable[bytes], limit: int = LIMIT) -> tuple[list[Event], bool]:
    reader = EventReader(framing, limit)
    events = [event for piece in pieces for event in reader.feed(piece)]
    return events + reader.end(), reader.overflowed


def cut(data: bytes, size: int = 1) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def frame(payload: bytes, **headers: str) -> bytes:
    """One frame of AWS's, checksums and all; ``_`` in a header's name stands for ``-``."""
    block = b"".join(
        bytes((len(name) + 1,))
        + b":"
        + name.replace("_", "-").encode()
        + b"\x07"
        + struct.pack(">H", len(value))
        + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack(">II", len(block) + len(payload) + 16, len(block))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + block + payload
    return message + struct.pack(">I", zlib.crc32(message))


def event_frame(kind: str, payload: bytes) -> bytes:
    return frame(payload, message_type="event", event_type=kind, content_type="application/json")


CASES: list[tuple[str, Framing, bytes, list[tuple[str, bytes]]]] = [
    ("one", SSE, b"data: {}\n\n", [("", b"{}")]),
    ("crlf", SSE, b"event: a\r\ndata: 1\r\n\r\ndata: 2\r\n\r\n", [("a", b"1"), ("", b"2")]),
    ("cr", SSE, b"event: a\rdata: 1\r\rdata: 2\r\r", [("a", b"1"), ("", b"2")]),
    ("mixed ends", SSE, b"data: 1\r\n\ndata: 2\n\r\ndata: 3\r\r\n", [("", b"1"), ("", b"2"), ("", b"3")]),
    ("no space", SSE, b"event:a\ndata:1\n\n", [("a", b"1")]),
    ("one space is taken off", SSE, b"data:  1\n\n", [("", b" 1")]),
    ("lines are joined", SSE, b"data: a\ndata\ndata: b\n\n", [("", b"a\n\nb")]),
    ("comments, id and retry", SSE, b": x\nid: 7\nretry: 9\ndata: 1\n: y\n\n:\n\n", [("", b"1")]),
    ("a name alone is no event", SSE, b"event: a\n\ndata: 1\n\n", [("", b"1")]),
    ("byte order mark", SSE, b"\xef\xbb\xbfdata: 1\n\n", [("", b"1")]),
    ("other line ends are none", SSE, b"data: a\x0bb\x0c\xc2\x85\xe2\x80\xa8c\n\n", [("", b"a\x0bb\x0c\xc2\x85\xe2\x80\xa8c")]),
    ("empty data", SSE, b"data:\n\n", [("", b"")]),
    ("unknown fields", SSE, b"foo: 1\ndataset: 2\ndata: 3\n\n", [("", b"3")]),
    ("unfinished, complete", SSE, b'event: error\ndata: {"a":1}', [("error", b'{"a":1}')]),
    ("unfinished, complete, line ended", SSE, b'data: {"a":1}\n', [("", b'{"a":1}')]),
    ("unfinished, incomplete", SSE, b'data: 1\n\ndata: {"a":', [("", b"1")]),
    ("unfinished end", SSE, b"data: 1\n\ndata: [DONE]", [("", b"1"), ("", b"[DONE]")]),
    ("llama.cpp's field", SSE, b'error: {"code":500}\n\n', [("error", b'{"code":500}')]),
    ("bare", SSE, b'data: 1\n\n{\n  "error": {\n    "id": 3\n  }\n}\n', [("", b"1"), ("", b'{\n  "error": {\n    "id": 3\n  }\n}')]),
    ("bare, incomplete", SSE, b'{\n  "error": {\n\ndata: 1\n\n', [("", b"1")]),
    ("not bare behind data", SSE, b'data: 1\n{"a":1}\n\n', [("", b"1")]),
    ("lines", NDJSON, b'{"a":1}\n{"a":2}\r\n\n  \n{"a":3}\n', [("", b'{"a":1}'), ("", b'{"a":2}'), ("", b'{"a":3}')]),
    ("last line open", NDJSON, b'{"a":1}\n{"a":2}', [("", b'{"a":1}'), ("", b'{"a":2}')]),
    ("last line incomplete", NDJSON, b'{"a":1}\n{"a":', [("", b'{"a":1}')]),
    ("lines with a mark", NDJSON, b"\xef\xbb\xbf{}\n", [("", b"{}")]),
    ("array", ARRAY, b'[{"a":[1,{"b":2}]},\r\n{"c":"]}\\"["}\n]', [("", b'{"a":[1,{"b":2}]}'), ("", b'{"c":"]}\\"["}')]),
    ("array before its end", ARRAY, b'[{"a":1}\n,\n{"b"', [("", b'{"a":1}')]),
    ("array of nothing", ARRAY, b"[ ]", []),
    ("scalars between are passed over", ARRAY, b'[1, "{", {"a":1}, null]', [("", b'{"a":1}')]),
    ("escapes at every place", ARRAY, b'[{"a\\\\":"\\\\\\""},{"b":"\\\\"}]', [("", b'{"a\\\\":"\\\\\\""}'), ("", b'{"b":"\\\\"}')]),
    ("an object alone", ARRAY, b'{"error":{"code":500}}\n', [("", b'{"error":{"code":500}}')]),
    ("nested arrays", ARRAY, b"[[1],[[2]]]", [("", b"[1]"), ("", b"[[2]]")]),
    ("frames", FRAMES, event_frame("messageStart", b'{"role":"assistant"}') + event_frame("chunk", b"{}"), [("messageStart", b'{"role":"assistant"}'), ("chunk", b"{}")]),
    ("frame without payload", FRAMES, event_frame("end", b""), [("end", b"")]),
    ("frame without headers", FRAMES, frame(b"x"), [("", b"x")]),
    ("exception", FRAMES, frame(b'{"message":"m"}', message_type="exception", exception_type="throttlingException"), [("exception:throttlingException", b'{"message":"m"}')]),
    ("protocol error", FRAMES, frame(b"", message_type="error", error_code="Internal", error_message="m"), [("exception:Internal", b'{"message": "m"}')]),
    ("frame cut off", FRAMES, event_frame("a", b"1") + event_frame("b", b"2")[:-1], [("a", b"1")]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("framing", "data", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_events_are_read_whole_and_byte_by_byte(
    framing: Framing, data: bytes, expected: list[tuple[str, bytes]]
) -> None:
    for size in (len(data), 1, 2, 3, 7):
        assert read(framing, cut(data, size)) == (expected, False)


@pytest.mark.parametrize(
    ("framing", "data"),
    [
        (SSE, b"data: 1\n\n"),
        (SSE, b"data: 1\r\r"),
        (NDJSON, b"{}\n"),
        (ARRAY, b"[{}"),
        (FRAMES, event_frame("a", b"{}")),
    ],
)
def test_an_event_is_told_with_its_last_byte(framing: Framing, data: bytes) -> None:
    reader = EventReader(framing)
    assert all(reader.feed(data[at : at + 1]) == [] for at in range(len(data) - 1))
    assert len(reader.feed(data[-1:])) == 1


def test_frame_headers_of_all_types_are_passed_over() -> None:
    others = b"".join(
        bytes((1,)) + b"x" + bytes((kind,)) + value
        for kind, value in [
            (0, b""),
            (1, b""),
            (2, b"1"),
            (3, b"12"),
            (4, b"1234"),
            (5, b"12345678"),
            (6, b"\0\x03abc"),
            (8, b"12345678"),
            (9, b"1" * 16),
        ]
    )
    block = others + b"\x0b:event-type\x07\0\x01k"
    data = struct.pack(">III", len(block) + 16 + 2, len(block), 0) + block + b"{}" + b"\0\0\0\0"
    assert read(FRAMES, [data]) == ([("k", b"{}")], False)


@pytest.mark.parametrize(
    "block",
    [
        b"\xff",
        b"\x01",
        b"\x01x",
        b"\x01x\x07",
        b"\x01x\x07\xff\xff",
        b"\x01x\x0a",
        b"\x00",
        b"\x0b:event-type\x07\0\xffk",
    ],
)
def test_headers_that_make_no_sense_leave_an_event_without_a_name(block: bytes) -> None:
    data = struct.pack(">III", len(block) + 16, len(block), 0) + block + b"\0\0\0\0"
    events, overflowed = read(FRAMES, [data, event_frame("next", b"")])
    assert [event.data for event in events] == [b"", b""]
    assert events[1].name == "next"
    assert not overflowed


def filled(framing: Framing, size: int) -> bytes:
    """An event that counts *size* bytes."""
    if framing is SSE:
        return b"data: " + b"x" * (size - 6) + b"\n\n"
    if framing is FRAMES:
        return frame(b"x" * (size - 16))
    text = b'{"a":"' + b"x" * (size - 8) + b'"}'
    return text + b"\n" if framing is NDJSON else text + b","


SMALL = {
    SSE: (b"data: 1\n\n", b""),
    NDJSON: (b"1\n", b""),
    ARRAY: (b"{},", b"["),
    FRAMES: (event_frame("", b"1"), b""),
}


@pytest.mark.parametrize("framing", list(Framing))
@pytest.mark.parametrize("piece", [1, 50, 10_000])
def test_an_event_beyond_the_limit_is_given_up_and_the_next_one_is_read(framing: Framing, piece: int) -> None:
    small, opening = SMALL[framing]
    for size, lost in ((200, False), (201, True), (1000, True)):
        events, overflowed = read(
            framing, cut(opening + small + filled(framing, size) + small, piece), limit=200
        )
        assert overflowed is lost
        assert len(events) == (2 if lost else 3)
        assert events[0] == events[-1]


def test_an_event_of_many_small_lines_is_limited_too() -> None:
    data = b"data\n" * 100 + b"\ndata: 1\n\n"
    for piece in (1, len(data)):
        assert read(SSE, cut(data, piece), limit=200) == ([("", b"1")], True)


def held(reader: EventReader) -> int:
    """Bytes that the reader keeps, found by looking."""
    inner = reader._reader
    kept = len(inner._part)  # type: ignore[attr-defined]
    for name in ("_data", "_bare"):
        kept += sum(map(len, getattr(inner, name, ())))
    return kept


@pytest.mark.parametrize(
    ("framing", "data"),
    [
        (SSE, b"x"),
        (SSE, b": x"),
        (SSE, b"data: x\n"),
        (SSE, b"event: x\n"),
        (SSE, b"{\n"),
        (NDJSON, b"x"),
        (ARRAY, b'[{"x'),
        (ARRAY, b"[[["),
        (ARRAY, b'["x'),
        (FRAMES, struct.pack(">III", 31 << 20, 0, 0)),
        (FRAMES, b"\xff"),
    ],
)
def test_what_never_ends_is_not_kept(framing: Framing, data: bytes) -> None:
    reader = EventReader(framing, 1000)
    for _ in range(300):
        reader.feed(data * 40)
        assert held(reader) <= 1000
    reader.end()


def test_bytes_that_are_no_frames_are_read_no_further() -> None:
    events, overflowed = read(FRAMES, [b"HTTP/1.1 500 Oh\r\n\r\n", event_frame("a", b"")])
    assert (events, overflowed) == ([], True)


@given(st.binary(max_size=200), st.sampled_from(list(Framing)), st.integers(4, 60))
@example(b"\xef\xbb\xbf", SSE, 4)
@example(b'"\\', ARRAY, 4)
@settings(max_examples=300)
def test_garbage_is_read_alike_in_any_pieces(data: bytes, framing: Framing, limit: int) -> None:
    assert read(framing, [data], limit) == read(framing, cut(data), limit)


SSE_TEXT = st.lists(
    st.sampled_from(
        [
            b"\n",
            b"\r",
            b"\r\n",
            b"data",
            b"data:",
            b"event: a",
            b": c",
            b"{",
            b"}",
            b"error:",
            b" ",
            b"x",
            b"1",
            b"[DONE]",
            b"\xef\xbb\xbf",
        ]
    ),
    max_size=25,
).map(b"".join)
ARRAY_TEXT = st.text('[]{}",\\ a1', max_size=40).map(str.encode)
FRAME_BYTES = st.lists(
    st.one_of(
        st.builds(event_frame, st.sampled_from(["a", "b"]), st.binary(max_size=20)), st.binary(max_size=12)
    ),
    max_size=4,
).map(b"".join)


@given(st.data())
@settings(max_examples=500)
def test_near_streams_are_read_alike_in_any_pieces(data: st.DataObject) -> None:
    framing, texts = data.draw(
        st.sampled_from([(SSE, SSE_TEXT), (NDJSON, SSE_TEXT), (ARRAY, ARRAY_TEXT), (FRAMES, FRAME_BYTES)])
    )
    text = data.draw(texts)
    size, limit = data.draw(st.integers(1, 9)), data.draw(st.sampled_from([6, 20, 1000]))
    assert read(framing, [text], limit) == read(framing, cut(text, size), limit)


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.lists(st.dictionaries(st.text(max_size=5), VALUES, max_size=3), max_size=5)


@given(OBJECTS, st.integers(1, 12), st.sampled_from([None, 1]))
def test_objects_come_out_as_they_went_in(objects: list[object], size: int, indent: int | None) -> None:
    lines = [json.dumps(value).encode() for value in objects]
    streams = {
        SSE: b"".join(b"data: " + line + b"\n\n" for line in lines),
        NDJSON: b"".join(line + b"\n" for line in lines),
        ARRAY: json.dumps(objects, indent=indent).encode(),
        FRAMES: b"".join(event_frame("e", line) for line in lines),
    }
    for framing, data in streams.items():
        events, overflowed = read(framing, cut(data, size))
        assert [json.loads(event.data) for event in events] == objects
        assert not overflowed


def test_a_repr_does_not_show_what_an_event_brings() -> None:
    assert "secret" not in repr(Event("a", b"secret"))

"""How an answer is read: what is taken, what is refused, and that no split of it makes a difference."""

from __future__ import annotations

import gc
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.web.iweb import UNKNOWN_LENGTH

from llmproxyd.http.headers import relayed
from llmproxyd.testing.upstream import LAST_CHUNK, answer, chunk, head
from llmproxyd.wire.answer import MAX_DRY, MAX_HEAD, MAX_INTERIM, AnswerReader
from llmproxyd.wire.fields import MAX_FIELDS, MAX_LENGTH, Fields

CHUNKED = b"Transfer-Encoding: chunked"


@dataclass
class Read:
    """Everything that was understood of one stream."""

    head: Any = None
    interims: list[Any] = field(default_factory=list)
    body: bytes = b""
    complete: bool = False
    surplus: bool = False
    persistent: bool = False
    bad: bool = False
    open_ended: bool = False


def read(*pieces: bytes, bodiless: bool = False) -> Read:
    """What is understood of a stream that comes in *pieces*; as a connection does it."""
    reader = AnswerReader(bodiless)
    got = Read()
    for piece in pieces:
        if not piece:
            continue
        if reader.complete:
            got.surplus = True
            break
        got.body += reader.feed(piece)
        for one in reader.interims or ():
            got.interims.append((one.status, one.reason, list(one.headers)))
        reader.interims = None
        if reader.problem is not None:
            got.bad = True
            break
    response = reader.response
    if response is not None:
        got.head = (response.version, response.code, response.phrase, list(response.raw), response.length)
    got.complete = reader.complete
    got.surplus = got.surplus or reader.surplus
    got.persistent = reader.persistent
    got.open_ended = reader.ends_with_connection and not got.bad
    return got


def halves(stream: bytes) -> list[list[bytes]]:
    """*stream* cut in two at every place, and into single bytes."""
    return [[stream[:at], stream[at:]] for at in range(len(stream))] + [
        [stream[at : at + 1] for at in range(len(stream))]
    ]


def everywhere(stream: bytes, **settings: Any) -> Read:
    """What is read of *stream*, however it is split."""
    whole = read(stream, **settings)
    for pieces in halves(stream):
        assert read(*pieces, **settings) == whole
    return whole


# What is taken.


def test_a_plain_answer() -> None:
    got = everywhere(head(b"Content-Length: 3", b"x-A:  b c \t", b"X-a: d", b"Empty:") + b"abc")
    fields = [(b"Content-Length", b"3"), (b"x-A", b"b c \t"), (b"X-a", b"d"), (b"Empty", b"")]
    assert got == Read(((b"HTTP", 1, 1), 200, b"OK", fields, 3), body=b"abc", complete=True, persistent=True)


def test_chunks() -> None:
    stream = head(CHUNKED) + chunk(b"ab") + b'3;x="y\\"z";q\r\ncde\r\n' + chunk(b"\r\n\r\n") + LAST_CHUNK
    got = everywhere(stream)
    assert (got.body, got.complete, got.surplus, got.persistent) == (b"abcde\r\n\r\n", True, False, True)
    assert got.head[4] == UNKNOWN_LENGTH


def test_trailers_are_dropped() -> None:
    trailer = b"0\r\nX-Sum: 1\r\nTransfer-Encoding: gzip\r\n\r\n"
    got = everywhere(head(CHUNKED, b"A: b") + chunk(b"ab") + trailer)
    assert got.complete
    assert got.head[3] == [(b"Transfer-Encoding", b"chunked"), (b"A", b"b")]


@pytest.mark.parametrize("version", [b"HTTP/1.0", b"HTTP/1.1"])
def test_an_end_by_the_connection(version: bytes) -> None:
    got = everywhere(head(b"A: b", version=version) + b"abc\r\n\r\n0\r\n\r\n")
    assert got.body == b"abc\r\n\r\n0\r\n\r\n"
    assert (got.complete, got.open_ended, got.persistent) == (False, True, False)
    assert got.head[4] == UNKNOWN_LENGTH


@pytest.mark.parametrize("status", [b"200", b"200 ", b"200 OK", b"200 a\tb", b"200 \xc3\xa9\xff", b"599 X"])
def test_status_lines(status: bytes) -> None:
    got = everywhere(head(b"Content-Length: 0", status=status))
    assert got.complete
    assert (got.head[1], got.head[2]) == (int(status[:3]), status[4:])


@pytest.mark.parametrize(
    "fields", [[], [b"Content-Length: 5"], [CHUNKED], [b"Content-Length: 0"]], ids=["", "cl", "te", "0"]
)
@pytest.mark.parametrize(("status", "head_asked"), [(b"200 OK", True), (b"204 N", False), (b"304 N", False)])
def test_answers_without_a_body(status: bytes, head_asked: bool, fields: list[bytes]) -> None:
    got = everywhere(head(*fields, status=status), bodiless=head_asked)
    assert (got.complete, got.persistent, got.surplus, got.head[4]) == (True, True, False, 0)
    assert everywhere(head(*fields, status=status) + b"x", bodiless=head_asked).surplus


@pytest.mark.parametrize(
    ("version", "fields", "kept"),
    [
        (b"HTTP/1.1", [], True),
        (b"HTTP/1.1", [b"Connection: close"], False),
        (b"HTTP/1.1", [b"CONNECTION: x-a , Close"], False),
        (b"HTTP/1.1", [b"Connection: keep-alive", b"Connection: close"], False),
        (b"HTTP/1.1", [b"Connection: closed"], True),
        (b"HTTP/1.0", [], False),
        (b"HTTP/1.0", [b"Connection: Keep-Alive"], True),
        (b"HTTP/1.0", [b"Connection: Keep-Alive, close"], False),
    ],
)
def test_persistence(version: bytes, fields: list[bytes], kept: bool) -> None:
    got = everywhere(head(b"Content-Length: 1", *fields, version=version) + b"x")
    assert got.complete
    assert got.persistent is kept


def test_an_upgrade_that_is_only_offered() -> None:
    stream = head(b"Connection: upgrade", b"Upgrade: h2", b"Content-Length: 1") + b"x"
    assert everywhere(stream).complete


def test_interim_heads() -> None:
    early = head(b"Link: </a>", status=b"103 Early Hints")
    stream = head(status=b"100 Continue") + early + head(status=b"102 P") + answer(b"{}")
    got = everywhere(stream)
    assert got.interims == [(103, b"Early Hints", [(b"Link", b"</a>")]), (102, b"P", [])]
    assert (got.head[1], got.body, got.complete) == (200, b"{}", True)


def test_as_many_interim_heads_as_are_allowed() -> None:
    interim = head(b"A: b", status=b"103 E")
    assert read(interim * MAX_INTERIM + answer(b"")).complete
    assert read(interim * (MAX_INTERIM + 1) + answer(b"")).bad


# What is refused.

BAD_HEADS = {
    "empty-line": b"\r\n" + answer(b""),
    "newline": b"\n" + answer(b""),
    "http-0.9": head(version=b"HTTP/0.9"),
    "http-1.2": head(version=b"HTTP/1.2"),
    "http-2.0": head(version=b"HTTP/2.0"),
    "http-10": head(version=b"HTTP/10"),
    "lower-case": head(version=b"http/1.1"),
    "rtsp": head(version=b"RTSP/1.0"),
    "icy": b"ICY 200 OK\r\n\r\n",
    "html": b"<html>",
    "status-two-digits": head(status=b"20 OK"),
    "status-four-digits": head(status=b"2000 OK"),
    "status-099": head(status=b"099 OK"),
    "status-000": head(status=b"000 OK"),
    "status-600": head(status=b"600 X"),
    "status-999": head(status=b"999 X"),
    "status-sign": head(status=b"-20 OK"),
    "status-letters": head(status=b"2xx OK"),
    "status-missing": b"HTTP/1.1 \r\n\r\n",
    "two-spaces": head(status=b" 200 OK"),
    "no-space": head(status=b"200OK"),
    "reason-nul": head(status=b"200 a\0b"),
    "reason-control": head(status=b"200 a\x01b"),
    "reason-del": head(status=b"200 a\x7fb"),
    "reason-cr": head(status=b"200 a\rb"),
    "lf-lines": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "lf-after-status": b"HTTP/1.1 200 OK\nA: b\r\n\r\n",
    "lf-after-field": b"HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n",
    "value-nul": head(b"A: b\0c"),
    "value-control": head(b"A: b\x01c"),
    "value-cr": head(b"A: b\rc"),
    "value-cr-end": head(b"A: b\r"),
    "fold": head(b"A: b", b" c"),
    "fold-tab": head(b"A: b", b"\tc"),
    "fold-first": head(b" A: b"),
    "space-before-colon": head(b"A : b"),
    "no-colon": head(b"A"),
    "no-name": head(b": b"),
    "name-8-bit": head(b"A\x80: b"),
    "name-brackets": head(b"A(b): c"),
    "length-twice": head(b"Content-Length: 1", b"content-length: 1"),
    "length-list": head(b"Content-Length: 1, 1"),
    "length-plus": head(b"Content-Length: +1"),
    "length-minus": head(b"Content-Length: -1"),
    "length-hex": head(b"Content-Length: 0x1"),
    "length-empty": head(b"Content-Length:"),
    "length-space": head(b"Content-Length: 1 1"),
    "length-2^63": head(b"Content-Length: %d" % (MAX_LENGTH + 1)),
    "length-2^64": head(b"Content-Length: %d" % 2**64),
    "length-long": head(b"Content-Length: " + b"0" * 20 + b"1"),
    "both": head(b"Content-Length: 1", CHUNKED),
    "both-reversed": head(CHUNKED, b"Content-Length: 1"),
    "coding-gzip": head(b"Transfer-Encoding: gzip"),
    "coding-list": head(b"Transfer-Encoding: gzip, chunked"),
    "coding-after": head(b"Transfer-Encoding: chunked, gzip"),
    "coding-identity": head(b"Transfer-Encoding: identity"),
    "coding-empty": head(b"Transfer-Encoding:"),
    "coding-twice": head(CHUNKED, CHUNKED),
    "coding-parameter": head(CHUNKED + b";a=b"),
    "coding-1.0": head(CHUNKED, version=b"HTTP/1.0"),
    "switching": head(b"Connection: upgrade", b"Upgrade: h2", status=b"101 Switching"),
    "switching-silently": head(status=b"101 Switching"),
}


@pytest.mark.parametrize("name", BAD_HEADS)
def test_a_head_that_is_refused(name: str) -> None:
    got = everywhere(BAD_HEADS[name])
    assert got.bad
    assert got.head is None


def test_garbage_fails_at_its_first_wrong_byte() -> None:
    assert read(b"HTTP/1.1 200 OK\r\nA: b\0").bad
    assert read(b"S").bad
    assert read(b"HTTQ").bad
    assert not read(b"HTTP/1.").bad


BAD_CHUNKS = {
    "size-letters": b"zz\r\nab\r\n",
    "size-empty": b"\r\nab\r\n",
    "size-space": b"2 \r\nab\r\n",
    "size-minus": b"-2\r\nab\r\n",
    "size-0x": b"0x2\r\nab\r\n",
    "size-2^64": b"1" + b"0" * 16 + b"\r\nab",
    "size-lf": b"2\nab\r\n",
    "data-too-long": b"2\r\nabc\r\n",
    "data-lf": b"2\r\nab\n0\r\n\r\n",
    "extension-nul": b"2;a\0b\r\nab\r\n",
    "extension-cr": b"2;a\rb\r\nab\r\n",
    "trailer-space": b"0\r\nA : b\r\n\r\n",
    "trailer-fold": b"0\r\nA: b\r\n c\r\n\r\n",
    "trailer-length": b"0\r\nContent-Length: 1\r\n\r\n",
    "trailer-nul": b"0\r\nA: \0\r\n\r\n",
    "end-lf": b"0\r\n\n",
}


@pytest.mark.parametrize("name", BAD_CHUNKS)
def test_chunks_that_are_refused(name: str) -> None:
    got = everywhere(head(CHUNKED) + chunk(b"good") + BAD_CHUNKS[name])
    assert got.bad
    assert not got.complete
    assert got.head is not None
    assert got.body.startswith(b"good")


@pytest.mark.parametrize("name", BAD_HEADS)
def test_the_words_hold_nothing_of_the_content(name: str) -> None:
    reader = AnswerReader()
    reader.feed(BAD_HEADS[name].replace(b"A", b"Secret"))
    assert "ecret" not in str(reader.problem)
    assert str(reader.problem)


# Bounds.


def flood(first: bytes, piece: bytes, limit: int) -> tuple[AnswerReader, int]:
    """Feed *piece* until it is refused; how many bytes that took."""
    reader = AnswerReader()
    reader.feed(first)
    count = len(first)
    while reader.problem is None and count < 10 * limit:
        reader.feed(piece)
        count += len(piece)
    return reader, count


@pytest.mark.parametrize("piece", [b"x" * 100, b"A: b\r\n", b"A: " + b"b" * 1000 + b"\r\n"])
def test_a_head_without_end(piece: bytes) -> None:
    reader, count = flood(head()[:-2] + b"A: ", piece, MAX_HEAD)
    assert reader.problem is not None
    assert count <= MAX_HEAD + len(piece)


def test_a_reason_without_end() -> None:
    reader, count = flood(b"HTTP/1.1 200 ", b"x" * 100, MAX_HEAD)
    assert reader.problem is not None
    assert count <= MAX_HEAD + 100


def test_the_size_of_a_head() -> None:
    start = head()[:-2] + b"Content-Length: 0\r\nA: "
    for over in (0, 1):
        stream = start + b"b" * (MAX_HEAD - len(start) - 4 + over) + b"\r\n\r\n"
        for pieces in ([stream], [stream[:-1], stream[-1:]], [stream[:9], stream[9:]]):
            got = read(*pieces)
            assert (got.bad, got.complete) == (bool(over), not over)


def test_the_number_of_fields() -> None:
    fields = [b"A%d: b" % number for number in range(MAX_FIELDS - 1)]
    assert read(head(b"Content-Length: 0", *fields)).complete
    assert read(head(b"Content-Length: 0", *fields, b"one: more")).bad


@pytest.mark.parametrize("piece", [b"A: b\r\n", b"A: " + b"b" * 1000 + b"\r\n", b"x" * 1000])
def test_trailers_without_end(piece: bytes) -> None:
    reader, count = flood(head(CHUNKED) + chunk(b"a") + b"0\r\nA: ", piece, MAX_DRY)
    assert reader.problem is not None
    assert count <= MAX_DRY + len(piece) + 200


def test_an_extension_without_end() -> None:
    reader, count = flood(head(CHUNKED) + b"2;", b"x" * 100, MAX_DRY)
    assert reader.problem is not None
    assert count <= MAX_DRY + 300


def test_small_chunks_are_no_flood() -> None:
    got = read(head(CHUNKED), *[chunk(b"a")] * 50_000, LAST_CHUNK)
    assert got.complete
    assert len(got.body) == 50_000


def test_one_piece_per_read() -> None:
    reader = AnswerReader()
    assert reader.feed(head(CHUNKED) + chunk(b"a") * 500) == b"a" * 500


def test_a_body_of_known_length_is_handed_on_as_it_came() -> None:
    reader = AnswerReader()
    reader.feed(head(b"Content-Length: 10"))
    piece = b"abc"
    assert reader.feed(piece) is piece


# Surplus.


@pytest.mark.parametrize("extra", [b"x", b"\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"0\r\n\r\n", b"\r\n\r\n"])
@pytest.mark.parametrize(
    "message",
    [answer(b"abc"), answer(b""), head(CHUNKED) + chunk(b"abc") + LAST_CHUNK],
    ids=["length", "empty", "chunks"],
)
def test_surplus_is_seen_and_leaves_the_answer_alone(message: bytes, extra: bytes) -> None:
    alone = everywhere(message)
    got = everywhere(message + extra)
    assert alone.complete
    assert not alone.surplus
    assert (got.surplus, got.complete, got.bad) == (True, True, False)
    assert (got.head, got.body) == (alone.head, alone.body)


# Any split of any stream.

TEXT = st.binary(max_size=12) | st.sampled_from([b"\r\n", b"\r\n\r\n", b"0\r\n\r\n", b"data: x\r\n\r\n"])
VALUE = st.text("ab c\t", max_size=6).map(str.encode)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """A message, now and then one with something wrong."""
    fields = [b"X%d: " % n + value for n, value in enumerate(draw(st.lists(VALUE, max_size=3)))]
    interim = b"".join(
        head(b"I: " + value, status=b"10%d I" % draw(st.sampled_from([0, 2, 3])))
        for value in draw(st.lists(VALUE, max_size=2))
    )
    status = draw(st.sampled_from([b"200 OK", b"200", b"204 No", b"304 Not", b"500 a b", b"429 "]))
    version = draw(st.sampled_from([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0"]))
    pieces = draw(st.lists(TEXT, max_size=4))
    body = b"".join(pieces)
    kind = draw(st.sampled_from(["length", "chunks", "close"]))
    if kind == "length":
        fields.append(b"Content-Length: %d" % max(0, len(body) + draw(st.sampled_from([0, 0, 0, 1, -1]))))
    elif kind == "chunks":
        fields.append(CHUNKED)
        trailer = b"".join(b"T: " + value + b"\r\n" for value in draw(st.lists(VALUE, max_size=2)))
        body = b"".join(chunk(piece) for piece in pieces if piece) + b"0\r\n" + trailer + b"\r\n"
    stream = interim + head(*draw(st.permutations(fields)), status=status, version=version) + body
    return stream + draw(st.sampled_from([b"", b"", b"", b"x", b"\r\n\r\n", b"HTTP/1.1 "]))


@st.composite
def splits(draw: st.DrawFn, streams: st.SearchStrategy[bytes]) -> tuple[bytes, list[bytes]]:
    stream = draw(streams)
    cuts = sorted(draw(st.sets(st.integers(0, len(stream)), max_size=8)))
    return stream, [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


@settings(max_examples=400)
@given(splits(messages()), st.booleans())
@example((b"HTTP/1.1 200 OK\r\n\r\nx", [b"HTTP/1.1 200 OK\r\n\r", b"\nx"]), False)
def test_any_split_gives_the_same(split: tuple[bytes, list[bytes]], bodiless: bool) -> None:
    stream, pieces = split
    assert read(*pieces, bodiless=bodiless) == read(stream, bodiless=bodiless)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    stream = bytearray(draw(messages()))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(stream) - 1))
        stream[at : at + draw(st.integers(0, 2))] = draw(
            st.sampled_from([b"", b"\r", b"\n", b"\0", b"9", b":"])
        )
    return bytes(stream) or b"x"


@settings(max_examples=400)
@given(splits(damaged()))
def test_any_split_of_what_is_damaged_gives_the_same(split: tuple[bytes, list[bytes]]) -> None:
    stream, pieces = split
    assert read(*pieces) == read(stream)


def test_a_reader_holds_nothing_in_a_circle() -> None:
    streams = [answer(b"abc"), head(CHUNKED) + chunk(b"a"), b"HTTP/1.1 20", b"junk", head(b"A : b")]
    gc.collect()
    gc.disable()
    try:
        for stream in streams * 100:
            AnswerReader().feed(stream)
        assert gc.collect() == 0
    finally:
        gc.enable()


# What the fields are to the connection.


def relayed_of(*pieces: bytes) -> tuple[list[tuple[bytes, bytes]], list[tuple[bytes, bytes]]]:
    """What of an answer goes on, found by the places that its reader noted and by a walk."""
    reader = AnswerReader()
    for piece in pieces:
        reader.feed(piece)
    assert reader.response is not None
    raw = reader.response.raw
    assert isinstance(raw, Fields)
    return relayed(raw), relayed(list(raw))


NAMED = st.sampled_from(
    b"Date X-A x-a Connection connection Keep-Alive TE Trailer Upgrade Proxy-Authenticate Content_Length".split()
)


@given(
    st.lists(st.tuples(NAMED, st.sampled_from([b"x-a", b"close", b"keep-alive", b"1"])), max_size=8),
    st.lists(st.tuples(NAMED, st.just(b"1")), max_size=3),
    st.integers(0, 400),
)
def test_noted_places_tell_what_a_walk_would_tell(
    fields: list[tuple[bytes, bytes]], trailers: list[tuple[bytes, bytes]], cut: int
) -> None:
    lines = b"".join(b"%b: %b\r\n" % pair for pair in fields)
    end = b"".join(b"%b: %b\r\n" % pair for pair in trailers)
    stream = b"HTTP/1.1 200 OK\r\n" + lines + CHUNKED + b"\r\n\r\n2\r\nab\r\n0\r\n" + end + b"\r\n"
    for pieces in ((stream,), (stream[:cut], stream[cut:])):
        noted, walked = relayed_of(*(piece for piece in pieces if piece))
        assert noted == walked


def test_places_of_an_interim_head_are_not_those_of_the_answer() -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nConnection: close\r\nLink: a\r\nKeep-Alive: 1\r\n\r\n"
    answer = b"HTTP/1.1 200 OK\r\nDate: 1\r\nX-A: 1\r\nKeep-Alive: 1\r\nContent-Length: 0\r\n\r\n"
    noted, walked = relayed_of(hints + answer)
    assert noted == walked == [(b"Date", b"1"), (b"X-A", b"1"), (b"Content-Length", b"0")]

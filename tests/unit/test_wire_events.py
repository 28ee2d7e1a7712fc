"""However bytes are cut into pieces, both parsers make the same of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IConsumer
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from llmproxyd.model import Response
from llmproxyd.wire.answer import AnswerReader
from llmproxyd.wire.head import BadRequest, Limits
from llmproxyd.wire.request import WireRequest
from llmproxyd.wire.site import WireSite
from llmproxyd.wire.wheel import Wheel

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz.corpus import VECTORS

CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LIMITS = Limits(max_headers=4096, max_body=5000)

Pieces = Sequence[bytes]


def cut(data: bytes, at: Iterable[int]) -> Pieces:
    cuts = sorted({0, len(data), *(one for one in at if 0 < one < len(data))})
    return [data[start:end] for start, end in pairwise(cuts)] or [data]


def one_by_one(data: bytes) -> Pieces:
    return cut(data, range(len(data)))


@st.composite
def cuts(draw: st.DrawFn) -> Callable[[bytes], Pieces]:
    """Where to cut: near the beginning or anywhere, and what a line's end falls apart at."""
    places = draw(st.lists(st.integers(1, 400) | st.integers(1, 20_000), max_size=12))
    ends = draw(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), max_size=4))

    def cutting(data: bytes) -> Pieces:
        lines = [at for at in range(len(data)) if data.startswith(b"\r\n", at)]
        return cut(data, [*places, *(lines[line % len(lines)] + off for line, off in ends if lines)])

    return cutting


def changed(base: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """*base* with some bytes replaced, left out or put in."""
    piece = st.sampled_from(
        [b"", b"\r", b"\n", b"\r\n", b"\0", b"\t", b" ", b"\x80", b":", b";", b",", b"0", b"f", b"\r\n\r\n"]
    ) | st.binary(min_size=1, max_size=1)
    change = st.tuples(st.integers(0, 300) | st.integers(0, 5000), st.integers(0, 3), piece)

    def apply(data: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
        for at, gone, put in changes:
            at %= len(data) + 1
            data = data[:at] + put + data[at + gone :]
        return data

    return st.builds(apply, base, st.lists(change, min_size=1, max_size=4))


# -- the server's side -------------------------------------------------------------------------


class Wire(StringTransport):
    """A connection in memory that keeps what it is not asked for.

    :ivar end: how it was ended, ``None`` while it is not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.end: str | None = None
        self._waiting: list[bytes] = []
        self._delivering = False
        self.protocol: Any = None

    def deliver(self, *pieces: bytes) -> None:
        self._waiting += pieces
        if self._delivering:
            return
        self._delivering = True
        while self._waiting and self.producerState == "producing" and self.end in (None, "half"):
            self.protocol.dataReceived(self._waiting.pop(0))
        self._delivering = False

    def resumeProducing(self) -> None:
        super().resumeProducing()
        self.deliver()

    def write(self, data: bytes) -> None:
        assert self.end is None, "written behind the end"
        super().write(data)

    def loseWriteConnection(self) -> None:
        self.end = "half"

    def loseConnection(self) -> None:
        self.end = "closed"

    def abortConnection(self) -> None:
        self.end = "aborted"

    def unregisterProducer(self) -> None:
        self.producer = None


@implementer(IConsumer)
class Kept:
    """Takes a body."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def write(self, data: bytes) -> None:
        assert data
        self.pieces.append(data)

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """Not used."""

    def unregisterProducer(self) -> None:
        """Not used."""


Seen = list[tuple[bytes, bytes, list[tuple[bytes, bytes]], bytes]]


class Recorder(Resource):
    """Answers each request at its head, or when its body is whole, and remembers it."""

    isLeaf = True
    renders_at_head = True

    def __init__(self, seen: Seen, *, at_head: bool) -> None:
        super().__init__()
        self._seen = seen
        self._at_head = at_head

    def render(self, request: WireRequest) -> int:
        if self._at_head:
            self._note(request, b"")
            return NOT_DONE_YET
        producer = request.body.producer()
        kept = Kept()
        if producer is None:
            self._note(request, b"")
        else:
            reading = producer.startProducing(kept)
            reading.addCallback(lambda _: self._note(request, b"".join(kept.pieces)))
            reading.addErrback(self._failed, request)
        return NOT_DONE_YET

    def _note(self, request: WireRequest, body: bytes) -> None:
        head = request.head.request
        self._seen.append((head.method, head.target, list(head.headers), body))
        answer = request.answer
        answer.start(Response(200, b"OK", [(b"x-number", b"%d" % len(self._seen))], len(body)))
        answer.write(body, last=True)
        answer.finish()

    def _failed(self, failure: Failure, request: WireRequest) -> None:
        if failure.check(BadRequest):
            request.channel.site.refuse(failure.value, request.head.request, request.answer)
        elif request.channel.transport.end is None:
            request.answer.cut()


def served(pieces: Pieces, *, at_head: bool = False) -> tuple[Seen, bytes, str | None]:
    """The requests that were whole, all that was answered, and how the connection was ended."""
    clock = Clock()
    seen: Seen = []
    wheel = Wheel(clock)
    site = WireSite(
        Recorder(seen, at_head=at_head), clock=clock, wall=lambda: 1.8e9, wheel=wheel, limits=LIMITS
    )
    channel, transport = site.buildProtocol(None), Wire()
    transport.protocol = channel
    channel.makeConnection(transport)
    transport.deliver(*pieces)
    written, end = transport.value().replace(CONTINUE, b""), transport.end
    transport.end = end or "lost"
    channel.connectionLost(Failure(ConnectionDone()))
    assert not wheel.waiting
    assert not clock.getDelayedCalls()
    return seen, written, end


TOKENS = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJ0123456789-_.!~", min_size=1, max_size=12).map(
    lambda text: b"x-" + text.encode()
)
VALUES = st.text(
    st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=30
).map(lambda text: text.strip(" \xa0\x85").encode("latin-1"))
EXTENSIONS = st.sampled_from([b"", b"", b";a", b";a=b", b';a="b c"', b";name=" + b"v" * 300])


@st.composite
def chunks(draw: st.DrawFn) -> bytes:
    made = b""
    for piece in draw(st.lists(st.binary(min_size=1, max_size=60), max_size=5)):
        size = draw(st.sampled_from([b"%x", b"%X", b"0%x"])) % len(piece)
        made += size + draw(EXTENSIONS) + b"\r\n" + piece + b"\r\n"
    made += draw(st.sampled_from([b"0", b"00"])) + draw(EXTENSIONS) + b"\r\n"
    for name, value in draw(st.lists(st.tuples(TOKENS, VALUES), max_size=2)):
        made += name + b": " + value + b"\r\n"
    return made + b"\r\n"


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A good request."""
    method = draw(st.sampled_from([b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS"]))
    target = b"/" + draw(st.text("abc/%20?=&.~", max_size=20)).encode()
    version = draw(st.sampled_from([b"1.1", b"1.1", b"1.1", b"1.0"]))
    space = draw(st.sampled_from([b"", b" ", b"  ", b"\t"]))
    lines = [b"%b %b HTTP/%b" % (method, target, version), b"Host:" + space + b"a.example"]
    lines += [
        name + b":" + space + value + space
        for name, value in draw(st.lists(st.tuples(TOKENS, VALUES), max_size=4))
    ]
    how = draw(st.sampled_from(["none", "length", "chunks"]))
    body = b""
    if how == "length":
        body = draw(st.binary(max_size=120))
        lines.append(b"Content-Length: %d" % len(body))
    elif how == "chunks" and version == b"1.1":
        body = draw(chunks())
        lines.append(b"Transfer-Encoding: chunked")
    connection = draw(
        st.sampled_from([None, None, None, b"close", b"keep-alive", b"x-a, Keep-Alive", b"x, close"])
    )
    if connection is not None:
        lines.append(b"Connection: " + connection)
    if body and draw(st.booleans()) and draw(st.booleans()):
        lines.append(b"Expect: 100-continue")
    before = draw(st.sampled_from([b"", b"", b"\r\n", b"\r\n\r\n"]))
    return before + b"\r\n".join([*lines, b"", b""]) + body


GOOD = st.lists(requests(), min_size=1, max_size=4).map(b"".join)
VECTOR = st.sampled_from([data for data in VECTORS.values() if len(data) < 3000])
ANY = GOOD | changed(GOOD) | VECTOR | changed(VECTOR)


def same(data: bytes, pieces: Pieces, **how: Any) -> None:
    whole, split = served([data], **how), served(pieces, **how)
    assert split[0] == whole[0], "the requests"
    assert split[1] == whole[1], "the answers"
    assert split[2] == whole[2], "the connection's end"


@CALM
@given(GOOD, cuts())
def test_good_requests_in_any_pieces(data: bytes, cutting: Callable[[bytes], Pieces]) -> None:
    same(data, cutting(data))


@settings(CALM, max_examples=400)
@given(ANY, cuts())
@example(
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", lambda data: cut(data, [28])
)
def test_any_bytes_in_any_pieces(data: bytes, cutting: Callable[[bytes], Pieces]) -> None:
    same(data, cutting(data))


@settings(CALM, max_examples=60)
@given(ANY)
def test_any_bytes_one_by_one(data: bytes) -> None:
    same(data, one_by_one(data))


@pytest.mark.parametrize("name", VECTORS)
def test_vectors_in_two_pieces(name: str) -> None:
    data = VECTORS[name]
    for at in {*range(1, min(len(data), 300)), *range(301, len(data), len(data) // 8 + 1)}:
        same(data, [data[:at], data[at:]])


@CALM
@given(
    st.lists(requests().filter(lambda data: b"chunked" not in data and b"Expect" not in data), max_size=4),
    cuts(),
)
def test_answers_at_the_head(several: list[bytes], cutting: Callable[[bytes], Pieces]) -> None:
    """What is answered before its body came, and the body is not read."""
    data = b"".join(several)
    same(data, cutting(data), at_head=True)


# -- the client's side -------------------------------------------------------------------------


Read = tuple[Any, ...]


def answered(pieces: Pieces, *, bodiless: bool) -> Read:
    """All that a reader has told of an answer."""
    reader = AnswerReader(bodiless)
    body: list[bytes] = []
    left = False
    for piece in pieces:
        if reader.complete or reader.problem is not None:
            # Nobody reads on; on a kept connection it is what nobody has asked for.
            left = left or reader.complete
            continue
        body.append(reader.feed(piece))
    response = reader.response
    return (
        None
        if response is None
        else (response.version, response.code, response.phrase, response.raw, response.length),
        b"".join(body),
        reader.complete,
        reader.surplus or left,
        None if reader.problem is None else (type(reader.problem), str(reader.problem)),
        reader.persistent,
        reader.ends_with_connection if reader.problem is None else None,
        [(one.status, one.reason, list(one.headers)) for one in reader.interims or ()],
        reader.heads,
    )


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """A good answer, perhaps behind interim ones."""
    made = b""
    for status in draw(st.lists(st.sampled_from([b"100 Continue", b"103 Early Hints", b"102 "]), max_size=2)):
        made += b"HTTP/1.1 " + status + b"\r\nlink: x\r\n\r\n"
    status = draw(
        st.sampled_from([b"200 OK", b"200 ", b"404 Not Found", b"204 No Content", b"304 Not", b"529 x y"])
    )
    version = draw(st.sampled_from([b"1.1", b"1.1", b"1.0"]))
    fields = draw(st.lists(st.tuples(TOKENS, VALUES), max_size=4))
    lines = [b"HTTP/%b %b" % (version, status), *(name + b": " + value for name, value in fields)]
    how = draw(st.sampled_from(["none", "length", "length", "chunks", "chunks"]))
    body = draw(st.binary(max_size=100))
    if how == "length":
        lines.append(b"Content-Length: %d" % len(body))
    elif how == "chunks" and version == b"1.1":
        body = draw(chunks())
        lines.append(b"Transfer-Encoding: chunked")
    connection = draw(st.sampled_from([None, None, b"close", b"keep-alive", b"x, Close"]))
    if connection is not None:
        lines.append(b"Connection: " + connection)
    return made + b"\r\n".join([*lines, b"", b""]) + body


SURPLUS = st.sampled_from([b"", b"", b"", b"x", b"\r\n", b"HTTP/1.1 200 OK\r\n\r\n"])
ANSWER = st.builds(bytes.__add__, answers(), SURPLUS)


@settings(CALM, max_examples=300)
@given(ANSWER | changed(ANSWER), cuts(), st.booleans())
def test_an_answer_in_any_pieces(data: bytes, cutting: Callable[[bytes], Pieces], bodiless: bool) -> None:
    assert answered(cutting(data), bodiless=bodiless) == answered([data], bodiless=bodiless)


@settings(CALM, max_examples=150)
@given(ANSWER | changed(ANSWER), st.booleans())
def test_an_answer_one_by_one(data: bytes, bodiless: bool) -> None:
    assert answered(one_by_one(data), bodiless=bodiless) == answered([data], bodiless=bodiless)

"""What the gate holds goes on as it came, or goes nowhere; and it opens once."""

from __future__ import annotations

import gzip
import zlib
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from llmproxyd.inspection.content import StreamWatch
from llmproxyd.inspection.inflate import inflater
from llmproxyd.model import Response
from llmproxyd.pipeline.gate import TEXT, Gate, Why
from llmproxyd.providers.base import StreamForm
from llmproxyd.providers.registry import registry
from llmproxyd.resilience.policy import Hold
from llmproxyd.wire.response import DONE, WireResponse
from llmproxyd.wire.wheel import Wheel

ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
HI = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
SORRY = b'data: {"error":{"message":"sorry"}}\n\n'
END = b"data: [DONE]\n\n"
GONE = Failure(ConnectionLost())


def chat() -> StreamForm:
    """The form of OpenAI's chat completions."""
    provider = registry()["openai"]
    for endpoint in provider.endpoints:
        if endpoint.pattern.search(b"/v1/chat/completions"):
            form = endpoint.form_of(b"text/event-stream")
            assert form is not None
            return form
    raise AssertionError("no such endpoint")


FORM = chat()
HOLD = Hold()


class Source:
    """The connection that an answer comes from."""

    def __init__(self) -> None:
        self.aborted = 0

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def abort(self) -> None:
        self.aborted += 1


class Receiver:
    """Remembers what it is given."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.pieces: list[bytes] = []
        self.ends: list[Failure] = []

    def makeConnection(self, transport: Any) -> None:
        self.transport = transport

    def dataReceived(self, data: bytes) -> None:
        self.pieces.append(data)

    def connectionLost(self, reason: Failure) -> None:
        self.ends.append(reason)


class Rig:
    """One gate before one answer.

    :ivar opened: why it opened, each time that it did.
    """

    def __init__(
        self, *, stream: bool = True, coding: bytes = b"", hold: Hold = HOLD, pass_on: bool = False
    ) -> None:
        self.clock = Clock()
        self.wheel = Wheel(self.clock)
        self.source = Source()
        self.receiver = Receiver()
        self.opened: list[Why | None] = []
        self._pass_on = pass_on
        fields = [(b"Content-Encoding", coding)] if coding else []
        self.incoming = WireResponse((b"HTTP", 1, 1), 200, b"OK", fields, 0)
        self.incoming.come_from(self.source)
        watch = StreamWatch(FORM, inflater(coding)) if stream else None
        self.gate = Gate(self.incoming, Response(200, b"OK", fields), watch, hold, self.wheel, self._open)
        self.incoming.deliverBody(self.gate)

    def _open(self, gate: Gate) -> None:
        self.opened.append(gate.why)
        if self._pass_on:
            gate.pass_on(self.receiver)

    def feed(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.incoming.receive(piece)

    def end(self, reason: Failure = DONE) -> None:
        if reason is DONE:
            self.incoming.completed()
        self.incoming.end(reason)


OPENS: list[Any] = [
    pytest.param([ROLE], None, None, id="nothing-said"),
    pytest.param([b": hello\n\n", ROLE, HI], None, Why.CONTENT, id="content"),
    pytest.param([HI[:-1]], None, None, id="half-an-event"),
    pytest.param([ROLE, SORRY], None, Why.TROUBLE, id="error"),
    pytest.param([SORRY + HI], None, Why.TROUBLE, id="error-first"),
    pytest.param([HI + SORRY], None, Why.CONTENT, id="content-first"),
    pytest.param([ROLE + END], DONE, Why.WHOLE, id="empty"),
    pytest.param([], DONE, Why.WHOLE, id="nothing"),
    pytest.param([], GONE, Why.BROKEN, id="broken-at-once"),
    pytest.param([ROLE], GONE, Why.BROKEN, id="broken"),
    pytest.param([HI[:-2]], DONE, Why.CONTENT, id="whole-without-a-last-line"),
    pytest.param([HI[:-2]], GONE, Why.BROKEN, id="broken-within-the-first-event"),
    pytest.param([SORRY[:-2]], DONE, Why.TROUBLE, id="whole-error-without-a-last-line"),
    pytest.param([SORRY[:-2]], GONE, Why.TROUBLE, id="broken-within-an-error"),
    pytest.param([ROLE * 900], None, Why.FULL, id="too-much"),
]


@pytest.mark.parametrize(("pieces", "end", "why"), OPENS)
def test_when_a_stream_is_let_through(pieces: list[bytes], end: Failure | None, why: Why | None) -> None:
    rig = Rig()
    rig.feed(*pieces)
    if end is not None:
        rig.end(end)
    assert rig.opened == ([] if why is None else [why])
    assert rig.gate.held() == b"".join(pieces)
    assert rig.wheel.waiting == (not rig.opened)


@given(st.lists(st.integers(0, len(ROLE + HI + END)), max_size=6))
def test_where_pieces_end_changes_nothing(cuts: list[int]) -> None:
    data = ROLE + HI + END
    places = [0, *sorted(cuts), len(data)]
    rig = Rig(pass_on=True)
    rig.feed(*(data[a:b] for a, b in pairwise(places) if a < b))
    rig.end()
    assert rig.opened == [Why.CONTENT]
    assert b"".join(rig.receiver.pieces) == data
    assert rig.receiver.ends == [DONE]
    assert rig.wheel.waiting == 0


@pytest.mark.parametrize("wbits", [31, 15, -15])
def test_a_coded_stream_is_read_at_every_byte(wbits: int) -> None:
    packer = zlib.compressobj(wbits=wbits)
    start = packer.compress(ROLE) + packer.flush(zlib.Z_SYNC_FLUSH)
    rest = packer.compress(HI + END) + packer.flush()
    rig = Rig(coding=b"gzip" if wbits == 31 else b"deflate", pass_on=True)
    rig.feed(*(start[at : at + 1] for at in range(len(start))))
    assert rig.opened == []
    rig.feed(*(rest[at : at + 1] for at in range(len(rest))))
    rig.end()
    assert rig.opened == [Why.CONTENT]
    assert b"".join(rig.receiver.pieces) == start + rest


@given(st.binary(min_size=1, max_size=200), st.sampled_from([b"gzip", b"deflate", b"br", b"gzip, gzip"]))
def test_garbage_is_never_held_for_good(data: bytes, coding: bytes) -> None:
    rig = Rig(coding=coding, pass_on=True)
    rig.feed(data)
    rig.end()
    assert len(rig.opened) == 1
    assert b"".join(rig.receiver.pieces) == data


def test_what_cannot_be_read_is_not_waited_for() -> None:
    rig = Rig(coding=b"gzip")
    rig.feed(b"no gzip at all")
    assert rig.opened == [Why.FULL]


@pytest.mark.parametrize("stream", [True, False])
def test_it_is_late_after_its_time(stream: bool) -> None:
    rig = Rig(stream=stream, hold=Hold(time=3))
    rig.feed(ROLE)
    rig.clock.pump([0.1] * 29)
    assert rig.opened == []
    rig.clock.pump([0.1] * 4)
    assert rig.opened == [Why.LATE]
    assert rig.clock.getDelayedCalls() == []


def test_it_is_full_at_so_many_bytes() -> None:
    rig = Rig(stream=False, hold=Hold(bytes=10))
    rig.feed(b"x" * 9)
    assert rig.opened == []
    rig.feed(b"x")
    assert rig.opened == [Why.FULL]


def test_what_comes_after_it_was_full_goes_on_too() -> None:
    rig = Rig(stream=False, hold=Hold(bytes=10), pass_on=True)
    rig.feed(b"x" * 9, b"yy", b"z")
    rig.end(GONE)
    assert rig.receiver.pieces == [b"x" * 9 + b"yy", b"z"]
    assert rig.receiver.ends == [GONE]
    assert rig.receiver.transport is rig.incoming


def test_it_opens_once() -> None:
    rig = Rig(hold=Hold(bytes=300, time=1))
    rig.feed(HI, SORRY, ROLE * 10)
    rig.clock.advance(5)
    rig.end()
    assert rig.opened == [Why.CONTENT]


@pytest.mark.parametrize("late", [False, True])
def test_what_is_thrown_away_is_closed_and_opens_nothing(late: bool) -> None:
    rig = Rig(hold=Hold(time=1))
    rig.feed(ROLE)
    rig.gate.throw_away()
    assert (rig.source.aborted, rig.clock.getDelayedCalls()) == (1, [])
    if late:
        rig.feed(HI)
        rig.end(GONE)
    rig.clock.advance(5)
    assert rig.opened == []
    assert rig.gate.why is Why.BROKEN
    assert rig.gate.held() == ROLE


def test_what_was_whole_is_thrown_away_without_closing_anything() -> None:
    rig = Rig()
    rig.feed(ROLE)
    rig.end()
    rig.gate.throw_away()
    assert (rig.source.aborted, rig.gate.why) == (0, Why.WHOLE)


def test_an_answer_that_is_all_there_needs_no_timer() -> None:
    rig = Rig(stream=False)
    incoming = WireResponse((b"HTTP", 1, 1), 503, b"No", [], 2)
    incoming.receive(b"no")
    incoming.completed()
    incoming.end(DONE)
    rig.end()
    opened: list[Why | None] = []
    gate = Gate(
        incoming, Response(503, b"No", []), None, Hold(), rig.wheel, lambda one: opened.append(one.why)
    )
    incoming.deliverBody(gate)
    assert (opened, gate.held(), rig.clock.getDelayedCalls()) == ([Why.WHOLE], b"no", [])


def test_text_is_what_can_be_read_of_it_and_bounded() -> None:
    bomb = gzip.compress(b"x" * 10_000_000, mtime=0)
    rig = Rig(stream=False, coding=b"gzip")
    rig.feed(bomb[:5000], bomb[5000:])
    assert rig.gate.text == "x" * TEXT
    assert Rig(stream=False, coding=b"br").gate.text == ""


@pytest.mark.parametrize(
    ("size", "ended", "cut"), [(10, True, False), (10, False, True), (TEXT + 1, True, True)]
)
def test_an_excerpt_says_whether_it_is_all(size: int, ended: bool, cut: bool) -> None:
    rig = Rig(stream=False, hold=Hold(bytes=10**6))
    rig.feed(b"x" * size)
    if ended:
        rig.end()
    excerpt = rig.gate.excerpt()
    assert (len(excerpt.data), excerpt.cut, excerpt.length) == (min(size, TEXT), cut, size)

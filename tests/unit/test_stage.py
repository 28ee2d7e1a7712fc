"""Between an answer and its client: waits, pace and ends, by the clock and without a network."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.web.iweb import UNKNOWN_LENGTH

from llmproxyd.faults.choose import Engine
from llmproxyd.faults.rules import Always, At, Breakage, Manner, Rule, Side, Spot
from llmproxyd.faults.stream import Break, Finish, Send, Step, Wait
from llmproxyd.http.body import NO_BODY
from llmproxyd.model import End, Event, Finished, Request, Response
from llmproxyd.pipeline import playback
from llmproxyd.pipeline.live import Live
from llmproxyd.pipeline.policy import Policy, Upstream
from llmproxyd.pipeline.route import Router
from llmproxyd.pipeline.run import Pipeline
from llmproxyd.providers.registry import registry
from llmproxyd.wire.response import DONE, HTTP_1_1, WireResponse
from llmproxyd.wire.wheel import Wheel

PROVIDERS = registry()
OPENAI = Upstream(name="openai", provider=PROVIDERS["openai"], base_url="http://127.0.0.1:1")
CHAT = Request(b"POST", b"/v1/chat/completions", [(b"host", b"localhost")])


class Client:
    """A responder that remembers, and may be slow."""

    chunked = True

    def __init__(self) -> None:
        self.head: Response | None = None
        self.body = b""
        self.end = ""
        self.flushed = 0
        self.producer: Any = None

    def start(self, response: Response) -> None:
        self.head = response

    def inform(self, response: Response) -> None: ...

    def write(self, data: bytes, *, last: bool = False) -> None:
        assert not self.end
        self.body += data

    def flush(self) -> None:
        self.flushed = len(self.body)

    def finish(self) -> None:
        self.end = "finished"

    def cut(self) -> None:
        self.end = "cut"

    def reset(self) -> None:
        self.end = "reset"

    def hang_up(self) -> None:
        self.end = "hung up"

    def feed_from(self, producer: Any) -> None:
        self.producer = producer

    def fed(self) -> None: ...


class Tap:
    """Reads along."""

    def __init__(self) -> None:
        self.heard = b""
        self.ends: list[End] = []

    def piece(self, data: bytes) -> None:
        self.heard += data

    def ended(self, end: End) -> None:
        self.ends.append(end)


class Source:
    """The upstream's connection."""

    def __init__(self) -> None:
        self.paused = False
        self.aborted = False
        self.answer: WireResponse | None = None

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def abort(self) -> None:
        if not self.aborted:
            self.aborted = True
            assert self.answer is not None
            self.answer.end(Failure(ConnectionLost()))


class Sender:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.sent: list[Deferred[WireResponse]] = []

    def send(self, *_: object) -> Deferred[WireResponse]:
        self.sent.append(Deferred())
        return self.sent[-1]


class Rig:
    """One request whose answer is broken."""

    def __init__(
        self,
        kind: Breakage = Breakage.CUT,
        manner: Manner | None = None,
        *,
        fields: tuple[tuple[bytes, bytes], ...] = ((b"content-type", b"text/event-stream"),),
        side: Side = Side.CLIENT,
    ) -> None:
        self.clock = Clock()
        self.events: list[Event] = []
        self.sender = Sender()
        self.source = Source()
        self.client = Client()
        self.engine = Engine(self.clock.seconds, random.Random(1))
        made = Rule(name="mode", kind=kind, when=Always(), side=side, manner=manner or Manner())
        self.engine.set_mode(made)
        self.pipeline = Pipeline(
            policy=Policy(router=Router({"openai": OPENAI}, PROVIDERS, default="openai"), max_body=100),
            sender=self.sender,
            engine=self.engine,
            emit=self.events.append,
            wheel=Wheel(self.clock),
            wall=lambda: 1e9,
            prefix="t",
            live=Live(self.clock.seconds, lambda _: None),
        )
        self.exchange = self.pipeline.forward(CHAT, NO_BODY, self.client)
        self._fields = fields

    def answer(self) -> WireResponse:
        """The upstream begins to answer."""
        made = self.source.answer = WireResponse(HTTP_1_1, 200, b"OK", self._fields, UNKNOWN_LENGTH)
        made.come_from(self.source)
        self.sender.sent[-1].callback(made)
        return made

    def feed(self, *pieces: bytes) -> None:
        assert self.source.answer is not None
        for piece in pieces:
            self.source.answer.receive(piece)

    def end(self) -> None:
        assert self.source.answer is not None
        self.source.answer.completed()
        self.source.answer.end(DONE)

    @property
    def finished(self) -> Finished:
        (event,) = [one for one in self.events if isinstance(one, Finished)]
        return event


class Scripted:
    """A player that says what it is told to."""

    def __init__(self, decide: Callable[[bytes], list[Step]]) -> None:
        self.reached = False
        self._decide = decide

    def feed(self, data: bytes) -> list[Step]:
        steps = self._decide(data)
        self.reached = self.reached or any(not isinstance(step, Send) for step in steps)
        return steps

    def end(self) -> list[Step]:
        return [Finish()]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[bytes], list[Step]]], None]:
    def play(decide: Callable[[bytes], list[Step]]) -> None:
        monkeypatch.setattr(playback, "Player", lambda *_, **__: Scripted(decide))

    return play


Play = Callable[[Callable[[bytes], list[Step]]], None]


def test_waits_hold_the_source_back_and_the_rest_comes_in_order(script: Play) -> None:
    script(lambda data: [Wait(1.0), Send(data)])
    rig = Rig()
    rig.answer()
    rig.feed(b"a")
    assert (rig.client.body, rig.source.paused) == (b"", True)
    rig.feed(b"b", b"c")  # what was on its way
    rig.clock.advance(1.0)
    assert (rig.client.body, rig.source.paused) == (b"a", True)
    rig.clock.pump([1.0, 1.0])
    assert (rig.client.body, rig.source.paused) == (b"abc", False)
    rig.end()
    assert (rig.client.end, rig.finished.end, rig.finished.sent) == ("finished", End.COMPLETE, 3)


def test_the_end_waits_for_what_is_still_to_be_sent(script: Play) -> None:
    script(lambda data: [Wait(5.0), Send(data)])
    rig = Rig()
    rig.answer()
    rig.feed(b"a")
    rig.end()
    assert not rig.exchange.done
    assert rig.client.end == ""
    rig.clock.advance(5.0)
    assert (rig.client.body, rig.client.end) == (b"a", "finished")
    assert rig.finished.end is End.COMPLETE
    assert not rig.clock.getDelayedCalls()


def test_a_silence_begins_with_all_before_it_sent(script: Play) -> None:
    script(lambda data: [Send(data), Wait(None)])
    rig = Rig()
    rig.answer()
    rig.feed(b"a")
    assert rig.client.flushed == 1
    rig.clock.pump([400.0] * 3)
    assert not rig.exchange.done
    rig.pipeline.client_gone(rig.exchange)
    assert rig.source.aborted
    assert rig.finished.end is End.CLIENT_GONE
    rig.clock.advance(1.0)
    assert not rig.clock.getDelayedCalls()


@pytest.mark.parametrize(
    ("step", "ended", "end"),
    [
        (Break(reset=False), "cut", End.TRUNCATED),
        (Break(reset=True), "reset", End.TRUNCATED),
        (Finish(), "finished", End.COMPLETE),
    ],
)
@pytest.mark.parametrize("whole", [False, True])
def test_the_last_step_ends_the_answer_and_the_work(
    script: Play, step: Step, ended: str, end: End, whole: bool
) -> None:
    script(lambda data: [Send(data), Wait(1.0), step])
    rig = Rig()
    tap = Tap()
    rig.exchange.taps = [tap]
    rig.answer()
    rig.feed(b"a")
    if whole:
        rig.end()
    rig.clock.advance(1.0)
    assert (rig.client.body, rig.client.end, rig.finished.end) == (b"a", ended, end)
    assert (tap.heard, tap.ends) == (b"a", [End.COMPLETE if whole else End.TRUNCATED])
    assert rig.source.aborted is not whole
    assert not rig.pipeline.active
    rig.clock.advance(1.0)
    assert not rig.clock.getDelayedCalls()


def test_a_slow_client_holds_the_steps_and_the_source(script: Play) -> None:
    script(lambda data: [Send(data[:1]), Send(data[1:])])
    rig = Rig()
    rig.answer()
    rig.client.producer.pauseProducing()
    assert rig.source.paused
    rig.feed(b"ab")
    assert (rig.client.body, rig.source.paused) == (b"", True)
    rig.client.producer.resumeProducing()
    assert (rig.client.body, rig.source.paused) == (b"ab", False)


def test_a_client_that_is_full_in_the_middle_gets_the_rest_later(script: Play) -> None:
    script(lambda data: [Send(bytes([one])) for one in data] + [Finish()])
    rig = Rig()
    write = rig.client.write

    def full(data: bytes, *, last: bool = False) -> None:
        write(data)
        rig.client.producer.pauseProducing()

    rig.client.write = full  # type: ignore[method-assign]
    rig.answer()
    rig.feed(b"abc")
    for expected in (b"a", b"ab", b"abc"):
        assert (rig.client.body, rig.client.end) == (expected, "")
        rig.client.producer.resumeProducing()
    assert rig.client.end == "finished"


def test_a_player_that_fails_ends_the_request_and_the_work(script: Play) -> None:
    def fail(_: bytes) -> list[Step]:
        raise RuntimeError("no idea")

    script(fail)
    rig = Rig()
    rig.answer()
    logged: list[LogEvent] = []
    globalLogPublisher.addObserver(logged.append)
    try:
        rig.feed(b"a")
    finally:
        globalLogPublisher.removeObserver(logged.append)
    assert any("log_failure" in event for event in logged)
    assert (rig.client.end, rig.finished.code) == ("cut", "internal_error")
    assert rig.source.aborted


def test_a_small_piece_that_inflates_to_much_is_taken_bit_by_bit(script: Play) -> None:
    pieces: list[int] = []

    def hear(data: bytes) -> list[Step]:
        pieces.append(len(data))
        return [Send(data)] if data else []

    script(hear)
    fields = ((b"content-type", b"text/event-stream"), (b"content-encoding", b"gzip"))
    rig = Rig(fields=fields)
    rig.answer()
    packer = zlib.compressobj(9, wbits=31)
    bomb = packer.compress(bytes(64 << 20)) + packer.flush()
    rig.feed(bomb)
    rig.end()
    assert sum(pieces) == 64 << 20
    assert max(pieces) <= 5 << 20
    assert rig.client.end == "finished"


def test_while_the_client_does_not_read_nothing_is_inflated(script: Play) -> None:
    heard: list[bytes] = []

    def hear(data: bytes) -> list[Step]:
        heard.append(data)
        return [Send(data)] if data else []

    script(hear)
    fields = ((b"content-type", b"text/event-stream"), (b"content-encoding", b"gzip"))
    rig = Rig(fields=fields)
    rig.answer()
    rig.client.producer.pauseProducing()
    packer = zlib.compressobj(9, wbits=31)
    rig.feed(packer.compress(bytes(64 << 20)) + packer.flush())
    assert heard == []
    rig.pipeline.client_gone(rig.exchange)


@given(st.lists(st.sampled_from("fwrtge"), max_size=30), st.integers(0, 6))
def test_in_whatever_order_things_happen_it_ends_once(moves: str, spot: int) -> None:
    """f: a piece, w: time, r: the client reads or not, t: truth ends, g: the client leaves, e: cut all."""
    kinds = [Breakage.CUT, Breakage.STALL, Breakage.TRUNCATE, Breakage.SLOW, Breakage.DUPLICATE]
    kind = kinds[spot % len(kinds)]
    rig = Rig(kind, Manner(at=At(Spot.EVENTS, 1), silence=0.5, per_event=0.3))
    rig.answer()
    event = b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'
    reading = True
    over = False
    for move in moves:
        if move == "f" and not over and not rig.source.aborted:
            rig.feed(event)
        elif move == "w":
            rig.clock.advance(0.4)
        elif move == "r" and rig.client.producer is not None and not rig.exchange.done:
            reading = not reading
            if reading:
                rig.client.producer.resumeProducing()
            else:
                rig.client.producer.pauseProducing()
        elif move == "t" and not over and not rig.source.aborted:
            over = True
            rig.end()
        elif move == "g" and not rig.exchange.done:
            rig.pipeline.client_gone(rig.exchange)
        elif move == "e":
            rig.pipeline.cut_all()
    if not rig.exchange.done:
        rig.pipeline.cut_all()
    assert rig.exchange.done
    assert not rig.pipeline.active
    assert rig.finished.fault == kind
    assert over or rig.source.aborted
    rig.clock.pump([1.0] * 3)
    assert not rig.clock.getDelayedCalls()
    tally = rig.engine.tally()
    assert tally.injected == (0 if rig.finished.unreached else 1)


@pytest.mark.parametrize("kind", [Breakage.NEVER, Breakage.DELAY])
def test_an_upstream_that_never_answers_is_given_up_in_time(kind: Breakage) -> None:
    rig = Rig(kind, side=Side.UPSTREAM)
    rig.clock.pump([OPENAI.timeouts.headers, 1.0])
    assert (rig.finished.status, rig.finished.code, rig.finished.failed) == (504, "headers_timeout", True)
    assert not rig.sender.sent
    rig.clock.advance(1.0)
    assert not rig.clock.getDelayedCalls()


def test_an_upstream_that_is_late_is_asked_late() -> None:
    rig = Rig(Breakage.DELAY, Manner(silence=3.0), side=Side.UPSTREAM)
    rig.clock.advance(2.9)
    assert not rig.sender.sent
    rig.clock.advance(0.2)
    rig.answer()
    rig.feed(b"data: x\n\n")
    rig.end()
    assert (rig.client.body, rig.finished.end) == (b"data: x\n\n", End.COMPLETE)
    rig.clock.advance(1.0)
    assert not rig.clock.getDelayedCalls()

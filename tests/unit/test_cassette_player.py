"""Answers from recordings, at the pace of the recording and of whoever reads them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from test_cassette_format import ANSWERED, ASKED, EXCHANGE
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.iweb import UNKNOWN_LENGTH

from llmproxyd.cassettes.format import Answered, Piece
from llmproxyd.cassettes.matching import Ignored, Library, Recorded
from llmproxyd.errors import ClientGone, Refused, Retryable
from llmproxyd.pipeline.player import Player
from llmproxyd.pipeline.policy import Upstream
from llmproxyd.pipeline.upstream import Outgoing
from llmproxyd.providers.registry import registry
from llmproxyd.resilience.timeouts import Timeouts
from llmproxyd.wire.body import BodyTooLarge, BytesBody
from llmproxyd.wire.headers import WireHeaders
from llmproxyd.wire.response import DONE, WireResponse
from llmproxyd.wire.wheel import Wheel

UPSTREAM = Upstream(name="openai", provider=registry()["openai"], base_url="http://a.example/base")
GOING = Outgoing(
    UPSTREAM, b"POST", b"http://a.example/base" + ASKED.target.encode(), WireHeaders(list(ASKED.fields))
)
BODY = BytesBody(ASKED.body)
PIECES = (Piece(0.5, b"one"), Piece(1.0, b"two"), Piece(3.0, b"three"))
TIMED = replace(ANSWERED, after=2.0, pieces=PIECES, ended=4.0)


@dataclass
class Reader:
    """Takes a body; what it does with the transport is the test's."""

    clock: Clock
    came: list[tuple[float, bytes]] = field(default_factory=list)
    reason: Failure | None = None
    complete: list[bool] = field(default_factory=list)
    transport: Any = None

    def makeConnection(self, transport: Any) -> None:
        self.transport = transport

    def dataReceived(self, data: bytes) -> None:
        self.came.append((self.clock.seconds(), data))
        self.complete.append(self.transport.complete)

    def connectionLost(self, reason: Failure) -> None:
        assert self.reason is None
        self.reason = reason


@dataclass
class Elsewhere:
    """Another sender."""

    sent: list[tuple[Outgoing, Any]] = field(default_factory=list)
    result: Deferred[WireResponse] = field(default_factory=Deferred)

    def send(self, going: Outgoing, body: Any, interim: Any = None) -> Deferred[WireResponse]:
        self.sent.append((going, body))
        return self.result


class Bench:
    def __init__(self, *answers: Answered, speed: float = 1.0, otherwise: Any = None) -> None:
        self.clock = Clock()
        recordings = [
            Recorded(f"{number}.yaml", replace(EXCHANGE, answered=one)) for number, one in enumerate(answers)
        ]
        self.player = Player(Library(recordings, Ignored()), Wheel(self.clock), speed, otherwise)
        self.got: list[Any] = []
        self.reader = Reader(self.clock)

    def ask(self, going: Outgoing = GOING, body: Any = BODY, *, read: bool = True) -> Deferred[Any]:
        sending = self.player.send(going, body)

        def answered(response: WireResponse) -> None:
            self.got.append(response)
            if read:
                response.deliverBody(self.reader)  # type: ignore[arg-type]

        sending.addCallbacks(answered, lambda failure: self.got.append(failure.value))
        return sending

    def pass_(self, seconds: float, step: float = 0.125) -> None:
        self.clock.pump([step] * int(seconds / step))


def test_head_and_pieces_come_when_they_came() -> None:
    bench = Bench(TIMED)
    bench.ask()
    bench.pass_(1.875)
    assert bench.got == []
    bench.pass_(0.125)
    (response,) = bench.got
    assert (response.code, response.phrase, response.version) == (200, b"OK", (b"HTTP", 1, 1))
    assert response.raw == ANSWERED.fields
    assert response.length is UNKNOWN_LENGTH
    bench.pass_(10)
    assert bench.reader.came == [(2.5, b"one"), (3.0, b"two"), (5.0, b"three")]
    assert bench.reader.reason is DONE
    assert bench.clock.getDelayedCalls() == []


def test_twice_the_speed_is_half_the_time() -> None:
    bench = Bench(TIMED, speed=2)
    bench.ask()
    bench.pass_(10)
    assert bench.reader.came == [(1.25, b"one"), (1.5, b"two"), (2.5, b"three")]


def test_without_waits_pieces_stay_pieces() -> None:
    bench = Bench(TIMED, speed=0)
    bench.ask()
    for _ in range(6):
        bench.clock.advance(0)
    assert bench.reader.came == [(0, b"one"), (0, b"two"), (0, b"three")]
    assert bench.reader.reason is DONE


def test_an_end_with_the_last_piece_is_known_with_it() -> None:
    bench = Bench(replace(TIMED, ended=3.0))
    bench.ask()
    bench.pass_(10)
    assert bench.reader.complete == [False, False, True]
    other = Bench(TIMED)
    other.ask()
    other.pass_(10)
    assert other.reader.complete == [False, False, False]
    assert other.got[0].complete


def test_what_came_with_the_head_comes_with_it() -> None:
    whole = replace(TIMED, pieces=(Piece(0, b"all "), Piece(0, b"of it")), ended=0.0)
    bench = Bench(whole)
    bench.ask(read=False)
    bench.pass_(2)
    assert bench.got[0].whole == b"all of it"
    part = replace(TIMED, pieces=(Piece(0, b"some"), Piece(1, b"more")), ended=1.0)
    bench = Bench(part)
    bench.ask()
    bench.clock.advance(2)
    assert bench.reader.came == [(2, b"some")]


def test_an_answer_that_broke_off_breaks_off() -> None:
    bench = Bench(replace(TIMED, whole=False))
    bench.ask()
    bench.pass_(10)
    assert len(bench.reader.came) == 3
    assert bench.reader.reason is not None
    assert bench.reader.reason is not DONE
    assert not bench.got[0].complete


def test_a_body_that_is_asked_for_late_comes_late() -> None:
    bench = Bench(TIMED)
    bench.ask(read=False)
    bench.pass_(60)
    bench.got[0].deliverBody(bench.reader)
    assert bench.reader.came == []
    bench.pass_(1)
    assert bench.reader.came == [(60.125, b"one"), (60.125, b"two"), (60.125, b"three")]
    assert bench.reader.reason is DONE


def test_a_body_that_nobody_asks_for_waits_without_a_timer() -> None:
    bench = Bench(TIMED)
    bench.ask(read=False)
    bench.pass_(60)
    assert bench.clock.getDelayedCalls() == []


def test_a_reader_that_pauses_gets_nothing_until_it_goes_on() -> None:
    bench = Bench(TIMED)
    bench.ask()
    bench.pass_(2.625)
    bench.reader.transport.pauseProducing()
    bench.pass_(0.875)
    assert len(bench.reader.came) == 1
    assert bench.clock.getDelayedCalls() == []
    bench.reader.transport.resumeProducing()
    bench.reader.transport.resumeProducing()
    bench.pass_(10)
    assert bench.reader.came == [(2.5, b"one"), (3.625, b"two"), (5.0, b"three")]


def test_a_reader_that_pauses_within_a_piece_gets_no_other() -> None:
    bench = Bench(TIMED, speed=0)
    taken = bench.reader.dataReceived

    def pausing(data: bytes) -> None:
        taken(data)
        bench.reader.transport.pauseProducing()

    bench.reader.dataReceived = pausing  # type: ignore[method-assign]
    bench.ask()
    for _ in range(9):
        bench.clock.advance(0)
    assert len(bench.reader.came) == 1


@pytest.mark.parametrize("at", [2.0, 2.625, 5.5])
def test_who_breaks_off_gets_nothing_more(at: float) -> None:
    bench = Bench(TIMED)
    bench.ask()
    bench.pass_(at)
    before = list(bench.reader.came)
    bench.reader.transport.abortConnection()
    assert bench.reader.reason is None
    bench.reader.transport.abortConnection()
    bench.pass_(10)
    assert bench.reader.came == before
    assert bench.reader.reason is not None
    assert bench.reader.reason is not DONE
    assert bench.clock.getDelayedCalls() == []


def test_who_breaks_off_a_whole_answer_does_no_harm() -> None:
    bench = Bench(TIMED)
    bench.ask()
    bench.pass_(10)
    bench.got[0].abortConnection()
    assert bench.reader.reason is DONE


def test_a_client_that_leaves_before_the_head_ends_it() -> None:
    bench = Bench(TIMED)
    sending = bench.ask()
    bench.pass_(1)
    sending.cancel()
    assert isinstance(bench.got[0], ClientGone)
    assert bench.clock.getDelayedCalls() == []


def test_a_head_that_comes_too_late_is_a_timeout() -> None:
    bench = Bench(TIMED)
    slow = replace_upstream(Timeouts(headers=1.5))
    bench.ask(GOING._replace(upstream=slow))
    bench.pass_(1.5)
    assert isinstance(bench.got[0], Retryable)
    assert (bench.got[0].status, bench.got[0].code) == (504, "headers_timeout")


def replace_upstream(timeouts: Timeouts) -> Upstream:
    return Upstream(name="openai", provider=UPSTREAM.provider, base_url=UPSTREAM.base_url, timeouts=timeouts)


@pytest.mark.parametrize(
    ("answered", "method", "length"),
    [
        (replace(ANSWERED, fields=((b"Content-Length", b"10"),), pieces=(Piece(1, b"x" * 10),)), "POST", 10),
        (replace(ANSWERED, fields=((b"Content-Length", b"10"),), pieces=()), "HEAD", 0),
        (replace(ANSWERED, status=204, fields=(), pieces=()), "POST", 0),
        (replace(ANSWERED, fields=((b"Transfer-Encoding", b"chunked"),)), "POST", UNKNOWN_LENGTH),
    ],
    ids=["length", "head", "204", "chunked"],
)
def test_the_length_is_what_the_fields_say(answered: Answered, method: str, length: object) -> None:
    clock = Clock()
    exchange = replace(EXCHANGE, asked=replace(ASKED, method=method), answered=answered)
    player = Player(Library([Recorded("x", exchange)], Ignored()), Wheel(clock), 0)
    got: list[WireResponse] = []
    player.send(GOING._replace(method=method.encode()), BODY).addCallback(got.append)
    clock.advance(0)
    assert got[0].length == length


# The request's body.


@dataclass
class Flow:
    """A body that comes in pieces."""

    length: Any = UNKNOWN_LENGTH
    stopped: bool = False
    done: Deferred[None] = field(default_factory=Deferred)
    consumer: Any = None

    def startProducing(self, consumer: Any) -> Deferred[None]:
        self.consumer = consumer
        return self.done

    def stopProducing(self) -> None:
        self.stopped = True


def test_a_body_that_flows_is_taken_whole_before_it_is_looked_for() -> None:
    bench, flow = Bench(TIMED), Flow()
    bench.ask(body=flow)
    flow.consumer.write(ASKED.body[:7])
    bench.pass_(10)
    assert bench.got == []
    flow.consumer.write(ASKED.body[7:])
    flow.done.callback(None)
    bench.pass_(2)
    assert bench.got[0].code == 200


def test_a_body_that_fails_is_told_as_what_it_is() -> None:
    bench, flow = Bench(TIMED), Flow()
    bench.ask(body=flow)
    flow.done.errback(BodyTooLarge(7))
    assert isinstance(bench.got[0], Refused)
    assert bench.got[0].code == "body_too_large"


def test_a_client_that_leaves_within_its_body_ends_it() -> None:
    bench, flow = Bench(TIMED), Flow()
    sending = bench.ask(body=flow)
    sending.cancel()
    assert flow.stopped
    assert isinstance(bench.got[0], ClientGone)
    flow.done.errback(CancelledError())
    assert len(bench.got) == 1


def test_a_body_beyond_the_bound_is_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmproxyd.pipeline.player.MAX_BODY", 8)
    bench, flow = Bench(TIMED), Flow()
    bench.ask(body=flow)
    for _ in range(3):
        flow.consumer.write(b"12345")
    flow.done.callback(None)
    assert bench.got[0].code == "no_recording"


# Misses.


def test_a_request_without_a_recording_is_refused_with_the_nearest() -> None:
    bench = Bench(TIMED)
    bench.ask(body=BytesBody(b'{"model":"gpt-4","messages":[]}'))
    error = bench.got[0]
    assert isinstance(error, Refused)
    assert (error.status, error.code) == (404, "no_recording")
    assert error.message.startswith("No recording answers this request (openai, POST /v1/chat/completions). ")
    assert (
        "0.yaml, differs in model (gpt-4, recorded: gpt-4o), messages (0 items, recorded: 1)" in error.message
    )
    assert bench.player.state() == {"recordings": 1, "played": 0, "missed": 1}


def test_what_the_base_url_adds_does_not_matter() -> None:
    bench = Bench(TIMED)
    elsewhere = Upstream(name="other", provider=UPSTREAM.provider, base_url="https://b.example")
    bench.ask(GOING._replace(upstream=elsewhere, url=b"https://b.example" + ASKED.target.encode()))
    bench.pass_(2)
    assert bench.got[0].code == 200


def test_a_miss_may_be_forwarded_with_its_body() -> None:
    elsewhere = Elsewhere()
    bench = Bench(TIMED, otherwise=elsewhere)
    flow = Flow()
    bench.ask(body=flow)
    flow.consumer.write(b"some")
    flow.consumer.write(b"thing")
    flow.done.callback(None)
    ((going, body),) = elsewhere.sent
    assert going is GOING
    assert (body.data, body.length) == (b"something", UNKNOWN_LENGTH)
    response = WireResponse((b"HTTP", 1, 1), 201, b"Created", (), 0)
    response.came_whole(b"")
    elsewhere.result.callback(response)
    assert bench.got == [response]


def test_a_forwarded_miss_is_ended_by_its_client() -> None:
    cancelled: list[Deferred[Any]] = []
    elsewhere = Elsewhere(result=Deferred(cancelled.append))
    bench = Bench(TIMED, otherwise=elsewhere)
    sending = bench.ask(body=None)
    assert elsewhere.sent == [(GOING, None)]
    sending.cancel()
    assert len(cancelled) == 1
    assert len(bench.got) == 1


def test_a_forwarded_miss_that_fails_fails() -> None:
    elsewhere = Elsewhere()
    bench = Bench(TIMED, otherwise=elsewhere)
    bench.ask(body=None)
    error = Retryable(502, "upstream_unreachable", "x")
    elsewhere.result.errback(error)
    assert bench.got == [error]


def test_two_clients_at_once_each_have_their_own() -> None:
    bench = Bench(TIMED)
    readers = [Reader(bench.clock), Reader(bench.clock)]
    for reader in readers:
        bench.player.send(GOING, BODY).addCallback(
            lambda response, reader=reader: response.deliverBody(reader)
        )
        bench.pass_(1)
    bench.pass_(10)
    assert (
        [data for _, data in readers[0].came]
        == [data for _, data in readers[1].came]
        == [b"one", b"two", b"three"]
    )
    assert readers[0].reason is readers[1].reason is DONE

"""A sender that records is, to both sides, the sender that it stands before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from test_cassette_player import GOING, Elsewhere, Flow, Reader
from test_cassette_tape import Work
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.iweb import UNKNOWN_LENGTH

from llmproxyd.cassettes.folder import Folder, load
from llmproxyd.cassettes.format import Exchange
from llmproxyd.cassettes.hiding import Hidden
from llmproxyd.errors import ClientGone
from llmproxyd.pipeline.recorder import Recorder
from llmproxyd.pipeline.tape import Tape
from llmproxyd.wire.body import BytesBody
from llmproxyd.wire.response import DONE, WireResponse
from llmproxyd.wire.wheel import Wheel


@dataclass
class Connection:
    """Where an answer comes from."""

    done: list[str] = field(default_factory=list)

    def pause(self) -> None:
        self.done.append("pause")

    def resume(self) -> None:
        self.done.append("resume")

    def abort(self) -> None:
        self.done.append("abort")


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock, self.work, self.inner = Clock(), Work(), Elsewhere()
        wheel = Wheel(self.clock)
        self.tape = Tape(self.work, Hidden(()), wheel, max_files=9, max_body=1000)
        self.tape.open(Folder(folder))
        self.recorder = Recorder(self.inner, self.tape, wheel, lambda: 1e9)
        self.reader, self.connection = Reader(self.clock), Connection()
        self.got: list[Any] = []

    def ask(self, body: Any = None, *, read: bool = True) -> Deferred[Any]:
        sending = self.recorder.send(GOING, body)

        def answered(response: WireResponse) -> None:
            self.got.append(response)
            if read:
                response.deliverBody(self.reader)  # type: ignore[arg-type]

        sending.addCallbacks(answered, lambda failure: self.got.append(failure.value))
        return sending

    def answer(self, began: bytes = b"") -> WireResponse:
        """The head of an answer, as a connection gives it."""
        response = WireResponse((b"HTTP", 1, 1), 200, b"OK", [(b"A", b"b")], UNKNOWN_LENGTH)
        if began:
            response.receive(began)
        response.come_from(self.connection)
        self.inner.result.callback(response)
        response.hold()
        return response

    def recorded(self) -> Exchange:
        self.work.go_on()
        (one,) = load(self.folder)
        return one.exchange


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_an_answer_passes_as_it_comes_and_is_kept_with_its_times(bench: Bench) -> None:
    bench.ask(BytesBody(b"{}"))
    bench.clock.advance(2)
    response = bench.answer(b"zero")
    for number, piece in enumerate((b"one", b"two"), 1):
        bench.clock.advance(number)
        response.receive(piece)
    bench.clock.advance(4)
    response.completed()
    response.end(DONE)
    assert bench.reader.came == [(2, b"zero"), (3, b"one"), (5, b"two")]
    assert bench.reader.complete == [False, False, False]
    assert bench.reader.reason is DONE
    exchange = bench.recorded()
    answered = exchange.answered
    assert [(piece.after, piece.data) for piece in answered.pieces] == [
        (0, b"zero"),
        (1, b"one"),
        (3, b"two"),
    ]
    assert (answered.after, answered.ended, answered.whole) == (2, 7, True)
    assert (exchange.recorded, exchange.asked.body) == (1e9, b"{}")


def test_the_last_piece_is_known_to_be_the_last(bench: Bench) -> None:
    bench.ask()
    response = bench.answer(b"x")
    bench.clock.advance(1)
    response.completed()
    response.receive(b"y")
    response.end(DONE)
    assert bench.reader.complete == [False, True]
    assert bench.recorded().answered.ended == 1


def test_an_answer_that_is_whole_at_once_is_handed_on_so(bench: Bench) -> None:
    bench.ask(read=False)
    response = WireResponse((b"HTTP", 1, 1), 200, b"OK", [], 3)
    response.came_whole(b"all")
    bench.inner.result.callback(response)
    assert bench.got[0].whole == b"all"
    assert bench.recorded().answered.body == b"all"


def test_nothing_comes_before_the_body_is_asked_for(bench: Bench) -> None:
    bench.ask(read=False)
    response = bench.answer(b"began")
    assert bench.connection.done == ["pause"]
    bench.got[0].deliverBody(bench.reader)
    assert bench.connection.done == ["pause", "resume"]
    assert bench.reader.came == [(0, b"began")]
    response.receive(b"more")
    assert bench.reader.came[1:] == [(0, b"more")]


def test_the_pace_of_the_reader_reaches_the_connection(bench: Bench) -> None:
    bench.ask()
    bench.answer()
    bench.reader.transport.pauseProducing()
    bench.reader.transport.resumeProducing()
    bench.reader.transport.abortConnection()
    assert bench.connection.done == ["pause", "resume", "abort"]


def test_an_answer_that_breaks_off_breaks_off_and_is_kept(bench: Bench) -> None:
    bench.ask()
    response = bench.answer(b"half")
    reason = Failure(ConnectionLost())
    response.end(reason)
    assert bench.reader.reason is reason
    answered = bench.recorded().answered
    assert (answered.whole, answered.body) == (False, b"half")


def test_who_cancels_is_told_what_the_sender_says(bench: Bench) -> None:
    bench.inner.result = Deferred(lambda result: result.errback(ClientGone()))
    sending = bench.ask()
    sending.cancel()
    assert isinstance(bench.got[0], ClientGone)
    assert bench.tape.state() == {"recorded": 0, "left_out": 0, "failed": 0, "waiting": 0}


def flowing(bench: Bench) -> tuple[Flow, Callable[[], Any]]:
    flow = Flow(length=6)
    bench.ask(flow)
    _, handed = bench.inner.sent[0]
    assert handed.length == 6
    taken: list[bytes] = []

    class Consumer:
        write = staticmethod(taken.append)

    done = handed.startProducing(Consumer())
    flow.consumer.write(b"abc")
    assert taken == [b"abc"]
    flow.consumer.write(b"def")
    done.addErrback(lambda failure: failure.trap(CancelledError))
    return flow, handed.stopProducing


def test_a_body_that_flows_is_kept_whole(bench: Bench) -> None:
    flow, _ = flowing(bench)
    flow.done.callback(None)
    response = bench.answer(b"x")
    response.completed()
    response.end(DONE)
    assert bench.recorded().asked.body == b"abcdef"


def test_an_answer_before_the_end_of_its_request_is_not_kept(bench: Bench) -> None:
    flow, stop = flowing(bench)
    response = bench.answer(b"x")
    response.completed()
    response.end(DONE)
    stop()
    assert flow.stopped
    assert bench.reader.reason is DONE
    assert bench.tape.state()["left_out"] == 1

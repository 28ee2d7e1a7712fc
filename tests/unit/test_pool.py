"""Who gets which connection, and when there is none: the pool on a clock, without a network."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed

from llmproxyd.testing.upstream import answer, head
from llmproxyd.wire import pool as pool_module
from llmproxyd.wire.call import Call
from llmproxyd.wire.connection import Stale
from llmproxyd.wire.pool import Limits, Pool, PoolTimeout
from llmproxyd.wire.wheel import Wheel

OK = answer(b"{}")
TICK = 0.1


class FakeTransport:
    """A connection's end without a network.

    :ivar written: what was sent.
    :ivar closed: ``""``, ``"closed"`` or ``"aborted"``.
    """

    protocol: Any = None

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = ""
        self.sent = 0
        self.takes = True
        self.stirs = False
        self.paused = False

    def write(self, data: bytes) -> None:
        self.written.append(data)
        if self.takes:
            self.sent += len(data)

    def loseConnection(self) -> None:
        self.closed = self.closed or "closed"

    def abortConnection(self) -> None:
        self.closed = "aborted"

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False

    def receive(self, data: bytes) -> None:
        self.protocol.dataReceived(data)

    def lose(self, reason: Exception | None = None) -> None:
        self.protocol.connectionLost(Failure(reason or ConnectionDone()))


class FakeAttempt:
    def __init__(self, opened: Any) -> None:
        self.opened = opened
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    def come(self) -> FakeTransport:
        made = FakeTransport()
        self.opened.connected(made)
        return made


class FakeRoute:
    """Counts who wants to connect."""

    def __init__(self) -> None:
        self.attempts: list[FakeAttempt] = []
        self.remembered: list[Any] = []

    def connect(self, opened: Any) -> FakeAttempt:
        made = FakeAttempt(opened)
        self.attempts.append(made)
        return made

    def remember(self, transport: Any) -> None:
        self.remembered.append(transport)


class Rig:
    def __init__(self, **limits: Any) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.wheel = Wheel(self.clock, TICK)
        self.route: Any = FakeRoute()
        self.pool = Pool(self.route, self.wheel, Limits(**{"connect_timeout": 5.0, **limits}))

    def send(self, name: bytes = b"call", **more: Any) -> Deferred[Any]:
        options: dict[str, Any] = {"idempotent": False, "close": False, "body": None, **more}
        call = Call(name, options["body"], False, options["idempotent"], options["close"], None)
        answered = call.answered
        assert answered is not None
        self.pool.send(call)
        return answered

    def connect(self, at: int = -1) -> FakeTransport:
        return self.route.attempts[at].come()

    def kept(self) -> FakeTransport:
        """A connection that has answered once."""
        answered = self.send()
        transport = self.connect()
        transport.receive(OK)
        assert result(answered).code == 200
        return transport

    def pass_by(self, seconds: float) -> None:
        self.clock.pump([TICK / 2] * round(seconds / TICK * 2))


@pytest.fixture(autouse=True)
def _stirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "stirs", lambda transport: transport.stirs)


def result(deferred: Deferred[Any]) -> Any:
    got: list[Any] = []
    deferred.addBoth(got.append)
    assert got, "it has not fired"
    return got[0]


def fired(deferred: Deferred[Any]) -> bool:
    return bool(deferred.called)


def error(deferred: Deferred[Any]) -> Any:
    return result(deferred).value


# Keeping.


def test_a_connection_is_used_again() -> None:
    rig = Rig()
    transport = rig.kept()
    answered = rig.send(b"second")
    assert transport.written == [b"call", b"second"]
    transport.receive(OK)
    assert result(answered).complete
    assert (len(rig.route.attempts), rig.pool.open, rig.pool.idle) == (1, 1, 1)


def test_it_is_free_before_the_answer_is_told() -> None:
    """Who asks again in the answer's callback gets the same one."""
    rig = Rig()
    answered = rig.send()
    answered.addCallback(lambda _: rig.send(b"second"))
    rig.connect().receive(OK)
    assert len(rig.route.attempts) == 1


def test_the_last_used_is_taken_first() -> None:
    rig = Rig()
    for _ in range(3):
        rig.send()
    transports = [rig.connect(at) for at in range(3)]
    for at in (1, 0, 2):
        transports[at].receive(OK)
    assert rig.pool.idle == 3
    for _ in range(2):
        rig.send(b"again")
    assert [one.written[-1] for one in transports] == [b"again", b"call", b"again"]


@pytest.mark.parametrize(
    "answered", [answer(b"{}", b"Connection: close"), OK + b"x", head(version=b"HTTP/1.0")]
)
def test_not_every_connection_is_kept(answered: bytes) -> None:
    rig = Rig()
    got = rig.send()
    transport = rig.connect()
    transport.receive(answered)
    transport.lose()
    assert result(got).code == 200
    assert (rig.pool.idle, rig.pool.open) == (0, 0)


def test_a_request_that_asks_to_close() -> None:
    rig = Rig()
    rig.send(close=True)
    transport = rig.connect()
    transport.receive(OK)
    assert transport.closed == "closed"
    assert rig.pool.idle == 0


def test_no_more_than_max_idle_are_kept() -> None:
    rig = Rig(max_idle=2)
    for _ in range(3):
        rig.send()
    transports = [rig.connect(at) for at in range(3)]
    for one in transports:
        one.receive(OK)
    assert rig.pool.idle == 2
    assert [one.closed for one in transports] == ["closed", "", ""]


def test_none_are_kept() -> None:
    rig = Rig(max_idle=0)
    assert rig.kept().closed == "closed"
    assert rig.pool.idle == 0


def test_kept_for_a_while() -> None:
    rig = Rig(idle=2.0)
    transport = rig.kept()
    rig.pass_by(1.9)
    assert not transport.closed
    rig.pass_by(0.4)
    assert transport.closed == "closed"
    transport.lose()
    assert (rig.pool.open, rig.wheel.waiting) == (0, 0)


def test_each_use_begins_the_while_anew() -> None:
    rig = Rig(idle=2.0)
    transport = rig.kept()
    for _ in range(5):
        rig.pass_by(1.5)
        rig.send()
        transport.receive(OK)
    assert not transport.closed
    assert rig.wheel.waiting == 1


def test_a_long_answer_is_not_idle() -> None:
    rig = Rig(idle=2.0)
    transport = rig.kept()
    answered = rig.send()
    rig.pass_by(10)
    assert not transport.closed
    transport.receive(OK)
    assert result(answered).code == 200
    rig.pass_by(1.9)
    assert not transport.closed
    rig.pass_by(0.4)
    assert transport.closed == "closed"


def test_bytes_on_an_idle_connection_end_it() -> None:
    rig = Rig()
    transport = rig.kept()
    transport.receive(b"HTTP/1.1 408 Timeout\r\n\r\n")
    assert transport.closed == "aborted"
    transport.lose()
    assert (rig.pool.idle, rig.pool.open, rig.wheel.waiting) == (0, 0, 0)


def test_an_old_one_that_stirs_is_not_used() -> None:
    rig = Rig()
    transport = rig.kept()
    transport.stirs = True
    rig.pass_by(1.2)
    rig.send()
    assert transport.closed == "aborted"
    assert len(rig.route.attempts) == 2
    rig.connect()
    transport.lose()
    assert rig.pool.open == 1


def test_a_young_one_is_believed() -> None:
    rig = Rig()
    transport = rig.kept()
    transport.stirs = True
    rig.pass_by(0.8)
    rig.send(b"second")
    assert transport.written[-1] == b"second"


def test_sessions_are_remembered_after_the_first_answer() -> None:
    rig = Rig()
    transport = rig.kept()
    rig.send()
    transport.receive(OK)
    assert rig.route.remembered == [transport]


# Waiting.


def test_waiting_for_a_free_one() -> None:
    rig = Rig(max_connections=1)
    first, second, third = rig.send(b"1"), rig.send(b"2"), None
    assert (len(rig.route.attempts), rig.pool.waiting) == (1, 1)
    transport = rig.connect()
    transport.receive(OK)
    third = rig.send(b"3")
    assert transport.written == [b"1", b"2"]
    transport.receive(OK)
    transport.receive(OK)
    assert transport.written == [b"1", b"2", b"3"]
    assert [result(one).code for one in (first, second, third) if one] == [200] * 3
    assert rig.pool.waiting == 0


def test_waiting_for_a_place() -> None:
    rig = Rig(max_connections=1)
    rig.send(b"1", close=True)
    second = rig.send(b"2")
    transport = rig.connect()
    transport.receive(OK)
    assert len(rig.route.attempts) == 1
    transport.lose()
    rig.connect().receive(OK)
    assert result(second).code == 200
    assert rig.pool.open == 1


def test_a_place_that_is_free_because_nobody_came() -> None:
    rig = Rig(max_connections=1)
    first, second = rig.send(), rig.send()
    rig.route.attempts[0].opened.failed(Failure(ConnectionRefusedError()))
    assert isinstance(error(first), ConnectionRefusedError)
    rig.connect().receive(OK)
    assert result(second).code == 200


def test_the_wait_has_an_end() -> None:
    rig = Rig(max_connections=1, connect_timeout=2.0)
    rig.send()
    second = rig.send()
    rig.pass_by(1.9)
    assert not fired(second)
    rig.pass_by(0.4)
    failed = error(second)
    assert isinstance(failed, PoolTimeout)
    assert (failed.granted, failed.limit) == (2.0, 1)
    assert (rig.pool.waiting, rig.wheel.waiting) == (0, 0)


def test_the_queue_has_an_end() -> None:
    rig = Rig(max_connections=2)
    calls = [rig.send() for _ in range(5)]
    assert [fired(one) for one in calls] == [False, False, False, False, True]
    assert isinstance(error(calls[4]), PoolTimeout)
    assert rig.pool.waiting == 2


# Cancelling.


def test_cancelled_while_connecting() -> None:
    rig = Rig(max_connections=1)
    first, second = rig.send(b"1"), rig.send(b"2")
    first.cancel()
    assert isinstance(error(first), CancelledError)
    assert rig.route.attempts[0].cancelled
    assert rig.connect().written == [b"2"]
    assert rig.pool.open == 1
    assert not fired(second)


def test_cancelled_while_waiting() -> None:
    rig = Rig(max_connections=2)
    rig.send(b"0")
    rig.send(b"1")
    second, third = rig.send(b"2"), rig.send(b"3")
    second.cancel()
    assert isinstance(error(second), CancelledError)
    assert rig.pool.waiting == 1
    transport = rig.connect()
    transport.receive(OK)
    assert transport.written == [b"1", b"3"]
    assert not fired(third)


@pytest.mark.parametrize("come", [b"", b"HTTP/1.1 2"])
def test_cancelled_while_asked(come: bytes) -> None:
    rig = Rig()
    answered = rig.send()
    transport = rig.connect()
    if come:
        transport.receive(come)
    answered.cancel()
    assert isinstance(error(answered), CancelledError)
    assert transport.closed == "aborted"
    transport.lose()
    assert rig.pool.open == 0


# Stale connections.


def stale(rig: Rig, **more: Any) -> tuple[Deferred[Any], FakeTransport]:
    """A call on a kept connection that is then closed without an answer."""
    transport = rig.kept()
    transport.takes = more.pop("takes", True)
    answered = rig.send(b"again", **more)
    assert transport.written[-1] == b"again"
    transport.lose()
    return answered, transport


def test_what_is_idempotent_is_sent_again() -> None:
    rig = Rig()
    answered, _ = stale(rig, idempotent=True)
    second = rig.connect()
    assert second.written == [b"again"]
    second.receive(OK)
    assert result(answered).code == 200
    assert rig.pool.open == 1


def test_what_is_not_idempotent_is_not() -> None:
    rig = Rig()
    answered, _ = stale(rig)
    assert isinstance(error(answered), Stale)
    assert len(rig.route.attempts) == 1


def test_what_the_system_never_took_is_sent_again() -> None:
    rig = Rig()
    answered, _ = stale(rig, takes=False)
    rig.connect().receive(OK)
    assert result(answered).code == 200


def test_on_a_new_connection_only() -> None:
    """Another kept one may be as old."""
    rig = Rig()
    rig.send()
    rig.send()
    kept = [rig.connect(at) for at in range(2)]
    for one in kept:
        one.receive(OK)
    rig.send(b"again", idempotent=True)
    kept[1].lose()
    assert len(rig.route.attempts) == 3
    assert kept[0].written == [b"call"]


def test_once_only() -> None:
    rig = Rig()
    answered, _ = stale(rig, idempotent=True)
    rig.connect().lose()
    assert isinstance(error(answered), ConnectionDone)
    assert len(rig.route.attempts) == 2


def test_once_only_even_on_another_kept_one() -> None:
    """Where there is no room for a new one, the call waits for the next that is free."""
    rig = Rig(max_connections=2)
    rig.send()
    rig.send()
    kept = [rig.connect(at) for at in range(2)]
    kept[0].receive(OK)
    answered = rig.send(b"again", idempotent=True)
    rig.pool.open += 1  # as if another were being made
    kept[0].lose()
    assert rig.pool.waiting == 1
    kept[1].receive(OK)
    assert kept[1].written[-1] == b"again"
    kept[1].lose()
    assert isinstance(error(answered), Stale)


@pytest.mark.parametrize("come", [b"H", head(status=b"100 Continue"), head(status=b"103 E")])
def test_never_after_a_byte_of_an_answer(come: bytes) -> None:
    rig = Rig()
    transport = rig.kept()
    answered = rig.send(idempotent=True)
    transport.receive(come)
    transport.lose()
    assert result(answered).value is not None
    assert len(rig.route.attempts) == 1


def test_never_on_a_new_connection() -> None:
    rig = Rig()
    answered = rig.send(idempotent=True)
    rig.connect().lose()
    assert isinstance(error(answered), ConnectionDone)
    assert len(rig.route.attempts) == 1


def test_never_after_a_byte_of_the_body() -> None:
    rig = Rig()
    transport = rig.kept()
    answered = rig.send(idempotent=True)
    transport.receive(head(b"Content-Length: 5") + b"ab")
    response = result(answered)
    transport.lose()
    lost: list[Failure] = []

    class Body:
        def makeConnection(self, transport: Any) -> None: ...
        def dataReceived(self, data: bytes) -> None: ...
        def connectionLost(self, reason: Failure) -> None:
            lost.append(reason)

    response.deliverBody(Body())
    assert lost[0].check(ResponseFailed)
    assert len(rig.route.attempts) == 1


# Whose connection it is.


class Meddler:
    """Does what *does* says to its response, as the last piece comes."""

    def __init__(self, does: str) -> None:
        self.does = does
        self.response: Any = None

    def makeConnection(self, response: Any) -> None:
        self.response = response

    def dataReceived(self, data: bytes) -> None:
        if data == b"last":
            getattr(self.response, self.does)()

    def connectionLost(self, reason: Failure) -> None: ...


@pytest.mark.parametrize("does", ["pauseProducing", "abortConnection", "stopProducing"])
def test_a_whole_answer_has_no_connection_any_more(does: str) -> None:
    """By then it may be answering somebody else."""
    rig = Rig(max_connections=1)
    answered = rig.send()
    other = rig.send(b"other")
    transport = rig.connect()
    transport.receive(head(b"Content-Length: 5") + b"a")
    result(answered).deliverBody(Meddler(does))
    transport.receive(b"last")
    assert transport.written[-1] == b"other"
    assert (transport.paused, transport.closed) == (False, "")
    transport.receive(OK)
    assert result(other).code == 200


def test_an_answer_that_is_whole_while_nobody_reads() -> None:
    """As TLS may have it: the next one who uses the connection reads again."""
    rig = Rig()
    answered = rig.send()
    transport = rig.connect()
    transport.receive(head(b"Content-Length: 5"))
    result(answered)
    assert transport.paused
    transport.receive(b"12345")
    assert not transport.paused
    assert rig.pool.idle == 1


def test_an_idle_connection_holds_nothing_of_the_last_request() -> None:
    rig = Rig()
    transport = rig.kept()
    held = vars(transport.protocol).values()
    assert not [one for one in held if isinstance(one, Call)]


# Closing.


def test_closed_when_all_idle_ones_are_gone() -> None:
    rig = Rig()
    rig.send()
    rig.send()
    kept = [rig.connect(at) for at in range(2)]
    for one in kept:
        one.receive(OK)
    gone, again = rig.pool.close(), rig.pool.close()
    assert [one.closed for one in kept] == ["closed", "closed"]
    kept[0].lose()
    assert not fired(gone)
    kept[1].lose()
    assert fired(gone)
    assert fired(again)
    assert (rig.pool.open, rig.wheel.waiting) == (0, 0)


def test_closing_refuses_nothing_and_keeps_nothing() -> None:
    rig = Rig()
    running = rig.send()
    transport = rig.connect()
    assert fired(rig.pool.close())
    transport.receive(OK)
    assert result(running).code == 200
    assert transport.closed == "closed"
    late = rig.send()
    rig.connect().receive(OK)
    assert result(late).code == 200
    assert rig.pool.idle == 0

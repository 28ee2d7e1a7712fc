"""The shorter way from epoll to a connection, and that Twisted still has what it is made of."""

from __future__ import annotations

import socket
import sys
from typing import Any

import pytest
from twisted.internet.selectreactor import SelectReactor
from twisted.logger import LogEvent, globalLogPublisher

from llmproxyd.wire.reactor import shorten

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="epoll is Linux's")


class Descriptor:
    """One end of a pair of sockets, as a reactor knows it."""

    def __init__(self, end: socket.socket, result: Any = None) -> None:
        self.end = end
        self.result = result
        self.read: list[bytes] = []
        self.wrote = 0
        self.lost: Any = None

    def fileno(self) -> int:
        return self.end.fileno()

    def logPrefix(self) -> str:
        return "-"

    def doRead(self) -> Any:
        self.read.append(self.end.recv(100))
        if isinstance(self.result, RuntimeError):
            raise self.result
        return self.result

    def doWrite(self) -> None:
        self.wrote += 1

    def connectionLost(self, reason: Any) -> None:
        self.lost = reason

    readConnectionLost = connectionLost


@pytest.fixture
def ends() -> Any:
    pair = socket.socketpair()
    yield pair
    for one in pair:
        one.close()


@pytest.fixture
def reactor(ends: Any) -> Any:
    from twisted.internet.epollreactor import EPollReactor

    made = EPollReactor()
    shorten(made)
    yield made
    made.removeAll()
    made._poller.close()


def test_it_is_really_taken(reactor: Any) -> None:
    assert type(reactor.doIteration).__module__ == "llmproxyd.wire.reactor"


def test_what_has_come_is_read(reactor: Any, ends: Any) -> None:
    descriptor = Descriptor(ends[0])
    reactor.addReader(descriptor)
    reactor.doIteration(0)
    assert descriptor.read == []
    ends[1].send(b"x")
    reactor.doIteration(None)
    assert (descriptor.read, descriptor.lost) == ([b"x"], None)


def test_who_can_write_is_told(reactor: Any, ends: Any) -> None:
    descriptor = Descriptor(ends[0])
    reactor.addWriter(descriptor)
    reactor.doIteration(0)
    assert descriptor.wrote == 1


def test_both_at_once(reactor: Any, ends: Any) -> None:
    descriptor = Descriptor(ends[0])
    reactor.addReader(descriptor)
    reactor.addWriter(descriptor)
    ends[1].send(b"x")
    reactor.doIteration(0)
    assert (descriptor.read, descriptor.wrote) == ([b"x"], 1)


def test_an_end_is_told_with_its_reason(reactor: Any, ends: Any) -> None:
    from twisted.internet.main import CONNECTION_DONE

    descriptor = Descriptor(ends[0], CONNECTION_DONE)
    reactor.addReader(descriptor)
    ends[1].close()
    reactor.doIteration(0)
    assert descriptor.lost.check(type(CONNECTION_DONE))
    assert descriptor not in reactor.getReaders()


def test_a_fault_in_one_connection_closes_that_one_and_is_told(reactor: Any, ends: Any) -> None:
    events: list[LogEvent] = []
    globalLogPublisher.addObserver(events.append)
    try:
        descriptor = Descriptor(ends[0], RuntimeError("a fault"))
        reactor.addReader(descriptor)
        ends[1].send(b"x")
        reactor.doIteration(0)
    finally:
        globalLogPublisher.removeObserver(events.append)
    assert isinstance(descriptor.lost.value, RuntimeError)
    assert any("log_failure" in event for event in events)


def test_one_that_left_meanwhile_is_not_asked(reactor: Any, ends: Any) -> None:
    first, second = Descriptor(ends[0]), Descriptor(ends[1])
    for one, other in ((first, second), (second, first)):
        reactor.addReader(one)

        def read(one: Descriptor = one, other: Descriptor = other) -> None:
            one.read.append(one.end.recv(100))
            reactor.removeReader(other)

        one.doRead = read  # type: ignore[method-assign]
    ends[0].send(b"x")
    ends[1].send(b"y")
    reactor.doIteration(0)
    assert len(first.read) + len(second.read) == 1


def test_nothing_to_wait_for(reactor: Any) -> None:
    reactor.removeAll()
    reactor.doIteration(0)


def test_another_reactor_serves_as_it_is() -> None:
    other = SelectReactor()
    before = other.doIteration
    shorten(other)
    assert other.doIteration == before
    other.removeAll()

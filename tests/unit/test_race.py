"""Which address is tried when, and what is told when none answers: on a clock, without a network."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import (
    ConnectionRefusedError,
    DNSLookupError,
    NoRouteError,
    TimeoutError,
)
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from llmproxyd.wire.origin import HTTPProxy, Origin
from llmproxyd.wire.race import HEAD_START, Race, interleaved

PORT = 443
ADDRESSES = ["2001:db8::1", "2001:db8::2", "192.0.2.1", "192.0.2.2"]


def address(host: str) -> Any:
    return (IPv6Address if ":" in host else IPv4Address)("TCP", host, PORT)


class Resolver:
    """Tells what the test wants, when it wants."""

    def __init__(self) -> None:
        self.receiver: Any = None
        self.name = ""

    def resolveHostName(self, receiver: Any, name: str, portNumber: int = 0) -> None:
        self.receiver, self.name = receiver, name
        receiver.resolutionBegan(self)

    def tell(self, *hosts: str) -> None:
        for host in hosts:
            self.receiver.addressResolved(address(host))
        self.receiver.resolutionComplete()


class Transport:
    protocol: Any = None
    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True


class Rig:
    """One race, and what became of it."""

    def __init__(self, host: bytes = b"api.example") -> None:
        self.reactor: Any = MemoryReactorClock()
        self.resolver = self.reactor.nameResolver = Resolver()
        self.reached_by: list[Any] = []
        self.failures: list[Failure] = []
        self.race = Race(self.reactor, host, PORT, self)
        self.race.start()

    def reached(self, transport: Any) -> None:
        self.reached_by.append(transport)

    def unreached(self, reason: Failure) -> None:
        self.failures.append(reason)

    @property
    def tried(self) -> list[str]:
        return [one[0] for one in self.reactor.tcpClients]

    def stopped(self, at: int) -> bool:
        return bool(self.reactor.connectors[at].stoppedConnecting)

    def fail(self, at: int, error: Exception) -> None:
        connector = self.reactor.connectors[at]
        self.reactor.tcpClients[at][2].clientConnectionFailed(connector, Failure(error))

    def come(self, at: int) -> Transport:
        made = Transport()
        self.reactor.tcpClients[at][2].buildProtocol(None).makeConnection(made)
        return made


@pytest.mark.parametrize("host", [b"192.0.2.7", b"2001:db8::7"])
def test_an_address_is_not_looked_up(host: bytes) -> None:
    rig = Rig(host)
    assert rig.tried == [host.decode()]
    assert not rig.resolver.name
    rig.fail(0, ConnectionRefusedError())
    assert rig.failures[0].check(ConnectionRefusedError)
    assert rig.reactor.tcpClients[0][3] is None  # the attempt has the deadline


def test_families_by_turns() -> None:
    rig = Rig()
    rig.resolver.tell(*ADDRESSES)
    rig.reactor.pump([HEAD_START] * 5)
    assert rig.tried == ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2"]
    assert not rig.reactor.getDelayedCalls()


def test_the_order_of_addresses() -> None:
    assert interleaved(map(address, ["192.0.2.1", "192.0.2.2", "2001:db8::1"])) == [
        "192.0.2.1",
        "2001:db8::1",
        "192.0.2.2",
    ]
    assert interleaved([]) == []


def test_each_has_a_head_start() -> None:
    rig = Rig()
    rig.resolver.tell(*ADDRESSES)
    assert len(rig.tried) == 1
    rig.reactor.advance(HEAD_START - 0.01)
    assert len(rig.tried) == 1
    rig.reactor.advance(0.01)
    assert len(rig.tried) == 2


def test_a_failure_starts_the_next_at_once() -> None:
    rig = Rig()
    rig.resolver.tell(*ADDRESSES)
    rig.fail(0, ConnectionRefusedError())
    assert len(rig.tried) == 2
    rig.reactor.advance(HEAD_START - 0.01)
    assert len(rig.tried) == 2
    rig.reactor.advance(0.01)
    assert len(rig.tried) == 3


def test_the_first_wins() -> None:
    rig = Rig()
    rig.resolver.tell(*ADDRESSES)
    rig.reactor.pump([HEAD_START] * 2)
    transport = rig.come(1)
    assert rig.reached_by == [transport]
    assert [rig.stopped(at) for at in range(3)] == [True, False, True]
    rig.reactor.advance(10)
    assert len(rig.tried) == 3
    assert not rig.reactor.getDelayedCalls()


def test_a_second_one_is_dropped() -> None:
    rig = Rig()
    rig.resolver.tell(*ADDRESSES)
    rig.reactor.advance(HEAD_START)
    rig.come(0)
    assert rig.come(1).aborted
    assert len(rig.reached_by) == 1


FAILURES: list[Any] = [
    ([TimeoutError(), ConnectionRefusedError(), TimeoutError(), NoRouteError()], ConnectionRefusedError),
    ([NoRouteError(), TimeoutError(), TimeoutError(), TimeoutError()], NoRouteError),
    ([TimeoutError()] * 4, TimeoutError),
]


@pytest.mark.parametrize(("errors", "told"), FAILURES)
def test_the_most_telling_failure(errors: list[Exception], told: type[Exception]) -> None:
    rig = Rig()
    rig.resolver.tell(*ADDRESSES)
    for at, error in enumerate(errors):
        assert not rig.failures
        rig.fail(at, error)
    assert [bool(one.check(told)) for one in rig.failures] == [True]


def test_the_last_may_still_come() -> None:
    rig = Rig()
    rig.resolver.tell("192.0.2.1", "192.0.2.2")
    rig.reactor.advance(HEAD_START)
    rig.fail(1, ConnectionRefusedError())
    assert not rig.failures
    rig.come(0)
    assert rig.reached_by


def test_a_name_without_addresses() -> None:
    rig = Rig()
    rig.resolver.tell()
    assert rig.failures[0].check(DNSLookupError)


@pytest.mark.parametrize("host", [b"a" * 64 + b".example", b"a..example"])
def test_a_name_that_cannot_be(host: bytes) -> None:
    rig = Rig(host)
    assert not rig.failures
    rig.reactor.advance(0)
    assert rig.failures[0].check(DNSLookupError)
    assert not rig.resolver.name


def test_given_up_while_looked_up() -> None:
    rig = Rig()
    rig.race.cancel()
    rig.resolver.tell(*ADDRESSES)
    assert not rig.tried
    assert not rig.failures


def test_given_up_while_tried() -> None:
    rig = Rig()
    rig.resolver.tell(*ADDRESSES)
    rig.reactor.advance(HEAD_START)
    rig.race.cancel()
    assert [rig.stopped(at) for at in range(2)] == [True, True]
    rig.reactor.advance(10)
    assert len(rig.tried) == 2
    assert not rig.failures
    assert not rig.reactor.getDelayedCalls()


# Where to.

ORIGINS: list[Any] = [
    (b"http://a.example", (False, b"a.example", 80, b"a.example"), b"a.example:80"),
    (b"HTTPS://A.example", (True, b"A.example", 443, b"A.example"), b"A.example:443"),
    (b"https://a_b.example:8443", (True, b"a_b.example", 8443, b"a_b.example:8443"), b"a_b.example:8443"),
    (b"http://[::1]:8080", (False, b"::1", 8080, b"[::1]:8080"), b"[::1]:8080"),
    (b"https://[2001:db8::1]", (True, b"2001:db8::1", 443, b"[2001:db8::1]"), b"[2001:db8::1]:443"),
]


@pytest.mark.parametrize(("text", "parts", "target"), ORIGINS)
def test_origins(text: bytes, parts: Any, target: bytes) -> None:
    origin = Origin.parse(text)
    assert origin == parts
    assert origin.target == target


NO_ORIGINS = [b"", b"a.example", b"ftp://a", b"http://", b"http://a/", b"http://u@a", b"http://a:0", b"http://a:65536",
              b"http://a:", b"http://a b", b"http://a\r\n", b"http://\xc3\xa9", b"http://[a", b"http://a?b", b"http://a%20"]  # fmt: skip


@pytest.mark.parametrize("text", NO_ORIGINS)
def test_no_origins(text: bytes) -> None:
    with pytest.raises(ValueError):
        Origin.parse(text)


def test_a_proxy_s_url() -> None:
    proxy = HTTPProxy(b"http://us%40er:p%3Ass@[::1]:3128/")
    assert (proxy.host, proxy.port) == (b"::1", 3128)
    asked = proxy.asks_for(b"api.example:443")
    assert asked == (
        b"CONNECT api.example:443 HTTP/1.1\r\nHost: api.example:443\r\n"
        b"Proxy-Authorization: Basic dXNAZXI6cDpzcw==\r\n\r\n"
    )
    assert HTTPProxy(b"http://p").asks_for(b"a:1") == b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"


@pytest.mark.parametrize("url", [b"https://p", b"http://u:secret@", b"socks5://u:secret@p", b"p:secret@3128"])
def test_no_proxy_s_url(url: bytes) -> None:
    with pytest.raises(ValueError) as caught:
        HTTPProxy(url)
    assert "secret" not in str(caught.value)


def test_credentials_are_not_shown() -> None:
    assert repr(HTTPProxy(b"http://user:secret@p:3128")) == "<HTTPProxy p:3128>"

"""Opening ports: which, how they are called, and one line on why it cannot be."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import address, error
from twisted.internet.protocol import Factory

from llmproxyd.listen import TRIES, Listening, StartError, endpoints, listen

BOTH = ["tcp:0:interface=127.0.0.1", r"tcp6:0:interface=\:\:1"]


@pytest.fixture(name="reactor")
def _reactor() -> Iterator[Any]:
    """The real one, without running: opening a port needs no loop.  Nothing is left open."""
    from twisted.internet import reactor

    before = set(reactor.getReaders())  # type: ignore[attr-defined]
    yield reactor
    for port in set(reactor.getReaders()) - before:  # type: ignore[attr-defined]
        port.stopListening()


def opened(reactor: Any) -> int:
    return len(reactor.getReaders())


def taken(host: str = "127.0.0.1") -> tuple[socket.socket, int]:
    """A port that is in use."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    holder = socket.socket(family)
    holder.bind((host, 0))
    holder.listen(1)
    return holder, holder.getsockname()[1]


# Endpoint strings.


@pytest.mark.parametrize(
    ("interface", "strings"),
    [
        (None, ("tcp:8888:interface=127.0.0.1", r"tcp6:8888:interface=\:\:1")),
        ("localhost", ("tcp:8888:interface=127.0.0.1", r"tcp6:8888:interface=\:\:1")),
        ("127.0.0.1", ("tcp:8888:interface=127.0.0.1",)),
        ("0.0.0.0", ("tcp:8888:interface=0.0.0.0",)),
        ("::1", (r"tcp6:8888:interface=\:\:1",)),
        ("[::1]", (r"tcp6:8888:interface=\:\:1",)),
        ("::", (r"tcp6:8888:interface=\:\:",)),
    ],
)
def test_endpoints_of_port_and_interface(interface: str | None, strings: tuple[str, ...]) -> None:
    assert endpoints(8888, interface) == strings


# Ports and URLs.


def test_both_loopbacks_share_one_free_port(reactor: Any) -> None:
    for _ in range(5):
        listening = listen(reactor, BOTH, Factory())
        (first, number), (second, other) = listening.addresses
        assert (first, second) == ("127.0.0.1", "::1")
        assert number == other > 0
        assert listening.urls == [f"http://127.0.0.1:{number}", f"http://[::1]:{number}"]
        assert not listening.beyond_loopback


def test_default_endpoints_work_with_a_free_port(reactor: Any) -> None:
    listening = listen(reactor, endpoints(0, None), Factory())
    assert len({port for _, port in listening.addresses}) == 1


@pytest.mark.parametrize(
    ("description", "url"),
    [
        ("tcp:0:interface=127.0.0.1", r"http://127\.0\.0\.1:\d+"),
        (r"tcp6:0:interface=\:\:1", r"http://\[::1\]:\d+"),
        ("tcp:0", r"http://127\.0\.0\.1:\d+"),
        ("tcp:0:interface=0.0.0.0", r"http://127\.0\.0\.1:\d+"),
        (r"tcp6:0:interface=\:\:", r"http://\[::1\]:\d+"),
    ],
)
def test_url_is_one_that_a_client_here_can_use(reactor: Any, description: str, url: str) -> None:
    (found,) = listen(reactor, [description], Factory()).urls
    assert re.fullmatch(url, found)


def test_tls_has_an_https_url(reactor: Any, tmp_path: Path) -> None:
    import trustme

    file = tmp_path / "key.pem"
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(file))
    (url,) = listen(reactor, [f"ssl:0:interface=127.0.0.1:privateKey={file}"], Factory()).urls
    assert url.startswith("https://127.0.0.1:")


def test_socket_file_is_told_as_such(reactor: Any, tmp_path: Path) -> None:
    listening = listen(reactor, [f"unix:{tmp_path}/s"], Factory())
    assert listening.urls == [f"unix:{tmp_path}/s"]
    assert listening.addresses == []
    assert not listening.beyond_loopback


@pytest.mark.parametrize(
    "description", ["tcp:0", "tcp:0:interface=0.0.0.0", "tcp6:0", r"tcp6:0:interface=\:\:"]
)
def test_wildcard_is_beyond_loopback(reactor: Any, description: str) -> None:
    assert listen(reactor, [description], Factory()).beyond_loopback


# What cannot be.


def test_port_in_use_is_told_with_what_to_do(reactor: Any) -> None:
    holder, number = taken()
    before = opened(reactor)
    with holder, pytest.raises(StartError) as caught:
        listen(reactor, [f"tcp:{number}:interface=127.0.0.1"], Factory())
    assert str(caught.value) == (
        f"port {number} is in use on 127.0.0.1; choose another one with --port, or stop what listens there"
    )
    assert opened(reactor) == before


def test_failure_of_one_closes_the_others(reactor: Any) -> None:
    holder, number = taken("::1")
    before = opened(reactor)
    with holder, pytest.raises(StartError, match=rf"port {number} is in use on ::1"):
        listen(reactor, endpoints(number, None), Factory())
    assert opened(reactor) == before


@pytest.mark.parametrize(
    ("description", "said"),
    [
        ("tcp:0:interface=203.0.113.7", "this machine has no address 203.0.113.7"),
        ("nope:8888", "listen: nope:8888: "),
        ("tcp:x", "listen: tcp:x: "),
        ("tcp", "listen: tcp: "),
        ("tcp:0:bogus=1", "listen: tcp:0:bogus=1: "),
        ("tcp:99999", "99999"),
        ("unix:/nonexistent/folder/s", "/nonexistent/folder/s"),
        ("ssl:0:privateKey=/nonexistent.pem", "/nonexistent.pem"),
        ("systemd:domain=INET:index=0", "systemd"),
    ],
)
def test_what_cannot_be_listened_on_is_one_line(reactor: Any, description: str, said: str) -> None:
    with pytest.raises(StartError) as caught:
        listen(reactor, [description], Factory())
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("description", ["nope:8888", "tcp:0:interface=203.0.113.7", "tcp:x"])
def test_what_was_open_is_closed_when_a_later_one_cannot_be(reactor: Any, description: str) -> None:
    before = opened(reactor)
    with pytest.raises(StartError):
        listen(reactor, [BOTH[0], description], Factory())
    assert opened(reactor) == before


def test_one_wildcard_among_loopbacks_is_beyond_loopback() -> None:
    stub = Stub()
    assert not Listening([StubPort(stub, "127.0.0.1", 1), StubPort(stub, "::1", 1)], []).beyond_loopback  # type: ignore[list-item]
    assert Listening([StubPort(stub, "127.0.0.1", 1), StubPort(stub, "0.0.0.0", 2)], []).beyond_loopback  # type: ignore[list-item]


class Stub:
    """A reactor whose ports fail as told, by interface."""

    def __init__(self, *failing: tuple[str, int]) -> None:
        self.failing = dict(failing)
        self.asked: list[tuple[int, str]] = []
        self.open: list[StubPort] = []

    def listenTCP(self, port: int, factory: object, backlog: int = 50, interface: str = "") -> StubPort:
        self.asked.append((port, interface))
        if interface in self.failing:
            raise error.CannotListenError(interface, port, OSError(self.failing[interface], "no"))
        self.open.append(StubPort(self, interface, port or 40_000 + len(self.asked)))
        return self.open[-1]


class StubPort:
    def __init__(self, reactor: Stub, interface: str, number: int) -> None:
        self.reactor, self.interface, self.number = reactor, interface, number

    def getHost(self) -> object:
        kind = address.IPv6Address if ":" in self.interface else address.IPv4Address
        return kind("TCP", self.interface, self.number)

    def stopListening(self) -> None:
        self.reactor.open.remove(self)


@pytest.mark.parametrize("number", [99, 97])
def test_missing_ipv6_loopback_is_left_out(number: int) -> None:
    listening: Listening = listen(Stub(("::1", number)), BOTH, Factory())
    assert len(listening.urls) == 1


def test_missing_ipv6_loopback_alone_is_an_error() -> None:
    with pytest.raises(StartError, match="this machine has no address ::1"):
        listen(Stub(("::1", 99)), BOTH[1:], Factory())


def test_missing_ipv4_address_is_an_error() -> None:
    with pytest.raises(StartError, match=r"this machine has no address 127\.0\.0\.1"):
        listen(Stub(("127.0.0.1", 99)), list(reversed(BOTH)), Factory())


def test_free_port_that_is_not_free_on_both_is_drawn_again() -> None:
    reactor = Stub(("::1", 98))
    with pytest.raises(StartError, match="is in use on ::1"):
        listen(reactor, BOTH, Factory())
    assert reactor.asked.count((0, "127.0.0.1")) == TRIES
    assert len({port for port, interface in reactor.asked if interface == "::1"}) == TRIES
    assert reactor.open == []


def test_chosen_port_in_use_is_not_tried_again() -> None:
    reactor = Stub(("::1", 98))
    with pytest.raises(StartError, match="port 8888 is in use"):
        listen(reactor, endpoints(8888, None), Factory())
    assert len(reactor.asked) == 2
    assert reactor.open == []


@pytest.mark.parametrize("number", [13, 1])
def test_missing_permission_is_told(number: int) -> None:
    with pytest.raises(
        StartError, match=r"no permission to listen on 127\.0\.0\.1:80; ports below 1024 need it"
    ):
        listen(Stub(("127.0.0.1", number)), endpoints(80, "127.0.0.1"), Factory())


def test_other_failure_is_told_as_the_system_words_it() -> None:
    with pytest.raises(StartError, match=r"cannot listen on 127\.0\.0\.1:80: \[Errno 24\] no"):
        listen(Stub(("127.0.0.1", 24)), endpoints(80, "127.0.0.1"), Factory())

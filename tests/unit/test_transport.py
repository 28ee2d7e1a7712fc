"""What our connections do beyond Twisted's: at once, in order, and nothing that came is lost.

Real sockets, in pairs, and a reactor that turns when it is told to.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import trustme
from twisted.internet import abstract, ssl, tcp, unix
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.posixbase import _DisconnectSelectableMixin
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from llmproxyd.wire.transport import (
    _Eager,
    dissolve,
    half_close,
    hung_up,
    prepare,
    sent,
    socket_of,
    stirs,
    taken,
    unsent,
)

LARGE = 8 * 1024 * 1024
"""More than a socket takes."""


class Reactor(_DisconnectSelectableMixin, Clock):
    """Turns when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[Any] = set()
        self.writers: set[Any] = set()

    def addReader(self, one: Any) -> None:
        self.readers.add(one)

    def addWriter(self, one: Any) -> None:
        self.writers.add(one)

    def removeReader(self, one: Any) -> None:
        self.readers.discard(one)

    def removeWriter(self, one: Any) -> None:
        self.writers.discard(one)

    def turn(self) -> None:
        """As a reactor does: who can be read, who can be written to, then what is due."""
        for watched, event, method in (
            (self.readers, select.POLLIN, "doRead"),
            (self.writers, select.POLLOUT, "doWrite"),
        ):
            for one in list(watched):
                if one not in watched or one.fileno() < 0:
                    continue
                poll = select.poll()
                poll.register(one.fileno(), event)
                if poll.poll(0):
                    why = getattr(one, method)()
                    if why:
                        self._disconnectSelectable(one, why, method == "doRead")
        self.advance(0)

    def turns(self, count: int = 30) -> None:
        for _ in range(count):
            self.turn()


class Remembers(Protocol):
    """What happened, in order; data that came in pieces is joined."""

    transport: Any

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.on_data: Callable[[], None] = lambda: None
        self.on_lost: Callable[[], None] = lambda: None

    def connectionMade(self) -> None:
        prepare(self.transport)

    def dataReceived(self, data: bytes) -> None:
        if self.told and isinstance(self.told[-1], bytes):
            self.told[-1] += data
        else:
            self.told.append(data)
        self.on_data()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.told.append(reason.type)
        self.on_lost()


@implementer(IHalfCloseableProtocol)
class HalfCloseable(Remembers):
    """One that goes on when one side has ended."""

    def readConnectionLost(self) -> None:
        self.told.append("read ended")

    def writeConnectionLost(self) -> None:
        self.told.append("write ended")


class Pair:
    """A connection of ours, and the plain socket at its other end."""

    def __init__(
        self, *, protocol: Remembers | None = None, prepared: bool = True, network: bool = True
    ) -> None:
        self.reactor = Reactor()
        self.protocol = protocol or Remembers()
        if not prepared:
            self.protocol.connectionMade = lambda: None  # type: ignore[method-assign]
        ours, self.peer = tcp_pair() if network else socket.socketpair()
        self.peer.settimeout(2)
        self.transport: Any = tcp.Connection(ours, self.protocol, self.reactor)  # type: ignore[arg-type]
        self.transport.connected = 1
        self.protocol.makeConnection(self.transport)
        self.transport.startReading()

    @property
    def told(self) -> list[Any]:
        return self.protocol.told

    def read(self, size: int = 65536) -> bytes:
        """What the peer has, without the reactor turning."""
        self.peer.setblocking(False)
        try:
            return self.peer.recv(size)
        except BlockingIOError:
            return b""

    def read_all(self, size: int) -> bytes:
        """So many bytes at the peer, while the reactor turns."""
        found = bytearray()
        for _ in range(100_000):
            if len(found) >= size:
                break
            piece = self.read(1 << 20)
            found += piece
            if not piece:
                self.reactor.turn()
        return bytes(found)

    def reset(self) -> None:
        """The peer breaks off."""
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.peer.close()

    def close(self) -> None:
        self.peer.close()
        if hasattr(self.transport, "socket"):
            self.transport.socket.close()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        there = socket.create_connection(listening.getsockname())
        here, _ = listening.accept()
    return here, there


@pytest.fixture
def make() -> Iterator[Callable[..., Pair]]:
    made: list[Pair] = []

    def one(**settings: Any) -> Pair:
        made.append(Pair(**settings))
        return made[-1]

    yield one
    for pair in made:
        pair.close()


@pytest.fixture
def pair(make: Callable[..., Pair]) -> Pair:
    return make()


# What is used of Twisted's inner parts.  If one of these fails, wire/transport.py must be read anew.


def test_the_inner_parts_of_a_socket_transport_are_there(make: Callable[..., Pair]) -> None:
    stock = make(prepared=False).transport
    parts = {
        name: getattr(stock, name)
        for name in (
            "dataBuffer",
            "offset",
            "_tempDataBuffer",
            "_tempDataLen",
            "_writeDisconnected",
            "_aborting",
            "TLS",
            "disconnecting",
        )
    }
    assert parts == {
        "dataBuffer": b"",
        "offset": 0,
        "_tempDataBuffer": [],
        "_tempDataLen": 0,
        "_writeDisconnected": False,
        "_aborting": False,
        "TLS": False,
        "disconnecting": 0,
    }
    assert isinstance(stock.socket, socket.socket)
    for name in ("_maybePauseProducer", "startReading", "startWriting", "writeSomeData", "setTcpNoDelay"):
        assert callable(getattr(stock, name))


@pytest.mark.parametrize("kind", [tcp.Server, tcp.Client, unix.Server, unix.Client])
def test_every_socket_transport_is_of_that_family(kind: type) -> None:
    assert issubclass(kind, tcp.Connection)
    assert issubclass(kind, abstract.FileDescriptor)


def test_a_stock_write_waits_in_the_list_that_is_looked_at(make: Callable[..., Pair]) -> None:
    pair = make(prepared=False)
    pair.transport.write(b"abc")
    pair.transport.write(b"de")
    assert (pair.transport._tempDataBuffer, pair.transport._tempDataLen) == ([b"abc", b"de"], 5)
    assert (pair.transport.dataBuffer, pair.transport.offset) == (b"", 0)
    assert pair.transport in pair.reactor.writers
    assert pair.read() == b""
    assert unsent(pair.transport) == 5


def test_what_a_stock_transport_has_not_sent_stands_in_the_two_buffers(make: Callable[..., Pair]) -> None:
    pair = make(prepared=False)
    pair.transport.write(b"x" * LARGE)
    pair.reactor.turn()
    before = unsent(pair.transport)
    assert before == len(pair.transport.dataBuffer) - pair.transport.offset
    assert 0 < before < LARGE
    pair.transport.write(b"y" * 10)
    assert unsent(pair.transport) == before + 10
    assert pair.read_all(LARGE + 10) == b"x" * LARGE + b"y" * 10
    pair.reactor.turn()
    assert unsent(pair.transport) == 0
    assert pair.transport.dataBuffer == b""


def test_a_stock_write_that_fails_is_told_by_what_writes(make: Callable[..., Pair]) -> None:
    pair = make(prepared=False)
    pair.reset()
    assert isinstance(pair.transport.writeSomeData(b"x"), int | ConnectionLost)
    assert isinstance(pair.transport.writeSomeData(b"x"), ConnectionLost)


def test_a_stock_transport_loses_what_came_before_a_reset(make: Callable[..., Pair]) -> None:
    """The reason for all this; if it is mended there, it can go here."""
    pair = make(prepared=False)
    pair.transport.stopReading()
    pair.peer.sendall(b"last words")
    pair.peer.close()
    pair.reactor._disconnectSelectable(pair.transport, ConnectionLost(), False)
    assert pair.told == [ConnectionLost]


def test_abort_sets_what_is_looked_at(pair: Pair) -> None:
    pair.transport.abortConnection()
    assert pair.transport._aborting is True
    pair.reactor.turn()
    assert pair.told == [ConnectionAborted]


def test_the_reader_and_the_writer_are_looked_up_on_the_instance() -> None:
    """``dissolve`` and Twisted's own ``abortConnection`` rely on that."""

    class Plain:
        transport: object = None

    connector, transport = Plain(), Plain()
    connector.transport = transport
    dissolve(connector, transport)
    assert connector.transport is None
    assert transport.doRead() is None  # type: ignore[attr-defined]
    assert transport.doWrite() is None  # type: ignore[attr-defined]
    dissolve(connector, None)


# Prepared.


def test_preparing_changes_the_class_and_nothing_else(pair: Pair) -> None:
    transport = pair.transport
    assert isinstance(transport, _Eager)
    assert isinstance(transport, tcp.Connection)
    assert type(transport).__name__ == "Connection"
    assert transport.getTcpNoDelay()
    kind = type(transport)
    prepare(transport)
    assert type(transport) is kind


def test_all_of_one_kind_share_a_class(make: Callable[..., Pair]) -> None:
    assert type(make().transport) is type(make().transport)


def test_a_socket_without_that_delay_is_prepared_too(make: Callable[..., Pair]) -> None:
    pair = make(network=False)
    assert isinstance(pair.transport, _Eager)
    pair.transport.write(b"x")
    assert pair.read() == b"x"


def test_a_transport_of_another_kind_serves_as_it_is() -> None:
    other: Any = StringTransport()
    prepare(other)
    assert type(other) is StringTransport
    other.write(b"x")
    assert other.value() == b"x"
    assert (unsent(other), sent(other)) == (0, 0)
    assert socket_of(other) is other
    assert hung_up(other)
    assert stirs(other)
    half_close(other)
    assert other.disconnecting


# Writing.


def test_a_write_is_there_at_once(pair: Pair) -> None:
    pair.transport.write(b"abc")
    assert pair.read() == b"abc"
    assert pair.transport not in pair.reactor.writers
    assert (sent(pair.transport), unsent(pair.transport)) == (3, 0)
    pair.transport.writeSequence([b"d", b"ef"])
    pair.reactor.turn()
    assert pair.read() == b"def"


def test_what_does_not_fit_is_queued_and_follows_in_order(pair: Pair) -> None:
    pieces = [bytes([number]) * 300_000 for number in range(40)]
    for piece in pieces:
        pair.transport.write(piece)
    whole = b"".join(pieces)
    begun = sent(pair.transport)
    assert 0 < begun < len(whole)
    assert unsent(pair.transport) == len(whole) - begun
    assert pair.transport in pair.reactor.writers
    assert pair.read_all(len(whole)) == whole
    pair.reactor.turn()
    assert (sent(pair.transport), unsent(pair.transport)) == (len(whole), 0)
    assert pair.transport not in pair.reactor.writers
    pair.transport.write(b"then")
    assert pair.read() == b"then"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="no other system tells it")
def test_what_the_peer_takes_of_what_the_system_holds_is_told(pair: Pair) -> None:
    pair.transport.write(b"x" * LARGE)
    by_system, by_peer = sent(pair.transport), taken(pair.transport)
    assert by_peer < by_system
    pair.read(1 << 10)
    pair.read(1 << 18)
    assert sent(pair.transport) == by_system, "the system has not asked for more"
    assert by_peer < taken(pair.transport) <= by_system


def test_nothing_overtakes_what_waits(pair: Pair) -> None:
    pair.transport.write(b"x" * LARGE)
    pair.read(1 << 20)
    left = unsent(pair.transport)
    pair.transport.write(b"y")
    assert unsent(pair.transport) == left + 1


def test_empty_writes_do_nothing(pair: Pair) -> None:
    pair.transport.write(b"")
    assert (pair.read(), unsent(pair.transport)) == (b"", 0)
    assert pair.transport not in pair.reactor.writers


@pytest.mark.parametrize("how", ["write", "writeSequence"])
def test_only_bytes_are_written(pair: Pair, how: str) -> None:
    with pytest.raises(TypeError):
        pair.transport.write("text")


class Producer:
    """Counts how it is steered."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        self.told.append("stop")


def test_a_producer_is_paused_at_once_and_resumed_when_all_is_sent(pair: Pair) -> None:
    producer = Producer()
    pair.transport.registerProducer(producer, True)
    pair.transport.write(b"small")
    assert producer.told == []
    pair.transport.write(b"x" * LARGE)
    assert producer.told == ["pause"]
    pair.read_all(LARGE + 5)
    pair.reactor.turn()
    assert producer.told == ["pause", "resume"]
    pair.transport.write(b"x" * LARGE)
    assert producer.told == ["pause", "resume", "pause"]


def test_a_producer_is_stopped_when_the_connection_is_lost(pair: Pair) -> None:
    producer = Producer()
    pair.transport.registerProducer(producer, True)
    pair.reset()
    pair.reactor.turns()
    assert producer.told == ["stop"]


def test_the_end_comes_behind_what_waits(pair: Pair) -> None:
    pair.transport.write(b"x" * LARGE)
    pair.transport.loseConnection()
    assert len(pair.read_all(LARGE)) == LARGE
    pair.reactor.turns()
    assert pair.peer.recv(1) == b""
    assert pair.told == [ConnectionDone]


def test_nothing_is_written_after_the_end(pair: Pair) -> None:
    pair.transport.loseConnection()
    pair.reactor.turns()
    pair.transport.write(b"late")
    assert pair.peer.recv(10) == b""


# The peer ends.


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("size", [10, 50_000])  # no more than has surely arrived
def test_what_came_before_a_reset_is_delivered_before_the_loss(pair: Pair, paused: bool, size: int) -> None:
    """A failed write finds out before the reader does."""
    data = os.urandom(size)
    if paused:
        pair.transport.pauseProducing()
    pair.peer.sendall(data)
    pair.peer.close()  # what we write from now on is answered by a reset
    for _ in range(5):
        pair.transport.write(b"x" * 1000)
    pair.reactor.turns()
    if paused:
        pair.transport.resumeProducing()
        pair.reactor.turns()
    assert pair.told[0] == data
    assert pair.told[1:] in ([ConnectionDone], [ConnectionLost])


@pytest.mark.parametrize("paused", [False, True])
def test_a_queued_write_that_fails_loses_nothing_either(pair: Pair, paused: bool) -> None:
    pair.transport.write(b"x" * LARGE)
    if paused:
        pair.transport.pauseProducing()
    pair.peer.sendall(b"last words")
    pair.peer.close()
    pair.reactor.turns()
    assert pair.told[0] == b"last words"
    assert pair.told[1:] in ([ConnectionDone], [ConnectionLost])
    assert unsent(pair.transport) == 0 or not pair.transport.connected


@pytest.mark.parametrize("paused", [False, True])
def test_a_reactor_that_finds_the_loss_first_loses_nothing(pair: Pair, paused: bool) -> None:
    """As with epoll, that tells of the end while data is still there."""
    if paused:
        pair.transport.pauseProducing()
    pair.peer.sendall(b"last words")
    pair.peer.close()
    pair.reactor._disconnectSelectable(pair.transport, ConnectionLost(), False)
    assert pair.told == [b"last words", ConnectionLost]


def test_an_end_while_paused_is_told_after_the_data_when_reading_goes_on(pair: Pair) -> None:
    pair.transport.pauseProducing()
    pair.peer.sendall(b"last words")
    pair.peer.close()
    pair.reactor.turns()
    assert pair.told == []
    assert hung_up(pair.transport)
    pair.transport.resumeProducing()
    pair.reactor.turns()
    assert pair.told == [b"last words", ConnectionDone]


@pytest.mark.parametrize("end", ["abortConnection", "loseConnection"])
def test_nothing_is_delivered_after_we_have_ended_it(pair: Pair, end: str) -> None:
    pair.transport.pauseProducing()
    pair.peer.sendall(b"too late")
    getattr(pair.transport, end)()
    pair.reactor.turns()
    assert pair.told == [ConnectionAborted if end == "abortConnection" else ConnectionDone]


def test_it_is_lost_once(pair: Pair) -> None:
    pair.reset()
    for _ in range(3):
        pair.transport.write(b"x")
    pair.reactor.turns()
    assert pair.told in ([ConnectionLost], [ConnectionDone])
    assert not pair.reactor.readers
    assert not pair.reactor.writers


@pytest.mark.parametrize("act", ["abortConnection", "loseConnection", "write", "pauseProducing"])
def test_whatever_is_done_while_the_rest_is_delivered(pair: Pair, act: str) -> None:
    """It is lost once, and nothing stays with the reactor."""
    transport = pair.transport
    pair.protocol.on_data = partial(transport.write, b"x") if act == "write" else getattr(transport, act)
    transport.pauseProducing()
    pair.peer.sendall(os.urandom(200_000))
    pair.peer.close()
    pair.reactor._disconnectSelectable(transport, ConnectionLost(), False)
    pair.reactor.turns()
    assert [one for one in pair.told if not isinstance(one, bytes)] in ([ConnectionLost], [ConnectionAborted])
    assert not pair.reactor.readers
    assert not pair.reactor.writers
    assert not hasattr(transport, "socket")


def test_abort_ends_the_delivery_of_the_rest(pair: Pair) -> None:
    """As everywhere: who aborts is told nothing more."""
    pair.protocol.on_data = pair.transport.abortConnection
    pair.transport.pauseProducing()
    pair.peer.sendall(os.urandom(300_000))
    pair.peer.close()
    pair.reactor._disconnectSelectable(pair.transport, ConnectionLost(), False)
    pair.reactor.turns()
    assert len(pair.told[0]) <= 64 * 1024


def test_a_fault_while_the_rest_is_delivered_does_not_keep_the_connection(pair: Pair) -> None:
    def fail() -> None:
        raise RuntimeError("a fault of our own")

    pair.protocol.on_data = fail
    pair.transport.pauseProducing()
    pair.peer.sendall(b"last words")
    pair.peer.close()
    with suppress(RuntimeError):  # the reactor would log it
        pair.reactor._disconnectSelectable(pair.transport, ConnectionLost(), False)
    assert pair.told[-1] is ConnectionLost
    assert not hasattr(pair.transport, "socket")


def test_no_more_is_read_from_a_flood_than_a_socket_holds(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmproxyd.wire import transport as module

    monkeypatch.setattr(module, "LAST_BYTES", 100_000)
    pair.transport.pauseProducing()
    pair.peer.sendall(b"x" * 300_000)
    pair.reactor._disconnectSelectable(pair.transport, ConnectionLost(), False)
    assert len(pair.told[0]) <= 100_000 + 64 * 1024
    assert pair.told[1:] == [ConnectionLost]


# Half-closed.


def test_our_end_is_sent_behind_what_waits_and_what_comes_is_received(make: Callable[..., Pair]) -> None:
    pair = make(protocol=HalfCloseable())
    pair.transport.write(b"x" * LARGE)
    half_close(pair.transport)
    assert len(pair.read_all(LARGE)) == LARGE
    pair.reactor.turns()
    assert pair.peer.recv(1) == b""
    pair.peer.setblocking(True)
    pair.peer.sendall(b"still here")
    pair.reactor.turns()
    assert b"still here" in pair.told
    assert pair.transport.connected
    pair.transport.write(b"late")
    assert pair.transport not in pair.reactor.writers
    pair.peer.close()
    pair.reactor.turns()
    assert pair.told[-1] in (ConnectionDone, ConnectionLost) or "read ended" in pair.told


def test_a_protocol_that_knows_nothing_of_halves_can_be_half_closed(pair: Pair) -> None:
    pair.transport.write(b"bye")
    half_close(pair.transport)
    pair.reactor.turns()
    assert pair.peer.recv(10) == b"bye"
    assert pair.peer.recv(10) == b""
    pair.peer.sendall(b"and this")
    pair.peer.close()
    pair.reactor.turns()
    assert pair.told == [b"and this", ConnectionDone]


# Looked at without being read.


def test_a_quiet_connection_neither_stirs_nor_has_hung_up(pair: Pair) -> None:
    assert not stirs(pair.transport)
    assert not hung_up(pair.transport)
    pair.transport.write(b"x")
    assert not stirs(pair.transport)


def test_data_stirs_and_is_no_end(pair: Pair) -> None:
    pair.peer.sendall(b"x")
    assert stirs(pair.transport)
    assert not hung_up(pair.transport)
    pair.reactor.turn()
    assert not stirs(pair.transport)


@pytest.mark.skipif(not hasattr(select, "POLLRDHUP"), reason="this system cannot tell")
@pytest.mark.parametrize("end", ["shutdown", "close", "reset"])
@pytest.mark.parametrize("data", [b"", b"before"])
def test_every_end_is_seen_also_behind_data(pair: Pair, end: str, data: bytes) -> None:
    pair.transport.pauseProducing()
    if data:
        pair.peer.sendall(data)
    if end == "shutdown":
        pair.peer.shutdown(socket.SHUT_WR)
    elif end == "close":
        pair.peer.close()
    else:
        pair.reset()
    assert hung_up(pair.transport)
    assert stirs(pair.transport)


def test_a_lost_connection_has_hung_up(pair: Pair) -> None:
    pair.transport.abortConnection()
    pair.reactor.turn()
    assert hung_up(pair.transport)
    assert stirs(pair.transport)


def test_many_descriptors_are_no_obstacle(make: Callable[..., Pair]) -> None:
    """``select`` would fail beyond 1024."""
    import resource

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit < 1200:
        pytest.skip(f"this host allows {limit} descriptors only")
    held = [os.dup(0) for _ in range(1030)]
    try:
        pair = make()
        assert pair.transport.fileno() > 1024
        assert not stirs(pair.transport)
    finally:
        for one in held:
            os.close(one)


# TLS.


@pytest.fixture(scope="module")
def certificates() -> tuple[Any, Any]:
    """The contexts of a server and of a client that trusts it."""
    authority = trustme.CA()
    pem = authority.issue_cert("localhost").private_key_and_cert_chain_pem.bytes()
    root = ssl.Certificate.loadPEM(authority.cert_pem.bytes())
    return ssl.PrivateCertificate.loadPEM(pem).options(), ssl.optionsForClientTLS("localhost", root)


class TLSPair:
    """Two connections with TLS over one pair of sockets; ours is the server's."""

    def __init__(self, certificates: tuple[Any, Any], *, prepared: bool = True) -> None:
        self.reactor = Reactor()
        self.ours, self.theirs = Remembers(), Remembers()
        self.transports: list[Any] = []
        if not prepared:
            self.ours.connectionMade = lambda: None  # type: ignore[method-assign]
        self.theirs.connectionMade = lambda: None  # type: ignore[method-assign]
        sockets = tcp_pair()
        for protocol, end, context, is_client in zip(
            (self.ours, self.theirs), sockets, certificates, (False, True), strict=True
        ):
            factory = Factory.forProtocol(lambda made=protocol: made)  # type: ignore[misc]
            wrapper = TLSMemoryBIOFactory(context, is_client, factory, clock=self.reactor)
            tls = wrapper.buildProtocol(None)
            assert tls is not None
            transport: Any = tcp.Connection(end, tls, self.reactor)  # type: ignore[arg-type]
            transport.connected = 1
            self.transports.append(transport)
            tls.makeConnection(transport)
            transport.startReading()
        self.reactor.turns()

    @property
    def transport(self) -> Any:
        return self.ours.transport

    @property
    def raw(self) -> Any:
        return self.transports[0]

    def close(self) -> None:
        for one in self.transports:
            if hasattr(one, "socket"):
                one.socket.close()


@pytest.fixture
def secure(certificates: tuple[Any, Any]) -> Iterator[Callable[..., TLSPair]]:
    made: list[TLSPair] = []

    def one(**settings: Any) -> TLSPair:
        made.append(TLSPair(certificates, **settings))
        return made[-1]

    yield one
    for pair in made:
        pair.close()


def test_the_inner_parts_of_a_tls_transport_are_there(secure: Callable[..., TLSPair]) -> None:
    stock = secure(prepared=False).transport
    assert type(stock) is BufferingTLSTransport
    assert isinstance(stock, TLSMemoryBIOProtocol)
    assert stock._appSendBuffer == []
    assert "write" in vars(stock), "it is no more an attribute of the instance"
    assert vars(stock)["write"] == stock._aggregator.write
    assert isinstance(stock._tlsConnection.get_shutdown(), int)
    assert TLSMemoryBIOProtocol.write is not BufferingTLSTransport.__mro__[0].__dict__.get("write")


def test_a_stock_tls_write_waits_a_turn(secure: Callable[..., TLSPair]) -> None:
    """The reason for going round its buffer."""
    pair = secure(prepared=False)
    before = sent_bytes(pair)
    pair.transport.write(b"abc")
    assert sent_bytes(pair) == before


def sent_bytes(pair: TLSPair) -> int:
    """What lies at the peer's socket."""
    try:
        return len(pair.transports[1].socket.recv(1 << 20, socket.MSG_PEEK))
    except BlockingIOError:
        return 0


def test_a_tls_write_is_there_at_once(secure: Callable[..., TLSPair]) -> None:
    pair = secure()
    assert sent_bytes(pair) == 0
    before = sent(pair.transport)
    pair.transport.write(b"abc")
    assert sent_bytes(pair) > 3
    assert sent(pair.transport) - before == sent_bytes(pair)
    assert unsent(pair.transport) == 0
    pair.reactor.turns()
    assert pair.theirs.told == [b"abc"]


def test_both_layers_are_prepared(secure: Callable[..., TLSPair]) -> None:
    pair = secure()
    assert isinstance(pair.raw, _Eager)
    assert socket_of(pair.transport) is pair.raw
    assert pair.raw.getTcpNoDelay()


def test_sequences_and_writes_keep_their_order_over_tls(secure: Callable[..., TLSPair]) -> None:
    pair = secure()
    pair.transport.write(b"1")
    pair.transport.writeSequence([b"2", b"3"])
    pair.transport.write(b"4")
    pair.transport.loseConnection()
    pair.reactor.turns()
    assert pair.theirs.told[0] == b"1234"


def test_what_waits_over_tls_is_counted_and_arrives_in_order(secure: Callable[..., TLSPair]) -> None:
    pair = secure()
    data = os.urandom(LARGE)
    pair.transports[1].pauseProducing()
    for at in range(0, LARGE, 500_000):
        pair.transport.write(data[at : at + 500_000])
    assert unsent(pair.transport) > 0
    assert sent(pair.transport) + unsent(pair.transport) >= LARGE
    pair.transports[1].resumeProducing()
    for _ in range(5000):
        if pair.theirs.told and len(pair.theirs.told[0]) == LARGE:
            break
        pair.reactor.turn()
    assert pair.theirs.told == [data]
    assert unsent(pair.transport) == 0


def test_a_producer_over_tls_is_paused_and_resumed(secure: Callable[..., TLSPair]) -> None:
    pair = secure()
    producer = Producer()
    pair.transport.registerProducer(producer, True)
    pair.transports[1].pauseProducing()
    pair.transport.write(b"x" * LARGE)
    pair.reactor.turns()
    assert producer.told == ["pause"]
    pair.transports[1].resumeProducing()
    for _ in range(5000):
        if "resume" in producer.told:
            break
        pair.reactor.turn()
    assert producer.told == ["pause", "resume"]


def test_half_closing_over_tls_says_goodbye_and_waits_for_the_peers(secure: Callable[..., TLSPair]) -> None:
    pair = secure()
    pair.transport.write(b"bye")
    half_close(pair.transport)
    pair.reactor.turns()
    assert pair.theirs.told == [b"bye", ConnectionDone]
    assert pair.ours.told == [ConnectionDone]


def test_nothing_is_written_over_tls_after_the_end(secure: Callable[..., TLSPair]) -> None:
    pair = secure()
    pair.transport.loseConnection()
    pair.transport.write(b"late")
    pair.reactor.turns()
    pair.transport.write(b"later")
    assert pair.theirs.told == [ConnectionDone]


def test_what_came_before_a_reset_is_delivered_over_tls(secure: Callable[..., TLSPair]) -> None:
    pair = secure()
    pair.theirs.transport.write(b"last words")
    pair.theirs.transport._aggregator.flush()
    pair.transports[1].doWrite()
    pair.transports[1].socket.close()
    pair.reactor.removeReader(pair.transports[1])
    pair.reactor.removeWriter(pair.transports[1])
    for _ in range(3):
        pair.transport.write(b"x" * 1000)
    pair.reactor.turns()
    assert pair.ours.told[0] == b"last words"
    assert len(pair.ours.told) == 2


def test_hung_up_and_stirs_look_below_tls(secure: Callable[..., TLSPair]) -> None:
    pair = secure()
    assert not stirs(pair.transport)
    assert not hung_up(pair.transport)
    pair.theirs.transport.write(b"x")
    pair.reactor.advance(0)
    pair.transports[1].doWrite()
    assert stirs(pair.transport)
    assert not hung_up(pair.transport)
    pair.reactor.turns()
    pair.transports[1].socket.shutdown(socket.SHUT_RDWR)
    assert hung_up(pair.transport)

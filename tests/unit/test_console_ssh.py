"""Bytes on an SSH connection: whatever comes, only the connection ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.conch.ssh.common import NS
from twisted.internet.address import IPv4Address
from twisted.internet.defer import succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from llmproxyd.operator import ssh
from llmproxyd.operator.hostkey import host_key
from llmproxyd.operator.remote import Desk
from llmproxyd.operator.ssh import Connection, Factory, Keys, User
from llmproxyd.operator.sshsession import MOST_WAITING, Session


class Transport(StringTransport):
    def abortConnection(self) -> None:
        self.loseConnection()


class Control:
    def prompt(self) -> str:
        return "> "


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return host_key(tmp_path_factory.mktemp("ssh") / "key")


def begun(key: bytes) -> tuple[Any, Transport, Clock]:
    clock = Clock()
    control: Any = Control()
    factory = Factory(
        Desk(clock, control, succeed, None), key, Keys(Path("/nowhere"), lambda *a: succeed({}))
    )
    factory.startFactory()
    peer = IPv4Address("TCP", "192.0.2.1", 1)
    protocol = factory.buildProtocol(peer)
    transport = Transport(peerAddress=peer)
    protocol.makeConnection(transport)
    return protocol, transport, clock


def packet(payload: bytes) -> bytes:
    padding = 16 - (5 + len(payload)) % 8 if (5 + len(payload)) % 8 > 4 else 8 - (5 + len(payload)) % 8
    return (len(payload) + padding + 1).to_bytes(4, "big") + bytes([padding]) + payload + b"\0" * padding


PIECES = st.one_of(
    st.binary(max_size=60),
    st.binary(min_size=1, max_size=60).map(packet),
    st.tuples(st.integers(1, 100), st.binary(max_size=40)).map(lambda it: packet(bytes([it[0]]) + it[1])),
    st.sampled_from([packet(b"\x05" + NS(b"ssh-userauth")), packet(b"\x05" + NS(b"ssh-connection"))]),
)


@settings(deadline=None, max_examples=200)
@given(version=st.booleans(), pieces=st.lists(PIECES, max_size=8))
def test_any_bytes_before_the_login(key: bytes, version: bool, pieces: list[bytes]) -> None:
    protocol, transport, clock = begun(key)
    if version:
        protocol.dataReceived(b"SSH-2.0-x\r\n")
    for piece in pieces:
        if transport.disconnecting:
            break
        protocol.dataReceived(piece)
    protocol.connectionLost(Failure(ConnectionDone()))
    assert clock.getDelayedCalls() == []
    assert not protocol.factory.connections


def test_nobody_may_take_his_time_or_take_all_places(key: bytes) -> None:
    protocol, transport, clock = begun(key)
    clock.advance(ssh.LOGIN_TIME)
    assert transport.disconnecting
    made = [protocol.factory.buildProtocol(None) for _ in range(20)]
    assert sum(isinstance(one, ssh.Transport) for one in made) == ssh.MOST_UNKNOWN - 1


class Peer:
    """The transport below a connection's service."""

    def __init__(self, protocol: Any, avatar: User) -> None:
        self.factory = protocol.factory
        self.avatar = avatar
        self.sent: list[tuple[int, bytes]] = []
        self.blocked = False
        self.address = "192.0.2.1"
        self.over = False

    def sendPacket(self, kind: int, payload: bytes) -> None:
        self.sent.append((kind, payload))

    def logged_in(self) -> None: ...

    def end(self) -> None:
        self.over = True


def logged_in(key: bytes) -> tuple[Connection, Peer, Clock]:
    protocol, _, clock = begun(key)
    protocol.connectionLost(Failure(ConnectionDone()))
    peer = Peer(protocol, User(protocol.factory.desk, "alice"))
    service = Connection()
    service.transport = peer
    service.serviceStarted()
    return service, peer, clock


def opening(kind: bytes = b"session", number: int = 0, window: int = 1 << 20, most: int = 1 << 15) -> bytes:
    return NS(kind) + b"".join(one.to_bytes(4, "big") for one in (number, window, most)) + b"\0" * 16


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        (opening(b"direct-tcpip"), b"only sessions"),
        (opening(b"x11"), b"only sessions"),
        (opening(most=0), b"packet size"),
        (opening(most=1), b"packet size"),
    ],
)
def test_nothing_but_sessions_is_opened(key: bytes, wanted: bytes, why: bytes) -> None:
    service, peer, _ = logged_in(key)
    service.ssh_CHANNEL_OPEN(wanted)
    ((kind, said),) = peer.sent
    assert kind == 92
    assert why in said
    assert not service.channels
    service.serviceStopped()


def test_sessions_have_an_end(key: bytes) -> None:
    service, peer, _ = logged_in(key)
    for number in range(ssh.MOST_SESSIONS + 3):
        service.ssh_CHANNEL_OPEN(opening(number=number))
    assert len(service.channels) == ssh.MOST_SESSIONS
    assert [kind for kind, _ in peer.sent].count(92) == 3
    service.serviceStopped()


REQUESTS = st.sampled_from(
    [
        b"pty-req",
        b"shell",
        b"exec",
        b"env",
        b"window-change",
        b"subsystem",
        b"auth-agent-req@openssh.com",
        b"signal",
    ]
)


@settings(deadline=None, max_examples=200)
@given(wanted=st.lists(st.tuples(REQUESTS | st.binary(max_size=20), st.binary(max_size=40)), max_size=6))
def test_any_requests_of_a_session(key: bytes, wanted: list[tuple[bytes, bytes]]) -> None:
    service, _, clock = logged_in(key)
    service.ssh_CHANNEL_OPEN(opening())
    (channel,) = service.channels.values()
    service.channels.clear()
    service.channelsToRemoteChannel.clear()
    for name, data in wanted:
        if name != b"exec":
            assert channel.requestReceived(name, data) in (0, 1)
    channel.closed()
    clock.advance(0)
    service.serviceStopped()
    assert clock.getDelayedCalls() == []


def test_a_client_that_takes_nothing_is_given_up(key: bytes) -> None:
    service, _, _ = logged_in(key)
    service.ssh_CHANNEL_OPEN(opening(window=10))
    (channel,) = service.channels.values()
    assert isinstance(channel, Session)
    for _ in range(30):
        channel.write(b"x" * (MOST_WAITING // 16))
    assert len(channel.buf) <= MOST_WAITING
    assert channel.localClosed
    service.serviceStopped()


def test_a_client_that_does_not_answer_or_has_no_session_is_sent_away(key: bytes) -> None:
    service, peer, clock = logged_in(key)
    service.ssh_CHANNEL_OPEN(opening())
    clock.pump([ssh.ALIVE] * 3)
    assert not peer.over
    clock.advance(ssh.ALIVE)
    assert peer.over
    service.serviceStopped()
    service, peer, clock = logged_in(key)
    clock.advance(ssh.ALIVE)
    service.ssh_REQUEST_FAILURE(b"")
    assert not peer.over
    clock.advance(ssh.ALIVE)
    assert peer.over
    service.serviceStopped()

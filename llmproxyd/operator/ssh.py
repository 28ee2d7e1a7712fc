"""The console over SSH: shells and single commands, and nothing else that SSH can do.

Imported when it is switched on: it needs the extra ``ssh``, and Twisted's terminal protocols install
a reactor on import.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.conch.avatar import ConchUser
from twisted.conch.error import ValidPublicKey
from twisted.conch.interfaces import IConchUser
from twisted.conch.ssh.common import NS, getNS
from twisted.conch.ssh.connection import (
    MSG_CHANNEL_OPEN_FAILURE,
    OPEN_ADMINISTRATIVELY_PROHIBITED,
    OPEN_RESOURCE_SHORTAGE,
    SSHConnection,
)
from twisted.conch.ssh.factory import SSHFactory
from twisted.conch.ssh.keys import Key
from twisted.conch.ssh.transport import DISCONNECT_BY_APPLICATION, SSHServerTransport
from twisted.conch.ssh.userauth import SSHUserAuthServer
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import ISSHPrivateKey
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from llmproxyd.control.calls import Caller
from llmproxyd.operator.hostkey import authorized
from llmproxyd.operator.link import TCPLink
from llmproxyd.operator.remote import Desk
from llmproxyd.operator.sshsession import QUIET, Session

MOST = 16
"""Connections at once, of which"""
MOST_UNKNOWN = 8
"""nobody may have logged in on so many."""

MOST_SESSIONS = 8
"""Of one connection at once."""

LOGIN_TIME = 60.0
"""Seconds to log in, and seconds that a connection may be there for nothing."""

ATTEMPTS = 6
"""Keys that a client may offer in vain."""

ALIVE = 30.0
"""Seconds from sign to sign that the client is still there; after"""
UNANSWERED = 3
"""so many that it has not answered it is taken to be gone."""

SMALLEST_PACKET = 256
"""Bytes; a client that takes less makes us send a packet for each few bytes."""


@implementer(ICredentialsChecker)
class Keys:
    """Lets those in whose public key is in a file, read anew at each login.

    :param in_thread: calls a function in a thread.
    """

    credentialInterfaces = (ISSHPrivateKey,)

    def __init__(self, path: Path, in_thread: Callable[..., Deferred[Any]]) -> None:
        self._path = path
        self._in_thread = in_thread

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
        """The name of whoever holds the key; without a signature only whether it is worth one."""
        reading = self._in_thread(authorized, self._path).addErrback(self._unreadable)
        return reading.addCallback(self._known, credentials)

    def _unreadable(self, failure: Failure) -> dict[bytes, str]:
        failure.trap(OSError)
        QUIET.error("operator.ssh.authorized_keys cannot be read: {why}", why=failure.value)
        return {}

    def _known(self, known: dict[bytes, str], credentials: Any) -> str:
        name = known.get(credentials.blob)
        if name is None:
            raise UnauthorizedLogin("this key is not in operator.ssh.authorized_keys")
        if not credentials.signature:
            raise ValidPublicKey
        if not Key.fromString(credentials.blob).verify(credentials.signature, credentials.sigData):
            raise UnauthorizedLogin("the signature is not of this key")
        return name


class User(ConchUser):
    """Somebody who has logged in."""

    def __init__(self, desk: Desk, name: str) -> None:
        super().__init__()
        self.desk = desk
        self.name = name
        self.channelLookup[b"session"] = Session

    def caller(self) -> Caller:
        """For the audit log."""
        return Caller(f"ssh {self.name}", self.conn.transport.address)


@implementer(IRealm)
class Realm:
    """Where users come from."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def requestAvatar(self, avatarId: Any, mind: object, *interfaces: object) -> tuple[Any, User, Any]:
        """The user of that name."""
        return IConchUser, User(self._desk, avatarId), lambda: None


class Connection(SSHConnection):
    """What comes after the login: sessions, as many as there is room for."""

    _log = QUIET
    transport: Any

    def serviceStarted(self) -> None:
        """Somebody has logged in."""
        super().serviceStarted()
        self.transport.logged_in()
        self._unanswered = 0
        self._idle = False
        self._signs = LoopingCall(self._sign)
        self._signs.clock = self.transport.factory.desk.reactor
        self._signs.start(ALIVE, now=False)

    def serviceStopped(self) -> None:
        """The connection is gone."""
        self._signs.stop()
        super().serviceStopped()

    def ssh_CHANNEL_OPEN(self, packet: bytes) -> None:
        """A session is wanted; of anything else (forwarding) there is nothing."""
        kind, rest = getNS(packet)
        if kind != b"session":
            self._refuse(rest, OPEN_ADMINISTRATIVELY_PROHIBITED, b"only sessions are offered here")
        elif len(self.channels) >= MOST_SESSIONS:
            self._refuse(rest, OPEN_RESOURCE_SHORTAGE, b"too many sessions")
        elif int.from_bytes(rest[8:12], "big") < SMALLEST_PACKET:
            self._refuse(rest, OPEN_ADMINISTRATIVELY_PROHIBITED, b"the maximum packet size is too small")
        else:
            super().ssh_CHANNEL_OPEN(packet)

    def _refuse(self, rest: bytes, reason: int, why: bytes) -> None:
        answer = rest[:4] + reason.to_bytes(4, "big") + NS(why) + NS(b"")
        self.transport.sendPacket(MSG_CHANNEL_OPEN_FAILURE, answer)

    def _sign(self) -> None:
        """Ask whether the client is there; one that is there for nothing has to go."""
        if self._unanswered >= UNANSWERED or (self._idle and not self.channels):
            self.transport.end()
            return
        self._idle = not self.channels
        self._unanswered += 1
        self.sendGlobalRequest(b"keepalive@openssh.com", b"", wantReply=1).addBoth(self._answered)

    def _answered(self, result: object) -> None:
        self._unanswered = 0


class Transport(SSHServerTransport):
    """One connection."""

    _log = QUIET
    ourVersionString = b"SSH-2.0-llmproxyd"
    factory: Any
    known = False
    """Whether somebody has logged in."""

    address = "-"
    _link: TCPLink | None = None
    _late: Any = None

    def connectionMade(self) -> None:
        """Agree on keys first."""
        assert self.transport is not None
        reactor = self.factory.desk.reactor
        for name in ("setTcpKeepAlive", "setTcpNoDelay"):
            if (setter := getattr(self.transport, name, None)) is not None:
                setter(1)
        self.address = getattr(self.transport.getPeer(), "host", "-")
        self._link = TCPLink(reactor, self.transport)
        self._late = reactor.callLater(LOGIN_TIME, self.end)
        super().connectionMade()

    def dataReceived(self, data: bytes) -> None:
        """Bytes of whoever connects: whatever they are, they end no more than the connection."""
        try:
            super().dataReceived(data)
        except Exception as error:
            QUIET.warn(
                "{address} does not speak SSH: {kind}", address=self.address, kind=type(error).__name__
            )
            self.end()

    def connectionLost(self, reason: Failure | None = None) -> None:
        """The operator is gone."""
        self.factory.connections.discard(self)
        if self._link is not None:
            self._link.lost()
        self._on_time()
        super().connectionLost(reason)

    def receiveError(self, reasonCode: int, description: bytes) -> None:
        """The client says why it ends; that it is done is no error."""
        if reasonCode != DISCONNECT_BY_APPLICATION:
            super().receiveError(reasonCode, description)

    def sendDisconnect(self, reason: int, desc: bytes) -> None:
        """End the connection in words."""
        super().sendDisconnect(reason, desc)
        if self._link is not None:
            self._link.close()

    @property
    def blocked(self) -> bool:
        """Whether much is waiting to be taken by the client."""
        return self._link is not None and self._link.blocked

    def logged_in(self) -> None:
        """Somebody has."""
        self.known = True
        self._on_time()
        name = getattr(self, "avatar").name  # noqa: B009
        self.factory.log.info("{name} logged in over SSH from {address}", name=name, address=self.address)

    def end(self) -> None:
        """End the connection at once."""
        self._on_time()
        if self._link is not None:
            self._link.abort()

    def _on_time(self) -> None:
        if self._late is not None and self._late.active():
            self._late.cancel()
        self._late = None


class _Full(Protocol):
    """Turns a client away."""

    def connectionMade(self) -> None:
        """Say why: lines may come before the version (RFC 4253 §4.2)."""
        assert self.transport is not None
        self.transport.write(b"Too many operators are connected.\r\n")
        self.transport.loseConnection()


class Factory(SSHFactory):
    """All connections.

    :param key: the daemon's own, in OpenSSH's format.
    :raises BadKeyError: it is none.
    """

    _log = QUIET
    log = Logger(namespace="llmproxyd.ssh")
    noisy = False
    protocol = Transport

    def __init__(self, desk: Desk, key: bytes, checker: Keys) -> None:
        private = Key.fromString(key)
        self.privateKeys = {private.sshType(): private}
        self.publicKeys = {private.sshType(): private.public()}
        self.portal = Portal(Realm(desk), [checker])
        self.desk = desk
        self.connections: set[Transport] = set()
        self.services = {b"ssh-userauth": self._login, b"ssh-connection": Connection}  # type: ignore[dict-item]

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """A connection, as long as there is room."""
        unknown = sum(not one.known for one in self.connections)
        if len(self.connections) >= MOST or unknown >= MOST_UNKNOWN:
            return _Full()
        made = super().buildProtocol(addr)
        self.connections.add(made)  # type: ignore[arg-type]
        return made

    def stop(self) -> None:
        """End all connections."""
        for one in list(self.connections):
            one.end()

    def _login(self) -> SSHUserAuthServer:
        made = SSHUserAuthServer()
        made._log = QUIET
        made.clock = self.desk.reactor
        made.loginTimeout = LOGIN_TIME  # type: ignore[assignment]
        made.attemptsBeforeDisconnect = ATTEMPTS
        return made

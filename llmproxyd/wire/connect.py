"""The way to one origin: an address, a proxy in between, TLS.

Everything from the name to the end of the handshake is one attempt with one deadline.
"""

from __future__ import annotations

from typing import Any, Protocol

from OpenSSL import SSL
from twisted.internet.interfaces import IHandshakeListener, IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from llmproxyd.wire.answer import HeadReader
from llmproxyd.wire.origin import HTTPProxy, Origin
from llmproxyd.wire.race import Race, Racing
from llmproxyd.wire.wheel import Wheel

MAX_TUNNEL_HEAD = 16 * 1024
"""Bytes of a proxy's answer to ``CONNECT``."""


class ConnectTimeout(Exception):
    """No connection in time.

    :param granted: seconds.
    """

    def __init__(self, granted: float) -> None:
        super().__init__(granted)
        self.granted = granted


class ProxyRefused(Exception):
    """The configured HTTP proxy did not open the tunnel.

    :param status: what it answered, ``None`` when that was no answer.
    """

    def __init__(self, status: int | None) -> None:
        super().__init__(status)
        self.status = status


class Opened(Protocol):
    """Who wants a connection."""

    def connected(self, transport: Any) -> None:
        """*transport* reaches the origin; see :func:`attach`."""

    def failed(self, reason: Failure) -> None:
        """It cannot be reached; for a reason of Twisted's, OpenSSL's or this module's."""


def attach(transport: Any, protocol: TwistedProtocol) -> None:
    """Let *protocol* have what *transport* receives from now on."""
    if isinstance(transport, TLSMemoryBIOProtocol):
        transport.wrappedProtocol = protocol
    else:
        transport.protocol = protocol
    protocol.makeConnection(transport)


class _Tunnel(TwistedProtocol):
    """Asks a proxy for a tunnel."""

    def __init__(self, attempt: Attempt, request: bytes) -> None:
        self._attempt: Attempt | None = attempt
        self._request = request
        self._reader = HeadReader(MAX_TUNNEL_HEAD)

    def connectionMade(self) -> None:
        """Ask."""
        assert self.transport is not None
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        """A part of the answer's head."""
        reader, attempt = self._reader, self._attempt
        if attempt is None:
            return
        rest = reader.read_head(data)
        if rest is None and reader.problem is None:
            return
        self._attempt = None
        status = None if reader.problem is not None else reader.status
        if status is not None and 200 <= status < 300 and not rest:
            attempt.tunnelled(self.transport)
        else:
            # Behind a 2xx nobody may speak before we do.
            attempt.broken(Failure(ProxyRefused(status if rest is not None else None)))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It did not answer."""
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.broken(Failure(ProxyRefused(None)))


@implementer(IHandshakeListener)
class _Handshake(TwistedProtocol):
    """Waits for the end of the TLS handshake."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt: Attempt | None = attempt

    def handshakeCompleted(self) -> None:
        """The peer is who it should be."""
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.secured(self.transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Or it is not."""
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.broken(reason)


@implementer(IOpenSSLClientConnectionCreator)
class _Resuming:
    """Goes on with the last session, so that a handshake costs less.  RFC 8446 §2.2.

    :param creator: knows whom to trust; a session is made only with a peer it trusted.
    """

    def __init__(self, creator: IOpenSSLClientConnectionCreator) -> None:
        self._creator = creator
        self._session: SSL.Session | None = None

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """A connection of OpenSSL's."""
        connection: SSL.Connection = self._creator.clientConnectionForTLS(tlsProtocol)
        if self._session is not None:
            try:
                connection.set_session(self._session)
            except (ValueError, SSL.Error):  # of another context
                self._session = None
        return connection

    def remember(self, connection: SSL.Connection | None) -> None:
        """Keep what *connection* has agreed on."""
        if connection is not None:
            self._session = connection.get_session() or self._session


class Attempt:
    """One try at a connection: address, tunnel, handshake, in that order, within one time.

    :param opened: told once how it ends, later and never from here, unless it is cancelled.
    """

    __slots__ = ("_opened", "_race", "_route", "_timer", "_transport")

    def __init__(self, route: Route, opened: Opened) -> None:
        self._route = route
        self._opened: Opened | None = opened
        self._transport: Any = None
        self._timer = route.wheel.start(route.granted, self._late)
        self._race: Race | None = route.race(self)
        self._race.start()

    def cancel(self) -> None:
        """Nobody wants it any more."""
        if self._finish() is not None:
            self._drop()

    def reached(self, transport: Any) -> None:
        """There is a connection to the origin, or to the proxy."""
        self._race = None
        self._transport = transport
        proxy = self._route.proxy
        if proxy is None:
            self.tunnelled(transport)
        else:
            attach(transport, _Tunnel(self, proxy.asks_for(self._route.origin.target)))

    def unreached(self, reason: Failure) -> None:
        """There is none."""
        self._race = None
        self.broken(reason)

    def tunnelled(self, transport: Any) -> None:
        """There is a connection to the origin."""
        if self._route.tls is None:
            self.secured(transport)
            return
        attach(transport, TLSMemoryBIOProtocol(self._route.tls, _Handshake(self)))

    def secured(self, transport: Any) -> None:
        """It can be used."""
        opened = self._finish()
        self._transport = None
        if opened is not None:
            opened.connected(transport)

    def broken(self, reason: Failure) -> None:
        """It did not come so far."""
        opened = self._finish()
        if opened is not None:
            self._drop()
            opened.failed(reason)

    def _late(self) -> None:
        self.broken(Failure(ConnectTimeout(self._route.granted)))

    def _finish(self) -> Opened | None:
        opened, self._opened = self._opened, None
        self._timer.cancel()
        return opened

    def _drop(self) -> None:
        race, self._race = self._race, None
        transport, self._transport = self._transport, None
        if race is not None:
            race.cancel()
        if transport is not None:
            transport.abortConnection()


class Route:
    """The way to one origin.

    :param creator: makes TLS connections to it, ``None`` for plain HTTP.
    :param proxy: through which it leads.
    :param granted: seconds for each attempt.
    """

    def __init__(
        self,
        reactor: Any,
        wheel: Wheel,
        origin: Origin,
        *,
        creator: IOpenSSLClientConnectionCreator | None,
        proxy: HTTPProxy | None,
        granted: float,
    ) -> None:
        self.wheel = wheel
        self.origin = origin
        self.proxy = proxy
        self.granted = granted
        self._reactor = reactor
        self._resuming = None if creator is None else _Resuming(creator)
        self.tls: TLSMemoryBIOFactory | None = None
        if self._resuming is not None:
            self.tls = TLSMemoryBIOFactory(self._resuming, True, _NO_FACTORY, clock=reactor)

    def race(self, owner: Racing) -> Race:
        """The first step."""
        place = self.origin if self.proxy is None else self.proxy
        return Race(self._reactor, place.host, place.port, owner)

    def connect(self, opened: Opened) -> Attempt:
        """Begin to connect."""
        return Attempt(self, opened)

    def remember(self, transport: Any) -> None:
        """Keep the TLS session of *transport* for connections to come."""
        if self._resuming is not None:
            self._resuming.remember(transport.getHandle())


_NO_FACTORY: Any = Factory()

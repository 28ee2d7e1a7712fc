"""An ``IAgent`` that sends a raw request target as it is.

Twisted's own takes a URL apart and puts it together again, which changes ``;``, ``//`` and an
empty query; and its timeout for connecting leaves name lookup out.  Uses inner parts of
Twisted's client: ``_getEndpoint`` and ``_requestWithEndpoint`` of the agent, ``_newConnection`` of
the pool, ``_transport`` and ``_producer`` of a response.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NoReturn, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IHandshakeListener, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web._newclient import HTTP11ClientProtocol, HTTPClientParser, Request
from twisted.web.client import URI, Agent, HTTPConnectionPool, _HTTP11ClientFactory
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer, IPolicyForHTTPS, IResponse
from zope.interface import implementer


class ConnectTimeout(Exception):
    """No connection in time.

    :param granted: seconds.
    """

    def __init__(self, granted: float) -> None:
        super().__init__(granted)
        self.granted = granted


class _Parser(HTTPClientParser):
    """Leaves ``Connection`` among the fields: whoever passes them on must know what it names."""

    def headerReceived(self, name: bytes, value: bytes) -> None:
        super().headerReceived(name, value)
        if name.lower() == b"connection":
            self.headers.addRawHeader(b"connection", value)

    @property
    def persistent(self) -> bool:
        """Whether another answer may follow on this connection."""
        values = self.headers.getRawHeaders(b"connection", [])
        options = {option.strip().lower() for value in values for option in value.split(b",")}
        if self.response.version[1:] < (1, 1):
            return b"keep-alive" in options
        return b"close" not in options


@implementer(IHandshakeListener)
class _Connection(HTTP11ClientProtocol):
    """One connection to an upstream."""

    _secure = False
    _securing: Deferred[_Connection] | None = None

    def request(self, request: Request) -> Deferred[IResponse]:
        """Send *request*, when the one before is answered."""
        answered = super().request(request)
        # It was made just now by Twisted, which does not let us say of which class.
        if type(self._parser) is HTTPClientParser:
            self._parser.__class__ = _Parser
        return answered

    def _finishResponse_WAITING(self, rest: bytes) -> None:
        """Use the connection again only if both sides agree on where the answer ended."""
        parser, request = self._parser, self._currentRequest
        if isinstance(parser, _Parser) and request is not None and (rest or not parser.persistent):
            request.persistent = False
        super()._finishResponse_WAITING(rest)

    def _finishResponse_TRANSMITTING(self, rest: bytes) -> None:
        """The answer is whole before the request is: send no more, its source may soon be gone."""
        request = self._currentRequest
        super()._finishResponse_WAITING(rest)
        if request is not None:
            request.stopWriting()
        cast(Any, self.transport).abortConnection()

    def secured(self) -> Deferred[_Connection]:
        """Fires with this connection after the TLS handshake, or fails with it."""
        if self._secure:
            return succeed(self)
        self._securing = Deferred(self._give_up)
        return self._securing

    def _give_up(self, _: object) -> None:
        self._securing = None
        cast(Any, self.transport).abortConnection()

    def handshakeCompleted(self) -> None:
        """The peer is who it should be."""
        self._secure = True
        securing, self._securing = self._securing, None
        if securing is not None:
            securing.callback(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The end of the connection: that of a body without a length too, if it is a clean one."""
        securing, self._securing = self._securing, None
        decoder = None if self._parser is None else self._parser.bodyDecoder
        if not reason.check(ConnectionDone) and getattr(decoder, "contentLength", 0) is None:
            # Twisted takes any end for a whole body; with bytes still missing it does not.
            cast(Any, decoder).contentLength = 1
        super().connectionLost(reason)
        if securing is not None:
            securing.errback(reason)


class _ConnectionFactory(_HTTP11ClientFactory):
    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> HTTP11ClientProtocol:
        return _Connection(self._quiescentCallback)


class _Pool(HTTPConnectionPool):
    """A pool whose patience with a new connection includes name lookup and TLS handshake."""

    _factory = _ConnectionFactory

    def __init__(self, reactor: IReactorTime, connect_timeout: float) -> None:
        super().__init__(reactor, persistent=True)
        self._granted = connect_timeout
        self._clock = reactor

    def _newConnection(
        self, key: Hashable, endpoint: IStreamClientEndpoint
    ) -> Deferred[HTTP11ClientProtocol]:
        connecting = super()._newConnection(key, endpoint)
        if isinstance(key, tuple) and key[0] == b"https":
            connecting.addCallback(lambda made: cast(_Connection, made).secured())
        return connecting.addTimeout(self._granted, self._clock, _late)


def abort(body: object) -> None:
    """Close at once the connection from which an answer's body comes.

    :param body: the answer, or the transport that its body's protocol was given.  Both hide the
        connection, and the way out that they do offer waits for a TLS peer to say goodbye.
    """
    transport = getattr(body, "_transport", body)
    connection = getattr(transport, "_producer", None)
    if connection is not None:
        connection.abortConnection()


def _late(result: object, timeout: float) -> NoReturn:
    raise ConnectTimeout(timeout)


class ProxyAgent(Agent):
    """Requests with the target as given, over a pool of kept connections.

    :param connect_timeout: seconds for name lookup and connection.
    :param max_idle: how many idle connections are kept per host.
    :param idle: seconds for which an idle one is kept.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        tls: IPolicyForHTTPS,
        *,
        connect_timeout: float,
        max_idle: int,
        idle: float,
    ) -> None:
        pool = _Pool(reactor, connect_timeout)
        pool.maxPersistentPerHost = max_idle
        pool.cachedConnectionTimeout = idle  # type: ignore[assignment]
        super().__init__(reactor, contextFactory=tls, pool=pool, connectTimeout=connect_timeout)
        self.pool = pool
        self._parsed: dict[bytes, URI] = {}

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """Send one request; *uri* is an origin followed by the raw target."""
        start = uri.index(b"/", uri.index(b"://") + 3)
        origin, target = uri[:start], uri[start:]
        parsed = self._parsed.get(origin)
        if parsed is None:
            parsed = self._parsed[origin] = URI.fromBytes(origin)
        return self._requestWithEndpoint(
            (parsed.scheme, parsed.host, parsed.port),
            self._getEndpoint(parsed),
            method,
            parsed,
            headers,
            bodyProducer,
            target,
        )

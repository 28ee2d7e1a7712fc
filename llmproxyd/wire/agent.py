"""An ``IAgent`` that sends a raw request target as it is.

Twisted's own takes a URL apart and puts it together again, which changes ``;``, ``//`` and an
empty query; and its timeout for connecting leaves name lookup out.  Uses two inner parts of
:class:`twisted.web.client.Agent` (``_getEndpoint`` and ``_requestWithEndpoint``).
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import NoReturn

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.web._newclient import HTTP11ClientProtocol
from twisted.web.client import URI, Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer, IPolicyForHTTPS, IResponse


class ConnectTimeout(Exception):
    """No connection in time.

    :param granted: seconds.
    """

    def __init__(self, granted: float) -> None:
        super().__init__(granted)
        self.granted = granted


class _Pool(HTTPConnectionPool):
    """A pool whose patience with a new connection includes name lookup."""

    def __init__(self, reactor: IReactorTime, connect_timeout: float) -> None:
        super().__init__(reactor, persistent=True)
        self._granted = connect_timeout
        self._clock = reactor

    def _newConnection(
        self, key: Hashable, endpoint: IStreamClientEndpoint
    ) -> Deferred[HTTP11ClientProtocol]:
        connecting = super()._newConnection(key, endpoint)
        return connecting.addTimeout(self._granted, self._clock, _late)


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

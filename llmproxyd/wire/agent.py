"""An ``IAgent`` for requests that go out exactly as they are given.

Method, target, fields and their order are the caller's; only the framing is written here.
llhttp reads the answers (:mod:`~llmproxyd.wire.answer`), connections are kept and shared
(:mod:`~llmproxyd.wire.pool`), and nothing is decoded, followed or remembered.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IBodyProducer, IPolicyForHTTPS, IResponse
from zope.interface import implementer

from llmproxyd.model import Response
from llmproxyd.wire.answer import BadAnswer
from llmproxyd.wire.call import LAST_CHUNK, Call, Receiver, chunked
from llmproxyd.wire.connect import ConnectTimeout, ProxyRefused, Route
from llmproxyd.wire.connection import Stale
from llmproxyd.wire.headers import TOKEN, Ready, WireHeaders
from llmproxyd.wire.origin import HTTPProxy, Origin
from llmproxyd.wire.pool import Limits, Pool, PoolTimeout
from llmproxyd.wire.response import WireResponse
from llmproxyd.wire.wheel import Wheel

__all__ = [
    "BadAnswer",
    "ConnectTimeout",
    "PoolTimeout",
    "ProxyAgent",
    "ProxyRefused",
    "Receiver",
    "Stale",
    "WireHeaders",
    "WireResponse",
    "abort",
]

MAX_ORIGINS = 64
"""Origins that are remembered, beyond those with open connections."""

MAX_KNOWN = 512
"""URLs that are remembered taken apart."""

_SAFE = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"})
"""Methods that may be sent twice, if their body can.  RFC 9110 §9.2.2."""

_WITH_BODY = frozenset({b"POST", b"PUT", b"PATCH"})
"""Methods that say so when there is no body.  RFC 9110 §8.6."""

_METHODS = _SAFE | _WITH_BODY

_NO_TARGET = re.compile(rb"[^\x21-\x7e]")
"""What ends a target, or is to be percent-encoded in it.  RFC 3986 §2."""


def abort(body: object) -> None:
    """Close at once the connection from which an answer's body comes.

    :param body: the answer, or the transport that its body's protocol was given.  Nothing
        happens when the answer is whole: the connection serves others by then.
    """
    close = getattr(body, "abortConnection", None)
    if close is not None:
        close()


class _Site:
    """What is known of one origin."""

    __slots__ = ("host_line", "pool")

    def __init__(self, host_line: bytes, pool: Pool) -> None:
        self.host_line = host_line
        self.pool = pool


_Known = tuple[Pool, bytes, bytes]
"""A URL taken apart: who has connections, the rest of the request line, the line of ``Host``."""


@implementer(IAgent)
class ProxyAgent:
    """Sends requests, over kept connections where there are some.

    :param reactor: for TCP, names and time.
    :param tls: whom to trust.
    :param wheel: for the deadlines.
    :param connect_timeout: seconds for name lookup, connection, tunnel and TLS handshake; and
        for the wait until one of *max_connections* is free.
    :param max_connections: open at once per origin; as many requests may wait for one.
    :param max_idle: connections that are kept per origin.
    :param idle: seconds for which one is kept.
    :param proxy: ``http://[user:password@]host[:port]`` through which all of them lead.
    :raises ValueError: *proxy* is no such URL.
    """

    def __init__(
        self,
        reactor: Any,
        tls: IPolicyForHTTPS,
        *,
        wheel: Wheel,
        connect_timeout: float,
        max_connections: int = 256,
        max_idle: int = 64,
        idle: float = 90.0,
        proxy: bytes | None = None,
    ) -> None:
        self._reactor = reactor
        self._tls = tls
        self._wheel = wheel
        self._limits = Limits(connect_timeout, max_connections, max_idle, idle)
        self._proxy = None if proxy is None else HTTPProxy(proxy)
        self._sites: dict[bytes, _Site] = {}
        self._known: dict[bytes, _Known] = {}
        self._closing = False

    @property
    def idle_connections(self) -> int:
        """How many connections are kept for use."""
        return sum(site.pool.idle for site in self._sites.values())

    @property
    def open_connections(self) -> int:
        """How many connections are open or being made."""
        return sum(site.pool.open for site in self._sites.values())

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
        *,
        interim: Callable[[Response], None] | None = None,
        receiver: Receiver | None = None,
    ) -> Deferred[IResponse]:
        """Send one request; fires with the head of its answer, a :class:`WireResponse`.

        Fails with :class:`ConnectTimeout`, :class:`PoolTimeout`, :class:`ProxyRefused` or an
        error of Twisted's or OpenSSL's when there is no connection; with ``ConnectionDone`` or
        ``ConnectionLost`` when it was closed before a byte of the answer (:class:`Stale` if it
        had been a kept one); with :class:`BadAnswer` when what came is not HTTP; with what the
        body's producer failed with.  To cancel it closes the connection.

        :param uri: an origin followed by the raw target, from its slash on.
        :param headers: all fields, :class:`WireHeaders` to keep order and case.  The place of a
            ``Content-Length`` or ``Transfer-Encoding`` is where the framing is written.
        :param bodyProducer: one with an attribute ``data`` goes out with the head at once.
        :param interim: called with each interim answer but 100 (RFC 9110 §15.2).
        :param receiver: makes of the :class:`WireResponse`, or of the failure, what is fired with.
        :raises ValueError: the request could be read as something else than what was meant.
        """
        known = self._known.get(uri)
        if known is None:
            known = self._know(uri)
        if type(headers) is not WireHeaders:
            headers = WireHeaders.of(headers)
        ready = headers.ready
        if ready is None or ready[0] is not known or ready[1] is not method:
            ready = headers.ready = _prepare(known, method, headers)
        _, _, start, length_start, coding_start, after, head, safe, close = ready
        data: bytes | None = None
        if bodyProducer is None:
            begun = data = length_start + b"0\r\n" + after if method in _WITH_BODY else start + after
        else:
            data = getattr(bodyProducer, "data", None)
            length = bodyProducer.length
            if length == UNKNOWN_LENGTH:
                begun = b"".join((coding_start, after, b"" if data is None else chunked(data) + LAST_CHUNK))
            elif data is None:
                begun = b"".join((length_start, b"%d\r\n" % length, after))
            else:
                begun = b"".join((length_start, b"%d\r\n" % len(data), after, data))
        call = Call(begun, bodyProducer if data is None else None, head, safe, close, interim, receiver)
        answered = call.answered
        assert answered is not None
        known[0].send(call)
        return answered

    def close(self) -> Deferred[None]:
        """Close idle connections and keep none from now on; fires when they are gone.

        Requests under way go on, and new ones are taken.
        """
        self._closing = True
        closing = DeferredList([site.pool.close() for site in self._sites.values()])
        return closing.addCallback(_nothing)

    def _know(self, uri: bytes) -> _Known:
        """Take *uri* apart; most requests go where others have gone before."""
        slash = uri.find(b"/", 8)  # neither http:// nor https:// has a host before that
        if slash < 0:
            raise ValueError("no target behind the origin")
        origin, target = uri[:slash], uri[slash:]
        if _NO_TARGET.search(target):
            raise ValueError("the target has characters that no target has")
        site = self._sites.get(origin) or self._add(origin)
        known = (site.pool, b" %b HTTP/1.1\r\n" % target, site.host_line)
        # Not one with a query: it hardly comes again, and some have keys in it.
        if len(self._known) < MAX_KNOWN and len(uri) <= 256 and b"?" not in target:
            self._known[uri] = known
        return known

    def _add(self, text: bytes) -> _Site:
        origin = Origin.parse(text)
        if len(self._sites) >= MAX_ORIGINS:
            self._known.clear()
            for key in [key for key, site in self._sites.items() if not site.pool.open]:
                del self._sites[key]
        route = Route(
            self._reactor,
            self._wheel,
            origin,
            creator=self._tls.creatorForNetloc(origin.host, origin.port) if origin.secure else None,
            proxy=self._proxy,
            granted=self._limits.connect_timeout,
        )
        pool = Pool(route, self._wheel, self._limits)
        if self._closing:
            pool.close()
        site = self._sites[text] = _Site(b"Host: %b\r\n" % origin.authority, pool)
        return site


def _prepare(known: _Known, method: bytes, headers: WireHeaders) -> Ready:
    """What requests that differ in nothing but their bodies have in common.

    :raises ValueError: see :meth:`ProxyAgent.request`.
    """
    if method not in _METHODS and (not TOKEN.fullmatch(method) or method == b"CONNECT"):
        raise ValueError("not a method of a request to an origin")
    _, line, host_line = known
    before, after, length_name, coding_name, host, close = headers.encoded()
    start = b"".join((method, line, b"" if host else host_line, before))
    length_start = start + length_name + b": "
    coding_start = b"%b%b: chunked\r\n" % (start, coding_name)
    head, safe = method == b"HEAD", method in _SAFE
    return known, method, start, length_start, coding_start, after, head, safe, close


def _nothing(_: object) -> None:
    return None

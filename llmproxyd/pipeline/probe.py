"""One cheap call to an upstream on an operator's behalf: the list of its models, or else its root.

It goes the way of every request, but past the breaker and without retries, and counts for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from llmproxyd.errors import ProxyError
from llmproxyd.http.headers import first
from llmproxyd.inspection.inflate import inflater
from llmproxyd.model import RawHeaders, Request, Response
from llmproxyd.pipeline.policy import Upstream
from llmproxyd.pipeline.sends import Sends
from llmproxyd.pipeline.upstream import head_of, outgoing
from llmproxyd.providers.base import EndpointKind
from llmproxyd.redaction import Redactor
from llmproxyd.wire.agent import WireResponse, abort

PATHS = (b"/v1/models", b"/models", b"/api/v1/models", b"/v1beta/models", b"/openai/v1/models", b"/api/tags")
"""Where APIs have their lists of models; the first that the provider knows is asked for."""

EXCERPT = 4096
"""Bytes of the answer that are told."""

GRANTED = 15.0
"""Seconds in which it is over."""


class Prober:
    """Makes such calls.

    :param upstreams: by name.
    :param now: monotonic seconds.
    """

    def __init__(
        self,
        upstreams: Mapping[str, Upstream],
        sender: Sends,
        clock: Any,
        redactor: Redactor,
        now: Callable[[], float],
    ) -> None:
        self._upstreams = upstreams
        self._sender = sender
        self._clock = clock
        self._redactor = redactor
        self._now = now

    def probe(self, upstream: str) -> Deferred[Mapping[str, object]]:
        """See :class:`llmproxyd.control.probes.Probe`."""
        place = self._upstreams[upstream]
        request = Request(b"GET", path_for(place), [(b"Host", place.host), (b"Accept", b"application/json")])
        going = outgoing(place, request, request.target)
        began = self._now()
        sent: dict[str, object] = {
            "method": "GET",
            "url": self._redactor.url(going.url.decode("latin-1")),
            "headers": self._fields(going.headers.raw),
        }

        def told(verdict: str, ok: bool, received: dict[str, object] | None) -> Mapping[str, object]:
            duration = round(self._now() - began, 3)
            return {"ok": ok, "verdict": verdict, "sent": sent, "received": received, "duration": duration}

        def answered(found: tuple[Response, bytes]) -> Mapping[str, object]:
            head, body = found
            verdict, ok = verdict_of(head.status, keyed=place.keyed)
            return told(verdict, ok, self._received(head, body))

        def failed(failure: Failure) -> Mapping[str, object]:
            error = failure.value
            why = error.message if isinstance(error, ProxyError) else "it did not answer in time"
            return told(f"cannot be reached: {why}", False, None)

        sending = self._sender.send(going, None).addCallback(_read)
        return sending.addTimeout(GRANTED, self._clock).addCallbacks(answered, failed)

    def _received(self, head: Response, body: bytes) -> dict[str, object]:
        reader = inflater(first(head.headers, b"content-encoding") or b"", EXCERPT)
        text = b"" if reader is None else reader.feed(body)
        return {
            "status": head.status,
            "headers": self._fields(head.headers),
            "body": self._redactor.text(text[:EXCERPT].decode("utf-8", "replace")),
        }

    def _fields(self, headers: RawHeaders) -> list[list[str]]:
        return [list(pair) for pair in self._redactor.fields(headers)]


def path_for(upstream: Upstream) -> bytes:
    """What is cheap to ask of *upstream*."""
    for path in PATHS:
        endpoint = upstream.provider.endpoint(b"GET", path)
        if endpoint is not None and endpoint.kind is EndpointKind.METADATA:
            return path
    return b"/"


def verdict_of(status: int, *, keyed: bool) -> tuple[str, bool]:
    """What an answer with *status* says of the upstream, and whether a request would do as well.

    :param keyed: a key of ours was sent.
    """
    if status in (401, 403):
        if keyed:
            return f"refuses the key ({status})", False
        return f"answers, and wants a key ({status}); none is stored here", True
    if status == 429:
        return "answers, and limits the rate (429)", True
    if status >= 500:
        return f"fails ({status})", False
    if status == 404:
        return "answers, but has no list of models (404)", True
    return f"answers ({status})", True


@implementer(IProtocol)
class _Excerpt:
    """Reads the beginning of a body, and no more."""

    def __init__(self, incoming: WireResponse, done: Deferred[bytes]) -> None:
        self._incoming = incoming
        self._done: Deferred[bytes] | None = done
        self._data = b""

    def makeConnection(self, transport: Any) -> None:
        """The body begins."""

    def connectionMade(self) -> None:
        """See :meth:`makeConnection`."""

    def dataReceived(self, data: bytes) -> None:
        """A piece of it."""
        self._data += data
        if len(self._data) >= EXCERPT:
            abort(self._incoming)

    def connectionLost(self, reason: Failure) -> None:
        """It is over, or enough."""
        done, self._done = self._done, None
        if done is not None:
            done.callback(self._data[:EXCERPT])


def _read(incoming: WireResponse) -> Deferred[tuple[Response, bytes]]:
    head = head_of(incoming)
    done: Deferred[bytes] = Deferred(lambda _: abort(incoming))
    incoming.deliverBody(_Excerpt(incoming, done))
    return done.addCallback(lambda body: (head, body))

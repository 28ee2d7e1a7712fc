"""An answer from the cache, onto the wire, and what is told of it.

Cache-Status is that of RFC 9211; ``X-Cache-Status`` says the same in a word (hit, miss, bypass),
and ``X-Cache-Debug`` why.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from llmproxyd.cache.directives import MOST
from llmproxyd.cache.interface import Entry
from llmproxyd.cache.policy import Serve
from llmproxyd.errors import ProxyError
from llmproxyd.http.headers import content_of
from llmproxyd.model import End, Response
from llmproxyd.pipeline.commit import form_of
from llmproxyd.pipeline.exchange import Exchange, Notes
from llmproxyd.pipeline.marks import NOTES, id_marks, is_named, limit_marks, marks_of, readable_by_pages
from llmproxyd.providers.base import Endpoint
from llmproxyd.wire.fields import Lines, with_block

SLICE = 64 * 1024
"""Bytes that are written at once: a client that reads slowly holds no more than that of a large body."""


def fresh_notes(ttl: int) -> Notes:
    """What is told of an answer that was fresh for so many seconds more."""
    return b"llmproxyd; hit; ttl=%d" % ttl, b"hit", b"fresh"


def notes(result: bytes, why: str, *parameters: bytes) -> Notes:
    """What is told of any other answer.

    :param result: for people: ``hit``, ``miss``, ``bypass``.
    :param parameters: of ``Cache-Status``, RFC 9211 §2.
    """
    return b"; ".join((b"llmproxyd", *parameters)), result, why.encode("latin-1", "replace")


@lru_cache(maxsize=64)
def forwarded(why: str) -> Notes:
    """What is told of a request that goes upstream, as what is stored does not answer it."""
    return notes(b"miss", why, b"fwd=" + why.encode())


MISSED = forwarded("uri-miss")
"""The same where nothing is stored."""


@lru_cache(maxsize=256)
def stored(notes: Notes) -> Notes:
    """*notes*, and that the answer is kept."""
    status, result, debug = notes
    return status + b"; stored", result, debug


@lru_cache(maxsize=256)
def not_stored(notes: Notes, why: str) -> Notes:
    """*notes*, and why the answer is not kept."""
    status, result, _ = notes
    return status, result, b"not stored: " + why.encode("latin-1", "replace")


NO_TURN = notes(b"bypass", "method", b"fwd=method")
"""What is told of a request that the cache has nothing to do with."""


def serve(exchange: Exchange, found: Serve, seconds: Callable[[], float]) -> None:
    """Answer *exchange* from the cache; what is told of it stands in its notes.

    A stream goes out as a stream, although its length is known.

    :param seconds: monotonic.
    """
    now = seconds()
    # Made for this answer alone, so that it may be changed.
    head, body = found.head, found.body
    if form_of(exchange, content_of(head.headers)[0]) is not None:
        exchange.streamed, head.length = True, None
    if exchange.usage is not None:
        exchange.usage.head(None, None, b"")
    if exchange.cors:
        head.headers = readable_by_pages(head.headers, exchange.cors)
    if exchange.policy.marks:
        head.headers = with_block(head.headers, marks_of(exchange, head.headers, now))
    exchange.start(head, now)
    if len(body) > SLICE:
        Replay(exchange, body, seconds).begin()
        return
    if body:
        exchange.write(body, last=True)
    exchange.finish(now)


class _Ready:
    """What need not be found out again of an entry that is served more than once.

    :ivar block: its fields, each with the CRLF before it.
    :ivar endpoint: for which it holds.
    :ivar streamed: it is a stream.
    :ivar named: the upstream has given it an id in the usual field.
    """

    __slots__ = ("block", "endpoint", "named", "streamed")

    def __init__(self, endpoint: Endpoint | None, entry: Entry) -> None:
        headers = entry.headers
        block = headers.block if isinstance(headers, Lines) else None
        self.block = b"".join([b"\r\n%b: %b" % pair for pair in headers]) if block is None else block
        self.endpoint = endpoint
        self.named = is_named(entry.headers)
        media = content_of(entry.headers)[0]
        self.streamed = endpoint is not None and endpoint.form_of(media) is not None


def serve_fresh(exchange: Exchange, entry: Entry, age: float, now: float) -> bool:
    """Answer *exchange* with *entry*, if that takes no more than to write it.

    It stands for :func:`serve` where an answer is small and nobody looks at it, as most are.

    :param age: seconds; it is younger than its lifetime.
    :param now: monotonic seconds.
    """
    policy, plan, body = exchange.policy, exchange.plan, entry.body
    if plan is None or plan.cors or policy.capture[1] or exchange.charge is not None or len(body) > SLICE:
        return False
    route = plan.route
    endpoint = None if route is None else route.endpoint
    ready = entry.ready
    if type(ready) is not _Ready or ready.endpoint is not endpoint:
        ready = entry.ready = _Ready(endpoint, entry)
    exchange.cache = "hit"
    exchange.streamed = ready.streamed
    exchange.taps = None  # there is no usage to be read: nothing was used
    ours = b"\r\nAge: %d" % min(age, MOST)
    if policy.marks:
        ours += id_marks(exchange, named=ready.named)
        ours += NOTES % fresh_notes(int((entry.lifetime - age) // 1))
        if exchange.standings:
            ours += limit_marks(exchange.standings)
    fields = Lines(ready.block + ours)
    length = None if ready.streamed else len(body)
    exchange.start(Response(entry.status, entry.reason, fields, length), now)
    if body:
        exchange.write(body, last=True)
    exchange.finish(now)
    return True


@implementer(IPushProducer)
class Replay:
    """Writes a large body at the client's pace."""

    __slots__ = ("_at", "_body", "_exchange", "_paused", "_seconds")

    def __init__(self, exchange: Exchange, body: bytes, seconds: Callable[[], float]) -> None:
        self._exchange = exchange
        self._body = body
        self._seconds = seconds
        self._at = 0
        self._paused = False

    def begin(self) -> None:
        """Write as much as the client takes; the rest when it has read."""
        exchange = self._exchange
        assert exchange.responder is not None
        exchange.give_up = self._give_up
        exchange.responder.feed_from(self)
        self.resumeProducing()

    def pauseProducing(self) -> None:
        """The client does not keep up."""
        self._paused = True

    def resumeProducing(self) -> None:
        """The client reads again."""
        self._paused = False
        exchange, body = self._exchange, self._body
        while not self._paused and not exchange.done:
            start = self._at
            self._at = end = start + SLICE
            last = end >= len(body)
            if last and exchange.responder is not None:
                exchange.responder.fed()
            exchange.write(body[start:end], last=last)
            if last:
                exchange.finish(self._seconds())
                return

    def stopProducing(self) -> None:
        """The client is gone; :meth:`Exchange.client_gone` does what follows."""

    def _give_up(self, error: ProxyError) -> None:
        """Break off, visibly."""
        exchange = self._exchange
        if exchange.responder is not None:
            exchange.responder.fed()
        exchange.cut(End.TRUNCATED, error.code, error.message, self._seconds())

"""One client's connection: HTTP/1.0 and 1.1, read by llhttp, for resources of twisted.web.

Bytes come in one of few states (a head, a body, the next request too early, what follows a
refusal); one request is in work at a time and those behind it wait in the transport.  Strict by
RFC 9112; what is refused there gets an answer, and then the connection ends in a way that
lets the client read it (§9.6).
"""

from __future__ import annotations

from collections.abc import Sequence
from email.utils import formatdate
from enum import Enum
from typing import Any
from typing import Protocol as TypingProtocol

from httptools import HttpParserError, HttpRequestParser
from twisted.internet._producer_helpers import _PullToPush
from twisted.internet.interfaces import IAddress, IPushProducer, ISSLTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from zope.interface import implementer

from llmproxyd.model import Request, WallClock
from llmproxyd.wire import transport as wire_transport
from llmproxyd.wire.body import AHEAD, IncomingBody
from llmproxyd.wire.chunks import Chunks
from llmproxyd.wire.head import (
    MAX_LINE,
    BadRequest,
    Head,
    Limits,
    begun,
    check_number,
    check_size,
    parse,
    salvaged,
)
from llmproxyd.wire.outgoing import BODILESS, Answer, field_lines
from llmproxyd.wire.request import WireRequest
from llmproxyd.wire.wheel import Timer, Wheel

END = b"\r\n\r\n"

DRAIN_BYTES = 1024 * 1024
DRAIN_SECONDS = 2.0
"""How much is read behind a refusal, and for how long (RFC 9112 §9.6)."""

LOOK = 1.0
"""Seconds between two looks at a client whose sending is held back: is it still there?"""

GRACE = 1.0
"""Seconds in which a connection that was made or used a moment ago may still bring a request, although the
site closes: that request may have been sent before its client could know."""


class _State(Enum):
    """What the next byte belongs to."""

    HEAD = "head"
    LENGTH = "length"
    CHUNKED = "chunked"
    HELD = "held"
    DRAIN = "drain"
    DEAF = "deaf"


# Looked up once: an attribute of an Enum class costs what a method call costs.
_HEAD, _LENGTH, _CHUNKED, _HELD, _DRAIN, _DEAF = _State


class Owner(TypingProtocol):
    """What a connection needs of its site: :class:`~llmproxyd.wire.site.WireSite`."""

    clock: Any
    wall: WallClock
    wheel: Wheel
    limits: Limits
    channels: set[Channel]
    closing: bool

    def refuse(self, error: BadRequest, request: Request, answer: Answer) -> None:
        """Answer a request that is not valid."""

    def left(self) -> None:
        """A connection is over, while the site closes."""


@implementer(IPushProducer)
class Channel(Protocol):
    """A connection of a site.

    :ivar site: whose resources answer.
    :ivar modern: the request in work is HTTP/1.1.
    """

    transport: Any

    __slots__ = (
        "_answer",
        "_body",
        "_body_waits",
        "_chunks",
        "_continues",
        "_drained",
        "_fed",
        "_fields",
        "_full",
        "_head",
        "_held",
        "_last",
        "_left",
        "_parser",
        "_part",
        "_peer",
        "_producer",
        "_pulled",
        "_reading",
        "_ready",
        "_request",
        "_sent",
        "_since",
        "_stall",
        "_state",
        "_stuck_since",
        "_taking",
        "_timer",
        "_watch",
        "connected",
        "factory",
        "modern",
        "site",
        "transport",
    )

    def __init__(self, site: Owner) -> None:
        self.site: Owner = site
        self.factory: Any = site
        self.modern = True
        self._state = _HEAD
        self._peer = "-"
        # A head that has come in part, the last one that was whole, and what reads them.
        self._part = bytearray()
        self._head: Head | None = None
        self._fields: list[tuple[bytes, bytes]] = []
        self._parser: HttpRequestParser | None = None
        self._fed = 0
        # A body.
        self._body: IncomingBody | None = None
        self._left = 0
        self._chunks: Chunks | None = None
        # The request in work.
        self._request: WireRequest | None = None
        self._answer: Answer | None = None
        self._ready = False
        self._last = False
        self._continues = False
        # What is held back, on either side.
        self._taking = False
        self._held = b""
        self._body_waits = False
        self._reading = True
        self._full = False
        self._producer: Any = None
        self._pulled = False
        # Deadlines.
        self._drained = 0
        self._since = 0.0
        self._sent = 0
        self._stuck_since = 0.0
        self._timer: Timer | None = None
        self._stall: Timer | None = None
        self._watch: Timer | None = None

    # The connection.

    def connectionMade(self) -> None:
        """A client is there."""
        site = self.site
        wire_transport.prepare(self.transport)
        self.transport.registerProducer(self, True)
        self._peer = _address(self.transport.getPeer())
        self._since = site.wheel.seconds()
        self._timer = site.wheel.start(site.limits.idle_timeout, self._look)
        site.channels.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The client is gone, or we have ended it."""
        self._state = _DEAF
        self.site.channels.discard(self)
        for timer in (self._timer, self._stall, self._watch):
            if timer is not None:
                timer.cancel()
        self._timer = self._stall = self._watch = None
        request, self._request = self._request, None
        answer, self._answer = self._answer, None
        body, self._body = self._body, None
        producer, self._producer = self._producer, None
        self._forget_chunks()
        self._parser = self._head = None
        self._held = b""
        if answer is not None:
            answer.client_gone()
        if producer is not None:
            # It may work for others as well, whom a client that did not read held up.
            producer.stopProducing()
        if body is not None:
            body.fail(reason)
        if request is not None:
            request.connectionLost(reason)
        if self.site.closing:
            self.site.left()

    def dataReceived(self, data: bytes) -> None:
        """Bytes from the client."""
        self._taking = True
        try:
            while data:
                state = self._state
                if state is _HEAD:
                    data = self._take_head(data)
                elif state is _LENGTH:
                    data = self._take_length(data)
                elif state is _CHUNKED:
                    data = self._take_chunks(data)
                elif self._ready:
                    self._dispatch()
                elif state is _HELD:
                    self._hold(data)
                    return
                elif state is _DRAIN:
                    self._drain(data)
                    return
                else:
                    return
            if self._ready:
                self._dispatch()
        except BadRequest as error:
            # Whoever is told keeps it: without the frames that it came through, and this connection.
            error.__context__ = None
            self.refuse(error.with_traceback(None))
        finally:
            self._taking = False

    # What comes in.

    def _take_head(self, data: bytes) -> bytes:
        part = self._part
        before = len(part)
        if before:
            start = max(0, len(part) - 3)
            part += data
            end = part.find(END, start)
            if end >= 0:
                block = bytes(part)
        else:
            while data.startswith(b"\r\n"):
                data = data[2:]
            end = data.find(END)
            block = data
        if end < 0:
            self._part_of_head(data, before)
            return b""
        end += 4
        raw, rest = block[:end], block[end:]
        if part:
            self._part = bytearray()
            while raw.startswith(b"\r\n"):
                raw = raw[2:]
            if not raw:
                return rest
        return self._begin(raw, rest)

    def _part_of_head(self, data: bytes, before: int) -> None:
        """More of a head whose end has not come yet.

        :param before: how many bytes of it had come already.
        """
        part = self._part
        if not before:
            part += data
        while part.startswith(b"\r\n"):
            del part[:2]
        if len(part) < 2 and bytes(part) in (b"", b"\r"):
            return  # an empty line is no request as yet, and no sign of life
        if before < 2:
            self._since = self.site.wheel.seconds()
            if self._timer is not None:
                self._timer.restart(self.site.limits.header_timeout)
        whole = bytes(part)
        begun(whole, self.site.limits)
        self._probe(whole)

    def _probe(self, whole: bytes) -> None:
        """Let llhttp see what has come of a head, so that a bad one fails at once."""
        line_end = whole.find(b"\r\n")
        if line_end < 0:
            return
        if self._parser is None:
            self._fields = []
            self._parser, self._fed = HttpRequestParser(self), 0
        try:
            self._parser.feed_data(whole[self._fed :])
        except HttpParserError:
            # What is wrong is told by whoever judges the whole head: that must not depend on
            # how it was cut into pieces.
            self._parse(whole)
            raise BadRequest(400, "bad_request", "The header is not valid HTTP.") from None
        else:
            self._fed = len(whole)
            check_number(self._fields)

    def _begin(self, raw: bytes, rest: bytes) -> bytes:
        """A head is there: what it means, and what follows it.

        :param rest: what has come behind it.
        :returns: what of that is still to be looked at.
        """
        self._parser = None
        last, site = self._head, self.site
        head = None if last is None else last.again(raw)
        if head is None:
            head = self._parse(raw)
        self._head = head
        length = head.length
        self.modern = head.modern
        self._last = not head.keep_alive or site.closing
        self._continues = head.expects
        body = IncomingBody(length, site.limits.max_body, self, site.clock)
        answer = self._answer = Answer(self, head=head.bodiless)
        self._request = WireRequest(self, head, body, answer)
        self._ready = True
        if length == 0:
            self._state = _HELD
        elif length is None:
            self._body = body
            self._state = _CHUNKED
            self._chunks = Chunks(site.limits.max_headers)
        elif len(rest) >= length:
            # As most bodies come: nothing has to be waited for.
            self._state = _HELD
            body.came_whole(rest[:length])
            return rest[length:]
        else:
            self._body = body
            self._state, self._left = _LENGTH, length
        return rest

    def _parse(self, raw: bytes) -> Head:
        self._parser = None
        self._fields = []
        try:
            if len(raw) > MAX_LINE or len(raw) > self.site.limits.max_headers:
                check_size(raw, self.site.limits)
            return parse(raw, HttpRequestParser(self), self._fields, self._peer)
        except BadRequest as error:
            error.request = error.request or salvaged(raw, self._peer)
            raise

    def _take_length(self, data: bytes) -> bytes:
        body = self._body
        assert body is not None
        count = len(data)
        rest = b""
        if count > self._left:
            data, rest = data[: self._left], data[self._left :]
            count = self._left
        self._left -= count
        if self._left:
            self._since = self.site.wheel.seconds()
            body.receive(data)
        else:
            self._state = _HELD
            body.receive(data)
            self._body_whole(body)
        return rest

    def _take_chunks(self, data: bytes) -> bytes:
        body, chunks = self._body, self._chunks
        assert body is not None
        assert chunks is not None
        self._since = self.site.wheel.seconds()
        piece, rest = chunks.feed(data)
        if chunks.whole:
            self._state = _HELD
            self._chunks = None
        if piece:
            body.receive(piece)
        if chunks.whole:
            self._body_whole(body)
        return rest

    def _forget_chunks(self) -> None:
        chunks, self._chunks = self._chunks, None
        if chunks is not None:
            chunks.close()

    def _body_whole(self, body: IncomingBody) -> None:
        self._body = None
        body.end()
        if self._answer is None and self._state is _HELD:
            # It was answered before it had come; now the next one may.
            self._await_next()

    def _hold(self, data: bytes) -> None:
        """The client is ahead of us: what it sends waits here, and soon in its own buffers."""
        self._held += data
        if len(self._held) > AHEAD:
            self._pace()

    def _drain(self, data: bytes) -> None:
        self._drained += len(data)
        if self._drained > DRAIN_BYTES and self._answer is None:
            self._close_now(abort=False)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of a head: called by llhttp."""
        self._fields.append((name, value))

    # The request in work.

    def _dispatch(self) -> None:
        self._ready = False
        assert self._request is not None
        self._request.process()

    def refuse(self, error: BadRequest) -> None:
        """Answer what cannot be served, and end the connection so that the answer is read."""
        self._last = True
        self._state = _DRAIN
        body, self._body = self._body, None
        self._forget_chunks()
        if self._answer is not None and not self._ready:
            # It is in work: whoever reads the body is told.  An answer under way ends as it can.
            if body is not None:
                body.fail(Failure(error))
            return
        request = error.request
        if request is None:
            head = self._head if self._ready else None
            request = salvaged(bytes(self._part), self._peer) if head is None else head.request
        self._ready = False
        self._request = None
        self._part = bytearray()
        answer = self._answer = Answer(self, head=request.method == b"HEAD")
        self.site.refuse(error, request, answer)

    def _await_next(self) -> None:
        """The next request's head may come."""
        self._state = _HEAD
        self._since = self.site.wheel.seconds()
        if self._held and not self._taking:
            held, self._held = self._held, b""
            self._pace()
            self.dataReceived(held)

    def _end(self) -> None:
        """Half-close, and read on for a while: a client that still sends must not miss the answer."""
        self._state = _DRAIN
        self._held = b""
        self._drained = 0
        self._forget_chunks()
        body, self._body = self._body, None
        if body is not None:
            body.throw_away()
        self._body_waits = False
        self._since = self.site.wheel.seconds()
        self._sent, self._stuck_since = wire_transport.taken(self.transport), self._since
        self._pace()
        if self._timer is not None:
            self._timer.restart(DRAIN_SECONDS)
        self.transport.unregisterProducer()
        wire_transport.half_close(self.transport)

    # An answer goes out: see :class:`~llmproxyd.wire.outgoing.Connection`.

    def persists(self) -> bool:
        """Whether the connection is kept after the answer whose head is being written."""
        if self._body is not None:
            # The rest of the body would have to be read first: a little of it, if it comes at all.
            little = self._state is _LENGTH and self._left <= DRAIN_BYTES and not self._continues
            self._last = self._last or not little
        return not (self._last or self.site.closing)

    def lose_persistence(self) -> None:
        """The end of the answer will be the end of the connection."""
        self._last = True

    def send(self, data: bytes) -> None:
        """Write *data* now."""
        self.transport.write(data)

    def answered(self) -> None:
        """The answer is over."""
        if self._answer is None:
            return
        self._answer = self._request = self._producer = None
        if self._last or self.site.closing or self._state is _DRAIN:
            self._end()
        elif self._state is _HELD:
            self._await_next()
        elif self._body is not None:
            self._body.throw_away()

    def break_off(self, *, reset: bool) -> None:
        """End the connection in the middle of the answer."""
        self._answer = self._request = self._producer = None
        if reset:
            self._close_now(abort=True)
        else:
            self._end()

    def feed_from(self, producer: IPushProducer | None) -> None:
        """Let the client's pace pause and resume *producer*."""
        self._producer = producer
        if producer is not None and self._full:
            producer.pauseProducing()

    # The body's reader is slow or quick: see :class:`~llmproxyd.wire.body.Origin`.

    def body_wanted(self) -> None:
        """The request is accepted: the client may send its body."""
        if self._continues:
            self._continues = False
            if self._body is not None and not self._body.received:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def body_pause(self) -> None:
        """Take no more from the client."""
        self._body_waits = True
        self._pace()

    def body_resume(self) -> None:
        """Go on."""
        self._body_waits = False
        self._since = self.site.wheel.seconds()
        self._pace()

    def _pace(self) -> None:
        """Read, or let what comes wait with the operating system and then with the client."""
        reading = not self._body_waits and len(self._held) <= AHEAD
        if reading is self._reading:
            return
        self._reading = reading
        if reading:
            self.transport.resumeProducing()
        else:
            self.transport.pauseProducing()
            if self._watch is None:
                self._watch = self.site.wheel.start(LOOK, self._is_it_there)

    # The client reads slowly or quickly: its transport calls these.

    def pauseProducing(self) -> None:
        """The client does not keep up."""
        self._full = True
        self._sent = wire_transport.taken(self.transport)
        if self._stall is None:
            self._stall = self.site.wheel.start(self.site.limits.idle_timeout, self._is_it_reading)
        if self._producer is not None:
            self._producer.pauseProducing()

    def resumeProducing(self) -> None:
        """The client has read."""
        self._full = False
        stall, self._stall = self._stall, None
        if stall is not None:
            stall.cancel()
        if self._producer is not None:
            self._producer.resumeProducing()

    def stopProducing(self) -> None:
        """The connection is lost; :meth:`connectionLost` does what follows."""

    # Deadlines.

    def _look(self) -> None:
        """Has the client been still for too long?"""
        self._timer = None
        if self._time_left() <= 0:
            self._expire()
        if self._state is not _DEAF:
            self._timer = self.site.wheel.start(max(0.0, self._time_left()), self._look)

    def _time_left(self) -> float:
        """Seconds until the client has been still for too long."""
        limits, now = self.site.limits, self.site.wheel.seconds()
        granted = limits.idle_timeout
        if self._answer is not None:
            if self._state is _DRAIN or self._body is None or not self._reading:
                self._since = now  # it waits for us
        elif self._state is _DRAIN:
            granted = DRAIN_SECONDS
        elif self._part and self._part != b"\r":
            granted = limits.header_timeout
        return self._since + granted - now

    def _expire(self) -> None:
        """The time is over."""
        if self._answer is not None:
            self._time_out("The body of the request came to a halt (server.idle_timeout).")
        elif self._state is _DRAIN:
            self._end_drain()
        elif self._part and self._part != b"\r":
            self._time_out("The head of the request did not come in time (server.header_timeout).")
        else:
            self._close_now(abort=bool(wire_transport.unsent(self.transport)))

    def _time_out(self, message: str) -> None:
        self.refuse(BadRequest(408, "request_timeout", message))

    def _end_drain(self) -> None:
        """Enough was read behind our end; but a slow client is waited for while it reads."""
        sent, now = wire_transport.taken(self.transport), self.site.wheel.seconds()
        if not wire_transport.unsent(self.transport):
            # Over TLS the peer has not said goodbye, and need not.
            self._close_now(abort=isinstance(self.transport, TLSMemoryBIOProtocol))
        elif sent != self._sent:
            self._sent, self._stuck_since, self._since = sent, now, now
        elif now - self._stuck_since < self.site.limits.idle_timeout:
            self._since = now
        else:
            self._close_now(abort=True)

    def _close_now(self, *, abort: bool) -> None:
        self._state = _DEAF
        if abort:
            wire_transport.abort(self.transport)
        else:
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def _is_it_reading(self) -> None:
        """The client has read nothing for a while: it will not read the rest either."""
        self._stall = None
        sent = wire_transport.taken(self.transport)
        if sent == self._sent:
            self._close_now(abort=True)
        else:
            self._sent = sent
            self._stall = self.site.wheel.start(self.site.limits.idle_timeout, self._is_it_reading)

    def _is_it_there(self) -> None:
        """Nothing is read from the client, so that it has left must be looked for."""
        self._watch = None
        if self._reading:
            return
        if wire_transport.hung_up(self.transport):
            wire_transport.abort(self.transport)
        else:
            self._watch = self.site.wheel.start(LOOK, self._is_it_there)

    def close_idle(self) -> None:
        """End the connection if no request is in work."""
        if self._answer is None and self._state is _HEAD and not self._part:
            self._close_now(abort=False)

    def leave(self) -> bool:
        """End the connection if no request is in work, nor on its way as far as one can tell.

        :returns: whether it has to be waited for: a request is in work or may come, or an answer is not sent.
        """
        transport = self.transport
        if self._answer is not None or wire_transport.unsent(transport):
            return True
        if self._state is not _HEAD:
            return False
        fresh = self.site.wheel.seconds() - self._since < GRACE
        if fresh or wire_transport.stirs(transport):
            return True
        self.close_idle()
        return False

    # What resources of twisted.web call, through their request.

    def told(self) -> dict[str, object]:
        """For people: who is connected, for how long nothing came, and what is under way."""
        head = self._head
        under_way = None
        if head is not None and self._answer is not None:
            request = head.request
            under_way = f"{request.method.decode('latin-1')} {request.path.decode('latin-1')}"
        idle = self.site.wheel.seconds() - self._since
        return {"peer": self._peer, "idle": round(idle, 1), "request": under_way}

    def getPeer(self) -> IAddress:
        """The client's address."""
        address: IAddress = self.transport.getPeer()
        return address

    def getHost(self) -> IAddress:
        """Our address."""
        address: IAddress = self.transport.getHost()
        return address

    def isSecure(self) -> bool:
        """Whether it is over TLS."""
        return ISSLTransport(self.transport, None) is not None

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes | str, headers: Any) -> None:
        """Begin an answer of our own: it has a ``Date`` (RFC 9110 §6.6.1)."""
        if isinstance(headers, Headers):
            pairs = [(name, value) for name, values in headers.getAllRawHeaders() for value in values]
        else:
            pairs = list(headers)
        names = {name.lower() for name, _ in pairs}
        if b"date" not in names:
            pairs.append((b"Date", formatdate(self.site.wall(), usegmt=True).encode()))
        bodiless = int(code) in BODILESS or (self._request is not None and self._request.method == b"HEAD")
        if not (bodiless or names & {b"content-length", b"transfer-encoding"}):
            self._last = True
        if not self.persists():
            pairs.append((b"Connection", b"close"))
        elif not self.modern:
            pairs.append((b"Connection", b"keep-alive"))
        reason = reason.encode("latin-1") if isinstance(reason, str) else reason
        self.transport.write(b"HTTP/1.1 %b %b\r\n%b\r\n" % (code, reason, field_lines(pairs)))

    def write(self, data: bytes) -> None:
        """Write a piece of an answer, framing included."""
        self.transport.write(data)

    def writeSequence(self, data: Sequence[bytes]) -> None:
        """Write pieces of an answer."""
        self.transport.write(b"".join(data))

    def requestDone(self, request: WireRequest) -> None:
        """The answer is over."""
        if self._request is request:
            self.answered()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Let the client's pace pause and resume a resource's producer."""
        self._pulled = not streaming
        if not streaming:
            producer = _PullToPush(producer, self)
            producer.startStreaming()
        self.feed_from(producer)

    def unregisterProducer(self) -> None:
        """There is no more producer."""
        producer, self._producer = self._producer, None
        if self._pulled and producer is not None:
            producer.stopStreaming()

    def loseConnection(self) -> None:
        """Break the answer off."""
        if self._answer is not None:
            self.break_off(reset=False)


def _address(peer: IAddress) -> str:
    host, port = getattr(peer, "host", None), getattr(peer, "port", None)
    return f"{host}:{port}" if host else "-"

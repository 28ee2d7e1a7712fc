"""Requests of twisted.web's own server, as the pipeline wants them.

What the daemon's own site has and this has not: the body is whole before anything happens, interim
answers (``103``) are not relayed, and :class:`~twisted.web.http_headers.Headers` spells the names of
fields its own way and puts fields of one name together.  Of the server's internals this uses what
:class:`twisted.web.http.Request` shows to resources, and ``channel``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import IO, Any

from httptools import HttpRequestParser
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from llmproxyd.model import Request, Response
from llmproxyd.redaction import Redactor
from llmproxyd.wire.body import IN_MEMORY, KeptBytes, KeptFile
from llmproxyd.wire.head import BadRequest, parse
from llmproxyd.wire.wheel import Timer, Wheel

GOODBYE = 15.0
"""Seconds in which a client may read the rest of an answer that was cut."""

OWN_FIELDS = (b"server", b"date", b"content-type")
"""What the server says of itself: answers have what their upstream said."""

_BODILESS = (204, 304)
_REDACTOR = Redactor()


class _Collected:
    """The fields that llhttp has read."""

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))


def below(target: bytes, segments: int) -> bytes:
    """The raw *target* without its first *segments*, which lead to the resource in its site."""
    if not segments:
        return target
    path, mark, query = target.partition(b"?")
    return b"/" + b"/".join(path.split(b"/")[1 + segments :]) + mark + query


def head_of(request: Any) -> Request:
    """The head of *request*, read as strictly as that of any other.

    twisted.web lets pass what an upstream may read differently, so it is read a second time.

    :raises BadRequest: it is not one that is passed on.
    """
    version = request.clientproto if request.clientproto.startswith(b"HTTP/1.") else b"HTTP/1.1"
    fields = [(name, value) for name, values in request.requestHeaders.getAllRawHeaders() for value in values]
    target = request.uri
    if request.prepath:
        target = below(target, len(request.prepath))
    lines = [b"%s %s %s" % (request.method, target, version), *map(b": ".join, fields)]
    if any(b"\n" in line for line in lines):
        raise BadRequest(400, "bad_request", "A field has a line break in it.")
    collected = _Collected()
    raw = b"\r\n".join([*lines, b"", b""])
    return parse(raw, HttpRequestParser(collected), collected.fields, peer_of(request)).request


def salvaged(request: Any) -> Request:
    """As much of the head of a bad *request* as an answer needs."""
    return Request(request.method, request.uri, (), (1, 1), peer_of(request))


def peer_of(request: Any) -> str:
    """The client's address; ``-`` over a Unix socket."""
    address = request.getClientAddress()
    host, port = getattr(address, "host", None), getattr(address, "port", None)
    return f"{host}:{port}" if host else "-"


def hide_credentials(request: Any) -> None:
    """Keep what the query of *request* holds (Gemini's ``?key=``) out of the site's access log."""
    if b"?" in request.uri:
        request.uri = _REDACTOR.url(request.uri.decode("latin-1")).encode("latin-1", "replace")


class WholeBody:
    """The body of a request, which has come: a :class:`~llmproxyd.http.body.BodySource`.

    The file is taken from the request, which would close it when the client leaves although others
    may wait for the answer.

    :ivar length: bytes.
    """

    def __init__(self, request: Any, clock: IReactorTime) -> None:
        file: IO[bytes] | None = request.content
        request.content = None
        chunked = request.requestHeaders.hasHeader(b"transfer-encoding")
        self._file = file
        self.length = 0 if file is None else file.seek(0, 2)
        self._kept: KeptBytes | KeptFile
        if file is None or self.length <= IN_MEMORY:
            data = b""
            if file is not None:
                file.seek(0)
                data = file.read()
                file.close()
            self._file = None
            self._kept = KeptBytes(data, chunked=chunked)
        else:
            self._kept = KeptFile(file, self.length, clock)

    def excerpt(self, whole: int, end: int) -> Deferred[bytes]:
        """See :class:`~llmproxyd.http.body.BodySource`."""
        if self.length <= whole or self._file is None:
            data = self._kept.read(self.length)
            return succeed(data if self.length <= whole else data[:end] + data[-end:])
        data = self._kept.read(end)
        self._file.seek(-end, 2)
        return succeed(data + self._file.read(end))

    def at_hand(self) -> KeptBytes | KeptFile:
        """It is."""
        return self._kept

    def keep(self) -> Deferred[Any]:
        """It is at hand."""
        return succeed(self._kept)

    def producer(self) -> IBodyProducer | None:
        """See :class:`~llmproxyd.http.body.BodySource`."""
        return self._kept.producer()


@implementer(IPushProducer)
class _Paced:
    """A producer, and a client that is given up when it reads nothing for too long."""

    def __init__(
        self, producer: IPushProducer, wheel: Wheel, idle: float, give_up: Callable[[], None]
    ) -> None:
        self._producer = producer
        self._wheel = wheel
        self._idle = idle
        self._give_up = give_up
        self._timer: Timer | None = None

    def pauseProducing(self) -> None:
        """The client does not keep up."""
        if self._timer is None:
            self._timer = self._wheel.start(self._idle, self._expire)
        self._producer.pauseProducing()

    def resumeProducing(self) -> None:
        """It does again."""
        self.stop()
        self._producer.resumeProducing()

    def stopProducing(self) -> None:
        """The connection ends."""
        self.stop()
        self._producer.stopProducing()

    def stop(self) -> None:
        """Nothing is waited for any more."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _expire(self) -> None:
        self._timer = None
        self._give_up()


class StockAnswer:
    """A :class:`~llmproxyd.pipeline.roles.Responder` on a request of twisted.web's server.

    :param idle: seconds for which a client may read nothing.
    :ivar gone: called once when the client leaves before the answer is over.
    """

    def __init__(self, request: Any, wheel: Wheel, idle: float) -> None:
        self._request: Any = request
        self._wheel = wheel
        self._idle = idle
        self._begun = False
        self._sized = False
        self._producer: _Paced | None = None
        self._late: Timer | None = None
        self.gone: Callable[[], None] | None = None
        request.notifyFinish().addCallbacks(lambda _: None, self._left)

    @property
    def chunked(self) -> bool:
        """Whether the body that was started is sent in chunks."""
        request = self._request
        return request is not None and bool(request.chunked)

    def inform(self, response: Response) -> None:
        """Nothing: twisted.web's server knows no interim responses."""

    def start(self, response: Response) -> None:
        """Begin: the head goes out with the first piece of the body, or by :meth:`flush`."""
        request = self._request
        if request is None:
            return
        request.setResponseCode(response.status, response.reason)
        fields = request.responseHeaders
        for name in OWN_FIELDS:
            fields.removeHeader(name)
        # An upstream that names no type is not corrected.
        request.defaultContentType = None
        for name, value in response.headers:
            fields.addRawHeader(name, value)
        length = response.length
        bodiless = request.method == b"HEAD" or response.status in _BODILESS
        self._sized = bodiless or length is not None
        if length is not None and not response.told and response.status not in _BODILESS:
            fields.setRawHeaders(b"content-length", [b"%d" % length])

    def write(self, data: bytes, *, last: bool = False) -> None:
        """Send a piece of the body."""
        if self._request is not None and data:
            self._begun = True
            self._request.write(data)

    def flush(self) -> None:
        """Send a head that has waited for its body."""
        if self._request is not None and not self._begun:
            self._begun = True
            self._request.write(b"")

    def finish(self) -> None:
        """End the answer cleanly."""
        request = self._request
        if request is not None:
            self.fed()
            self._request = self.gone = None
            request.finish()

    def cut(self) -> None:
        """End the connection without the end of the body.

        A body whose end is the connection's end would look whole after a plain FIN, and so would
        any on HTTP/2 after a plain end of its stream; those are reset.
        """
        request = self._request
        if request is None:
            return
        self.flush()
        self.fed()
        self.gone = None
        if request.clientproto.startswith(b"HTTP/1.") and (request.chunked or self._sized):
            self._late = self._wheel.start(GOODBYE, self._abort)
            request.loseConnection()
        else:
            self._abort()

    def reset(self) -> None:
        """End the connection by a reset."""
        if self._request is not None:
            self.flush()
            self.fed()
            self.gone = None
            # What was written leaves in the reactor's next turn, unless it is reset before.
            self._late = self._wheel.start(0.0, self._abort)

    def hang_up(self) -> None:
        """End the connection without an answer; only before :meth:`start`."""
        request = self._request
        if request is not None:
            self.fed()
            self.gone = None
            request.loseConnection()

    def feed_from(self, producer: IPushProducer) -> None:
        """Let the client's pace pause and resume *producer*."""
        if self._request is not None:
            self._producer = _Paced(producer, self._wheel, self._idle, self._abort)
            self._request.registerProducer(self._producer, True)

    def fed(self) -> None:
        """There is no more producer."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stop()
            if self._request is not None:
                self._request.unregisterProducer()

    def _abort(self) -> None:
        """End the connection at once; that the client is gone is told in the usual way."""
        self._late = None
        request = self._request
        if request is not None and request.channel is not None:
            abort = getattr(request.channel, "abortConnection", None)
            (abort or request.channel.transport.abortConnection)()

    def _left(self, _: object) -> None:
        """The connection is lost."""
        self._request = None
        self.fed()
        late, self._late = self._late, None
        if late is not None:
            late.cancel()
        gone, self.gone = self.gone, None
        if gone is not None:
            gone()

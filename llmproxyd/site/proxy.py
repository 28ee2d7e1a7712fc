"""From twisted.web to the pipeline and back: the one resource that proxies."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.web.http import NO_BODY_CODES
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from twisted.web.server import Request as WebRequest

from llmproxyd.model import Request, Response
from llmproxyd.pipeline.run import Pipeline
from llmproxyd.site.body import BufferedBody


class ProxyResource(Resource):
    """Hands every request to the pipeline.

    ``renders_at_head`` says that the pipeline takes a body as it comes; a channel that can
    render at the end of the head may do so, others render with the whole body at hand.
    """

    isLeaf = True
    renders_at_head = True

    def __init__(self, pipeline: Pipeline, clock: IReactorTime) -> None:
        super().__init__()
        self._pipeline = pipeline
        self._clock = clock

    def render(self, request: WebRequest) -> int:
        """Forward *request*; the answer follows when it comes."""
        responder = WebResponder(request)
        assert request.content is not None
        exchange = self._pipeline.forward(
            head_of(request), BufferedBody(request.content, self._clock), responder
        )
        if not exchange.done:
            request.notifyFinish().addErrback(lambda _: self._pipeline.client_gone(exchange))
        return NOT_DONE_YET


def head_of(request: WebRequest) -> Request:
    """The head as the client sent it, as far as twisted.web keeps it."""
    fields = [(name, value) for name, values in request.requestHeaders.getAllRawHeaders() for value in values]
    peer = request.getClientAddress()
    host, port = getattr(peer, "host", None), getattr(peer, "port", None)
    return Request(
        method=request.method,
        target=request.uri,
        headers=fields,
        version=(1, 1) if request.clientproto == b"HTTP/1.1" else (1, 0),
        peer=f"{host}:{port}" if host else "-",
    )


class WebResponder:
    """The client's side of an exchange, over a twisted.web request."""

    def __init__(self, request: WebRequest) -> None:
        self._request = request
        self._producing = False
        self._length_known = False

    def start(self, response: Response) -> None:
        """See :class:`~llmproxyd.pipeline.exchange.Responder`."""
        request = self._request
        request.setResponseCode(response.status, response.reason)
        headers = request.responseHeaders
        for name, value in response.headers:
            headers.addRawHeader(name, value)
        bodiless = request.method == b"HEAD" or response.status in NO_BODY_CODES
        if response.length is not None and not bodiless:
            headers.setRawHeaders(b"content-length", [b"%d" % response.length])
        self._length_known = headers.hasHeader(b"content-length")
        request.write(b"")

    @property
    def chunked(self) -> bool:
        """See :class:`~llmproxyd.pipeline.exchange.Responder`."""
        return bool(self._request.chunked)

    def write(self, data: bytes) -> None:
        """See :class:`~llmproxyd.pipeline.exchange.Responder`."""
        self._request.write(data)

    def finish(self) -> None:
        """See :class:`~llmproxyd.pipeline.exchange.Responder`."""
        self._request.finish()

    def cut(self) -> None:
        """End the connection without the end of the body.

        A body whose end is the connection's end would look whole after a plain FIN, so that
        one is reset.
        """
        self.fed()
        transport: Any = self._request.channel.transport
        if self.chunked or self._length_known:
            transport.loseConnection()
        else:
            transport.abortConnection()

    def feed_from(self, producer: IPushProducer) -> None:
        """See :class:`~llmproxyd.pipeline.exchange.Responder`."""
        self._producing = True
        self._request.registerProducer(producer, True)

    def fed(self) -> None:
        """See :class:`~llmproxyd.pipeline.exchange.Responder`."""
        if self._producing:
            self._producing = False
            self._request.unregisterProducer()

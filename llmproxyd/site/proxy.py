"""From the connection to the pipeline: the resources that proxy."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from twisted.web.server import Request as StockRequest

from llmproxyd.errors import Refused
from llmproxyd.http.body import BodySource
from llmproxyd.model import Request
from llmproxyd.pipeline.run import Pipeline
from llmproxyd.site.stock import StockAnswer, WholeBody, below, head_of, hide_credentials, salvaged
from llmproxyd.wire.head import BadRequest
from llmproxyd.wire.outgoing import Answer
from llmproxyd.wire.request import WireRequest
from llmproxyd.wire.wheel import Wheel


class ProxyResource(Resource):
    """Hands every request to the pipeline, at the end of its head: the body may still come."""

    isLeaf = True
    renders_at_head = True

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__()
        self._pipeline = pipeline

    def render(self, request: WireRequest) -> int:
        """Forward *request*; the answer follows when it comes."""
        pipeline, answer = self._pipeline, request.answer
        exchange = pipeline.forward(request.head.request, request.body, answer)
        if not exchange.done:
            answer.gone = partial(pipeline.client_gone, exchange)
        return NOT_DONE_YET


class Mounted(Resource):
    """Hands every request to a pipeline, at any place of any site of twisted.web.

    What leads to it in the site's tree goes no further: at ``/llm`` it passes ``/llm/v1/models`` on as
    ``/v1/models``.  On a :class:`~llmproxyd.wire.site.WireSite` requests flow as the daemon's do; on
    another site see :mod:`~llmproxyd.site.stock`.

    :param idle: seconds for which a client of a stock site may read nothing of its answer.
    """

    isLeaf = True
    renders_at_head = True

    def __init__(self, pipeline: Pipeline, reactor: Any, wheel: Wheel, idle: float) -> None:
        super().__init__()
        self.pipeline = pipeline
        self._reactor = reactor
        self._wheel = wheel
        self._idle = idle

    def closed(self) -> Refused | None:
        """Why no request is taken at present."""
        return None

    def render(self, request: WireRequest | StockRequest) -> int:
        """Forward *request*; the answer follows when it comes."""
        if isinstance(request, WireRequest):
            head = request.head.request
            if request.prepath:
                target = below(head.target, len(request.prepath))
                # What follows from the head follows from this one.
                head = Request(head.method, target, head.headers, head.version, head.peer, head.memo)
            self._forward(head, request.body, request.answer)
        else:
            self._render_stock(request)
        return NOT_DONE_YET

    def _render_stock(self, request: StockRequest) -> None:
        answer = StockAnswer(request, self._wheel, self._idle)
        try:
            head = head_of(request)
        except BadRequest as error:
            told = error.request or salvaged(request)
            self.pipeline.refused(told, Refused(error.status, error.code, error.message), answer)
            return
        finally:
            hide_credentials(request)
        self._forward(head, WholeBody(request, self._reactor), answer)

    def _forward(self, head: Request, body: BodySource, answer: Answer | StockAnswer) -> None:
        refusal = self.closed()
        if refusal is not None:
            self.pipeline.refused(head, refusal, answer)
            return
        exchange = self.pipeline.forward(head, body, answer)
        if not exchange.done:
            answer.gone = partial(self.pipeline.client_gone, exchange)

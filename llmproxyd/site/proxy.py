"""From the connection to the pipeline: the one resource that proxies."""

from __future__ import annotations

from functools import partial

from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from llmproxyd.pipeline.run import Pipeline
from llmproxyd.wire.request import WireRequest


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

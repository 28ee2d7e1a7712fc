"""``GET /metrics``: what Prometheus scrapes, on the public listener or on one of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.web.iweb import IRequest
from twisted.web.pages import notFound
from twisted.web.resource import IResource, Resource

from llmproxyd.http.headers import first
from llmproxyd.redaction import Secret
from llmproxyd.site.access import allowed, refuse
from llmproxyd.wire.request import WireRequest
from llmproxyd.wire.site import WireSite

PATH = b"/metrics"

Render = Callable[[bytes], tuple[bytes, bytes]]
"""From the value of ``Accept`` to the page and its media type."""


class MetricsPage(Resource):
    """The metrics, for this machine and whoever holds the admin token.

    :param render: makes the page anew for each request.
    :param guarded: whether that rule holds; it does not on a listener of its own, which the
        operator opened for whoever can reach it.
    """

    isLeaf = True

    def __init__(self, render: Render, token: Secret | None = None, *, guarded: bool = True) -> None:
        super().__init__()
        self._render = render
        self._token = token
        self._guarded = guarded

    def render_GET(self, request: WireRequest) -> bytes:
        """As text, or as OpenMetrics where that is accepted."""
        head = request.head.request
        if self._guarded and not allowed(head, self._token):
            return refuse(request)
        page, media = self._render(first(head.headers, b"accept") or b"")
        request.setHeader(b"content-type", media)
        request.setHeader(b"cache-control", b"no-store")
        return page


class _Alone(Resource):
    """Nothing but one page at its exact path."""

    def __init__(self, page: IResource) -> None:
        super().__init__()
        self._page = page

    def getChildWithDefault(self, path: bytes, request: IRequest) -> IResource:
        """The page or a 404, whatever the path's further segments."""
        request.prepath.extend(request.postpath)
        request.postpath = []
        if request.uri.partition(b"?")[0] == PATH:
            return self._page
        return notFound()


def metrics_site(render: Render, **wire: Any) -> WireSite:
    """The site for a listener of its own (``metrics.listen``): the page, and 404 for all else.

    :param wire: what every :class:`~llmproxyd.wire.site.WireSite` needs: ``clock``, ``wall``,
        ``wheel``, ``limits``.
    """
    return WireSite(_Alone(MetricsPage(render, guarded=False)), **wire)

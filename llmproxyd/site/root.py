"""The public resource tree: a few local paths, and everything else is proxied."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.web.http import Request as WireRequest
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request, Site

LOCAL_METHODS = (b"GET", b"HEAD")


class PlainRequest(Request):
    """A request whose answer carries nothing that nobody asked for."""

    defaultContentType = None

    def render(self, resrc: IResource) -> None:
        """Render *resrc*, without the ``Server`` and ``Date`` that were set beforehand."""
        self.responseHeaders.removeHeader(b"server")
        self.responseHeaders.removeHeader(b"date")
        super().render(resrc)


class Root(Resource):
    """Picks by the raw path, for GET and HEAD alone; all else goes to *proxy*.

    :param local: resources by exact path (``/health``).
    """

    def __init__(self, proxy: IResource, local: Mapping[bytes, IResource]) -> None:
        super().__init__()
        self._proxy = proxy
        self._local = local

    def getChildWithDefault(self, path: bytes, request: IRequest) -> IResource:
        """The resource for the whole remaining path."""
        request.prepath.extend(request.postpath)
        request.postpath = []
        if request.method in LOCAL_METHODS:
            path = request.uri.partition(b"?")[0]
            return self._local.get(path, self._proxy)
        return self._proxy


class PublicSite(Site):
    """A site that writes no access log of its own: that would show query strings.

    :param idle: seconds for which a connection may be silent between requests.
    """

    noisy = False

    def __init__(self, resource: IResource, *, idle: float, clock: object) -> None:
        super().__init__(resource, requestFactory=PlainRequest, timeout=idle, reactor=clock)

    def log(self, request: WireRequest) -> None:
        """Nothing: the request log is the sink's."""

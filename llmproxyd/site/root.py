"""The public resource tree: a few local paths, and everything else is proxied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.web.iweb import IRequest
from twisted.web.resource import IResource, Resource

from llmproxyd.errors import Refused
from llmproxyd.model import Request
from llmproxyd.pipeline.run import Pipeline
from llmproxyd.wire.head import BadRequest
from llmproxyd.wire.outgoing import Answer
from llmproxyd.wire.request import WireRequest
from llmproxyd.wire.site import WireSite

LOCAL_METHODS = (b"GET", b"HEAD")


class Root(Resource):
    """Picks by the raw path, for GET and HEAD alone; all else goes to *proxy*.

    :param local: resources by exact path (``/health``).
    """

    def __init__(self, proxy: IResource, local: Mapping[bytes, IResource]) -> None:
        super().__init__()
        self.proxy = proxy
        self._local = local

    def getChildWithDefault(self, path: bytes, request: IRequest) -> IResource:
        """The resource for the whole remaining path."""
        request.prepath.extend(request.postpath)
        request.postpath = []
        return self.resource_for(request.method, request.uri.partition(b"?")[0])

    def resource_for(self, method: bytes, path: bytes) -> IResource:
        """The resource for a raw path without its query."""
        if method in LOCAL_METHODS:
            return self._local.get(path, self.proxy)
        return self.proxy


class PublicSite(WireSite):
    """The site that clients talk to.

    :param pipeline: words what is refused on the connection already.
    """

    def __init__(self, root: Root, pipeline: Pipeline, **wire: Any) -> None:
        super().__init__(root, **wire)
        self._root = root
        self._proxy = root.proxy
        self._pipeline = pipeline

    def getResourceFor(self, request: WireRequest) -> IResource:
        """The resource, without a walk: there is one level of them."""
        head = request.head.request
        if head.method in LOCAL_METHODS:
            return self._root.resource_for(head.method, head.path)
        return self._proxy

    def refuse(self, error: BadRequest, request: Request, answer: Answer) -> None:
        """Answer in the shape of the provider that the request was for."""
        self._pipeline.refused(request, Refused(error.status, error.code, error.message), answer)

"""``GET /health/ready``: may a load balancer send requests here?"""

from __future__ import annotations

import json
from collections.abc import Callable

from twisted.web.iweb import IRequest
from twisted.web.resource import Resource


class Ready(Resource):
    """200, or 503 with the reason.

    :param why_not: why no request should come now, in a word; ``None`` where it may.
    """

    isLeaf = True

    def __init__(self, why_not: Callable[[], str | None]) -> None:
        super().__init__()
        self._why_not = why_not

    def render_GET(self, request: IRequest) -> bytes:
        """``{"status": "ready"}``, or ``{"status": "not ready", "reason": …}``."""
        reason = self._why_not()
        request.setHeader(b"content-type", b"application/json")
        request.setHeader(b"cache-control", b"no-store")
        if reason is None:
            return b'{"status": "ready"}\n'
        request.setResponseCode(503)
        request.setHeader(b"retry-after", b"1")
        return json.dumps({"status": "not ready", "reason": reason}).encode() + b"\n"

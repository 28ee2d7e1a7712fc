"""``GET /health/detailed``: all that an operator asks next."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from twisted.web.resource import Resource

from llmproxyd.redaction import Secret
from llmproxyd.site.access import allowed, refuse
from llmproxyd.wire.request import WireRequest


class Detailed(Resource):
    """The state as JSON, for this machine and whoever holds the admin token.

    :param state: makes the members anew for each request.
    """

    isLeaf = True

    def __init__(self, state: Callable[[], Mapping[str, object]], token: Secret | None = None) -> None:
        super().__init__()
        self._state = state
        self._token = token

    def render_GET(self, request: WireRequest) -> bytes:
        """``{"status": "healthy", …}``."""
        if not allowed(request.head.request, self._token):
            return refuse(request)
        request.setHeader(b"content-type", b"application/json")
        request.setHeader(b"cache-control", b"no-store")
        members = {"status": "healthy", **self._state()}
        return json.dumps(members, ensure_ascii=False, default=str).encode() + b"\n"

"""``GET /health``: alive, and what an operator asks first."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from twisted.web.iweb import IRequest
from twisted.web.resource import Resource


class Health(Resource):
    """The state as JSON.

    :param state: makes the members beside ``status`` anew for each request.
    """

    isLeaf = True

    def __init__(self, state: Callable[[], Mapping[str, object]]) -> None:
        super().__init__()
        self._state = state

    def render_GET(self, request: IRequest) -> bytes:
        """``{"status": "healthy", …}``."""
        body = json.dumps({"status": "healthy", **self._state()}, ensure_ascii=False).encode()
        request.setHeader(b"content-type", b"application/json")
        request.setHeader(b"cache-control", b"no-store")
        return body + b"\n"

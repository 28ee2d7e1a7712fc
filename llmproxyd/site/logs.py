"""``GET /logs/errors``: what the error log holds, as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from llmproxyd.redaction import Secret
from llmproxyd.site.access import allowed, refuse
from llmproxyd.wire.request import WireRequest

Summary = Callable[[], Mapping[str, object]]


class ErrorLogs(Resource):
    """The summary of the error log.

    :param summary: reads the folder; called in another thread.
    :param in_thread: calls a function in another thread (``deferToThread``).
    :param token: of the admin.
    """

    isLeaf = True
    log = Logger()

    def __init__(
        self,
        summary: Summary,
        in_thread: Callable[[Summary], Deferred[Mapping[str, object]]],
        token: Secret | None = None,
    ) -> None:
        super().__init__()
        self._summary = summary
        self._in_thread = in_thread
        self._token = token
        self._waiting: list[WireRequest] = []

    def render_GET(self, request: WireRequest) -> bytes | int:
        """The summary; callers that come while the folder is being read share it."""
        if not allowed(request.head.request, self._token):
            return refuse(request)
        self._waiting.append(request)
        if len(self._waiting) == 1:
            maybeDeferred(self._in_thread, self._summary).addCallbacks(self._found, self._failed)
        return NOT_DONE_YET

    def _found(self, found: Mapping[str, object]) -> None:
        self._answer(200, found)

    def _failed(self, failure: Failure) -> None:
        self.log.failure("the error log could not be summed up", failure)
        message = "The error log could not be read; the daemon's log says why."
        self._answer(500, {"error": {"code": "error_log_unreadable", "message": message}})

    def _answer(self, status: int, members: Mapping[str, object]) -> None:
        body = json.dumps(members, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        waiting, self._waiting = self._waiting, []
        for request in waiting:
            if request._disconnected:
                continue  # the client left meanwhile
            request.setResponseCode(status)
            request.setHeader(b"content-type", b"application/json")
            request.setHeader(b"cache-control", b"no-store")
            request.setHeader(b"content-length", b"%d" % len(body))
            request.write(body)
            request.finish()

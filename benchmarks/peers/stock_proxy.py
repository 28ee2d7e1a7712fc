"""A proxy with twisted.web's server and treq, both as they come.

The request's body is whole when twisted.web renders; the answer's body is streamed, at the
client's pace.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.protocol import Protocol
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.python.failure import Failure
from twisted.web.client import (
    Agent,
    BrowserLikePolicyForHTTPS,
    FileBodyProducer,
    HTTPConnectionPool,
    ResponseDone,
)
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
SMALL = 1 << 16


def end_to_end(fields: Headers, *also: bytes) -> Headers:
    """Only those that are not for this connection, and none of *also*."""
    values = fields.getRawHeaders(b"connection", [])
    left_out = HOP.union(also, (name.strip().lower() for value in values for name in value.split(b",")))
    kept = Headers()
    for name, found in fields.getAllRawHeaders():
        if name.lower() not in left_out:
            kept.setRawHeaders(name, found)
    return kept


class Relay(Protocol):
    """Hands the answer's body on."""

    def __init__(self, request: Request) -> None:
        self._request = request

    def connectionMade(self) -> None:
        self._request.registerProducer(self.transport, True)

    def dataReceived(self, data: bytes) -> None:
        self._request.write(data)

    def connectionLost(self, reason: Failure = Failure(ResponseDone())) -> None:  # noqa: B008
        if self._request._disconnected:
            return
        self._request.unregisterProducer()
        if reason.check(ResponseDone):
            self._request.finish()
        else:
            transport: Any = self._request.transport
            transport.abortConnection()


class Proxy(Resource):
    """Sends everything to *base*."""

    isLeaf = True

    def __init__(self, base: str, client: HTTPClient) -> None:
        super().__init__()
        self._base = base.encode()
        self._client = client

    def render(self, request: Request) -> int:
        """Forward one request."""
        length = int(request.getHeader(b"content-length") or 0)
        body: Any = None
        if length:
            assert request.content is not None
            body = request.content.read() if length <= SMALL else FileBodyProducer(request.content)
        sending = self._client.request(
            request.method.decode(),
            (self._base + request.uri).decode(),
            headers=end_to_end(request.requestHeaders, b"host", b"content-length"),
            data=body,
            allow_redirects=False,
            unbuffered=True,
        )
        request.notifyFinish().addErrback(lambda _: sending.cancel())
        sending.addCallbacks(self._answer, self._failed, callbackArgs=(request,), errbackArgs=(request,))
        return NOT_DONE_YET

    def _answer(self, response: Any, request: Request) -> None:
        request.setResponseCode(response.code, response.phrase)
        for name, values in end_to_end(response.headers).getAllRawHeaders():
            request.responseHeaders.setRawHeaders(name, values)
        if isinstance(response.length, int):
            request.responseHeaders.setRawHeaders(b"content-length", [b"%d" % response.length])
        response.deliverBody(Relay(request))

    def _failed(self, _: Failure, request: Request) -> None:
        if not request._disconnected:
            request.setResponseCode(502)
            request.finish()


def serve(port: int, base: str, ca_file: str | None) -> None:
    """Listen until the process is ended."""
    pool = HTTPConnectionPool(reactor)
    pool.maxPersistentPerHost = 64
    trust = None if ca_file is None else trustRootFromCertificates([Certificate.loadPEM(_read(ca_file))])
    agent: Any = Agent(reactor, BrowserLikePolicyForHTTPS(trust), pool=pool)
    site = Site(Proxy(base, HTTPClient(agent)))
    site.displayTracebacks = False
    loop: Any = reactor
    loop.listenTCP(port, site, backlog=4096, interface="127.0.0.1")
    loop.run()


def _read(name: str) -> bytes:
    return Path(name).read_bytes()


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--port", type=int, required=True)
    options.add_argument("--base", required=True, help="base URL of the upstream")
    options.add_argument("--ca-file", help="PEM certificates to trust")
    chosen = options.parse_args()
    serve(chosen.port, chosen.base, chosen.ca_file)

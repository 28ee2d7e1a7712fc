"""What is kept of one request for the logs, while it passes.

Copies only, and bounded: a record can neither delay nor change a byte.  Nothing is redacted
here; the logs do that before anything is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from llmproxyd.errors import ProxyError
from llmproxyd.http.body import Kept
from llmproxyd.http.headers import first
from llmproxyd.model import (
    AttemptMade,
    Body,
    ErrorNoted,
    Finished,
    RawHeaders,
    Recorded,
    Response,
)
from llmproxyd.pipeline.exchange import Exchange
from llmproxyd.pipeline.keep import Keep
from llmproxyd.redaction import presented

WHOLE = 1024 * 1024
"""Bytes of a body that are kept for the request log."""

ATTEMPTS = 100
"""Attempts of one request that are kept for it."""

EXCERPT = 64 * 1024
"""Bytes of a failed answer that are kept for the error log."""


class Record:
    """The record of one request.

    :param wall: when it arrived, seconds since the epoch.
    :param whole: it is for the request log too, so everything is kept; else failed answers alone.
    :ivar last: the attempt of which there was word last.
    """

    __slots__ = ("_keep", "_left", "_noted", "_request", "_response", "_whole", "attempts", "last", "started")

    def __init__(self, wall: float, *, whole: bool) -> None:
        self.started = wall
        self._whole = whole
        self._request = Body()
        self._response: Response | None = None
        self._keep: Keep | None = None
        self._noted = False
        self._left = WHOLE
        self.attempts: list[AttemptMade] = []
        self.last: AttemptMade | None = None

    def request_body(self, kept: Kept) -> None:
        """The body of the request, which is at hand."""
        if self._whole:
            data = kept.read(WHOLE)
            self._request = Body(data=data, cut=kept.length > WHOLE, length=kept.length)

    def attempt(self, made: AttemptMade) -> None:
        """What became of one attempt.

        Their bodies have :data:`WHOLE` bytes together at most, and :data:`ATTEMPTS` of them are
        kept, the last one among them: how many there may be is for a policy to say.
        """
        self.last = made
        if not self._whole:
            return
        if len(self.attempts) >= ATTEMPTS:
            self.attempts.pop()
        body = made.body
        if body is not None:
            if len(body.data) > self._left:
                body = replace(body, data=body.data[: self._left], cut=True)
                made = replace(made, body=body)
            self._left -= len(body.data)
        self.attempts.append(made)

    def head(self, response: Response) -> None:
        """The head of the answer to the client."""
        self._response = response
        if self._whole:
            self._keep = Keep(WHOLE)
        elif response.status >= 400:
            self._keep = Keep(EXCERPT)

    def piece(self, data: bytes) -> None:
        """A piece of its body."""
        if self._keep is not None:
            self._keep.add(data)

    def noted(self) -> None:
        """The failure that the client will see is on record already."""
        self._noted = True

    def failure(self, exchange: Exchange, finished: Finished) -> ErrorNoted | None:
        """What the error log is to know of the end, if it does not yet."""
        response = self._response
        status = finished.status
        failed = finished.code is not None or status >= 400
        # What an open breaker refuses is not noted: that it opened is, once.
        silent = finished.code in ("client_gone", "circuit_open")
        if self._noted or finished.fault is not None or not failed or silent:
            return None
        local = finished.code is not None
        last = self.last
        return ErrorNoted(
            code=finished.code or str(status),
            error_type=_error_type(finished),
            message=finished.detail or f"HTTP {status}",
            wall=self.started + finished.duration,
            request_id=finished.request_id,
            status=status or None,
            url=url_of(exchange) if last is None else last.url,
            headers=() if response is None or local else response.headers,
            body=None if self._keep is None else self._keep.body(),
            context=context_of(exchange),
            request_headers=exchange.request.headers,
            attempt=(1 if last is None else last.number) if finished.failed else None,
            elapsed=finished.duration,
            secrets=secrets_of(exchange),
        )

    def recorded(self, exchange: Exchange, finished: Finished) -> Recorded | None:
        """All of it, for the request log."""
        if not self._whole:
            return None
        response = self._response
        headers: RawHeaders = () if response is None else response.headers
        route = exchange.route
        endpoint = None if route is None else route.endpoint
        form = None if endpoint is None else endpoint.form_of(first(headers, b"content-type") or b"")
        return Recorded(
            finished=finished,
            request=exchange.request,
            started=self.started,
            ended=self.started + finished.duration,
            body=self._request,
            attempts=tuple(self.attempts),
            response=response,
            response_body=None if self._keep is None else self._keep.body(),
            form=None if form is None else form.name,
            coding=first(headers, b"content-encoding"),
            secrets=secrets_of(exchange),
        )


def url_of(exchange: Exchange) -> str | None:
    """Where *exchange* was to go, whole."""
    return None if exchange.outgoing is None else exchange.outgoing.url.decode("latin-1")


def context_of(exchange: Exchange) -> Mapping[str, object]:
    """What is known of the request of *exchange*, in texts and numbers."""
    plan, route = exchange.plan, exchange.route
    return {
        "request_type": "unknown" if route is None else route.operation,
        "method": "-" if plan is None else plan.method,
        "path": "-" if plan is None else plan.path,
        "provider": "-" if plan is None else plan.dialect.name,
        "upstream": exchange.upstream or ("-" if route is None else route.upstream.name),
        "model": exchange.model,
        "client": exchange.request.peer,
    }


def secrets_of(exchange: Exchange) -> tuple[str, ...]:
    """The credentials that the client of *exchange* presented, and those of its project."""
    theirs = presented(exchange.request.headers, exchange.request.query)
    granted = exchange.grant
    if granted is None:
        return theirs
    keys = (key.reveal() for key in granted.grant.project.credentials.values())
    return (*theirs, *(key for key in keys if key))


def broken(exchange: Exchange, error: ProxyError, trace: str, wall: float, now: float) -> ErrorNoted:
    """A fault of our own, for the error log."""
    return ErrorNoted(
        code=error.code,
        error_type="InternalError",
        message=error.message,
        wall=wall,
        request_id=exchange.request_id,
        status=error.status,
        url=url_of(exchange),
        context=context_of(exchange),
        request_headers=exchange.request.headers,
        elapsed=now - exchange.arrived,
        trace=trace,
        secrets=secrets_of(exchange),
    )


def _error_type(finished: Finished) -> str:
    if finished.code is None:
        return "HTTPResponse"
    return "UpstreamError" if finished.failed else "Refused"

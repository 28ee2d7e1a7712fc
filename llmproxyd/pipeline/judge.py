"""Whether what the gate holds is an answer or a failure, and which."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus

from llmproxyd.errors import Final, ProxyError, UpstreamError
from llmproxyd.http.headers import content_of, first
from llmproxyd.inspection.content import Found, StreamWatch, look
from llmproxyd.inspection.errors import status_of, told
from llmproxyd.inspection.inflate import inflated, inflater
from llmproxyd.model import Response
from llmproxyd.pipeline.commit import form_of
from llmproxyd.pipeline.exchange import Exchange
from llmproxyd.pipeline.gate import Gate, Why
from llmproxyd.pipeline.policy import Upstream
from llmproxyd.pipeline.relay import broken_off
from llmproxyd.providers.base import EndpointKind
from llmproxyd.resilience.retry import Failed
from llmproxyd.resilience.verdict import HardStop

WORDS = {
    401: "refused the key",
    403: "refused access",
    404: "has no such thing",
    408: "timed out",
    409: "had a conflict",
    429: "limited the rate",
    500: "failed",
    502: "had a bad gateway",
    503: "unavailable",
    504: "timed out",
    529: "overloaded",
}
"""What an upstream did or is, by status, for the log."""

CODES = {
    "connect_timeout": "could not be connected to in time",
    "pool_timeout": "had no connection free in time",
    "headers_timeout": "did not answer in time",
    "first_content_timeout": "said nothing in time",
    "idle_timeout": "fell silent",
    "total_timeout": "was not done in time",
    "upstream_unreachable": "unreachable",
    "upstream_protocol_error": "broke off",
    "empty_stream": "sent an empty stream",
}
"""The same where there was no answer."""

BODILESS = frozenset({204, 205, 206})
"""Successes whose body is none, or a part that cannot be read for itself."""

UNSENT = frozenset({"connect_timeout", "pool_timeout", "upstream_unreachable"})
"""Failures before anything of the request has left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setback:
    """A failed attempt.

    :param words: what the upstream did, in a few words: ``overloaded (529)``.
    :param code: a status or a word, for the record.
    :param counts: the breaker counts it as a failure.
    :param stop: the operator's rule that makes it final.
    :param error: what the client is told where there is no answer of the upstream's.
    """

    failed: Failed
    words: str
    code: str
    message: str
    counts: bool
    stop: HardStop | None = None
    error: ProxyError | None = None

    @classmethod
    def of_error(cls, error: ProxyError) -> Setback:
        """An attempt without an answer."""
        failed = Failed(
            status=None,
            code=error.code,
            permanent=isinstance(error, Final),
            sent=error.code not in UNSENT,
        )
        return cls(
            failed=failed,
            words=CODES.get(error.code, error.code),
            code=error.code,
            message=error.message,
            counts=not isinstance(error, UpstreamError) or error.blames,
            error=error,
        )


class Kind(Enum):
    """What the head of an answer promises."""

    PASSES = "passes"
    """Nothing that it may hold could make it a failure."""
    STREAM = "stream"
    HELD = "held"
    """It may turn out to be a failure."""
    JSON = "json"
    """The same, and it is to be an object in the clear."""


EXPECTED = 16
"""Media types and codings that are remembered of the answers to one head."""


def kind_of(exchange: Exchange, upstream: Upstream, head: Response) -> Kind:
    """What to expect of the answer that begins with *head*."""
    status = head.status
    if status != 200:
        if status >= 400:
            return Kind.HELD
        if status >= 300 or status in BODILESS:
            return Kind.PASSES
    plan = exchange.plan
    assert plan is not None
    media, coding = content_of(head.headers)
    # A plan is for one method, and upstreams have other names under another policy.
    about = (upstream.name, media, coding)
    known = plan.expected.get(about)
    if known is None:
        known = _promised(exchange, upstream, media, coding)
        if len(plan.expected) < EXPECTED:
            plan.expected[about] = known
    assert isinstance(known, Kind)
    length = head.length
    if length is not None and length > upstream.resilience.hold.bytes and known is not Kind.STREAM:
        return Kind.PASSES
    return known


def _promised(exchange: Exchange, upstream: Upstream, media: bytes, coding: bytes) -> Kind:
    """What an answer with this ``Content-Type`` and ``Content-Encoding`` may hold."""
    readable = not coding or inflater(coding) is not None
    if not readable or exchange.request.method == b"HEAD":
        return Kind.PASSES
    if form_of(exchange, media) is not None:
        return Kind.STREAM
    media = media.lower()
    json = b"json" in media
    if upstream.verdicts:
        text = media.startswith(b"text/") and b"event-stream" not in media
        return Kind.HELD if json or text else Kind.PASSES
    if not json or not _is_inference(exchange):
        return Kind.PASSES
    return Kind.HELD if coding or _tells_otherwise(exchange) else Kind.JSON


def _tells_otherwise(exchange: Exchange) -> bool:
    """Whether there are errors in this dialect that no member ``error`` tells of."""
    route = exchange.route
    return route is None or route.operation == "responses" or route.dialect.name == "cohere"


def watch_of(exchange: Exchange, head: Response) -> StreamWatch | None:
    """What reads along with an answer that is a stream."""
    media, coding = content_of(head.headers)
    form, reader = form_of(exchange, media), inflater(coding)
    return None if form is None or reader is None else StreamWatch(form, reader)


def evidently_good(body: bytes | None) -> bool:
    """Whether an answer in JSON, all of which is here, shows at a glance that it is one.

    It begins and ends as an object does, and has no member ``error`` at all: the rest is taken at
    its word, as reading every answer whole would cost more than all else.
    """
    return (
        body is not None
        and body.startswith(b"{")
        and body.endswith((b"}", b"}\n"))
        # Not by "in", which first takes it for a number, and raises and forgets an error.
        and body.find(b'"error"') < 0
    )


def judged(gate: Gate, upstream: Upstream, exchange: Exchange) -> Setback | None:
    """What is wrong with the answer that *gate* holds; ``None`` if nothing is."""
    if gate.why is Why.BROKEN:
        error = gate.error
        if error is None:
            assert gate.reason is not None
            return Setback.of_error(broken_off(gate.reason))
        return Setback.of_error(error)
    head = gate.head
    status, value, code, message = head.status, None, None, None
    if status >= 400:
        value = look(_readable(gate), _media(head)).value
    elif gate.watch is None:
        found = _found(gate, upstream, exchange)
        if found is not None and found.trouble is not None:
            value = found.trouble
            status = status_of(value) or 502
    elif gate.trouble is not None:
        value = gate.trouble.value
        status = status_of(value) or 502
    elif gate.why is Why.WHOLE and gate.watch.empty:
        code, message = "empty_stream", "The upstream's stream ended without any content."
    stop = None
    if upstream.verdicts:
        text = gate.text
        stop = upstream.verdicts.stopped(head.status, text)
        rule = upstream.verdicts.recategorized(head.status, text)
        if rule is not None:
            # The rule knows better than what the body calls itself.
            status, value = rule.new_status, None
    if status < 400 and code is None and stop is None:
        return None
    if code == "empty_stream" and status < 400:
        if not upstream.resilience.retry.retry_empty and stop is None:
            return None
        return _trouble(exchange, head, None, value, code, message, stop)
    return _trouble(exchange, head, status, value, code, message, stop)


def _trouble(
    exchange: Exchange,
    head: Response,
    status: int | None,
    value: object,
    code: str | None,
    message: str | None,
    stop: HardStop | None,
) -> Setback:
    known = told(value)
    failed = Failed(
        status=status,
        code=code or known.code,
        headers=head.headers,
        body=value,
        metadata=not _is_inference(exchange),
    )
    if status is None:
        words = CODES.get(code or "", "failed")
        return Setback(
            failed=failed, words=words, code=code or "-", message=message or words, counts=False, stop=stop
        )
    words = f"{WORDS.get(status) or _phrase(status)} ({status})"
    return Setback(
        failed=failed,
        words=words,
        code=str(status),
        message=known.message or f"HTTP {status}",
        counts=status >= 500,
        stop=stop,
    )


def models_instead(exchange: Exchange, upstream: Upstream, setback: Setback) -> tuple[str, ...] | None:
    """The configured list of models, where that was asked for and *upstream* has none."""
    route = exchange.route
    if not upstream.models_fallback or route is None or route.operation != "models":
        return None
    if exchange.request.method not in (b"GET", b"HEAD"):
        return None
    status = setback.failed.status
    missing = status is None or status in (404, 405, 501) or status >= 500
    return upstream.models_fallback if missing else None


def _found(gate: Gate, upstream: Upstream, exchange: Exchange) -> Found | None:
    """What a whole answer under a status of success holds, where that says how it went."""
    if gate.why is not Why.WHOLE or not _is_inference(exchange):
        return None
    if kind_of(exchange, upstream, gate.head) is Kind.JSON and evidently_good(gate.held()):
        return None
    body = inflated(gate.held(), first(gate.head.headers, b"content-encoding") or b"")
    return None if body is None else look(body, _media(gate.head))


def _media(head: Response) -> bytes:
    return first(head.headers, b"content-type") or b""


def _is_inference(exchange: Exchange) -> bool:
    return exchange.route is not None and exchange.route.kind is EndpointKind.INFERENCE


def _readable(gate: Gate) -> bytes:
    reader = inflater(first(gate.head.headers, b"content-encoding") or b"")
    return b"" if reader is None else reader.feed(gate.held())


def _phrase(status: int) -> str:
    try:
        return f"answered {HTTPStatus(status).phrase}"
    except ValueError:
        return "failed"

"""Answers that are made here, in the words of the provider that the client talks to.

Each says so: ``x-llmproxyd-error`` tells a rehearsed failure (``injected``) from a real one
of the upstream's connection (``upstream``) and from a refusal of our own (``proxy``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from email.utils import formatdate
from http import HTTPStatus

from llmproxyd.errors import ProxyError, Refused
from llmproxyd.faults.choose import Chosen
from llmproxyd.faults.render import kind_at, render
from llmproxyd.model import RawHeaders, Reply, Response
from llmproxyd.pipeline.exchange import Exchange
from llmproxyd.providers.base import JSON, ErrorSpec, Provider, StreamForm, encode
from llmproxyd.wire.outgoing import BODILESS


def refuse(exchange: Exchange, error: ProxyError, wall: float, now: float, more: RawHeaders = ()) -> None:
    """Answer with an error of the proxy itself, of whatever origin.

    The fields of a dialect's rehearsed errors (limits, the upstream's request id) are left out:
    nothing here may be taken for the provider's own.

    :param more: further fields.
    """
    exchange.code, exchange.detail = error.code, error.detail
    dialect = exchange.dialect
    spec, context = _local(dialect, error), exchange.error_context(wall)
    reply = dialect.error(spec, context)
    headers = [pair for pair in reply.headers if pair[0] == b"content-type"]
    if isinstance(error, Refused):
        headers += error.headers
    headers += more
    _send(exchange, Reply(error.status, headers, reply.body), error.origin, error.code, wall, now)


def hard_stop(
    exchange: Exchange,
    status: int,
    message: str,
    original: str | None,
    wall: float,
    now: float,
    more: RawHeaders = (),
) -> None:
    """Answer with what the operator wants users to be told of a failure that is final.

    :param original: what the upstream said, to stand beneath it as ``original_response``.
    :param more: further fields.
    """
    exchange.code, exchange.detail = "hard_stop", message
    dialect = exchange.dialect
    spec = dialect.dialect.local(status, "hard_stop", message)
    value = dialect.error_value(spec, exchange.error_context(wall))
    if original is not None and isinstance(value, Mapping):
        try:
            beneath = json.loads(original)
        except (ValueError, RecursionError):
            beneath = original
        value = {**value, "original_response": beneath}
    reply = Reply(status, [(b"content-type", JSON), *more], encode(value))
    _send(exchange, reply, "proxy", "hard_stop", wall, now)


def list_models(exchange: Exchange, models: Sequence[str], wall: float, now: float) -> None:
    """Answer with the configured list of models, in OpenAI's form, and say that it is one."""
    listed = [{"id": name, "object": "model", "created": 0, "owned_by": "llmproxyd"} for name in models]
    body = encode({"object": "list", "data": listed})
    _unbroken(exchange)
    headers = [
        (b"content-type", JSON),
        (b"date", formatdate(wall, usegmt=True).encode()),
        (b"x-llmproxyd-models", b"fallback"),
        (b"x-llmproxyd-request-id", exchange.request_id.encode()),
    ]
    exchange.start(Response(200, b"OK", headers, len(body)), now)
    if exchange.request.method != b"HEAD":
        exchange.write(body, last=True)
    exchange.finish(now)


def preflight(exchange: Exchange, fields: RawHeaders, wall: float, now: float) -> None:
    """Tell a browser what a web page may do: 204 with *fields*."""
    headers = [
        *fields,
        (b"date", formatdate(wall, usegmt=True).encode()),
        (b"x-llmproxyd-request-id", exchange.request_id.encode()),
    ]
    exchange.start(Response(204, b"No Content", headers, 0), now)
    exchange.finish(now)


def inject(exchange: Exchange, chosen: Chosen, wall: float, now: float) -> None:
    """Answer with the failure that was chosen for this request."""
    exchange.fault = chosen
    dialect = exchange.dialect
    kind = kind_at(chosen.rule.kind, dialect)
    reply = render(dialect, exchange.error_context(wall, kind, chosen.rule.retry_after))
    _send(exchange, reply, "injected", kind.value, wall, now)


def inject_reply(exchange: Exchange, chosen: Chosen, reply: Reply, wall: float, now: float) -> None:
    """Answer with *reply*, the failure that was chosen for this request."""
    exchange.fault = chosen
    _send(exchange, reply, "injected", str(chosen.rule.kind), wall, now)


def inject_status(exchange: Exchange, chosen: Chosen, wall: float, now: float) -> None:
    """Answer with the status and the body that were chosen for this request."""
    exchange.fault = chosen
    _send(exchange, status_reply(chosen), "injected", "status", wall, now)


def status_reply(chosen: Chosen) -> Reply:
    """The whole answer of a fault that is any status and body."""
    manner, seconds = chosen.rule.manner, chosen.rule.retry_after
    headers = [] if seconds is None else [(b"retry-after", b"%d" % -int(-seconds // 1))]
    if manner.status in BODILESS:
        return Reply(manner.status, headers, b"")
    return Reply(manner.status, [(b"content-type", manner.media.encode("latin-1")), *headers], manner.body)


def stream_error(exchange: Exchange, form: StreamForm, error: ProxyError, wall: float) -> bytes | None:
    """*error* as an event within a stream of *form*; ``None`` if the dialect has none."""
    dialect = exchange.dialect
    return dialect.stream_error(form, _local(dialect, error), exchange.error_context(wall))


def _unbroken(exchange: Exchange) -> None:
    """What the proxy says itself is broken by no fault."""
    if exchange.stage is not None:
        exchange.stage.stand_aside()


def reason_of(status: int) -> bytes:
    """The registered phrase, none for a status that has none (529)."""
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""


def _local(dialect: Provider, error: ProxyError) -> ErrorSpec:
    return dialect.dialect.local(error.status, error.code, error.message)


def _send(exchange: Exchange, reply: Reply, origin: str, code: str, wall: float, now: float) -> None:
    _unbroken(exchange)
    headers = [*reply.headers, (b"date", formatdate(wall, usegmt=True).encode())]
    if exchange.policy.error_headers:
        headers += [(b"x-llmproxyd-error", origin.encode()), (b"x-llmproxyd-code", code.encode())]
    headers.append((b"x-llmproxyd-request-id", exchange.request_id.encode()))
    headers += exchange.cors
    exchange.start(Response(reply.status, reason_of(reply.status), headers, len(reply.body)), now)
    if exchange.request.method != b"HEAD":
        exchange.write(reply.body, last=True)
    exchange.finish(now)

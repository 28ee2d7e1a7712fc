"""The upstreams that one request may go to, and what each of them is sent."""

from __future__ import annotations

from collections import deque
from urllib.parse import quote

from llmproxyd.http.body import Kept
from llmproxyd.model import Request
from llmproxyd.pipeline.exchange import Exchange
from llmproxyd.pipeline.policy import Upstream
from llmproxyd.pipeline.upstream import Outgoing, outgoing
from llmproxyd.providers.base import Endpoint
from llmproxyd.redaction import Secret
from llmproxyd.transform.body import with_model
from llmproxyd.wire.body import KeptBytes


class Target:
    """One upstream, and the request as it is for it.

    :ivar model: as it is called there.
    :ivar path: raw path and query, to append to the upstream's base.
    :ivar prepared: all but the body, where one key and one path do for every attempt.
    :ivar foreign: the client meant another host: its credential stays here.
    """

    __slots__ = ("body", "foreign", "model", "path", "prepared", "upstream")

    def __init__(
        self,
        upstream: Upstream,
        model: str | None,
        path: bytes,
        body: Kept,
        prepared: Outgoing | None = None,
        *,
        foreign: bool = False,
    ) -> None:
        self.foreign = foreign
        self.upstream = upstream
        self.model = model
        self.path = path
        self.body = body
        self.prepared = prepared

    def outgoing(self, request: Request, key: Secret | None) -> Outgoing:
        """What is sent, with *key* where there are several."""
        if key is None:
            if self.prepared is None:
                self.prepared = outgoing(self.upstream, request, self.path, foreign=self.foreign)
            return self.prepared
        return outgoing(self.upstream, request, self.path, key, foreign=self.foreign)


def own_target(exchange: Exchange, body: Kept) -> Target:
    """The upstream that *exchange* is for.

    :param body: as the client sent it.
    """
    plan, route = exchange.plan, exchange.route
    assert plan is not None
    assert route is not None
    upstream = route.upstream
    sent = transformed(upstream, exchange, body)
    return Target(upstream, exchange.model, route.target, sent, plan.outgoing)


def fallbacks_of(exchange: Exchange, body: Kept) -> deque[Target]:
    """The upstreams that stand in for it, in order.

    :param body: as the client sent it.
    """
    route = exchange.route
    assert route is not None
    found: deque[Target] = deque()
    for fallback in route.upstream.fallbacks:
        other = exchange.policy.router.upstreams[fallback.upstream]
        path, sent, model = route.target, body, fallback.model(exchange.model)
        if model is not None:
            named = _in_path(route.endpoint, path, model)
            if named is not None:
                path = named
            else:
                changed = with_model(body.read(body.length), model)
                sent = body if changed is None else KeptBytes(changed)
        sent = transformed(other, exchange, sent)
        foreign = other.origin != route.upstream.origin
        found.append(Target(other, model or exchange.model, path, sent, foreign=foreign))
    return found


def transformed(upstream: Upstream, exchange: Exchange, body: Kept) -> Kept:
    """*body* as *upstream* is to have it."""
    route = exchange.route
    operation = None if route is None else route.operation
    if not upstream.transforms.concerns(operation):
        return body
    changed = upstream.transforms.apply(operation, exchange.model, body.read(body.length))
    return body if changed is None else KeptBytes(changed)


def _in_path(endpoint: Endpoint | None, target: bytes, model: str) -> bytes | None:
    """*target* with *model* in the place of the one that its path names, if it names one."""
    path = target.partition(b"?")[0]
    match = None if endpoint is None else endpoint.pattern.search(path)
    if match is None or match.groupdict().get("model") is None:
        return None
    start, end = match.span("model")
    return target[:start] + quote(model, safe="-._~:@").encode() + target[end:]

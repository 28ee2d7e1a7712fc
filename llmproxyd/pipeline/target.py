"""The upstreams that one request may go to, and what each of them is sent."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from urllib.parse import quote

from llmproxyd.errors import Refused
from llmproxyd.http.body import Kept
from llmproxyd.model import Request
from llmproxyd.pipeline.exchange import Exchange
from llmproxyd.pipeline.policy import Fallback, Upstream
from llmproxyd.pipeline.upstream import Outgoing, outgoing
from llmproxyd.providers.base import Endpoint, EndpointKind
from llmproxyd.redaction import Secret
from llmproxyd.transform.body import with_model
from llmproxyd.wire.body import KeptBytes


class Target:
    """One upstream, and the request as it is for it.

    :ivar model: as it is called there.
    :ivar path: raw path and query, to append to the upstream's base.
    :ivar prepared: all but the body, where one key and one path do for every attempt.
    :ivar foreign: the client meant another host: its credential stays here.
    :ivar key: the project's credential there, where access is on; the client's own stays here then.
    """

    __slots__ = ("body", "foreign", "key", "model", "path", "prepared", "upstream")

    def __init__(
        self,
        upstream: Upstream,
        model: str | None,
        path: bytes,
        body: Kept,
        prepared: Outgoing | None = None,
        *,
        foreign: bool = False,
        key: Secret | None = None,
    ) -> None:
        self.foreign = foreign
        self.key = key
        self.upstream = upstream
        self.model = model
        self.path = path
        self.body = body
        self.prepared = prepared

    def outgoing(self, request: Request, key: Secret | None, *, held: bool | None = None) -> Outgoing:
        """What is sent, with *key* where there are several.

        :param held: the answer will be looked at; by default as the upstream's policy says.
        """
        if key is None and self.prepared is not None and held in (None, self.upstream.holds):
            return self.prepared
        mine = self.key
        if mine is not None:
            sent = mine if mine.reveal() else None
            going = outgoing(
                self.upstream, request, self.path, sent, withheld=True, foreign=self.foreign, held=held
            )
        else:
            going = outgoing(self.upstream, request, self.path, key, foreign=self.foreign, held=held)
        if key is None:
            self.prepared = going
        return going


def own_target(exchange: Exchange, body: Kept) -> Target:
    """The upstream that *exchange* is for.

    :param body: as the client sent it.
    """
    plan = exchange.plan
    assert plan is not None
    route = plan.route
    assert route is not None
    upstream = route.upstream
    if plan.absorbed:
        # Its body goes as it came, and access is off.
        return Target(upstream, exchange.model, route.target, body, exchange.outgoing)
    sent = transformed(upstream, exchange, body)
    key = _credential(exchange, upstream.name)
    return Target(upstream, exchange.model, route.target, sent, exchange.outgoing, key=key)


def _credential(exchange: Exchange, upstream: str) -> Secret | None:
    """What the project of *exchange* has for *upstream*; ``None`` where access is off."""
    granted = exchange.grant
    return None if granted is None else granted.grant.project.credentials.get(upstream)


class Fallbacks(Iterator[Target]):
    """The upstreams that stand in for that of *exchange*, in order; false when no more are left.

    One whose allowlist is against the request, as it would be there, is passed over.

    :param body: as the client sent it.
    """

    def __init__(self, exchange: Exchange, body: Kept) -> None:
        route = exchange.route
        assert route is not None
        self._exchange = exchange
        self._body = body
        self._route = route
        self._left = deque(one for one in route.upstream.fallbacks if _may(exchange, one.upstream))

    def __bool__(self) -> bool:
        return bool(self._left)

    def __next__(self) -> Target:
        while self._left:
            target = self._target(self._left.popleft())
            if target is not None:
                return target
        raise StopIteration

    def _target(self, fallback: Fallback) -> Target | None:
        route, exchange = self._route, self._exchange
        other = exchange.policy.router.upstreams[fallback.upstream]
        path, sent, model = route.target, self._body, fallback.model(exchange.model)
        if model is not None:
            named = _in_path(route.endpoint, path, model)
            if named is not None:
                path = named
            else:
                changed = with_model(sent.read(sent.length), model)
                sent = sent if changed is None else KeptBytes(changed)
        if not _allowed(exchange, other, path, sent):
            return None
        model = model or exchange.model
        sent = transformed(other, exchange, sent, model)
        foreign = other.origin != route.upstream.origin
        return Target(other, model, path, sent, foreign=foreign, key=_credential(exchange, other.name))


def _may(exchange: Exchange, upstream: str) -> bool:
    """Whether *exchange* may go to *upstream*: where access is on, its project must be let in there."""
    return exchange.grant is None or _credential(exchange, upstream) is not None


def _allowed(exchange: Exchange, upstream: Upstream, path: bytes, body: Kept) -> bool:
    """Whether the allowlist of *upstream* lets the request in with this *path* and *body*."""
    allowlist, request, route = upstream.allowlist, exchange.request, exchange.route
    if allowlist.open:
        return True
    endpoint = None if route is None else route.endpoint
    try:
        allowlist.check_head(request, path)
        if allowlist.reads_body:
            match = None if endpoint is None else endpoint.pattern.search(path.partition(b"?")[0])
            named = None if match is None else match.groupdict().get("model")
            model = None if named is None else named.decode("latin-1")
            inference = endpoint is None or endpoint.kind is EndpointKind.INFERENCE
            allowlist.check_body(request, body.read(body.length), model, inference=inference)
    except Refused:
        return False
    return True


def transformed(upstream: Upstream, exchange: Exchange, body: Kept, model: str | None = None) -> Kept:
    """*body* as *upstream* is to have it.

    :param model: as it is called there, where that is known; else the body tells.
    """
    route = exchange.route
    operation = None if route is None else route.operation
    if not upstream.transforms.concerns(operation):
        return body
    changed = upstream.transforms.apply(operation, model or exchange.model, body.read(body.length))
    return body if changed is None else KeptBytes(changed)


def _in_path(endpoint: Endpoint | None, target: bytes, model: str) -> bytes | None:
    """*target* with *model* in the place of the one that its path names, if it names one."""
    path = target.partition(b"?")[0]
    match = None if endpoint is None else endpoint.pattern.search(path)
    if match is None or match.groupdict().get("model") is None:
        return None
    start, end = match.span("model")
    return target[:start] + quote(model, safe="-._~:@").encode() + target[end:]

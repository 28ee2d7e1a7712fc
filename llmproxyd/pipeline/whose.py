"""Which requests have to do with the cache, whose entries they see, and under which key."""

from __future__ import annotations

import hmac

from llmproxyd.cache.key import Keys
from llmproxyd.cache.policy import Wants
from llmproxyd.http.body import Kept
from llmproxyd.model import Request
from llmproxyd.pipeline.exchange import Exchange
from llmproxyd.pipeline.plan import Caching
from llmproxyd.pipeline.policy import CachePolicy
from llmproxyd.providers.base import EndpointKind


def concerns(exchange: Exchange, caching: Caching) -> bool:
    """Whether the request has a turn at the cache.

    Inference by POST has none unless somebody opts it in: it makes nothing that is stored invalid.
    """
    wants, route = caching.wants, exchange.route
    if wants.lookup or wants.store or exchange.request.method != b"POST":
        return True
    return route is None or route.kind is not EndpointKind.INFERENCE


def reads_body(wants: Wants, request: Request) -> bool:
    """Whether the body belongs to the key, so that it must be at hand."""
    return request.method == b"POST" and (wants.lookup or wants.store)


def tenant_of(exchange: Exchange, policy: CachePolicy) -> str:
    """Who may be answered from the same entries: the project, or whoever has the same credential."""
    if policy.shared:
        return ""
    if exchange.grant is not None:
        return exchange.grant.grant.project.id
    assert exchange.plan is not None
    presented = exchange.plan.presented
    if presented is None:
        return "-"
    return hmac.digest(policy.secret, presented.encode("utf-8", "surrogateescape"), "sha256").hex()[:32]


def key_for(
    exchange: Exchange, caching: Caching, policy: CachePolicy, body: Kept | None
) -> tuple[str, bytes]:
    """The tenant, and the key.

    :param body: of the request, where it belongs to the key.
    """
    known = caching.known
    # Where access is off, the head tells whose it is.
    tenant = tenant_of(exchange, policy) if known is None or exchange.grant is not None else known[0]
    if known is None or known[0] != tenant:
        route = exchange.route
        assert route is not None
        fields = () if caching.rule is None else caching.rule.fields
        keys = Keys(tenant, route.upstream.name, exchange.request, route.target, fields)
        known = caching.known = tenant, keys
    return tenant, known[1].of(b"" if body is None else body.read(body.length))

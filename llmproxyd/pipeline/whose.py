"""Whose entries a request sees in the cache, and under which key."""

from __future__ import annotations

import hmac

from llmproxyd.cache.key import Keys
from llmproxyd.http.body import Kept
from llmproxyd.pipeline.exchange import Exchange
from llmproxyd.pipeline.plan import Caching
from llmproxyd.pipeline.policy import CachePolicy


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


def key_for(exchange: Exchange, caching: Caching, body: Kept | None) -> tuple[str, bytes]:
    """The tenant, and the key.

    :param body: of the request, where it belongs to the key.
    """
    granted, known = exchange.grant, caching.known
    if known is None or known[0] is not granted:
        route, policy = exchange.route, exchange.policy.cache
        assert route is not None
        assert policy is not None
        tenant = tenant_of(exchange, policy)
        fields = () if caching.rule is None else caching.rule.fields
        keys = Keys(tenant, route.upstream.name, exchange.request, route.target, fields)
        known = caching.known = granted, tenant, keys
    return known[1], known[2].of(b"" if body is None else body.read(body.length))

"""From a configuration to what the pipeline is told: upstreams, ways, policy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import translate
from hashlib import sha256
from secrets import token_bytes

from llmproxyd.config.schema import Config
from llmproxyd.config.schema import Upstream as Settings
from llmproxyd.pipeline import route
from llmproxyd.pipeline.policy import CachePolicy, CacheRule, Fallback, Policy, Upstream
from llmproxyd.providers.base import Provider
from llmproxyd.resilience.policy import Resilience
from llmproxyd.transform.body import Transforms

_OWN_SECRET = token_bytes(32)
"""Of this process; a reload keeps it, and so what is stored."""


def upstreams_of(
    config: Config, providers: Mapping[str, Provider], sandbox: str | None
) -> dict[str, Upstream]:
    """The configured upstreams as the pipeline knows them.

    :param sandbox: URL of the stand-in, which then takes the place of every provider.
    """
    named: dict[str, Settings] = dict(config.upstreams)
    if sandbox is not None:
        # The stand-in answers for those too that have no global address.
        named = {name: Settings(provider=name) for name in providers} | named
    found = {}
    for name, settings in named.items():
        base_url = settings.base_url if sandbox is None else f"{sandbox}/{settings.provider}"
        resilience = config.resilience.get(settings.resilience, Resilience())
        key = settings.api_key
        keys = settings.api_keys if key is None else (key,)
        found[name] = Upstream(
            name=name,
            provider=providers[settings.provider],
            base_url=base_url,
            timeouts=resilience.timeouts.over(config.timeouts),
            resilience=resilience,
            # Where access is on, projects have the credentials, and nothing is used in their stead.
            keys=() if config.access.enabled else keys,
            headers=[
                (field.encode("latin-1"), value.reveal().encode("latin-1"))
                for field, value in settings.headers.items()
            ],
            allow=settings.allow,
            flush_interval=settings.flush_interval,
            fallbacks=tuple(Fallback(upstream=one.upstream, models=one.models) for one in settings.fallbacks),
            transforms=Transforms(settings.transform),
            paths=tuple(path for one in settings.transform for path in one.paths),
            models_fallback=settings.models_fallback,
        )
    return found


def router_of(
    config: Config, upstreams: Mapping[str, Upstream], providers: Mapping[str, Provider]
) -> route.Router[Upstream]:
    """The table of ways."""
    rules = []
    for entry in config.routes:
        header = None
        if entry.header is not None:
            name, colon, value = entry.header.partition(":")
            header = (name.strip().lower().encode(), value.strip().encode() if colon else None)
        rules.append(
            route.Rule(
                upstream=entry.upstream,
                path_prefix=None if entry.path_prefix is None else entry.path_prefix.encode(),
                host=None if entry.host is None else entry.host.encode(),
                header=header,
                strip=entry.strip,
            )
        )
    return route.Router(
        upstreams,
        providers,
        default=config.default_upstream,
        routes=rules,
        single=config.server.single_upstream,
        prefix=config.server.path_prefix.encode(),
        by_key=not config.access.enabled,
    )


def policy_of(config: Config, router: route.Router[Upstream], *, guard: bool) -> Policy:
    """What each request is told."""
    told = config.events.usage or bool(config.events.dispatch)
    events, kept = config.events.capture, config.journal.bodies if config.journal.requests else 0
    capture = max(events.request, kept), max(events.response, kept)
    return Policy(
        router=router,
        max_body=config.server.max_body,
        error_headers=config.server.error_headers,
        fault_header=config.faults.header and config.operator.faults,
        guard_browsers=guard,
        record_requests=config.logging.enabled,
        record_errors=config.error_logging.enabled,
        access=config.access.enabled,
        cache=_cache(config) if config.cache.enabled else None,
        marks=(config.access.enabled or config.cache.enabled) and config.cache.headers,
        # Who wants to see bodies wants to see what was read in them, too.
        read_usage=told or config.access.enabled or config.metrics.genai or any(capture),
        read_models=told or config.metrics.genai,
        capture=capture,
    )


def _cache(config: Config) -> CachePolicy:
    settings = config.cache
    return CachePolicy(
        max_object_bytes=settings.max_object_bytes,
        ttl=settings.default_ttl,
        rules=tuple(
            CacheRule(
                path=re.compile(translate(rule.path)),
                upstream=rule.upstream,
                methods=frozenset(method.encode() for method in rule.methods),
                ttl=rule.default_ttl,
                fields=tuple(name.lower().encode() for name in rule.fields),
            )
            for rule in settings.rules
        ),
        shared=settings.share == "upstream",
        coalesce=settings.coalesce,
        secret=_tenant_secret(config),
    )


def _tenant_secret(config: Config) -> bytes:
    """What makes a credential the name of its tenant: the same on all hosts that share a cache."""
    if config.cache.backend == "redis":
        secret = config.access.secret_key or config.cache.redis_url
        if secret is not None:
            return sha256(b"llmproxyd cache tenant\0" + secret.reveal().encode()).digest()
    return _OWN_SECRET

"""From a configuration to what the pipeline is told: upstreams, ways, policy."""

from __future__ import annotations

from collections.abc import Mapping

from llmproxyd.config.schema import Config
from llmproxyd.config.schema import Upstream as Settings
from llmproxyd.pipeline import route
from llmproxyd.pipeline.policy import Fallback, Policy, Upstream
from llmproxyd.providers.base import Provider
from llmproxyd.resilience.policy import Resilience
from llmproxyd.transform.body import Transforms


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
        found[name] = Upstream(
            name=name,
            provider=providers[settings.provider],
            base_url=base_url,
            timeouts=resilience.timeouts.over(config.timeouts),
            resilience=resilience,
            keys=settings.api_keys if key is None else (key,),
            headers=[
                (field.encode("latin-1"), value.reveal().encode("latin-1"))
                for field, value in settings.headers.items()
            ],
            origins=frozenset(settings.allow.origins),
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
    )


def policy_of(config: Config, router: route.Router[Upstream], *, guard: bool) -> Policy:
    """What each request is told."""
    return Policy(
        router=router,
        max_body=config.server.max_body,
        error_headers=config.server.error_headers,
        fault_header=config.faults.header and config.operator.faults,
        guard_browsers=guard,
        record_requests=config.logging.enabled,
        record_errors=config.error_logging.enabled,
    )

"""Keys that are written and have no effect: who wrote them believes that they have."""

from __future__ import annotations

from collections.abc import Iterator

from llmproxyd.config.convert import Walker
from llmproxyd.config.destinations import DEFAULT_POLICY
from llmproxyd.config.gatewaycheck import REDIS_URL, ask_redis
from llmproxyd.config.problems import Path, path_text
from llmproxyd.config.schema import Config
from llmproxyd.resilience.breaker import BreakerPolicy
from llmproxyd.resilience.retry import Retry


def warnings(config: Config, walker: Walker) -> list[str]:
    """What is written and has no effect, one sentence each."""
    found: list[tuple[Path, str]] = []
    if config.access.enabled:
        for name, upstream in config.upstreams.items():
            for key in ("api_key", "api_keys"):
                if getattr(upstream, key):
                    found.append((("upstreams", name, key), "not used: projects hold the credentials"))
    if config.cache.redis_url is not None and not any(ask_redis(config)):
        idle = "not used: neither the cache nor limits nor events are told to use Redis"
        found.append((REDIS_URL, idle))
    found += _idle_policies(config)
    return [_told(path, message, walker) for path, message in found]


def _idle_policies(config: Config) -> Iterator[tuple[Path, str]]:
    """Policies that absorb nothing, or less than they say."""
    used = {upstream.resilience for upstream in config.upstreams.values()} | {DEFAULT_POLICY}
    for name, policy in config.resilience.items():
        path = ("resilience", name)
        if name not in used:
            yield path, f"not used: no upstream names it (upstreams.NAME.resilience: {name})"
        if not policy.breaker.enabled and policy.breaker != BreakerPolicy():
            yield (*path, "breaker"), "not used: enabled is not true"
        if not policy.retry.max_retries and policy.retry != Retry():
            yield (*path, "retry"), "not used: max_retries is 0"


def _told(path: Path, message: str, walker: Walker) -> str:
    source = walker.source(path)
    return ": ".join([*([str(source)] if source else []), path_text(path), message])

"""What can be judged only when all is known: names of other keys, and fallbacks."""

from __future__ import annotations

from collections.abc import Mapping

from llmproxyd.config import upstreams
from llmproxyd.config.convert import Walker
from llmproxyd.config.destinations import DEFAULT_POLICY, Upstream
from llmproxyd.config.markers import POLICY
from llmproxyd.config.problems import did_you_mean, quoted
from llmproxyd.config.schema import Config
from llmproxyd.providers.base import Provider


def crosscheck(config: Config, providers: Mapping[str, Provider], walker: Walker) -> None:
    """Report on *walker* what does not fit together in *config*."""
    _references(config, providers, walker)
    for name, upstream in config.upstreams.items():
        _fallbacks(name, upstream, config.upstreams, providers, walker)


def _references(config: Config, providers: Mapping[str, Provider], walker: Walker) -> None:
    """Whatever is named must be there."""
    policies = [DEFAULT_POLICY, *(name for name in config.resilience if name != DEFAULT_POLICY)]
    for reference, path, name in walker.references:
        if reference is POLICY:
            if name not in policies:
                walker.problem(path, _no_policy(name, policies))
        elif name not in config.upstreams:
            walker.problem(path, upstreams.unknown(name, config.upstreams, providers))
    default = ("default_upstream",)
    if default not in walker.sources and config.default_upstream not in config.upstreams:
        walker.problem(default, upstreams.unknown(config.default_upstream, config.upstreams, providers))


def _no_policy(name: str, policies: list[str]) -> str:
    hint = did_you_mean(name, policies)
    return f"found {quoted(name)}, which is no policy{hint} (accepted: {', '.join(policies)})"


def _fallbacks(
    name: str,
    upstream: Upstream,
    known: Mapping[str, Upstream],
    providers: Mapping[str, Provider],
    walker: Walker,
) -> None:
    """Each must be another upstream that understands the same requests."""
    for number, fallback in enumerate(upstream.fallbacks):
        path = ("upstreams", name, "fallbacks", number, "upstream")
        other = known.get(fallback.upstream)
        if fallback.upstream == name:
            walker.problem(path, f"found {quoted(name)}, which is the upstream itself")
            continue
        speak = {upstream.provider} if other is None else {upstream.provider, other.provider}
        # A provider that there is not has been reported already.
        if other is not None and len(speak) > 1 and speak <= providers.keys():
            walker.problem(
                path,
                f"found {quoted(fallback.upstream)}, which speaks {other.provider}; accepted: an "
                f"upstream that speaks {upstream.provider}, as {name} does",
            )

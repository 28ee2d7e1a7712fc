"""From the upstreams as written to all that can be sent to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from llmproxyd.config import texts
from llmproxyd.config.convert import Walker
from llmproxyd.config.problems import Problem, did_you_mean, quoted
from llmproxyd.config.schema import Upstream
from llmproxyd.providers.base import Provider


def complete(
    written: Mapping[str, Upstream],
    providers: Mapping[str, Provider],
    environ: Mapping[str, str],
    walker: Walker,
) -> Mapping[str, Upstream]:
    """*written* with what follows from its providers, and every provider's own upstream.

    :param walker: takes the problems, and knows where each key stands.
    """
    urls = {name: _base_url(provider, environ, walker) for name, provider in providers.items()}
    found = {
        name: Upstream(name=name, provider=name, base_url=url, built_in=True)
        for name, url in urls.items()
        if url is not None
    }
    for name, upstream in written.items():
        provider = _provider(name, upstream, providers, walker)
        url = upstream.base_url or (urls[provider.name] if provider else None)
        key = ("upstreams", name, "base_url")
        if provider is not None and url is None and not walker.failed(key):
            variable = provider.base_url_variable
            also = f", or the environment variable {variable}" if variable else ""
            walker.problem(
                key,
                f"missing, as {provider.title} has no address of its own; accepted: {texts.BASE_URL}{also}",
            )
        # A broken one stays on the list, so that what refers to it is not reported as well.
        speaks = provider.name if provider else upstream.provider
        found[name] = replace(upstream, name=name, provider=speaks, base_url=url or "")
    return MappingProxyType(found)


def unknown(name: str, known: Mapping[str, Upstream], providers: Mapping[str, Provider]) -> str:
    """Why *name* names no upstream."""
    provider = providers.get(name)
    if provider is not None:
        variable = provider.base_url_variable
        also = f" or the environment variable {variable}" if variable else ""
        return f"{provider.title} has no address of its own; set upstreams.{name}.base_url{also}"
    hint = did_you_mean(name, list(known))
    return f"found {quoted(name)}, which is no upstream{hint} (accepted: {', '.join(known)})"


def _provider(
    name: str, upstream: Upstream, providers: Mapping[str, Provider], walker: Walker
) -> Provider | None:
    path = ("upstreams", name, "provider")
    known = ", ".join(sorted(providers))
    if upstream.provider:
        if upstream.provider not in providers:
            hint = did_you_mean(upstream.provider, list(providers))
            walker.problem(path, f"found {quoted(upstream.provider)}{hint}; accepted: {known}")
        return providers.get(upstream.provider)
    if name not in providers and path not in walker.sources:
        hint = did_you_mean(name, list(providers))
        message = f"missing, as {quoted(name)} is no provider's name{hint}; accepted: {known}"
        walker.problem(path, message)
    elif path in walker.sources and not upstream.provider and not walker.failed(path):
        walker.problem(path, f"found an empty text; accepted: {known}")
    return providers.get(name)


def _base_url(provider: Provider, environ: Mapping[str, str], walker: Walker) -> str | None:
    """Where *provider* lives; a bare host in its variable is taken for https."""
    if provider.base_url is not None:
        return provider.base_url.rstrip("/")
    variable = provider.base_url_variable
    text = environ.get(variable, "").strip() if variable else ""
    if not text:
        return None
    try:
        return texts.base_url(text if "://" in text else f"https://{text}")
    except ValueError as error:
        walker.problems.append(Problem(f"environment {variable}", "", f"found {quoted(text)}; {error}"))
        return None

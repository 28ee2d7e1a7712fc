"""What clients are pointed at the daemon with: base URLs, and the variables that SDKs read."""

from __future__ import annotations

from collections.abc import Mapping

from llmproxyd.providers.base import Provider

PATHS: Mapping[str, str] = {
    "deepseek": "/v1",
    "fireworks": "/inference/v1",
    "groq": "/openai/v1",
    "llamacpp": "/v1",
    "mistral": "/v1",
    "openai": "/v1",
    "openrouter": "/api/v1",
    "tetrate": "/v1",
    "together": "/v1",
    "venice": "/api/v1",
    "vllm": "/v1",
    "xai": "/v1",
}
"""By provider, what an SDK's base URL has behind the origin; nothing for those that are not here."""

PLACEHOLDER = "sk-llmproxyd-sandbox-placeholder"
"""A key for SDKs that will not start without one; the sandbox takes any."""


def base_url(url: str, upstream: str, provider: str, test: str | None = None) -> str:
    """What an SDK of *provider* is given as its base URL.

    :param url: origin of the daemon.
    :param upstream: name of the upstream that is meant.
    :param test: makes the requests those of this test (as ``x-llmproxyd-test`` does).
    """
    named = "" if test is None else f"/@{test}"
    return f"{url}/to/{upstream}{named}{PATHS.get(provider, '')}"


def variables(url: str, providers: Mapping[str, Provider], *, keys: bool) -> dict[str, str]:
    """The variables that point the SDKs of all *providers* at the daemon.

    :param keys: also set the variables of their keys, to a placeholder.
    """
    found: dict[str, str] = {}
    for name, provider in providers.items():
        for variable, path in provider.hosts.items():
            found[variable] = f"{url}/to/{name}{path}"
        if keys:
            found.update(dict.fromkeys(provider.keys, PLACEHOLDER))
    return found

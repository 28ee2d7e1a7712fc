"""Which path means what: the one table of the sandbox.  Pure.

Paths are told apart by their ends, as providers differ in what stands before; only where the
same path has several meanings does the provider's name decide.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import unquote_to_bytes

from llmproxyd.errors import Refused
from llmproxyd.sandbox import anthropic, cohere, databricks, embeddings, google, ollama, openai, responses
from llmproxyd.sandbox.values import Answer, Ask

GET = frozenset({b"GET", b"HEAD"})
POST = frozenset({b"POST"})


@dataclass(frozen=True, slots=True)
class Route:
    """One kind of path and who answers it.

    :param pattern: searched in the raw path behind the provider's name; a group ``model``
        marks where it names the model.
    :param speaks: the provider whose dialect the answers have; ``None`` for the one that was
        asked.
    :param only: the provider that the path has this meaning for; ``None`` for all.
    """

    methods: frozenset[bytes]
    pattern: re.Pattern[bytes]
    handler: Callable[[Ask], Answer]
    speaks: str | None = None
    only: str | None = None

    @property
    def operation(self) -> str:
        """A word for what it does."""
        return self.handler.__name__


def bedrock(_ask: Ask) -> NoReturn:
    """``POST /model/ID/…``: its binary streams and signatures are not rehearsed here.

    :raises Refused: always.
    """
    raise Refused(501, "sandbox_not_implemented", "The sandbox does not speak Bedrock's API.")


def _post(
    pattern: str, handler: Callable[[Ask], Answer], speaks: str | None = None, only: str | None = None
) -> Route:
    return Route(POST, re.compile(pattern.encode()), handler, speaks, only)


def _get(
    pattern: str, handler: Callable[[Ask], Answer], speaks: str | None = None, only: str | None = None
) -> Route:
    return Route(GET, re.compile(pattern.encode()), handler, speaks, only)


_AZURE = r"(?:/deployments/(?P<model>[^/]+))?"
_GEMINI = r"/(?P<model>[^/:]+)(?::|%3[Aa])"

ROUTES = (
    _post(r"^/model/(?P<model>[^/]+)/(converse|invoke)", bedrock, "bedrock"),
    # Databricks' own; its AI gateway's paths end as the dialects' that they speak.
    _post(r"^/serving-endpoints/(?P<model>[^/]+)/invocations$", databricks.invocations),
    _get(r"^/api/2\.[0-9]/serving-endpoints$", databricks.endpoints),
    _get(r"^/api/2\.[0-9]/serving-endpoints/(?P<model>[^/]+)$", databricks.endpoint),
    _get(r"^/api/ai-gateway/v2/endpoints$", databricks.endpoints),
    _get(
        r"^/oidc/(?:accounts/[^/]+/)?\.well-known/(?:oauth-authorization-server|openid-configuration)$",
        databricks.discovery,
    ),
    _get(r"^/\.well-known/databricks-config$", databricks.host_metadata),
    _get(r"^/oidc/(?:accounts/[^/]+/)?v1/authorize$", databricks.authorize),
    _post(r"^/oidc/(?:accounts/[^/]+/)?v1/token$", databricks.token),
    # Gemini, at any version, or none (some clients drop it).
    _post(_GEMINI + "generateContent$", google.generate, "google"),
    _post(_GEMINI + "streamGenerateContent$", google.stream, "google"),
    _post(_GEMINI + "countTokens$", google.count_tokens, "google"),
    _post(_GEMINI + "embedContent$", google.embed, "google"),
    _post(_GEMINI + "batchEmbedContents$", google.embed_batch, "google"),
    _get(r"(?<!/openai)/models$", google.models, "google", "google"),
    _get(r"(?<!/openai)/models/(?P<model>[^/]+)$", google.model, "google", "google"),
    # Ollama's own API.
    _post(r"^/api/chat$", ollama.chat, "ollama"),
    _post(r"^/api/generate$", ollama.generate, "ollama"),
    _post(r"^/api/embed$", ollama.embed, "ollama"),
    _post(r"^/api/embeddings$", ollama.embeddings, "ollama"),
    _post(r"^/api/show$", ollama.show, "ollama"),
    _get(r"^/api/tags$", ollama.tags, "ollama"),
    _get(r"^/api/ps$", ollama.running, "ollama"),
    _get(r"^/api/version$", ollama.version, "ollama"),
    # Cohere.
    _post(r"^/v2/chat$", cohere.chat, "cohere"),
    _post(r"^/v2/embed$", cohere.embed, "cohere"),
    _get(r"^/v1/models$", cohere.models, "cohere", "cohere"),
    _get(r"^/v1/models/(?P<model>[^/]+)$", cohere.model, "cohere", "cohere"),
    # Anthropic, also at others that speak its dialect.
    _post(r"/messages$", anthropic.messages, "anthropic"),
    _post(r"/messages/count_tokens$", anthropic.count_tokens, "anthropic"),
    _get(r"/models$", anthropic.models, "anthropic", "anthropic"),
    _get(r"/models/(?P<model>[^/]+)$", anthropic.model, "anthropic", "anthropic"),
    # OpenAI, and everyone else.
    _post(_AZURE + r"/chat/completions$", openai.chat),
    _post(_AZURE + r"(?<!/chat)(?<!/fim)/completions$", openai.completions),
    _post(r"/responses$", responses.responses),
    _post(_AZURE + r"/embeddings$", embeddings.embeddings),
    _get(r"/models$", openai.models),
    _get(r"/models/(?P<model>.+)$", openai.model),
)


def find(method: bytes, provider: str, path: bytes) -> tuple[Route, str]:
    """The route of a request, and the model that its path names (decoded, else empty).

    :raises Refused: no route has this path, or none of these takes the method.
    """
    allowed: set[bytes] = set()
    for route in ROUTES:
        if route.only not in (None, provider):
            continue
        match = route.pattern.search(path)
        if match is None:
            continue
        if method in route.methods:
            named = match.groupdict().get("model") or b""
            return route, unquote_to_bytes(named).decode("utf-8", "replace")
        allowed |= route.methods
    if allowed:
        fields = ((b"allow", b", ".join(sorted(allowed))),)
        raise Refused(405, "sandbox_method_not_allowed", "The sandbox has another method here.", fields)
    shown = path.decode("ascii", "replace")
    raise Refused(404, "sandbox_unknown_path", f"The sandbox does not know the path {shown}")

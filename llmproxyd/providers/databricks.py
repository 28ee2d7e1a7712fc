"""Databricks: serving endpoints, the AI gateway, and the OAuth of a workspace.

Errors: https://docs.databricks.com/api (``error_code`` and ``message``, flat).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from llmproxyd.providers import anthropic, openai
from llmproxyd.providers.base import (
    Dialect,
    Endpoint,
    EndpointKind,
    ErrorContext,
    ErrorKind,
    ErrorSpec,
    Facts,
    Provider,
    Signal,
    adapted,
    edge_page,
    path,
)


def shape(spec: ErrorSpec, message: str, context: ErrorContext) -> Mapping[str, object]:
    """``{"error_code", "message"}``."""
    return {"error_code": spec.code, "message": message}


def local(status: int, code: str, message: str) -> ErrorSpec:
    """An error of the proxy's own; the code stands at ``error_code``."""
    return ErrorSpec(status=status, message=message, code=code)


def headers(spec: ErrorSpec, context: ErrorContext) -> list[tuple[bytes, bytes]]:
    """``x-request-id``, and ``retry-after`` in whole seconds: the SDK reads nothing else."""
    fields = [(b"x-request-id", context.request_id.encode())]
    if context.retry_after is not None:
        fields.append((b"retry-after", b"%d" % -int(-context.retry_after // 1)))
    return fields


DIALECT = Dialect(shape=shape, local=local, headers=headers)


def _as_openai(value: Mapping[str, object]) -> Mapping[str, object]:
    """Readers of chat streams look for ``error``: the flat object would pass as an odd chunk."""
    error = {"message": value.get("message"), "type": None, "param": None, "code": value.get("error_code")}
    return {"error": error}


_ANTHROPIC_TYPES = {
    "REQUEST_LIMIT_EXCEEDED": "rate_limit_error",
    "TEMPORARILY_UNAVAILABLE": "overloaded_error",
    "INVALID_PARAMETER_VALUE": "invalid_request_error",
    "BAD_REQUEST": "invalid_request_error",
}


def _as_anthropic(value: Mapping[str, object]) -> Mapping[str, object]:
    code = str(value.get("error_code"))
    error = {
        "type": _ANTHROPIC_TYPES.get(code, "api_error"),
        "message": value.get("message"),
        "details": {"error_code": code},
    }
    return {"type": "error", "error": error}


_ALL = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE"})
_CHAT = openai.chat(r"/(serving-endpoints|ai-gateway/[a-z]+/v1)/chat/completions$")

ENDPOINTS = (
    *adapted(
        (
            _CHAT,
            openai.responses(r"/(serving-endpoints|ai-gateway/[a-z]+/v1)/responses$"),
            openai.embeddings(r"/(serving-endpoints|ai-gateway/[a-z]+/v1)/embeddings$"),
            # One path for chat, completions and embeddings: the endpoint behind the name decides.
            replace(
                _CHAT,
                operation="invocations",
                pattern=path(r"/serving-endpoints/(?P<model>[^/]+)/(served-models/[^/]+/)?invocations$"),
            ),
        ),
        _as_openai,
    ),
    # How the gateway words errors on this path is not documented.  A whole answer is the
    # workspace's own, flat one, like everywhere else on the host: status and message are what
    # clients act on there.  Within a stream a client knows Anthropic's error event only.
    *adapted(
        (replace(anthropic.MESSAGES, pattern=path(r"/ai-gateway/anthropic/v1/messages$")),), _as_anthropic
    ),
    replace(anthropic.COUNT_TOKENS, pattern=path(r"/ai-gateway/anthropic/v1/messages/count_tokens$")),
    Endpoint("oidc", path(r"^/oidc/"), EndpointKind.AUTH, _ALL),
    Endpoint("config", path(r"^/\.well-known/databricks-config$"), EndpointKind.METADATA, _ALL),
    Endpoint("gateway_endpoints", path(r"^/api/ai-gateway/"), EndpointKind.METADATA, _ALL),
    Endpoint("workspace", path(r"^/api/2\.[0-9]+/"), EndpointKind.METADATA, _ALL),
)

ERRORS: dict[ErrorKind, ErrorSpec] = {
    # The live text is not public; this one is known to clients as "too long".
    ErrorKind.CONTEXT_LENGTH: ErrorSpec(
        status=400,
        message="prompt is too long: 200251 tokens > 200000 maximum",
        code="INVALID_PARAMETER_VALUE",
    ),
    ErrorKind.RATE_LIMIT: ErrorSpec(
        status=429,
        message="REQUEST_LIMIT_EXCEEDED: Exceeded workspace QPS rate limit for {model}. Please use a "
        "provisioned throughput Foundation Model APIs endpoint for a higher rate limit.",
        code="REQUEST_LIMIT_EXCEEDED",
    ),
    ErrorKind.SERVER_ERROR: ErrorSpec(
        status=500, message="The server encountered an internal error.", code="INTERNAL_ERROR"
    ),
    ErrorKind.OVERLOADED: ErrorSpec(
        status=503,
        message="The service at {model} is temporarily unavailable. Please try again later.",
        code="TEMPORARILY_UNAVAILABLE",
    ),
    ErrorKind.QUOTA: ErrorSpec(
        status=429,
        message="REQUEST_LIMIT_EXCEEDED: Exceeded workspace input tokens per minute rate limit for {model}.",
        code="REQUEST_LIMIT_EXCEEDED",
    ),
    ErrorKind.AUTHENTICATION: ErrorSpec(
        status=401,
        message="Credential was not sent or was of an unsupported type for this API.",
        code="UNAUTHENTICATED",
    ),
    ErrorKind.PERMISSION: ErrorSpec(
        status=403,
        message="PERMISSION_DENIED: The endpoint is temporarily disabled due to a Databricks-set rate "
        "limit of 0.",
        code="PERMISSION_DENIED",
    ),
    ErrorKind.NOT_FOUND: ErrorSpec(
        status=404,
        message="Endpoint with name '{model}' does not exist.",
        code="RESOURCE_DOES_NOT_EXIST",
    ),
    ErrorKind.CONTENT_FILTER: ErrorSpec(
        status=400, message="The request was blocked by the endpoint's guardrails.", code="BAD_REQUEST"
    ),
    ErrorKind.TOO_LARGE: ErrorSpec(
        status=413, message="Request size cannot exceed 16777216 bytes.", code="BAD_REQUEST"
    ),
    ErrorKind.BAD_GATEWAY: ErrorSpec(status=502, message="Bad gateway", html=edge_page(502, "Bad Gateway")),
    ErrorKind.GATEWAY_TIMEOUT: ErrorSpec(
        status=504, message="The request timed out while waiting for {model}.", code="DEADLINE_EXCEEDED"
    ),
}

_PATHS = (b"/serving-endpoints/", b"/ai-gateway/", b"/oidc/", b"/api/2.", b"/api/ai-gateway/")


def _own_path(facts: Facts) -> bool:
    """Row 2, before Anthropic's: the gateway serves ``/ai-gateway/anthropic/v1/messages``."""
    return facts.path.startswith(_PATHS) or facts.path == b"/.well-known/databricks-config"


PROVIDER = Provider(
    name="databricks",
    title="Databricks",
    base_url=None,
    base_url_variable="DATABRICKS_REAL_HOST",
    endpoints=ENDPOINTS,
    errors=ERRORS,
    dialect=DIALECT,
    signals=(
        Signal(2, _own_path),
        # Row 6, lifted above row 5: a workspace token outweighs Anthropic's wire shape.
        Signal(4.5, lambda facts: facts.key_prefix.startswith(b"dapi"), by_key=True),
    ),
    hosts={"DATABRICKS_HOST": ""},
    keys=("DATABRICKS_TOKEN",),
    sample_model="databricks-claude-sonnet-4-5",
)

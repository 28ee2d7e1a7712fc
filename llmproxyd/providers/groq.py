"""Groq: OpenAI's API under ``/openai/v1``.

Errors: https://console.groq.com/docs/errors; limits: …/docs/rate-limits.
"""

from __future__ import annotations

from dataclasses import replace

from llmproxyd.providers import openai
from llmproxyd.providers.base import ErrorContext, ErrorKind, ErrorSpec, Provider, Signal, Usage, counted


def headers(spec: ErrorSpec, context: ErrorContext) -> list[tuple[bytes, bytes]]:
    """OpenAI's, but the limit family stands on every answer, and some of it is always left."""
    fields = openai.headers(spec, context)
    if spec.status != 429:
        fields += [
            (b"x-ratelimit-limit-requests", b"14400"),
            (b"x-ratelimit-limit-tokens", b"18000"),
            (b"x-ratelimit-remaining-requests", b"14370"),
            (b"x-ratelimit-remaining-tokens", b"17997"),
            (b"x-ratelimit-reset-requests", b"2m59.56s"),
            (b"x-ratelimit-reset-tokens", b"7.66s"),
        ]
    return fields


def _usage(usage: Usage) -> Usage:
    """In streams the usage stands below a member of Groq's own, asked for or not."""
    return replace(usage, roots=(*usage.roots, ("x_groq",)))


ENDPOINTS = counted(openai.ENDPOINTS, _usage)

ERRORS: dict[ErrorKind, ErrorSpec] = {
    **openai.ERRORS,
    ErrorKind.CONTEXT_LENGTH: ErrorSpec(
        status=400,
        message="Please reduce the length of the messages or completion.",
        type="invalid_request_error",
        param="messages",
        code="context_length_exceeded",
    ),
    ErrorKind.RATE_LIMIT: ErrorSpec(
        status=429,
        message="Rate limit reached for model `{model}` in organization `org_llmproxyd` service tier "
        "`on_demand` on tokens per minute (TPM): Limit 6000, Used 5800, Requested 900. Please try again "
        "in {retry_after}s.",
        type="tokens",
        code="rate_limit_exceeded",
    ),
    ErrorKind.SERVER_ERROR: ErrorSpec(
        status=500, message="Internal Server Error", type="internal_server_error"
    ),
    ErrorKind.OVERLOADED: ErrorSpec(
        status=503,
        message="{model} is currently over capacity. Please try again and back off exponentially.",
        type="internal_server_error",
    ),
    ErrorKind.QUOTA: ErrorSpec(
        status=429,
        message="Rate limit reached for model `{model}` in organization `org_llmproxyd` service tier "
        "`on_demand` on tokens per day (TPD): Limit 100000, Used 99931, Requested 1034. Please try again "
        "in {retry_after}s.",
        type="tokens",
        code="rate_limit_exceeded",
    ),
    ErrorKind.AUTHENTICATION: ErrorSpec(
        status=401, message="Invalid API Key", type="invalid_request_error", code="invalid_api_key"
    ),
    ErrorKind.PERMISSION: ErrorSpec(
        status=403,
        message="The model `{model}` is blocked at the organization level.",
        type="permissions_error",
        code="model_permission_blocked_org",
    ),
    ErrorKind.TOO_LARGE: ErrorSpec(
        status=413,
        message="Request too large for model `{model}` in organization `org_llmproxyd` service tier "
        "`on_demand` on tokens per minute (TPM): Limit 6000, Requested 36114, please reduce your message "
        "size and try again.",
        type="tokens",
        code="rate_limit_exceeded",
    ),
}

PROVIDER = Provider(
    name="groq",
    title="Groq",
    base_url="https://api.groq.com",
    endpoints=ENDPOINTS,
    errors=ERRORS,
    dialect=replace(openai.DIALECT, headers=headers),
    signals=(
        # Row 6, lifted above row 5: the key outweighs Anthropic's wire shape.
        Signal(4.5, lambda facts: facts.key_prefix.startswith(b"gsk_"), by_key=True),
        Signal(10, lambda facts: facts.path.startswith(b"/openai/v1/")),
        Signal(11, lambda facts: facts.agent in (b"Groq/", b"AsyncGroq/")),
    ),
    hosts={"GROQ_BASE_URL": ""},
    keys=("GROQ_API_KEY",),
    sample_model="llama-3.3-70b-versatile",
)

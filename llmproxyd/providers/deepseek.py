"""DeepSeek: OpenAI's API without a version in the path, and Anthropic's below ``/anthropic``.

Nothing in a request tells it from OpenAI's: it is chosen by ``/to/deepseek`` or a route.
Errors: https://api-docs.deepseek.com/quick_start/error_codes.
"""

from __future__ import annotations

from dataclasses import replace

from llmproxyd.providers.anthropic import MESSAGES
from llmproxyd.providers.base import (
    READ,
    Endpoint,
    EndpointKind,
    ErrorKind,
    ErrorSpec,
    Provider,
    Usage,
    counted,
    path,
)
from llmproxyd.providers.openai import DIALECT, ENDPOINTS, ERRORS


def _usage(usage: Usage) -> Usage:
    """What came from the cache has a name of its own; it is part of the prompt's tokens."""
    return replace(usage, tokens={**usage.tokens, "cached": ("usage", "prompt_cache_hit_tokens")})


PROVIDER = Provider(
    name="deepseek",
    title="DeepSeek",
    base_url="https://api.deepseek.com",
    endpoints=(
        *counted(ENDPOINTS, _usage),
        replace(MESSAGES, pattern=path(r"/anthropic/v1/messages$"), speaks="anthropic"),
        Endpoint("balance", path(r"/user/balance$"), EndpointKind.METADATA, READ),
    ),
    errors={
        **ERRORS,
        ErrorKind.CONTEXT_LENGTH: ErrorSpec(
            status=400,
            message="This model's maximum context length is 65536 tokens. However, you requested 69648 "
            "tokens (65552 in the messages, 4096 in the completion). Please reduce the length of the "
            "messages or completion.",
            type="invalid_request_error",
            code="invalid_request_error",
        ),
        ErrorKind.RATE_LIMIT: ErrorSpec(
            status=429,
            message="Too many concurrent requests. Please pace your requests reasonably.",
            type="rate_limit_error",
            code="rate_limit_exceeded",
        ),
        ErrorKind.QUOTA: ErrorSpec(
            status=402, message="Insufficient Balance", type="unknown_error", code="invalid_request_error"
        ),
        ErrorKind.AUTHENTICATION: ErrorSpec(
            status=401,
            message="Authentication Fails (no such user)",
            type="authentication_error",
            code="invalid_request_error",
        ),
        ErrorKind.CONTENT_FILTER: ErrorSpec(
            status=400,
            message="Content Exists Risk",
            type="invalid_request_error",
            code="invalid_request_error",
        ),
    },
    dialect=DIALECT,
    keys=("DEEPSEEK_API_KEY",),
    sample_model="deepseek-chat",
)

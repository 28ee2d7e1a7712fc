"""OpenRouter: OpenAI's endpoints under ``/api/v1``, errors of its own, Anthropic's messages too.

Errors: https://openrouter.ai/docs/api-reference/errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from llmproxyd.providers.anthropic import MESSAGES, wire_shape
from llmproxyd.providers.base import (
    READ,
    Dialect,
    Endpoint,
    EndpointKind,
    ErrorContext,
    ErrorKind,
    ErrorSpec,
    Facts,
    Provider,
    Signal,
    Usage,
    adapted,
    counted,
    path,
    retry_after_fields,
)
from llmproxyd.providers.openai import ENDPOINTS as OPENAI_ENDPOINTS


def shape(spec: ErrorSpec, message: str, context: ErrorContext) -> Mapping[str, object]:
    """``{"error": {code: <HTTP status>, message[, metadata]}}``."""
    metadata = dict(spec.extra)
    if "model_slug" in metadata:
        metadata["model_slug"] = context.model
    if spec.status == 429 and context.retry_after is not None:
        metadata["retry_after_seconds"] = context.retry_after
    error: dict[str, object] = {"code": spec.status, "message": message}
    return {"error": {**error, "metadata": metadata} if metadata else error}


def local(status: int, code: str, message: str) -> ErrorSpec:
    """An error of the proxy's own; the code stands at ``error.metadata.error_code``."""
    return ErrorSpec(status=status, message=message, extra={"error_code": code})


def headers(spec: ErrorSpec, context: ErrorContext) -> list[tuple[bytes, bytes]]:
    """``x-request-id`` and, on a 429, the short limit family with a reset in epoch milliseconds."""
    fields = [(b"x-request-id", context.request_id.encode())]
    if spec.status == 429:
        seconds = 20 if context.retry_after is None else context.retry_after
        fields += [
            (b"x-ratelimit-limit", b"20"),
            (b"x-ratelimit-remaining", b"0"),
            (b"x-ratelimit-reset", b"%d" % round((context.wall + seconds) * 1000)),
        ]
    return fields + retry_after_fields(context)


DIALECT = Dialect(shape=shape, local=local, headers=headers)


def _chunk(value: Mapping[str, object]) -> Mapping[str, object]:
    """Within a stream an error is a chunk whose only choice finishes with ``error``.

    An event stands alone here, so the id and model of the chunks before it are not known.
    """
    return {
        "id": "gen-llmproxyd",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": "",
        "provider": "",
        "error": value.get("error", value),
        "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}],
    }


def _usage(usage: Usage) -> Usage:
    """OpenRouter tells the cost, too, in credits (US dollars)."""
    return replace(usage, cost=("usage", "cost"))


# An event of the responses API holds the bare error; a chunk's ``error`` is that same object.
ENDPOINTS = (
    replace(MESSAGES, pattern=path(r"/v1/messages$"), speaks="anthropic"),
    *counted(adapted(OPENAI_ENDPOINTS, _chunk), _usage),
    Endpoint("auth", path(r"/auth/keys(/|$)"), EndpointKind.AUTH, frozenset({b"GET", b"POST"})),
    Endpoint(
        "account",
        path(r"/v1/(key|keys|credits|generation|providers|activity)(/[^/]+)?$"),
        EndpointKind.METADATA,
        READ,
    ),
)

ERRORS: dict[ErrorKind, ErrorSpec] = {
    ErrorKind.CONTEXT_LENGTH: ErrorSpec(
        status=400,
        message="This endpoint's maximum context length is 32768 tokens. However, you requested about "
        "42832 tokens (42832 of text input). Please reduce the length of either one, or use the "
        '"middle-out" transform to compress your prompt automatically.',
    ),
    ErrorKind.RATE_LIMIT: ErrorSpec(status=429, message="Rate limit exceeded. Please try again later."),
    ErrorKind.SERVER_ERROR: ErrorSpec(status=500, message="Internal Server Error"),
    ErrorKind.OVERLOADED: ErrorSpec(
        status=503,
        message="Provider returned error",
        extra={
            "raw": '{"error":{"message":"The model is overloaded. Please try again later."}}',
            "provider_name": "Example",
            "is_byok": False,
        },
    ),
    ErrorKind.QUOTA: ErrorSpec(
        status=402,
        message="Insufficient credits. Add more using https://openrouter.ai/settings/credits",
        extra={
            "limit_source": "openrouter_credits",
            "remedy_hint": "Add credits at https://openrouter.ai/settings/credits",
        },
    ),
    ErrorKind.AUTHENTICATION: ErrorSpec(status=401, message="No auth credentials found"),
    ErrorKind.PERMISSION: ErrorSpec(
        status=403, message="This key does not have permission to use the model {model}."
    ),
    ErrorKind.NOT_FOUND: ErrorSpec(status=404, message="No endpoints found for {model}."),
    ErrorKind.CONTENT_FILTER: ErrorSpec(
        status=403,
        message="{model} requires moderation on Example. Your input was flagged. No credits were charged.",
        extra={
            "reasons": ["violence"],
            "flagged_input": "",
            "provider_name": "Example",
            "model_slug": "",
        },
    ),
    ErrorKind.TOO_LARGE: ErrorSpec(status=413, message="The request payload is too large."),
    ErrorKind.BAD_GATEWAY: ErrorSpec(
        status=502,
        message="Provider returned error",
        extra={"raw": "error code: 502", "provider_name": "Example", "is_byok": False},
    ),
    # OpenRouter documents 408 for this, not 504.
    ErrorKind.GATEWAY_TIMEOUT: ErrorSpec(status=408, message="The request timed out."),
}


def _own_path(facts: Facts) -> bool:
    return facts.path.startswith(b"/api/v1/")


PROVIDER = Provider(
    name="openrouter",
    title="OpenRouter",
    base_url="https://openrouter.ai",
    endpoints=ENDPOINTS,
    errors=ERRORS,
    dialect=DIALECT,
    signals=(
        # Row 6, lifted above row 5: with this key Anthropic's wire shape is meant for OpenRouter.
        Signal(4.5, lambda facts: facts.key_prefix.startswith(b"sk-or-"), by_key=True),
        # So does the path override that shape; after the keys, as row 9 comes after row 6.
        Signal(4.6, lambda facts: _own_path(facts) and wire_shape(facts)),
        Signal(9, _own_path),
    ),
    hosts={"OPENROUTER_HOST": ""},
    keys=("OPENROUTER_API_KEY",),
    sample_model="openai/gpt-4o",
)

"""Venice: OpenAI's endpoints under ``/api/v1``, most errors a mere text.

The path is OpenRouter's too, so Venice is chosen by ``/to/venice`` or a route, never detected.
Errors: https://docs.venice.ai/api-reference/error-codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from llmproxyd.providers import openai
from llmproxyd.providers.base import (
    ErrorContext,
    ErrorKind,
    ErrorSpec,
    Provider,
    adapted,
)


def shape(spec: ErrorSpec, message: str, context: ErrorContext) -> Mapping[str, object]:
    """``{"error": <text>}``; OpenAI's object for the one entry that has a code."""
    if spec.code is not None:
        return openai.shape(spec, message, context)
    return {"error": message, **spec.extra}


def local(status: int, code: str, message: str) -> ErrorSpec:
    """An error of the proxy's own; the code stands at ``code``."""
    return ErrorSpec(status=status, message=message, extra={"code": code})


def _as_openai(value: Mapping[str, object]) -> Mapping[str, object]:
    """Readers of chat streams look for an ``error`` object."""
    error = value.get("error")
    if isinstance(error, Mapping):
        return value
    return {"error": {"message": error, "type": None, "param": None, "code": value.get("code")}}


ERRORS: dict[ErrorKind, ErrorSpec] = {
    ErrorKind.CONTEXT_LENGTH: ErrorSpec(
        status=400,
        message="Your request exceeds the model's maximum context. Please reduce your prompt or completion "
        "length.",
        type="invalid_request_error",
        param="messages",
        code="context_length_exceeded",
    ),
    ErrorKind.RATE_LIMIT: ErrorSpec(status=429, message="Rate limit exceeded"),
    ErrorKind.SERVER_ERROR: ErrorSpec(status=500, message="Inference processing failed"),
    ErrorKind.OVERLOADED: ErrorSpec(status=503, message="The model is at capacity. Please try again later"),
    ErrorKind.QUOTA: ErrorSpec(
        status=402,
        message="Insufficient USD or Diem balance to complete request. Visit "
        "https://venice.ai/settings/api to add credits.",
    ),
    ErrorKind.AUTHENTICATION: ErrorSpec(status=401, message="Authentication failed"),
    ErrorKind.PERMISSION: ErrorSpec(status=403, message="Unauthorized access to this resource"),
    ErrorKind.NOT_FOUND: ErrorSpec(status=404, message="Specified model not found: {model}"),
    ErrorKind.CONTENT_FILTER: ErrorSpec(
        status=400, message="Your request violates the content policy of Venice.ai or the model provider"
    ),
    ErrorKind.TOO_LARGE: ErrorSpec(status=413, message="The request payload is too large"),
    ErrorKind.BAD_GATEWAY: openai.ERRORS[ErrorKind.BAD_GATEWAY],
    ErrorKind.GATEWAY_TIMEOUT: ErrorSpec(status=504, message="The request took too long to complete"),
}

PROVIDER = Provider(
    name="venice",
    title="Venice",
    base_url="https://api.venice.ai",
    endpoints=adapted(openai.ENDPOINTS, _as_openai),
    errors=ERRORS,
    dialect=replace(openai.DIALECT, shape=shape, local=local),
    keys=("VENICE_API_KEY",),
    sample_model="llama-3.3-70b",
)

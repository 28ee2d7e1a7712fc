"""xAI: OpenAI's endpoints, with flat errors whose code is a sentence.

Its own SDK speaks gRPC and cannot come this way; OpenAI's clients can.
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
    Signal,
    adapted,
)


def shape(spec: ErrorSpec, message: str, context: ErrorContext) -> Mapping[str, object]:
    """``{"code": <sentence>, "error": <text>}``."""
    return {"code": spec.code, "error": message}


def local(status: int, code: str, message: str) -> ErrorSpec:
    """An error of the proxy's own; the code stands at ``code``."""
    return ErrorSpec(status=status, message=message, code=code)


def _as_openai(value: Mapping[str, object]) -> Mapping[str, object]:
    """Readers of chat streams look for an ``error`` object."""
    error = {"message": value.get("error"), "type": None, "param": None, "code": value.get("code")}
    return {"error": error}


_INVALID = "Client specified an invalid argument"
_EXHAUSTED = "Some resource has been exhausted"
_DENIED = "The caller does not have permission to execute the specified operation"

ERRORS: dict[ErrorKind, ErrorSpec] = {
    ErrorKind.CONTEXT_LENGTH: ErrorSpec(
        status=400,
        message="This model's maximum prompt length is 131072 but the request contains 136973 tokens.",
        code=_INVALID,
    ),
    ErrorKind.RATE_LIMIT: ErrorSpec(
        status=429,
        message="Too many requests for the model {model}. Please try again in {retry_after}s.",
        code=_EXHAUSTED,
    ),
    ErrorKind.SERVER_ERROR: ErrorSpec(
        status=500, message="The server encountered an internal error.", code="Internal error"
    ),
    ErrorKind.OVERLOADED: ErrorSpec(
        status=503,
        message="The model {model} is at capacity. Please try again later.",
        code="The service is currently unavailable",
    ),
    ErrorKind.QUOTA: ErrorSpec(
        status=429,
        message="Your team has either used all available credits or reached its monthly spending limit.",
        code=_EXHAUSTED,
    ),
    ErrorKind.AUTHENTICATION: ErrorSpec(
        status=401,
        message="Incorrect API key provided.",
        code="The request does not have valid authentication credentials for the operation",
    ),
    ErrorKind.PERMISSION: ErrorSpec(
        status=403, message="Your team does not have access to the model {model}.", code=_DENIED
    ),
    ErrorKind.NOT_FOUND: ErrorSpec(
        status=404,
        message="The model {model} does not exist or your team does not have access to it.",
        code="Some requested entity was not found",
    ),
    ErrorKind.CONTENT_FILTER: ErrorSpec(
        status=403, message="Content violates usage guidelines.", code=_DENIED
    ),
    ErrorKind.TOO_LARGE: ErrorSpec(status=413, message="The request body is too large.", code=_INVALID),
    ErrorKind.BAD_GATEWAY: openai.ERRORS[ErrorKind.BAD_GATEWAY],
    ErrorKind.GATEWAY_TIMEOUT: ErrorSpec(
        status=504,
        message="The request took too long to process.",
        code="Deadline expired before operation could complete",
    ),
}

PROVIDER = Provider(
    name="xai",
    title="xAI",
    base_url="https://api.x.ai",
    endpoints=adapted(openai.ENDPOINTS, _as_openai),
    errors=ERRORS,
    dialect=replace(openai.DIALECT, shape=shape, local=local),
    signals=(
        # Row 6, lifted above row 5: the key outweighs Anthropic's wire shape.
        Signal(4.5, lambda facts: facts.key_prefix.startswith(b"xai-"), by_key=True),
    ),
    keys=("XAI_API_KEY",),
    sample_model="grok-4",
)

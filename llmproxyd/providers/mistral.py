"""Mistral: OpenAI's endpoints and fill-in-the-middle, with flat errors of its own.

Errors: https://docs.mistral.ai/api (``object: error``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from llmproxyd.providers import openai
from llmproxyd.providers.base import (
    Dialect,
    ErrorContext,
    ErrorKind,
    ErrorSpec,
    Provider,
    Signal,
    adapted,
)


def shape(spec: ErrorSpec, message: str, context: ErrorContext) -> Mapping[str, object]:
    """``{"object": "error", message, type, param: null, code, raw_status_code}``."""
    return {
        "object": "error",
        "message": message,
        "type": spec.type,
        "param": None,
        "code": spec.code,
        "raw_status_code": spec.status,
    }


def local(status: int, code: str, message: str) -> ErrorSpec:
    """An error of the proxy's own; the code stands at ``code``."""
    return openai.local(status, code, message)


DIALECT = Dialect(shape=shape, local=local, headers=openai.headers)


def _as_openai(value: Mapping[str, object]) -> Mapping[str, object]:
    """Readers of chat streams look for ``error``."""
    message = value.get("message", value.get("detail"))
    error = {"message": message, "type": value.get("type"), "param": None, "code": value.get("code")}
    return {"error": error}


def _unauthorized(context: ErrorContext) -> object:
    return {"detail": "Unauthorized"}


ENDPOINTS = adapted(
    (
        replace(openai.chat(r"/fim/completions$"), operation="fim"),
        replace(openai.chat(r"/agents/completions$"), operation="agents"),
        *openai.ENDPOINTS,
    ),
    _as_openai,
)

ERRORS: dict[ErrorKind, ErrorSpec] = {
    **openai.ERRORS,
    ErrorKind.CONTEXT_LENGTH: ErrorSpec(
        status=400,
        message="Prompt contains 40096 tokens and 0 draft tokens, too large for model with 32768 maximum "
        "context length",
        type="invalid_request_error",
        code="3051",
    ),
    ErrorKind.RATE_LIMIT: ErrorSpec(
        status=429, message="Rate limit exceeded", type="rate_limited", code="1300"
    ),
    ErrorKind.SERVER_ERROR: ErrorSpec(
        status=500, message="Internal server error", type="internal_server_error", code="1000"
    ),
    # Mistral tells a want of capacity by 429, too.
    ErrorKind.OVERLOADED: ErrorSpec(
        status=429,
        message="Service tier capacity exceeded for this model.",
        type="invalid_request_error",
    ),
    ErrorKind.QUOTA: ErrorSpec(
        status=402, message="Payment required. Please check your plan and billing.", type="payment_required"
    ),
    ErrorKind.AUTHENTICATION: ErrorSpec(status=401, message="Unauthorized", body=_unauthorized),
    ErrorKind.PERMISSION: ErrorSpec(
        status=403, message="You do not have access to this resource.", type="forbidden"
    ),
    ErrorKind.NOT_FOUND: ErrorSpec(
        status=400, message="Invalid model: {model}", type="invalid_model", code="1500"
    ),
    ErrorKind.CONTENT_FILTER: ErrorSpec(
        status=403, message="The request was refused by moderation.", type="guardrail_violation"
    ),
    ErrorKind.TOO_LARGE: ErrorSpec(
        status=413, message="The request body is too large.", type="invalid_request_error"
    ),
}

PROVIDER = Provider(
    name="mistral",
    title="Mistral",
    base_url="https://api.mistral.ai",
    endpoints=ENDPOINTS,
    errors=ERRORS,
    dialect=DIALECT,
    signals=(Signal(11, lambda facts: facts.agent.startswith(b"mistral-client")),),
    keys=("MISTRAL_API_KEY",),
    sample_model="mistral-large-latest",
)

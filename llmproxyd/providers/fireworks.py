"""Fireworks AI: OpenAI's endpoints and Anthropic's messages, with error objects of its own.

Its SDK leaves ``/inference`` out when it is given another base URL, so that stands in ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from llmproxyd.providers import openai
from llmproxyd.providers.anthropic import MESSAGES
from llmproxyd.providers.base import (
    ErrorContext,
    ErrorKind,
    ErrorSpec,
    Provider,
    Signal,
    path,
)


def shape(spec: ErrorSpec, message: str, context: ErrorContext) -> Mapping[str, object]:
    """``{"error": {"object": "error", type, code, message}}``."""
    return {"error": {"object": "error", "type": spec.type, "code": spec.code, "message": message}}


ERRORS: dict[ErrorKind, ErrorSpec] = {
    ErrorKind.CONTEXT_LENGTH: ErrorSpec(
        status=400,
        message="The prompt is too long: 136973, model maximum context length: 131071",
        type="invalid_request_error",
        code="INVALID_ARGUMENT",
    ),
    ErrorKind.RATE_LIMIT: ErrorSpec(
        status=429,
        message="You have exceeded the rate limit for this account. Please try again later.",
        type="rate_limit_error",
        code="RESOURCE_EXHAUSTED",
    ),
    ErrorKind.SERVER_ERROR: ErrorSpec(
        status=500, message="Internal server error", type="internal_server_error", code="INTERNAL"
    ),
    ErrorKind.OVERLOADED: ErrorSpec(
        status=503,
        message="Service is temporarily overloaded. Please try again later.",
        type="service_unavailable_error",
        code="UNAVAILABLE",
    ),
    # An account that has used up its money is suspended, which is told by 412.
    ErrorKind.QUOTA: ErrorSpec(
        status=412,
        message="Account is suspended, possibly due to reaching the monthly spending limit or failure to "
        "pay past invoices.",
        type="invalid_request_error",
        code="PRECONDITION_FAILED",
    ),
    ErrorKind.AUTHENTICATION: ErrorSpec(
        status=401,
        message="The API key you provided is invalid.",
        type="authentication_error",
        code="UNAUTHORIZED",
    ),
    ErrorKind.PERMISSION: ErrorSpec(
        status=403,
        message="You do not have permission to access this resource.",
        type="permission_error",
        code="FORBIDDEN",
    ),
    ErrorKind.NOT_FOUND: ErrorSpec(
        status=404,
        message="Model not found, inaccessible, and/or not deployed",
        type="invalid_request_error",
        code="NOT_FOUND",
    ),
    ErrorKind.CONTENT_FILTER: ErrorSpec(
        status=400,
        message="The request was rejected by the content filter.",
        type="invalid_request_error",
        code="content_filter",
    ),
    ErrorKind.TOO_LARGE: ErrorSpec(
        status=413,
        message="The request body is too large.",
        type="invalid_request_error",
        code="PAYLOAD_TOO_LARGE",
    ),
    ErrorKind.BAD_GATEWAY: openai.ERRORS[ErrorKind.BAD_GATEWAY],
    ErrorKind.GATEWAY_TIMEOUT: openai.ERRORS[ErrorKind.GATEWAY_TIMEOUT],
}

PROVIDER = Provider(
    name="fireworks",
    title="Fireworks AI",
    base_url="https://api.fireworks.ai/inference",
    endpoints=(replace(MESSAGES, pattern=path(r"/v1/messages$"), speaks="anthropic"), *openai.ENDPOINTS),
    errors=ERRORS,
    dialect=replace(openai.DIALECT, shape=shape),
    signals=(
        # Row 6, lifted above row 5: with this key Anthropic's wire shape is meant for Fireworks.
        Signal(4.5, lambda facts: facts.key_prefix.startswith(b"fw_"), by_key=True),
        Signal(11, lambda facts: facts.agent in (b"Fireworks/", b"AsyncFireworks/")),
    ),
    keys=("FIREWORKS_API_KEY",),
    sample_model="accounts/fireworks/models/llama-v3p3-70b-instruct",
)

"""vLLM's OpenAI-compatible server.

Nothing in a request tells it from OpenAI's: it is chosen by ``/to/NAME`` or a route.
Of itself it fails by 400, 401, 404, 500 and 503 only; the other entries have its shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from llmproxyd.providers import openai
from llmproxyd.providers.anthropic import MESSAGES
from llmproxyd.providers.base import (
    READ,
    Dialect,
    Endpoint,
    EndpointKind,
    ErrorContext,
    ErrorKind,
    ErrorSpec,
    Provider,
    path,
    retry_after_fields,
)


def shape(spec: ErrorSpec, message: str, context: ErrorContext) -> Mapping[str, object]:
    """``{"error": {message, type, param, code: <status>}}``."""
    code = spec.status if spec.code is None else spec.code
    return {"error": {"message": message, "type": spec.type, "param": spec.param, "code": code}}


_TYPES = {
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    429: "RateLimitError",
}


def local(status: int, code: str, message: str) -> ErrorSpec:
    """An error of the proxy's own; the code stands at ``error.code``, a word instead of a number."""
    kind = _TYPES.get(status, "BadRequestError" if status < 500 else "InternalServerError")
    return ErrorSpec(status=status, message=message, type=kind, code=code)


def headers(spec: ErrorSpec, context: ErrorContext) -> list[tuple[bytes, bytes]]:
    """Nothing but ``retry-after`` when asked for."""
    return retry_after_fields(context)


DIALECT = Dialect(shape=shape, local=local, headers=headers)


ENDPOINTS = (
    replace(MESSAGES, pattern=path(r"/v1/messages$"), speaks="anthropic"),
    *openai.ENDPOINTS,
    Endpoint("rerank", path(r"/(rerank|score|pooling|classify)$"), usage=openai.CHAT_USAGE),
    Endpoint("tokenize", path(r"/(de)?tokenize$"), EndpointKind.METADATA),
    Endpoint(
        "server",
        path(r"/(health|ping|version|metrics|load)$"),
        EndpointKind.METADATA,
        READ,
    ),
)

ERRORS: dict[ErrorKind, ErrorSpec] = {
    ErrorKind.CONTEXT_LENGTH: ErrorSpec(
        status=400,
        message="This model's maximum context length is 40960 tokens. However, your request has 91714 input "
        "tokens. Please reduce the length of the input messages.",
        type="BadRequestError",
    ),
    ErrorKind.RATE_LIMIT: ErrorSpec(status=429, message="Too many requests.", type="RateLimitError"),
    ErrorKind.SERVER_ERROR: ErrorSpec(
        status=500, message="EngineCore encountered an issue.", type="InternalServerError"
    ),
    ErrorKind.OVERLOADED: ErrorSpec(
        status=503, message="The server is overloaded.", type="ServiceUnavailableError"
    ),
    ErrorKind.QUOTA: ErrorSpec(status=429, message="You exceeded your current quota.", type="RateLimitError"),
    ErrorKind.AUTHENTICATION: ErrorSpec(status=401, message="Unauthorized", type="AuthenticationError"),
    ErrorKind.PERMISSION: ErrorSpec(status=403, message="Forbidden", type="PermissionDeniedError"),
    ErrorKind.NOT_FOUND: ErrorSpec(
        status=404, message="The model `{model}` does not exist.", type="NotFoundError"
    ),
    ErrorKind.CONTENT_FILTER: ErrorSpec(
        status=400, message="The request was blocked.", type="BadRequestError"
    ),
    ErrorKind.TOO_LARGE: ErrorSpec(
        status=413, message="The request body is too large.", type="BadRequestError"
    ),
    ErrorKind.BAD_GATEWAY: openai.ERRORS[ErrorKind.BAD_GATEWAY],
    ErrorKind.GATEWAY_TIMEOUT: openai.ERRORS[ErrorKind.GATEWAY_TIMEOUT],
}

PROVIDER = Provider(
    name="vllm",
    title="vLLM",
    base_url=None,
    endpoints=ENDPOINTS,
    errors=ERRORS,
    dialect=DIALECT,
    sample_model="Qwen/Qwen3-8B",
)

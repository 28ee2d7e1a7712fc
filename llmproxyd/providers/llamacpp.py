"""llama.cpp's server: OpenAI's API and a native completion.

Nothing in a request tells it from OpenAI's: it is chosen by ``/to/NAME`` or a route.
Errors: ``format_error_response`` in the server's source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from llmproxyd.providers import openai
from llmproxyd.providers.anthropic import COUNT_TOKENS, MESSAGES
from llmproxyd.providers.base import (
    SSE,
    Dialect,
    Endpoint,
    EndpointKind,
    ErrorContext,
    ErrorKind,
    ErrorSpec,
    Framing,
    Provider,
    StreamForm,
    Streams,
    Usage,
    data_event,
    path,
    retry_after_fields,
)
from llmproxyd.providers.events import JsonObject
from llmproxyd.providers.limits import no_fields


def shape(spec: ErrorSpec, message: str, context: ErrorContext) -> Mapping[str, object]:
    """``{"error": {code: <status>, message, type[, n_prompt_tokens, n_ctx]}}``."""
    code = spec.status if spec.code is None else spec.code
    return {"error": {"code": code, "message": message, "type": spec.type, **spec.extra}}


_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    501: "not_supported_error",
    503: "unavailable_error",
}


def local(status: int, code: str, message: str) -> ErrorSpec:
    """An error of the proxy's own; the code stands at ``error.code``, a word instead of a number."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return ErrorSpec(status=status, message=message, type=kind, code=code)


def headers(spec: ErrorSpec, context: ErrorContext) -> list[tuple[bytes, bytes]]:
    """Nothing but ``retry-after`` when asked for."""
    return retry_after_fields(context)


DIALECT = Dialect(shape=shape, local=local, headers=headers, limits=no_fields)


def _content(_name: str, value: JsonObject) -> bool:
    return bool(value.get("content")) or value.get("stop") is True


def _said(_name: str, value: JsonObject) -> object:
    return value.get("content")


def _empty(_name: str, value: JsonObject) -> JsonObject | None:
    """What has a text is left out, but for the last event."""
    if not value.get("content"):
        return value
    return {**value, "content": ""} if value.get("stop") is True else None


NATIVE_STREAM = StreamForm(
    "completion",
    Framing.SSE,
    SSE,
    data_event,
    final=("stop_type",),
    content=_content,
    said=_said,
    empty=_empty,
)
NATIVE_USAGE = Usage(
    model=("model",),
    tokens={"input": ("tokens_evaluated",), "output": ("tokens_predicted",)},
    finish=(("stop_type",),),
)

ENDPOINTS = (
    Endpoint(
        "completion",
        path(r"/(completion|infill)$"),
        streams=Streams.BODY,
        forms=(NATIVE_STREAM,),
        usage=NATIVE_USAGE,
    ),
    replace(MESSAGES, pattern=path(r"/v1/messages$"), speaks="anthropic"),
    replace(COUNT_TOKENS, pattern=path(r"/v1/messages/count_tokens$"), speaks="anthropic"),
    *openai.ENDPOINTS,
    Endpoint("rerank", path(r"/(embedding|rerank(ing)?)$"), usage=openai.CHAT_USAGE),
    Endpoint("tokenize", path(r"/((de)?tokenize|apply-template)$"), EndpointKind.METADATA),
    Endpoint(
        "server",
        path(r"/(health|props|slots|metrics)$"),
        EndpointKind.METADATA,
        frozenset({b"GET", b"HEAD", b"POST"}),
    ),
)

ERRORS: dict[ErrorKind, ErrorSpec] = {
    ErrorKind.CONTEXT_LENGTH: ErrorSpec(
        status=400,
        message="request (13392 tokens) exceeds the available context size (8192 tokens), try increasing it",
        type="exceed_context_size_error",
        extra={"n_prompt_tokens": 13392, "n_ctx": 8192},
    ),
    ErrorKind.RATE_LIMIT: ErrorSpec(status=429, message="Too many requests", type="unavailable_error"),
    ErrorKind.SERVER_ERROR: ErrorSpec(status=500, message="Internal server error", type="server_error"),
    ErrorKind.OVERLOADED: ErrorSpec(status=503, message="Loading model", type="unavailable_error"),
    ErrorKind.QUOTA: ErrorSpec(status=429, message="Quota exceeded", type="unavailable_error"),
    ErrorKind.AUTHENTICATION: ErrorSpec(status=401, message="Invalid API Key", type="authentication_error"),
    ErrorKind.PERMISSION: ErrorSpec(status=403, message="Permission denied", type="permission_error"),
    ErrorKind.NOT_FOUND: ErrorSpec(status=404, message="model '{model}' not found", type="not_found_error"),
    ErrorKind.CONTENT_FILTER: ErrorSpec(
        status=400, message="The request was blocked", type="invalid_request_error"
    ),
    ErrorKind.TOO_LARGE: ErrorSpec(
        status=413, message="The request body is too large", type="invalid_request_error"
    ),
    ErrorKind.BAD_GATEWAY: openai.ERRORS[ErrorKind.BAD_GATEWAY],
    ErrorKind.GATEWAY_TIMEOUT: openai.ERRORS[ErrorKind.GATEWAY_TIMEOUT],
}

PROVIDER = Provider(
    name="llamacpp",
    title="llama.cpp server",
    base_url=None,
    endpoints=ENDPOINTS,
    errors=ERRORS,
    dialect=DIALECT,
    sample_model="qwen3-8b-q4_k_m",
)

"""Anthropic: messages, token counts, models.

Errors and headers: https://docs.anthropic.com/en/api/errors and …/rate-limits.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from llmproxyd.providers.base import (
    READ,
    CredentialPlace,
    Dialect,
    Endpoint,
    EndpointKind,
    ErrorContext,
    ErrorKind,
    ErrorSpec,
    Facts,
    Framing,
    Provider,
    Signal,
    StreamForm,
    Streams,
    Usage,
    edge_page,
    encode,
    path,
    retry_after_fields,
)
from llmproxyd.providers.events import JsonObject, first_arguments, kind_of, member, says
from llmproxyd.providers.limits import anthropic_fields


def shape(spec: ErrorSpec, message: str, context: ErrorContext) -> Mapping[str, object]:
    """``{"type": "error", "error": {type, message[, details]}, "request_id"}``."""
    error: dict[str, object] = {"type": spec.type, "message": message, **spec.extra}
    return {"type": "error", "error": error, "request_id": "req_" + context.request_id}


_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def local(status: int, code: str, message: str) -> ErrorSpec:
    """An error of the proxy's own; the code stands at ``error.details.error_code``."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    return ErrorSpec(status=status, message=message, type=kind, extra={"details": {"error_code": code}})


def headers(spec: ErrorSpec, context: ErrorContext) -> list[tuple[bytes, bytes]]:
    """``request-id`` and, on a 429, the limit family with RFC 3339 resets."""
    fields = [(b"request-id", b"req_" + context.request_id.encode())]
    if spec.status == 429:
        seconds = 20 if context.retry_after is None else context.retry_after
        reset = datetime.fromtimestamp(int(context.wall + seconds), UTC)
        for name, limit, left in (
            (b"requests", b"50", b"0"),
            (b"tokens", b"48000", b"40000"),
            (b"input-tokens", b"40000", b"32000"),
            (b"output-tokens", b"8000", b"8000"),
        ):
            prefix = b"anthropic-ratelimit-" + name
            fields += [
                (prefix + b"-limit", limit),
                (prefix + b"-remaining", left),
                (prefix + b"-reset", reset.strftime("%Y-%m-%dT%H:%M:%SZ").encode()),
            ]
    return fields + retry_after_fields(context)


DIALECT = Dialect(shape=shape, local=local, headers=headers, limits=anthropic_fields)


def _stream_error(value: Mapping[str, object]) -> bytes:
    return b"event: error\ndata: " + encode(value) + b"\n\n"


def content(name: str, value: JsonObject) -> bool:
    """A block that opens with something in it, a delta that is not empty, a reason to stop.

    The block of a tool opens with its name; that of a text, or of thinking, opens empty.
    """
    match kind_of(name, value):
        case "content_block_start":
            return says(value.get("content_block"))
        case "content_block_delta":
            return says(value.get("delta"))
        case "message_delta":
            return bool(member(value, "delta").get("stop_reason"))
        case "completion":  # of the elder endpoint
            return bool(value.get("completion") or value.get("stop_reason"))
    return False


def said(name: str, value: JsonObject) -> object:
    """The block that opens, a delta to it, or the text of the elder endpoint."""
    places = {
        "content_block_start": "content_block",
        "content_block_delta": "delta",
        "completion": "completion",
    }
    return value.get(places.get(kind_of(name, value), ""))


def tool(name: str, value: JsonObject) -> str:
    """A piece of a tool's input, or the whole of it where the block opens with it."""
    match kind_of(name, value):
        case "content_block_start":
            return first_arguments(member(value, "content_block").get("input"))
        case "content_block_delta":
            return first_arguments(member(value, "delta").get("partial_json"))
    return ""


def empty(name: str, value: JsonObject) -> JsonObject | None:
    """Blocks are left out, from their start to their stop."""
    kind = kind_of(name, value)
    if kind == "completion" and value.get("completion"):
        return {**value, "completion": ""} if value.get("stop_reason") else None
    return None if kind.startswith("content_block_") else value


STREAM = StreamForm(
    "messages",
    Framing.SSE,
    b"text/event-stream",
    _stream_error,
    final=("message_stop",),
    content=content,
    said=said,
    tool=tool,
    empty=empty,
)
USAGE = Usage(
    model=("model",),
    tokens={
        "input": ("usage", "input_tokens"),
        "output": ("usage", "output_tokens"),
        "cached": ("usage", "cache_read_input_tokens"),
        "written": ("usage", "cache_creation_input_tokens"),
    },
    roots=((), ("message",)),
    finish=(("stop_reason",), ("delta", "stop_reason")),
    apart={"input": ("cached", "written")},
)

MESSAGES_PATH = r"/messages$"
COUNT_TOKENS_PATH = r"/messages/count_tokens$"

MESSAGES = Endpoint("messages", path(MESSAGES_PATH), streams=Streams.BODY, forms=(STREAM,), usage=USAGE)
COUNT_TOKENS = Endpoint("count_tokens", path(COUNT_TOKENS_PATH), EndpointKind.METADATA)
MODELS = Endpoint("models", path(r"/models(/[^/]+)?$"), EndpointKind.METADATA, READ)
COMPLETE = Endpoint("complete", path(r"/complete$"), streams=Streams.BODY, forms=(STREAM,), usage=USAGE)

ERRORS: dict[ErrorKind, ErrorSpec] = {
    ErrorKind.CONTEXT_LENGTH: ErrorSpec(
        status=400,
        message="prompt is too long: 200251 tokens > 200000 maximum",
        type="invalid_request_error",
    ),
    ErrorKind.RATE_LIMIT: ErrorSpec(
        status=429,
        message="This request would exceed your account's rate limit. Please try again later.",
        type="rate_limit_error",
    ),
    ErrorKind.SERVER_ERROR: ErrorSpec(status=500, message="Internal server error", type="api_error"),
    ErrorKind.OVERLOADED: ErrorSpec(status=529, message="Overloaded", type="overloaded_error"),
    ErrorKind.QUOTA: ErrorSpec(
        status=400,
        message="Your credit balance is too low to access the Anthropic API. Please go to Plans & "
        "Billing to upgrade or purchase credits.",
        type="invalid_request_error",
    ),
    ErrorKind.AUTHENTICATION: ErrorSpec(status=401, message="invalid x-api-key", type="authentication_error"),
    ErrorKind.PERMISSION: ErrorSpec(
        status=403,
        message="Your API key does not have permission to use the specified resource.",
        type="permission_error",
    ),
    ErrorKind.NOT_FOUND: ErrorSpec(status=404, message="model: {model}", type="not_found_error"),
    ErrorKind.CONTENT_FILTER: ErrorSpec(
        status=400,
        message="Output blocked by content filtering policy",
        type="invalid_request_error",
    ),
    ErrorKind.TOO_LARGE: ErrorSpec(
        status=413,
        message="Request exceeds the maximum allowed number of bytes.",
        type="request_too_large",
    ),
    ErrorKind.BAD_GATEWAY: ErrorSpec(status=502, message="Bad gateway", html=edge_page(502, "Bad Gateway")),
    ErrorKind.GATEWAY_TIMEOUT: ErrorSpec(
        status=504, message="The request timed out. Please try again later.", type="timeout_error"
    ),
}


def wire_shape(facts: Facts) -> bool:
    """The request speaks Anthropic's API, whoever serves it."""
    names = facts.header_names
    return (
        b"anthropic-version" in names
        or b"anthropic-beta" in names
        or b"x-api-key" in names
        or facts.path.endswith((b"/v1/messages", b"/v1/messages/count_tokens"))
    )


PROVIDER = Provider(
    name="anthropic",
    title="Anthropic",
    base_url="https://api.anthropic.com",
    endpoints=(MESSAGES, COUNT_TOKENS, COMPLETE, MODELS),
    errors=ERRORS,
    dialect=DIALECT,
    signals=(
        Signal(5, wire_shape),
        Signal(5, lambda facts: facts.key_prefix.startswith(b"sk-ant-"), by_key=True),
    ),
    unknown=ErrorKind.OVERLOADED,
    hosts={"ANTHROPIC_HOST": "", "ANTHROPIC_BASE_URL": ""},
    keys=("ANTHROPIC_API_KEY",),
    credential=CredentialPlace(b"x-api-key", b""),
    sample_model="claude-sonnet-4-5",
)

"""Cohere: chat, embed and rerank of its own, and OpenAI's chat below ``/compatibility``.

Errors: https://docs.cohere.com/reference/errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from llmproxyd.providers import openai
from llmproxyd.providers.base import (
    READ,
    SSE,
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
    data_event,
    edge_page,
    path,
    retry_after_fields,
)
from llmproxyd.providers.events import (
    JsonObject,
    error_event,
    first_arguments,
    kind_of,
    member,
    objects,
    says,
)


def shape(spec: ErrorSpec, message: str, context: ErrorContext) -> Mapping[str, object]:
    """``{"id", "message"}``."""
    return {"id": context.request_id, "message": message, **spec.extra}


def local(status: int, code: str, message: str) -> ErrorSpec:
    """An error of the proxy's own; the code stands at ``code``."""
    return ErrorSpec(status=status, message=message, extra={"code": code})


def headers(spec: ErrorSpec, context: ErrorContext) -> list[tuple[bytes, bytes]]:
    """``retry-after`` alone; ``x-ratelimit-reset`` is left out, as the SDK would wait for it."""
    return retry_after_fields(context)


DIALECT = Dialect(shape=shape, local=local, headers=headers)


def _message_end(value: Mapping[str, object]) -> bytes:
    """Cohere has no error event: a message that failed ends, with the reason ``ERROR``."""
    delta = {"error": value.get("message"), "finish_reason": "ERROR"}
    return b"event: message-end\n" + data_event({"type": "message-end", "delta": delta})


def _content(name: str, value: JsonObject) -> bool:
    """A message that gets something (text, thinking, a plan, a call, a citation), or its end."""
    return kind_of(name, value) == "message-end" or says(member(value, "delta").get("message"))


def failure(name: str, value: JsonObject) -> JsonObject | None:
    """A message that ends, or a whole one that is over, for the reason ``ERROR`` or ``TIMEOUT``."""
    for place in (member(value, "delta"), value):
        reason = place.get("finish_reason")
        if reason in ("ERROR", "TIMEOUT"):
            message = place.get("error") or f"The message ended with the finish_reason {reason}."
            return {"message": message, "code": reason}
    return error_event(name, value)


def _content_v1(name: str, value: JsonObject) -> bool:
    kind = kind_of(name, value)
    return says(value.get("text")) if kind == "text-generation" else kind not in ("stream-start", "debug")


def _said(_name: str, value: JsonObject) -> object:
    return member(value, "delta").get("message")


def _tool(_name: str, value: JsonObject) -> str:
    """A piece of the arguments of the call that the delta adds to."""
    call = member(member(member(value, "delta"), "message"), "tool_calls")
    return first_arguments(member(call, "function").get("arguments"))


def _empty(name: str, value: JsonObject) -> JsonObject | None:
    """Of the message there is its start and its end alone."""
    kind = kind_of(name, value)
    return value if kind.startswith("message-") or not kind else None


def _said_v1(name: str, value: JsonObject) -> object:
    return None if kind_of(name, value) == "stream-end" else [value.get(key) for key in _PIECES_V1]


_PIECES_V1 = ("text", "tool_call_delta", "tool_calls")


def _tool_v1(_name: str, value: JsonObject) -> str:
    """The parameters of a call: in pieces, or whole."""
    calls = [member(value, "tool_call_delta"), *objects(value.get("tool_calls"))]
    return first_arguments(*(call.get("parameters") for call in calls))


def _empty_v1(name: str, value: JsonObject) -> JsonObject | None:
    """Of the stream there is its start and its end alone, and the answer in it has no text."""
    kind = kind_of(name, value)
    answer = member(value, "response")
    if says([answer.get("text"), answer.get("tool_calls")]):
        silent: dict[str, object] = {"text": "", "tool_calls": []}
        return {**value, "response": {key: silent.get(key, one) for key, one in answer.items()}}
    return value if kind in ("stream-start", "stream-end", "debug", "") else None


STREAM = StreamForm(
    "chat",
    Framing.SSE,
    SSE,
    _message_end,
    final=("message-end",),
    content=_content,
    failure=failure,
    said=_said,
    tool=_tool,
    empty=_empty,
)
# The first version's stream of lines has no event for an error either.
STREAM_V1 = StreamForm(
    "chat_v1",
    Framing.NDJSON,
    b"application/stream+json",
    error=None,
    final=("stream-end",),
    content=_content_v1,
    failure=failure,
    said=_said_v1,
    tool=_tool_v1,
    empty=_empty_v1,
)
USAGE = Usage(
    model=(),
    tokens={
        "input": ("usage", "tokens", "input_tokens"),
        "output": ("usage", "tokens", "output_tokens"),
    },
    roots=((), ("delta",)),
    finish=(("finish_reason",),),
)
# ``meta`` holds the version of the API, too.
_COUNTS = (("meta", "tokens"), ("meta", "billed_units"))
USAGE_V1 = Usage(
    model=(),
    tokens={
        "input": ("meta", "tokens", "input_tokens"),
        "output": ("meta", "tokens", "output_tokens"),
    },
    roots=((), ("response",)),
    finish=(("finish_reason",),),
    members=_COUNTS,
)
BILLED = Usage(model=(), tokens={"input": ("meta", "billed_units", "input_tokens")}, members=_COUNTS)

ENDPOINTS = (
    Endpoint("chat", path(r"/v2/chat$"), streams=Streams.BODY, forms=(STREAM,), usage=USAGE),
    Endpoint("chat", path(r"/v1/chat$"), streams=Streams.BODY, forms=(STREAM_V1,), usage=USAGE_V1),
    Endpoint("embeddings", path(r"/v[12]/embed$"), usage=BILLED),
    Endpoint("rerank", path(r"/v[12]/rerank$"), usage=BILLED),
    replace(openai.chat(r"/compatibility/v1/chat/completions$"), speaks="openai"),
    replace(openai.embeddings(r"/compatibility/v1/embeddings$"), speaks="openai"),
    Endpoint("tokenize", path(r"/v1/(de)?tokenize$"), EndpointKind.METADATA),
    Endpoint("models", path(r"/v1/models(/[^/]+)?$"), EndpointKind.METADATA, READ),
)

ERRORS: dict[ErrorKind, ErrorSpec] = {
    ErrorKind.CONTEXT_LENGTH: ErrorSpec(
        status=400,
        message="too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 4292. "
        "Try using a shorter prompt, or enabling prompt truncating.",
    ),
    ErrorKind.RATE_LIMIT: ErrorSpec(
        status=429,
        message="You are past the per minute request limit, please wait and try again later.",
    ),
    ErrorKind.SERVER_ERROR: ErrorSpec(status=500, message="internal server error"),
    ErrorKind.OVERLOADED: ErrorSpec(status=503, message="the service is temporarily unavailable"),
    ErrorKind.QUOTA: ErrorSpec(
        status=402,
        message="Please add or update your payment method at https://dashboard.cohere.com/billing to "
        "continue",
    ),
    ErrorKind.AUTHENTICATION: ErrorSpec(status=401, message="invalid api token"),
    ErrorKind.PERMISSION: ErrorSpec(
        status=403, message="your api key does not have permission to access this resource"
    ),
    ErrorKind.NOT_FOUND: ErrorSpec(
        status=404,
        message="model '{model}' not found, make sure the correct model ID was used and that you have "
        "access to the model.",
    ),
    ErrorKind.CONTENT_FILTER: ErrorSpec(status=400, message="the request was blocked by the content filter"),
    ErrorKind.TOO_LARGE: ErrorSpec(status=413, message="request entity too large"),
    ErrorKind.BAD_GATEWAY: ErrorSpec(status=502, message="Bad gateway", html=edge_page(502, "Bad Gateway")),
    ErrorKind.GATEWAY_TIMEOUT: ErrorSpec(status=504, message="the request timed out"),
}


def _own_path(facts: Facts) -> bool:
    return facts.path in (b"/v2/chat", b"/v2/embed", b"/v2/rerank")


PROVIDER = Provider(
    name="cohere",
    title="Cohere",
    base_url="https://api.cohere.com",
    endpoints=ENDPOINTS,
    errors=ERRORS,
    dialect=DIALECT,
    signals=(Signal(8, _own_path), Signal(11, lambda facts: facts.agent == b"cohere/")),
    hosts={"CO_API_URL": ""},
    keys=("CO_API_KEY", "COHERE_API_KEY"),
    sample_model="command-a-03-2025",
)

"""Ollama: its own API under ``/api``, OpenAI's and Anthropic's under ``/v1``.

Both halves fail with the same texts and statuses but in shapes of their own, so the shape is
chosen by operation here, rather than by ``speaks``: OpenAI's catalogue would bring codes,
limit fields and request ids that Ollama does not have.
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
from llmproxyd.providers.events import JsonObject, first_arguments, member, objects, says
from llmproxyd.providers.limits import no_fields

_COMPATIBLE = frozenset(endpoint.operation for endpoint in openai.ENDPOINTS)


def _type(status: int) -> str:
    return {400: "invalid_request_error", 404: "not_found_error"}.get(status, "api_error")


def shape(spec: ErrorSpec, message: str, context: ErrorContext) -> Mapping[str, object]:
    """``{"error": <text>}``; under ``/v1`` OpenAI's object without a code."""
    if context.operation not in _COMPATIBLE:
        return {"error": message, **spec.extra}
    error = {"message": message, "type": _type(spec.status), "param": None, "code": None}
    return {"error": {**error, **spec.extra}}


def local(status: int, code: str, message: str) -> ErrorSpec:
    """An error of the proxy's own; the code stands at ``code``, under ``/v1`` at ``error.code``."""
    return ErrorSpec(status=status, message=message, extra={"code": code})


def headers(spec: ErrorSpec, context: ErrorContext) -> list[tuple[bytes, bytes]]:
    """Nothing but ``retry-after`` when asked for."""
    return retry_after_fields(context)


DIALECT = Dialect(shape=shape, local=local, headers=headers, limits=no_fields)


def _line(value: Mapping[str, object]) -> bytes:
    return encode(value) + b"\n"


def _content(_name: str, value: JsonObject) -> bool:
    """A message (``/api/chat``) or a text (``/api/generate``) that is not empty, or the end."""
    return value.get("done") is True or says([value.get(key) for key in ("message", "response", "thinking")])


def _said(_name: str, value: JsonObject) -> object:
    return [value.get(key) for key in ("message", "response", "thinking")]


def _tool(_name: str, value: JsonObject) -> str:
    """The arguments of a call; they come whole."""
    calls = objects(member(value, "message").get("tool_calls"))
    return first_arguments(*(member(call, "function").get("arguments") for call in calls))


def _empty(name: str, value: JsonObject) -> JsonObject | None:
    """Lines that say something are left out, but for the last one: its texts are empty."""
    if not says(_said(name, value)):
        return value
    if value.get("done") is not True:
        return None
    message = {"role": member(value, "message").get("role", "assistant"), "content": ""}
    silent: dict[str, object] = {"message": message, "response": "", "thinking": ""}
    return {key: silent.get(key, one) for key, one in value.items()}


# ``done`` stands in every line, false; these only in the last one.
STREAM = StreamForm(
    "lines",
    Framing.NDJSON,
    b"application/x-ndjson",
    _line,
    final=("done_reason", "total_duration"),
    content=_content,
    said=_said,
    tool=_tool,
    empty=_empty,
)
# Pulling a model tells its progress in the same lines and ends with a status.
PROGRESS = StreamForm("progress", Framing.NDJSON, b"application/x-ndjson", _line)
USAGE = Usage(
    model=("model",),
    tokens={"input": ("prompt_eval_count",), "output": ("eval_count",)},
    finish=(("done_reason",),),
)

NATIVE = (
    Endpoint(
        "native_chat",
        path(r"/api/chat$"),
        streams=Streams.BODY_UNLESS_FALSE,
        forms=(STREAM,),
        usage=USAGE,
    ),
    Endpoint(
        "generate",
        path(r"/api/generate$"),
        streams=Streams.BODY_UNLESS_FALSE,
        forms=(STREAM,),
        usage=USAGE,
    ),
    Endpoint("embed", path(r"/api/embed(dings)?$"), usage=USAGE),
    Endpoint(
        "transfer",
        path(r"/api/(pull|push|create)$"),
        EndpointKind.METADATA,
        streams=Streams.BODY_UNLESS_FALSE,
        forms=(PROGRESS,),
    ),
    Endpoint("show", path(r"/api/(show|copy)$"), EndpointKind.METADATA),
    Endpoint("delete", path(r"/api/delete$"), EndpointKind.METADATA, frozenset({b"DELETE"})),
    Endpoint("tags", path(r"/api/(tags|ps|version)$"), EndpointKind.METADATA, READ),
)

ENDPOINTS = (
    *NATIVE,
    replace(MESSAGES, pattern=path(r"/v1/messages$"), speaks="anthropic"),
    *openai.ENDPOINTS,
)

ERRORS: dict[ErrorKind, ErrorSpec] = {
    # For long Ollama cut an over-long prompt in silence; this is what it says when it refuses.
    ErrorKind.CONTEXT_LENGTH: ErrorSpec(status=400, message="the input length exceeds the context length"),
    ErrorKind.RATE_LIMIT: ErrorSpec(status=429, message="too many requests, please try again later"),
    ErrorKind.SERVER_ERROR: ErrorSpec(
        status=500,
        message="llama runner process has terminated: exit status 2",
    ),
    ErrorKind.OVERLOADED: ErrorSpec(
        status=503, message="server busy, please try again.  maximum pending requests exceeded"
    ),
    ErrorKind.QUOTA: ErrorSpec(status=402, message="you have reached your usage limit"),
    ErrorKind.AUTHENTICATION: ErrorSpec(status=401, message="unauthorized"),
    ErrorKind.PERMISSION: ErrorSpec(status=403, message="forbidden"),
    ErrorKind.NOT_FOUND: ErrorSpec(status=404, message="model '{model}' not found"),
    ErrorKind.CONTENT_FILTER: ErrorSpec(status=400, message="the request was blocked"),
    ErrorKind.TOO_LARGE: ErrorSpec(status=413, message="request body too large"),
    ErrorKind.BAD_GATEWAY: ErrorSpec(status=502, message="Bad gateway", html=edge_page(502, "Bad Gateway")),
    ErrorKind.GATEWAY_TIMEOUT: ErrorSpec(
        status=504, message="Gateway time-out", html=edge_page(504, "Gateway Time-out")
    ),
}

_PATHS = frozenset(
    b"/api/" + name
    for name in (
        b"chat",
        b"generate",
        b"embed",
        b"embeddings",
        b"tags",
        b"show",
        b"pull",
        b"ps",
        b"version",
    )
)


def _own_path(facts: Facts) -> bool:
    return facts.path in _PATHS


PROVIDER = Provider(
    name="ollama",
    title="Ollama",
    base_url=None,
    endpoints=ENDPOINTS,
    errors=ERRORS,
    dialect=DIALECT,
    signals=(
        Signal(7, _own_path),
        # Its client calls paths beside those of row 7, too.
        Signal(11, lambda facts: facts.agent == b"ollama-python/"),
    ),
    hosts={"OLLAMA_HOST": ""},
    keys=("OLLAMA_API_KEY",),
    sample_model="llama3.2",
)

"""Amazon Bedrock's runtime: recognised, and its errors.

A stream is in AWS's binary event framing, in which no event of ours is put: it is cut alone.
A request signed by SigV4 holds the Host that the client saw, so it cannot be sent on as it is.
Errors: https://docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html.
"""

from __future__ import annotations

import json
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping

from llmproxyd.providers import anthropic, openai
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
    encode,
    path,
    retry_after_fields,
)
from llmproxyd.providers.events import JsonObject, first_arguments, member, says
from llmproxyd.providers.limits import no_fields


def shape(spec: ErrorSpec, message: str, context: ErrorContext) -> Mapping[str, object]:
    """``{"message"}``; the class of error is a header field."""
    return {"message": message, **spec.extra}


_TYPES = {
    401: "AccessDeniedException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    408: "ModelTimeoutException",
    429: "ThrottlingException",
    502: "ServiceUnavailableException",
    503: "ServiceUnavailableException",
    504: "ServiceUnavailableException",
}


def local(status: int, code: str, message: str) -> ErrorSpec:
    """An error of the proxy's own; the code stands at ``code``.

    AWS clients take the class of error from the header field and look no further.
    """
    kind = _TYPES.get(status, "ValidationException" if status < 500 else "InternalServerException")
    return ErrorSpec(status=status, message=message, type=kind, extra={"code": code})


def headers(spec: ErrorSpec, context: ErrorContext) -> list[tuple[bytes, bytes]]:
    """``x-amzn-requestid`` and ``x-amzn-errortype``, the name by which clients raise."""
    fields = [(b"x-amzn-requestid", context.request_id.encode())]
    if spec.type is not None:
        fields.append((b"x-amzn-errortype", spec.type.encode()))
    return fields + retry_after_fields(context)


DIALECT = Dialect(shape=shape, local=local, headers=headers, limits=no_fields)

_CONVERSE = (
    "messageStart",
    "contentBlockStart",
    "contentBlockDelta",
    "contentBlockStop",
    "messageStop",
    "metadata",
)
"""The frames of ``converse-stream``; in chunks of Nova's they are members."""

_CLAUDE = ("message_", "content_block_", "ping")
"""What the types of Claude's own events begin with."""

_EXCEPTION = "exception:"
"""What the names of frames begin with that are exceptions."""


def _content(name: str, value: JsonObject) -> bool:
    """Of ``converse-stream`` a block that gets something or why the message stops; see :func:`_said`."""
    match name:
        case "contentBlockStart":
            return says(value.get("start"))
        case "contentBlockDelta":
            return says(value.get("delta"))
        case "messageStop":
            return True
        case "chunk":
            return _said(_inner(value))
    return False


def _inner(value: JsonObject) -> JsonObject | None:
    """The model's own event in a chunk of ``invoke-with-response-stream``, ``None`` if it is none."""
    coded = value.get("bytes")
    try:
        found = json.loads(a2b_base64(coded)) if isinstance(coded, str) else None
    except (Base64Error, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _said(event: JsonObject | None) -> bool:
    """Whether a model's own event is content: known for Claude, Nova and OpenAI's models.

    Any other model has nothing to say but text, as far as is known.
    """
    if event is None:
        return True
    for name in _CONVERSE:
        if name in event:
            return _content(name, member(event, name))
    if str(event.get("type")).startswith(_CLAUDE):
        return anthropic.content("", event)
    return "choices" not in event or openai.chat_content("", event)


def _of_model(value: JsonObject) -> tuple[StreamForm, str, JsonObject] | None:
    """The model's own event in a chunk: its form, name and object; ``None`` if its API is not known."""
    event = _inner(value) or {}
    for name in _CONVERSE:
        if name in event:
            return STREAM, name, member(event, name)
    if str(event.get("type")).startswith(_CLAUDE):
        return anthropic.STREAM, "", event
    return (openai.CHAT_STREAM, "", event) if "choices" in event else None


def _words(name: str, value: JsonObject) -> object:
    """What is in a block; of a chunk what its event says, all of it where its API is not known."""
    if name != "chunk":
        return value.get({"contentBlockStart": "start", "contentBlockDelta": "delta"}.get(name, ""))
    found = _of_model(value)
    return _inner(value) if found is None else found[0].said(*found[1:])


def _tool(name: str, value: JsonObject) -> str:
    """A piece of a tool's input."""
    if name != "chunk":
        return first_arguments(member(member(value, "delta"), "toolUse").get("input"))
    found = _of_model(value)
    return "" if found is None else found[0].tool(*found[1:])


def _empty(name: str, value: JsonObject) -> JsonObject | None:
    """Blocks are left out, from their start to their stop; and what is not known."""
    if name != "chunk":
        return None if name.startswith("contentBlock") else value
    found = _of_model(value)
    if found is None or found[0].empty is None:
        return None
    _, inner_name, event = found
    left = found[0].empty(inner_name, event)
    if left is None or left is event:
        return None if left is None else value
    return {**value, "bytes": b2a_base64(encode(left), newline=False).decode()}


def _failure(name: str, value: JsonObject) -> JsonObject | None:
    """A frame that is an exception, or a chunk whose event is an error of the model's API."""
    if name.startswith(_EXCEPTION):
        return {**value, "type": name.removeprefix(_EXCEPTION)}
    event = _inner(value) if name == "chunk" else None
    if event is None:
        return None
    return openai.chat_failure("", event)


STREAM = StreamForm(
    "events",
    Framing.EVENT_STREAM,
    b"application/vnd.amazon.eventstream",
    error=None,
    final=("metadata",),
    content=_content,
    failure=_failure,
    said=_words,
    tool=_tool,
    empty=_empty,
)
USAGE = Usage(
    model=(),
    tokens={
        "input": ("usage", "inputTokens"),
        "output": ("usage", "outputTokens"),
        "total": ("usage", "totalTokens"),
        "cached": ("usage", "cacheReadInputTokens"),
        "written": ("usage", "cacheWriteInputTokens"),
    },
    finish=(("stopReason",),),
    apart={"input": ("cached", "written")},
)

_MODEL = r"/model/(?P<model>[^/]+)"

ENDPOINTS = (
    Endpoint("converse", path(_MODEL + r"/converse$"), usage=USAGE),
    Endpoint(
        "converse", path(_MODEL + r"/converse-stream$"), streams=Streams.ALWAYS, forms=(STREAM,), usage=USAGE
    ),
    # What a body of these holds is the model's own affair.
    Endpoint("invoke", path(_MODEL + r"/invoke$")),
    Endpoint(
        "invoke", path(_MODEL + r"/invoke-with-response-stream$"), streams=Streams.ALWAYS, forms=(STREAM,)
    ),
    Endpoint("count_tokens", path(_MODEL + r"/count-tokens$"), EndpointKind.METADATA),
    Endpoint("models", path(r"/foundation-models(/[^/]+)?$"), EndpointKind.METADATA, READ),
)

ERRORS: dict[ErrorKind, ErrorSpec] = {
    ErrorKind.CONTEXT_LENGTH: ErrorSpec(
        status=400, message="Input is too long for requested model.", type="ValidationException"
    ),
    ErrorKind.RATE_LIMIT: ErrorSpec(
        status=429,
        message="Too many requests, please wait before trying again.",
        type="ThrottlingException",
    ),
    ErrorKind.SERVER_ERROR: ErrorSpec(
        status=500,
        message="The system encountered an unexpected error during processing. Try your request again.",
        type="InternalServerException",
    ),
    ErrorKind.OVERLOADED: ErrorSpec(
        status=503,
        message="Bedrock is unable to process your request.",
        type="ServiceUnavailableException",
    ),
    ErrorKind.QUOTA: ErrorSpec(
        status=400,
        message="Your request exceeds the service quota for your account.",
        type="ServiceQuotaExceededException",
    ),
    ErrorKind.AUTHENTICATION: ErrorSpec(
        status=403,
        message="The security token included in the request is invalid.",
        type="UnrecognizedClientException",
    ),
    ErrorKind.PERMISSION: ErrorSpec(
        status=403,
        message="You don't have access to the model with the specified model ID.",
        type="AccessDeniedException",
    ),
    ErrorKind.NOT_FOUND: ErrorSpec(
        status=404,
        message="Could not resolve the foundation model from the model identifier: {model}",
        type="ResourceNotFoundException",
    ),
    ErrorKind.CONTENT_FILTER: ErrorSpec(
        status=400,
        message="The model returned the following errors: Output blocked by content filtering policy",
        type="ValidationException",
    ),
    ErrorKind.TOO_LARGE: ErrorSpec(
        status=413, message="The request body is too large.", type="RequestEntityTooLargeException"
    ),
    ErrorKind.BAD_GATEWAY: ErrorSpec(status=502, message="Bad gateway", type="ServiceUnavailableException"),
    # Bedrock says 408 when a model takes too long, not 504.
    ErrorKind.GATEWAY_TIMEOUT: ErrorSpec(
        status=408,
        message="The model took too long to process the request.",
        type="ModelTimeoutException",
    ),
}

_CALL = path(r"^/model/[^/]+/(?:converse|converse-stream|invoke|invoke-with-response-stream)$")


def _recognised(facts: Facts) -> bool:
    """Row 1: AWS's signature, or a runtime path (with a Bearer key there is no signature)."""
    return facts.scheme == b"aws4-hmac-sha256" or _CALL.search(facts.path) is not None


PROVIDER = Provider(
    name="bedrock",
    title="Amazon Bedrock",
    base_url=None,
    endpoints=ENDPOINTS,
    errors=ERRORS,
    dialect=DIALECT,
    signals=(Signal(1, _recognised),),
    hosts={"AWS_ENDPOINT_URL_BEDROCK_RUNTIME": ""},
    keys=("AWS_BEARER_TOKEN_BEDROCK",),
    sample_model="anthropic.claude-sonnet-4-5-v1:0",
)

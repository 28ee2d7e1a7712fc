"""OpenAI: chat completions, responses, embeddings, models.

Also the dialect that most other providers speak; their files take what they share from here.
Errors: https://platform.openai.com/docs/guides/error-codes; headers: the rate-limit guide.
"""

from __future__ import annotations

from collections.abc import Mapping

from llmproxyd.providers.base import (
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
    edge_page,
    encode,
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
    """``{"error": {message, type, param, code}}``: all four keys always, ``null`` where empty."""
    error = {"message": message, "type": spec.type, "param": spec.param, "code": spec.code}
    return {"error": {**error, **spec.extra}}


def local(status: int, code: str, message: str) -> ErrorSpec:
    """An error of the proxy's own; the code stands at ``error.code``."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return ErrorSpec(status=status, message=message, type=kind, code=code)


def headers(spec: ErrorSpec, context: ErrorContext) -> list[tuple[bytes, bytes]]:
    """``x-request-id`` and, on a 429, the limit family with durations (``6m0s``)."""
    fields = [(b"x-request-id", b"req_" + context.request_id.encode())]
    if spec.status == 429:
        seconds = 20 if context.retry_after is None else context.retry_after
        reset = f"{seconds:g}s".encode()
        tokens = spec.type == "tokens"
        fields += [
            (b"x-ratelimit-limit-requests", b"500"),
            (b"x-ratelimit-limit-tokens", b"30000"),
            (b"x-ratelimit-remaining-requests", b"499" if tokens else b"0"),
            (b"x-ratelimit-remaining-tokens", b"0" if tokens else b"29000"),
            (b"x-ratelimit-reset-requests", b"120ms" if tokens else reset),
            (b"x-ratelimit-reset-tokens", reset if tokens else b"2s"),
        ]
    return fields + retry_after_fields(context)


DIALECT = Dialect(shape=shape, local=local, headers=headers)


def _chat_stream_error(value: Mapping[str, object]) -> bytes:
    return b"data: " + encode(value) + b"\n\n"


def _responses_stream_error(value: Mapping[str, object]) -> bytes:
    event = {"type": "error", "error": value.get("error", value), "sequence_number": 0}
    return b"event: error\ndata: " + encode(event) + b"\n\n"


def chat_content(_name: str, value: JsonObject) -> bool:
    """A delta (of a chat), a text (of a completion) or a reason to finish, in any choice.

    Whatever a delta holds beside the role counts: compatible servers have members of their own
    for reasoning and media.
    """
    return any(
        choice.get("finish_reason") or any(says(choice.get(name)) for name in ("delta", "text", "message"))
        for choice in objects(value.get("choices"))
    )


def chat_said(_name: str, value: JsonObject) -> object:
    """The deltas (of a chat) or texts (of a completion) of all choices."""
    names = ("delta", "text", "message")
    return [choice.get(name) for choice in objects(value.get("choices")) for name in names]


def chat_tool(_name: str, value: JsonObject) -> str:
    """The first arguments in the deltas: of ``tool_calls``, or of the elder ``function_call``."""
    deltas = [member(choice, "delta") for choice in objects(value.get("choices"))]
    calls = [member(call, "function") for delta in deltas for call in objects(delta.get("tool_calls"))]
    calls += [member(delta, "function_call") for delta in deltas]
    return first_arguments(*(call.get("arguments") for call in calls))


def chat_empty(name: str, value: JsonObject) -> JsonObject | None:
    """A chunk with content is left out, but for one that finishes: its deltas keep the role alone."""
    choices = objects(value.get("choices"))
    if not chat_content(name, value):
        return value
    if not any(choice.get("finish_reason") for choice in choices):
        return None
    return {**value, "choices": list(map(_silent_choice, choices))} if says(chat_said(name, value)) else value


def _silent_choice(choice: JsonObject) -> JsonObject:
    delta = {name: text for name, text in member(choice, "delta").items() if name == "role"}
    silent: dict[str, object] = {"delta": delta, "message": delta, "text": ""}
    return {name: silent.get(name, value) for name, value in choice.items()}


def choice_failure(value: JsonObject) -> JsonObject | None:
    """The error within a choice: OpenRouter's object, or the bare reason ``error`` (Mistral too)."""
    for choice in objects(value.get("choices")):
        error = member(choice, "error")
        if error:
            return error
        if choice.get("finish_reason") == "error":
            return {"message": "The model's answer ended with the finish_reason error."}
    return None


def chat_failure(name: str, value: JsonObject) -> JsonObject | None:
    """An ``error`` at the top, vLLM's flat object, or an error within a choice."""
    return error_event(name, value) or choice_failure(value)


def responses_content(name: str, value: JsonObject) -> bool:
    """A delta that is not empty, or the end of a part, an item or the whole.

    What is merely opened (``….added``, ``response.created``) says nothing yet, nor does a call
    before its arguments.
    """
    kind = kind_of(name, value)
    if kind.endswith((".delta", ".partial_image")):
        return bool(value.get("delta") or value.get("partial_image_b64"))
    return kind.endswith(".done") or kind in RESPONSES_STREAM.final


def responses_said(name: str, value: JsonObject) -> object:
    """A delta; the ends of parts and items only say it again."""
    return value.get("delta") if kind_of(name, value).endswith(".delta") else None


def responses_tool(name: str, value: JsonObject) -> str:
    """A delta of the arguments of a call (``function_call_arguments``, ``custom_tool_call_input``…)."""
    kind = kind_of(name, value)
    return first_arguments(value.get("delta")) if kind.endswith(_ARGUMENTS) else ""


_ARGUMENTS = ("_arguments.delta", "_call_input.delta")
_OPENINGS = ("response.created", "response.queued", "response.in_progress")


def responses_empty(name: str, value: JsonObject) -> JsonObject | None:
    """Items are left out, with all their parts; the response at the end has no output."""
    kind = kind_of(name, value)
    if kind in RESPONSES_STREAM.final:
        response = member(value, "response")
        return {**value, "response": {**response, "output": []}} if response.get("output") else value
    return None if kind.startswith("response.") and kind not in _OPENINGS else value


def responses_failure(name: str, value: JsonObject) -> JsonObject | None:
    """``error``, flat or nested, and ``response.failed`` with the error in its response."""
    if kind_of(name, value) == "response.failed":
        return failed_response(member(value, "response"))
    return error_event(name, value)


def failed_response(response: JsonObject) -> JsonObject:
    """The error of a response whose status is ``failed``."""
    return member(response, "error") or {"message": "The response failed.", "code": "server_error"}


SSE = b"text/event-stream"
CHAT_STREAM = StreamForm(
    "chat",
    Framing.SSE,
    SSE,
    _chat_stream_error,
    b"data: [DONE]\n\n",
    final=("finish_reason",),
    content=chat_content,
    failure=chat_failure,
    said=chat_said,
    tool=chat_tool,
    empty=chat_empty,
)
RESPONSES_STREAM = StreamForm(
    "responses",
    Framing.SSE,
    SSE,
    _responses_stream_error,
    final=("response.completed", "response.incomplete", "response.failed"),
    content=responses_content,
    failure=responses_failure,
    said=responses_said,
    tool=responses_tool,
    empty=responses_empty,
)

CHAT_USAGE = Usage(
    model=("model",),
    tokens={
        "input": ("usage", "prompt_tokens"),
        "output": ("usage", "completion_tokens"),
        "total": ("usage", "total_tokens"),
        "cached": ("usage", "prompt_tokens_details", "cached_tokens"),
        "written": ("usage", "prompt_tokens_details", "cache_write_tokens"),
        "reasoning": ("usage", "completion_tokens_details", "reasoning_tokens"),
    },
    finish=(("choices", "finish_reason"),),
)
RESPONSES_USAGE = Usage(
    model=("model",),
    tokens={
        "input": ("usage", "input_tokens"),
        "output": ("usage", "output_tokens"),
        "total": ("usage", "total_tokens"),
        "cached": ("usage", "input_tokens_details", "cached_tokens"),
        "written": ("usage", "input_tokens_details", "cache_write_tokens"),
        "reasoning": ("usage", "output_tokens_details", "reasoning_tokens"),
    },
    roots=((), ("response",)),
    finish=(("incomplete_details", "reason"), ("status",)),
)


def chat(pattern: str = r"/chat/completions$") -> Endpoint:
    """A chat completions endpoint at *pattern*."""
    return Endpoint("chat", path(pattern), streams=Streams.BODY, forms=(CHAT_STREAM,), usage=CHAT_USAGE)


def responses(pattern: str = r"/responses$") -> Endpoint:
    """A responses endpoint at *pattern*."""
    return Endpoint(
        "responses", path(pattern), streams=Streams.BODY, forms=(RESPONSES_STREAM,), usage=RESPONSES_USAGE
    )


def embeddings(pattern: str = r"/embeddings$") -> Endpoint:
    """An embeddings endpoint at *pattern*."""
    return Endpoint("embeddings", path(pattern), usage=CHAT_USAGE)


def models(pattern: str = r"/models(/[^/]+)*$") -> Endpoint:
    """The model list, and single models, at *pattern*."""
    return Endpoint("models", path(pattern), EndpointKind.METADATA, frozenset({b"GET", b"HEAD", b"DELETE"}))


COMPLETIONS = Endpoint(
    "completions",
    path(r"(?<!/chat)/completions$"),
    streams=Streams.BODY,
    forms=(CHAT_STREAM,),
    usage=CHAT_USAGE,
)
MEDIA = Endpoint("media", path(r"/(audio/(speech|transcriptions|translations)|images/[a-z]+)$"))
MODERATIONS = Endpoint("moderations", path(r"/moderations$"))

ENDPOINTS = (chat(), responses(), embeddings(), COMPLETIONS, MEDIA, MODERATIONS, models())
"""What an OpenAI-compatible server offers, wherever its base path is."""

CONTEXT_CHAT = (
    "This model's maximum context length is 128000 tokens. However, your messages resulted in "
    "150000 tokens. Please reduce the length of the messages."
)

ERRORS: dict[ErrorKind, ErrorSpec] = {
    ErrorKind.CONTEXT_LENGTH: ErrorSpec(
        status=400,
        message=CONTEXT_CHAT,
        type="invalid_request_error",
        param="messages",
        code="context_length_exceeded",
    ),
    ErrorKind.RATE_LIMIT: ErrorSpec(
        status=429,
        message="Rate limit reached for {model} in organization org-llmproxyd on requests per min "
        "(RPM): Limit 500, Used 500, Requested 1. Please try again in {retry_after}s.",
        type="requests",
        code="rate_limit_exceeded",
    ),
    ErrorKind.SERVER_ERROR: ErrorSpec(
        status=500,
        message="The server had an error while processing your request. Sorry about that!",
        type="server_error",
        code="internal_server_error",
    ),
    ErrorKind.OVERLOADED: ErrorSpec(
        status=503,
        message="The server is currently overloaded with other requests. Please try again later.",
        type="service_unavailable_error",
        code="server_is_overloaded",
    ),
    ErrorKind.QUOTA: ErrorSpec(
        status=429,
        message="You exceeded your current quota, please check your plan and billing details.",
        type="insufficient_quota",
        code="insufficient_quota",
    ),
    ErrorKind.AUTHENTICATION: ErrorSpec(
        status=401,
        message="Incorrect API key provided. You can find your API key in your account settings.",
        type="invalid_request_error",
        code="invalid_api_key",
    ),
    ErrorKind.PERMISSION: ErrorSpec(
        status=403,
        message="Country, region, or territory not supported",
        type="request_forbidden",
        code="unsupported_country_region_territory",
    ),
    ErrorKind.NOT_FOUND: ErrorSpec(
        status=404,
        message="The model `{model}` does not exist or you do not have access to it.",
        type="invalid_request_error",
        code="model_not_found",
    ),
    ErrorKind.CONTENT_FILTER: ErrorSpec(
        status=400,
        message="Your request was rejected as a result of our safety system.",
        type="invalid_request_error",
        code="content_policy_violation",
    ),
    ErrorKind.TOO_LARGE: ErrorSpec(
        status=413,
        message="The request body is too large.",
        type="invalid_request_error",
        code="request_too_large",
    ),
    ErrorKind.BAD_GATEWAY: ErrorSpec(status=502, message="Bad gateway", html=edge_page(502, "Bad Gateway")),
    ErrorKind.GATEWAY_TIMEOUT: ErrorSpec(
        status=504, message="Gateway time-out", html=edge_page(504, "Gateway Time-out")
    ),
}

VARIANTS: dict[tuple[ErrorKind, str], ErrorSpec] = {
    (ErrorKind.CONTEXT_LENGTH, "responses"): ErrorSpec(
        status=400,
        message="Your input exceeds the context window of this model. Please adjust your input and "
        "try again.",
        type="invalid_request_error",
        param="input",
        code="context_length_exceeded",
    ),
    (ErrorKind.CONTENT_FILTER, "responses"): ErrorSpec(
        status=400,
        message="Your request was rejected as a result of our safety system.",
        type="invalid_request_error",
        code="invalid_prompt",
    ),
}

PROVIDER = Provider(
    name="openai",
    title="OpenAI",
    base_url="https://api.openai.com",
    endpoints=ENDPOINTS,
    errors=ERRORS,
    variants=VARIANTS,
    dialect=DIALECT,
    hosts={"OPENAI_HOST": "", "OPENAI_BASE_URL": "/v1"},
    keys=("OPENAI_API_KEY",),
    sample_model="gpt-4o",
)

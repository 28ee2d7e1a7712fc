"""Google: Gemini's generateContent family, the endpoint of interactions, and its OpenAI-compatible paths.

Errors: https://ai.google.dev/gemini-api/docs/troubleshooting and google.rpc's error details.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from llmproxyd.providers import interactions, openai
from llmproxyd.providers.base import (
    JSON,
    READ,
    SSE,
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
    data_event,
    edge_page,
    encode,
    path,
    retry_after_fields,
)
from llmproxyd.providers.events import (
    JsonObject,
    first_arguments,
    member,
    objects,
    says,
)
from llmproxyd.providers.limits import no_fields

_RPC = "type.googleapis.com/google.rpc."
_LIMITS = "https://ai.google.dev/gemini-api/docs/rate-limits"
_METRIC = "generativelanguage.googleapis.com/generate_content_free_tier_requests"


def _quota_details(model: str) -> list[object]:
    """Which quota is used up, and where to read about it."""
    violation = {
        "quotaMetric": _METRIC,
        "quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier",
        "quotaDimensions": {"location": "global", "model": model},
        "quotaValue": "20",
    }
    links = [{"description": "Learn more about Gemini API quotas", "url": _LIMITS}]
    return [
        {"@type": _RPC + "QuotaFailure", "violations": [violation]},
        {"@type": _RPC + "Help", "links": links},
    ]


def _details(spec: ErrorSpec, context: ErrorContext) -> list[object]:
    """``error.details``: those of the entry, and how long to wait.

    The delay stands in the body, as ``RetryInfo``; a used-up quota always names one.
    """
    given = spec.extra.get("details")
    details = list(given) if isinstance(given, tuple) else []
    quota = context.kind is ErrorKind.QUOTA
    if quota:
        details += _quota_details(context.model)
    if spec.status == 429 and (quota or context.retry_after is not None):
        seconds = 20 if context.retry_after is None else context.retry_after
        details.append({"@type": _RPC + "RetryInfo", "retryDelay": f"{seconds:g}s"})
    return details


_INTERACTION_CODES = {
    "INVALID_ARGUMENT": "invalid_request",
    "UNAVAILABLE": "service_unavailable",
}


def shape(spec: ErrorSpec, message: str, context: ErrorContext) -> Mapping[str, object]:
    """``{"error": {code: <status>, message, status[, details]}}``; interactions: a code in words."""
    details = _details(spec, context)
    error: dict[str, object]
    if context.operation == "interactions":
        kind = spec.type or "UNKNOWN"
        error = {"code": _INTERACTION_CODES.get(kind, kind.lower()), "message": message}
        details = details if context.kind is None else []
    else:
        error = {"code": spec.status, "message": message, "status": spec.type}
    return {"error": {**error, "details": details} if details else error}


_STATUSES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def _error_info(reason: str, domain: str, **metadata: str) -> dict[str, object]:
    info: dict[str, object] = {"@type": _RPC + "ErrorInfo", "reason": reason, "domain": domain}
    return {**info, "metadata": metadata} if metadata else info


def local(status: int, code: str, message: str) -> ErrorSpec:
    """An error of the proxy's own; the code stands at ``error.details[0].reason``."""
    kind = _STATUSES.get(status, "INVALID_ARGUMENT" if status < 500 else "INTERNAL")
    details = (_error_info(code, "llmproxyd"),)
    return ErrorSpec(status=status, message=message, type=kind, extra={"details": details})


def headers(spec: ErrorSpec, context: ErrorContext) -> list[tuple[bytes, bytes]]:
    """No request id or limit family; ``retry-after`` only when the operator asks for one.

    Google itself is not known to send it, but most clients read nothing else.
    """
    return retry_after_fields(context)


DIALECT = Dialect(shape=shape, local=local, headers=headers, limits=no_fields)


def _sse(value: object) -> bytes:
    return data_event(value, b"\r\n\r\n")


def _array_element(value: Mapping[str, object]) -> bytes:
    return b",\n" + encode(value)


def _content(_name: str, value: JsonObject) -> bool:
    """A part of a candidate, its reason to finish, or why the prompt was blocked: an answer too."""
    return bool(member(value, "promptFeedback").get("blockReason")) or any(
        candidate.get("finishReason") or says(member(candidate, "content").get("parts"))
        for candidate in objects(value.get("candidates"))
    )


def _parts(value: JsonObject) -> list[JsonObject]:
    contents = [member(candidate, "content") for candidate in objects(value.get("candidates"))]
    return [part for content in contents for part in objects(content.get("parts"))]


def _said(_name: str, value: JsonObject) -> object:
    """The parts of all candidates."""
    return _parts(value)


def _tool(_name: str, value: JsonObject) -> str:
    """The arguments of a call; they come whole."""
    return first_arguments(*(member(part, "functionCall").get("args") for part in _parts(value)))


def _empty(name: str, value: JsonObject) -> JsonObject | None:
    """What has parts is left out, but for a candidate that finishes: it comes without content."""
    candidates = objects(value.get("candidates"))
    if not says(_parts(value)):
        return value
    if not any(candidate.get("finishReason") for candidate in candidates):
        return None
    without = [{key: one for key, one in each.items() if key != "content"} for each in candidates]
    return {**value, "candidates": without}


SSE_STREAM = StreamForm(
    "sse",
    Framing.SSE,
    SSE,
    _sse,
    final=("finishReason",),
    content=_content,
    said=_said,
    tool=_tool,
    empty=_empty,
)
ARRAY_STREAM = StreamForm(
    "array",
    Framing.JSON_ARRAY,
    JSON,
    _array_element,
    terminator=b"]",
    final=("finishReason",),
    content=_content,
    said=_said,
    tool=_tool,
    empty=_empty,
)
USAGE = Usage(
    model=("modelVersion",),
    tokens={
        "input": ("usageMetadata", "promptTokenCount"),
        "output": ("usageMetadata", "candidatesTokenCount"),
        "total": ("usageMetadata", "totalTokenCount"),
        "cached": ("usageMetadata", "cachedContentTokenCount"),
        "reasoning": ("usageMetadata", "thoughtsTokenCount"),
        "tools": ("usageMetadata", "toolUsePromptTokenCount"),
    },
    finish=(("candidates", "finishReason"), ("promptFeedback", "blockReason")),
    # The total is the sum of all but what was cached.
    apart={"input": ("tools",), "output": ("reasoning",)},
)


def _method(names: str) -> str:
    """A pattern for ``models/M:name``: with or without version, the colon raw or encoded."""
    return rf"/(?:models|tunedModels)/(?P<model>[^/:]+?)(?::|%3[Aa])(?:{names})$"


ENDPOINTS = (
    Endpoint(
        "generate",
        path(_method("streamGenerateContent")),
        streams=Streams.ALWAYS,
        forms=(SSE_STREAM, ARRAY_STREAM),
        usage=USAGE,
    ),
    Endpoint("generate", path(_method("generateContent|batchGenerateContent")), usage=USAGE),
    Endpoint("embeddings", path(_method("embedContent|batchEmbedContents")), usage=USAGE),
    Endpoint("media", path(_method("predict|predictLongRunning"))),
    Endpoint("count_tokens", path(_method("countTokens")), EndpointKind.METADATA),
    Endpoint(
        "interactions",
        path(r"/interactions$"),
        streams=Streams.BODY,
        forms=(interactions.STREAM,),
        usage=interactions.USAGE,
    ),
    Endpoint("interaction", path(r"/interactions/[^/]+$"), EndpointKind.METADATA, READ | {b"DELETE"}),
    replace(openai.chat(r"/openai/chat/completions$"), speaks="openai"),
    replace(openai.embeddings(r"/openai/embeddings$"), speaks="openai"),
    replace(openai.models(r"/openai/models(/[^/]+)*$"), speaks="openai"),
    Endpoint("models", path(r"/(models|tunedModels)(/[^/]+)?$"), EndpointKind.METADATA, READ),
)


def _blocked(context: ErrorContext) -> object:
    """A blocked prompt: an answer without candidates, not an error."""
    return {
        "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"},
        "usageMetadata": {"promptTokenCount": 8, "totalTokenCount": 8},
        "modelVersion": context.model,
        "responseId": context.request_id,
    }


_KEY_INVALID = "API key not valid. Please pass a valid API key."

ERRORS: dict[ErrorKind, ErrorSpec] = {
    ErrorKind.CONTEXT_LENGTH: ErrorSpec(
        status=400,
        message="The input token count (1091639) exceeds the maximum number of tokens allowed (1048576).",
        type="INVALID_ARGUMENT",
    ),
    ErrorKind.RATE_LIMIT: ErrorSpec(
        status=429,
        message="Resource has been exhausted (e.g. check quota).",
        type="RESOURCE_EXHAUSTED",
    ),
    ErrorKind.SERVER_ERROR: ErrorSpec(
        status=500, message="An internal error has occurred. Please retry.", type="INTERNAL"
    ),
    ErrorKind.OVERLOADED: ErrorSpec(
        status=503, message="The model is overloaded. Please try again later.", type="UNAVAILABLE"
    ),
    ErrorKind.QUOTA: ErrorSpec(
        status=429,
        message="You exceeded your current quota, please check your plan and billing details. For more "
        f"information on this error, head to: {_LIMITS}.\n* Quota exceeded for metric: {_METRIC}, "
        "limit: 20, model: {model}\nPlease retry in {retry_after}s.",
        type="RESOURCE_EXHAUSTED",
    ),
    ErrorKind.AUTHENTICATION: ErrorSpec(
        status=400,
        message=_KEY_INVALID,
        type="INVALID_ARGUMENT",
        extra={
            "details": (
                _error_info("API_KEY_INVALID", "googleapis.com", service="generativelanguage.googleapis.com"),
                {"@type": _RPC + "LocalizedMessage", "locale": "en-US", "message": _KEY_INVALID},
            )
        },
    ),
    ErrorKind.PERMISSION: ErrorSpec(
        status=403, message="The caller does not have permission", type="PERMISSION_DENIED"
    ),
    ErrorKind.NOT_FOUND: ErrorSpec(
        status=404,
        message="models/{model} is not found for API version v1beta, or is not supported for "
        "generateContent. Call ListModels to see the list of available models and their supported "
        "methods.",
        type="NOT_FOUND",
    ),
    ErrorKind.CONTENT_FILTER: ErrorSpec(
        status=200, message="The prompt was blocked.", body=_blocked, stream=_sse
    ),
    ErrorKind.TOO_LARGE: ErrorSpec(
        status=400,
        message="Request payload size exceeds the limit: 20971520 bytes.",
        type="INVALID_ARGUMENT",
    ),
    ErrorKind.BAD_GATEWAY: ErrorSpec(status=502, message="Bad gateway", html=edge_page(502, "Bad Gateway")),
    ErrorKind.GATEWAY_TIMEOUT: ErrorSpec(
        status=504,
        message="The service is unable to finish processing within the deadline.",
        type="DEADLINE_EXCEEDED",
    ),
}

VARIANTS: dict[tuple[ErrorKind, str], ErrorSpec] = {
    # An interaction has no promptFeedback; how a blocked one looks is not documented.
    (ErrorKind.CONTENT_FILTER, "interactions"): ErrorSpec(
        status=400, message="The input was blocked by the safety filters.", type="INVALID_ARGUMENT"
    ),
}

_METHODS = path(
    r"(?::|%3[Aa])(?:generateContent|streamGenerateContent|countTokens|embedContent|batchEmbedContents)$"
)
_GEMINI_PATH = path(r"^(?:/v1)?/(?:models|tunedModels|interactions|files|cachedContents)(?:[/:]|$)")


def _recognised(facts: Facts) -> bool:
    """Row 4.  ``?key=`` counts on a Gemini path only: elsewhere it may mean anything."""
    return (
        not facts.header_names.isdisjoint((b"x-goog-api-key", b"x-goog-api-client"))
        or facts.path.startswith((b"/v1beta/", b"/upload/v1beta/"))
        or _METHODS.search(facts.path) is not None
        or (b"key" in facts.query_names and _GEMINI_PATH.search(facts.path) is not None)
    )


PROVIDER = Provider(
    name="google",
    title="Google Gemini",
    base_url="https://generativelanguage.googleapis.com",
    endpoints=ENDPOINTS,
    errors=ERRORS,
    variants=VARIANTS,
    dialect=DIALECT,
    signals=(Signal(4, _recognised),),
    unknown=ErrorKind.OVERLOADED,
    hosts={"GOOGLE_HOST": "", "GOOGLE_GEMINI_BASE_URL": ""},
    keys=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    credential=CredentialPlace(b"x-goog-api-key", b""),
    sample_model="gemini-2.5-flash",
)

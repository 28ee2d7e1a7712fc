"""Every provider's entry is whole, and its errors are the ones that providers send."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from llmproxyd.providers import anthropic, openai
from llmproxyd.providers import registry as registry_module
from llmproxyd.providers.base import (
    SSE,
    EndpointKind,
    ErrorContext,
    ErrorKind,
    ErrorSpec,
    Framing,
    Provider,
    StreamForm,
    Streams,
)
from llmproxyd.providers.registry import ProviderError, registry
from llmproxyd.testing.providers import check_provider

PROVIDERS = registry()

C, R = ErrorKind.CONTEXT_LENGTH, ErrorKind.RATE_LIMIT


def context_for(name: str, kind: ErrorKind | None, operation: str, **more: Any) -> ErrorContext:
    return ErrorContext(
        kind=kind,
        operation=operation,
        model=more.pop("model", PROVIDERS[name].sample_model),
        request_id="0-1",
        wall=1_800_000_000.0,
        **more,
    )


def answer(
    name: str, kind: ErrorKind, operation: str = "chat", **more: Any
) -> tuple[int, dict[bytes, bytes], Any]:
    provider = PROVIDERS[name]
    reply = provider.error(provider.spec(kind, operation), context_for(name, kind, operation, **more))
    return reply.status, dict(reply.headers), json.loads(reply.body)


def local(name: str, operation: str = "chat") -> Any:
    provider = PROVIDERS[name]
    spec = provider.dialect.local(503, "breaker_open", "The upstream is resting.")
    return json.loads(provider.error(spec, context_for(name, None, operation)).body)


def stream_event(name: str, method: bytes, path: bytes, kind: ErrorKind, form: int = 0) -> bytes | None:
    provider = PROVIDERS[name]
    endpoint = provider.endpoint(method, path)
    assert endpoint is not None
    speaker = PROVIDERS[endpoint.speaks or name]
    context = context_for(speaker.name, kind, endpoint.operation, streaming=True)
    return speaker.stream_error(endpoint.forms[form], speaker.spec(kind, endpoint.operation), context)


def goose_context_match(body: Any) -> bool:
    """goose's current rule, as far as the texts here need it (providers.md, 6.2)."""
    error = body.get("error")
    if isinstance(error, Mapping):
        if error.get("code") == "context_length_exceeded":
            return True
        if error.get("n_prompt_tokens", 0) > error.get("n_ctx", 0):
            return True
        text = str(error.get("message"))
    else:
        text = str(body.get("message") or json.dumps(body))
    text = text.lower()
    phrases = (
        "context length",
        "context_length_exceeded",
        "context window",
        "context limit",
        "maximum context",
        "maximum prompt length",
        "input is too long",
        "prompt is too long",
    )
    if any(phrase in text for phrase in phrases):
        return True
    return "input token" in text and "maximum number of tokens" in text and "exceed" in text


# -- the registry ------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(PROVIDERS))
def test_entry_is_whole(name: str) -> None:
    check_provider(PROVIDERS[name])


def test_all_providers_are_found() -> None:
    assert set(PROVIDERS) == {
        "anthropic", "azure", "bedrock", "cohere", "databricks", "deepseek", "fireworks", "google", "groq",
        "llamacpp", "mistral", "ollama", "openai", "openrouter", "tetrate", "together", "venice", "vllm", "xai",
    }  # fmt: skip


def test_name_of_module_is_name_of_provider() -> None:
    for name in PROVIDERS:
        module = __import__(f"llmproxyd.providers.{name}", fromlist=["PROVIDER"])
        assert module.PROVIDER is PROVIDERS[name]


def test_only_providers_without_global_url_have_none() -> None:
    without = {name for name, provider in PROVIDERS.items() if provider.base_url is None}
    assert without == {"azure", "bedrock", "databricks", "llamacpp", "ollama", "vllm"}
    assert PROVIDERS["databricks"].base_url_variable == "DATABRICKS_REAL_HOST"


def _install(monkeypatch: pytest.MonkeyPatch, loaded: object) -> None:
    entry = SimpleNamespace(name="acme", value="acme:PROVIDER", load=lambda: loaded)

    def entry_points(*, group: str) -> list[SimpleNamespace]:
        assert group == "llmproxyd.providers"
        return [entry]

    monkeypatch.setattr(registry_module, "entry_points", entry_points)


def test_provider_from_entry_point_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    acme = replace(openai.PROVIDER, name="acme", base_url="https://api.acme.example")
    _install(monkeypatch, acme)
    assert registry()["acme"] is acme
    assert "openai" in registry()


def test_provider_from_entry_point_replaces_built_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = replace(openai.PROVIDER, base_url="https://openai.acme.example")
    _install(monkeypatch, mine)
    assert registry()["openai"] is mine


def test_entry_point_that_is_no_provider_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, object())
    with pytest.raises(ProviderError, match="acme"):
        registry()


# -- check_provider ----------------------------------------------------------------------

_CHAT = openai.chat()


def _with_error(kind: ErrorKind, spec: ErrorSpec) -> Provider:
    return replace(openai.PROVIDER, errors={**openai.ERRORS, kind: spec})


def _form(error: Any) -> Provider:
    form = StreamForm("bad", Framing.SSE, SSE, error)
    return replace(openai.PROVIDER, endpoints=(replace(_CHAT, forms=(form,)),), variants={})


INCOMPLETE = [
    ("no entry for quota", replace(openai.PROVIDER, errors={k: v for k, v in openai.ERRORS.items() if k != "quota"})),
    ("lower case", replace(openai.PROVIDER, name="OpenAI")),
    ("base_url", replace(openai.PROVIDER, base_url="https://api.openai.com/")),
    ("none of kind inference", replace(openai.PROVIDER, endpoints=(openai.models(),), variants={})),
    ("usage", replace(openai.PROVIDER, endpoints=(replace(_CHAT, usage=None),), variants={})),
    ("stream forms", replace(openai.PROVIDER, endpoints=(replace(_CHAT, forms=()),), variants={})),
    ("stream forms", replace(openai.PROVIDER, endpoints=(replace(_CHAT, streams=Streams.NEVER),), variants={})),
    ("there twice", replace(openai.PROVIDER, endpoints=(_CHAT, openai.chat()), variants={})),
    ("no known provider", replace(openai.PROVIDER, endpoints=(_CHAT, replace(_CHAT, speaks="klingon")), variants={})),
    ("none of its operations", replace(openai.PROVIDER, endpoints=(_CHAT,))),
    ("not plausible", _with_error(R, ErrorSpec(status=200, message="m"))),
    ("is no stream", _with_error(ErrorKind.CONTENT_FILTER, ErrorSpec(status=200, message="m"))),
    ("placeholder {modle}", _with_error(R, ErrorSpec(status=429, message="no {modle}"))),
    ("no HTML", _with_error(ErrorKind.BAD_GATEWAY, ErrorSpec(status=502, message="m", html="oops"))),
    ("nobody asked", _with_error(R, ErrorSpec(status=429, message="m", headers=((b"Retry-After", b"1"),)))),
    ("round up", replace(openai.PROVIDER, dialect=replace(openai.DIALECT, headers=lambda spec, context: []))),
    ("code is not found", replace(openai.PROVIDER, dialect=replace(openai.DIALECT, local=lambda s, c, m: ErrorSpec(status=s, message=m)))),
    ("status has become", replace(openai.PROVIDER, dialect=replace(openai.DIALECT, local=lambda s, c, m: ErrorSpec(status=500, message=m, code=c)))),
    ("boundary", _form(lambda value: b"data: {}\n")),
    ("hold JSON", _form(lambda value: b"event: error\n\n")),
    ("no object", _with_error(R, ErrorSpec(status=429, message="m", body=lambda context: ["m"]))),
    ("terminator", replace(openai.PROVIDER, endpoints=(replace(_CHAT, forms=(replace(openai.CHAT_STREAM, error=lambda value: b"data: {}\n\ndata: [DONE]\n\n"),)),), variants={})),
]  # fmt: skip


@pytest.mark.parametrize(("words", "provider"), INCOMPLETE, ids=[words for words, _ in INCOMPLETE])
def test_check_tells_what_is_wrong(words: str, provider: Provider) -> None:
    with pytest.raises(AssertionError) as caught:
        check_provider(provider)
    assert words in str(caught.value)


# -- the seed's six, by its three commands -----------------------------------------------

SEED = [
    ("openai", "chat", C, 400, ("error", "code"), "context_length_exceeded"),
    ("openai", "chat", R, 429, ("error", "code"), "rate_limit_exceeded"),
    ("openai", "chat", None, 500, ("error", "code"), "internal_server_error"),
    ("anthropic", "messages", C, 400, ("error", "message"), "prompt is too long: 200251 tokens > 200000 maximum"),
    ("anthropic", "messages", R, 429, ("error", "type"), "rate_limit_error"),
    ("anthropic", "messages", None, 529, ("error", "type"), "overloaded_error"),
    ("google", "generate", C, 400, ("error", "status"), "INVALID_ARGUMENT"),
    ("google", "generate", R, 429, ("error", "status"), "RESOURCE_EXHAUSTED"),
    ("google", "generate", None, 503, ("error", "status"), "UNAVAILABLE"),
    ("openrouter", "chat", C, 400, ("error", "code"), 400),
    ("openrouter", "chat", R, 429, ("error", "code"), 429),
    ("openrouter", "chat", None, 500, ("error", "code"), 500),
    ("tetrate", "chat", C, 400, ("error", "code"), "context_length_exceeded"),
    ("tetrate", "chat", R, 429, ("error", "code"), "rate_limit_exceeded"),
    ("tetrate", "chat", None, 503, ("error", "type"), "service_unavailable_error"),
    ("databricks", "invocations", C, 400, ("error_code",), "INVALID_PARAMETER_VALUE"),
    ("databricks", "invocations", R, 429, ("error_code",), "REQUEST_LIMIT_EXCEEDED"),
    ("databricks", "invocations", None, 500, ("error_code",), "INTERNAL_ERROR"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "operation", "kind", "status", "place", "value"),
    SEED,
    ids=[f"{row[0]}-{'u' if row[2] is None else row[2][0]}" for row in SEED],
)
def test_seed_commands(
    name: str, operation: str, kind: ErrorKind | None, status: int, place: tuple[str, ...], value: object
) -> None:
    told, _, body = answer(name, kind or PROVIDERS[name].unknown, operation)
    assert told == status
    for key in place:
        body = body[key]
    assert body == value


# Their observed texts are not among those that goose knows.
UNMATCHED = {"cohere", "together", "google-interactions"}


@pytest.mark.parametrize("name", sorted(set(PROVIDERS) - UNMATCHED))
def test_context_error_is_recognised_by_goose(name: str) -> None:
    for endpoint in PROVIDERS[name].endpoints:
        if endpoint.kind is EndpointKind.INFERENCE and endpoint.speaks is None:
            _, _, body = answer(name, C, endpoint.operation)
            assert goose_context_match(body), (endpoint.operation, body)


# -- OpenAI and Anthropic ----------------------------------------------------------------


def test_openai_always_has_four_keys() -> None:
    for kind in ErrorKind:
        spec = openai.ERRORS[kind]
        if spec.html is None:
            _, _, body = answer("openai", kind)
            assert set(body["error"]) == {"message", "type", "param", "code"}


def test_openai_responses_have_their_own_context_error() -> None:
    _, _, body = answer("openai", C, "responses")
    assert body["error"]["param"] == "input"
    assert "context window" in body["error"]["message"]


def test_openai_rate_limit_has_request_id_and_limit_family() -> None:
    _, fields, body = answer("openai", R, retry_after=1.5)
    assert fields[b"retry-after"] == b"2"
    assert fields[b"retry-after-ms"] == b"1500"
    assert fields[b"x-ratelimit-reset-requests"] == b"1.5s"
    assert fields[b"x-request-id"]
    assert "1.5s" in body["error"]["message"]


def test_anthropic_names_its_request_and_resets_by_time() -> None:
    _, fields, body = answer("anthropic", R, "messages", retry_after=20.0)
    assert body["request_id"].encode() == fields[b"request-id"]
    assert fields[b"anthropic-ratelimit-requests-reset"] == b"2027-01-15T08:00:20Z"


# -- Google ------------------------------------------------------------------------------


def _details(body: Any) -> dict[str, Any]:
    return {detail["@type"].rpartition(".")[2]: detail for detail in body["error"].get("details", ())}


def test_google_rate_limit_tells_delay_only_when_asked() -> None:
    assert _details(answer("google", R, "generate")[2]) == {}
    _, fields, body = answer("google", R, "generate", retry_after=26.0)
    assert _details(body)["RetryInfo"]["retryDelay"] == "26s"
    assert fields[b"retry-after"] == b"26"


def test_google_quota_has_all_three_details() -> None:
    status, fields, body = answer("google", ErrorKind.QUOTA, "generate", model="gemini-x")
    details = _details(body)
    assert status == 429
    assert set(details) == {"QuotaFailure", "Help", "RetryInfo"}
    assert details["QuotaFailure"]["violations"][0]["quotaDimensions"]["model"] == "gemini-x"
    assert b"retry-after" not in fields


def test_google_invalid_key_is_a_400() -> None:
    status, _, body = answer("google", ErrorKind.AUTHENTICATION, "generate")
    assert status == body["error"]["code"] == 400
    assert _details(body)["ErrorInfo"]["reason"] == "API_KEY_INVALID"
    assert "LocalizedMessage" in _details(body)


def test_google_array_holds_the_same_error() -> None:
    _, _, body = answer("google", R, "generate", array=True)
    assert [answer("google", R, "generate")[2]] == body


def test_google_blocked_prompt_is_a_whole_answer() -> None:
    status, fields, body = answer("google", ErrorKind.CONTENT_FILTER, "generate")
    assert status == 200
    assert fields[b"content-type"] == b"application/json"
    assert body["promptFeedback"]["blockReason"]
    assert "candidates" not in body


def test_google_blocked_prompt_streams_to_one_who_streams() -> None:
    google = PROVIDERS["google"]
    spec = google.spec(ErrorKind.CONTENT_FILTER, "generate")
    context = context_for("google", ErrorKind.CONTENT_FILTER, "generate", streaming=True)
    reply = google.error(spec, context)
    assert (b"content-type", b"text/event-stream") in list(reply.headers)
    assert reply.body.startswith(b"data: {")
    assert reply.body.endswith(b"}\r\n\r\n")
    array = google.error(spec, replace(context, array=True))
    assert (b"content-type", b"application/json") in list(array.headers)
    assert json.loads(array.body)[0]["promptFeedback"]


@pytest.mark.parametrize("colon", [b":", b"%3A", b"%3a"])
@pytest.mark.parametrize("prefix", [b"/v1beta", b"/v1", b""])
def test_google_paths(prefix: bytes, colon: bytes) -> None:
    google = PROVIDERS["google"]

    def found(method: bytes, kind: bytes = b"models") -> Any:
        return google.endpoint(b"POST", prefix + b"/" + kind + b"/m-1.5" + colon + method)

    stream, whole = found(b"streamGenerateContent"), found(b"generateContent")
    assert stream.streams is Streams.ALWAYS
    assert whole.streams is Streams.NEVER
    for method in (b"embedContent", b"batchEmbedContents"):
        assert found(method).streams is Streams.NEVER
        assert found(method).kind is EndpointKind.INFERENCE
    assert found(b"countTokens").kind is EndpointKind.METADATA
    assert found(b"generateContent", b"tunedModels").kind is EndpointKind.INFERENCE
    path = prefix + b"/models/m-1.5" + colon + b"generateContent"
    assert whole.pattern.search(path)["model"] == b"m-1.5"
    single = google.endpoint(b"GET", prefix + b"/models/m-1.5")
    assert single is not None
    assert single.kind is EndpointKind.METADATA


def test_google_forms_are_told_apart_by_content_type() -> None:
    endpoint = PROVIDERS["google"].endpoint(b"POST", b"/v1beta/models/m:streamGenerateContent")
    assert endpoint is not None
    sse, array = endpoint.form_of(b"text/event-stream"), endpoint.form_of(b"application/json; charset=UTF-8")
    assert sse is not None
    assert array is not None
    assert sse.framing is Framing.SSE
    assert array.framing is Framing.JSON_ARRAY


def test_google_in_stream_errors() -> None:
    path = b"/v1beta/models/m:streamGenerateContent"
    event = stream_event("google", b"POST", path, ErrorKind.OVERLOADED)
    assert event is not None
    assert event.endswith(b"}\r\n\r\n")
    assert json.loads(event[6:])["error"]["code"] == 503
    element = stream_event("google", b"POST", path, ErrorKind.OVERLOADED, form=1)
    assert element is not None
    assert element.startswith(b',\n{"error":')
    assert json.loads(b"[{}" + element + b"]")[1]["error"]["status"] == "UNAVAILABLE"


def test_google_interactions_have_codes_in_words() -> None:
    _, _, body = answer("google", ErrorKind.OVERLOADED, "interactions")
    assert body["error"]["code"] == "service_unavailable"
    event = stream_event("google", b"POST", b"/v1beta/interactions", ErrorKind.NOT_FOUND)
    assert event is not None
    assert event.startswith(b"event: error\n")
    value = json.loads(event.partition(b"data: ")[2])
    assert value["event_type"] == "error"
    assert value["error"]["code"] == "not_found"


def test_google_compatible_chat_speaks_openai() -> None:
    endpoint = PROVIDERS["google"].endpoint(b"POST", b"/v1beta/openai/chat/completions")
    assert endpoint is not None
    assert endpoint.speaks == "openai"


# -- OpenRouter, Databricks --------------------------------------------------------------


def test_openrouter_tells_the_wait_in_metadata() -> None:
    assert "metadata" not in answer("openrouter", R)[2]["error"]
    assert answer("openrouter", R, retry_after=3.0)[2]["error"]["metadata"] == {"retry_after_seconds": 3}


def test_openrouter_in_stream_error_is_a_chunk() -> None:
    event = stream_event("openrouter", b"POST", b"/api/v1/chat/completions", ErrorKind.SERVER_ERROR)
    assert event is not None
    chunk = json.loads(event.removeprefix(b"data: "))
    assert chunk["object"] == "chat.completion.chunk"
    assert chunk["error"]["code"] == 500
    assert chunk["choices"][0]["finish_reason"] == "error"


def test_openrouter_endpoints() -> None:
    openrouter = PROVIDERS["openrouter"]
    messages = openrouter.endpoint(b"POST", b"/api/v1/messages")
    assert messages is not None
    assert messages.speaks == "anthropic"
    for path in (b"/api/v1/models", b"/api/v1/models/a/b/endpoints", b"/api/v1/key"):
        endpoint = openrouter.endpoint(b"GET", path)
        assert endpoint is not None
        assert endpoint.kind is EndpointKind.METADATA
    keys = openrouter.endpoint(b"POST", b"/api/v1/auth/keys")
    assert keys is not None
    assert keys.kind is EndpointKind.AUTH


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        (b"POST", b"/serving-endpoints/m/invocations", "inference"),
        (b"POST", b"/serving-endpoints/chat/completions", "inference"),
        (b"POST", b"/serving-endpoints/responses", "inference"),
        (b"POST", b"/ai-gateway/mlflow/v1/chat/completions", "inference"),
        (b"POST", b"/ai-gateway/openai/v1/responses", "inference"),
        (b"POST", b"/ai-gateway/anthropic/v1/messages", "inference"),
        (b"POST", b"/ai-gateway/anthropic/v1/messages/count_tokens", "metadata"),
        (b"GET", b"/api/2.0/serving-endpoints", "metadata"),
        (b"GET", b"/api/2.0/serving-endpoints/m", "metadata"),
        (b"GET", b"/api/ai-gateway/v2/endpoints", "metadata"),
        (b"GET", b"/.well-known/databricks-config", "metadata"),
        (b"GET", b"/oidc/.well-known/oauth-authorization-server", "auth"),
        (b"POST", b"/oidc/v1/token", "auth"),
        (b"GET", b"/oidc/v1/authorize", "auth"),
    ],
)
def test_databricks_endpoint_kinds(method: bytes, path: bytes, kind: str) -> None:
    endpoint = PROVIDERS["databricks"].endpoint(method, path)
    assert endpoint is not None
    assert endpoint.kind == kind


def test_databricks_model_stands_in_the_path() -> None:
    path = b"/serving-endpoints/databricks-claude/invocations"
    endpoint = PROVIDERS["databricks"].endpoint(b"POST", path)
    assert endpoint is not None
    assert endpoint.streams is Streams.BODY
    found = endpoint.pattern.search(path)
    assert found is not None
    assert found["model"] == b"databricks-claude"


def test_databricks_retry_after_is_whole_seconds() -> None:
    _, fields, _ = answer("databricks", R, "invocations", retry_after=0.2)
    assert fields[b"retry-after"] == b"1"
    assert b"retry-after-ms" not in fields


def test_databricks_gateway_streams_anthropic_but_fails_flat() -> None:
    path = b"/ai-gateway/anthropic/v1/messages"
    assert set(answer("databricks", R, "messages")[2]) == {"error_code", "message"}
    event = stream_event("databricks", b"POST", path, R)
    assert event is not None
    assert event.startswith(b"event: error\ndata: ")
    assert json.loads(event.partition(b"data: ")[2])["error"]["type"] == "rate_limit_error"


# -- streams of the others ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("databricks", b"/serving-endpoints/m/invocations"),
        ("mistral", b"/v1/chat/completions"),
        ("xai", b"/v1/chat/completions"),
        ("venice", b"/api/v1/chat/completions"),
        ("vllm", b"/v1/chat/completions"),
        ("groq", b"/openai/v1/chat/completions"),
        ("ollama", b"/v1/chat/completions"),
    ],
)
@pytest.mark.parametrize("kind", [ErrorKind.OVERLOADED, ErrorKind.AUTHENTICATION, ErrorKind.BAD_GATEWAY])
def test_chat_streams_fail_by_an_error_object_whatever_the_own_shape(
    name: str, path: bytes, kind: ErrorKind
) -> None:
    event = stream_event(name, b"POST", path, kind)
    assert event is not None
    assert json.loads(event.removeprefix(b"data: "))["error"]["message"]


def test_cohere_stream_ends_with_reason_error() -> None:
    event = stream_event("cohere", b"POST", b"/v2/chat", ErrorKind.SERVER_ERROR)
    assert event is not None
    value = json.loads(event.partition(b"data: ")[2])
    assert value["type"] == "message-end"
    assert value["delta"]["finish_reason"] == "ERROR"


def test_ollama_stream_fails_by_a_line() -> None:
    assert stream_event("ollama", b"POST", b"/api/chat", ErrorKind.NOT_FOUND) == (
        b'{"error":"model \'llama3.2\' not found"}\n'
    )


def test_ollama_shape_follows_the_half_of_the_api() -> None:
    assert isinstance(answer("ollama", R, "native_chat")[2]["error"], str)
    assert answer("ollama", C, "chat")[2]["error"]["type"] == "invalid_request_error"
    endpoint = PROVIDERS["ollama"].endpoint(b"POST", b"/api/chat")
    assert endpoint is not None
    assert endpoint.streams is Streams.BODY_UNLESS_FALSE


def test_bedrock_stream_has_no_error_event() -> None:
    path = b"/model/anthropic.claude%3A0/converse-stream"
    assert stream_event("bedrock", b"POST", path, ErrorKind.SERVER_ERROR) is None


def test_bedrock_names_the_error_in_a_field() -> None:
    _, fields, body = answer("bedrock", R, "converse")
    assert fields[b"x-amzn-errortype"] == b"ThrottlingException"
    assert set(body) == {"message"}


# -- shapes and local errors -------------------------------------------------------------


def test_azure_content_filter_has_inner_error() -> None:
    _, _, body = answer("azure", ErrorKind.CONTENT_FILTER)
    assert body["error"]["param"] == "prompt"
    assert body["error"]["innererror"]["code"] == "ResponsibleAIPolicyViolation"


def test_azure_reads_the_deployment_as_model() -> None:
    path = b"/openai/deployments/my-gpt/chat/completions"
    endpoint = PROVIDERS["azure"].endpoint(b"POST", path)
    assert endpoint is not None
    found = endpoint.pattern.search(path)
    assert found is not None
    assert found["model"] == b"my-gpt"
    assert PROVIDERS["azure"].endpoint(b"POST", b"/openai/v1/responses") is not None


def test_xai_code_is_a_sentence() -> None:
    _, _, body = answer("xai", C)
    assert set(body) == {"code", "error"}


def test_llamacpp_context_error_counts_tokens() -> None:
    _, _, body = answer("llamacpp", C)
    assert body["error"]["n_prompt_tokens"] > body["error"]["n_ctx"]


def test_venice_context_error_alone_has_openai_shape() -> None:
    assert answer("venice", C)[2]["error"]["param"] == "messages"
    assert isinstance(answer("venice", R)[2]["error"], str)


def test_groq_limit_family_stands_on_every_answer() -> None:
    for kind in (C, R, ErrorKind.SERVER_ERROR):
        assert b"x-ratelimit-limit-tokens" in answer("groq", kind)[1]


@pytest.mark.parametrize(
    ("name", "operation", "place"),
    [
        ("openai", "chat", "error.code"),
        ("anthropic", "messages", "error.details.error_code"),
        ("google", "generate", "error.details.0.reason"),
        ("google", "interactions", "error.details.0.reason"),
        ("openrouter", "chat", "error.metadata.error_code"),
        ("tetrate", "chat", "error.code"),
        ("databricks", "invocations", "error_code"),
        ("azure", "chat", "error.code"),
        ("bedrock", "converse", "code"),
        ("mistral", "chat", "code"),
        ("groq", "chat", "error.code"),
        ("deepseek", "chat", "error.code"),
        ("xai", "chat", "code"),
        ("together", "chat", "error.code"),
        ("fireworks", "chat", "error.code"),
        ("cohere", "chat", "code"),
        ("ollama", "native_chat", "code"),
        ("ollama", "chat", "error.code"),
        ("vllm", "chat", "error.code"),
        ("llamacpp", "chat", "error.code"),
        ("venice", "chat", "code"),
    ],
)
def test_code_of_local_error_has_one_place(name: str, operation: str, place: str) -> None:
    value = local(name, operation)
    for key in place.split("."):
        value = value[int(key) if key.isdigit() else key]
    assert value == "breaker_open"


def test_google_local_error_names_the_domain() -> None:
    assert local("google")["error"]["details"][0]["domain"] == "llmproxyd"


@pytest.mark.parametrize("name", sorted(PROVIDERS))
def test_endpoints_that_speak_another_api_fail_in_its_words(name: str) -> None:
    for endpoint in PROVIDERS[name].endpoints:
        if endpoint.operation == "messages" and name != "databricks":
            assert name == "anthropic" or endpoint.speaks == "anthropic"
            assert endpoint.forms[0] is anthropic.STREAM

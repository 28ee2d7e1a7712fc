"""Errors under a status of success, and what errors of all shapes say."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_content import framed

from llmproxyd.inspection.content import CONTENT, StreamWatch, Trouble, look
from llmproxyd.inspection.errors import Told, status_of, told
from llmproxyd.inspection.inflate import inflater
from llmproxyd.providers import anthropic, bedrock, cohere, google, interactions, llamacpp, ollama, openai
from llmproxyd.providers.base import Endpoint, ErrorContext, ErrorKind, Provider, StreamForm, encode
from llmproxyd.providers.registry import registry

PROVIDERS = registry()
CHAT, RESPONSES, MESSAGES = openai.CHAT_STREAM, openai.RESPONSES_STREAM, anthropic.STREAM
GEMINI, ARRAY, TALK = google.SSE_STREAM, google.ARRAY_STREAM, interactions.STREAM
COHERE, LINES, BEDROCK = cohere.STREAM, ollama.STREAM, bedrock.STREAM


def first_sign(form: StreamForm, data: bytes) -> object:
    """The first sign of a stream, which must be the same in any pieces."""
    found = []
    for size in (len(data), 1):
        one = StreamWatch(form, inflater(b""))
        signs = [one.feed(data[at : at + size]) for at in range(0, len(data), size)]
        found.append(next((sign for sign in [*signs, one.end()] if sign), None))
    assert found[0] == found[1]
    return found[0]


def chunk(**members: object) -> dict[str, object]:
    return {"id": "x", "object": "chat.completion.chunk", "choices": [{"index": 0, **members}]}


OPENAI_ERROR = {
    "error": {"message": "The server had an error", "type": "server_error", "param": None, "code": None}
}
OVERLOADED = {
    "type": "error",
    "error": {"type": "overloaded_error", "message": "Overloaded", "details": None},
    "request_id": "req_1",
}
GOOGLE_ERROR = {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}

IN_STREAM: list[tuple[str, StreamForm, str, object, int | None, str | None]] = [
    ("openai", CHAT, "", OPENAI_ERROR, 500, "The server had an error"),
    ("text", CHAT, "", {"error": "out of memory"}, None, "out of memory"),
    ("xai", CHAT, "", {"code": "The service is currently unavailable", "error": "At capacity"}, 503, "At capacity"),
    ("vllm, elder", CHAT, "", {"object": "error", "message": "m", "type": "BadRequestError", "param": None, "code": 400}, 400, "m"),
    ("mistral", CHAT, "", {"object": "error", "message": "Rate limit exceeded", "type": "rate_limited", "param": None, "code": "1300"}, 429, "Rate limit exceeded"),
    ("named", CHAT, "error", {"message": "m", "code": 502}, 502, "m"),
    ("named, no JSON", CHAT, "error", b"Internal failure", None, "Internal failure"),
    ("openrouter", CHAT, "", {**chunk(delta={"content": ""}, finish_reason="error"), "error": {"code": 502, "message": "Provider disconnected"}}, 502, "Provider disconnected"),
    ("choice", CHAT, "", chunk(delta={"content": "Hi"}, finish_reason="error", error={"code": 429, "message": "m"}), 429, "m"),
    ("reason alone", CHAT, "", chunk(delta={}, finish_reason="error"), None, "The model's answer ended with the finish_reason error."),
    ("nested", RESPONSES, "error", {"type": "error", "error": {"type": "server_error", "code": "rate_limit_exceeded", "message": "m"}, "sequence_number": 2}, 429, "m"),
    ("flat", RESPONSES, "error", {"type": "error", "code": "server_error", "message": "m", "param": None, "sequence_number": 2}, 500, "m"),
    ("failed", RESPONSES, "response.failed", {"type": "response.failed", "response": {"status": "failed", "error": {"code": "invalid_prompt", "message": "m"}}}, 400, "m"),
    ("failed without why", RESPONSES, "response.failed", {"type": "response.failed", "response": {"status": "failed", "error": None}}, 500, "The response failed."),
    ("anthropic", MESSAGES, "error", OVERLOADED, 529, "Overloaded"),
    ("anthropic without a name", MESSAGES, "", OVERLOADED, 529, "Overloaded"),
    ("gemini", GEMINI, "", GOOGLE_ERROR, 503, "The model is overloaded."),
    ("gemini array", ARRAY, "", GOOGLE_ERROR, 503, "The model is overloaded."),
    ("gemini array in an event", GEMINI, "", [GOOGLE_ERROR], 503, "The model is overloaded."),
    ("interaction", TALK, "error", {"event_type": "error", "error": {"code": "service_unavailable", "message": "m"}}, 503, "m"),
    ("interaction failed", TALK, "", {"event_type": "interaction.completed", "interaction": {"status": "failed"}}, 500, "The interaction failed."),
    ("cohere", COHERE, "message-end", {"type": "message-end", "delta": {"finish_reason": "ERROR", "error": "m"}}, 500, "m"),
    ("cohere, late", COHERE, "", {"type": "message-end", "delta": {"finish_reason": "TIMEOUT"}}, 504, "The message ended with the finish_reason TIMEOUT."),
    ("cohere, elder", cohere.STREAM_V1, "", {"event_type": "stream-end", "is_finished": True, "finish_reason": "ERROR"}, 500, "The message ended with the finish_reason ERROR."),
    ("ollama", LINES, "", {"error": "model runner has unexpectedly stopped"}, None, "model runner has unexpectedly stopped"),
    ("ollama pull", ollama.PROGRESS, "", {"error": "pull model manifest: file does not exist"}, None, "pull model manifest: file does not exist"),
    ("llama.cpp", llamacpp.NATIVE_STREAM, "", {"error": {"code": 500, "message": "m", "type": "server_error"}}, 500, "m"),
    ("bedrock", BEDROCK, "exception:throttlingException", {"message": "Too many requests"}, 429, "Too many requests"),
    ("bedrock, model", BEDROCK, "exception:modelStreamErrorException", {"message": "m", "originalStatusCode": 500}, 424, "m"),
    ("bedrock without words", BEDROCK, "exception:internalServerException", b"", 500, None),
    ("claude at bedrock", BEDROCK, "chunk", {"bytes": base64.b64encode(encode(OVERLOADED)).decode()}, 529, "Overloaded"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("form", "name", "value", "status", "message"),
    [case[1:] for case in IN_STREAM],
    ids=[case[0] for case in IN_STREAM],
)
def test_an_error_in_a_stream_is_found_and_read(
    form: StreamForm, name: str, value: object, status: int | None, message: str | None
) -> None:
    sign = first_sign(form, framed(form, name, value))
    assert isinstance(sign, Trouble)
    assert (status_of(sign.value), told(sign.value).message) == (status, message)
    assert sign.event == (value if isinstance(value, bytes) else encode(value))


@pytest.mark.parametrize(
    ("form", "data"),
    [
        (CHAT, b'error: {"code":500,"message":"m","type":"server_error"}\n\n'),
        (GEMINI, json.dumps(GOOGLE_ERROR, indent=2).encode()),
        (GEMINI, b"data: " + json.dumps(GOOGLE_ERROR).encode()),
        (ARRAY, json.dumps([GOOGLE_ERROR], indent=2).encode()),
        (ARRAY, json.dumps(GOOGLE_ERROR, indent=2).encode()),
        (LINES, b'{"error":"m"}'),
    ],
    ids=[
        "llama.cpp's field",
        "bare",
        "unfinished event",
        "array",
        "object in place of an array",
        "unfinished line",
    ],
)
def test_an_error_that_breaks_the_rules_of_its_framing_is_found(form: StreamForm, data: bytes) -> None:
    assert isinstance(first_sign(form, data), Trouble)


def streams() -> list[tuple[Provider, Endpoint, StreamForm]]:
    return [
        (provider, endpoint, form)
        for provider in PROVIDERS.values()
        for endpoint in provider.endpoints
        for form in endpoint.forms
        if form.error is not None
    ]


@pytest.mark.parametrize(
    ("provider", "endpoint", "form"),
    streams(),
    ids=lambda value: getattr(value, "name", getattr(value, "operation", "")),
)
def test_every_error_that_we_put_into_a_stream_is_known_as_one(
    provider: Provider, endpoint: Endpoint, form: StreamForm
) -> None:
    speaker = PROVIDERS[endpoint.speaks] if endpoint.speaks else provider
    for kind in ErrorKind:
        context = ErrorContext(kind=kind, operation=endpoint.operation, model="m", request_id="1", wall=0.0)
        spec = speaker.spec(kind, endpoint.operation)
        if spec.body is not None and spec.stream is not None:
            continue  # a soft error: an answer by all signs
        event = speaker.stream_error(form, spec, context)
        assert event is not None
        sign = first_sign(form, event)
        assert isinstance(sign, Trouble), (kind, event)
        assert told(sign.value).message


NO_ERRORS: list[tuple[StreamForm, str, object]] = [
    (CHAT, "", {**chunk(delta={"content": "error"}), "error": None}),
    (CHAT, "", {**chunk(delta={"content": "error"}), "error": {}}),
    (CHAT, "", {**chunk(delta={"content": '{"error": {"message": "m"}}'}), "error": ""}),
    (CHAT, "", chunk(delta={}, finish_reason="content_filter")),
    (CHAT, "", chunk(delta={}, finish_reason="stop", error=None)),
    (RESPONSES, "response.completed", {"type": "response.completed", "response": {"status": "completed", "error": None}}),
    (RESPONSES, "response.incomplete", {"type": "response.incomplete", "response": {"status": "incomplete", "error": None}}),
    (MESSAGES, "", {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "error"}}),
    (GEMINI, "", {"candidates": [{"finishReason": "SAFETY"}]}),
    (COHERE, "", {"type": "message-end", "delta": {"finish_reason": "MAX_TOKENS"}}),
    (LINES, "", {"response": "error", "done": False, "error": ""}),
    (BEDROCK, "contentBlockDelta", {"delta": {"text": "error"}}),
]  # fmt: skip


@pytest.mark.parametrize(("form", "name", "value"), NO_ERRORS)
def test_what_speaks_of_errors_is_none(form: StreamForm, name: str, value: object) -> None:
    assert first_sign(form, framed(form, name, value)) is CONTENT


JSON = b"application/json"

WRONG: list[tuple[str, object, int | None]] = [
    ("openai", OPENAI_ERROR, 500),
    ("tetrate", {"error": {"message": "m", "code": 429}}, 429),
    ("openrouter", {"id": "g", "choices": [], "error": {"code": 502, "message": "m"}}, 502),
    ("openrouter, choice", {"id": "g", "choices": [{"index": 0, "error": {"code": 503, "message": "m"}, "message": {"content": ""}}]}, 503),
    ("openrouter, both", {"error": {"code": 503, "message": "m"}, "choices": [{"finish_reason": "error"}]}, 503),
    ("text", {"error": "m"}, None),
    ("flag", {"error": True, "message": "m", "code": 500}, 500),
    ("anthropic", OVERLOADED, 529),
    ("flat anthropic", {"type": "error", "message": "m"}, None),
    ("vllm", {"object": "error", "message": "m", "code": 404}, 404),
    ("gemini", GOOGLE_ERROR, 503),
    ("gemini array", [GOOGLE_ERROR], 503),
    ("gemini array, late", [{"candidates": []}, GOOGLE_ERROR], 503),
    ("response", {"object": "response", "status": "failed", "error": {"code": "server_error", "message": "m"}}, 500),
    ("response without why", {"object": "response", "status": "failed", "error": None}, 500),
    ("interaction", {"object": "interaction", "status": "failed"}, 500),
    ("cohere", {"id": "c", "finish_reason": "TIMEOUT", "message": {"content": []}}, 504),
]  # fmt: skip


@pytest.mark.parametrize(("value", "status"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
@pytest.mark.parametrize(
    "content_type",
    [JSON, b"Application/JSON; charset=utf-8", b"application/problem+json", b"", b"text/plain"],
)
def test_a_body_that_is_an_error_is_found(value: object, status: int | None, content_type: bytes) -> None:
    found = look(encode(value), content_type)
    assert found.trouble is not None
    assert found.value == value
    assert status_of(found.trouble) == status
    assert told(found.trouble).message


RIGHT: list[object] = [
    {"object": "chat.completion", "choices": [{"message": {"content": '{"error": "no"}'}, "finish_reason": "stop"}], "error": None},
    {"object": "chat.completion", "choices": [{"message": {"content": None, "tool_calls": [{}]}, "error": None}]},
    {"object": "response", "status": "completed", "error": None, "output": []},
    {"object": "response", "status": "incomplete", "error": None},
    {"object": "response", "status": "queued"},
    {"object": "list", "data": [{"object": "embedding", "embedding": [0.1]}]},
    {"object": "list", "data": [{"id": "error", "object": "model"}]},
    {"object": "batch", "errors": None},
    {"object": "fine_tuning.job", "status": "succeeded", "error": {"code": None, "message": None, "param": None}},
    {"error": {}},
    {"error": ""},
    {"error": False},
    {"error": 0.25},
    {"type": "message", "content": [{"type": "text", "text": "error"}], "stop_reason": "end_turn"},
    {"candidates": [], "promptFeedback": {"blockReason": "OTHER"}},
    {"id": "c", "finish_reason": "COMPLETE", "message": {"content": []}},
    [{"candidates": []}],
    [],
    {},
    None,
    "error",
    [[{"error": "x"}]],
]  # fmt: skip


@pytest.mark.parametrize("value", RIGHT, ids=repr)
def test_an_answer_is_no_error(value: object) -> None:
    found = look(encode(value), JSON)
    assert found.trouble is None
    assert found.value == value


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  \n\n",
        b"\xef\xbb\xbf",
        b"<html>",
        b'{"choices":[',
        b"Internal Server Error",
        b"nul",
        b"\x00\x01",
        b"{'a': 1}",
    ],
)
def test_a_body_that_claims_to_be_json_and_is_not_is_an_error(body: bytes) -> None:
    for content_type in (JSON, b"application/vnd.api+json"):
        found = look(body, content_type)
        assert found.trouble is not None
        assert found.value is None
        assert "JSON" in str(told(found.trouble).message) or "empty" in str(told(found.trouble).message)
        assert status_of(found.trouble) is None
    for content_type in (b"", b"text/html", b"text/event-stream", b"audio/mpeg"):
        assert look(body, content_type).trouble is None


@pytest.mark.parametrize(
    "body",
    [b'\n\n \n{"a":1}\n', b'\xef\xbb\xbf{"a":1}', b'\xef\xbb\xbf\n{"a":1}', '{"a":1}'.encode("utf-16")],
)
def test_signs_of_life_and_marks_in_front_of_json_are_fine(body: bytes) -> None:
    found = look(body, JSON)
    assert found.trouble is None
    assert found.value == {"a": 1}


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":1}\n{"a":2}\n',
        b"data: {}\n\n",
        b": ping\n\ndata: {}\n\n",
        b"1" * 5000,
        b"[" * 3000 + b"]" * 3000,
    ],
    ids=["lines", "events", "events behind a comment", "endless number", "too deep"],
)
def test_what_cannot_be_judged_is_left_alone(body: bytes) -> None:
    assert look(body, JSON).trouble is None


def test_half_a_character_in_a_text_does_not_make_it_less_json() -> None:
    assert look(b'{"choices":[{"text":"\xe2\x82"}]}', JSON).trouble is None


SHAPES: list[tuple[str, object, Told]] = [
    ("openai", {"error": {"message": "m", "type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded"}}, Told("context_length_exceeded", "invalid_request_error", "m")),
    ("openai without code", OPENAI_ERROR, Told("server_error", "server_error", "The server had an error")),
    ("the object alone", OPENAI_ERROR["error"], Told("server_error", "server_error", "The server had an error")),
    ("anthropic", OVERLOADED, Told("overloaded_error", "overloaded_error", "Overloaded")),
    ("anthropic, details", {"type": "error", "error": {"type": "rate_limit_error", "message": "m", "details": {"error_code": "ramp_limit_exceeded"}}}, Told("ramp_limit_exceeded", "rate_limit_error", "m")),
    ("google", GOOGLE_ERROR, Told("UNAVAILABLE", None, "The model is overloaded.", 503)),
    ("google array", [GOOGLE_ERROR], Told("UNAVAILABLE", None, "The model is overloaded.", 503)),
    ("google, reason", {"error": {"code": 400, "message": "m", "status": "INVALID_ARGUMENT", "details": [{"@type": "x"}, {"reason": "API_KEY_INVALID"}]}}, Told("API_KEY_INVALID", None, "m", 400)),
    ("interactions", {"error": {"code": "not_found", "message": "m"}}, Told("not_found", None, "m")),
    (
        "openrouter",
        {"error": {"code": 400, "message": "Provider returned error", "metadata": {"raw": "{}", "provider_error_code": "context_length_exceeded"}}, "user_id": "u"},
        Told("context_length_exceeded", None, "Provider returned error", 400),
    ),
    ("databricks", {"error_code": "REQUEST_LIMIT_EXCEEDED", "message": "m"}, Told("REQUEST_LIMIT_EXCEEDED", None, "m")),
    ("azure", {"error": {"code": "429", "message": "m"}}, Told("429", None, "m", 429)),
    ("azure, filter", {"error": {"code": "content_filter", "message": "m", "param": "prompt", "status": 400, "innererror": {"code": "ResponsibleAIPolicyViolation"}}}, Told("content_filter", None, "m", 400)),
    ("bedrock", {"message": "m"}, Told(message="m")),
    ("bedrock, capital", {"Message": "m", "__type": "com.amazon.coral#ThrottlingException"}, Told("ThrottlingException", "ThrottlingException", "m")),
    ("mistral", {"object": "error", "message": "m", "type": "rate_limited", "param": None, "code": "1300", "raw_status_code": 429}, Told("1300", "rate_limited", "m", 429)),
    ("mistral, number", {"object": "error", "message": "m", "type": "rate_limited", "code": 1300}, Told("1300", "rate_limited", "m")),
    ("mistral, findings", {"detail": [{"loc": ["body", "messages", 0], "msg": "Field required", "type": "missing"}, {"loc": ["body"], "msg": "n"}]}, Told("missing", "missing", "body.messages.0: Field required; body: n")),
    ("mistral, text", {"detail": "Unauthorized"}, Told(message="Unauthorized")),
    ("xai", {"code": "Client specified an invalid argument", "error": "m"}, Told("Client specified an invalid argument", None, "m")),
    ("fireworks", {"error": {"object": "error", "type": "invalid_request_error", "code": "NOT_FOUND", "message": "m"}}, Told("NOT_FOUND", "invalid_request_error", "m")),
    ("cohere", {"id": "i", "message": "m"}, Told(message="m")),
    ("ollama", {"error": "model 'x' not found"}, Told(message="model 'x' not found")),
    ("vllm", {"error": {"message": "m", "type": "NotFoundError", "param": None, "code": 404}}, Told("NotFoundError", "NotFoundError", "m", 404)),
    ("vllm, elder", {"object": "error", "message": "m", "type": "BadRequestError", "param": None, "code": 400}, Told("BadRequestError", "BadRequestError", "m", 400)),
    ("llama.cpp", {"error": {"code": 400, "message": "m", "type": "exceed_context_size_error", "n_ctx": 1}}, Told("exceed_context_size_error", "exceed_context_size_error", "m", 400)),
    ("venice", {"error": "Authentication failed", "details": {}}, Told(message="Authentication failed")),
    ("oauth", {"error": "invalid_grant", "error_description": "m"}, Told("invalid_grant", None, "m")),
    ("word and text", {"error": "overloaded", "message": "m"}, Told("overloaded", None, "m")),
    ("list of errors", {"errors": [{"code": 1015, "message": "m"}]}, Told("1015", None, "m")),
    ("FastAPI", {"detail": {"error": {"message": "m", "code": "c"}}}, Told("c", None, "m")),
    ("failed response", {"object": "response", "status": "failed", "error": {"code": "server_error", "message": "m"}}, Told("server_error", None, "m")),
    ("failed event", {"type": "response.failed", "response": {"error": {"code": "server_error", "message": "m"}}}, Told("server_error", None, "m")),
    ("flat event", {"type": "error", "code": None, "message": "m"}, Told(message="m")),
    ("text alone", "upstream connect error", Told(message="upstream connect error")),
    ("list of texts", {"error": ["a", "b"]}, Told(message="a; b")),
    ("nothing", {}, Told()),
    ("null", None, Told()),
    ("number", 500, Told()),
    ("empty list", [], Told()),
]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "expected"), [case[1:] for case in SHAPES], ids=[case[0] for case in SHAPES]
)
def test_every_shape_of_errors_is_read(value: object, expected: Told) -> None:
    assert told(value) == expected


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=lambda provider: provider.name)
def test_what_our_catalogues_say_is_read_and_given_its_status(provider: Provider) -> None:
    operation = provider.endpoints[0].operation  # below /v1 Ollama has one type for most errors
    for kind in ErrorKind:
        spec = provider.errors[kind]
        context = ErrorContext(kind=kind, operation=operation, model="m", request_id="1", wall=0.0)
        if spec.html is not None or spec.status < 400:
            continue
        value = provider.error_value(spec, context)
        found = told(value)
        assert found.message, kind
        if spec.code is not None and spec.code != spec.status:
            assert found.code == str(spec.code)
        status = status_of(value)
        assert status is None or (status < 500) == (spec.status < 500), (kind, value, status)


STATUSES = [
    ("rate_limit_exceeded", 429),
    ("rate_limit_error", 429),
    ("rate_limited", 429),
    ("RateLimitError", 429),
    ("RESOURCE_EXHAUSTED", 429),
    ("REQUEST_LIMIT_EXCEEDED", 429),
    ("ThrottlingException", 429),
    ("insufficient_quota", 429),
    ("slow_down", 429),
    ("overloaded_error", 529),
    ("provider_overloaded", 529),
    ("server_is_overloaded", 503),
    ("invalid_request_error", 400),
    ("BadRequestError", 400),
    ("validationException", 400),
    ("INVALID_ARGUMENT", 400),
    ("FAILED_PRECONDITION", 400),
    ("context_length_exceeded", 400),
    ("exceed_context_size_error", 400),
    ("invalid_prompt", 400),
    ("authentication_error", 401),
    ("invalid_api_key", 401),
    ("UNAUTHENTICATED", 401),
    ("billing_error", 402),
    ("permission_error", 403),
    ("PERMISSION_DENIED", 403),
    ("AccessDeniedException", 403),
    ("not_found_error", 404),
    ("model_not_found", 404),
    ("RESOURCE_DOES_NOT_EXIST", 404),
    ("request_too_large", 413),
    ("server_error", 500),
    ("api_error", 500),
    ("INTERNAL", 500),
    ("internalServerException", 500),
    ("InternalServerError", 500),
    ("UNAVAILABLE", 503),
    ("serviceUnavailableException", 503),
    ("TEMPORARILY_UNAVAILABLE", 503),
    ("timeout", 504),
    ("timeout_error", 504),
    ("DEADLINE_EXCEEDED", 504),
    ("modelTimeoutException", 408),
    ("modelStreamErrorException", 424),
    ("model_gone_fishing", None),
]  # fmt: skip


@pytest.mark.parametrize(("name", "status"), STATUSES)
def test_a_name_stands_for_the_status_that_its_provider_gives(name: str, status: int | None) -> None:
    assert status_of({"error": {"code": name, "message": "m"}}) == status
    assert status_of({"error": {"type": name, "message": "m"}}) == status
    assert status_of({"type": "error", "error": {"type": name}}) == status


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ({"error": {"code": 429, "type": "server_error"}}, 429),
        ({"error": {"code": "503"}}, 503),
        ({"error": {"code": 200, "type": "server_error"}}, 500),
        ({"error": {"code": 600}}, None),
        ({"error": {"code": True, "message": "m"}}, None),
        ({"error": {"code": -1, "message": "m"}}, None),
        ({"error": {"code": "invalid_api_key", "type": "invalid_request_error"}}, 401),
        ({"error": {"code": "gone_fishing", "type": "rate_limit_error"}}, 429),
        ({"error": {"message": "m", "status": "UNAVAILABLE"}}, 503),
        ({"error": "server busy"}, None),
        ({"error": "m", "status_code": 429}, 429),
        (None, None),
        ("rate_limit_error", None),
    ],
)
def test_a_number_comes_before_a_name_and_a_code_before_a_type(value: object, status: int | None) -> None:
    assert status_of(value) == status


def test_a_message_is_short_and_printable() -> None:
    text = told({"error": {"message": "a\x1b[31m\n\r b\u202e\ud800 " + "x" * 100_000}}).message
    assert text is not None
    assert text.startswith("a [31m b xxx")
    assert len(text) == 500
    assert text.isprintable()
    assert text.encode()
    code = told({"error": {"code": "c\n" * 1000}}).code
    assert code is not None
    assert len(code) <= 100
    assert code.isprintable()


KEY = "sk-proj-abcdefgh1234567890"


@pytest.mark.parametrize(
    "key",
    [
        KEY,
        "sk-ant-api03-" + "x" * 20,
        "gsk_" + "a1" * 20,
        "AIza" + "B" * 35,
        "sk-proj-****************abcd",
        "Bearer abcdefgh12345678",
    ],
)
def test_a_key_is_not_repeated(key: str) -> None:
    for value in (
        {"error": {"message": f"Incorrect API key provided: {key}. You can find…", "code": key}},
        {"error": key},
        {"detail": [key]},
    ):
        found = told(value)
        assert key not in str(found.message)
        assert key not in str(found.code)
    assert "m-secret" not in repr(told({"error": {"message": "m-secret"}}))


def test_reprs_do_not_show_what_came() -> None:
    sign = first_sign(CHAT, framed(CHAT, "", {"error": {"message": KEY}}))
    assert KEY not in repr(sign)
    assert KEY not in repr(look(encode({"error": {"message": KEY}}), JSON))


NAMES = [
    "error",
    "errors",
    "code",
    "type",
    "message",
    "detail",
    "details",
    "metadata",
    "status",
    "object",
    "response",
    "reason",
    "error_code",
    "loc",
    "msg",
    "choices",
    "delta",
    "finish_reason",
]
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=3), inner, max_size=5)
    ),
    max_leaves=20,
)


@given(ANY_JSON)
@settings(max_examples=500)
def test_any_json_is_read_without_raising(value: object) -> None:
    found = told(value)
    for text in (found.code, found.type, found.message):
        assert text is None or (text.isprintable() and 0 < len(text) <= 500)
    status = status_of(value)
    assert status is None or 400 <= status <= 599
    look(json.dumps(value).encode(), JSON)


@given(st.binary(max_size=100), st.sampled_from([JSON, b"", b"\xff"]))
def test_any_body_is_looked_at_without_raising(body: bytes, content_type: bytes) -> None:
    look(body, content_type)


def test_what_is_nested_deeply_or_long_is_read_without_raising() -> None:
    value: object = "m"
    for _ in range(900):
        value = {"error": value, "detail": [value]}
    told(value)
    told({"errors": [value]})
    status_of([value] * 10_000)
    told({"error": {"message": ["x"] * 100_000, "code": 10**5000}})
    # A list in a list in a list, as deep as a parser lets it be.
    nested: object = []
    for _ in range(900):
        nested = [nested]
    told({"message": nested, "detail": nested})
    look(encode({"error": nested}), JSON)

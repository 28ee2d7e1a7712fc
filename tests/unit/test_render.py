"""Rehearsed answers: the seed's providers, with the status and identifier that each is known by.

Where observed facts differ from the seed's table they are the ones that hold: Databricks says
``REQUEST_LIMIT_EXCEEDED`` for its rate limit.
"""

from __future__ import annotations

import json

import pytest

from llmproxyd.faults.language import SetFault, parse
from llmproxyd.faults.render import kind_at, render
from llmproxyd.faults.rules import UNKNOWN
from llmproxyd.providers.base import ErrorContext, ErrorKind, Provider
from llmproxyd.providers.registry import built_in

PROVIDERS = {provider.name: provider for provider in built_in()}

TABLE = [
    ("openai", "chat", "c", 400, ("error", "code"), "context_length_exceeded"),
    ("openai", "chat", "r", 429, ("error", "code"), "rate_limit_exceeded"),
    ("openai", "chat", "u", 500, ("error", "code"), "internal_server_error"),
    ("openai", "responses", "c", 400, ("error", "code"), "context_length_exceeded"),
    ("anthropic", "messages", "c", 400, ("error", "message"), "prompt is too long"),
    ("anthropic", "messages", "r", 429, ("error", "type"), "rate_limit_error"),
    ("anthropic", "messages", "u", 529, ("error", "type"), "overloaded_error"),
    ("google", "generate", "c", 400, ("error", "status"), "INVALID_ARGUMENT"),
    ("google", "generate", "r", 429, ("error", "status"), "RESOURCE_EXHAUSTED"),
    ("google", "generate", "u", 503, ("error", "status"), "UNAVAILABLE"),
    ("openrouter", "chat", "c", 400, ("error", "message"), "context length"),
    ("openrouter", "chat", "r", 429, ("error", "message"), "Rate limit"),
    ("openrouter", "chat", "u", 500, ("error", "message"), "Internal Server Error"),
    ("tetrate", "chat", "c", 400, ("error", "message"), "context length"),
    ("tetrate", "chat", "r", 429, ("error", "message"), "Rate limit"),
    ("tetrate", "chat", "u", 503, ("error", "type"), "service_unavailable_error"),
    ("databricks", "invocations", "c", 400, ("error_code",), "INVALID_PARAMETER_VALUE"),
    ("databricks", "invocations", "r", 429, ("error_code",), "REQUEST_LIMIT_EXCEEDED"),
    ("databricks", "invocations", "u", 500, ("error_code",), "INTERNAL_ERROR"),
]


def context(kind: ErrorKind | None, operation: str, **given: object) -> ErrorContext:
    return ErrorContext(kind=kind, operation=operation, model="m-1", request_id="id-1", wall=1.8e9, **given)  # type: ignore[arg-type]


def commanded(letter: str, provider: Provider) -> ErrorKind:
    command = parse(letter)
    assert isinstance(command, SetFault)
    return kind_at(command.rule.kind, provider)


@pytest.mark.parametrize(("name", "operation", "letter", "status", "place", "identifier"), TABLE)
def test_letter_gives_the_error_of_the_provider(
    name: str, operation: str, letter: str, status: int, place: tuple[str, ...], identifier: str
) -> None:
    provider = PROVIDERS[name]
    reply = render(provider, context(commanded(letter, provider), operation))
    value = json.loads(reply.body)
    for key in place:
        value = value[key]
    assert reply.status == status
    assert identifier in value
    assert dict(reply.headers)[b"content-type"] == b"application/json"


def test_words_are_those_of_the_endpoint() -> None:
    chat, responses = (
        render(PROVIDERS["openai"], context(ErrorKind.CONTEXT_LENGTH, operation)).body
        for operation in ("chat", "responses")
    )
    assert json.loads(chat)["error"]["param"] == "messages"
    assert json.loads(responses)["error"]["param"] == "input"


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=PROVIDERS.keys())
def test_unknown_is_the_server_error_of_each_provider(provider: Provider) -> None:
    kind = kind_at(UNKNOWN, provider)
    assert kind is provider.unknown
    assert 500 <= render(provider, context(kind, "unknown")).status < 600


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=PROVIDERS.keys())
@pytest.mark.parametrize("kind", ErrorKind)
def test_every_kind_renders_at_every_provider(provider: Provider, kind: ErrorKind) -> None:
    assert kind_at(kind, provider) is kind
    reply = render(provider, context(kind, "unknown"))
    assert reply.status == provider.spec(kind, "unknown").status
    assert reply.body


def test_kind_may_be_a_plain_text() -> None:
    assert kind_at("rate_limit", PROVIDERS["openai"]) is ErrorKind.RATE_LIMIT


def test_retry_after_is_told_only_when_asked_for() -> None:
    provider = PROVIDERS["anthropic"]
    without = render(provider, context(ErrorKind.RATE_LIMIT, "messages"))
    with_zero = render(provider, context(ErrorKind.RATE_LIMIT, "messages", retry_after=0.0))
    assert b"retry-after" not in dict(without.headers)
    assert dict(with_zero.headers)[b"retry-after"] == b"0"


def test_gemini_array_has_one_element() -> None:
    provider = PROVIDERS["google"]
    reply = render(provider, context(ErrorKind.RATE_LIMIT, "generate", array=True, streaming=True))
    (element,) = json.loads(reply.body)
    assert element["error"]["status"] == "RESOURCE_EXHAUSTED"


def test_error_of_the_proxy_itself_is_not_rehearsed() -> None:
    with pytest.raises(ValueError, match="kind"):
        render(PROVIDERS["openai"], context(None, "chat"))

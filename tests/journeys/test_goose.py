"""OpenRouter, Tetrate and Databricks, asked as goose asks them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from daemon import Daemon
from raw import GOOSE, MESSAGES, Answer, ask

Identify = Callable[[Any], object]


@dataclass(frozen=True)
class Place:
    """One of goose's endpoints.

    :param errors: by letter, the status and what identifies the error.
    :param identify: that of a body.
    """

    path: str
    headers: Mapping[str, str]
    body: Mapping[str, object]
    errors: Mapping[str, tuple[int, object]]
    identify: Identify
    provider: str

    def ask(self, url: str) -> Answer:
        return ask(url, self.path, self.headers, self.body)


def openai_code(body: Any) -> object:
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return body["error"]["code"]


def openrouter_code(body: Any) -> object:
    return body["error"]["code"]


def databricks_code(body: Any) -> object:
    assert set(body) == {"error_code", "message"}
    return body["error_code"]


STREAM = {"stream": True, "stream_options": {"include_usage": True}}
CHAT = {"model": "gpt-4o", "messages": MESSAGES, **STREAM}
DATABRICKS = {
    "c": (400, "INVALID_PARAMETER_VALUE"),
    "r": (429, "REQUEST_LIMIT_EXCEEDED"),
    "u": (500, "INTERNAL_ERROR"),
}
TOKEN = {"Authorization": "Bearer dapi-test", "User-Agent": "goose"}


def databricks(path: str, body: Mapping[str, object]) -> Place:
    return Place(path, TOKEN, body, DATABRICKS, databricks_code, "databricks")


INPUT = {"model": "databricks-gpt-5", "input": [{"role": "user", "content": "tell me a joke"}]}
PLACES = {
    "openrouter": Place(
        "/api/v1/chat/completions",
        {"Authorization": "Bearer sk-or-v1-test", **GOOSE},
        {
            "model": "anthropic/claude-sonnet-4",
            "messages": MESSAGES,
            "transforms": ["middle-out"],
            "usage": {"include": True},
            "user": "goose",
            **STREAM,
        },
        {"c": (400, 400), "r": (429, 429), "u": (500, 500)},
        openrouter_code,
        "openrouter",
    ),
    "tetrate": Place(
        "/v1/chat/completions",
        {"Authorization": "Bearer tetrate-test", **GOOSE},
        CHAT,
        {
            "c": (400, "context_length_exceeded"),
            "r": (429, "rate_limit_exceeded"),
            "u": (503, "server_is_overloaded"),
        },
        openai_code,
        "tetrate",
    ),
    "databricks invocations": databricks(
        "/serving-endpoints/databricks-claude-sonnet-4-5/invocations", {"messages": MESSAGES, **STREAM}
    ),
    "databricks responses": databricks("/serving-endpoints/responses", {**INPUT, "stream": True}),
    "databricks gateway chat": databricks("/ai-gateway/mlflow/v1/chat/completions", CHAT),
    "databricks gateway responses": databricks("/ai-gateway/openai/v1/responses", INPUT),
    "databricks gateway messages": databricks(
        "/ai-gateway/anthropic/v1/messages",
        {"model": "databricks-claude", "max_tokens": 64, "messages": MESSAGES, "stream": True},
    ),
    "databricks embeddings": databricks(
        "/serving-endpoints/databricks-gte-large-en/invocations", {"input": ["tell me a joke"]}
    ),
}

PASSING = [
    ("GET", "/api/v1/models", {"Authorization": "Bearer sk-or-v1-test", **GOOSE}, None),
    ("GET", "/v1/models", {"Authorization": "Bearer tetrate-test", **GOOSE}, None),
    ("GET", "/api/2.0/serving-endpoints", TOKEN, None),
    ("GET", "/api/2.0/serving-endpoints/databricks-claude-sonnet-4-5", TOKEN, None),
    ("GET", "/api/ai-gateway/v2/endpoints?page_size=100", TOKEN, None),
    ("GET", "/oidc/.well-known/oauth-authorization-server", {}, None),
    ("GET", "/.well-known/databricks-config", {}, None),
    (
        "POST",
        "/oidc/v1/token",
        {"Content-Type": "application/x-www-form-urlencoded"},
        b"grant_type=authorization_code&client_id=databricks-cli&code=x&code_verifier=y",
    ),
]

CONTEXT_WORDS = ("maximum context", "context window", "prompt is too long")
"""Texts by which goose knows a context error."""


@pytest.mark.parametrize("name", PLACES)
def test_with_n_every_request_succeeds(name: str, proxy: Daemon) -> None:
    start = len(proxy.output)
    answer = PLACES[name].ask(proxy.url)
    assert answer.status == 200
    assert "x-llmproxyd-error" not in answer.headers
    streamed = PLACES[name].body.get("stream")
    media = "text/event-stream" if streamed else "application/json"
    assert answer.headers["content-type"].partition(";")[0] == media
    assert proxy.wait_for(rf"-> {PLACES[name].provider}: 200", start)


@pytest.mark.parametrize("letter", "cru")
@pytest.mark.parametrize("name", PLACES)
def test_with_a_letter_every_request_has_its_providers_error(name: str, letter: str, proxy: Daemon) -> None:
    place = PLACES[name]
    proxy.command(f"{letter} *")
    answer = place.ask(proxy.url)
    status, identity = place.errors[letter]
    assert (answer.status, answer.headers["content-type"]) == (status, "application/json")
    assert place.identify(answer.json) == identity
    if letter == "c":
        assert any(words in answer.body.decode() for words in CONTEXT_WORDS)


@pytest.mark.parametrize(
    ("method", "path", "headers", "body"), PASSING, ids=[f"{row[0]} {row[1]}" for row in PASSING]
)
def test_lists_and_sign_in_go_through_while_every_request_fails(
    method: str, path: str, headers: Mapping[str, str], body: bytes | None, proxy: Daemon
) -> None:
    for letter in "cru":
        proxy.command(f"{letter} *")
        answer = ask(proxy.url, path, headers, body, method)
        assert (answer.status, answer.injected) == (200, False)
        assert isinstance(answer.json, dict)


@pytest.mark.parametrize("name", ["openrouter", "tetrate", "databricks invocations"])
def test_a_delay_is_told_as_the_provider_tells_it(name: str, proxy: Daemon) -> None:
    proxy.command("r retry_after=3")
    answer = PLACES[name].ask(proxy.url)
    assert answer.headers["retry-after"] == "3"
    if name == "openrouter":
        assert answer.error["metadata"]["retry_after_seconds"] == 3


@pytest.mark.parametrize("name", PLACES)
def test_a_path_prefix_names_the_provider_whatever_the_rest_says(name: str, proxy: Daemon) -> None:
    place = PLACES[name]
    proxy.command("r *")
    answer = ask(proxy.url, f"/to/{place.provider}{place.path}", {}, place.body)
    assert (answer.status, place.identify(answer.json)) == place.errors["r"]

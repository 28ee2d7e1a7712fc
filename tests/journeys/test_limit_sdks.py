"""Rehearsed rate limits as the official SDKs meet them, in front of the sandbox."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import anthropic
import openai
import pytest
from anthropic import Anthropic
from daemon import Daemon
from google import genai
from google.genai import errors, types
from openai import OpenAI

MESSAGES: Any = [{"role": "user", "content": "tell me a joke"}]


@pytest.fixture
def proxy(proxy: Daemon) -> Daemon:
    """The module's daemon, without any limit at first."""
    proxy.command("limit clear")
    return proxy


def openai_at(proxy: Daemon, retries: int = 0) -> OpenAI:
    return OpenAI(base_url=f"{proxy.url}/to/openai/v1", api_key="sk-test", max_retries=retries)


def anthropic_at(proxy: Daemon) -> Anthropic:
    return Anthropic(base_url=f"{proxy.url}/to/anthropic", api_key="sk-ant-test", max_retries=0)


def refused(call: Callable[[], Any], error: type[Exception]) -> Any:
    """The refusal that comes once the limit is reached."""
    for _ in range(100):
        try:
            call()
        except error as refusal:
            return refusal
    pytest.fail("no limit was reached")


def chat(client: OpenAI, **more: Any) -> Any:
    return client.chat.completions.with_raw_response.create(model="gpt-4o", messages=MESSAGES, **more)


def test_openai_counts_down_and_who_waits_gets_through(proxy: Daemon) -> None:
    proxy.command("limit rpm=30 tpm=100000 upstream=openai")
    client = openai_at(proxy)
    answer = chat(client)
    assert answer.headers["x-ratelimit-limit-requests"] == "30"
    assert answer.headers["x-ratelimit-remaining-requests"] == "29"
    assert int(answer.headers["x-ratelimit-remaining-tokens"]) < 100_000
    error = refused(lambda: chat(client), openai.RateLimitError)
    assert "on requests per min (RPM): Limit 30, Used 30, Requested 1" in error.message
    assert error.code == "rate_limit_exceeded"
    headers = error.response.headers
    assert headers["x-ratelimit-remaining-requests"] == "0"
    wait = int(headers["retry-after"])
    assert 1 <= wait <= 2
    time.sleep(wait)
    assert chat(client).parse().choices[0].message.content == "You said: tell me a joke"


def test_openais_own_retries_wait_for_as_long_as_told(proxy: Daemon) -> None:
    proxy.command("limit rpm=30")
    refused(lambda: chat(openai_at(proxy)), openai.RateLimitError)
    assert chat(openai_at(proxy, retries=2)).parse().choices


def test_streams_are_counted(proxy: Daemon) -> None:
    proxy.command("limit tpm=100000 name=tokens")
    client = openai_at(proxy)
    stream = client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True)
    assert len(list(stream)) > 3
    answer = chat(client)
    assert int(answer.headers["x-ratelimit-limit-tokens"]) == 100_000
    said = proxy.command("limit list")
    assert "tokens  operator  100000 tokens a minute for each key" in said


def test_anthropic_tells_times(proxy: Daemon) -> None:
    proxy.command("limit rpm=20 upstream=anthropic")
    client = anthropic_at(proxy)

    def call() -> Any:
        return client.messages.with_raw_response.create(model="claude-test", max_tokens=9, messages=MESSAGES)

    answer = call()
    assert answer.headers["anthropic-ratelimit-requests-limit"] == "20"
    assert answer.headers["anthropic-ratelimit-requests-remaining"] == "19"
    error = refused(call, anthropic.RateLimitError)
    assert error.response.headers["anthropic-ratelimit-requests-remaining"] == "0"
    reset = datetime.fromisoformat(error.response.headers["anthropic-ratelimit-requests-reset"])
    assert 40 < (reset - datetime.now(UTC)).total_seconds() <= 62
    time.sleep(int(error.response.headers["retry-after"]))
    assert call().parse().content[0].text == "You said: tell me a joke"


def test_gemini_tells_the_delay_in_its_body(proxy: Daemon) -> None:
    proxy.command("limit rpm=20 upstream=google")
    options = types.HttpOptions(base_url=f"{proxy.url}/to/google")
    client = genai.Client(api_key="test", http_options=options)

    def call() -> Any:
        return client.models.generate_content(model="gemini-2.0-flash", contents="tell me a joke")

    error = refused(call, errors.ClientError)
    assert (error.code, error.status) == (429, "RESOURCE_EXHAUSTED")
    (delay,) = [
        one["retryDelay"] for one in error.details["error"]["details"] if one["@type"].endswith("RetryInfo")
    ]
    time.sleep(float(delay.removesuffix("s")))
    assert call().text == "You said: tell me a joke"


def test_a_limit_of_one_upstream_leaves_others_alone(proxy: Daemon) -> None:
    proxy.command("limit rpm=1 upstream=anthropic name=small")
    client = openai_at(proxy)
    assert [chat(client).headers["x-ratelimit-limit-requests"] for _ in range(3)] == ["10000"] * 3
    assert "small" in proxy.command("status")
    proxy.command("limit clear")
    assert "small" not in proxy.command("limit list")

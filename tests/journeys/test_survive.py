"""A flaky endpoint behind the proxy, and clients that do not notice: real SDKs, a real process."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from daemon import Daemon
from flaky import (
    BLOCK_START,
    CHAT,
    DONE,
    HELLO,
    MESSAGE_END,
    MESSAGE_START,
    OVERLOADED,
    PING,
    ROLE,
    STOP,
    TEXT,
    Flaky,
    Step,
    answer,
    close,
    flaky,
    openai_error,
    reset,
    stream,
)
from google import genai

SETTINGS = """\
upstreams:
  openai: {{base_url: "{url}"}}
  anthropic: {{base_url: "{url}"}}
  google: {{base_url: "{url}"}}
resilience:
  default:
    retry: {{max_retries: 3, base_delay: 50ms}}
"""
ASK: Any = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
MESSAGE: Any = {"model": "claude-x", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(scope="module")
def upstream() -> Iterator[Flaky]:
    with flaky() as made:
        yield made


@pytest.fixture(scope="module")
def proxy(upstream: Flaky, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    file = tmp_path_factory.mktemp("survive") / "llmproxyd.yaml"
    file.write_text(SETTINGS.format(url=upstream.url))
    with Daemon("--config", str(file)) as daemon:
        yield daemon


def client(proxy: Daemon, retries: int = 0) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{proxy.url}/v1", api_key="sk-a-secret-of-the-client", max_retries=retries)


def claude(proxy: Daemon, retries: int = 0) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=proxy.url, api_key="sk-ant-a-secret", max_retries=retries)


def said(found: openai.OpenAI) -> str:
    chunks = list(found.chat.completions.create(**ASK, stream=True))
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def test_a_limit_that_names_its_wait_is_waited_for(proxy: Daemon, upstream: Flaky) -> None:
    upstream.play(openai_error("429 Too Many Requests", "slow down", Retry_After="1"), answer(CHAT))
    began = time.monotonic()
    got = client(proxy).chat.completions.create(**ASK)
    assert got.choices[0].message.content == "Hello."
    first, second = upstream.requests
    assert second.at - first.at >= 1
    assert time.monotonic() - began < 3
    assert first.body == second.body
    told = proxy.wait_for(r"openai limited the rate \(429\), trying again in 1\.\d s \(1 of 3\) \[[\w-]+\]")
    assert told


def test_two_failures_and_then_a_stream(proxy: Daemon, upstream: Flaky) -> None:
    broken = openai_error("503 Service Unavailable", "sorry")
    upstream.play(broken, broken, stream(ROLE, HELLO, STOP, DONE))
    assert said(client(proxy)) == "Hello."
    assert len(upstream.requests) == 3


@pytest.mark.parametrize("coded", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("events", [(), (ROLE,)], ids=["nothing", "role"])
def test_a_stream_that_dies_before_its_first_token_is_one_clean_stream(
    proxy: Daemon, upstream: Flaky, coded: bool, events: tuple[bytes, ...]
) -> None:
    upstream.play(stream(*events, cut=True, coded=coded), stream(ROLE, HELLO, STOP, DONE, coded=coded))
    assert said(client(proxy)) == "Hello."
    assert len(upstream.requests) == 2


def test_a_stream_that_dies_after_its_first_token_shows_the_providers_error(
    proxy: Daemon, upstream: Flaky
) -> None:
    upstream.play(stream(ROLE, HELLO, cut=True))
    with pytest.raises(openai.APIError) as caught:
        said(client(proxy))
    assert caught.value.code == "upstream_protocol_error"
    assert len(upstream.requests) == 1


def test_a_coded_stream_that_dies_after_its_first_token_is_cut(proxy: Daemon, upstream: Flaky) -> None:
    upstream.play(stream(ROLE, HELLO, cut=True, coded=True))
    # The HTTP library beneath the SDK says so, and it is another one in other versions.
    with pytest.raises(Exception, match=r"(?i)incomplete|closed|peer|connection error") as caught:
        said(client(proxy))
    assert type(caught.value).__name__ in ("RemoteProtocolError", "APIConnectionError")
    assert len(upstream.requests) == 1


def test_claude_overloaded_within_its_stream_before_it_said_anything(proxy: Daemon, upstream: Flaky) -> None:
    upstream.play(
        stream(MESSAGE_START, PING, OVERLOADED), stream(MESSAGE_START, PING, BLOCK_START, TEXT, MESSAGE_END)
    )
    with claude(proxy).messages.stream(**MESSAGE) as running:
        assert running.get_final_text() == "Hello."
    assert len(upstream.requests) == 2
    proxy.wait_for(r"anthropic overloaded \(529\), trying again in ")


def test_claude_that_dies_after_it_said_something(proxy: Daemon, upstream: Flaky) -> None:
    upstream.play(stream(MESSAGE_START, BLOCK_START, TEXT, cut=True))
    with pytest.raises(anthropic.APIStatusError), claude(proxy).messages.stream(**MESSAGE) as running:
        running.get_final_text()
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    "script",
    [
        answer({"error": {"message": "The engine is overloaded", "code": 503}}),
        [close],
        [reset],
    ],
    ids=["200-with-error", "closed", "reset"],
)
def test_what_is_no_answer_is_never_seen(proxy: Daemon, upstream: Flaky, script: list[Step]) -> None:
    upstream.play(script, answer(CHAT))
    assert client(proxy).chat.completions.create(**ASK).choices[0].message.content == "Hello."
    assert len(upstream.requests) == 2


def test_gemini_names_its_wait_in_the_body(proxy: Daemon, upstream: Flaky) -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1s"}]
    error = {"code": 429, "message": "slow", "status": "RESOURCE_EXHAUSTED", "details": details}
    good = {"candidates": [{"content": {"role": "model", "parts": [{"text": "Hello."}]}}]}
    upstream.play(answer({"error": error}, "429 Too Many Requests"), answer(good))
    options = genai.types.HttpOptions(base_url=proxy.url)
    gemini = genai.Client(api_key="a-key", http_options=options)
    found = gemini.models.generate_content(model="gemini-2.5-flash", contents="hi")
    assert found.text == "Hello."
    first, second = upstream.requests
    assert second.at - first.at >= 1


def test_an_sdks_own_retries_do_not_multiply_ours(proxy: Daemon, upstream: Flaky) -> None:
    upstream.play(openai_error("503 Service Unavailable", "sorry"))
    with pytest.raises(openai.InternalServerError, match="sorry") as caught:
        client(proxy, retries=2).chat.completions.create(**ASK)
    assert caught.value.status_code == 503
    assert len(upstream.requests) == 4


BREAKER = """\
upstreams:
  openai: {{base_url: "{url}"}}
resilience:
  default:
    retry: {{max_retries: 1, base_delay: 20ms}}
    breaker: {{enabled: true, failure_threshold: 2, recovery_timeout: 1s}}
logging: {{enabled: true}}
error_logging: {{enabled: true}}
"""


def test_an_upstream_that_is_down_and_comes_back(tmp_path: Path) -> None:
    with flaky() as first:
        port = first.port
    file = tmp_path / "llmproxyd.yaml"
    file.write_text(BREAKER.format(url=f"http://127.0.0.1:{port}"))
    with Daemon("--config", str(file)) as proxy:
        for _ in range(2):
            with pytest.raises(openai.InternalServerError) as caught:
                client(proxy).chat.completions.create(**ASK)
            assert (caught.value.status_code, caught.value.code) == (502, "upstream_unreachable")
        with pytest.raises(openai.InternalServerError) as caught:
            client(proxy).chat.completions.create(**ASK)
        assert (caught.value.status_code, caught.value.code) == (503, "circuit_open")
        assert caught.value.response.headers["retry-after"] == "1"
        proxy.wait_for(r"Breaker openai: closed -> open, 2 failures in a row; next probe in 1 s")
        assert "openai  open, " in proxy.command("breaker")
        with flaky(port) as second:
            second.play(answer(CHAT))
            time.sleep(1.1)
            got = client(proxy).chat.completions.create(**ASK)
            assert got.choices[0].message.content == "Hello."
        proxy.wait_for(r"Breaker openai: half-open -> closed")
        proxy.stop()
    logs = tmp_path / "logs"
    requests = sorted(logs.glob("*.log"))
    assert len(requests) == 4
    assert all(re.fullmatch(r"\d{8}_\d{6}_\d{3}_[\w-]+\.log", one.name) for one in requests)
    errors = sorted(one.name for one in (logs / "errors").glob("*.log"))
    assert sum(name.startswith("upstream_unreachable_") for name in errors) == 4
    for state in ("open", "half_open", "closed"):
        assert sum(name.startswith(f"circuit_{state}_") for name in errors) == 1
    everything = "".join(one.read_text() for one in logs.rglob("*.log")) + proxy.output
    assert "sk-a-secret-of-the-client" not in everything
    assert "Hello." in everything
    assert {one.stat().st_mode & 0o777 for one in logs.rglob("*.log")} == {0o600}
    assert {one.stat().st_mode & 0o777 for one in (logs, logs / "errors")} == {0o700}

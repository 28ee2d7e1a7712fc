"""Those who came from the proxy before Venice: one preset, its variables, its prefix, its changes."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from typing import Any

import flaky
import openai
import pytest
import raw
import yaml
from daemon import Daemon
from flaky import CHAT, DONE, HELLO, ROLE, STOP, Flaky, answer, openai_error, send, stream, wait

KEY = "venice-key-0123456789"
FIELDS = {"Authorization": f"Bearer {KEY}"}
ASK: Any = {"model": "llama-3.1-405b", "messages": [{"role": "user", "content": "Hello!"}]}
PATH = "/api/v1/chat/completions"
EMBEDDINGS = {
    "object": "list",
    "model": "m",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
}
FAST = {"BASE_RETRY_DELAY": "0.02"}


@pytest.fixture(scope="module")
def upstream() -> Iterator[Flaky]:
    with flaky.flaky() as made:
        yield made


@pytest.fixture(scope="module")
def proxy(upstream: Flaky) -> Iterator[Daemon]:
    with venice(upstream, **FAST) as daemon:
        yield daemon


def venice(upstream: Flaky, base: str = "/api/v1", **variables: str) -> Daemon:
    """The proxy with nothing but the preset and variables."""
    return Daemon("--preset", "venice", env={"OPENAI_BASE_URL": upstream.url + base, **variables})


def client(proxy: Daemon, base: str = "/api/v1") -> openai.OpenAI:
    return openai.OpenAI(base_url=proxy.url + base, api_key=KEY, max_retries=0)


def in_force(**variables: str) -> Any:
    """What ``--print-config`` says."""
    arguments = ("--preset", "venice", "--print-config")
    with pytest.raises(AssertionError) as caught, Daemon(*arguments, env=variables, listen=()):
        """It ends by itself."""
    said = str(caught.value)
    assert said.startswith("it ended at once with 0:\n"), said
    return yaml.safe_load(said.partition("\n")[2])


# The prefix.


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"])
def test_every_method_under_the_prefix_reaches_the_target(
    method: str, proxy: Daemon, upstream: Flaky
) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-From: there\r\nContent-Length: 5\r\n\r\n"
    upstream.play([send(head if method == "HEAD" else head + b"there")])
    body = b'{"a": 1}' if method in ("POST", "PUT", "PATCH") else None
    got = raw.ask(proxy.url, "/api/v1/some/thing%2F?x=%20y&x", FIELDS, body, method)
    assert (got.status, got.headers["x-from"]) == (200, "there")
    assert got.body == (b"" if method == "HEAD" else b"there")
    (request,) = upstream.requests
    assert request.line == f"{method} /api/v1/some/thing%2F?x=%20y&x HTTP/1.1"
    assert request.body == (body or b"")
    assert request.headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("path", ["/", "/v1/chat/completions", "/api/v1x/models", "/api", "//api/v1/models"])
def test_nothing_outside_the_prefix_does(path: str, proxy: Daemon, upstream: Flaky) -> None:
    upstream.play(answer(CHAT))
    got = raw.ask(proxy.url, path, FIELDS, ASK)
    assert (got.status, got.headers["x-llmproxyd-error"]) == (404, "proxy")
    assert got.json["code"] == "path_unknown"
    assert "/api/v1/" in got.json["error"]
    assert upstream.requests == []


def test_another_prefix(upstream: Flaky) -> None:
    upstream.play(answer(CHAT))
    with venice(upstream, PROXY_PATH_PREFIX="/openai/") as proxy:
        assert client(proxy, "/openai").chat.completions.create(**ASK).choices
        assert upstream.requests[0].path == "/api/v1/chat/completions"
        assert raw.ask(proxy.url, PATH, FIELDS, ASK).status == 404


def test_no_prefix(upstream: Flaky) -> None:
    upstream.play(answer(CHAT))
    with venice(upstream, PROXY_PATH_PREFIX="") as proxy:
        assert client(proxy, "").chat.completions.create(**ASK).choices
        assert upstream.requests[0].path == "/api/v1/chat/completions"


@pytest.mark.parametrize(
    ("base", "path"),
    [
        ("", "/chat/completions"),
        ("/", "/chat/completions"),
        ("/v1", "/v1/chat/completions"),
        ("/a/b%20c/v1/", "/a/b%20c/v1/chat/completions"),
    ],
)
def test_the_targets_own_path(base: str, path: str, upstream: Flaky) -> None:
    upstream.play(answer(CHAT))
    with venice(upstream, base) as proxy:
        assert client(proxy).chat.completions.create(**ASK).choices[0].message.content == "Hello."
        assert upstream.requests[0].path == path


def test_ollamas_list_of_models_stands_at_the_targets_root(proxy: Daemon, upstream: Flaky) -> None:
    upstream.play(answer({"models": []}))
    assert raw.ask(proxy.url, "/api/v1/api/tags?x=1", FIELDS).json == {"models": []}
    assert upstream.requests[0].path == "/api/tags?x=1"


def test_health_names_the_target(proxy: Daemon, upstream: Flaky) -> None:
    told = raw.ask(proxy.url, "/health").json
    assert (told["status"], told["target"]) == ("healthy", f"{upstream.url}/api/v1")


# What is changed, and what is not.


def test_streams_stream(proxy: Daemon, upstream: Flaky) -> None:
    upstream.play(stream(ROLE, HELLO, STOP, DONE))
    chunks = list(client(proxy).chat.completions.create(**ASK, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello."


def test_the_bytes_of_a_stream_are_the_upstreams(proxy: Daemon, upstream: Flaky) -> None:
    odd = b': comment\r\n\r\ndata:{"choices":  [{"delta":{"content":"\xc3\xa9 "}}]}\r\n\r\n'
    upstream.play(stream(odd, HELLO, DONE))
    got = raw.ask(proxy.url, PATH, FIELDS, {**ASK, "stream": True})
    assert got.body == odd + HELLO + DONE


REST = b'"model" : "m",\n\t"temperature": 1.50e+0, "n": 12345678901234567890, "user": "\\u00e9\xc3\xa9/\\/", "a": 1, "a": 2'


@pytest.mark.parametrize(
    "dropped",
    [
        b'"prompt_cache_key": "x,}]"',
        b'"logprobs": true',
        b'"top_logprobs": {"a": [1, {"logprobs": "\\""}]}',
        b'"parallel_tool_calls": null',
        b'"parallel_tool_calls": "true"',
        b'"parallel_tool_calls": 1',
    ],
)
def test_what_venice_refuses_is_left_out_and_nothing_else_changes(
    dropped: bytes, proxy: Daemon, upstream: Flaky
) -> None:
    upstream.play(answer(CHAT))
    for body in (b"{%b, %b}" % (REST, dropped), b"{%b, %b}" % (dropped, REST)):
        assert raw.ask(proxy.url, PATH, FIELDS, body).status == 200
        request = upstream.requests[-1]
        assert request.body == b"{%b}" % REST
        assert request.headers["content-length"] == str(len(request.body))


@pytest.mark.parametrize(
    "body",
    [
        b"{%b}" % REST,
        b'{%b, "parallel_tool_calls": true}' % REST,
        b'{%b, "parallel_tool_calls":false}' % REST,
        b'{"messages": [{"logprobs": true, "prompt_cache_key": 1}], "text": "\\"logprobs\\": true"}',
        b'{"model": "m", "encoding_format": "base64"}',
        b"[1, 2, 3]",
        b'{"logprobs": true, broken',
        b"\xff\xfe\x00",
        b"",
    ],
)
def test_other_bodies_go_as_they_came(body: bytes, proxy: Daemon, upstream: Flaky) -> None:
    upstream.play(answer(CHAT))
    assert raw.ask(proxy.url, PATH, FIELDS, body).status == 200
    assert upstream.requests[0].body == body


def test_embeddings_are_asked_for_as_numbers(proxy: Daemon, upstream: Flaky) -> None:
    upstream.play(answer(EMBEDDINGS))
    body = b'{"input": "base64", %b, "encoding_format"\n: "base64" , "x": "base64"}' % REST
    assert raw.ask(proxy.url, "/api/v1/embeddings", FIELDS, body).status == 200
    assert upstream.requests[0].body == body.replace(b': "base64" ', b': "float" ')
    for other in (b'{"encoding_format": "float"}', b'{"encoding_format": null}', b'{"encoding_format": 7}'):
        assert raw.ask(proxy.url, "/api/v1/embeddings", FIELDS, other).status == 200
        assert upstream.requests[-1].body == other


def test_the_sdks_embeddings(proxy: Daemon, upstream: Flaky) -> None:
    # The SDK asks for base64 where nobody says anything, and takes numbers as well.
    upstream.play(answer(EMBEDDINGS))
    assert client(proxy).embeddings.create(model="m", input="a").data[0].embedding == [0.5]
    assert upstream.requests[0].json["encoding_format"] == "float"


# Failures.


def test_a_limit_without_a_time_is_waited_out(upstream: Flaky) -> None:
    upstream.play(openai_error("429 Too Many Requests", "slow"), answer(CHAT))
    with venice(upstream, RATE_LIMIT_WAIT="1.5", **FAST) as proxy:
        assert client(proxy).chat.completions.create(**ASK).choices
        first, second = upstream.requests
        assert second.at - first.at >= 1.5


def test_a_limit_that_names_its_time_is_waited_out_by_that(upstream: Flaky) -> None:
    upstream.play(openai_error("429 Too Many Requests", "slow", Retry_After="1"), answer(CHAT))
    with venice(upstream, RATE_LIMIT_WAIT="600") as proxy:
        assert client(proxy).chat.completions.create(**ASK).choices
        first, second = upstream.requests
        assert second.at - first.at >= 1


@pytest.mark.parametrize(
    ("variables", "requests"), [({}, 6), ({"MAX_RETRIES": "2"}, 3), ({"MAX_RETRIES": "0"}, 1)]
)
def test_retries_are_counted(variables: dict[str, str], requests: int, upstream: Flaky) -> None:
    upstream.play(openai_error("503 Service Unavailable", "sorry"))
    with venice(upstream, **FAST, **variables) as proxy:
        got = raw.ask(proxy.url, PATH, FIELDS, ASK)
        assert (got.status, got.error["message"]) == (503, "sorry")
        assert len(upstream.requests) == requests


def test_the_delay_is_the_variables(upstream: Flaky) -> None:
    upstream.play(openai_error("503 Service Unavailable", "sorry"), answer(CHAT))
    with venice(upstream, BASE_RETRY_DELAY="2.5") as proxy:
        assert raw.ask(proxy.url, PATH, FIELDS, ASK).status == 200
        first, second = upstream.requests
        assert second.at - first.at >= 2.5 * 0.75


def test_the_timeout_is_the_variables(upstream: Flaky) -> None:
    upstream.play([wait(4), *answer(CHAT)])
    with venice(upstream, TIMEOUT="1", **FAST) as proxy:
        got = raw.ask(proxy.url, PATH, FIELDS, ASK)
        assert (got.status, got.headers["x-llmproxyd-code"]) == (504, "headers_timeout")
        assert got.json["code"] == "headers_timeout"


def test_the_targets_own_errors_come_through(proxy: Daemon, upstream: Flaky) -> None:
    upstream.play(answer({"error": "Authentication failed"}, "401 Unauthorized"))
    got = raw.ask(proxy.url, PATH, FIELDS, ASK)
    assert (got.status, got.json) == (401, {"error": "Authentication failed"})
    with pytest.raises(openai.AuthenticationError):
        client(proxy).chat.completions.create(**ASK)


# Variables.


def test_the_defaults_are_those_of_the_table() -> None:
    told = in_force()
    assert told["listen"] == ["tcp:9000:interface=0.0.0.0"]
    assert told["upstreams"]["venice"]["base_url"] == "https://api.venice.ai/api/v1"
    assert told["server"]["path_prefix"] == "/api/v1"
    assert told["server"]["single_upstream"] == "venice"
    assert (told["timeouts"]["headers"], told["timeouts"]["idle"]) == ("5m", "5m")
    retry = told["resilience"]["default"]["retry"]
    assert (retry["max_retries"], retry["base_delay"], retry["rate_limit_wait"]) == (5, "1s", "30s")


def test_host_and_port_say_where_it_listens(upstream: Flaky) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {"OPENAI_BASE_URL": upstream.url, "PORT": str(port), "HOST": "127.0.0.1"}
    with Daemon("--preset", "venice", env=variables, listen=()) as proxy:
        assert proxy.url == f"http://127.0.0.1:{port}"
        assert "anyone on your network" not in proxy.output
    with Daemon("--preset", "venice", env={**variables, "HOST": "0.0.0.0"}, listen=()) as proxy:
        assert "WARNING: anyone on your network can use this proxy" in proxy.output
        assert raw.ask(f"http://127.0.0.1:{port}", "/health").status == 200


def test_without_the_preset_no_such_variable_counts(upstream: Flaky) -> None:
    variables = {"PORT": "x", "TIMEOUT": "x", "MAX_RETRIES": "x", "HOST": "x", "PROXY_PATH_PREFIX": "x"}
    with Daemon(env=variables) as proxy:
        assert raw.ask(proxy.url, "/health").status == 200


def test_bad_values_are_told_all_together_by_the_variables_names() -> None:
    bad = {
        "OPENAI_BASE_URL": "api.venice.ai",
        "PROXY_PATH_PREFIX": "a b",
        "TIMEOUT": "-1",
        "MAX_RETRIES": "many",
        "BASE_RETRY_DELAY": "-0.5",
        "RATE_LIMIT_WAIT": "soon",
        "PORT": "abc",
    }
    with (
        pytest.raises(AssertionError, match="ended at once with 1") as caught,
        Daemon("--preset", "venice", env=bad, listen=()),
    ):
        """Never."""
    said = str(caught.value)
    for variable, value in bad.items():
        assert re.search(rf"environment {variable}: .*{re.escape(value)}", said), f"{variable} in {said}"
    assert "Traceback" not in said


def test_a_port_that_is_none() -> None:
    for port in ("65536", "-1", "80.5", "0x50"):
        with (
            pytest.raises(AssertionError, match=r"environment PORT: .*65535"),
            Daemon("--preset", "venice", env={"PORT": port}, listen=()),
        ):
            """Never."""

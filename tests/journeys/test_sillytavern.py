"""SillyTavern's users: their middleware's own file, untouched, and what it has promised them."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flaky
import openai
import pytest
import raw
from daemon import Daemon
from flaky import CHAT, DONE, HELLO, ROLE, STOP, Flaky, Step, answer, openai_error, stream, wait

PRINTED = """\
target_proxy:
  url: "https://your-target-proxy.com/proxy/your-service/chat/completions"
  timeout: 30

error_handling:
  # HTTP status codes that should trigger retries (server errors and transient client errors)
  retry_codes: [429, 502, 503, 504, 505, 507, 508, 511, 408, 409, 410, 423, 424, 425, 426, 428, 431, 451]
  
  # HTTP status codes that should fail immediately (permanent client errors)
  fail_codes: [400, 401, 403, 405, 406, 407, 411, 412, 413, 414, 415, 416, 417, 418, 421, 422]
  
  # HTTP status codes that might be retryable depending on context (conditional retry)
  conditional_retry_codes: [404, 411, 412, 413, 414, 416, 417, 418, 421, 423, 424, 425, 426, 428, 431, 451]
  
  # Retry settings
  max_retries: 10  # Increased from default 3 for better reliability
  base_delay: 1
  max_delay: 60
  
  # Conditional retry settings
  conditional_retry_enabled: true
  conditional_retry_max_attempts: 2
  conditional_retry_delay_multiplier: 0.5



server:
  host: "0.0.0.0"
  port: 8765  # Default port for SillyTavern proxy
  debug: false

logging:
  enabled: true
  folder: "logs"
  include_request_data: true
  include_response_data: true
  include_headers: true
  include_timing: true

error_logging:
  enabled: true
  folder: "logs/errors"
  include_stack_traces: true
  include_request_context: true
  include_timing: true
  max_file_size_mb: 10
  max_files: 100
"""  # noqa: W293
"""The file as the middleware's manual prints it, white space and all."""

FAST = {"base_delay: 1": "base_delay: 0.02", "max_delay: 60": "max_delay: 0.05"}
KEY = "sk-a-key-of-sillytavern-0123456789"
ASK: Any = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
FIELDS = {"Authorization": f"Bearer {KEY}", "User-Agent": "SillyTavern/1.0"}
MODELS = {"object": "list", "data": [{"id": "a-model", "object": "model"}]}
CALL = {
    **CHAT,
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "call_1", "type": "function", "function": {"name": "roll", "arguments": "{}"}}
                ],
            },
            "finish_reason": "tool_calls",
        }
    ],
}


def written(folder: Path, url: str, changes: dict[str, str] | None = None, more: str = "") -> Path:
    """The printed file in *folder*, with the test's own target and nothing changed but *changes*."""
    text = PRINTED.replace("https://your-target-proxy.com", url)
    for old, new in (changes or {}).items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    file = folder / "config.yaml"
    file.write_text(text + more)
    return file


@pytest.fixture(scope="module")
def upstream() -> Iterator[Flaky]:
    with flaky.flaky() as made:
        yield made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sillytavern")


@pytest.fixture(scope="module")
def proxy(upstream: Flaky, folder: Path) -> Iterator[Daemon]:
    with Daemon("--config", str(written(folder, upstream.url))) as daemon:
        yield daemon


def client(proxy: Daemon, base: str = "") -> openai.OpenAI:
    return openai.OpenAI(base_url=proxy.url + base, api_key=KEY, max_retries=0)


def chat(url: str, path: str = "/chat/completions", **more: object) -> raw.Answer:
    return raw.ask(url, path, FIELDS, {**ASK, **more})


# What is asked for arrives where the file says.


@pytest.mark.parametrize("path", ["/chat/completions", "/v1/chat/completions"])
def test_a_chat_arrives_at_the_url_of_the_file(path: str, proxy: Daemon, upstream: Flaky) -> None:
    upstream.play(answer(CHAT))
    body = json.dumps(ASK, indent=1).encode()
    got = raw.ask(proxy.url, path, FIELDS, body)
    assert (got.status, got.json) == (200, CHAT)
    (request,) = upstream.requests
    assert request.line == "POST /proxy/your-service/chat/completions HTTP/1.1"
    assert request.body == body
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["user-agent"] == "SillyTavern/1.0"
    assert request.headers["host"] == f"127.0.0.1:{upstream.port}"


@pytest.mark.parametrize("path", ["/models", "/v1/models"])
def test_models_are_asked_for_beside_it(path: str, proxy: Daemon, upstream: Flaky) -> None:
    upstream.play(answer(MODELS))
    got = raw.ask(proxy.url, path, FIELDS)
    assert (got.status, got.json) == (200, MODELS)
    assert upstream.requests[0].line == "GET /proxy/your-service/models HTTP/1.1"


def test_models_that_are_missing_are_not_made_up(proxy: Daemon, upstream: Flaky) -> None:
    upstream.play(openai_error("403 Forbidden", "no list for you"))
    got = raw.ask(proxy.url, "/models", FIELDS)
    assert (got.status, got.error["message"]) == (403, "no list for you")


@pytest.mark.parametrize("base", ["", "/v1"])
def test_streams_stream(base: str, proxy: Daemon, upstream: Flaky) -> None:
    upstream.play(stream(ROLE, HELLO, STOP, DONE))
    chunks = list(client(proxy, base).chat.completions.create(**ASK, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello."
    assert len(upstream.requests) == 1


def test_the_first_words_of_a_stream_come_before_its_last(proxy: Daemon, upstream: Flaky) -> None:
    heard = threading.Event()
    in_time: list[bool] = []
    waiting: Step = lambda _: in_time.append(heard.wait(10))  # noqa: E731
    upstream.play([*stream(ROLE, HELLO)[:-1], waiting, *stream(STOP, DONE)[1:]])
    for chunk in client(proxy).chat.completions.create(**ASK, stream=True):
        if chunk.choices[0].delta.content == "Hello.":
            heard.set()
    assert in_time == [True]


def test_a_tool_call_without_content_is_an_answer(proxy: Daemon, upstream: Flaky) -> None:
    upstream.play(answer(CALL))
    got = client(proxy).chat.completions.create(**ASK)
    assert got.choices[0].message.content is None
    assert got.choices[0].message.tool_calls is not None
    assert got.choices[0].message.tool_calls[0].id == "call_1"
    assert len(upstream.requests) == 1


# Failures, with the delays of the file itself.


def test_503_twice_and_then_an_answer_is_one_answer(proxy: Daemon, upstream: Flaky) -> None:
    broken = openai_error("503 Service Unavailable", "sorry")
    upstream.play(broken, broken, answer(CHAT))
    got = client(proxy).chat.completions.create(**ASK)
    assert got.choices[0].message.content == "Hello."
    first, second, third = upstream.requests
    # A second, then two, a quarter more or less.
    assert second.at - first.at >= 0.75
    assert third.at - second.at >= 1.5
    proxy.wait_for(r"target unavailable \(503\), trying again in \d\.\d s \(2 of 10\)")


@pytest.mark.parametrize("status", [400, 401, 403, 422])
def test_what_fails_for_good_is_the_upstreams_own_answer(status: int, proxy: Daemon, upstream: Flaky) -> None:
    error = {"error": {"message": "a matter of the request", "type": "x", "code": "y", "more": [1, None]}}
    upstream.play(answer(error, f"{status} Whatever It Is", X_Request_Id="req_1", Retry_After="7"))
    got = chat(proxy.url)
    assert (got.status, got.json) == (status, error)
    assert (got.headers["x-request-id"], got.headers["retry-after"]) == ("req_1", "7")
    assert not any(name.startswith("x-llmproxyd") for name in got.headers)
    assert len(upstream.requests) == 1


def test_a_key_that_is_refused_is_so_told_by_the_sdk(proxy: Daemon, upstream: Flaky) -> None:
    upstream.play(openai_error("401 Unauthorized", "Incorrect API key provided."))
    with pytest.raises(openai.AuthenticationError, match="Incorrect API key"):
        client(proxy).chat.completions.create(**ASK)


def test_404_for_a_chat_is_tried_once_more_and_a_list_of_models_twice(proxy: Daemon, upstream: Flaky) -> None:
    upstream.play(openai_error("404 Not Found", "no such model"))
    assert chat(proxy.url).status == 404
    assert len(upstream.requests) == 2
    upstream.play(openai_error("404 Not Found", "not yet"))
    assert raw.ask(proxy.url, "/models", FIELDS).status == 404
    assert len(upstream.requests) == 3


# With shorter delays.


def test_a_502_that_stays_is_tried_ten_times_and_then_handed_on(upstream: Flaky, tmp_path: Path) -> None:
    upstream.play(answer({"error": {"message": "bad gateway there"}}, "502 Bad Gateway", X_From="there"))
    with Daemon("--config", str(written(tmp_path, upstream.url, FAST))) as proxy:
        got = chat(proxy.url)
        assert (got.status, got.error["message"]) == (502, "bad gateway there")
        assert got.headers["x-from"] == "there"
        assert "x-llmproxyd-error" not in got.headers
        assert len(upstream.requests) == 11
        assert len({request.body for request in upstream.requests}) == 1


def test_five_failures_open_the_breaker_and_only_that(upstream: Flaky, tmp_path: Path) -> None:
    changes = {**FAST, "max_retries: 10": "max_retries: 1"}
    upstream.play(openai_error("503 Service Unavailable", "sorry"))
    with Daemon("--config", str(written(tmp_path, upstream.url, changes))) as proxy:
        for _ in range(5):
            assert chat(proxy.url).status == 503
        assert len(upstream.requests) == 10
        got = chat(proxy.url)
        assert (got.status, got.error["code"]) == (503, "circuit_open")
        assert 0 < int(got.headers["retry-after"]) <= 60
        assert len(upstream.requests) == 10
        (breaker,) = raw.ask(proxy.url, "/health/detailed").json["breakers"]
        assert (breaker["name"], breaker["state"]) == ("target", "open")
        assert 0 < breaker["left"] <= 60
        assert raw.ask(proxy.url, "/health").json["status"] == "healthy"
        proxy.stop()
    (opened,) = (tmp_path / "logs" / "errors").glob("circuit_open_*.log")
    assert '"state": "open"' in opened.read_text()


def test_refusals_of_the_upstream_do_not_open_the_breaker(upstream: Flaky, tmp_path: Path) -> None:
    upstream.play(openai_error("401 Unauthorized", "no"))
    with Daemon("--config", str(written(tmp_path, upstream.url, FAST))) as proxy:
        assert {chat(proxy.url).status for _ in range(7)} == {401}
        upstream.play(openai_error("429 Too Many Requests", "slow"))
        assert {chat(proxy.url).status for _ in range(2)} == {429}
        upstream.play(answer(CHAT))
        assert chat(proxy.url).status == 200


def test_an_answer_that_does_not_begin_is_a_504(upstream: Flaky, tmp_path: Path) -> None:
    upstream.play([wait(4), *answer(CHAT)])
    file = written(tmp_path, upstream.url, {"timeout: 30": "timeout: 1"})
    with Daemon("--config", str(file)) as proxy:
        got = chat(proxy.url)
        assert (got.status, got.error["code"]) == (504, "headers_timeout")
        assert (got.headers["x-llmproxyd-error"], got.headers["x-llmproxyd-code"]) == (
            "upstream",
            "headers_timeout",
        )
        upstream.play([*stream(ROLE, HELLO)[:-1], wait(4)])
        with pytest.raises(openai.APIError) as caught:
            list(client(proxy).chat.completions.create(**ASK, stream=True))
        assert caught.value.code == "idle_timeout"


def test_fields_of_the_target_are_sent(upstream: Flaky, tmp_path: Path) -> None:
    upstream.play(answer(CHAT))
    headers = 'timeout: 30\n  headers:\n    X-Custom: "a value"\n    User-Agent: mine/1\n'
    file = written(tmp_path, upstream.url, {"timeout: 30\n": headers})
    with Daemon("--config", str(file)) as proxy:
        assert chat(proxy.url).status == 200
        assert upstream.requests[0].headers["x-custom"] == "a value"
        assert upstream.requests[0].headers["user-agent"] == "mine/1"
        assert upstream.requests[0].headers["authorization"] == f"Bearer {KEY}"


# What is on record.


def section(text: str, title: str) -> str:
    """What stands below *title* in a file of the logs."""
    found = re.search(
        rf"^-{{40}}\n{re.escape(title)}:\n-{{40}}\n(.*?)\n\n(?:-{{40}}|={{80}})\n", text, re.S | re.M
    )
    assert found, f"no section {title} in:\n{text}"
    return found.group(1)


def test_a_request_is_one_file_with_the_middlewares_sections(upstream: Flaky, tmp_path: Path) -> None:
    broken = answer({"error": {"message": "overloaded"}}, "503 Service Unavailable", Server="nginx")
    upstream.play(broken, answer(CHAT))
    with Daemon("--config", str(written(tmp_path, upstream.url, FAST))) as proxy:
        assert chat(proxy.url).status == 200
        proxy.stop()
    (file,) = (tmp_path / "logs").glob("*.log")
    assert re.fullmatch(r"\d{8}_\d{6}_\d{3}_[\w.-]+\.log", file.name)
    text = file.read_text()
    lines = text.splitlines()
    assert lines[0] == lines[2] == "=" * 80
    assert re.fullmatch(r"UNIFIED REQUEST LOG - \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}", lines[1])
    assert re.fullmatch(r"Request ID: [\w-]+", lines[3])
    assert lines[4] == "Endpoint: /chat/completions"
    assert re.fullmatch(r"Timestamp: \S+T\S+", lines[5])
    assert re.fullmatch(r"Start Time: \d+\.\d{6}", lines[6])
    headers = section(text, "REQUEST HEADERS")
    assert "Authorization: Bearer [redacted]" in headers
    assert "User-Agent: SillyTavern/1.0" in headers
    assert json.loads(section(text, "REQUEST DATA")) == ASK
    assert json.loads(section(text, "FINAL RESPONSE DATA")) == CHAT
    assert re.search(r"Total Duration: \d+\.\d{3} seconds", section(text, "TIMING INFORMATION"))
    order = [
        "REQUEST HEADERS:",
        "REQUEST DATA:",
        "FINAL RESPONSE DATA:",
        "TIMING INFORMATION:",
        "LOG COMPLETE",
    ]
    places = [text.index(title) for title in order]
    assert places == sorted(places)
    assert KEY not in text


def test_a_failed_attempt_is_one_file_with_the_middlewares_members(upstream: Flaky, tmp_path: Path) -> None:
    broken = answer({"error": {"message": "overloaded"}}, "503 Service Unavailable", Server="nginx")
    upstream.play(broken, broken, answer(CHAT))
    with Daemon("--config", str(written(tmp_path, upstream.url, FAST))) as proxy:
        assert chat(proxy.url).status == 200
        proxy.stop()
    files = sorted((tmp_path / "logs" / "errors").iterdir(), key=lambda one: one.stat().st_mtime_ns)
    assert len(files) == 2
    for number, file in enumerate(files, 1):
        assert re.fullmatch(r"503_\d{8}_\d{6}_\d{3}(_\d+)?\.log", file.name)
        text = file.read_text()
        assert re.search(
            r"^={80}\nERROR LOG - \S+\n={80}\nError Code: 503\nFile: " + re.escape(file.name), text
        )
        assert re.search(rf"-{{40}}\nRETRY ATTEMPT #{number}\nRetry Delay: \d\.\d\d seconds\n-{{40}}", text)
        details = json.loads(text.partition("ERROR DETAILS:\n" + "-" * 40)[2])
        assert details["error_type"] == "HTTPResponse"
        assert details["status_code"] == 503
        assert details["status_text"] == "Service Unavailable"
        assert details["url"] == f"{upstream.url}/proxy/your-service/chat/completions"
        assert details["headers"]["Server"] == "nginx"
        assert json.loads(details["response_text"]) == {"error": {"message": "overloaded"}}
        assert details["context"]["target_url"] == details["url"]
        assert details["retry_attempt"] == number
        assert details["retry_delay"] > 0
        assert details["timestamp"].startswith("20")
        assert KEY not in text


def test_logs_errors_counts_what_the_folder_holds(upstream: Flaky, tmp_path: Path) -> None:
    upstream.play(
        openai_error("503 Service Unavailable", "sorry"), openai_error("401 Unauthorized", "no"), answer(CHAT)
    )
    with Daemon("--config", str(written(tmp_path, upstream.url, FAST))) as proxy:
        assert raw.ask(proxy.url, "/logs/errors").json["total_files"] == 0
        assert chat(proxy.url).status == 401
        deadline = time.monotonic() + 10
        folder = tmp_path / "logs" / "errors"
        # The second file is there before all of it is written.
        while (told := raw.ask(proxy.url, "/logs/errors").json)["total_files"] < 2 or told[
            "total_size"
        ] != sum(one.stat().st_size for one in folder.iterdir()):
            assert time.monotonic() < deadline, told
            time.sleep(0.02)
        assert told["by_code"] == {"503": 1, "401": 1}
        files = list(folder.iterdir())
        assert {one["name"] for one in told["files"]} == {one.name for one in files}
        assert told["folder"] == str(tmp_path / "logs" / "errors")
        assert told["enabled"] is True


# The pages.


def test_health_is_healthy(proxy: Daemon, upstream: Flaky) -> None:
    told = raw.ask(proxy.url, "/health").json
    assert told["status"] == "healthy"
    assert told["target"] == f"{upstream.url}/proxy/your-service"


def test_health_in_detail_shows_breaker_and_configuration(
    proxy: Daemon, upstream: Flaky, folder: Path
) -> None:
    upstream.play(answer(CHAT))
    assert chat(proxy.url).status == 200
    told = raw.ask(proxy.url, "/health/detailed").json
    assert told["status"] == "healthy"
    (breaker,) = told["breakers"]
    assert (breaker["name"], breaker["state"]) == ("target", "closed")
    configuration = told["configuration"]
    policy = configuration["resilience"]["default"]
    assert policy["retry"]["max_retries"] == 10
    assert policy["retry"]["retry_codes"][:3] == [429, 502, 503]
    assert policy["breaker"]["failure_threshold"] == 5
    assert policy["breaker"]["recovery_timeout"] in ("60s", "1m")
    assert configuration["error_logging"]["enabled"] is True
    assert configuration["error_logging"]["folder"] == str(folder / "logs" / "errors")


# Files of later versions, and broken ones.

LATER = """
hard_stop_conditions:
  enabled: true
  rules:
    - pattern: "prompt was blocked"
      description: "Blocked"
      user_message: "Your prompt was blocked; change it."
      colour: red

response_parsing:
  enabled: true
  rules:
    - pattern: "model is overloaded"
      original_code: 200
      new_code: 503
      description: "Overloaded under a 200"

regex_replacement:
  enabled: true
  rules:
    - pattern: "a"
      replacement: "b"
"""


def test_a_file_of_a_later_version_starts_and_says_what_it_leaves_out(
    upstream: Flaky, tmp_path: Path
) -> None:
    file = written(tmp_path, upstream.url, FAST, LATER)
    line = {text: number for number, text in enumerate(file.read_text().splitlines(), 1)}
    with Daemon("--config", str(file)) as proxy:
        place = line["regex_replacement:"]
        assert f"WARNING: {file}:{place}: regex_replacement: ignored" in proxy.output
        place = line["      colour: red"]
        assert f"WARNING: {file}:{place}: hard_stop_conditions.rules[0].colour: ignored" in proxy.output
        assert proxy.output.count("WARNING:") == 2
        upstream.play(answer({"error": {"message": "The model is overloaded."}}), answer(CHAT))
        assert chat(proxy.url).json == CHAT
        assert len(upstream.requests) == 2
        upstream.play(answer({"error": {"message": "prompt was blocked"}}, "503 Service Unavailable"))
        got = chat(proxy.url)
        assert (got.status, got.error["message"]) == (503, "Your prompt was blocked; change it.")
        assert got.json["original_response"] == {"error": {"message": "prompt was blocked"}}
        assert len(upstream.requests) == 1
        upstream.play(answer({"error": {"message": "prompt was blocked"}}))
        assert chat(proxy.url).status == 502


@pytest.mark.parametrize(
    ("changes", "more", "place", "said"),
    [
        ({"timeout: 30": "timeout: [30"}, "", ":5:15", "not YAML"),
        ({}, "\tlogging: x\n", ":48:1", "not YAML"),
        ({"max_retries: 10 ": "max_retries: ten "}, "", ":16", "error_handling.max_retries"),
        ({"timeout: 30": "timeout: -1"}, "", ":3", "target_proxy.timeout"),
        ({}, "logging: {enabled: false}\n", ":48", "logging"),
    ],
    ids=["bracket", "tab", "word", "negative", "twice"],
)
def test_a_broken_file_starts_nothing(
    changes: dict[str, str], more: str, place: str, said: str, tmp_path: Path
) -> None:
    file = written(tmp_path, "http://127.0.0.1:1", changes, more)
    with pytest.raises(AssertionError, match="ended at once with 1") as caught, Daemon("--config", str(file)):
        """Never."""
    output = str(caught.value)
    assert re.search(re.escape(str(file)) + place + r": .*" + re.escape(said), output), output
    assert "Traceback" not in output
    assert "Listening" not in output
    assert not (tmp_path / "logs").exists()

"""Rehearsed rate limits on real sockets: what is told of them, who has to wait, what is charged."""

from __future__ import annotations

import gzip
import json
from datetime import datetime
from typing import Any

import pytest
import pytest_twisted
from bench import Bench
from wireclient import Answer, Client, get, pause, request, until

from llmproxyd.faults.limits import Each, Limit
from llmproxyd.faults.rules import Always, At, Breakage, Manner, Match, Rule, Spot
from llmproxyd.providers.base import ErrorKind
from llmproxyd.testing.proxy import ProxyUnderTest
from llmproxyd.testing.upstream import (
    LAST_CHUNK,
    FakeUpstream,
    Send,
    chunk,
    encode,
    event,
    json_answer,
    stream_head,
)

test = pytest_twisted.ensureDeferred

CHAT = b"/v1/chat/completions"
BODY: dict[str, Any] = {
    "id": "x",
    "choices": [{"message": {"content": "Hello there"}}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30},
}
THEIRS = (
    b"x-ratelimit-limit-requests: 10000",
    b"X-RateLimit-Remaining-Requests: 9999",
    b"x-ratelimit-remaining-tokens: 77",
    b"x-request-id: req_theirs",
)
PLAIN = Send(json_answer(BODY, *THEIRS))
SAID = [event(b'{"choices":[{"index":0,"delta":{"content":"%s"}}]}' % (b"word" * 10)) for _ in range(3)]


def limit(proxy: ProxyUnderTest, **members: Any) -> None:
    proxy.daemon.works.engine.limits.add(Limit(name="small", **members))


def ask(body: object = None, *fields: bytes, path: bytes = CHAT) -> bytes:
    data = encode({"model": "gpt-4o", "messages": []} if body is None else body)
    return request(path, *fields, body=data)


async def asked(client: Client, *fields: bytes) -> Answer:
    return await client.ask(ask(None, *fields))


def told(answer: Answer) -> dict[str, str]:
    """The fields about limits."""
    return {
        name.lower().decode(): value.decode()
        for name, value in answer.headers
        if b"ratelimit" in name.lower()
    }


def tokens_left(proxy: ProxyUnderTest) -> int:
    """Of the one account."""
    (working,) = proxy.daemon.works.engine.limits.working
    (account,) = working.accounts.values()
    return round(account.buckets["tokens"].level)


@test
async def test_answers_count_down_in_place_of_the_upstreams_own_fields(
    bench: Bench, upstream: FakeUpstream
) -> None:
    upstream.scripts = [[PLAIN]] * 3
    proxy = bench.proxy()
    limit(proxy, rpm=5, tpm=10_000_000)
    client = await bench.client(proxy)
    left = []
    for _ in range(3):
        answer = await asked(client)
        assert (answer.status, answer.body) == (200, encode(BODY))
        assert answer.get(b"x-request-id") == b"req_theirs"
        assert answer.get(b"x-llmproxyd-error") is None
        fields = told(answer)
        assert set(fields) == {
            f"x-ratelimit-{what}-{kind}"
            for what in ("limit", "remaining", "reset")
            for kind in ("requests", "tokens")
        }
        assert fields["x-ratelimit-limit-requests"] == "5"
        assert fields["x-ratelimit-reset-requests"].endswith("s")
        left.append(fields["x-ratelimit-remaining-requests"])
    assert left == ["4", "3", "2"]


@test
async def test_over_the_limit_is_the_providers_429_and_nothing_is_sent_on(
    bench: Bench, upstream: FakeUpstream
) -> None:
    upstream.scripts = [[PLAIN]] * 2
    proxy = bench.proxy()
    limit(proxy, rpm=2)
    client = await bench.client(proxy)
    assert [(await asked(client)).status for _ in range(2)] == [200, 200]
    answer = await asked(client)
    assert answer.status == 429
    assert answer.get(b"x-llmproxyd-error") == b"injected"
    assert answer.get(b"x-llmproxyd-code") == b"rate_limit"
    assert int(answer.get(b"retry-after") or 0) in range(25, 31)
    error = answer.json["error"]
    assert (error["type"], error["code"]) == ("requests", "rate_limit_exceeded")
    assert "on requests per min (RPM): Limit 2, Used 2, Requested 1. Please try again in" in error["message"]
    fields = told(answer)
    assert fields["x-ratelimit-remaining-requests"] == "0"
    assert set(fields) == {f"x-ratelimit-{what}-requests" for what in ("limit", "remaining", "reset")}
    assert len(upstream.requests) == 2
    await until(lambda: len(proxy.finished) == 3, "all to end")
    assert [(one.fault, one.failed, one.status) for one in proxy.finished][-1] == ("rate_limit", False, 429)
    (working,) = proxy.daemon.works.engine.limits.working
    assert (working.passed, working.refused) == (2, 1)


@test
async def test_who_waits_exactly_as_long_as_told_gets_through(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[PLAIN]] * 400
    proxy = bench.proxy()
    limit(proxy, rpm=120)
    client = await bench.client(proxy)
    for _ in range(300):
        answer = await asked(client)
        if answer.status == 429:
            break
    assert answer.status == 429
    exact = answer.get(b"retry-after-ms")
    seconds = int(exact) / 1000 if exact is not None else int(answer.get(b"retry-after") or 0)
    assert 0 < seconds <= 0.5
    await pause(seconds)
    assert (await asked(client)).status == 200


@test
async def test_anthropic_and_gemini_have_their_own_words(bench: Bench, upstream: FakeUpstream) -> None:
    message = {"type": "message", "content": [], "usage": {"input_tokens": 1, "output_tokens": 2}}
    theirs = (b"anthropic-ratelimit-tokens-remaining: 5", b"request-id: req_theirs")
    upstream.scripts = [[Send(json_answer(message, *theirs))], [Send(json_answer({"candidates": []}))]]
    proxy = bench.proxy()
    limit(proxy, rpm=1)
    client = await bench.client(proxy)
    version = b"anthropic-version: 2023-06-01"
    answer = await client.ask(
        ask({"model": "claude-x"}, version, b"x-api-key: sk-ant-1", path=b"/v1/messages")
    )
    fields = told(answer)
    assert set(fields) == {f"anthropic-ratelimit-requests-{what}" for what in ("limit", "remaining", "reset")}
    datetime.strptime(fields["anthropic-ratelimit-requests-reset"], "%Y-%m-%dT%H:%M:%SZ")
    answer = await client.ask(
        ask({"model": "claude-x"}, version, b"x-api-key: sk-ant-1", path=b"/v1/messages")
    )
    assert (answer.status, answer.json["error"]["type"]) == (429, "rate_limit_error")
    assert told(answer)["anthropic-ratelimit-requests-remaining"] == "0"
    assert int(answer.get(b"retry-after") or 0) in range(50, 61)
    path = b"/v1beta/models/gemini-2.0-flash:generateContent"
    key = b"x-goog-api-key: g"
    answer = await client.ask(ask({"contents": []}, key, path=path))
    assert (answer.status, told(answer)) == (200, {})
    answer = await client.ask(ask({"contents": []}, key, path=path))
    assert (answer.status, told(answer)) == (429, {})
    details = answer.json["error"]["details"]
    (delay,) = [one["retryDelay"] for one in details if one["@type"].endswith("RetryInfo")]
    assert 50 < float(delay.removesuffix("s")) <= 60


@test
async def test_only_inference_is_limited(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Send(json_answer({"data": []}, *THEIRS))]] * 3
    proxy = bench.proxy()
    limit(proxy, rpm=1)
    client = await bench.client(proxy)
    for _ in range(3):
        answer = await client.ask(get(b"/v1/models"))
        assert answer.status == 200
        assert told(answer)["x-ratelimit-remaining-tokens"] == "77"


@test
async def test_each_key_has_its_own_account(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[PLAIN]] * 4
    proxy = bench.proxy()
    limit(proxy, rpm=1)
    client = await bench.client(proxy)
    one, other = b"authorization: Bearer sk-one", b"authorization: Bearer sk-other"
    assert [(await asked(client, key)).status for key in (one, other, one, other)] == [200, 200, 429, 429]
    assert "sk-one" not in repr(proxy.daemon.works.engine.limits.working)
    proxy.daemon.works.engine.limits.clear()
    limit(proxy, rpm=1, key=Each.ALL)
    assert [(await asked(client, key)).status for key in (one, other)] == [200, 429]


@test
async def test_a_limit_for_a_model_looks_into_the_body(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[PLAIN]] * 3
    proxy = bench.proxy()
    limit(proxy, rpm=1, match=Match(model="gpt-4*"))
    client = await bench.client(proxy)
    models = ("gpt-4o", "o3", "gpt-4o", "o3")
    assert [(await client.ask(ask({"model": model}))).status for model in models] == [200, 200, 429, 200]


# Tokens.


@pytest.mark.parametrize("zipped", [False, True])
@test
async def test_tokens_are_those_that_the_answer_tells(
    bench: Bench, upstream: FakeUpstream, zipped: bool
) -> None:
    coded = gzip.compress(encode(BODY))
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\n"
    whole = head + b"content-length: %d\r\n\r\n" % len(coded) + coded
    upstream.scripts = [[Send(whole) if zipped else PLAIN]]
    proxy = bench.proxy()
    limit(proxy, tpm=100_000)
    client = await bench.client(proxy)
    answer = await asked(client)
    assert int(told(answer)["x-ratelimit-remaining-tokens"]) > 99_900
    await until(lambda: bool(proxy.finished), "the end")
    assert 100_000 - 30 <= tokens_left(proxy) <= 100_000


@test
async def test_a_stream_without_counts_is_charged_by_what_was_said(
    bench: Bench, upstream: FakeUpstream
) -> None:
    script = [
        Send(stream_head()),
        *(Send(chunk(one)) for one in SAID),
        Send(chunk(event(b"[DONE]")) + LAST_CHUNK),
    ]
    upstream.scripts = [script]
    proxy = bench.proxy()
    # So few flow in that the time which the test takes hardly matters.
    limit(proxy, tpm=100)
    client = await bench.client(proxy)
    answer = await client.ask(request(CHAT, body=b"x" * 240))
    assert (answer.status, answer.body.count(b"word")) == (200, 30)
    # A fourth of the bytes of the question is taken at once.
    assert 40 <= int(told(answer)["x-ratelimit-remaining-tokens"]) < 70
    await until(lambda: bool(proxy.finished), "the end")
    spent = 100 - tokens_left(proxy)
    assert 60 < spent <= 60 + 30


@test
async def test_an_answer_that_failed_costs_no_tokens(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Send(json_answer({"error": {"message": "x" * 4000}}, status=b"500 Oops"))]]
    proxy = bench.proxy()
    limit(proxy, tpm=1000)
    client = await bench.client(proxy)
    answer = await client.ask(ask({"model": "gpt-4o", "messages": "x" * 2000}))
    assert answer.status == 500
    await until(lambda: bool(proxy.finished), "the end")
    assert tokens_left(proxy) == 1000


@test
async def test_tokens_run_out_in_the_providers_words(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[PLAIN]] * 4
    proxy = bench.proxy()
    limit(proxy, tpm=25)
    client = await bench.client(proxy)
    assert (await asked(client)).status == 200
    await until(lambda: len(proxy.finished) == 1, "the end")
    answer = await asked(client)
    assert answer.status == 429
    error = answer.json["error"]
    assert error["type"] == "tokens"
    assert "on tokens per min (TPM): Limit 25, Used 25, Requested" in error["message"]
    assert told(answer)["x-ratelimit-remaining-tokens"] == "0"


# Beside other things.


@test
async def test_an_upstreams_own_429_keeps_its_fields(bench: Bench, upstream: FakeUpstream) -> None:
    theirs = (b"retry-after: 7", b"x-ratelimit-remaining-requests: 0")
    upstream.scripts = [[Send(json_answer({"error": {}}, *theirs, status=b"429 Too Many Requests"))]]
    proxy = bench.proxy()
    limit(proxy, rpm=50)
    client = await bench.client(proxy)
    answer = await asked(client)
    assert (answer.status, answer.get(b"retry-after")) == (429, b"7")
    assert told(answer) == {"x-ratelimit-remaining-requests": "0"}


@test
async def test_faults_come_behind_limits_and_tell_of_them(bench: Bench, upstream: FakeUpstream) -> None:
    proxy = bench.proxy()
    limit(proxy, rpm=2)
    proxy.daemon.works.engine.set_mode(Rule(name="mode", kind=ErrorKind.OVERLOADED, when=Always()))
    client = await bench.client(proxy)
    answers = [await asked(client) for _ in range(3)]
    assert [one.status for one in answers] == [503, 503, 429]
    assert [told(one)["x-ratelimit-remaining-requests"] for one in answers] == ["1", "0", "0"]


@test
async def test_what_the_proxy_says_itself_tells_of_no_limit(bench: Bench, upstream: FakeUpstream) -> None:
    proxy = bench.proxy(base_url="http://127.0.0.1:9")
    limit(proxy, rpm=2, tpm=1000)
    client = await bench.client(proxy)
    answer = await asked(client)
    assert (answer.status, told(answer)) == (502, {})
    await until(lambda: bool(proxy.finished), "the end")
    assert tokens_left(proxy) == 1000


@test
async def test_retries_behind_a_limit_are_charged_once(bench: Bench, upstream: FakeUpstream) -> None:
    bad = Send(json_answer({"error": {}}, status=b"503 Busy"))
    upstream.scripts = [[bad], [bad], [PLAIN]]
    proxy = bench.proxy(resilience={"default": {"retry": {"max_retries": 3, "base_delay": "10ms"}}})
    limit(proxy, rpm=50)
    client = await bench.client(proxy)
    answer = await asked(client)
    assert (answer.status, len(upstream.requests)) == (200, 3)
    assert told(answer)["x-ratelimit-remaining-requests"] == "49"
    assert json.loads(answer.body) == BODY


@test
async def test_a_limit_of_the_file_holds_from_the_start(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[PLAIN]] * 2
    proxy = bench.proxy(faults={"limits": [{"name": "small", "rpm": 1}]})
    client = await bench.client(proxy)
    assert [(await asked(client)).status for _ in range(2)] == [200, 429]


@test
async def test_an_answer_that_breaks_tells_of_limits_and_is_charged(
    bench: Bench, upstream: FakeUpstream
) -> None:
    upstream.scripts = [[Send(stream_head() + b"".join(map(chunk, SAID)) + LAST_CHUNK)]]
    proxy = bench.proxy()
    limit(proxy, rpm=9, tpm=100_000)
    at = At(Spot.EVENTS, 1)
    cut = Rule(name="mode", kind=Breakage.CUT, when=Always(), manner=Manner(at=at))
    proxy.daemon.works.engine.set_mode(cut)
    client = await bench.client(proxy)
    answer = await asked(client)
    assert (answer.body, answer.whole) == (SAID[0], False)
    assert told(answer)["x-ratelimit-remaining-requests"] == "8"
    await until(lambda: bool(proxy.finished), "the end")
    assert proxy.finished[0].fault == "cut"

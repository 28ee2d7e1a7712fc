"""What an operator is told of requests that really passed: attempts, ids, breakers, the cache."""

from __future__ import annotations

import pytest_twisted
from bench import Bench
from test_attempts import ask, failed, policy, streamed, works

from llmproxyd.language.filters import parse_filter
from llmproxyd.observe.explained import explain_text
from llmproxyd.observe.journal import Journal
from llmproxyd.testing.proxy import ProxyUnderTest
from llmproxyd.testing.upstream import FakeUpstream, Send, json_answer


def journal_of(proxy: ProxyUnderTest) -> Journal:
    """What *proxy* knows of its requests."""
    return proxy.daemon.works.journal


@pytest_twisted.ensureDeferred
async def test_each_attempt_is_known_by_what_its_upstream_called_it(
    bench: Bench, upstream: FakeUpstream
) -> None:
    upstream.scripts = [
        failed(b"503 Service Unavailable", b"X-Request-Id: req_first"),
        [Send(json_answer({"id": "x"}, b"request-id: req_second"))],
    ]
    proxy = bench.proxy(**policy())
    assert (await ask(bench, proxy)).status == 200
    journal = journal_of(proxy)
    for name in ("req_first", "req_second"):
        told = journal.explain(name)
        assert told is not None
        assert [one["upstream_id"] for one in told["attempts"]] == ["req_first", "req_second"]
        assert told["attempts"][1]["outcome"] == "200"
    text = explain_text(told)
    assert "(503) [req_first], waited 0.01 s, retry 1 of 3" in text
    assert "200 [req_second]" in text


@pytest_twisted.ensureDeferred
async def test_a_breaker_that_opened_explains_the_refusal_after_it(
    bench: Bench, upstream: FakeUpstream
) -> None:
    upstream.scripts = [failed(), works()]
    breaker = {"enabled": True, "failure_threshold": 1}
    proxy = bench.proxy(**policy(retry={"max_retries": 0}, breaker=breaker))
    assert (await ask(bench, proxy)).status == 503
    assert (await ask(bench, proxy)).status == 503
    journal = journal_of(proxy)
    [refused] = journal.recent([parse_filter("code=circuit_open")])
    told = journal.explain(refused["id"])
    assert told is not None
    assert told["attempts"] == []
    assert "closed -> open" in told["changes"][0]["what"]
    assert journal.recent([parse_filter("attempts=1"), parse_filter("status=503")])[0]["upstream"] == "openai"


@pytest_twisted.ensureDeferred
async def test_a_journal_with_bodies_tells_what_answers_used_and_that_streams_were_errors(
    bench: Bench, upstream: FakeUpstream
) -> None:
    used = {"model": "gpt-4o", "choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 5}}
    upstream.scripts = [[Send(json_answer(used))], streamed(b'{"error":{"message":"overloaded"}}')]
    proxy = bench.proxy(journal={"bodies": 400})
    assert (await ask(bench, proxy)).status == 200
    assert (await ask(bench, proxy)).status == 200
    whole, stream = journal_of(proxy).recent()
    assert whole["response_model"] == "gpt-4o"
    assert whole["usage"]["input_tokens"] == 10
    assert stream["end"] == "in_band_error"

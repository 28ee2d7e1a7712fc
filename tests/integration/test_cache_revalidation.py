"""Conditions, 304, and what stands in while the upstream is asked or fails.  RFC 9111 §4.3, RFC 5861."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from bench import reactor
from cachebench import ASK, FRESH, KEY, MODELS, CacheBench, at_rest, numbered, results, shelf_of, told
from wireclient import get, pause, until

from llmproxyd.model import Arrived, End
from llmproxyd.testing.upstream import Close, FakeUpstream, Gate, Send, Stall, answer, head

pytest_plugins = ["cachefixtures"]

TAGGED = (b"Cache-Control: public, max-age=0", b'ETag: "a"', b"X-Old: 1")
STALE = b"Cache-Control: public, max-age=0, stale-if-error=60"
MEANWHILE = b"Cache-Control: public, max-age=0, stale-while-revalidate=60"
RETRYING: dict[str, Any] = {
    "default": {"retry": {"max_retries": 1, "base_delay": "1ms", "budget": {"min_per_second": 1000}}}
}
POLICIES = [
    pytest.param({}, id="plain"),
    pytest.param(RETRYING, id="retrying"),
    pytest.param({"default": {"breaker": {"enabled": True, "failure_threshold": 100}}}, id="breaker"),
    pytest.param({"default": {"timeouts": {"total": "30s"}}}, id="deadline"),
]


def not_modified(*fields: bytes) -> Send:
    return Send(head(*fields, status=b"304 Not Modified"))


@pytest_twisted.ensureDeferred
async def test_a_clients_condition_is_answered_from_the_cache(
    cached: CacheBench, upstream: FakeUpstream
) -> None:
    numbered(upstream, b"Cache-Control: public, max-age=60", b'ETag: "a"', b"Content-Type: x/y")
    proxy = await cached.proxy()
    have = get(MODELS, KEY, b'If-None-Match: W/"a"')
    _, got, other = await cached.ask(proxy, ASK, have, get(MODELS, KEY, b'If-None-Match: "b"'))
    assert (got.status, got.body, got.get(b"etag")) == (304, b"", b'"a"')
    assert told(got).startswith(b"llmproxyd; hit; ttl=")
    assert not got.names & {b"content-type", b"content-length", b"transfer-encoding"}
    assert (other.status, other.body) == (200, b"body 1")
    assert len(upstream.requests) == 1


@pytest_twisted.ensureDeferred
async def test_a_clients_condition_goes_on_where_nothing_is_stored(
    cached: CacheBench, upstream: FakeUpstream
) -> None:
    upstream.scripts = [[not_modified(b'ETag: "z"')], [Send(answer(b"whole", *TAGGED))]]
    proxy = await cached.proxy()
    got, plain = await cached.ask(proxy, get(MODELS, KEY, b'If-None-Match: "z"'), ASK)
    assert (got.status, plain.body) == (304, b"whole")
    assert upstream.requests[0].all(b"if-none-match") == [b'"z"']
    assert upstream.requests[1].all(b"if-none-match") == []
    at_rest(proxy)


@pytest.mark.parametrize("policies", POLICIES)
@pytest_twisted.ensureDeferred
async def test_304_renews_what_is_stored(
    cached: CacheBench, upstream: FakeUpstream, policies: dict[str, Any]
) -> None:
    renewed = not_modified(b'ETag: "a"', b"Cache-Control: public, max-age=60", b"X-New: 2")
    upstream.scripts = [[Send(answer(b"whole", *TAGGED))], [renewed]]
    proxy = await cached.proxy(resilience=policies)
    first, second, third = await cached.ask(proxy, ASK, ASK, ASK)
    assert [one.status for one in (first, second, third)] == [200, 200, 200]
    assert first.body == second.body == third.body == b"whole"
    assert upstream.requests[1].all(b"if-none-match") == [b'"a"']
    assert told(second).startswith(b"llmproxyd; fwd=stale; fwd-status=304; ttl=")
    assert told(third).startswith(b"llmproxyd; hit; ttl=")
    assert (second.get(b"x-new"), third.get(b"x-new"), third.get(b"x-old")) == (b"2", b"2", b"1")
    assert len(upstream.requests) == 2
    assert results(proxy) == ["miss", "hit", "hit"]
    at_rest(proxy)


@pytest_twisted.ensureDeferred
async def test_a_client_that_has_it_gets_304_when_it_is_confirmed(
    cached: CacheBench, upstream: FakeUpstream
) -> None:
    upstream.scripts = [[Send(answer(b"whole", *TAGGED))], [not_modified(b'ETag: "a"')]]
    have = get(MODELS, KEY, b'If-None-Match: "a", "q"')
    _, got = await cached.ask(await cached.proxy(), ASK, have)
    assert (got.status, got.body) == (304, b"")
    assert upstream.requests[1].all(b"if-none-match") == [b'"a"']


@pytest.mark.parametrize("policies", POLICIES)
@pytest_twisted.ensureDeferred
async def test_304_for_something_else_is_asked_again_without_conditions(
    cached: CacheBench, upstream: FakeUpstream, policies: dict[str, Any]
) -> None:
    upstream.scripts = [
        [Send(answer(b"whole", *TAGGED))],
        [not_modified(b'ETag: "other"')],
        [Send(answer(b"new", b"Cache-Control: public, max-age=60", b'ETag: "other"'))],
    ]
    proxy = await cached.proxy(resilience=policies)
    _, second, third = await cached.ask(proxy, ASK, ASK, ASK)
    assert (second.status, second.body, third.body) == (200, b"new", b"new")
    assert upstream.requests[2].all(b"if-none-match") == []
    assert len(upstream.requests) == 3
    at_rest(proxy)


@pytest_twisted.ensureDeferred
async def test_304_that_forbids_storing_drops_it(cached: CacheBench, upstream: FakeUpstream) -> None:
    upstream.scripts = [
        [Send(answer(b"whole", *TAGGED))],
        [not_modified(b'ETag: "a"', b"Cache-Control: no-store")],
        [Send(answer(b"new", *TAGGED))],
    ]
    proxy = await cached.proxy()
    _, second, third = await cached.ask(proxy, ASK, ASK, ASK)
    assert (second.body, third.body) == (b"whole", b"new")
    assert upstream.requests[2].all(b"if-none-match") == []


@pytest.mark.parametrize("policies", POLICIES)
@pytest.mark.parametrize("status", [500, 502, 503, 504, 529])
@pytest_twisted.ensureDeferred
async def test_stale_if_error_on_a_failed_answer(
    cached_here: CacheBench, upstream: FakeUpstream, policies: dict[str, Any], status: int
) -> None:
    upstream.scripts = [
        [Send(answer(b"good", STALE))],
        [Send(answer(b'{"error":{}}', b"Content-Type: application/json", status=b"%d Bad" % status))],
    ]
    proxy = await cached_here.proxy(resilience=policies)
    _, got = await cached_here.ask(proxy, ASK, ASK)
    assert (got.status, got.body) == (200, b"good")
    assert told(got) == b"llmproxyd; fwd=stale; fwd-status=%d; ttl=-1; detail=stale-if-error" % status
    assert got.all(b"x-cache-status") == [b"hit"]
    assert results(proxy) == ["miss", "stale"]
    at_rest(proxy)


@pytest_twisted.ensureDeferred
async def test_no_stale_answer_for_an_error_of_the_clients(
    cached: CacheBench, upstream: FakeUpstream
) -> None:
    upstream.scripts = [[Send(answer(b"good", STALE))], [Send(answer(b"no", status=b"404 Not Found"))]]
    _, got = await cached.ask(await cached.proxy(), ASK, ASK)
    assert (got.status, got.body) == (404, b"no")


@pytest.mark.parametrize("policies", POLICIES)
@pytest_twisted.ensureDeferred
async def test_stale_if_error_without_an_answer(
    cached: CacheBench, upstream: FakeUpstream, policies: dict[str, Any]
) -> None:
    upstream.scripts = [[Send(answer(b"good", STALE)), Close()], [Close()]]
    proxy = await cached.proxy(resilience=policies)
    _, got = await cached.ask(proxy, ASK, ASK)
    assert (got.status, got.body) == (200, b"good")
    assert told(got).startswith(b"llmproxyd; fwd=stale; ttl=")
    assert proxy.finished[-1].failed
    await upstream._port.stopListening()
    upstream.listen(reactor)
    (got,) = await cached.ask(proxy, ASK)
    assert (got.status, got.body) == (200, b"good")
    at_rest(proxy)


@pytest.mark.parametrize(
    "policies",
    [
        pytest.param({"default": {"timeouts": {"headers": "50ms"}}}, id="headers"),
        pytest.param({"default": {"timeouts": {"total": "50ms"}}}, id="total"),
        pytest.param({"default": {"timeouts": {"headers": "50ms"}} | RETRYING["default"]}, id="retrying"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_stale_if_error_when_the_upstream_is_late(
    cached_here: CacheBench, upstream: FakeUpstream, policies: dict[str, Any]
) -> None:
    upstream.scripts = [[Send(answer(b"good", STALE))], [Stall()]]
    proxy = await cached_here.proxy(resilience=policies)
    _, got = await cached_here.ask(proxy, ASK, ASK)
    assert (got.status, got.body) == (200, b"good")
    await until(lambda: not upstream.open, "the late connection to be closed")
    at_rest(proxy)


@pytest_twisted.ensureDeferred
async def test_stale_if_error_when_the_breaker_is_open(
    cached_here: CacheBench, upstream: FakeUpstream
) -> None:
    upstream.scripts = [[Send(answer(b"good", STALE))], [Send(answer(b"bad", status=b"500 Bad"))]]
    breaker = {"breaker": {"enabled": True, "failure_threshold": 1}}
    proxy = await cached_here.proxy(resilience={"default": breaker})
    _, first, second, other = await cached_here.ask(proxy, ASK, ASK, ASK, get(MODELS + b"?2", KEY))
    assert [first.body, second.body, other.status] == [b"good", b"good", 503]
    assert len(upstream.requests) == 2


@pytest_twisted.ensureDeferred
async def test_the_client_may_ask_for_stale_if_error_itself(
    cached: CacheBench, upstream: FakeUpstream
) -> None:
    upstream.scripts = [
        [Send(answer(b"good", b"Cache-Control: public, max-age=0", b'ETag: "a"'))],
        [Send(answer(b"bad", status=b"500 Bad"))],
    ]
    proxy = await cached.proxy()
    willing = get(MODELS, KEY, b"Cache-Control: stale-if-error=60")
    _, got, plain = await cached.ask(proxy, ASK, willing, ASK)
    assert (got.body, plain.status) == (b"good", 500)


@pytest_twisted.ensureDeferred
async def test_stale_while_revalidate_answers_at_once_and_asks_behind(
    cached: CacheBench, upstream: FakeUpstream
) -> None:
    gate = Gate()
    upstream.scripts = [
        [Send(answer(b"old", MEANWHILE, b'ETag: "a"'))],
        [gate, Send(answer(b"new", b"Cache-Control: public, max-age=60"))],
    ]
    proxy = await cached.proxy()
    _, first, second = await cached.ask(proxy, ASK, ASK, ASK)
    assert first.body == second.body == b"old"
    assert told(first).startswith(b"llmproxyd; hit; ttl=-")
    await until(lambda: gate.reached, "the question behind")
    assert len(upstream.requests) == 2, "one question at a time"
    assert upstream.requests[1].all(b"if-none-match") == [b'"a"']
    gate.open()
    await until(lambda: "revalidation" in results(proxy), "the end of it")
    await cached.settled(proxy)
    (third,) = await cached.ask(proxy, ASK)
    assert third.body == b"new"
    behind = next(one for one in proxy.finished if one.cache == "revalidation")
    assert (behind.status, behind.sent, behind.end, behind.attempts) == (200, 0, End.COMPLETE, 1)
    stats = shelf_of(proxy).stats()
    assert (stats["stale"], stats["hit"], stats["revalidation"], stats["store"]) == (2, 1, 1, 2)
    arrived = [event.number for event in proxy.sink.events if isinstance(event, Arrived)]
    assert sorted(arrived) == sorted(one.number for one in proxy.finished)
    at_rest(proxy)


@pytest_twisted.ensureDeferred
async def test_revalidation_behind_is_confirmed_by_304(cached: CacheBench, upstream: FakeUpstream) -> None:
    fresh = not_modified(b'ETag: "a"', b"Cache-Control: public, max-age=60")
    upstream.scripts = [[Send(answer(b"old", MEANWHILE, b'ETag: "a"'))], [fresh]]
    proxy = await cached.proxy()
    await cached.ask(proxy, ASK, get(MODELS, KEY, b'If-None-Match: "a"'))
    await until(lambda: "revalidation" in results(proxy), "the end of it")
    await cached.settled(proxy)
    (got,) = await cached.ask(proxy, ASK)
    assert told(got).startswith(b"llmproxyd; hit; ttl=5")
    assert [one.status for one in proxy.finished if one.cache == "revalidation"] == [304]
    assert upstream.requests[1].all(b"if-none-match") == [b'"a"']
    assert len(upstream.requests) == 2
    at_rest(proxy)


@pytest_twisted.ensureDeferred
async def test_a_clients_condition_is_not_for_the_question_behind(
    cached: CacheBench, upstream: FakeUpstream
) -> None:
    upstream.scripts = [[Send(answer(b"old", MEANWHILE))], [Send(answer(b"new", FRESH))]]
    proxy = await cached.proxy()
    _, got = await cached.ask(proxy, ASK, get(MODELS, KEY, b'If-None-Match: "q"'))
    assert (got.status, got.body) == (200, b"old")
    await until(lambda: "revalidation" in results(proxy), "the end of it")
    assert upstream.requests[1].all(b"if-none-match") == []


@pytest.mark.parametrize("policies", POLICIES)
@pytest_twisted.ensureDeferred
async def test_revalidation_behind_that_fails_harms_nobody(
    cached_here: CacheBench, upstream: FakeUpstream, policies: dict[str, Any]
) -> None:
    upstream.scripts = [[Send(answer(b"old", MEANWHILE))], [Close()]]
    proxy = await cached_here.proxy(resilience=policies)
    for _ in range(3):
        (got,) = await cached_here.ask(proxy, ASK)
        assert got.body == b"old"
        await pause(0.02)
    await until(lambda: not proxy.daemon.pipeline.active, "the end of all")
    behind = [one for one in proxy.finished if one.cache == "revalidation"]
    assert [one.status for one in behind] == [502, 502]
    at_rest(proxy)


@pytest_twisted.ensureDeferred
async def test_nothing_stands_in_where_nobody_is_answered(cached: CacheBench, upstream: FakeUpstream) -> None:
    upstream.scripts = [
        [Send(answer(b"old", MEANWHILE + b", stale-if-error=60"))],
        [Send(answer(b"bad", status=b"503 Bad"))],
    ]
    proxy = await cached.proxy()
    await cached.ask(proxy, ASK, ASK)
    await until(lambda: "revalidation" in results(proxy), "the end of it")
    assert [one.status for one in proxy.finished if one.cache == "revalidation"] == [503]


@pytest_twisted.ensureDeferred
async def test_a_slow_revalidation_does_not_outlive_the_daemon(
    cached: CacheBench, upstream: FakeUpstream
) -> None:
    upstream.scripts = [[Send(answer(b"old", MEANWHILE))], [Stall()]]
    proxy = await cached.proxy()
    await cached.ask(proxy, ASK, ASK)
    await until(lambda: len(upstream.requests) == 2, "the question behind")
    proxy.daemon.pipeline.cut_all()
    at_rest(proxy)

"""What a client is told of the cache: RFC 9211 and the fields beside it."""

from __future__ import annotations

from pathlib import Path

import pytest_twisted
from bench import Bench
from cachebench import (
    ASK,
    FRESH,
    KEY,
    MODELS,
    CacheBench,
    RedisServer,
    at_rest,
    chat,
    numbered,
    results,
    shelf_of,
    told,
)
from wireclient import get, request, until

from llmproxyd.testing.upstream import FakeUpstream, Send, answer

pytest_plugins = ["cachefixtures"]

OURS = {
    b"cache-status",
    b"x-cache-status",
    b"x-cache-debug",
    b"age",
    b"x-request-id",
    b"x-llmproxyd-request-id",
}
OURS |= {b"x-upstream-response-time", b"content-length"}


@pytest_twisted.ensureDeferred
async def test_miss_then_hit(cached: CacheBench, upstream: FakeUpstream) -> None:
    numbered(upstream, FRESH, b"Date: Thu, 01 Jan 2099 00:00:00 GMT")
    proxy = await cached.proxy()
    miss, hit = await cached.ask(proxy, ASK, ASK)
    assert (miss.body, hit.body) == (b"body 1", b"body 1")
    assert told(miss) == b"llmproxyd; fwd=uri-miss; stored"
    assert told(hit).startswith(b"llmproxyd; hit; ttl=")
    assert 50 <= int(told(hit).rpartition(b"=")[2]) <= 60
    assert miss.all(b"x-cache-status") == [b"miss"]
    assert hit.all(b"x-cache-status") == [b"hit"]
    assert miss.get(b"age") is None
    assert int(hit.get(b"age") or b"-1") in range(10)
    assert (miss.get(b"x-upstream-response-time") or b"").isdigit()
    assert hit.get(b"x-upstream-response-time") is None
    assert results(proxy) == ["miss", "hit"]
    assert [one.attempts for one in proxy.finished] == [1, 0]
    stats = shelf_of(proxy).stats()
    assert {name: stats[name] for name in ("hit", "miss", "bypass", "stale", "store")} == {
        "hit": 1,
        "miss": 1,
        "bypass": 0,
        "stale": 0,
        "store": 1,
    }


@pytest_twisted.ensureDeferred
async def test_fields_and_body_of_a_hit_are_those_of_the_miss(
    cached: CacheBench, upstream: FakeUpstream
) -> None:
    body = bytes(range(256)) * 7
    fields = (
        b"x-ZETA: 1",
        b"Content-Type: a/b",
        FRESH,
        b"X-zeta:  2",
        b'ETag: "\xe4"',
        b"date: Thu, 01 Jan 1970",
    )
    upstream.scripts = [
        [Send(answer(body, *fields, b"Keep-Alive: timeout=5", b"Connection: x-mine", b"X-Mine: 1"))]
    ]
    miss, hit = await cached.ask(await cached.proxy(), ASK, ASK)
    kept = [[pair for pair in one.headers if pair[0].lower() not in OURS] for one in (miss, hit)]
    assert kept[0] == kept[1]
    assert [name for name, _ in kept[0]] == [
        b"x-ZETA",
        b"Content-Type",
        b"Cache-Control",
        b"X-zeta",
        b"ETag",
        b"date",
    ]
    assert miss.body == hit.body == body
    assert len(upstream.requests) == 1


@pytest_twisted.ensureDeferred
async def test_headers_false_says_nothing(cached_here: CacheBench, upstream: FakeUpstream) -> None:
    numbered(upstream, FRESH)
    proxy = await cached_here.proxy(cache={"headers": False})
    for one in await cached_here.ask(proxy, ASK, ASK, chat()):
        assert not one.names & (OURS - {b"age", b"content-length"}), one.headers
    assert results(proxy) == ["miss", "hit", "bypass"]


@pytest_twisted.ensureDeferred
async def test_bypass_says_why(cached_here: CacheBench, upstream: FakeUpstream) -> None:
    numbered(upstream, FRESH)
    proxy = await cached_here.proxy()
    told_of = [
        (chat(), b"method", b"method"),
        (request(b"/v1/files"), b"method", b"method"),
        (get(MODELS, KEY, method=b"DELETE"), b"method", b"method"),
        (get(MODELS, KEY, b"Cache-Control: no-store"), b"bypass", b"no-store"),
        (get(MODELS, KEY, b"Range: bytes=0-1"), b"bypass", b"range"),
        (get(MODELS, KEY, b"If-Match: *"), b"bypass", b"condition"),
        (request(MODELS, method=b"GET", body=b"x"), b"bypass", b"body"),
    ]
    for data, fwd, why in told_of:
        (got,) = await cached_here.ask(proxy, data)
        assert told(got).startswith(b"llmproxyd; fwd=" + fwd), (data, told(got))
        assert got.all(b"x-cache-status") == [b"bypass"]
        assert got.all(b"x-cache-debug") == [why], data
    assert set(results(proxy)) == {"bypass"}
    assert shelf_of(proxy).stats()["bypass"] == len(told_of)


@pytest_twisted.ensureDeferred
async def test_why_a_miss_was_asked_upstream(cached: CacheBench, upstream: FakeUpstream) -> None:
    numbered(upstream, FRESH, b"Vary: Accept-Language")
    proxy = await cached.proxy()
    english = get(MODELS, KEY, b"Accept-Language: en")
    french = get(MODELS, KEY, b"Accept-Language: fr")
    insisting = get(MODELS, KEY, b"Accept-Language: en", b"Cache-Control: no-cache")
    got = await cached.ask(proxy, english, french, insisting, english, french)
    assert [told(one).partition(b";")[2].strip() for one in got[:3]] == [
        b"fwd=uri-miss; stored",
        b"fwd=vary-miss; stored",
        b"fwd=request; stored",
    ]
    assert [one.body for one in got] == [b"body 1", b"body 2", b"body 3", b"body 3", b"body 2"]


@pytest_twisted.ensureDeferred
async def test_why_it_was_not_stored(cached_here: CacheBench, upstream: FakeUpstream) -> None:
    proxy = await cached_here.proxy()
    for number, (fields, why) in enumerate(
        [
            ((b"Cache-Control: no-store",), b"no-store"),
            ((b"Cache-Control: private, max-age=60",), b"private"),
            ((b"Cache-Control: max-age=60",), b"authorization"),
            ((b"Cache-Control: public",), b"no freshness"),
            ((FRESH, b"Vary: *"), b"vary"),
        ]
    ):
        numbered(upstream, *fields)
        ask = get(MODELS + b"?%d" % number, KEY)
        first, second = await cached_here.ask(proxy, ask, ask)
        assert (first.body, second.body) == (b"body 1", b"body 2")
        assert told(second) == b"llmproxyd; fwd=uri-miss"
        assert second.all(b"x-cache-debug") == [b"not stored: " + why]


@pytest_twisted.ensureDeferred
async def test_request_ids_are_kept_and_ours_stand_beside_them(
    cached: CacheBench, upstream: FakeUpstream
) -> None:
    proxy = await cached.proxy()

    async def ids(data: bytes, *fields: bytes) -> list[tuple[list[bytes], list[bytes]]]:
        numbered(upstream, FRESH, *fields)
        got = await cached.ask(proxy, data, data)
        return [(one.all(b"x-request-id"), one.all(b"x-llmproxyd-request-id")) for one in got]

    def ours() -> list[bytes]:
        return [one.request_id.encode() for one in proxy.finished[-2:]]

    assert await ids(get(MODELS + b"?1", KEY)) == [([one], []) for one in ours()]
    mine = get(MODELS + b"?2", KEY, b"X-Request-ID: mine")
    assert await ids(mine) == [([b"mine"], [one]) for one in ours()]
    theirs = await ids(get(MODELS + b"?3", KEY, b"X-Request-ID: mine"), b"x-request-id: req_up")
    assert theirs == [([b"req_up"], [one]) for one in ours()]
    assert len(set(ours())) == 2


@pytest_twisted.ensureDeferred
async def test_another_cache_before_us_is_told_of_first(cached: CacheBench, upstream: FakeUpstream) -> None:
    numbered(upstream, FRESH, b"Cache-Status: Origin; hit; ttl=5", b"Age: 7")
    miss, hit = await cached.ask(await cached.proxy(), ASK, ASK)
    assert miss.all(b"cache-status") == [b"Origin; hit; ttl=5", b"llmproxyd; fwd=uri-miss; stored"]
    assert hit.all(b"cache-status")[0] == b"Origin; hit; ttl=5"
    assert hit.all(b"cache-status")[1].startswith(b"llmproxyd; hit; ttl=5")
    assert int((hit.get(b"age") or b"").decode()) >= 7
    assert len(hit.all(b"age")) == 1


@pytest_twisted.ensureDeferred
async def test_only_if_cached_is_answered_here_or_not_at_all(
    cached: CacheBench, upstream: FakeUpstream
) -> None:
    numbered(upstream, FRESH)
    proxy = await cached.proxy()
    only = get(MODELS, KEY, b"Cache-Control: only-if-cached")
    anthropic = get(
        MODELS, b"x-api-key: k", b"anthropic-version: 2023-06-01", b"Cache-Control: only-if-cached"
    )
    without, _, with_it, other = await cached.ask(proxy, only, ASK, only, anthropic)
    assert (without.status, without.json["error"]["code"]) == (504, "not_cached")
    assert without.get(b"x-llmproxyd-code") == b"not_cached"
    assert (with_it.status, with_it.body) == (200, b"body 1")
    assert (other.status, other.json["error"]["details"]["error_code"]) == (504, "not_cached")
    no_store = get(MODELS + b"?2", KEY, b"Cache-Control: only-if-cached, no-store")
    (refused,) = await cached.ask(proxy, no_store)
    assert refused.status == 504
    assert len(upstream.requests) == 1


@pytest_twisted.ensureDeferred
async def test_redis_that_is_gone_is_a_miss_for_everyone(
    bench: Bench, upstream: FakeUpstream, tmp_path: Path
) -> None:
    numbered(upstream, FRESH)
    server = RedisServer(tmp_path, unix=True)
    try:
        cached = CacheBench(bench, upstream, server)
        proxy = await cached.proxy()
        first, second = await cached.ask(proxy, ASK, ASK)
        server.kill()
        third, fourth = await cached.ask(proxy, ASK, ASK)
        assert [one.body for one in (first, second, third, fourth)] == [
            b"body 1",
            b"body 1",
            b"body 2",
            b"body 3",
        ]
        assert told(fourth) == b"llmproxyd; fwd=uri-miss; stored"
        server.start()
        link = proxy.daemon.works.gateway.redis
        await until(lambda: link is not None and link.up, "Redis")
        again = await cached.ask(proxy, ASK, ASK, ASK)
        assert again[-1].body == again[-2].body
        at_rest(proxy)
        server.pause()
        client = await cached.client(proxy)
        assert (await client.ask(get(MODELS + b"?2", KEY))).status == 200
        server.resume()
    finally:
        server.kill()


@pytest_twisted.ensureDeferred
async def test_each_web_page_may_read_a_hit(cached: CacheBench, upstream: FakeUpstream) -> None:
    numbered(upstream, FRESH, b"Access-Control-Allow-Origin: https://theirs")
    pages = [b"https://one", b"https://two"]
    allow = {"origins": [page.decode() for page in pages]}
    proxy = await cached.proxy(upstreams={"openai": {"allow": allow}})
    got = await cached.ask(proxy, *[get(MODELS, KEY, b"Origin: " + page) for page in pages])
    assert [one.all(b"access-control-allow-origin") for one in got] == [[page] for page in pages]
    assert [one.body for one in got] == [b"body 1", b"body 1"]


@pytest_twisted.ensureDeferred
async def test_a_drained_upstream_is_not_asked_for_what_is_not_stored(
    cached: CacheBench, upstream: FakeUpstream
) -> None:
    numbered(upstream, FRESH)
    proxy = await cached.proxy()
    opted = chat(b'{"model":"m"}', b"Cache-Control: public, max-age=60")
    other = chat(b'{"model":"other"}', b"Cache-Control: public, max-age=60")
    await cached.ask(proxy, opted)
    proxy.daemon.live.drained.add("openai")
    stored, refused = await cached.ask(proxy, opted, other)
    assert told(stored).startswith(b"llmproxyd; hit")
    assert refused.status == 503
    assert len(upstream.requests) == 1

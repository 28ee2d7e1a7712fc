"""What is kept, and what never is: requests of every kind, streams, failures, answers of our own."""

from __future__ import annotations

import gzip
from typing import Any

import pytest
import pytest_twisted
from cachebench import (
    ASK,
    CHAT,
    FRESH,
    KEY,
    MODELS,
    OPT_IN,
    POST_RULE,
    CacheBench,
    at_rest,
    chat,
    numbered,
    results,
    shelf_of,
    told,
)
from wireclient import Answer, get, pause, request, until

from llmproxyd.testing.proxy import ProxyUnderTest
from llmproxyd.testing.upstream import (
    LAST_CHUNK,
    Close,
    FakeUpstream,
    Gate,
    Pour,
    Script,
    Send,
    answer,
    chunk,
    event,
    head,
    json_answer,
    stream_head,
)

pytest_plugins = ["cachefixtures"]

EVENTS = [event(b'{"choices":[{"index":0,"delta":{"content":"%d"}}]}' % number) for number in range(3)]
DONE = event(b"[DONE]")
STREAM = [Send(stream_head()), *(Send(chunk(one)) for one in EVENTS), Send(chunk(DONE) + LAST_CHUNK)]
SETTINGS: dict[str, Any] = {"cache": POST_RULE}


def stored(proxy: ProxyUnderTest) -> int:
    count: int = shelf_of(proxy).stats()["store"]
    return count


async def twice(cached: CacheBench, proxy: ProxyUnderTest, data: bytes) -> tuple[Answer, Answer]:
    """The same request, on two connections: the first may be ended."""
    (first,) = await cached.ask(proxy, data)
    (second,) = await cached.ask(proxy, data)
    return first, second


# Requests.


@pytest_twisted.ensureDeferred
async def test_head_is_answered_from_what_get_has_brought(cached: CacheBench, upstream: FakeUpstream) -> None:
    numbered(upstream, FRESH, b"Content-Type: x/y")
    proxy = await cached.proxy()
    _, got, again = await cached.ask(proxy, ASK, get(MODELS, KEY, method=b"HEAD"), ASK)
    assert (got.status, got.body, got.get(b"content-length"), got.get(b"content-type")) == (
        200,
        b"",
        b"6",
        b"x/y",
    )
    assert again.body == b"body 1"
    assert len(upstream.requests) == 1


@pytest_twisted.ensureDeferred
async def test_get_is_not_answered_from_what_head_has_brought(
    cached: CacheBench, upstream: FakeUpstream
) -> None:
    upstream.scripts = [[Send(head(FRESH, b"Content-Length: 4"))], [Send(answer(b"body", FRESH))]]
    asking = get(MODELS, KEY, method=b"HEAD")
    first, second, whole = await cached.ask(await cached.proxy(), asking, asking, ASK)
    assert first.get(b"content-length") == second.get(b"content-length") == b"4"
    assert told(second).startswith(b"llmproxyd; hit")
    assert whole.body == b"body"


@pytest_twisted.ensureDeferred
async def test_ranges_pass(cached: CacheBench, upstream: FakeUpstream) -> None:
    part = Send(answer(b"bo", FRESH, b"Content-Range: bytes 0-1/4", status=b"206 Partial Content"))
    upstream.scripts = [[part], [part], [Send(answer(b"body", FRESH))], [part]]
    proxy = await cached.proxy()
    some = get(MODELS, KEY, b"Range: bytes=0-1")
    got = await cached.ask(proxy, some, some, ASK, some)
    assert [(one.status, one.body) for one in got] == [
        (206, b"bo"),
        (206, b"bo"),
        (200, b"body"),
        (206, b"bo"),
    ]
    assert upstream.requests[0].all(b"range") == [b"bytes=0-1"]
    assert stored(proxy) == 1


@pytest_twisted.ensureDeferred
async def test_a_credential_needs_the_upstreams_leave(cached: CacheBench, upstream: FakeUpstream) -> None:
    numbered(upstream, b"Cache-Control: max-age=60")
    proxy = await cached.proxy()
    with_key = await cached.ask(proxy, ASK, ASK)
    without = await cached.ask(proxy, get(MODELS), get(MODELS))
    assert [one.body for one in with_key] == [b"body 1", b"body 2"]
    assert [one.body for one in without] == [b"body 3", b"body 3"]


@pytest_twisted.ensureDeferred
async def test_unsafe_methods_make_invalid_and_inference_does_not(
    cached: CacheBench, upstream: FakeUpstream
) -> None:
    numbered(upstream, FRESH)
    proxy = await cached.proxy()
    files = get(b"/v1/files?b=1&a=2", KEY)
    got = await cached.ask(proxy, files, chat(b"{}", KEY), request(CHAT, KEY), files)
    assert got[0].body == got[3].body
    post = request(b"/v1/files?a=2&b=1", KEY, body=b"file")
    posted, after = await cached.ask(proxy, post, files)
    assert told(posted) == b"llmproxyd; fwd=method"
    assert after.body not in (got[0].body, posted.body)
    assert told(after).startswith(b"llmproxyd; fwd=uri-miss")
    for method in (b"PUT", b"DELETE", b"PATCH"):
        before, _, changed = await cached.ask(
            proxy, files, get(b"/v1/files?b=1&a=2", KEY, method=method), files
        )
        assert before.body != changed.body, method


@pytest_twisted.ensureDeferred
async def test_a_failed_unsafe_method_makes_nothing_invalid(
    cached: CacheBench, upstream: FakeUpstream
) -> None:
    good, bad = Send(answer(b"one", FRESH)), Send(answer(b"no", status=b"409 Conflict"))
    upstream.scripts = [[good], [bad]]
    files = get(b"/v1/files", KEY)
    _, _, got = await cached.ask(await cached.proxy(), files, request(b"/v1/files", KEY), files)
    assert told(got).startswith(b"llmproxyd; hit")


@pytest_twisted.ensureDeferred
async def test_what_was_asked_for_before_a_change_is_not_kept(
    cached: CacheBench, upstream: FakeUpstream
) -> None:
    gate = Gate()
    upstream.scripts = [
        [gate, Send(answer(b"old", FRESH))],
        [Send(answer(b"done"))],
        [Send(answer(b"new", FRESH))],
    ]
    proxy = await cached.proxy()
    files = get(b"/v1/files", KEY)
    slow = await cached.client(proxy)
    slow.send(files)
    await until(lambda: gate.reached, "the first request")
    waits = await cached.client(proxy)
    waits.send(files)
    await until(lambda: len(proxy.daemon.pipeline.active) == 2, "the one that waits")
    await cached.settled(proxy)
    await cached.ask(proxy, request(b"/v1/files", KEY))
    assert (await waits.answer()).body == b"new"
    gate.open()
    assert (await slow.answer()).body == b"old"
    await cached.settled(proxy)
    (got,) = await cached.ask(proxy, files)
    assert got.body == b"new"


# POST.


@pytest_twisted.ensureDeferred
async def test_post_is_kept_where_its_client_asks_for_it(cached: CacheBench, upstream: FakeUpstream) -> None:
    numbered(upstream)
    proxy = await cached.proxy()
    got = await cached.ask(proxy, chat(b'{"a":1}', OPT_IN, KEY), chat(b'{"a":1}', OPT_IN, KEY))
    other = await cached.ask(
        proxy, chat(b'{"a":2}', OPT_IN, KEY), chat(b'{"a": 1}', OPT_IN, KEY), chat(b'{"a":1}', KEY)
    )
    assert [one.body for one in got] == [b"body 1", b"body 1"]
    assert [one.body for one in other] == [b"body 2", b"body 3", b"body 4"]
    assert told(got[0]) == b"llmproxyd; fwd=uri-miss; stored"
    assert told(got[1]).startswith(b"llmproxyd; hit; ttl=")
    assert told(other[2]) == b"llmproxyd; fwd=method"
    assert [one.body for one in upstream.requests[:2]] == [b'{"a":1}', b'{"a":2}']


@pytest_twisted.ensureDeferred
async def test_a_post_that_may_be_kept_makes_nothing_invalid(
    cached: CacheBench, upstream: FakeUpstream
) -> None:
    numbered(upstream, FRESH)
    proxy = await cached.proxy(**SETTINGS)
    files = get(b"/v1/files", KEY)
    got = await cached.ask(proxy, files, request(b"/v1/files", KEY, body=b"question"), files)
    assert got[0].body == got[2].body


@pytest_twisted.ensureDeferred
async def test_post_is_kept_by_a_rule(cached: CacheBench, upstream: FakeUpstream) -> None:
    numbered(upstream)
    rules = {"rules": [{"path": "/v1/emb*", "methods": ["POST"], "default_ttl": "60s", "fields": ["x-case"]}]}
    proxy = await cached.proxy(cache=rules)
    ask = request(b"/v1/embeddings", KEY, body=b"{}")
    case = request(b"/v1/embeddings", KEY, b"X-Case: 1", body=b"{}")
    pieces = (
        request(b"/v1/embeddings", KEY, b"Transfer-Encoding: chunked", body=None) + chunk(b"{}") + LAST_CHUNK
    )
    got = await cached.ask(proxy, ask, ask, case, case, pieces, chat(b"{}", KEY), chat(b"{}", KEY))
    bodies = [one.body for one in got]
    assert bodies[:5] == [b"body 1", b"body 1", b"body 2", b"body 2", b"body 1"]
    assert bodies[5] != bodies[6]


@pytest_twisted.ensureDeferred
async def test_the_answer_may_forbid_what_a_rule_allows(cached: CacheBench, upstream: FakeUpstream) -> None:
    for number, said in enumerate((b"no-store", b"private", b"private, max-age=60")):
        numbered(upstream, b"Cache-Control: " + said)
        proxy = await cached.proxy(**SETTINGS)
        one, two = await cached.ask(proxy, *[chat(b"%d" % number, KEY)] * 2)
        assert one.body != two.body


@pytest_twisted.ensureDeferred
async def test_a_large_post_is_one_by_its_whole_body(cached: CacheBench, upstream: FakeUpstream) -> None:
    numbered(upstream)
    proxy = await cached.proxy(**SETTINGS)
    big = bytes(3_000_000)
    got = await cached.ask(proxy, chat(big, KEY), chat(big, KEY), chat(big[:-1] + b"1", KEY))
    assert [one.body for one in got] == [b"body 1", b"body 1", b"body 2"]
    assert upstream.requests[0].body == big


# Bodies.


@pytest_twisted.ensureDeferred
async def test_a_coded_answer_stays_coded_and_is_a_variant(
    cached: CacheBench, upstream: FakeUpstream
) -> None:
    packed = gzip.compress(b"clear" * 100)
    upstream.scripts = [
        [Send(answer(packed, FRESH, b"Content-Encoding: gzip"))],
        [Send(answer(b"clear" * 100, FRESH, b"Vary: Accept-Encoding"))],
    ]
    coded, plain = get(MODELS, KEY, b"Accept-Encoding: gzip"), get(MODELS, KEY, b"Accept-Encoding: identity")
    got = await cached.ask(await cached.proxy(), coded, plain, coded)
    assert [one.get(b"content-encoding") for one in got] == [b"gzip", None, b"gzip"]
    assert got[2].body == packed
    assert len(upstream.requests) == 2


@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
@pytest_twisted.ensureDeferred
async def test_an_answer_without_length_is_kept_whole(
    cached: CacheBench, upstream: FakeUpstream, version: bytes
) -> None:
    pieces = [b"a" * 70_000, b"b", b"c" * 300_000]
    upstream.scripts = [
        [
            Send(head(FRESH, b"Transfer-Encoding: chunked")),
            *(Send(chunk(one)) for one in pieces),
            Send(LAST_CHUNK),
        ]
    ]
    ask = request(MODELS, KEY, method=b"GET", body=None, version=version)
    first, second = await twice(cached, await cached.proxy(), ask)
    assert first.body == second.body == b"".join(pieces)
    assert second.get(b"content-length") == b"370001"
    assert len(upstream.requests) == 1


@pytest_twisted.ensureDeferred
async def test_a_large_hit_goes_out_at_the_clients_pace(
    cached_here: CacheBench, upstream: FakeUpstream
) -> None:
    size = 12_000_000
    upstream.scripts = [
        [Send(head(FRESH, b"Content-Length: %d" % size)), Pour(bytes(60_000), size // 60_000)]
    ]
    proxy = await cached_here.proxy(cache={"max_object_bytes": "16MiB"})
    await cached_here.ask(proxy, ASK)
    slow = await cached_here.client(proxy)
    slow.transport.pauseProducing()
    slow.send(ASK)
    await pause(0.2)
    (active,) = proxy.daemon.pipeline.active
    assert 0 < active.sent < size / 2
    slow.transport.resumeProducing()
    assert len((await slow.answer()).body) == size
    leaving = await cached_here.client(proxy)
    leaving.transport.pauseProducing()
    leaving.send(ASK)
    await pause(0.1)
    leaving.transport.abortConnection()
    await until(lambda: not proxy.daemon.pipeline.active, "the end of it")
    cut = await cached_here.client(proxy)
    cut.transport.pauseProducing()
    cut.send(ASK)
    await pause(0.1)
    proxy.daemon.pipeline.cut_all()
    cut.transport.resumeProducing()
    assert not (await cut.answer()).whole
    at_rest(proxy)
    assert len(upstream.requests) == 1


@pytest_twisted.ensureDeferred
async def test_answers_to_http_1_0_are_kept_and_served(cached: CacheBench, upstream: FakeUpstream) -> None:
    numbered(upstream, FRESH)
    proxy = await cached.proxy()
    old = request(MODELS, KEY, method=b"GET", body=None, version=b"HTTP/1.0")
    first, second = await twice(cached, proxy, old)
    (third,) = await cached.ask(proxy, ASK)
    assert first.body == second.body == third.body == b"body 1"
    assert second.raw.startswith(b"HTTP/1.1 200 OK\r\n")


# Streams.


@pytest_twisted.ensureDeferred
async def test_a_stream_is_replayed_as_a_stream(cached: CacheBench, upstream: FakeUpstream) -> None:
    upstream.scripts = [STREAM]
    proxy = await cached.proxy(**SETTINGS)
    first, second = await cached.ask(proxy, chat(b'{"stream":true}', KEY), chat(b'{"stream":true}', KEY))
    assert first.body == second.body == b"".join(EVENTS) + DONE
    assert first.get(b"content-type") == second.get(b"content-type") == b"text/event-stream"
    assert second.get(b"transfer-encoding") == b"chunked"
    assert second.get(b"content-length") is None
    assert told(second).startswith(b"llmproxyd; hit")
    assert [one.streamed for one in proxy.finished] == [True, True]
    assert len(upstream.requests) == 1
    old = request(CHAT, b"Content-Type: application/json", KEY, body=b'{"stream":true}', version=b"HTTP/1.0")
    (third,) = await cached.ask(proxy, old)
    assert third.body == first.body
    assert third.get(b"transfer-encoding") is None


BROKEN: dict[str, Script] = {
    "cut": [Send(stream_head()), Send(chunk(EVENTS[0])), Close()],
    "cut-in-an-event": [Send(stream_head()), Send(chunk(EVENTS[0][:9])), Close()],
    "short": [Send(head(FRESH, b"Content-Length: 100") + b"some"), Close()],
    "by-close": [Send(head(b"Content-Type: text/event-stream") + EVENTS[0]), Close()],
    "error-within": [
        Send(stream_head()),
        Send(chunk(EVENTS[0])),
        Send(chunk(event(b'{"error":{"message":"overloaded"}}')) + LAST_CHUNK),
    ],
    "error-under-200": [Send(json_answer({"error": {"message": "no"}}))],
    "unreadable": [
        Send(stream_head(b"text/event-stream", b"Content-Encoding: br")),
        Send(chunk(b"x") + LAST_CHUNK),
    ],
    "too-large": [Send(answer(bytes(2001)))],
    "too-large-in-chunks": [
        Send(head(b"Transfer-Encoding: chunked")),
        *[Send(chunk(bytes(300)))] * 7,
        Send(LAST_CHUNK),
    ],
    "500": [Send(answer(b"no", status=b"500 Bad"))],
    "429": [Send(answer(b"no", status=b"429 Slow down"))],
    "nothing": [Close()],
}


@pytest.mark.parametrize("policies", [{}, {"default": {"retry": {"max_retries": 1, "base_delay": "1ms"}}}])
@pytest.mark.parametrize("how", BROKEN)
@pytest_twisted.ensureDeferred
async def test_what_is_not_whole_is_never_kept(
    cached_here: CacheBench, upstream: FakeUpstream, how: str, policies: dict[str, Any]
) -> None:
    upstream.scripts = [BROKEN[how]]
    proxy = await cached_here.proxy(cache={"max_object_bytes": 2000, **POST_RULE}, resilience=policies)
    await twice(cached_here, proxy, chat(b"{}", KEY))
    assert results(proxy) == ["miss", "miss"]
    assert stored(proxy) == 0
    assert len(upstream.requests) >= 2
    at_rest(proxy)


@pytest_twisted.ensureDeferred
async def test_a_stream_that_its_client_left_is_not_kept(cached: CacheBench, upstream: FakeUpstream) -> None:
    gate = Gate()
    upstream.scripts = [[Send(stream_head()), Send(chunk(EVENTS[0])), gate, Send(LAST_CHUNK)]]
    proxy = await cached.proxy(**SETTINGS)
    leaving = await cached.client(proxy)
    leaving.send(chat(b"{}", KEY))
    await leaving.has(EVENTS[0])
    leaving.transport.abortConnection()
    await until(lambda: not proxy.daemon.pipeline.active, "the end of it")
    assert not upstream.open or await _gone(upstream)
    assert stored(proxy) == 0
    at_rest(proxy)


async def _gone(upstream: FakeUpstream) -> bool:
    await until(lambda: not upstream.open, "the upstream's connection to end")
    return True


@pytest_twisted.ensureDeferred
async def test_only_so_much_is_gathered_at_once(cached_here: CacheBench, upstream: FakeUpstream) -> None:
    gate = Gate()
    upstream.scripts = [[Send(head(FRESH, b"Content-Length: 1000") + bytes(999)), gate, Send(b"!")]]
    proxy = await cached_here.proxy(cache={"max_object_bytes": 1000})
    clients = []
    for number in range(50):
        client = await cached_here.client(proxy)
        client.send(get(MODELS + b"?%d" % number, KEY))
        clients.append(client)
    await until(lambda: all(one.total > 999 for one in clients), "all answers but their ends")
    assert shelf_of(proxy).gathered <= 32 * 1000
    gate.open()
    for client in clients:
        assert len((await client.answer()).body) == 1000
    assert 30 <= stored(proxy) <= 32
    at_rest(proxy)


# Answers of our own.


@pytest_twisted.ensureDeferred
async def test_injected_faults_are_not_kept(cached: CacheBench, upstream: FakeUpstream) -> None:
    numbered(upstream)
    proxy = await cached.proxy(faults={"header": True}, operator={"stdin": False, "faults": True}, **SETTINGS)
    fault = chat(b"{}", KEY, b"x-llmproxyd-fault: server_error")
    got = await cached.ask(proxy, fault, chat(b"{}", KEY), fault, chat(b"{}", KEY))
    assert [one.status for one in got] == [500, 200, 500, 200]
    assert got[0].get(b"cache-status") is None
    assert got[1].body == got[3].body == b"body 1"
    assert results(proxy) == [None, "miss", None, "hit"]
    assert stored(proxy) == 1


@pytest_twisted.ensureDeferred
async def test_local_errors_are_not_kept(cached: CacheBench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Close()], [Send(answer(b"good", FRESH))]]
    proxy = await cached.proxy(cache={"default_ttl": "60s"})
    first, second = await cached.ask(proxy, ASK, ASK)
    assert (first.status, second.body) == (502, b"good")
    at_rest(proxy)


@pytest_twisted.ensureDeferred
async def test_the_configured_list_of_models_is_not_kept(cached: CacheBench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Send(answer(b"no", status=b"404 Not Found"))], [Send(answer(b"real", FRESH))]]
    proxy = await cached.proxy(
        upstreams={"openai": {"models_fallback": ["gpt-x"]}}, cache={"default_ttl": "60s"}
    )
    first, second, third = await cached.ask(proxy, ASK, ASK, ASK)
    assert first.json["data"][0]["id"] == "gpt-x"
    assert (second.body, third.body) == (b"real", b"real")
    assert len(upstream.requests) == 2


@pytest_twisted.ensureDeferred
async def test_what_another_upstream_said_is_not_kept(cached: CacheBench, upstream: FakeUpstream) -> None:
    upstream.scripts = [
        [Send(answer(b"bad", status=b"500 Bad"))],
        [Send(answer(b"other"))],
        [Send(answer(b"own"))],
    ]
    proxy = await cached.proxy(
        upstreams={
            "second": {"provider": "openai", "base_url": upstream.url},
            "openai": {"fallbacks": [{"upstream": "second"}]},
        },
        **SETTINGS,
    )
    first, second, third = await cached.ask(proxy, *[chat(b"{}", KEY)] * 3)
    assert [first.body, second.body, third.body] == [b"other", b"own", b"own"]
    assert first.all(b"x-cache-debug") == [b"not stored: another upstream"]


@pytest_twisted.ensureDeferred
async def test_what_an_operator_calls_a_failure_is_not_kept(
    cached: CacheBench, upstream: FakeUpstream
) -> None:
    upstream.scripts = [
        [Send(json_answer({"text": "all is overloaded"}))],
        [Send(json_answer({"text": "good"}))],
    ]
    rule = {"pattern": "is overloaded", "original_status": 200, "new_status": 429}
    proxy = await cached.proxy(resilience={"default": {"recategorize": [rule]}}, **SETTINGS)
    first, second, third = await cached.ask(proxy, *[chat(b"{}", KEY)] * 3)
    assert (first.status, first.json["text"]) == (200, "all is overloaded")
    assert second.json["text"] == third.json["text"] == "good"
    assert len(upstream.requests) == 2

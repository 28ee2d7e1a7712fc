"""The proxy as a resource in somebody's own site: twisted.web's own, and the daemon's kind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from bench import reactor
from library import Workshop
from twisted.internet.defer import ensureDeferred
from twisted.web.resource import Resource
from wireclient import get, pause, request, until

from llmproxyd.library.resource import ProxyMetrics, configured
from llmproxyd.model import End
from llmproxyd.site import stock
from llmproxyd.testing.upstream import (
    LAST_CHUNK,
    Close,
    FakeUpstream,
    Gate,
    Pour,
    Send,
    Stall,
    answer,
    chunk,
    event,
    head,
    json_answer,
    stream_head,
)

CHAT = b"/v1/chat/completions"


@pytest.fixture
def workshop(upstream: FakeUpstream) -> Iterator[Workshop]:
    made = Workshop(upstream)
    yield made
    pytest_twisted.blockon(ensureDeferred(made.close()))


SITES = pytest.mark.parametrize("site", ["stock", "ours"])


@SITES
@pytest.mark.parametrize("place", [b"", b"/llm", b"/a/b"])
@pytest_twisted.ensureDeferred
async def test_request_goes_to_the_upstream_without_what_leads_to_the_resource(
    workshop: Workshop, upstream: FakeUpstream, site: str, place: bytes
) -> None:
    upstream.scripts = [[Send(json_answer({"id": "x"}))]]
    client = await workshop.client(await workshop.serve(site=site, place=place))
    got = await client.ask(request(place + CHAT + b"?a=%2F&b=+", b"X-One: 1", b"X-One: 2", body=b'{"n": 1}'))
    assert (got.status, got.json) == (200, {"id": "x"})
    (sent,) = upstream.requests
    assert sent.target == CHAT + b"?a=%2F&b=+"
    assert sent.body == b'{"n": 1}'
    assert sent.all(b"x-one") == [b"1", b"2"]
    assert sent.all(b"host") == [b"127.0.0.1:%d" % upstream.port]


@SITES
@pytest.mark.parametrize("path", [b"/llm", b"/llm/"])
@pytest_twisted.ensureDeferred
async def test_place_itself_is_the_root(
    workshop: Workshop, upstream: FakeUpstream, site: str, path: bytes
) -> None:
    upstream.scripts = [[Send(answer(b"ok"))]]
    client = await workshop.client(await workshop.serve(site=site, place=b"/llm"))
    assert (await client.ask(get(path))).status == 200
    assert upstream.requests[0].target == b"/"


@pytest_twisted.ensureDeferred
async def test_answer_has_the_fields_of_the_upstream_and_none_of_the_server(
    workshop: Workshop, upstream: FakeUpstream
) -> None:
    upstream.scripts = [[Send(answer(b"ok", b"set-cookie: a=1", b"set-cookie: b=2", b"x-own: 1"))]]
    client = await workshop.client(await workshop.serve())
    got = await client.ask(get(b"/v1/models"))
    assert got.all(b"set-cookie") == [b"a=1", b"b=2"]
    assert got.names == {b"content-length", b"set-cookie", b"x-own"}


@SITES
@pytest_twisted.ensureDeferred
async def test_stream_comes_as_it_is_sent(workshop: Workshop, upstream: FakeUpstream, site: str) -> None:
    gate = Gate()
    script = [Send(stream_head() + chunk(event(b"1"))), gate, Send(chunk(event(b"2")) + LAST_CHUNK)]
    upstream.scripts = [script, [Send(answer(b"next"))]]
    client = await workshop.client(await workshop.serve(site=site))
    client.send(request(CHAT))
    await client.has(event(b"1"))
    assert gate.reached
    gate.open()
    got = await client.answer()
    assert got.whole
    assert got.body == event(b"1") + event(b"2")
    # The connection is good for another one.
    assert (await client.ask(request(CHAT))).body == b"next"


@SITES
@pytest_twisted.ensureDeferred
async def test_head_of_a_stream_does_not_wait_for_its_body(
    workshop: Workshop, upstream: FakeUpstream, site: str
) -> None:
    upstream.scripts = [[Send(stream_head()), Stall()]]
    client = await workshop.client(await workshop.serve(site=site))
    client.send(request(CHAT))
    await client.has(b"text/event-stream")


@SITES
@pytest_twisted.ensureDeferred
async def test_bodiless_answers_and_pipelining(workshop: Workshop, upstream: FakeUpstream, site: str) -> None:
    upstream.scripts = [
        [Send(head(b"content-length: 12", b"content-type: text/plain"))],
        [Send(head(b"etag: x", status=b"304 Not Modified"))],
        [Send(head(status=b"204 No Content"))],
        [Send(answer(b"end"))],
    ]
    client = await workshop.client(await workshop.serve(site=site))
    client.send(get(b"/v1/models", method=b"HEAD") + 3 * get(b"/v1/models"))
    got = [await client.answer(bodiless=True), *[await client.answer() for _ in range(3)]]
    assert [one.status for one in got] == [200, 304, 204, 200]
    assert got[0].all(b"content-length") == [b"12"]
    assert got[0].all(b"content-type") == [b"text/plain"]
    assert b"content-type" not in got[2].names
    assert got[3].body == b"end"


@SITES
@pytest.mark.parametrize("size", [0, 1, 99_999, 262_144, 262_145, 1_000_000])
@pytest_twisted.ensureDeferred
async def test_bodies_of_any_size_arrive_whole(
    workshop: Workshop, upstream: FakeUpstream, site: str, size: int
) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    upstream.scripts = [[Send(answer(body))]]
    client = await workshop.client(await workshop.serve(site=site))
    got = await client.ask(request(CHAT, body=body))
    assert (got.status, got.whole) == (200, True)
    assert got.body == body
    assert upstream.requests[0].body == body


@SITES
@pytest_twisted.ensureDeferred
async def test_form_is_passed_on_untouched(workshop: Workshop, upstream: FakeUpstream, site: str) -> None:
    upstream.scripts = [[Send(answer(b"ok"))]]
    client = await workshop.client(await workshop.serve(site=site))
    kind = b"Content-Type: application/x-www-form-urlencoded"
    await client.ask(request(b"/oauth/token", kind, body=b"a=%20b&c"))
    assert upstream.requests[0].body == b"a=%20b&c"


@SITES
@pytest_twisted.ensureDeferred
async def test_chunked_body(workshop: Workshop, upstream: FakeUpstream, site: str) -> None:
    upstream.scripts = [[Send(answer(b"ok"))]]
    client = await workshop.client(await workshop.serve(site=site))
    sent = request(CHAT, b"Transfer-Encoding: chunked", body=None) + chunk(b'{"a"') + chunk(b": 1}")
    assert (await client.ask(sent + LAST_CHUNK)).status == 200
    assert upstream.requests[0].body == b'{"a": 1}'


@SITES
@pytest_twisted.ensureDeferred
async def test_http_1_0_client(workshop: Workshop, upstream: FakeUpstream, site: str) -> None:
    upstream.scripts = [[Send(stream_head() + chunk(event(b"1")) + LAST_CHUNK)]]
    client = await workshop.client(await workshop.serve(site=site))
    client.send(request(CHAT, version=b"HTTP/1.0"))
    await client.closed()
    assert not client.reset
    got = await client.answer()
    assert got.body == event(b"1")
    assert not got.all(b"transfer-encoding")


@SITES
@pytest.mark.parametrize("way", ["chunked", "sized", "1.0"])
@pytest_twisted.ensureDeferred
async def test_stream_that_breaks_off_never_looks_whole(
    workshop: Workshop, upstream: FakeUpstream, site: str, way: str
) -> None:
    if way == "sized":
        upstream.scripts = [[Send(head(b"content-length: 100") + b"part"), Close()]]
    else:
        upstream.scripts = [[Send(stream_head() + chunk(event(b"1"))), Close()]]
    proxy = await workshop.serve(site=site)
    client = await workshop.client(proxy)
    version = b"HTTP/1.0" if way == "1.0" else b"HTTP/1.1"
    client.send(request(CHAT, version=version))
    if way == "1.0":
        await until(lambda: client.lost, "the end of the connection")
        assert client.reset
    else:
        got = await client.answer()
        assert not got.whole
        if way == "chunked":
            # An event says what became of it.
            assert b"upstream_protocol_error" in got.body
    await until(lambda: workshop.finished, "the end of the request")
    assert workshop.finished[0].end is End.TRUNCATED
    assert proxy.metrics() == ProxyMetrics(requests=1, errors=1)


@SITES
@pytest.mark.parametrize("way", ["closes", "resets"])
@pytest.mark.parametrize("when", ["before the head", "in the stream"])
@pytest_twisted.ensureDeferred
async def test_upstream_is_left_when_the_client_leaves(
    workshop: Workshop, upstream: FakeUpstream, site: str, way: str, when: str
) -> None:
    begun = [Send(stream_head() + chunk(event(b"1")))] if when == "in the stream" else []
    upstream.scripts = [[*begun, Stall()]]
    proxy = await workshop.serve(site=site)
    client = await workshop.client(proxy)
    client.send(request(CHAT))
    await until(lambda: upstream.requests, "the request")
    if begun:
        await client.has(event(b"1"))
    if way == "closes":
        client.transport.loseConnection()
    else:
        client.transport.abortConnection()
    await until(lambda: workshop.finished, "the end of the request")
    await until(lambda: not upstream.open, "the upstream's connection to end")
    assert workshop.finished[0].end is End.CLIENT_GONE
    assert not proxy.pipeline.active
    assert proxy.metrics() == ProxyMetrics(requests=1)


@SITES
@pytest_twisted.ensureDeferred
async def test_slow_reader_slows_the_upstream_down(
    workshop: Workshop, upstream: FakeUpstream, site: str
) -> None:
    poured = Pour(chunk(event(b"x" * 65000)), 500)
    upstream.scripts = [[Send(stream_head()), poured, Send(LAST_CHUNK)]]
    client = await workshop.client(await workshop.serve(site=site))
    client.transport.pauseProducing()
    client.send(request(CHAT))
    before = -1
    while poured.poured != before or not poured.poured:
        before = poured.poured
        await pause(0.1)
    assert poured.poured < 20_000_000
    client.transport.resumeProducing()
    await until(lambda: client.last.endswith(LAST_CHUNK), "the rest")
    got = await client.answer()
    assert got.whole
    assert len(got.body) == 500 * len(event(b"x" * 65000))


@SITES
@pytest_twisted.ensureDeferred
async def test_client_that_reads_nothing_is_given_up(
    workshop: Workshop, upstream: FakeUpstream, site: str
) -> None:
    upstream.scripts = [[Send(stream_head()), Pour(chunk(event(b"x" * 65000)), 500), Send(LAST_CHUNK)]]
    proxy = await workshop.serve(site=site, server={"idle_timeout": 0.3})
    client = await workshop.client(proxy)
    client.transport.pauseProducing()
    client.send(request(CHAT))
    await until(lambda: workshop.finished, "the end of the request")
    assert workshop.finished[0].end is End.CLIENT_GONE
    assert not proxy.pipeline.active


@pytest_twisted.ensureDeferred
async def test_what_a_lenient_server_lets_pass_is_refused(workshop: Workshop, upstream: FakeUpstream) -> None:
    proxy = await workshop.serve()
    for bad in (
        get(b"/v1/models", b"Host: other"),
        get(b"/v1/models", b"Content_Length: 5"),
        get(b"/v1/models", b"X: a\rb"),
        get(b"/v1/models", b"X: a\0b"),
        get(b"http://other/v1/models"),
        get(b"v1/models"),
        get(b"/v1/models", method=b"TRACE"),
        get(b"/v1/models", b"Connection: upgrade", b"Upgrade: websocket"),
    ):
        client = await workshop.client(proxy)
        got = await client.ask(bad)
        assert got.status in (400, 404, 501), bad
        client.transport.abortConnection()
    assert not upstream.requests


@pytest_twisted.ensureDeferred
async def test_refusals_have_the_providers_shape(workshop: Workshop, upstream: FakeUpstream) -> None:
    client = await workshop.client(await workshop.serve(server={"max_body": 10}))
    got = await client.ask(request(b"/v1/messages", b"anthropic-version: 2023-06-01", body=b"x" * 11))
    assert (got.status, got.json["type"]) == (413, "error")
    assert got.get(b"x-llmproxyd-code") == b"body_too_large"


@SITES
@pytest_twisted.ensureDeferred
async def test_before_the_start_and_after_the_end_requests_are_refused(
    workshop: Workshop, upstream: FakeUpstream, site: str
) -> None:
    upstream.scripts = [[Send(answer(b"ok"))]]
    proxy = await workshop.serve(site=site, start=False)
    client = await workshop.client(proxy)
    got = await client.ask(request(CHAT))
    assert (got.status, got.get(b"x-llmproxyd-code"), got.get(b"retry-after")) == (503, b"starting", b"1")
    await proxy.start()
    assert (await client.ask(request(CHAT))).status == 200
    await proxy.stop()
    # The daemon's kind of site keeps no connection then.
    got = await (await workshop.client(proxy)).ask(request(CHAT))
    assert (got.status, got.get(b"x-llmproxyd-code")) == (503, b"shutting_down")
    assert len(upstream.requests) == 1


@SITES
@pytest_twisted.ensureDeferred
async def test_stop_lets_requests_under_way_end(
    workshop: Workshop, upstream: FakeUpstream, site: str
) -> None:
    gate = Gate()
    upstream.scripts = [[Send(stream_head() + chunk(event(b"1"))), gate, Send(LAST_CHUNK)]]
    proxy = await workshop.serve(site=site)
    client = await workshop.client(proxy)
    client.send(request(CHAT))
    await client.has(event(b"1"))
    stopping, twice = proxy.stop(), proxy.stop()
    await pause(0.05)
    assert not stopping.called
    gate.open()
    await stopping
    await twice
    assert (await client.answer()).whole


@SITES
@pytest.mark.parametrize("begun", [True, False])
@pytest_twisted.ensureDeferred
async def test_stop_cuts_what_takes_too_long(
    workshop: Workshop, upstream: FakeUpstream, site: str, begun: bool
) -> None:
    upstream.scripts = [[*([Send(stream_head() + chunk(event(b"1")))] if begun else []), Stall()]]
    proxy = await workshop.serve(site=site)
    client = await workshop.client(proxy)
    client.send(request(CHAT))
    await until(lambda: upstream.requests, "the request")
    if begun:
        await client.has(event(b"1"))
    await proxy.stop(0.05)
    got = await client.answer()
    assert (got.status, got.whole) == ((200, False) if begun else (503, True))
    assert b"shutting_down" in got.body


@SITES
@pytest_twisted.ensureDeferred
async def test_two_in_one_site_keep_apart(workshop: Workshop, upstream: FakeUpstream, site: str) -> None:
    other = FakeUpstream([Send(answer(b"other"))]).listen(reactor)
    upstream.scripts = [[Send(answer(b"one"))]]
    try:
        root = Resource()
        first = workshop.proxy()
        second = workshop.proxy(upstreams={"openai": {"base_url": other.url}})
        root.putChild(b"a", first)
        root.putChild(b"b", second)
        await first.start()
        await second.start()
        client = await workshop.connect(workshop.listen(first, root, site=site))
        same = request(b"/a" + CHAT)
        bodies = [(await client.ask(one)).body for one in (same, same.replace(b"/a", b"/b"), same)]
        assert bodies == [b"one", b"other", b"one"]
        assert (first.metrics().requests, second.metrics().requests) == (2, 1)
    finally:
        await other.stop()


@pytest_twisted.ensureDeferred
async def test_key_in_the_query_is_not_in_the_sites_access_log(
    workshop: Workshop, upstream: FakeUpstream
) -> None:
    upstream.scripts = [[Send(answer(b"ok"))]]
    client = await workshop.client(await workshop.serve(access_log=True))
    await client.ask(request(b"/v1beta/models/gemini-2.5-pro:generateContent?key=AIzaSecretSecret&alt=sse"))
    assert b"key=AIzaSecretSecret" in upstream.requests[0].target
    assert "generateContent?key=" in workshop.access_log
    assert "AIzaSecret" not in workshop.access_log


@pytest_twisted.ensureDeferred
async def test_failure_can_be_rehearsed(workshop: Workshop, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Send(answer(b"ok"))]]
    proxy = await workshop.serve(faults={"mode": "r 1"})
    client = await workshop.client(proxy)
    assert [(await client.ask(request(CHAT))).status for _ in range(2)] == [429, 200]
    proxy.rehearse("c 1")
    assert (await client.ask(request(CHAT))).get(b"x-llmproxyd-error") == b"injected"


@pytest_twisted.ensureDeferred
async def test_metrics_pages(workshop: Workshop, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Send(json_answer({"error": {}}, status=b"400 Bad Request"))]]
    root = Resource()
    proxy = workshop.proxy()
    root.putChild(b"llm", proxy)
    root.putChild(b"metrics", proxy.metrics_page())
    await proxy.start()
    client = await workshop.connect(workshop.listen(proxy, root))
    await client.ask(request(b"/llm" + CHAT))
    got = await client.ask(get(b"/metrics"))
    assert got.get(b"content-type") == b"text/plain; version=0.0.4; charset=utf-8"
    assert b'llmproxyd_requests_total{upstream="openai"' in got.body
    assert proxy.metrics() == ProxyMetrics(requests=1, errors=1)


@SITES
@pytest_twisted.ensureDeferred
async def test_cache_counters(workshop: Workshop, upstream: FakeUpstream, site: str) -> None:
    cached = answer(b"models", b"cache-control: public, max-age=60")
    upstream.scripts = [[Send(cached)], [Send(cached)]]
    proxy = await workshop.serve(site=site, cache={"enabled": True})
    client = await workshop.client(proxy)
    for _ in range(3):
        assert (await client.ask(get(b"/v1/models"))).body == b"models"
    await client.ask(request(CHAT))
    assert len(upstream.requests) == 2
    assert proxy.metrics() == ProxyMetrics(
        requests=4, errors=0, cache_hits=2, cache_misses=1, cache_bypass=1, cache_stores=1
    )


@SITES
@pytest_twisted.ensureDeferred
async def test_leader_that_leaves_serves_its_followers(
    workshop: Workshop, upstream: FakeUpstream, site: str
) -> None:
    """Its body, in a file of the request's, outlives the request: it is sent a second time."""
    gate = Gate()
    upstream.scripts = [
        [gate, Send(answer(b"no", status=b"500 Internal Server Error"))],
        [Send(answer(b"stored"))],
    ]
    proxy = await workshop.serve(
        site=site,
        cache={"enabled": True, "rules": [{"path": "/v1/*", "default_ttl": "60s"}]},
        resilience={"default": {"retry": {"max_retries": 1, "base_delay": "10ms"}}},
    )
    one = request(CHAT, body=b"x" * 400_000)
    leader, follower = await workshop.client(proxy), await workshop.client(proxy)
    leader.send(one)
    await until(lambda: upstream.requests, "the request")
    follower.send(one)
    await until(lambda: len(proxy.pipeline.active) == 2, "the other request")
    leader.transport.abortConnection()
    await pause(0.05)
    gate.open()
    got = await follower.answer()
    assert got.body == b"stored"
    assert [one.body for one in upstream.requests] == [b"x" * 400_000] * 2


@pytest_twisted.ensureDeferred
async def test_client_that_does_not_read_what_was_cut_is_not_waited_for(
    workshop: Workshop, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stock, "GOODBYE", 0.1)
    upstream.scripts = [[Send(stream_head()), Pour(chunk(event(b"x" * 65000)), 500), Stall()]]
    proxy = await workshop.serve()
    client = await workshop.client(proxy)
    client.transport.pauseProducing()
    client.send(request(CHAT))
    await until(lambda: proxy.pipeline.active, "the request")
    await pause(0.3)
    await proxy.stop(0)
    await pause(0.5)
    client.transport.resumeProducing()
    await until(lambda: client.lost, "the end of the connection")
    assert client.reset


def test_configuration_comes_from_a_mapping_or_a_file(tmp_path: Any) -> None:
    file = tmp_path / "llmproxyd.yaml"
    file.write_text("default_upstream: anthropic\nserver: {max_body: 1KiB}\n")
    config = configured({"default_upstream": "mistral"}, file=file, environ={})
    assert (config.default_upstream, config.server.max_body) == ("mistral", 1024)

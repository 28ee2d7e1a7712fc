"""Requests and answers pass unchanged, byte for byte."""

from __future__ import annotations

import gzip
import random
from typing import Any

import pytest
import pytest_twisted
from bench import Ask, Bench
from wireclient import get, request

from llmproxyd.testing.upstream import (
    LAST_CHUNK,
    Close,
    FakeUpstream,
    Received,
    Send,
    answer,
    chunk,
    head,
    json_answer,
    stream_head,
)

OK = Send(json_answer({"ok": True}))
HOP_BY_HOP = (
    b"Keep-Alive: timeout=5",
    b"Proxy-Authenticate: Basic",
    b"Proxy-Authorization: Basic eDp5",
    b"Proxy-Connection: keep-alive",
    b"TE: trailers",
    b"Trailer: x-checksum",
    b"Upgrade: h2c",
)
HOP_NAMES = {line.partition(b":")[0].lower() for line in HOP_BY_HOP} | {b"connection"}

TARGETS = (
    b"/v1/chat/completions",
    b"/v1/files/a%2Fb%3Ac",
    b"/v1/files/a%2fb%3ac",
    b"/v1beta/models/gemini-x%3AgenerateContent",
    b"/v1beta/models/gemini-x:generateContent",
    b"/v1//models",
    b"//v1/models",
    b"/v1/models/",
    b"/v1/./a/../models",
    b"/v1/a;b=1;c/models",
    b"/v1/models;",
    b"/v1/models?",
    b"/v1/models?a;b;",
    b"/v1/models?x=1&x=2",
    b"/v1/models?x=%C3%A9%20+&&=",
    b"/v1/models?a=b?c/d",
    b"/v1/%C3%A9%25%00",
    b"/v1/~!$&'()*+,=@|\\\"<>{}[]^`",
    b"/",
    b"/?x",
)


def only(upstream: FakeUpstream) -> Received:
    assert len(upstream.requests) == 1
    return upstream.requests[0]


@pytest.mark.parametrize("base", ["", "/base", "/base/v2%2F;x"])
@pytest_twisted.ensureDeferred
async def test_every_target_arrives_as_it_was_sent(bench: Bench, upstream: FakeUpstream, base: str) -> None:
    upstream.scripts = [[OK]]
    client = await bench.client(bench.proxy(base_url=upstream.url + base))
    for target in TARGETS:
        assert (await client.ask(get(target))).status == 200, target
    assert [one.target for one in upstream.requests] == [base.encode() + target for target in TARGETS]


@pytest.mark.parametrize("method", [b"GET", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"QUERY", b"PURGE"])
@pytest_twisted.ensureDeferred
async def test_any_method_passes(ask: Ask, upstream: FakeUpstream, method: bytes) -> None:
    assert (await ask(get(b"/v1/models", method=method), OK)).status == 200
    assert only(upstream).method == method


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"PATCH", b"DELETE", b"GET"])
@pytest_twisted.ensureDeferred
async def test_a_binary_body_passes(ask: Ask, upstream: FakeUpstream, method: bytes) -> None:
    body = bytes(range(256)) + b'\r\n\r\n{"a" :1 , "a":2}\n'
    await ask(request(b"/v1/files", b"Content-Type: a/b", method=method, body=body), OK)
    got = only(upstream)
    assert (got.body, got.all(b"content-length")) == (body, [b"%d" % len(body)])
    assert got.all(b"transfer-encoding") == []


@pytest_twisted.ensureDeferred
async def test_five_megabytes_pass_both_ways(ask: Ask, upstream: FakeUpstream) -> None:
    sent = random.Random(1).randbytes(5_000_000)
    back = random.Random(2).randbytes(5_000_000)
    got = await ask(request(b"/v1/files", body=sent), Send(answer(back)))
    assert got.body == back
    assert got.whole
    assert only(upstream).body == sent


@pytest_twisted.ensureDeferred
async def test_a_chunked_request_body_passes(ask: Ask, upstream: FakeUpstream) -> None:
    body = chunk(b"one") + chunk(b"two") + LAST_CHUNK
    await ask(request(b"/v1/files", b"Transfer-Encoding: chunked", body=None) + body, OK)
    assert only(upstream).body == b"onetwo"


@pytest_twisted.ensureDeferred
async def test_an_empty_post_stays_empty(ask: Ask, upstream: FakeUpstream) -> None:
    await ask(request(b"/v1/files", body=b""), OK)
    got = only(upstream)
    assert (got.body, got.all(b"content-length")) == (b"", [b"0"])
    assert got.all(b"transfer-encoding") == []


@pytest_twisted.ensureDeferred
async def test_end_to_end_fields_pass_with_duplicates(ask: Ask, upstream: FakeUpstream) -> None:
    fields = [
        b"X-Many: a",
        b"X-Many: b, c",
        b"X-Many: a",
        b"Cookie: a=1",
        b"Cookie: b=2",
        b"Authorization: Bearer sk-x",
        b"X-Empty:",
        b"X-Latin: caf\xe9",
        b"X-Spaces: a   b",
        b"Accept: */*",
        b"Origin: https://example.com",
        b"Range: bytes=0-1",
        b'If-None-Match: "x"',
        b"Forwarded: for=1.2.3.4",
        b"traceparent: 00-1-2-00",
    ]
    got = await ask(
        request(b"/v1/chat/completions", *fields),
        Send(answer(b"x", *fields, b"Set-Cookie: a=1", b"Set-Cookie: b=2; Path=/")),
    )
    for side in (only(upstream), got):
        assert side.all(b"x-many") == [b"a", b"b, c", b"a"]
        assert side.all(b"cookie") == [b"a=1", b"b=2"]
        assert side.all(b"x-empty") == [b""]
        assert side.all(b"x-latin") == [b"caf\xe9"]
        assert side.all(b"x-spaces") == [b"a   b"]
        for line in fields[9:]:
            name, _, value = line.partition(b": ")
            assert side.all(name.lower()) == [value]
    assert got.all(b"set-cookie") == [b"a=1", b"b=2; Path=/"]


@pytest_twisted.ensureDeferred
async def test_hop_by_hop_fields_stay_on_their_side(ask: Ask, upstream: FakeUpstream) -> None:
    fields = [
        *HOP_BY_HOP,
        b"Connection: keep-alive, X-Private",
        b"Connection: ,x-second ,  X-THIRD",
        b"x-private: 1",
        b"X-Second: 2",
        b"x-third: 3",
        b"X-Kept: 4",
    ]
    got = await ask(request(b"/v1/chat/completions", *fields), Send(answer(b"x", *fields)))
    for names in ({name.lower() for name, _ in only(upstream).headers}, got.names):
        assert names.isdisjoint(HOP_NAMES | {b"x-private", b"x-second", b"x-third"})
        assert b"x-kept" in names


@pytest_twisted.ensureDeferred
async def test_connection_close_of_the_client_is_its_own(ask: Ask, upstream: FakeUpstream) -> None:
    got = await ask(request(b"/v1/chat/completions", b"Connection: close, x-private", b"x-private: 1"), OK)
    assert got.status == 200
    assert {name.lower() for name, _ in only(upstream).headers} == {b"host", b"content-length"}


@pytest_twisted.ensureDeferred
async def test_host_and_framing_are_ours(ask: Ask, upstream: FakeUpstream) -> None:
    await ask(request(b"/v1/files", b"Expect: 100-continue", host=b"proxy.example:1", body=b"abc"), OK)
    got = only(upstream)
    assert got.all(b"host") == [upstream.url.removeprefix("http://").encode()]
    assert got.all(b"content-length") == [b"3"]
    assert got.all(b"expect") == []


@pytest_twisted.ensureDeferred
async def test_fields_for_the_proxy_never_go_upstream(ask: Ask, upstream: FakeUpstream) -> None:
    await ask(request(b"/v1/chat/completions", b"X-LLMProxyd-Fault: rate_limit", b"x-llmproxyd-x: 1"), OK)
    assert not [name for name, _ in only(upstream).headers if name.lower().startswith(b"x-llmproxyd")]


@pytest_twisted.ensureDeferred
async def test_nothing_is_added(ask: Ask, upstream: FakeUpstream) -> None:
    """No User-Agent, Accept, Accept-Encoding there; no Server, Date, Content-Type here."""
    got = await ask(get(b"/v1/models"), Send(head(b"content-length: 2") + b"{}"))
    assert {name.lower() for name, _ in only(upstream).headers} == {b"host"}
    assert got.names == {b"content-length"}


@pytest_twisted.ensureDeferred
async def test_what_there_is_stays_as_it_is(ask: Ask, upstream: FakeUpstream) -> None:
    fields = [
        b"server: x/1",
        b"date: yesterday",
        b"content-type: text/x; q=1",
        b'etag: W/"1"',
        b"x-request-id: r1",
    ]
    got = await ask(
        get(b"/v1/models", b"User-Agent: u/1", b"Accept-Encoding: br, gzip"), Send(answer(b"x", *fields))
    )
    for line in fields:
        name, _, value = line.partition(b": ")
        assert got.all(name) == [value]
    assert only(upstream).all(b"user-agent") == [b"u/1"]
    assert only(upstream).all(b"accept-encoding") == [b"br, gzip"]


@pytest_twisted.ensureDeferred
async def test_nothing_is_decompressed(ask: Ask) -> None:
    packed = gzip.compress(b'{"a": 1}' * 1000)
    got = await ask(get(b"/v1/models"), Send(answer(packed, b"content-encoding: gzip")))
    assert (got.body, got.all(b"content-encoding")) == (packed, [b"gzip"])
    assert got.all(b"content-length") == [b"%d" % len(packed)]


@pytest_twisted.ensureDeferred
async def test_cookies_are_not_kept(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Send(answer(b"x", b"set-cookie: session=secret; Path=/"))]]
    proxy = bench.proxy()
    for _ in range(2):
        client = await bench.client(proxy)
        await client.ask(get(b"/v1/models"))
        await client.ask(get(b"/v1/models"))
    assert len(upstream.requests) == 4
    assert not [one for one in upstream.requests if one.all(b"cookie")]


@pytest.mark.parametrize("status", [b"301 Moved", b"302 Found", b"303 See Other", b"307 T", b"308 P"])
@pytest_twisted.ensureDeferred
async def test_redirects_are_the_clients(ask: Ask, upstream: FakeUpstream, status: bytes) -> None:
    got = await ask(get(b"/v1/models"), Send(answer(b"", b"location: /elsewhere", status=status)))
    assert got.status == int(status[:3])
    assert got.all(b"location") == [b"/elsewhere"]
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    "status",
    [b"200 OK", b"200 Fine By Me", b"201 ", b"206 Partial Content", b"299 Odd", b"400 Bad Request", b"401 x"]
    + [b"%d No" % status for status in (403, 404, 418, 429, 500, 502, 503, 504, 529, 599)],
)
@pytest_twisted.ensureDeferred
async def test_status_reason_and_errors_of_the_upstream_pass(ask: Ask, status: bytes) -> None:
    got = await ask(request(b"/v1/chat/completions"), Send(json_answer({"error": "own"}, status=status)))
    assert (b"%d %s" % (got.status, got.reason), got.json) == (status, {"error": "own"})
    assert not [name for name in got.names if name.startswith(b"x-llmproxyd")]


@pytest_twisted.ensureDeferred
async def test_a_head_answer_keeps_its_length(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Send(head(b"content-length: 1234", b"content-type: a/b"))], [OK]]
    client = await bench.client(bench.proxy())
    got = await client.ask(get(b"/v1/models", method=b"HEAD"))
    assert (got.status, got.all(b"content-length"), got.all(b"content-type")) == (200, [b"1234"], [b"a/b"])
    assert (await client.ask(get(b"/v1/models"))).json == {"ok": True}


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
@pytest_twisted.ensureDeferred
async def test_answers_without_a_body(bench: Bench, upstream: FakeUpstream, status: bytes) -> None:
    upstream.scripts = [[Send(head(b'etag: "x"', status=status))], [OK]]
    client = await bench.client(bench.proxy())
    got = await client.ask(get(b"/v1/models"))
    assert (got.status, got.all(b"etag")) == (int(status[:3]), [b'"x"'])
    assert got.names == {b"etag"}
    assert (await client.ask(get(b"/v1/models"))).json == {"ok": True}


@pytest_twisted.ensureDeferred
async def test_interim_answers_come_before_the_final_one(ask: Ask) -> None:
    interim = head(status=b"100 Continue") + head(b"link: </x>", status=b"103 Early Hints")
    got = await ask(request(b"/v1/chat/completions"), Send(interim), OK)
    assert (got.status, got.json) == (200, {"ok": True})


@pytest_twisted.ensureDeferred
async def test_a_body_of_no_declared_length(ask: Ask) -> None:
    """What only the end of the connection ends is whole when that end is clean."""
    got = await ask(get(b"/v1/models"), Send(head(b"content-type: a/b") + b"until the end"), Close())
    assert (got.body, got.whole) == (b"until the end", True)


@pytest_twisted.ensureDeferred
async def test_a_client_of_http_1_0(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Send(stream_head(b"a/b") + chunk(b"one") + chunk(b"two") + LAST_CHUNK)]]
    client = await bench.client(bench.proxy())
    got = await client.ask(b"GET /v1/models HTTP/1.0\r\n\r\n")
    assert (got.body, got.all(b"transfer-encoding")) == (b"onetwo", [])
    assert not client.reset


@pytest_twisted.ensureDeferred
async def test_an_upstream_of_http_1_0(ask: Ask) -> None:
    script: tuple[Any, ...] = (Send(head(b"content-type: a/b", version=b"HTTP/1.0") + b"abc"), Close())
    assert (await ask(get(b"/v1/models"), *script)).body == b"abc"


@pytest.mark.parametrize("pipelined", [False, True])
@pytest_twisted.ensureDeferred
async def test_requests_of_one_connection_are_not_mixed_up(
    bench: Bench, upstream: FakeUpstream, pipelined: bool
) -> None:
    """What is remembered of one head holds for no other: lengths, keys, targets and fields are each one's own."""
    upstream.scripts = [[OK]]
    chat, files = b"/v1/chat/completions", b"/v1/files?a=1"
    bodies = [b"{}", b"{ }", b'{"a": 1}', b"x" * 2000, b"{}", b"", b"{}"]
    asked = [request(chat, b"Authorization: Bearer sk-1", body=body) for body in bodies]
    asked += [
        request(chat, b"Authorization: Bearer sk-2"),
        request(chat, b"Authorization: Bearer sk-1", b"X-A: 1"),
        request(files, b"Authorization: Bearer sk-1"),
        request(chat, b"Authorization: Bearer sk-1", b"Transfer-Encoding: chunked", body=None)
        + b"3\r\nabc\r\n0\r\n\r\n",
        get(chat, b"Authorization: Bearer sk-1"),
        request(chat, b"Authorization: Bearer sk-1"),
        request(b"/to/anthropic/v1/messages", b"Authorization: Bearer sk-1"),
        request(chat, b"Authorization: Bearer sk-1"),
    ]
    client = await bench.client(bench.proxy())
    if pipelined:
        client.send(b"".join(asked))
        got = [await client.answer() for _ in asked]
    else:
        got = [await client.ask(one) for one in asked]
    assert [one.status for one in got] == [200] * len(asked)
    arrived = upstream.requests
    assert [one.body for one in arrived] == [*bodies, b"{}", b"{}", b"{}", b"abc", b"", b"{}", b"{}", b"{}"]
    for one in arrived:
        framed = [b"%d" % len(one.body)] if one.method == b"POST" and one.body != b"abc" else []
        assert one.all(b"content-length") == framed
        assert one.all(b"transfer-encoding") == ([b"chunked"] if one.body == b"abc" else [])
    keys = [b"Bearer sk-1"] * len(asked)
    keys[len(bodies)] = b"Bearer sk-2"
    assert [one.all(b"authorization") for one in arrived] == [[key] for key in keys]
    assert [bool(one.all(b"x-a")) for one in arrived].index(True) == len(bodies) + 1
    assert sum(bool(one.all(b"x-a")) for one in arrived) == 1
    assert [one.target for one in arrived if one.target != chat] == [files, b"/v1/messages"]


@pytest_twisted.ensureDeferred
async def test_an_upstream_that_names_its_length_in_connection(bench: Bench, upstream: FakeUpstream) -> None:
    """However it is framed towards the client, it is framed: the next answer is read from its beginning."""
    upstream.scripts = [[Send(answer(b"first", b"Connection: x, Content-Length"))], [Send(answer(b"second"))]]
    client = await bench.client(bench.proxy())
    client.send(get(b"/v1/models") + get(b"/v1/models"))
    assert (await client.answer()).body == b"first"
    assert (await client.answer()).body == b"second"

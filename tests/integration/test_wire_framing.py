"""Where a request's body ends is told once and plainly, or the request is refused; bodies flow."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from bench import Bench
from rawhttp import (
    FILES,
    FRAMING_CODES,
    NEXT,
    OK,
    Flood,
    accepted,
    answered,
    ended,
    half_client,
    models,
    post,
    refused,
    send_all,
    settled,
    small_buffers,
    turns,
    ways,
)
from wireclient import Client, pause, until

from llmproxyd.model import End
from llmproxyd.testing.upstream import (
    LAST_CHUNK,
    Close,
    FakeUpstream,
    Send,
    Stall,
    Wait,
    answer,
    chunk,
    json_answer,
)

CHUNKED = b"Transfer-Encoding: chunked"
ABC = chunk(b"abc") + LAST_CHUNK


# Transfer-Encoding, RFC 9112 §6.1, §6.3.


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param((b"Transfer-Encoding: gzip, chunked",), id="gzip-chunked"),
        pytest.param((b"Transfer-Encoding: chunked, chunked",), id="chunked-chunked"),
        pytest.param((b"Transfer-Encoding: chunked, gzip",), id="chunked-gzip"),
        pytest.param((b"Transfer-Encoding: identity",), id="identity"),
        pytest.param((b"Transfer-Encoding: gzip",), id="gzip"),
        pytest.param((CHUNKED, CHUNKED), id="twice"),
        pytest.param((CHUNKED, b"X-A: b", b"transfer-encoding: identity"), id="chunked-then-identity"),
        pytest.param((b"Transfer-Encoding: identity", CHUNKED), id="identity-then-chunked"),
        pytest.param((b"Transfer-Encoding: xchunked",), id="xchunked"),
        pytest.param((b"Transfer-Encoding: chunkedx",), id="chunkedx"),
        pytest.param((b"Transfer-Encoding: chunked;q=1",), id="parameter"),
        pytest.param((b'Transfer-Encoding: "chunked"',), id="quoted"),
        pytest.param((b"Transfer-Encoding: ,chunked",), id="comma-before"),
        pytest.param((b"Transfer-Encoding: chunked,",), id="comma-behind"),
        pytest.param((b"Transfer-Encoding:  chunked\x0b",), id="vertical-tab"),
        pytest.param((b"Transfer-Encoding: chunked\x00",), id="nul"),
        pytest.param((b"Transfer-Encoding: chun\tked",), id="tab-within"),
        pytest.param((b"Transfer-Encoding:\r\n chunked",), id="folded"),
        pytest.param((b"Transfer-Encoding : chunked",), id="space-before-the-colon"),
        pytest.param((b"Transfer-Encoding:",), id="empty"),
        pytest.param((CHUNKED, b"Content-Length: 3"), id="with-length"),
        pytest.param((b"Content-Length: 3", CHUNKED), id="length-with"),
        pytest.param((b"Content-Length: 0", CHUNKED), id="length-zero-with"),
        pytest.param((b"Content-Length: 3", b"Transfer-Encoding: identity"), id="length-with-identity"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_transfer_encoding_is_chunked_or_nothing(
    bench: Bench, upstream: FakeUpstream, fields: tuple[bytes, ...]
) -> None:
    await refused(bench, upstream, post(*fields, body=ABC), 400, *FRAMING_CODES)


@pytest_twisted.ensureDeferred
async def test_no_transfer_encoding_in_http_1_0(bench: Bench, upstream: FakeUpstream) -> None:
    """RFC 9112 §6.1: such framing is faulty, however it looks."""
    data = post(CHUNKED, b"Connection: keep-alive", version=b"HTTP/1.0", body=ABC)
    await refused(bench, upstream, data, 400, *FRAMING_CODES)


@pytest.mark.parametrize(
    "field",
    [
        b"Transfer-Encoding: chunked",
        b"transfer-encoding:chunked",
        b"TRANSFER-ENCODING: Chunked",
        b"Transfer-Encoding: \t CHUNKED  ",
    ],
)
@pytest_twisted.ensureDeferred
async def test_chunked_in_any_case(bench: Bench, upstream: FakeUpstream, field: bytes) -> None:
    for one in await accepted(bench, upstream, post(field, body=ABC)):
        assert one.body == b"abc"
        assert [value.lower() for value in one.all(b"transfer-encoding")] == [b"chunked"]
        assert one.all(b"content-length") == []


# Content-Length, RFC 9110 §8.6, RFC 9112 §6.3.


def length(value: bytes) -> bytes:
    return b"Content-Length: " + value


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param((length(b"+1"),), id="plus"),
        pytest.param((length(b"-1"),), id="minus"),
        pytest.param((length(b"1, 1"),), id="list"),
        pytest.param((length(b"1,"),), id="comma"),
        pytest.param((length(b"1"), length(b"1")), id="twice"),
        pytest.param((length(b"1"), b"X-A: b", b"content-length: 2"), id="two"),
        pytest.param((length(b"0x1"),), id="hex"),
        pytest.param((length(b"1 x"),), id="junk"),
        pytest.param((length(b"1 1"),), id="two-numbers"),
        pytest.param((length(b"1;x"),), id="parameter"),
        pytest.param((length(b"1.0"),), id="fraction"),
        pytest.param((length(b"1e1"),), id="exponent"),
        pytest.param((length(b"1_0"),), id="underscore"),
        pytest.param((length(b"\xb2"),), id="superscript"),
        pytest.param((length(b"1\x0b"),), id="vertical-tab"),
        pytest.param((b"Content-Length:",), id="empty"),
        pytest.param((length(b"\r\n 1"),), id="folded"),
        pytest.param((b"Content-Length : 1",), id="space-before-the-colon"),
        pytest.param((length(b"9223372036854775808"),), id="2^63"),
        pytest.param((length(b"18446744073709551616"),), id="2^64"),
        pytest.param((length(b"18446744073709551617"),), id="2^64+1"),
        pytest.param((length(b"1" + b"0" * 40),), id="10^40"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_lengths_that_are_none(bench: Bench, upstream: FakeUpstream, fields: tuple[bytes, ...]) -> None:
    await refused(bench, upstream, post(*fields, body=b"a"), 400, *FRAMING_CODES)


@pytest_twisted.ensureDeferred
async def test_the_greatest_length(bench: Bench, upstream: FakeUpstream) -> None:
    """It is a number, of more bytes than are allowed: told at once, without any body."""
    data = post(length(b"9223372036854775807"))
    await refused(bench, upstream, data, 413, "body_too_large", behind=b"")


@pytest.mark.parametrize("field", [b"Content-Length:3", b"content-length: \t3 \t", b"CONTENT-LENGTH: 3"])
@pytest_twisted.ensureDeferred
async def test_lengths(bench: Bench, upstream: FakeUpstream, field: bytes) -> None:
    for one in await accepted(bench, upstream, post(field, body=b"abc")):
        assert (one.body, one.all(b"content-length")) == (b"abc", [b"3"])
        assert one.all(b"transfer-encoding") == []


@pytest.mark.parametrize("method", [b"GET", b"DELETE", b"OPTIONS"])
@pytest.mark.parametrize("fields", [(length(b"3"), b"abc"), (CHUNKED, ABC)], ids=["length", "chunked"])
@pytest_twisted.ensureDeferred
async def test_a_body_where_none_is_usual(
    bench: Bench, upstream: FakeUpstream, method: bytes, fields: tuple[bytes, bytes]
) -> None:
    data = post(fields[0], body=fields[1]).replace(b"POST", method, 1)
    for one in await accepted(bench, upstream, data):
        assert (one.method, one.body) == (method, b"abc")


@pytest_twisted.ensureDeferred
async def test_no_framing_is_no_body(bench: Bench, upstream: FakeUpstream) -> None:
    """RFC 9112 §6.3: what follows is the next request."""
    for one in await accepted(bench, upstream, post()):
        assert one.body == b""
        assert one.all(b"transfer-encoding") == []


# Chunks, RFC 9112 §7.1.


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"3\r\nabc\r\n00\r\n\r\n", id="last-of-two-digits"),
        pytest.param(b"0003\r\nabc\r\n0\r\n\r\n", id="zeros"),
        pytest.param(b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", id="two"),
        pytest.param(b'3;a;b=c;d="e;\\"f"\r\nabc\r\n0;x=y\r\n\r\n', id="extensions"),
        pytest.param(b"3\r\nabc\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n", id="trailers"),
        pytest.param(b"3\r\nabc\r\n0\r\nHost: evil\r\n\r\n", id="host-as-trailer"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_chunks(bench: Bench, upstream: FakeUpstream, body: bytes) -> None:
    """Extensions and trailers end here, RFC 9112 §7.1.1, §7.1.2."""
    start = len(post(CHUNKED, b"Trailer: X-Sum"))
    for one in await accepted(bench, upstream, post(CHUNKED, b"Trailer: X-Sum", body=body), start=start):
        assert one.body == b"abc"
        assert one.raw.endswith(b"\r\n0\r\n\r\n")
        for name in (b"X-Sum", b"X-More", b"evil", b"Trailer", b";"):
            assert name not in one.raw


@pytest_twisted.ensureDeferred
async def test_chunk_sizes_in_either_case(bench: Bench, upstream: FakeUpstream) -> None:
    body = b"x" * 0xAB
    data = post(CHUNKED, body=b"aB\r\n%s\r\nAb\r\n%s\r\n0\r\n\r\n" % (body, body))
    (arrived,) = await accepted(bench, upstream, data, split=False)
    assert arrived.body == body * 2


@pytest_twisted.ensureDeferred
async def test_an_empty_chunked_body(bench: Bench, upstream: FakeUpstream) -> None:
    for one in await accepted(bench, upstream, post(CHUNKED, body=LAST_CHUNK)):
        assert one.body == b""


BAD_CHUNKS: list[Any] = [
    pytest.param(b"+1\r\na\r\n", id="plus"),
    pytest.param(b"-1\r\na\r\n", id="minus"),
    pytest.param(b"0x1\r\na\r\n", id="hex"),
    pytest.param(b"g\r\na\r\n", id="letter"),
    pytest.param(b"\r\na\r\n", id="none"),
    pytest.param(b"10000000000000001\r\na\r\n", id="17-digits"),
    pytest.param(b"FFFFFFFFFFFFFFFFF\r\na\r\n", id="17-fs"),
    pytest.param(b"8000000000000000\r\na\r\n", id="2^63"),
    pytest.param(b"1 ;x\r\na\r\n", id="space-before-an-extension"),
    pytest.param(b"1 \r\na\r\n", id="space-behind"),
    pytest.param(b" 1\r\na\r\n", id="space-before"),
    pytest.param(b"1\na\r\n", id="bare-lf-after-the-size"),
    pytest.param(b"1\ra\r\n", id="bare-cr-after-the-size"),
    pytest.param(b"1;x\na\r\n", id="bare-lf-after-an-extension"),
    pytest.param(b"1;x\x00\r\na\r\n", id="nul-in-an-extension"),
    pytest.param(b"1\r\nab\r\n", id="data-too-long"),
    pytest.param(b"1\r\na\n", id="bare-lf-after-the-data"),
    pytest.param(b"1\r\na0\r\n", id="no-line-end-after-the-data"),
    pytest.param(b"1\r\na\r\r\n", id="two-crs-after-the-data"),
    pytest.param(b"1\r\na\r\n0\n\r\n", id="bare-lf-after-the-last-size"),
    pytest.param(b"1\r\na\r\n0\r\nX A: b\r\n\r\n", id="bad-trailer"),
    pytest.param(b"1\r\na\r\n0\r\nX-A: b\r\n c\r\n\r\n", id="folded-trailer"),
    pytest.param(b"1\r\na\r\n0\r\nX-A: b\n\r\n", id="bare-lf-after-a-trailer"),
]


@pytest.mark.parametrize("body", BAD_CHUNKS)
@pytest_twisted.ensureDeferred
async def test_chunks_that_are_none(bench: Bench, upstream: FakeUpstream, body: bytes) -> None:
    """Refused, and what has gone upstream is cut off, not ended."""
    start = len(post(CHUNKED))
    await refused(
        bench,
        upstream,
        post(CHUNKED, body=body),
        400,
        *FRAMING_CODES,
        behind=LAST_CHUNK + NEXT,
        start=start,
        untouched=False,
    )
    await until(lambda: not upstream.open, "the upstream's connections to end")
    assert not upstream.requests
    assert not [one for one in upstream.connections if one.buffer.endswith(b"0\r\n\r\n")]


@pytest_twisted.ensureDeferred
async def test_a_bad_chunk_is_refused_in_the_clients_dialect(bench: Bench, upstream: FakeUpstream) -> None:
    """Whether it comes with the head or behind it."""
    fields = (b"anthropic-version: 2023-06-01", b"x-api-key: sk-ant-x", CHUNKED)
    proxy = await refused(
        bench,
        upstream,
        post(*fields, body=b"-1\r\na\r\n", target=b"/v1/messages"),
        400,
        *FRAMING_CODES,
        behind=LAST_CHUNK + NEXT,
        start=len(post(*fields, target=b"/v1/messages")),
        untouched=False,
        code=lambda got: got.json["error"]["details"]["error_code"],
    )
    assert {(one.path, one.provider) for one in proxy.finished} == {("/v1/messages", "anthropic")}


@pytest_twisted.ensureDeferred
async def test_a_bad_chunk_after_the_answer_began(bench: Bench, upstream: FakeUpstream) -> None:
    """No second answer: the connections are ended."""
    upstream.at_head = True
    upstream.scripts = [[Send(answer(b"early")), Stall()]]
    client = await bench.client(bench.proxy())
    client.send(post(CHUNKED, body=chunk(b"abc")))
    await client.has(b"early")
    client.send(b"-1\r\n" + NEXT)
    await client.closed()
    assert client.received.count(b"HTTP/1.1 ") == 1
    await until(lambda: not upstream.open, "the upstream's connection to end")
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("end", [b"\r\n", b""], ids=["whole", "without-an-end"])
@pytest.mark.parametrize(
    "trailers",
    [b"X-A: " + b"v" * 70_000 + b"\r\n", b"X-A: vvvvvvvv\r\n" * 6000, b"X-A: vvvvvvvv\r\n" * 20_000],
    ids=["one", "many", "very-many"],
)
@pytest_twisted.ensureDeferred
async def test_trailers_are_bounded(
    bench: Bench, upstream: FakeUpstream, trailers: bytes, end: bytes
) -> None:
    upstream.scripts = [[OK]]
    proxy = bench.proxy()
    data = post(CHUNKED, body=chunk(b"abc") + b"0\r\n" + trailers + end)
    pieces = [data[at : at + 4000] for at in range(0, len(data), 4000)]
    clients = await send_all(bench, proxy, [[data], pieces])
    await settled(clients, ended)
    for client in clients:
        (got,) = answered(client)
        assert got.status in (400, 431)
        assert ended(client)
        assert not client.reset
    await until(lambda: not upstream.open, "the upstream's connections to end")
    assert not upstream.requests


@pytest_twisted.ensureDeferred
async def test_chunk_extensions_are_bounded(bench: Bench, upstream: FakeUpstream) -> None:
    """RFC 9112 §7.1.1: a server limits them."""
    upstream.scripts = [[OK]]
    client = await bench.client(bench.proxy())
    client.send(post(CHUNKED, body=b"3;" + b"x" * 300_000))
    await settled([client], ended)
    (got,) = answered(client)
    assert got.status in (400, 431)
    assert ended(client)
    await until(lambda: not upstream.open, "the upstream's connection to end")
    assert not upstream.requests


# Bodies that are too large: ``server.max_body``.

LIMIT = 1000


@pytest_twisted.ensureDeferred
async def test_too_large_by_its_length(bench: Bench, upstream: FakeUpstream) -> None:
    """Told before any of it has come."""
    await refused(
        bench,
        upstream,
        post(length(b"1001")),
        413,
        "body_too_large",
        behind=b"",
        closes=False,
        server={"max_body": LIMIT},
    )
    assert not upstream.connections


@pytest_twisted.ensureDeferred
async def test_too_large_by_its_chunks(bench: Bench, upstream: FakeUpstream) -> None:
    """As soon as the sum exceeds, and what has gone upstream is cut off."""
    upstream.scripts = [[OK]]
    proxy = bench.proxy(server={"max_body": LIMIT})
    client = await bench.client(proxy)
    client.send(post(CHUNKED, body=chunk(b"a" * 600)))
    await until(lambda: upstream.connections and b"aaa" in upstream.connections[0].buffer, "the first chunk")
    client.send(chunk(b"b" * 400))
    await turns(20)
    assert not client.received
    client.send(b"1\r\nc")
    got = await client.answer()
    assert (got.status, got.json["error"]["code"]) == (413, "body_too_large")
    await until(lambda: not upstream.open, "the upstream's connection to end")
    assert not upstream.requests
    assert [one.status for one in proxy.finished] == [413]


@pytest.mark.parametrize("size", [b"3e9", b"ffffff", b"fffffff"])
@pytest_twisted.ensureDeferred
async def test_too_large_by_the_size_of_a_chunk_that_comes(
    bench: Bench, upstream: FakeUpstream, size: bytes
) -> None:
    """By the sum at the latest: this much is never taken in."""
    upstream.scripts = [[OK]]
    proxy = bench.proxy(server={"max_body": LIMIT})
    client = await bench.client(proxy)
    client.send(post(CHUNKED, body=size + b"\r\n" + b"x" * 1001))
    assert (await client.answer()).status == 413
    await until(lambda: not upstream.open, "the upstream's connection to end")
    assert not upstream.requests


@pytest_twisted.ensureDeferred
async def test_just_not_too_large(bench: Bench, upstream: FakeUpstream) -> None:
    data = post(CHUNKED, body=chunk(b"a" * 500) * 2 + LAST_CHUNK)
    (one,) = await accepted(bench, upstream, data, split=False, server={"max_body": LIMIT})
    assert len(one.body) == LIMIT


# Bodies flow.

FIRST, REST = b"a" * 30_000, b"b" * 30_000
FLOWING: list[Any] = [
    pytest.param(post(length(b"60000")) + FIRST, REST, id="length"),
    pytest.param(post(CHUNKED) + chunk(FIRST), chunk(REST) + LAST_CHUNK, id="chunked"),
]


async def begun(upstream: FakeUpstream) -> None:
    """Wait until all of FIRST has gone upstream."""
    await until(
        lambda: upstream.connections and upstream.connections[0].buffer.count(b"a") >= len(FIRST),
        "the first part of the body",
    )


@pytest.mark.parametrize(("start", "rest"), FLOWING)
@pytest_twisted.ensureDeferred
async def test_a_body_goes_on_as_it_comes(
    bench: Bench, upstream: FakeUpstream, start: bytes, rest: bytes
) -> None:
    upstream.scripts = [[OK]]
    client = await bench.client(bench.proxy())
    client.send(start)
    await begun(upstream)
    assert not upstream.requests
    client.send(rest + NEXT)
    assert (await client.answer()).status == 200
    assert (await client.answer()).status == 200
    one = upstream.requests[0]
    assert one.body == FIRST + REST
    chunked = CHUNKED in start
    assert one.all(b"transfer-encoding") == ([b"chunked"] if chunked else [])
    assert one.all(b"content-length") == ([] if chunked else [b"60000"])


@pytest.mark.parametrize(("start", "rest"), FLOWING)
@pytest.mark.parametrize("way", ["closes", "resets"])
@pytest_twisted.ensureDeferred
async def test_a_client_that_breaks_off(
    bench: Bench, upstream: FakeUpstream, start: bytes, rest: bytes, way: str
) -> None:
    """What came is never taken for the whole: the upstream's connection is cut."""
    upstream.scripts = [[OK]]
    proxy = bench.proxy()
    client = await bench.client(proxy)
    client.send(start)
    await begun(upstream)
    if way == "closes":
        client.transport.loseConnection()
    else:
        client.transport.abortConnection()
    await until(lambda: proxy.finished, "the end of the request")
    await until(lambda: not upstream.open, "the upstream's connection to end")
    (finished,) = proxy.finished
    assert (finished.end, finished.status) == (End.CLIENT_GONE, 499)
    assert not upstream.requests
    assert not upstream.connections[0].buffer.endswith(b"0\r\n\r\n")
    assert not proxy.daemon.pipeline.active


@pytest.mark.parametrize("end", [[Stall()], [Wait(0.1), Close()]], ids=["stays", "closes"])
@pytest.mark.parametrize(("start", "rest"), FLOWING)
@pytest_twisted.ensureDeferred
async def test_an_answer_before_the_body_is_complete(
    bench: Bench, upstream: FakeUpstream, start: bytes, rest: bytes, end: list[Any]
) -> None:
    """RFC 9112 §9.3, §9.6: the client hears it although it is still sending."""
    upstream.at_head = True
    told = json_answer({"error": "own"}, b"connection: close", status=b"413 Too Large")
    upstream.scripts = [[Send(told), *end]]
    proxy = bench.proxy()
    client = await bench.client(proxy)
    client.send(start)
    got = await client.answer()
    assert (got.status, got.json, got.whole) == (413, {"error": "own"}, True)
    client.send(rest)
    await until(lambda: not upstream.open, "the upstream's connection to end")
    await until(lambda: proxy.finished, "the end of the request")
    assert [(one.status, one.end) for one in proxy.finished] == [(413, End.COMPLETE)]
    assert not client.reset


@pytest_twisted.ensureDeferred
async def test_an_upstream_that_does_not_read(bench: Bench, upstream: FakeUpstream) -> None:
    """The client is paused: of 64 MB, little is taken in; later, all of it arrives."""
    size = 64 * 1024 * 1024
    upstream.scripts = [[Stall()]]
    upstream.at_head = True
    proxy = bench.proxy(server={"max_body": size})
    small_buffers(upstream._port, *proxy.daemon.listening.ports)
    client = await half_client(bench, proxy, small=True)
    client.send(post(length(b"%d" % size)))
    await until(lambda: upstream.requests, "the head of the request")
    transport = upstream.connections[0].transport
    transport.pauseProducing()
    flood = Flood(client, b"x" * 65536, size // 65536)
    taken = await flood.stuck()
    assert taken < 8_000_000
    assert not flood.done
    assert not ended(client)
    client.transport.abortConnection()
    await until(lambda: proxy.finished, "the end of the request")
    transport.resumeProducing()
    await until(lambda: not upstream.open, "the upstream's connection to end")


@pytest_twisted.ensureDeferred
async def test_an_upstream_that_reads_slowly_gets_everything(bench: Bench, upstream: FakeUpstream) -> None:
    size = 8 * 1024 * 1024
    upstream.scripts = [[OK]]
    proxy = bench.proxy(server={"max_body": size})
    small_buffers(upstream._port, *proxy.daemon.listening.ports)
    client = await half_client(bench, proxy, small=True)
    client.send(post(length(b"%d" % size)))
    flood = Flood(client, b"x" * 65536, size // 65536)
    await until(lambda: upstream.connections, "the upstream's connection")
    transport = upstream.connections[0].transport
    for _ in range(5):
        transport.pauseProducing()
        await pause(0.05)
        transport.resumeProducing()
        await turns()
    assert (await client.answer()).status == 200
    assert flood.done
    assert [len(one.body) for one in upstream.requests] == [size]


# What one connection may not do to the next request.


@pytest_twisted.ensureDeferred
async def test_a_body_that_looks_like_a_request(bench: Bench, upstream: FakeUpstream) -> None:
    """Framing alone says where a body ends."""
    inner = models(b"X-Smuggled: 1")
    for data in (post(length(b"%d" % len(inner)), body=inner), post(CHUNKED, body=chunk(inner) + LAST_CHUNK)):
        arrived = await accepted(bench, upstream, data)
        assert {one.target for one in arrived} == {FILES}
        assert {one.body for one in arrived} == {inner}


@pytest_twisted.ensureDeferred
async def test_each_connection_has_its_own_state(bench: Bench, upstream: FakeUpstream) -> None:
    """Many at once, each at another place of its request."""
    upstream.scripts = [[OK]]
    proxy = bench.proxy()
    data = post(CHUNKED, body=ABC) + post(length(b"3"), body=b"xyz")
    clients: list[Client] = await send_all(bench, proxy, ways(data, b""))
    await settled(clients, lambda one: len(answered(one, 2)) == 2)
    assert [[got.status for got in answered(one, 2)] for one in clients] == [[200, 200]] * len(clients)
    bodies = [one.body for one in upstream.requests]
    assert (bodies.count(b"abc"), bodies.count(b"xyz")) == (len(clients), len(clients))


# A client repeats itself on its connection: the same head again, or the same but for a length.


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        pytest.param((length(b"+3"),), 400, id="plus"),
        pytest.param((length(b""),), 400, id="empty"),
        pytest.param((length(b"3 3"),), 400, id="two-numbers"),
        pytest.param((length(b"3,3"),), 400, id="list"),
        pytest.param((length(b"3"), length(b"3")), 400, id="twice"),
        pytest.param((length(b"3\r\nTransfer-Encoding: chunked"),), 400, id="with-chunked"),
        pytest.param((length(b"9223372036854775808"),), 400, id="2^63"),
        pytest.param((length(b"1" * 30),), 400, id="10^30"),
        pytest.param((length(b"9223372036854775807"),), 413, id="2^63-1"),
        pytest.param((length(b"3\r\n X-A: b"),), 400, id="fold"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_good_head_first_and_a_bad_one_then(
    bench: Bench, upstream: FakeUpstream, fields: tuple[bytes, ...], status: int
) -> None:
    """What was found out about the first does not excuse the second."""
    upstream.scripts = [[OK]]
    proxy = bench.proxy()
    good = post(length(b"3"), b"X-A: b", body=b"abc")
    bad = post(*fields, b"X-A: b")
    clients = await send_all(bench, proxy, ways(good + bad, b"abc" + NEXT, start=len(good)))
    await settled(clients, ended)
    for client in clients:
        assert [got.status for got in answered(client, 3)] == [200, status]
        assert ended(client)
        assert not client.reset
    assert [one.body for one in upstream.requests] == [b"abc"] * len(clients)


@pytest_twisted.ensureDeferred
async def test_heads_that_differ_by_their_length(bench: Bench, upstream: FakeUpstream) -> None:
    """Each has its own body: of another length, of none, in chunks."""
    upstream.scripts = [[OK]]
    sizes = [3, 4, 3, 0, 12, 1000, 12, 0, 0, 3]
    client = await bench.client(bench.proxy())
    client.send(b"".join(post(length(b"%d" % size), b"X-A: b", body=b"x" * size) for size in sizes))
    client.send(post(CHUNKED, body=ABC) * 2 + post() + post(length(b"2"), body=b"{}"))
    await settled([client], lambda one: len(answered(one, 14)) == 14 or ended(one))
    assert [got.status for got in answered(client, 15)] == [200] * 14
    bodies = [b"x" * size for size in sizes] + [b"abc", b"abc", b"", b"{}"]
    assert [one.body for one in upstream.requests] == bodies
    assert [one.all(b"content-length") for one in upstream.requests[:10]] == [
        [b"%d" % size] for size in sizes
    ]


@pytest_twisted.ensureDeferred
async def test_heads_that_differ_elsewhere(bench: Bench, upstream: FakeUpstream) -> None:
    """Another target, method, field or version is another request."""
    upstream.scripts = [[OK]]
    client = await bench.client(bench.proxy())
    heads = [
        post(length(b"3"), b"X-A: b", body=b"abc"),
        post(length(b"3"), b"X-A: c", body=b"abc"),
        post(length(b"3"), b"X-A: b", body=b"abc", target=FILES + b"?x"),
        post(length(b"3"), b"X-A: b", body=b"abc").replace(b"POST", b"PUT"),
        post(length(b"3"), b"X-A: b", b"Connection: x-a", body=b"abc"),
        post(length(b"3"), b"X-A: b", body=b"abc"),
    ]
    client.send(b"".join(heads))
    await settled([client], lambda one: len(answered(one, 6)) == 6 or ended(one))
    assert [
        (one.method, one.target, one.all(b"x-a"), one.all(b"connection")) for one in upstream.requests
    ] == [
        (b"POST", FILES, [b"b"], []),
        (b"POST", FILES, [b"c"], []),
        (b"POST", FILES + b"?x", [b"b"], []),
        (b"PUT", FILES, [b"b"], []),
        (b"POST", FILES, [], []),
        (b"POST", FILES, [b"b"], []),
    ]
    got = await client.ask(post(length(b"3"), b"X-A: b", body=b"abc", version=b"HTTP/1.0"))
    assert got.status == 200

"""How long a connection lives, in which order its requests are answered, and what passes on it."""

from __future__ import annotations

import time
from typing import Any

import pytest
import pytest_twisted
from bench import Bench
from rawhttp import (
    CHAT,
    FILES,
    MODELS,
    NEXT,
    OK,
    Flood,
    accepted,
    answered,
    echo,
    ended,
    half_client,
    head_of,
    models,
    post,
    send_all,
    settled,
    small_buffers,
    turns,
    ways,
)
from wireclient import Client, get, parse, pause, request, until

from llmproxyd.model import End
from llmproxyd.testing.upstream import (
    LAST_CHUNK,
    Action,
    Close,
    FakeUpstream,
    Gate,
    Send,
    answer,
    chunk,
    head,
    json_answer,
    stream_head,
)

HOST = b"Host: localhost"


# Persistence, RFC 9112 §9.3; Connection is a list over all its fields, RFC 9110 §7.6.1.


async def open_after(client: Client) -> bool:
    """Whether one more request is answered."""
    client.send(NEXT)
    await settled([client], lambda one: ended(one) or answered(one), 2)
    return bool(answered(client))


@pytest.mark.parametrize(
    "fields",
    [
        (b"Connection: close",),
        (b"connection: Close",),
        (b"Connection: keep-alive, close",),
        (b"Connection: close, keep-alive",),
        (b"Connection: x-a", b"Connection: close"),
        (b"Connection: close", b"Connection: keep-alive"),
        (b"Connection: close,x-a",),
        (b"Connection: ,\tclose ,",),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_client_that_wants_it_closed(
    bench: Bench, upstream: FakeUpstream, fields: tuple[bytes, ...]
) -> None:
    """The answer says so too (RFC 9112 §9.6), nothing behind is answered, no field it names is passed."""
    upstream.scripts = [[OK]]
    proxy = bench.proxy()
    clients = await send_all(bench, proxy, ways(models(*fields, b"x-a: 1", b"X-B: 2"), NEXT))
    await settled(clients, ended)
    for client in clients:
        got, *more = answered(client, 2)
        assert (got.status, more, client.received) == (200, [], got.raw)
        assert [value.lower() for value in got.all(b"connection")] == [b"close"]
        assert ended(client)
        assert not client.reset
    named = b"x-a" in b"".join(fields)
    for one in upstream.requests:
        assert one.target == MODELS
        assert {name.lower() for name, _ in one.headers} == {b"host", b"x-b"} | (set() if named else {b"x-a"})
    assert len(upstream.requests) == len(clients)


@pytest.mark.parametrize("fields", [(), (b"Connection: keep-alive",), (b"Connection: x-a, closed",)])
@pytest_twisted.ensureDeferred
async def test_http_1_1_is_kept(bench: Bench, upstream: FakeUpstream, fields: tuple[bytes, ...]) -> None:
    upstream.scripts = [[OK]]
    client = await bench.client(bench.proxy())
    for _ in range(3):
        got = await client.ask(models(*fields))
        assert (got.status, got.all(b"connection")) == (200, [])
    assert await open_after(client)


OLD: list[Any] = [
    pytest.param((), False, id="plain"),
    pytest.param((b"Connection: close",), False, id="close"),
    pytest.param((b"Connection: keep-alive",), True, id="keep-alive"),
    pytest.param((b"connection: x-a, Keep-Alive",), True, id="in-a-list"),
    pytest.param((b"Connection: keep-alive, close",), False, id="both"),
]


@pytest.mark.parametrize(("fields", "kept"), OLD)
@pytest_twisted.ensureDeferred
async def test_http_1_0(bench: Bench, upstream: FakeUpstream, fields: tuple[bytes, ...], kept: bool) -> None:
    """RFC 9112 §9.3, appendix C.2.2: it is kept where the client asked, and the answer says so."""
    upstream.scripts = [[OK]]
    client = await bench.client(bench.proxy())
    got = await client.ask(models(*fields, version=b"HTTP/1.0"))
    assert (got.status, got.json) == (200, {"ok": True})
    if kept:
        assert [value.lower() for value in got.all(b"connection")] == [b"keep-alive"]
        assert got.get(b"content-length") is not None
        assert await open_after(client)
    else:
        await client.closed()
        assert not client.reset
        assert not client.received
        assert b"keep-alive" not in [value.lower() for value in got.all(b"connection")]


@pytest.mark.parametrize(
    "script",
    [
        pytest.param([Send(stream_head() + chunk(b"one") + chunk(b"two") + LAST_CHUNK)], id="chunked"),
        pytest.param([Send(head() + b"onetwo"), Close()], id="until-the-end"),
    ],
)
@pytest.mark.parametrize(("fields", "kept"), OLD)
@pytest_twisted.ensureDeferred
async def test_http_1_0_never_gets_chunks(
    bench: Bench, upstream: FakeUpstream, fields: tuple[bytes, ...], kept: bool, script: list[Action]
) -> None:
    """RFC 9112 §6.1, §6.3: what has no length is ended by the connection's end."""
    upstream.scripts = [script]
    client = await bench.client(bench.proxy())
    client.send(models(*fields, version=b"HTTP/1.0"))
    await client.closed()
    assert not client.reset
    got = await client.answer()
    assert got.body == b"onetwo"
    assert got.names.isdisjoint({b"transfer-encoding", b"content-length"})
    assert b"keep-alive" not in [value.lower() for value in got.all(b"connection")]


@pytest_twisted.ensureDeferred
async def test_an_answer_that_the_upstream_ends_by_closing(bench: Bench, upstream: FakeUpstream) -> None:
    """To HTTP/1.1 it goes in chunks: whole, and the connection is kept."""
    upstream.scripts = [[Send(head(b"connection: close") + b"until the end"), Close()], [OK]]
    client = await bench.client(bench.proxy())
    got = await client.ask(models())
    assert (got.body, got.whole, got.all(b"transfer-encoding")) == (b"until the end", True, [b"chunked"])
    assert got.all(b"connection") == []
    assert await open_after(client)


# Pipelining, RFC 9112 §9.3.2.

LENGTH = request(FILES + b"?length", body=b"hello")
CHUNKED = request(FILES + b"?chunked", b"Transfer-Encoding: chunked", body=None)
CHUNKED += chunk(b"he") + chunk(b"llo") + LAST_CHUNK
PLAIN = get(MODELS + b"?get")

THREE: list[Any] = [
    pytest.param([LENGTH] * 3, id="length"),
    pytest.param([CHUNKED] * 3, id="chunked"),
    pytest.param([PLAIN] * 3, id="get"),
    pytest.param([PLAIN, LENGTH, CHUNKED], id="mixed"),
    pytest.param([CHUNKED, PLAIN, LENGTH], id="mixed-otherwise"),
]


def told_by(data: bytes) -> dict[str, str]:
    """What :func:`echo` answers to *data*."""
    return {"target": data.split(b" ")[1].decode(), "body": "" if data is PLAIN else "hello"}


@pytest.mark.parametrize("three", THREE)
@pytest_twisted.ensureDeferred
async def test_three_in_any_two_pieces(bench: Bench, upstream: FakeUpstream, three: list[bytes]) -> None:
    echo(upstream)
    proxy = bench.proxy()
    clients = await send_all(bench, proxy, ways(b"".join(three), b""))
    await settled(clients, lambda one: len(answered(one, 3)) == 3 or ended(one))
    expected = [told_by(data) for data in three]
    for client in clients:
        assert [got.json for got in answered(client, 3)] == expected
        assert not ended(client)
    assert len(upstream.requests) == 3 * len(clients)


@pytest.mark.parametrize("three", THREE)
@pytest_twisted.ensureDeferred
async def test_one_at_a_time(bench: Bench, upstream: FakeUpstream, three: list[bytes]) -> None:
    """The next is begun only when the answer to the one before is complete."""
    gates = [Gate() for _ in three]
    upstream.scripts = [
        [Send(stream_head() + chunk(b"part %d" % number)), gate, Send(chunk(b"end") + LAST_CHUNK)]
        for number, gate in enumerate(gates)
    ]
    client = await bench.client(bench.proxy())
    client.send(b"".join(three))
    for number, gate in enumerate(gates):
        await client.has(b"part %d" % number)
        await turns(20)
        assert len(upstream.requests) == number + 1
        assert sum(len(one.buffer) for one in upstream.connections) == 0
        gate.open()
        got = await client.answer()
        assert (got.body, got.whole) == (b"part %dend" % number, True)
    assert [one.target for one in upstream.requests] == [data.split(b" ")[1] for data in three]


@pytest_twisted.ensureDeferred
async def test_a_thousand_in_one_write(bench: Bench, upstream: FakeUpstream) -> None:
    echo(upstream)
    client = await bench.client(bench.proxy())
    client.send(b"".join(get(MODELS + b"?n=%d" % number) for number in range(1000)))
    until_then = time.monotonic() + 30
    while client.received.count(b'"target"') < 1000 and time.monotonic() < until_then and not ended(client):
        await pause(0.02)
    assert [got.json["target"] for got in answered(client, 1001)] == [
        f"/v1/models?n={number}" for number in range(1000)
    ]
    assert not ended(client)


@pytest_twisted.ensureDeferred
async def test_many_behind_one_that_takes_its_time(bench: Bench, upstream: FakeUpstream) -> None:
    """They wait, and none is lost."""
    gate = Gate()
    echo(upstream, gate)
    client = await bench.client(bench.proxy())
    one = request(FILES, body=b"x" * 1000)
    client.send(one * 300)
    await until(lambda: gate.reached, "the first one")
    await turns(30)
    assert len(upstream.requests) == 1
    gate.open()
    await until(lambda: len(upstream.requests) == 300, "the last one")
    await settled([client], lambda it: it.received.count(b'"target"') == 300)
    assert [got.status for got in answered(client, 301)] == [200] * 300


@pytest_twisted.ensureDeferred
async def test_a_refusal_behind_a_good_request(bench: Bench, upstream: FakeUpstream) -> None:
    """The good one is answered first, whole; then the bad one; then nothing more."""
    gate = Gate()
    upstream.scripts = [[gate, OK]]
    proxy = bench.proxy()
    bad = models(b"X A: b")
    clients = await send_all(bench, proxy, ways(PLAIN + bad, NEXT, start=len(PLAIN) - 3))
    await turns(20)
    assert not [one for one in clients if one.received or ended(one)]
    gate.open()
    await settled(clients, ended)
    for client in clients:
        assert [got.status for got in answered(client, 3)] == [200, 400]
        assert ended(client)
        assert not client.reset
    assert {one.target for one in upstream.requests} == {MODELS + b"?get"}


# Answers without a body, RFC 9110 §9.3.2, §15.3.5, §15.4.5; RFC 9112 §6.3.


@pytest.mark.parametrize(
    ("method", "status", "fields"),
    [
        (b"HEAD", b"200 OK", (b"content-length: 1234", b"content-type: a/b")),
        (b"HEAD", b"404 Not Found", (b"Content-Length: 0",)),
        (b"HEAD", b"200 OK", ()),
        (b"GET", b"204 No Content", (b'etag: "x"',)),
        (b"GET", b"304 Not Modified", (b"content-length: 55", b'etag: "x"')),
        (b"GET", b"304 Not Modified", ()),
        (b"HEAD", b"304 Not Modified", (b"content-length: 55",)),
    ],
)
@pytest_twisted.ensureDeferred
async def test_answers_without_a_body(
    bench: Bench, upstream: FakeUpstream, method: bytes, status: bytes, fields: tuple[bytes, ...]
) -> None:
    """Their fields are kept as they came; the next answer on the connection is understood."""
    upstream.scripts = [[Send(head(*fields, status=status))], [OK]]
    client = await bench.client(bench.proxy())
    client.send(get(MODELS, method=method) + NEXT)
    got = await client.answer(bodiless=True)
    assert b"%d %s" % (got.status, got.reason) == status
    assert [b"%s: %s" % pair for pair in got.headers] == list(fields)
    after = await client.answer()
    assert (after.status, after.json) == (200, {"ok": True})
    assert not client.received


@pytest_twisted.ensureDeferred
async def test_head_of_a_stream(bench: Bench, upstream: FakeUpstream) -> None:
    """No chunk, not even the last, follows the head."""
    upstream.scripts = [[Send(stream_head())], [OK]]
    client = await bench.client(bench.proxy())
    client.send(get(MODELS, method=b"HEAD") + NEXT)
    got = await client.answer(bodiless=True)
    assert (got.status, got.all(b"content-type")) == (200, [b"text/event-stream"])
    assert (await client.answer()).json == {"ok": True}


@pytest_twisted.ensureDeferred
async def test_head_refused(bench: Bench, upstream: FakeUpstream) -> None:
    """An answer of ours to HEAD has the length that GET's would have, and no body."""
    upstream.scripts = [[OK]]
    client = await bench.client(bench.proxy())
    expected = await client.ask(get(b"/to/nosuch/x"))
    client.send(get(b"/to/nosuch/x", method=b"HEAD") + NEXT)
    got = await client.answer(bodiless=True)
    assert (got.status, got.get(b"content-type")) == (404, b"application/json")
    assert got.get(b"content-length") in (None, b"%d" % len(expected.body))
    assert (await client.answer()).json == {"ok": True}


# Fidelity: order, case, duplicates and values, both ways.

REQUEST_FIELDS = (
    b"user-AGENT: x/1 (a; b)",
    b"Content-Length: 3",
    b"X-Many: a",
    b"hOST: localhost:8888",
    b"x-many: b, c",
    b"Cookie: a=1",
    b"X-Many: a",
    b"COOKIE: b=2",
    b"X-Empty: ",
    b"X-Latin: caf\xe9",
    b"aUTHORIZATION: Bearer sk-x",
    b"X-Spaces: a   b\tc",
    b'x-quoted: "a, \\"b"',
    b"accept-encoding: br;q=1.0, gzip",
    b"Accept: */*",
    b"X-!#$%&'*+-.^_`|~09: v",
)
RESPONSE_FIELDS = (
    b"x-Request-ID: r1",
    b"Set-Cookie: a=1; Path=/",
    b"CONTENT-Type: text/x; q=1",
    b"x-many: b",
    b"Content-Length: 2",
    b"Set-Cookie: b=2",
    b"X-Many: a",
    b"X-Empty: ",
    b'etag: W/"1"',
    b"X-Latin: caf\xe9",
    b"SERVER: s/1",
    b"dAtE: yesterday",
)


def pairs(lines: tuple[bytes, ...]) -> list[tuple[bytes, bytes]]:
    return [(name, value.strip()) for name, _, value in (line.partition(b":") for line in lines)]


@pytest_twisted.ensureDeferred
async def test_fields_of_requests_arrive_as_they_were_sent(bench: Bench, upstream: FakeUpstream) -> None:
    """Host is replaced where it stands."""
    host = upstream.url.removeprefix("http://").encode()
    data = head_of(b"POST /v1/files HTTP/1.1", *REQUEST_FIELDS) + b"abc"
    (one,) = await accepted(bench, upstream, data, split=False)
    expected = [(name, host if name.lower() == b"host" else value) for name, value in pairs(REQUEST_FIELDS)]
    assert [(name.lower(), value) for name, value in one.headers] == [
        (name.lower(), value) for name, value in expected
    ]
    got = [name for name, _ in one.headers]
    assert [name for name in got if name.lower() != b"host"] == [
        name for name, _ in expected if name.lower() != b"host"
    ]


@pytest_twisted.ensureDeferred
async def test_fields_of_a_chunked_request(bench: Bench, upstream: FakeUpstream) -> None:
    """What ends here is left out, and the rest keeps its order."""
    fields = (b"B: 1", b"Transfer-Encoding: chunked", b"a: 2", b"TE: trailers", b"Connection: x-c", b"X-C: 3")
    (one,) = await accepted(bench, upstream, post(*fields, body=chunk(b"abc") + LAST_CHUNK), split=False)
    assert [pair for pair in one.headers if pair[0].lower() not in (b"host", b"transfer-encoding")] == [
        (b"B", b"1"),
        (b"a", b"2"),
    ]
    assert one.all(b"transfer-encoding") == [b"chunked"]


@pytest.mark.parametrize("reason", [b"OK", b"Fine By Me", b"", b"caf\xe9"])
@pytest_twisted.ensureDeferred
async def test_answers_arrive_as_they_were_sent(bench: Bench, upstream: FakeUpstream, reason: bytes) -> None:
    upstream.scripts = [[Send(head(*RESPONSE_FIELDS, status=b"299 " + reason) + b"ok")]]
    client = await bench.client(bench.proxy())
    got = await client.ask(models())
    assert (got.status, got.reason, got.body) == (299, reason, b"ok")
    assert got.headers == pairs(RESPONSE_FIELDS)


@pytest_twisted.ensureDeferred
async def test_fields_of_a_stream(bench: Bench, upstream: FakeUpstream) -> None:
    fields = tuple(line for line in RESPONSE_FIELDS if not line.startswith(b"Content-Length"))
    upstream.scripts = [[Send(head(*fields, b"Transfer-Encoding: chunked") + chunk(b"ok") + LAST_CHUNK)]]
    client = await bench.client(bench.proxy())
    got = await client.ask(models())
    assert got.body == b"ok"
    assert [pair for pair in got.headers if pair[0].lower() != b"transfer-encoding"] == pairs(fields)


@pytest_twisted.ensureDeferred
async def test_nothing_is_added(bench: Bench, upstream: FakeUpstream) -> None:
    """No Server, Date or Content-Type but the upstream's; Date on what is ours."""
    upstream.scripts = [[Send(head(b"content-length: 2") + b"{}")]]
    client = await bench.client(bench.proxy())
    got = await client.ask(models())
    assert got.headers == [(b"content-length", b"2")]
    assert [name for name, _ in upstream.requests[0].headers if name.lower() != b"host"] == []
    ours = await client.ask(get(b"/to/nosuch/x"))
    assert (ours.status, len(ours.all(b"date")), ours.all(b"server")) == (404, 1, [])


# An early refusal is read, although the body is not: RFC 9112 §9.6.


@pytest_twisted.ensureDeferred
async def test_a_refusal_is_read_while_the_client_still_sends(bench: Bench, upstream: FakeUpstream) -> None:
    """It is half-closed behind the answer, and what still comes is taken for a while."""
    proxy = bench.proxy()
    small_buffers(*proxy.daemon.listening.ports)
    client = await half_client(bench, proxy, small=True)
    client.send(post(b"Content-Length: 50000000", target=b"/to/nosuch/v1/files"))
    flood = Flood(client, b"x" * 16384, 3000)
    # No more than 1 MiB beyond the answer, and what the kernel holds; then the connection is gone.
    await until(lambda: client.lost is not None, "the end of the connection")
    assert client.eof
    (got,) = answered(client, 2)
    assert (got.status, got.whole, client.received) == (404, True, got.raw)
    assert got.get(b"connection") == b"close"
    assert 0 < flood.sent < 4_000_000
    assert not upstream.connections
    assert [one.status for one in proxy.finished] == [404]


@pytest_twisted.ensureDeferred
async def test_five_megabytes_to_a_refused_route(bench: Bench, upstream: FakeUpstream) -> None:
    """Most of it on its way already: the answer arrives whole all the same."""
    proxy = bench.proxy()
    clients = [await half_client(bench, proxy) for _ in range(5)]
    for client in clients:
        client.send(post(b"Content-Length: 5000000", target=b"/to/nosuch/x") + b"x" * 5_000_000)
    await settled(clients, ended)
    for client in clients:
        (got,) = answered(client, 2)
        assert (got.status, got.whole, client.eof) == (404, True, True)
    await settled(clients, lambda one: one.lost is not None, 4)
    assert [one for one in clients if one.lost is None] == []


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(post(b"Content-Length: 5000000", target=b"/to/nosuch/x"), id="404"),
        pytest.param(models(b"X A: b"), id="400"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_client_that_goes_on_for_ever_slowly(
    bench: Bench, upstream: FakeUpstream, data: bytes
) -> None:
    """After two seconds the connection is gone."""
    client = await half_client(bench, bench.proxy())
    client.send(data)
    await until(lambda: client.eof, "the end of the answer")
    assert len(answered(client, 2)) == 1
    since = time.monotonic()
    while client.lost is None and time.monotonic() < since + 5:
        client.send(b"x")
        await pause(0.05)
    assert 1 < time.monotonic() - since < 3.5


@pytest_twisted.ensureDeferred
async def test_a_client_that_reads_the_end_and_closes(bench: Bench, upstream: FakeUpstream) -> None:
    """Nothing is waited for then."""
    proxy = bench.proxy()
    client = await half_client(bench, proxy)
    client.send(post(b"Content-Length: 5000000", target=b"/to/nosuch/x"))
    await until(lambda: client.eof, "the end of the answer")
    since = time.monotonic()
    client.transport.loseConnection()
    await client.closed()
    assert time.monotonic() - since < 1
    assert not client.reset


FAULT = b"X-LLMProxyd-Fault: rate_limit"

UNWATCHED = {"enabled": False}
"""Whoever watches what clients do must see the whole request first."""


@pytest_twisted.ensureDeferred
async def test_an_injected_fault_comes_behind_the_body_where_clients_are_watched(
    bench: Bench, upstream: FakeUpstream
) -> None:
    client = await bench.client(bench.proxy(faults={"header": True}))
    whole = request(CHAT, FAULT, body=b"x" * 100_000)
    client.send(whole[:-1])
    await pause(0.1)
    assert not client.received
    client.send(whole[-1:])
    assert (await client.answer()).status == 429


@pytest_twisted.ensureDeferred
async def test_an_injected_fault_before_a_small_body(bench: Bench, upstream: FakeUpstream) -> None:
    """The answer comes at once; the rest of the body is passed over; the next request works."""
    upstream.scripts = [[OK]]
    proxy = bench.proxy(faults={"header": True}, verdicts=UNWATCHED)
    body = b"x" * 100_000
    whole = request(CHAT, FAULT, body=body)
    for sent in (len(whole) - len(body), len(whole) - 1, len(whole) - 50_000):
        client = await bench.client(proxy)
        client.send(whole[:sent])
        got = await client.answer()
        assert (got.status, got.get(b"x-llmproxyd-error")) == (429, b"injected")
        assert got.all(b"connection") == []
        client.send(whole[sent:] + NEXT)
        assert (await client.answer()).json == {"ok": True}
    assert {one.target for one in upstream.requests} == {MODELS + b"?next"}
    assert [one.status for one in proxy.finished] == [429, 200] * 3


@pytest_twisted.ensureDeferred
async def test_an_injected_fault_before_a_small_chunked_body(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[OK]]
    client = await bench.client(bench.proxy(faults={"header": True}, verdicts=UNWATCHED))
    client.send(post(FAULT, b"Transfer-Encoding: chunked", target=CHAT))
    assert (await client.answer()).status == 429
    client.send(chunk(b"x" * 5000) + LAST_CHUNK + NEXT)
    await settled([client], lambda one: ended(one) or answered(one))
    # A body of unknown length may be too long to wait for; a connection that is kept is in order.
    if answered(client):
        assert answered(client)[0].json == {"ok": True}
    else:
        assert not client.received


@pytest_twisted.ensureDeferred
async def test_an_injected_fault_before_a_large_body(bench: Bench, upstream: FakeUpstream) -> None:
    """Nobody waits for megabytes: as for any refusal."""
    proxy = bench.proxy(faults={"header": True}, verdicts=UNWATCHED)
    client = await half_client(bench, proxy)
    client.send(post(FAULT, b"Content-Length: 5000000", target=CHAT) + b"x" * 1000)
    await until(lambda: client.eof, "the end of the answer")
    (got,) = answered(client, 2)
    assert (got.status, got.get(b"connection")) == (429, b"close")
    assert [(one.status, one.end) for one in proxy.finished] == [(429, End.COMPLETE)]


@pytest_twisted.ensureDeferred
async def test_local_paths(bench: Bench, upstream: FakeUpstream) -> None:
    """What is answered here keeps to the same rules, in one connection with what is not."""
    upstream.scripts = [[OK]]
    client = await bench.client(bench.proxy())
    client.send(get(b"/health") + NEXT + get(b"/health") + NEXT)
    found = [await client.answer() for _ in range(4)]
    assert [one.status for one in found] == [200] * 4
    assert [one.json.get("status") for one in found] == ["healthy", None, "healthy", None]
    assert found[0].get(b"content-length") == b"%d" % len(found[0].body)
    client.send(get(b"/health", b"Connection: close"))
    assert (await client.answer()).json["status"] == "healthy"
    await client.closed()


@pytest_twisted.ensureDeferred
async def test_head_of_a_local_path(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[OK]]
    client = await bench.client(bench.proxy())
    client.send(get(b"/health", method=b"HEAD") + NEXT)
    got = await client.answer(bodiless=True)
    assert got.status == 200
    assert (await client.answer()).json == {"ok": True}


@pytest_twisted.ensureDeferred
async def test_an_answer_that_is_cut_is_the_last(bench: Bench, upstream: FakeUpstream) -> None:
    """What was pipelined behind it is not answered into a broken stream."""
    upstream.scripts = [[Send(stream_head(b"a/b") + chunk(b"part")), Close()], [Send(answer(b"next"))]]
    client = await bench.client(bench.proxy())
    client.send(request(CHAT) + NEXT)
    await client.closed()
    parsed = parse(client.received, bodiless=False, ended=True)
    assert parsed is not None
    assert (parsed[0].body, parsed[0].whole) == (b"part", False)
    assert len(upstream.requests) == 1


@pytest_twisted.ensureDeferred
async def test_large_answers_are_in_order(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Send(json_answer("x" * 1_000_000))], [Send(answer(b"y" * 2_000_000))], [OK]]
    client = await bench.client(bench.proxy())
    client.send(PLAIN + LENGTH + NEXT)
    sizes = [len((await client.answer()).body) for _ in range(3)]
    assert sizes[:2] == [1_000_002, 2_000_000]

"""Nobody holds a connection for ever; and nobody who is well loses one."""

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
    answered,
    code_of,
    ended,
    fault_of,
    half_client,
    models,
    post,
    settled,
    small_buffers,
    turns,
)
from wireclient import Client, pause, request, until

from llmproxyd.model import End
from llmproxyd.testing.proxy import ProxyUnderTest
from llmproxyd.testing.upstream import (
    LAST_CHUNK,
    FakeUpstream,
    Gate,
    Pour,
    Send,
    Stall,
    chunk,
    event,
    stream_head,
)

HEAD = {"server": {"header_timeout": 0.4, "idle_timeout": 30}}
IDLE = {"server": {"header_timeout": 30, "idle_timeout": 0.4}}
BOTH = {"server": {"header_timeout": 0.4, "idle_timeout": 0.4}}
GRANTED = 0.4
LATE = 1.6
"""Seconds by which a deadline of 0.4 has been noticed, on a busy machine too."""


async def drip(client: Client, data: bytes, *, every: float = 0.04, seconds: float = LATE + 0.5) -> float:
    """Send *data* byte by byte, over and over, until the connection ends; how long that took."""
    since = time.monotonic()
    at = 0
    while not ended(client) and time.monotonic() < since + seconds:
        client.send(data[at % len(data) : at % len(data) + 1])
        at += 1
        await pause(every)
    return time.monotonic() - since


@pytest.mark.parametrize(
    ("first", "more"),
    [
        pytest.param(b"GET /v1/mod", b"e", id="target"),
        pytest.param(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX-A: ", b"b", id="value"),
        pytest.param(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n", b"X-A: b\r\n", id="fields"),
        pytest.param(b"P", b"", id="silence"),
    ],
)
@pytest.mark.parametrize("kept", [False, True], ids=["first", "kept"])
@pytest_twisted.ensureDeferred
async def test_a_head_that_never_ends(
    bench: Bench, upstream: FakeUpstream, first: bytes, more: bytes, kept: bool
) -> None:
    """``server.header_timeout`` is the whole head's, not that of each byte: 408, RFC 9110 §15.5.9."""
    upstream.scripts = [[OK]]
    proxy = bench.proxy(**HEAD)
    client = await bench.client(proxy)
    if kept:
        assert (await client.ask(models())).status == 200
    client.send(first)
    took = await drip(client, more or b"", every=0.04) if more else await closing(client)
    assert fault_of(client, 408, ["request_timeout"], closes=True) is None
    assert GRANTED - 0.1 <= took < LATE
    assert len(upstream.requests) == int(kept)
    assert [one.status for one in proxy.finished] == [200] * kept + [408]


async def closing(client: Client) -> float:
    since = time.monotonic()
    await settled([client], ended, LATE + 0.5)
    return time.monotonic() - since


@pytest_twisted.ensureDeferred
async def test_empty_lines_without_end(bench: Bench, upstream: FakeUpstream) -> None:
    """They are no request, but no life sign either."""
    client = await bench.client(bench.proxy(**BOTH))
    assert await drip(client, b"\r\n") < LATE
    assert ended(client)


@pytest_twisted.ensureDeferred
async def test_a_connection_that_says_nothing(bench: Bench, upstream: FakeUpstream) -> None:
    client = await bench.client(bench.proxy(**BOTH))
    assert await closing(client) < LATE
    assert ended(client)


@pytest_twisted.ensureDeferred
async def test_a_kept_connection_that_says_nothing_more(bench: Bench, upstream: FakeUpstream) -> None:
    """``server.idle_timeout``: closed without a word, which a client takes as the end of nothing."""
    upstream.scripts = [[OK]]
    proxy = bench.proxy(**IDLE)
    client = await bench.client(proxy)
    assert (await client.ask(models())).status == 200
    took = await closing(client)
    assert ended(client)
    assert GRANTED - 0.1 <= took < LATE
    assert not client.received
    assert not client.reset
    assert [one.status for one in proxy.finished] == [200]


@pytest_twisted.ensureDeferred
async def test_requests_keep_it_alive(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[OK]]
    client = await bench.client(bench.proxy(**BOTH))
    for _ in range(6):
        assert (await client.ask(models())).status == 200
        await pause(0.2)
    assert not ended(client)


@pytest.mark.parametrize(
    "start",
    [
        pytest.param(post(b"Content-Length: 50") + b"abc", id="length"),
        pytest.param(post(b"Content-Length: 50"), id="nothing-of-it"),
        pytest.param(post(b"Transfer-Encoding: chunked") + chunk(b"abc"), id="chunked"),
        pytest.param(post(b"Transfer-Encoding: chunked") + b"5\r\nabc", id="within-a-chunk"),
        pytest.param(post(b"Transfer-Encoding: chunked") + b"3\r\nabc\r\n0\r\nX-A: b", id="within-a-trailer"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_body_that_stalls(bench: Bench, upstream: FakeUpstream, start: bytes) -> None:
    """408, and what has gone upstream is cut off."""
    upstream.scripts = [[OK]]
    proxy = bench.proxy(**IDLE)
    client = await bench.client(proxy)
    client.send(start)
    took = await closing(client)
    (got,) = answered(client, 2) or [None]
    assert got is not None, f"no answer; {ended(client)}: {client.received!r}"
    assert (got.status, code_of(got)) == (408, "request_timeout")
    assert ended(client)
    assert not client.reset
    assert GRANTED - 0.1 <= took < LATE
    await until(lambda: not upstream.open, "the upstream's connection to end")
    assert not upstream.requests
    assert [one.status for one in proxy.finished] == [408]
    assert not proxy.daemon.pipeline.active


@pytest_twisted.ensureDeferred
async def test_a_body_that_comes_slowly(bench: Bench, upstream: FakeUpstream) -> None:
    """It is the silence that is limited, not the whole."""
    upstream.scripts = [[OK]]
    client = await bench.client(bench.proxy(**BOTH))
    client.send(post(b"Content-Length: 8"))
    for _ in range(8):
        await pause(0.15)
        client.send(b"x")
    assert (await client.answer()).status == 200
    assert upstream.requests[0].body == b"x" * 8


@pytest_twisted.ensureDeferred
async def test_a_body_that_waits_for_the_upstream(bench: Bench, upstream: FakeUpstream) -> None:
    """While the upstream does not take it, the client is not to blame."""
    size = 16 * 1024 * 1024
    upstream.scripts = [[OK]]
    proxy = bench.proxy(**IDLE)
    small_buffers(upstream._port, *proxy.daemon.listening.ports)
    client = await bench.client(proxy)
    client.send(post(b"Content-Length: %d" % size) + b"x" * size)
    await until(lambda: upstream.connections and upstream.connections[0].buffer, "the request")
    upstream.connections[0].transport.pauseProducing()
    await pause(1.2)
    assert not ended(client)
    assert not client.received
    upstream.connections[0].transport.resumeProducing()
    assert (await client.answer()).status == 200
    assert len(upstream.requests[0].body) == size


@pytest_twisted.ensureDeferred
async def test_a_client_that_never_reads(bench: Bench, upstream: FakeUpstream) -> None:
    """It is reset, and its upstream connection is free."""
    poured = Pour(chunk(event(b"x" * 65000)), 1000)
    upstream.scripts = [[Send(stream_head()), poured, Send(LAST_CHUNK)]]
    proxy = bench.proxy(**IDLE)
    client = await bench.client(proxy)
    client.transport.pauseProducing()
    client.send(request(CHAT))
    await until(lambda: poured.poured, "the answer to begin")
    since = time.monotonic()
    await until(lambda: proxy.finished, "the end of the request")
    assert time.monotonic() - since < LATE + 1
    await until(lambda: not upstream.open, "the upstream's connection to end")
    (finished,) = proxy.finished
    assert finished.end is not End.COMPLETE
    assert not proxy.daemon.pipeline.active
    client.transport.resumeProducing()
    await client.closed()
    assert client.reset


@pytest_twisted.ensureDeferred
async def test_a_client_that_never_reads_a_complete_answer(bench: Bench, upstream: FakeUpstream) -> None:
    """Also when all of it has been handed to the connection already."""
    poured = Pour(b"x" * 65536, 16)
    upstream.scripts = [[Send(b"HTTP/1.1 200 OK\r\ncontent-length: 1048576\r\n\r\n"), poured]]
    proxy = bench.proxy(**IDLE)
    small_buffers(*proxy.daemon.listening.ports)
    client = await bench.client(proxy)
    client.transport.pauseProducing()
    client.send(request(CHAT) + NEXT)
    await until(lambda: proxy.finished, "the end of the request")
    await pause(LATE)
    client.transport.resumeProducing()
    await client.closed()


@pytest_twisted.ensureDeferred
async def test_a_client_that_reads_slowly(bench: Bench, upstream: FakeUpstream) -> None:
    """It is silence that ends a connection, not slowness."""
    size = 128 * 65536
    poured = Pour(b"x" * 65536, 128)
    upstream.scripts = [[Send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size), poured]]
    proxy = bench.proxy(**IDLE)
    small_buffers(*proxy.daemon.listening.ports)
    client = await half_client(bench, proxy, small=True)
    client.send(request(CHAT))
    for _ in range(12):
        client.transport.pauseProducing()
        await pause(0.12)
        client.transport.resumeProducing()
        await turns(2)
    await until(lambda: client.total > size, "the rest")
    assert (await client.answer()).whole
    assert [one.end for one in proxy.finished] == [End.COMPLETE]


@pytest_twisted.ensureDeferred
async def test_a_client_that_reads_slowly_what_the_system_holds_for_it(
    bench: Bench, upstream: FakeUpstream
) -> None:
    """The system takes megabytes, and then nothing more for long, although the client reads."""
    size = 320 * 65536
    poured = Pour(b"x" * 65536, 320)
    upstream.scripts = [[Send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size), poured]]
    proxy = bench.proxy(**IDLE)
    client = await half_client(bench, proxy, small=True)
    client.send(request(CHAT))
    for _ in range(12):
        client.transport.pauseProducing()
        await pause(0.12)
        client.transport.resumeProducing()
        await turns(2)
    await until(lambda: client.total > size, "the rest")
    assert (await client.answer()).whole
    assert [one.end for one in proxy.finished] == [End.COMPLETE]


# A client that goes away.


async def gone(proxy: ProxyUnderTest, upstream: FakeUpstream, since: float) -> None:
    await until(lambda: proxy.finished, "the end of the request")
    await until(lambda: not upstream.open, "the upstream's connection to end")
    assert time.monotonic() - since < 1.6
    (finished,) = proxy.finished
    assert (finished.status, finished.end) == (499, End.CLIENT_GONE)
    assert not proxy.daemon.pipeline.active


@pytest.mark.parametrize("kilobytes", [0, 4, 60, 200])
@pytest.mark.parametrize("way", ["closes", "resets"])
@pytest_twisted.ensureDeferred
async def test_a_client_that_goes_away(
    bench: Bench, upstream: FakeUpstream, way: str, kilobytes: int
) -> None:
    """Noticed within some 1.5 s, whatever it has pipelined before."""
    upstream.scripts = [[Stall()]]
    proxy = bench.proxy()
    client = await bench.client(proxy)
    behind = request(FILES, body=b"x" * 900) * kilobytes
    client.send(request(CHAT) + behind)
    await until(lambda: upstream.requests, "the request")
    await pause(0.05)
    since = time.monotonic()
    if way == "closes":
        client.transport.loseConnection()
    else:
        client.transport.abortConnection()
    await gone(proxy, upstream, since)
    assert len(upstream.requests) == 1


@pytest_twisted.ensureDeferred
async def test_a_client_that_goes_away_during_its_stream(bench: Bench, upstream: FakeUpstream) -> None:
    one = event(b"{}")
    upstream.scripts = [[Send(stream_head() + chunk(one)), Stall()]]
    proxy = bench.proxy()
    client = await bench.client(proxy)
    client.send(request(CHAT) + NEXT * 3000)
    await client.has(one)
    client.transport.abortConnection()
    await until(lambda: proxy.finished, "the end of the request")
    await until(lambda: not upstream.open, "the upstream's connection to end")
    assert [one.end for one in proxy.finished] == [End.CLIENT_GONE]


# Whoever is well is left alone.


@pytest.mark.parametrize("settings", [HEAD, IDLE, BOTH], ids=["header_timeout", "idle_timeout", "both"])
@pytest_twisted.ensureDeferred
async def test_a_request_that_takes_its_time(bench: Bench, upstream: FakeUpstream, settings: Any) -> None:
    gate = Gate()
    upstream.scripts = [[gate, OK], [OK]]
    client = await bench.client(bench.proxy(**settings))
    client.send(request(CHAT))
    await pause(1.2)
    assert not ended(client)
    gate.open()
    assert (await client.answer()).status == 200
    await pause(0.1)
    assert (await client.ask(models())).status == 200


@pytest_twisted.ensureDeferred
async def test_a_stream_with_long_pauses(bench: Bench, upstream: FakeUpstream) -> None:
    gate = Gate()
    one = event(b"{}")
    upstream.scripts = [[Send(stream_head() + chunk(one)), gate, Send(chunk(one) + LAST_CHUNK)], [OK]]
    client = await bench.client(bench.proxy(**BOTH))
    client.send(request(CHAT))
    await client.has(one)
    await pause(1.2)
    assert not ended(client)
    gate.open()
    assert (await client.answer()).body == one * 2
    assert (await client.ask(models())).status == 200


@pytest_twisted.ensureDeferred
async def test_what_waits_behind_a_long_request(bench: Bench, upstream: FakeUpstream) -> None:
    """A pipelined head, or the half of one, is not late while it could not be looked at."""
    for behind, rest in ((NEXT, b""), (NEXT[:20], NEXT[20:])):
        gate = Gate()
        upstream.scripts = [[gate, OK], [OK]]
        upstream.requests.clear()
        client = await bench.client(bench.proxy(**BOTH))
        client.send(request(CHAT) + behind)
        await pause(1.2)
        assert not ended(client)
        gate.open()
        assert (await client.answer()).status == 200
        client.send(rest)
        assert (await client.answer()).status == 200
        assert [one.target for one in upstream.requests] == [CHAT, MODELS + b"?next"]


@pytest_twisted.ensureDeferred
async def test_the_time_between_requests_begins_with_the_answers_end(
    bench: Bench, upstream: FakeUpstream
) -> None:
    gate = Gate()
    upstream.scripts = [[gate, OK]]
    client = await bench.client(bench.proxy(**IDLE))
    client.send(request(CHAT))
    await pause(0.8)
    gate.open()
    assert (await client.answer()).status == 200
    took = await closing(client)
    assert GRANTED - 0.1 <= took < LATE

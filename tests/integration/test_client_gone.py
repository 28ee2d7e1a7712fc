"""Nobody works for a client that has left."""

from __future__ import annotations

import pytest
import pytest_twisted
from bench import Bench
from wireclient import Client, get, pause, request, until

from llmproxyd.model import End, Finished
from llmproxyd.testing.proxy import ProxyUnderTest
from llmproxyd.testing.upstream import (
    LAST_CHUNK,
    FakeUpstream,
    Gate,
    Pour,
    Send,
    Stall,
    answer,
    chunk,
    event,
    stream_head,
)

CHAT = b"/v1/chat/completions"


async def ended(proxy: ProxyUnderTest, upstream: FakeUpstream) -> Finished:
    await until(lambda: proxy.finished, "the end of the request")
    await until(lambda: not upstream.open, "the upstream's connection to end")
    await pause(0.02)
    (finished,) = proxy.finished
    assert finished.end is End.CLIENT_GONE
    assert finished.code == "client_gone"
    assert not proxy.daemon.pipeline.active
    return finished


def leave(client: Client, way: str) -> None:
    if way == "closes":
        client.transport.loseConnection()
    else:
        client.transport.abortConnection()


WAYS = pytest.mark.parametrize("way", ["closes", "resets"])
WORDS = [
    pytest.param(event(b"{}"), event(b"[DONE]"), End.COMPLETE, id="whole"),
    pytest.param(event(b"[DONE]"), event(b"{}"), End.CLIENT_GONE, id="more"),
    pytest.param(event(b"{}"), b"data: [DON", End.CLIENT_GONE, id="half"),
]
"""What a stream says last, and how it ends when its client leaves then: OpenAI's does not wait on."""


@WAYS
@pytest_twisted.ensureDeferred
async def test_before_the_head(bench: Bench, upstream: FakeUpstream, way: str) -> None:
    upstream.scripts = [[Stall()]]
    proxy = bench.proxy()
    client = await bench.client(proxy)
    client.send(request(CHAT))
    await until(lambda: upstream.requests, "the request")
    leave(client, way)
    finished = await ended(proxy, upstream)
    assert (finished.status, finished.sent) == (499, 0)
    proxy.daemon._requests.flush()
    assert " 499 " in proxy.log.getvalue()


@WAYS
@pytest_twisted.ensureDeferred
async def test_during_a_stream(bench: Bench, upstream: FakeUpstream, way: str) -> None:
    one = event(b"{}")
    upstream.scripts = [[Send(stream_head() + chunk(one)), Stall()]]
    proxy = bench.proxy()
    client = await bench.client(proxy)
    client.send(request(CHAT))
    await client.has(one)
    leave(client, way)
    finished = await ended(proxy, upstream)
    assert finished.sent == len(one)


@WAYS
@pytest.mark.parametrize(("before", "word", "end"), WORDS)
@pytest_twisted.ensureDeferred
async def test_at_the_last_word_of_a_stream(
    bench: Bench, upstream: FakeUpstream, way: str, before: bytes, word: bytes, end: End
) -> None:
    upstream.scripts = [[Send(stream_head() + chunk(before + word)), Stall()]]
    proxy = bench.proxy()
    client = await bench.client(proxy)
    client.send(request(CHAT))
    await client.has(word)
    leave(client, way)
    await until(lambda: proxy.finished, "the end of the request")
    await until(lambda: not upstream.open, "the upstream's connection to end")
    (finished,) = proxy.finished
    assert finished.end is end
    assert finished.code == (None if end is End.COMPLETE else "client_gone")


@WAYS
@pytest_twisted.ensureDeferred
async def test_the_end_of_a_stream_may_come_after_the_client_has_left(
    bench: Bench, upstream: FakeUpstream, way: str
) -> None:
    gate = Gate()
    word = event(b"[DONE]")
    upstream.scripts = [[Send(stream_head() + chunk(word)), gate, Send(LAST_CHUNK)], [Send(answer(b"{}"))]]
    proxy = bench.proxy()
    client = await bench.client(proxy)
    client.send(request(CHAT))
    await client.has(word)
    leave(client, way)
    await pause(0.05)
    assert upstream.open, "it is waited for"
    gate.open()
    await until(lambda: proxy.finished, "the end of the request")
    (finished,) = proxy.finished
    assert (finished.end, finished.code, finished.sent) == (End.COMPLETE, None, len(word))
    other = await bench.client(proxy)
    await other.ask(get(b"/v1/models"))
    assert len(upstream.connections) == 1, "it was kept"


@WAYS
@pytest_twisted.ensureDeferred
async def test_while_it_did_not_read(bench: Bench, upstream: FakeUpstream, way: str) -> None:
    poured = Pour(chunk(event(b"x" * 65000)), 500)
    upstream.scripts = [[Send(stream_head()), poured, Send(LAST_CHUNK)]]
    proxy = bench.proxy()
    client = await bench.client(proxy)
    client.transport.pauseProducing()
    client.send(request(CHAT))
    before = -1
    while poured.poured != before:
        before = poured.poured
        await pause(0.1)
    leave(client, way)
    await ended(proxy, upstream)
    assert poured.poured < 32_000_000


@pytest_twisted.ensureDeferred
async def test_while_the_upstream_takes_its_body(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Stall()]]
    upstream.at_head = True
    proxy = bench.proxy()
    client = await bench.client(proxy)
    client.send(request(CHAT, body=b"x" * 20_000_000))
    await until(lambda: upstream.requests, "the head of the request")
    upstream.connections[0].transport.pauseProducing()
    await pause(0.05)
    leave(client, "resets")
    await until(lambda: proxy.finished, "the end of the request")
    upstream.connections[0].transport.resumeProducing()
    assert (await ended(proxy, upstream)).status == 499


@pytest_twisted.ensureDeferred
async def test_while_the_connection_is_made(bench: Bench, upstream: FakeUpstream, deaf_port: int) -> None:
    proxy = bench.proxy(base_url=f"http://127.0.0.1:{deaf_port}")
    client = await bench.client(proxy)
    client.send(request(CHAT))
    await until(lambda: proxy.daemon.pipeline.active, "the request")
    leave(client, "resets")
    assert (await ended(proxy, upstream)).status == 499
    assert not upstream.connections


@pytest_twisted.ensureDeferred
async def test_after_the_answer_it_is_no_event(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Send(answer(b"ok"))]]
    proxy = bench.proxy()
    client = await bench.client(proxy)
    await client.ask(get(b"/v1/models"))
    leave(client, "resets")
    await pause(0.02)
    (finished,) = proxy.finished
    assert (finished.end, finished.code, finished.sent) == (End.COMPLETE, None, 2)
    assert len(upstream.open) == 1


@pytest_twisted.ensureDeferred
async def test_others_go_on(bench: Bench, upstream: FakeUpstream) -> None:
    gate = Gate()
    one = event(b"{}")
    upstream.scripts = [[Send(stream_head() + chunk(one)), gate, Send(chunk(one) + LAST_CHUNK)]]
    proxy = bench.proxy()
    first, second = [await bench.client(proxy) for _ in range(2)]
    for client in (first, second):
        client.send(request(CHAT))
        await client.has(one)
    leave(first, "resets")
    await until(lambda: proxy.finished, "the first one's end")
    gate.open()
    assert (await second.answer()).body == one * 2

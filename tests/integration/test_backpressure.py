"""A slow side slows the fast one down: nothing piles up in between."""

from __future__ import annotations

import pytest
import pytest_twisted
from bench import Bench
from wireclient import Client, pause, request, until

from llmproxyd.testing.upstream import (
    LAST_CHUNK,
    FakeUpstream,
    Pour,
    Send,
    answer,
    chunk,
    event,
    head,
    stream_head,
)

CHAT = b"/v1/chat/completions"
PIECE = event(b"x" * (64 * 1024 - 8))
TIMES = 500
"""Some 32 MB: far more than the kernel's buffers hold."""
KERNEL = 20_000_000
"""What sockets on both sides of the proxy may take in, at most."""


async def stuck(poured: Pour) -> int:
    """How much was poured when no more is taken."""
    before = -1
    while poured.poured != before:
        before = poured.poured
        await pause(0.1)
    return before


async def started(
    bench: Bench, upstream: FakeUpstream, poured: Pour, start: bytes, end: bytes, **settings: object
) -> Client:
    upstream.scripts = [[Send(start), poured, Send(end)]]
    client = await bench.client(bench.proxy(**settings))
    client.transport.pauseProducing()
    client.send(request(CHAT))
    await until(lambda: poured.poured, "the upstream to send")
    return client


@pytest.mark.parametrize("chunked", [True, False])
@pytest_twisted.ensureDeferred
async def test_a_client_that_does_not_read_stops_the_upstream(
    bench: Bench, upstream: FakeUpstream, chunked: bool
) -> None:
    length = len(PIECE) * TIMES
    poured = Pour(chunk(PIECE) if chunked else PIECE, TIMES)
    start = stream_head() if chunked else head(b"content-length: %d" % length)
    client = await started(bench, upstream, poured, start, LAST_CHUNK * chunked)
    taken = await stuck(poured)
    assert taken < KERNEL
    # It goes on when the client does, and nothing is lost.
    client.transport.resumeProducing()
    end = LAST_CHUNK if chunked else PIECE
    await until(lambda: client.total > length and client.last.endswith(end[-5:]), "the rest")
    got = await client.answer()
    assert got.whole
    assert got.body == PIECE * TIMES


@pytest_twisted.ensureDeferred
async def test_the_time_of_a_slow_client_is_not_the_upstreams(bench: Bench, upstream: FakeUpstream) -> None:
    """While the client does not read, ``timeouts.idle`` does not run."""
    poured = Pour(chunk(PIECE), TIMES)
    client = await started(bench, upstream, poured, stream_head(), LAST_CHUNK, timeouts={"idle": 0.15})
    await stuck(poured)
    await pause(0.4)
    client.transport.resumeProducing()
    await until(lambda: client.last.endswith(LAST_CHUNK), "the rest")
    assert (await client.answer()).body == PIECE * TIMES


@pytest_twisted.ensureDeferred
async def test_an_upstream_that_does_not_read_does_not_harm(bench: Bench, upstream: FakeUpstream) -> None:
    """A long body waits for it, and arrives whole."""
    body = b"x" * 15_000_000
    upstream.scripts = [[Send(answer(b"ok"))]]
    client = await bench.client(bench.proxy(server={"max_body": len(body)}))
    client.send(request(CHAT, body=body))
    await until(lambda: upstream.connections and upstream.connections[0].buffer, "the request to begin")
    transport = upstream.connections[0].transport
    transport.pauseProducing()
    await pause(0.2)
    transport.resumeProducing()
    assert (await client.answer()).body == b"ok"
    assert upstream.requests[0].body == body

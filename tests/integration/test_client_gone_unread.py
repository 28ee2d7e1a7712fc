"""A client that does not read, and then leaves, holds nobody up who waits for the same answer."""

from __future__ import annotations

import pytest_twisted
from bench import Bench
from wireclient import pause, request, until

from llmproxyd.testing.upstream import FakeUpstream, Pour, Send, head

CHAT = b"/v1/chat/completions"
RULE = {"path": "/v1/*", "methods": ["POST"], "default_ttl": 60}
SIZE = 30_000_000


@pytest_twisted.ensureDeferred
async def test_others_get_what_it_did_not_read(bench: Bench, upstream: FakeUpstream) -> None:
    pour = Pour(bytes(30_000), SIZE // 30_000)
    fields = (b"content-type: application/json", b"content-length: %d" % SIZE)
    upstream.scripts = [[Send(head(*fields)), pour]]
    cache = {"enabled": True, "max_object_bytes": "64MiB", "max_bytes": "256MiB", "rules": [RULE]}
    proxy = bench.proxy(cache=cache)
    leader, other = await bench.client(proxy), await bench.client(proxy)
    leader.send(request(CHAT))
    await until(lambda: leader.total, "the beginning of the answer")
    leader.transport.pauseProducing()
    other.send(request(CHAT))
    before = -1
    while pour.poured != before:
        before = pour.poured
        await pause(0.2)
    assert pour.poured < SIZE
    leader.transport.abortConnection()
    got = await other.answer()
    assert (got.status, len(got.body), got.whole) == (200, SIZE, True)
    assert len(upstream.requests) == 1

"""Whoever comes, waits, fails or leaves at whatever moment: nothing of it stays behind."""

from __future__ import annotations

import gc
import random
from functools import partial
from typing import Any

import pytest
import pytest_twisted
from cachebench import FRESH, KEY, MODELS, OTHER, POST_RULE, CacheBench, at_rest, chat, shelf_of
from test_cycles import no_collector as no_collector
from test_cycles import rings
from wireclient import Client, get, pause, request, until

from llmproxyd.model import Arrived, Finished
from llmproxyd.testing.upstream import (
    LAST_CHUNK,
    Close,
    FakeUpstream,
    Reset,
    Script,
    Send,
    Stall,
    Wait,
    answer,
    chunk,
    event,
    head,
    stream_head,
)

pytest_plugins = ["cachefixtures"]

ROUNDS = 120
STALE = b"Cache-Control: public, max-age=0, stale-if-error=60"
MEANWHILE = b"Cache-Control: public, max-age=0, stale-while-revalidate=60"
SCRIPTS: list[Script] = [
    [Send(answer(b"good", FRESH))],
    [Wait(0.003), Send(answer(b"good", FRESH, b'ETag: "a"'))],
    [Wait(0.003), Send(answer(b"old", STALE, b'ETag: "a"'))],
    [Send(answer(b"old", MEANWHILE, b'ETag: "a"'))],
    [Wait(0.002), Send(head(FRESH, b"Content-Length: 9") + b"half"), Wait(0.003), Send(b" more")],
    [Send(head(FRESH, b"Content-Length: 9") + b"half"), Wait(0.002), Close()],
    [Send(stream_head()), Send(chunk(event(b"1"))), Wait(0.004), Send(LAST_CHUNK)],
    [Wait(0.002), Send(answer(b"private", b"Cache-Control: no-store"))],
    [Send(head(b"Cache-Control: no-store", b"Content-Length: 9") + b"half"), Stall()],
    [Wait(0.002), Send(head(b'ETag: "a"', status=b"304 Not Modified"))],
    [Send(head(b'ETag: "other"', status=b"304 Not Modified"))],
    [Send(answer(b"bad", status=b"503 Bad"))],
    [Close()],
    [Wait(0.003), Reset()],
    [Stall()],
]
ASKS = [
    get(MODELS, KEY),
    get(MODELS, KEY),
    get(MODELS, OTHER),
    get(MODELS, KEY, method=b"HEAD"),
    get(MODELS, KEY, b'If-None-Match: "a"'),
    get(MODELS, KEY, b"Cache-Control: no-cache"),
    get(MODELS, KEY, b"Cache-Control: only-if-cached"),
    get(MODELS, KEY, b"Range: bytes=0-1"),
    request(MODELS, KEY, method=b"DELETE", body=None),
    chat(b"{}", KEY),
    chat(b'{"a":1}', KEY),
    chat(b"{}", KEY)[:-1],
]
POLICIES = [
    pytest.param({"default": {"timeouts": {"headers": "60ms", "idle": "60ms"}}}, id="plain"),
    pytest.param(
        {
            "default": {
                "retry": {"max_retries": 1, "base_delay": "1ms", "budget": {"min_per_second": 1_000_000}},
                "breaker": {"enabled": True, "failure_threshold": 1_000_000},
                "timeouts": {"headers": "60ms", "idle": "60ms", "total": "120ms", "first_content": "50ms"},
            }
        },
        id="absorbing",
    ),
]


def enough(draw: random.Random, clients: list[Client]) -> bool:
    """Whether all have been answered, or nobody cares."""
    return draw.random() < 0.1 or all(one.total or one.lost for one in clients)


@pytest.mark.parametrize("policies", POLICIES)
@pytest_twisted.ensureDeferred
async def test_nothing_stays_behind(
    cached: CacheBench, upstream: FakeUpstream, no_collector: None, policies: dict[str, Any]
) -> None:
    draw = random.Random(7)
    proxy = await cached.proxy(cache={"max_object_bytes": 500, **POST_RULE}, resilience=policies)
    upstream.scripts = SCRIPTS[:1]
    # Redis is taught its scripts once, and txredisapi's refusals are cycles.
    await cached.ask(proxy, ASKS[-4], get(MODELS + b"?0", KEY), get(MODELS + b"?0", KEY))
    gc.set_debug(0)
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    upstream.next_script = lambda: list(draw.choice(SCRIPTS))  # type: ignore[method-assign]
    for _ in range(ROUNDS):
        clients: list[Client] = []
        for _ in range(draw.randint(1, 8)):
            client = await cached.client(proxy)
            client.send(draw.choice(ASKS))
            clients.append(client)
            if draw.random() < 0.3:
                await pause(draw.choice((0, 0.001, 0.004)))
        for one in draw.sample(clients, draw.randint(0, len(clients))):
            one.transport.abortConnection()
            if draw.random() < 0.5:
                await pause(draw.choice((0, 0.001, 0.003)))
        if draw.random() < 0.1:
            proxy.daemon.pipeline.cut_all()
        if draw.random() < 0.7:
            await until(partial(enough, draw, clients))
        for one in clients:
            one.transport.abortConnection()
    await until(lambda: not proxy.daemon.pipeline.active, "the end of all")
    at_rest(proxy)
    told = [type(one) for one in proxy.sink.events]
    assert told.count(Arrived) == told.count(Finished) == proxy.daemon.pipeline.handled
    stats = shelf_of(proxy).stats()
    assert all(stats[name] for name in ("hit", "miss", "bypass", "stale", "store", "revalidation")), stats
    del clients[:], one, client
    await pause(0.1)
    gc.collect()
    garbage = list(gc.garbage)
    gc.garbage.clear()
    found = rings(garbage)
    words = "\n".join(f"{count:6}  {what}" for what, count in found.most_common(30))
    assert not found, f"cycles, among {len(garbage)} objects:\n{words}"

"""Faults of every kind, among clients that do as they like: all ends, and leaves nothing to the collector."""

from __future__ import annotations

import gc
import random
from functools import partial
from typing import Any

import pytest
import pytest_twisted
from bench import Bench
from faultbench import ASK, CHAT, IN_ONE_WRITE, JSON, WHOLE_STREAM, rule, zipped
from test_cycles import no_collector, rings
from wireclient import Client, pause, request, until

from llmproxyd.faults.rules import Breakage, FaultKind, Side, Spot
from llmproxyd.model import Arrived, Finished
from llmproxyd.providers.base import ErrorKind
from llmproxyd.testing.upstream import Close, FakeUpstream, Stall

__all__ = ["no_collector"]

ROUNDS = 150
KINDS: list[FaultKind] = [*Breakage, ErrorKind.OVERLOADED]
SCRIPTS: list[Any] = [
    WHOLE_STREAM,
    IN_ONE_WRITE,
    [JSON],
    zipped(),
    [*WHOLE_STREAM[:4], Close()],
    [*WHOLE_STREAM[:4], Stall()],
]
ASKS = [ASK, ASK, request(CHAT, version=b"HTTP/1.0"), request(CHAT, b"Accept-Encoding: br, gzip"), ASK + ASK]
CACHED = {"enabled": True, "rules": [{"path": "/v1/*", "methods": ["POST"], "default_ttl": 60}]}
ABSORBING = {
    "retry": {"max_retries": 1, "base_delay": "1ms", "budget": {"min_per_second": 1_000_000}},
    "breaker": {"enabled": True, "failure_threshold": 1_000_000},
    "timeouts": {"headers": "80ms", "idle": "80ms", "total": "200ms", "first_content": "60ms"},
}
POLICIES: list[Any] = [
    pytest.param({"resilience": {"default": {"timeouts": {"headers": 0.08, "idle": 0.08}}}}, id="direct"),
    pytest.param({"resilience": {"default": ABSORBING}}, id="absorbing"),
    pytest.param({"resilience": {"default": ABSORBING}, "cache": CACHED}, id="cached"),
]


def manner_of(kind: FaultKind, draw: random.Random) -> dict[str, Any]:
    more: dict[str, Any] = {}
    if kind is Breakage.STATUS:
        more = {"status": 503, "body": b"{}"}
    elif kind in (Breakage.STALL, Breakage.DELAY):
        more = {"silence": draw.choice((None, 0.0, 0.01, 0.1))}
    elif kind is Breakage.SLOW:
        more = {"first_token": 0.01, "per_event": 0.005, "jitter": 0.5}
    elif kind is Breakage.WRONG_LENGTH:
        more = {"excess": draw.choice((-5, 5))}
    if kind in (Breakage.CUT, Breakage.RESET, Breakage.STALL, Breakage.TRUNCATE, Breakage.STREAM_ERROR):
        spot = draw.choice(list(Spot))
        more |= {"at": spot, "number": draw.choice((1, 2, 40))}
    return more


def enough(draw: random.Random, clients: list[Client]) -> bool:
    """Whether all have been answered, or nobody cares."""
    return draw.random() < 0.03 or all(one.total or one.lost for one in clients)


@pytest.mark.parametrize("settings", POLICIES)
@pytest_twisted.ensureDeferred
async def test_nothing_stays_behind(
    bench: Bench, upstream: FakeUpstream, no_collector: None, settings: dict[str, Any]
) -> None:
    draw = random.Random(11)
    proxy = bench.proxy(**settings)
    engine = proxy.daemon.works.engine
    upstream.next_script = lambda: list(draw.choice(SCRIPTS))  # type: ignore[method-assign]
    for number in range(ROUNDS):
        kind, side = KINDS[number % len(KINDS)], draw.choice(list(Side))
        engine.set_mode(rule(kind, side=side, **manner_of(kind, draw)))
        clients: list[Client] = []
        for _ in range(draw.randint(1, 6)):
            client = await bench.client(proxy)
            client.send(draw.choice(ASKS))
            clients.append(client)
            if draw.random() < 0.3:
                await pause(draw.choice((0, 0.001, 0.004)))
        for one in draw.sample(clients, draw.randint(0, len(clients))):
            if draw.random() < 0.5:
                one.transport.pauseProducing()
            one.transport.abortConnection()
        if draw.random() < 0.1:
            proxy.daemon.pipeline.cut_all()
        if draw.random() < 0.7 and kind is not Breakage.NEVER:
            await until(partial(enough, draw, clients))
        for one in clients:
            one.transport.abortConnection()
    engine.clear()
    await until(lambda: not proxy.daemon.pipeline.active, "the end of all")
    told = [type(one) for one in proxy.sink.events]
    assert told.count(Arrived) == told.count(Finished) == proxy.daemon.pipeline.handled
    assert {one.fault for one in proxy.finished} >= set(map(str, Breakage))
    assert any(one.unreached for one in proxy.finished)
    del clients[:], one, client
    await pause(0.1)
    gc.collect()
    garbage = list(gc.garbage)
    gc.garbage.clear()
    found = rings(garbage)
    words = "\n".join(f"{count:6}  {what}" for what, count in found.most_common(30))
    assert not found, f"cycles, among {len(garbage)} objects:\n{words}"

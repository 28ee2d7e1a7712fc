"""Faults as though the upstream had them: retries, the hold and the breaker see them."""

from __future__ import annotations

import json
from typing import Any

import pytest
import pytest_twisted
from bench import Bench
from faultbench import (
    ASK,
    BODY,
    CHAT,
    DONE,
    IN_ONE_WRITE,
    JSON,
    ROLE,
    STOP,
    STREAM,
    WHOLE_STREAM,
    WORDS,
    finished,
    rule,
    set_fault,
    zipped,
)
from wireclient import pause, request, until

from llmproxyd.faults.rules import UNKNOWN, Breakage, FaultKind, Share, Side, Times
from llmproxyd.model import End, Retrying
from llmproxyd.providers.base import ErrorKind
from llmproxyd.testing.proxy import ProxyUnderTest
from llmproxyd.testing.upstream import FakeUpstream, Pour, Send, Stall, chunk, stream_head

test = pytest_twisted.ensureDeferred
ARRIVALS = pytest.mark.parametrize("script", [WHOLE_STREAM, IN_ONE_WRITE], ids=["pieces", "one-write"])
RETRY = {"retry": {"max_retries": 2, "base_delay": 0.01, "retry_timeouts": True, "retry_empty": True}}
BREAKER = {"breaker": {"enabled": True, "failure_threshold": 1}}
BEHIND_TWO = b"".join([ROLE, *WORDS[:2]])


def fail_upstream(proxy: ProxyUnderTest, kind: FaultKind, times: int | None = 1, **more: Any) -> None:
    when = {} if times is None else {"when": Times(times)}
    set_fault(proxy, kind, side=Side.UPSTREAM, **when, **more)


def policy(*parts: Any, **more: Any) -> dict[str, Any]:
    made = dict(more)
    for part in parts:
        made |= part
    return {"default": made}


def retries(proxy: ProxyUnderTest) -> list[str]:
    """Why attempts were repeated."""
    return [event.failed for event in proxy.sink.events if isinstance(event, Retrying)]


ABSORBED: list[Any] = [
    pytest.param(ErrorKind.OVERLOADED, {}, "unavailable (503)", id="overloaded"),
    pytest.param(UNKNOWN, {}, "failed (500)", id="unknown"),
    pytest.param(ErrorKind.RATE_LIMIT, {"retry_after": 0.0}, "limited the rate (429)", id="rate-limit"),
    pytest.param(Breakage.STATUS, {"status": 502, "body": b"<p>"}, "had a bad gateway (502)", id="status"),
    pytest.param(Breakage.REFUSE, {}, "unreachable", id="refuse"),
    pytest.param(Breakage.NEVER, {}, "did not answer in time", id="never"),
    pytest.param(Breakage.DELAY, {"silence": 99.0}, "did not answer in time", id="delay"),
    pytest.param(Breakage.CUT, {"at": "start"}, "broke off", id="cut"),
    pytest.param(Breakage.RESET, {"at": "start"}, "broke off", id="reset"),
    pytest.param(Breakage.STREAM_ERROR, {"at": "start"}, "failed (500)", id="stream-error"),
    pytest.param(Breakage.TRUNCATE, {"at": "start"}, "sent an empty stream", id="truncate"),
    pytest.param(Breakage.STALL, {"at": "start"}, "fell silent", id="stall"),
]


@pytest.mark.parametrize(("kind", "manner", "words"), ABSORBED)
@ARRIVALS
@test
async def test_what_comes_before_the_commit_is_absorbed(
    bench: Bench, upstream: FakeUpstream, script: Any, kind: FaultKind, manner: dict[str, Any], words: str
) -> None:
    upstream.scripts = [script]
    proxy = bench.proxy(resilience=policy(RETRY, timeouts={"headers": 0.3, "idle": 0.3}))
    fail_upstream(proxy, kind, **manner)
    got = await (await bench.client(proxy)).ask(ASK)
    assert (got.status, got.body, got.whole) == (200, STREAM, True)
    assert retries(proxy) == [words]
    event = await finished(proxy)
    assert (event.fault, event.attempts, event.end, event.failed) == (str(kind), 2, End.COMPLETE, False)
    assert event.unreached is False


@test
async def test_an_error_of_the_upstreams_does_not_say_that_it_is_injected(
    bench: Bench, upstream: FakeUpstream
) -> None:
    proxy = bench.proxy()
    fail_upstream(proxy, ErrorKind.RATE_LIMIT, None)
    client = await bench.client(proxy)
    for _ in range(2):
        got = await client.ask(ASK)
        assert (got.status, got.json["error"]["code"]) == (429, "rate_limit_exceeded")
        assert not any(name.startswith(b"x-llmproxyd") for name in got.names)
        assert len(got.all(b"content-length")) == len(got.all(b"date")) == 1
    assert not upstream.requests
    assert [event.fault for event in proxy.finished] == ["rate_limit"] * 2


@pytest.mark.parametrize("absorbs", [False, True])
@pytest.mark.parametrize("kind", [Breakage.CUT, Breakage.RESET], ids=str)
@test
async def test_what_comes_behind_the_commit_is_made_visible(
    bench: Bench, upstream: FakeUpstream, kind: Breakage, absorbs: bool
) -> None:
    upstream.scripts = [WHOLE_STREAM]
    proxy = bench.proxy(resilience=policy(RETRY) if absorbs else {})
    fail_upstream(proxy, kind, at="events", number=2)
    got = await (await bench.client(proxy)).ask(ASK)
    assert not got.whole
    assert got.body.startswith(BEHIND_TWO)
    assert b"upstream_protocol_error" in got.body
    event = await finished(proxy)
    assert (event.fault, event.end, event.failed) == (kind, End.TRUNCATED, True)


@test
async def test_truncate_behind_the_commit_looks_like_an_end(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [WHOLE_STREAM]
    proxy = bench.proxy()
    fail_upstream(proxy, Breakage.TRUNCATE, at="events", number=2)
    client = await bench.client(proxy)
    got = await client.ask(ASK)
    assert (got.body, got.whole) == (BEHIND_TWO, True)
    assert (await client.ask(ASK)).body == STREAM


@pytest.mark.parametrize("absorbs", [False, True])
@test
async def test_stall_trips_the_idle_timeout(bench: Bench, upstream: FakeUpstream, absorbs: bool) -> None:
    upstream.scripts = [WHOLE_STREAM]
    settings = policy(RETRY if absorbs else {}, timeouts={"idle": 0.3})
    proxy = bench.proxy(resilience=settings)
    fail_upstream(proxy, Breakage.STALL, at="events", number=2)
    got = await (await bench.client(proxy)).ask(ASK)
    assert not got.whole
    event = await finished(proxy)
    assert (event.code, event.failed, event.end) == ("idle_timeout", True, End.IDLE)


@pytest.mark.parametrize(
    ("kind", "manner"),
    [
        (ErrorKind.SERVER_ERROR, {}),
        (Breakage.REFUSE, {}),
        (Breakage.NEVER, {}),
        (Breakage.CUT, {"at": "events", "number": 2}),
        (Breakage.STALL, {"at": "events", "number": 2}),
    ],
)
@test
async def test_the_breaker_counts_it(
    bench: Bench, upstream: FakeUpstream, kind: FaultKind, manner: dict[str, Any]
) -> None:
    upstream.scripts = [WHOLE_STREAM]
    proxy = bench.proxy(resilience=policy(BREAKER, timeouts={"headers": 0.3, "idle": 0.3}))
    fail_upstream(proxy, kind, **manner)
    client = await bench.client(proxy)
    await client.ask(ASK)
    await finished(proxy)
    again = await (await bench.client(proxy)).ask(ASK)
    assert (again.status, again.json["error"]["code"]) == (503, "circuit_open")


@test
async def test_retries_that_fail_all_are_handed_on(bench: Bench, upstream: FakeUpstream) -> None:
    proxy = bench.proxy(resilience=policy(RETRY))
    fail_upstream(proxy, ErrorKind.OVERLOADED, None)
    got = await (await bench.client(proxy)).ask(ASK)
    assert (got.status, got.json["error"]["code"]) == (503, "server_is_overloaded")
    event = await finished(proxy)
    assert (event.attempts, event.fault) == (3, "overloaded")
    assert proxy.daemon.works.engine.tally().injected == 3


@test
async def test_many_attempts_do_not_pile_up(bench: Bench, upstream: FakeUpstream) -> None:
    retry = {"max_retries": 300, "base_delay": 0, "budget": {"ratio": 1, "min_per_second": 1000}}
    proxy = bench.proxy(resilience=policy(retry=retry))
    fail_upstream(proxy, ErrorKind.OVERLOADED, None)
    got = await (await bench.client(proxy)).ask(ASK)
    assert got.status == 503
    assert (await finished(proxy)).attempts == 301


@test
async def test_the_clients_own_rules_come_first_and_alone(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[JSON]]
    proxy = bench.proxy()
    engine = proxy.daemon.works.engine
    engine.set_mode(rule(ErrorKind.RATE_LIMIT, Times(1)))
    engine.add_rule(rule(ErrorKind.OVERLOADED, Times(1), side=Side.UPSTREAM))
    client = await bench.client(proxy)
    assert [(await client.ask(ASK)).status for _ in range(3)] == [429, 503, 200]


@test
async def test_an_answer_in_one_piece_is_broken_and_retried(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[JSON]]
    proxy = bench.proxy(resilience=policy(RETRY))
    fail_upstream(proxy, Breakage.CUT)
    got = await (await bench.client(proxy)).ask(ASK)
    assert (got.status, got.json) == (200, BODY)
    assert retries(proxy) == ["broke off"]


@pytest.mark.parametrize("absorbs", [False, True])
@pytest.mark.parametrize(("excess", "whole"), [(10, False), (-4, True)])
@test
async def test_wrong_length(
    bench: Bench, upstream: FakeUpstream, excess: int, whole: bool, absorbs: bool
) -> None:
    upstream.scripts = [[JSON]]
    proxy = bench.proxy(resilience=policy(RETRY) if absorbs else {})
    fail_upstream(proxy, Breakage.WRONG_LENGTH, excess=excess)
    got = await (await bench.client(proxy)).ask(ASK)
    sent = json.dumps(BODY, separators=(",", ":")).encode()
    if absorbs:
        assert (got.body, got.whole) == (sent, True)
        assert len(upstream.requests) == 2
    else:
        assert (got.body, got.whole) == (sent[: len(sent) + min(excess, 0)], whole)


@test
async def test_a_coded_stream_is_broken_in_the_clear(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [zipped()]
    proxy = bench.proxy()
    fail_upstream(proxy, Breakage.REORDER, at="events", number=2)
    got = await (await bench.client(proxy)).ask(request(CHAT, b"Accept-Encoding: zstd, gzip"))
    assert upstream.requests[0].all(b"accept-encoding") == [b"gzip"]
    assert got.body == b"".join([ROLE, *WORDS[:2], WORDS[3], WORDS[2], STOP, DONE])


@test
async def test_a_spot_that_never_comes_is_told(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [WHOLE_STREAM]
    proxy = bench.proxy(resilience=policy(RETRY))
    fail_upstream(proxy, Breakage.CUT, at="events", number=50)
    assert (await (await bench.client(proxy)).ask(ASK)).body == STREAM
    assert (await finished(proxy)).unreached
    tally = proxy.daemon.works.engine.tally()
    assert (tally.injected, tally.never) == (0, 1)


CACHED = {"enabled": True, "rules": [{"path": "/v1/*", "methods": ["POST"], "default_ttl": 60}]}


@pytest.mark.parametrize(
    "kind",
    [
        Breakage.TRUNCATE,
        Breakage.GARBAGE,
        Breakage.DUPLICATE,
        Breakage.EMPTY,
        Breakage.CUT,
        Breakage.NO_USAGE,
    ],
    ids=str,
)
@test
async def test_nothing_faulty_is_stored(bench: Bench, upstream: FakeUpstream, kind: Breakage) -> None:
    upstream.scripts = [WHOLE_STREAM]
    proxy = bench.proxy(cache=CACHED)
    fail_upstream(proxy, kind)
    await (await bench.client(proxy)).ask(ASK)
    assert (await (await bench.client(proxy)).ask(ASK)).body == STREAM
    assert len(upstream.requests) == 2


@pytest.mark.parametrize("absorbs", [False, True])
@pytest.mark.parametrize("kind", [Breakage.NEVER, Breakage.DELAY, Breakage.STALL, Breakage.SLOW], ids=str)
@test
async def test_who_leaves_is_waited_for_no_more(
    bench: Bench, upstream: FakeUpstream, kind: Breakage, absorbs: bool
) -> None:
    upstream.scripts = [[*WHOLE_STREAM[:4], Stall()]]
    proxy = bench.proxy(resilience=policy(RETRY) if absorbs else {})
    more: dict[Breakage, dict[str, Any]] = {
        Breakage.DELAY: {"silence": 99.0},
        Breakage.SLOW: {"per_event": 99.0},
    }
    fail_upstream(proxy, kind, **more.get(kind, {}))
    client = await bench.client(proxy)
    client.send(ASK)
    await until(lambda: proxy.daemon.pipeline.active, "the request")
    await pause(0.1)
    client.transport.abortConnection()
    event = await finished(proxy)
    assert (event.code, event.end, event.failed) == ("client_gone", End.CLIENT_GONE, False)
    await until(lambda: not upstream.open, "the upstream's connection to end")


@test
async def test_delay_is_before_the_head(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[JSON]]
    proxy = bench.proxy()
    fail_upstream(proxy, Breakage.DELAY, silence=0.2)
    got = await (await bench.client(proxy)).ask(ASK)
    assert (got.status, got.json) == (200, BODY)
    event = await finished(proxy)
    assert event.duration >= 0.2
    assert event.fault == "delay"


@test
async def test_pace_binds_both_sides(bench: Bench, upstream: FakeUpstream) -> None:
    event = b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % (b"x" * 60_000)
    pour = Pour(chunk(event), 1000)
    upstream.scripts = [[Send(stream_head()), pour, Send(b"0\r\n\r\n")]]
    proxy = bench.proxy()
    fail_upstream(proxy, Breakage.DUPLICATE, at="events", number=2)
    client = await bench.client(proxy)
    client.transport.pauseProducing()
    client.send(ASK)
    await pause(0.5)
    before = pour.poured
    assert before < 40_000_000
    client.transport.resumeProducing()
    got = await client.answer()
    assert (got.whole, len(got.body)) == (True, len(event) * 1001)


@test
async def test_shares_are_drawn_for_each_attempt(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[JSON]]
    proxy = bench.proxy(resilience=policy(RETRY))
    proxy.daemon.works.engine.reseed(3)
    set_fault(proxy, ErrorKind.OVERLOADED, Share(0.5), side=Side.UPSTREAM)
    client = await bench.client(proxy)
    for _ in range(10):
        await client.ask(ASK)
    assert {event.attempts for event in proxy.finished} >= {1, 2}


@test
async def test_one_fault_on_each_side_of_the_proxy(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [WHOLE_STREAM]
    proxy = bench.proxy(resilience=policy(RETRY))
    engine = proxy.daemon.works.engine
    engine.set_mode(rule(Breakage.CUT, Times(1), at="events", number=50))
    engine.add_rule(rule(ErrorKind.OVERLOADED, Times(1), side=Side.UPSTREAM))
    got = await (await bench.client(proxy)).ask(ASK)
    assert got.body == STREAM
    event = await finished(proxy)
    assert (event.fault, event.unreached, event.attempts) == ("overloaded", False, 2)
    tally = engine.tally()
    assert (tally.injected, tally.never) == (1, 1)

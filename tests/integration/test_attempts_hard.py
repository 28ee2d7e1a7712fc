"""Attempts under upstreams, clients, operators and clocks that misbehave."""

from __future__ import annotations

import gc
import gzip
import json
import os
import time
import zlib
from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted
from bench import Bench, reactor
from faultbench import set_fault
from twisted.logger import Logger
from wireclient import Answer, Client, get, pause, request, until

from llmproxyd.model import BreakerChanged, CredentialRested, End, Retrying
from llmproxyd.pipeline import attempts, commit, ending, gate, judge, relay
from llmproxyd.pipeline import upstream as sending
from llmproxyd.pipeline.run import Pipeline
from llmproxyd.providers.base import ErrorKind
from llmproxyd.resilience.breaker import Breaker, Permit
from llmproxyd.testing.proxy import ProxyUnderTest
from llmproxyd.testing.upstream import (
    LAST_CHUNK,
    Action,
    Close,
    FakeUpstream,
    Gate,
    Pour,
    Reset,
    Script,
    Send,
    Stall,
    Wait,
    answer,
    chunk,
    event,
    head,
    json_answer,
    stream_head,
)

CHAT = b"/v1/chat/completions"
ASKED = b'{"model":"gpt-4o","messages":[]}'
REPLY = {"id": "c-1", "object": "chat.completion", "choices": [{"index": 0, "message": {"content": "Hi"}}]}
OVERLOADED = {"error": {"message": "Overloaded, sorry", "type": "server_error", "code": None, "param": None}}
ROLE = event(b'{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}')
HI = event(b'{"choices":[{"index":0,"delta":{"content":"Hi"}}]}')
DONE = event(b"[DONE]")
SORRY = event(b'{"error":{"message":"sorry","code":500}}')

QUICK: dict[str, Any] = {"max_retries": 3, "base_delay": 0.01, "jitter": "none"}
BREAKER: dict[str, Any] = {"enabled": True, "failure_threshold": 1, "recovery_timeout": 0.2}
WORKS: list[Action] = [Send(json_answer(REPLY))]
IN_PARTS: list[Action] = [Send(json_answer(REPLY)[:-20]), Wait(0.05), Send(json_answer(REPLY)[-20:])]
STREAMS: list[Action] = [Send(stream_head() + chunk(HI) + chunk(DONE) + LAST_CHUNK)]


def policy(*, retry: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """Settings with a policy for every upstream."""
    return {"resilience": {"default": {"retry": QUICK | (retry or {}), **more}}}


def packed(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def failed(status: bytes = b"503 Service Unavailable", *fields: bytes) -> list[Action]:
    return [Send(json_answer(OVERLOADED, *fields, status=status))]


async def ask(bench: Bench, proxy: ProxyUnderTest, *fields: bytes, body: bytes = ASKED) -> Answer:
    client = await bench.client(proxy)
    return await client.ask(request(CHAT, *fields, body=body))


def told(proxy: ProxyUnderTest, kind: type[Any]) -> list[Any]:
    return [one for one in proxy.sink.events if isinstance(one, kind)]


# Every way out settles the permit, once, and says of the upstream what is true.


class Permits:
    """Counts what breakers let through, and what they are told of it."""

    def __init__(self) -> None:
        self.admitted = 0
        self.words: list[str] = []


@pytest.fixture
def permits(monkeypatch: pytest.MonkeyPatch) -> Permits:
    counted = Permits()
    admit = Breaker.admit

    def admitted(breaker: Breaker, now: float) -> Permit | float:
        found = admit(breaker, now)
        counted.admitted += isinstance(found, Permit)
        return found

    monkeypatch.setattr(Breaker, "admit", admitted)
    for word in ("succeeded", "failed", "abandoned"):
        settle = getattr(Permit, word)

        def settled(permit: Permit, now: float, word: str = word, settle: Any = settle) -> None:
            counted.words.append(word)
            settle(permit, now)

        monkeypatch.setattr(Permit, word, settled)
    return counted


def leave(proxy: ProxyUnderTest, client: Client) -> None:
    client.transport.abortConnection()


def stop(proxy: ProxyUnderTest, client: Client) -> None:
    proxy.daemon.pipeline.cut_all()


Cut = Callable[[ProxyUnderTest, Client], None]

ENDS: list[Any] = [
    pytest.param([WORKS], {}, "succeeded", id="answer"),
    pytest.param([STREAMS], {}, "succeeded", id="stream"),
    pytest.param([failed(), WORKS], {}, "succeeded", id="retried"),
    pytest.param([failed()], {}, "failed", id="all-spent"),
    pytest.param([failed(b"400 Bad Request")], {}, "succeeded", id="400"),
    pytest.param([failed(b"429 Slow", b"retry-after: 999")], {}, "succeeded", id="429"),
    pytest.param([failed(b"501 Never")], {}, "failed", id="501"),
    pytest.param([[Close()]], {}, "failed", id="closed"),
    pytest.param([[Reset()]], {}, "failed", id="reset"),
    pytest.param([[Stall()]], {"timeouts": {"headers": 0.1}}, "failed", id="no-head"),
    pytest.param([[Send(stream_head() + chunk(HI)), Close()]], {}, "failed", id="broken-after-content"),
    pytest.param([[Send(stream_head() + chunk(ROLE)), Close()]], {}, "failed", id="broken-before-content"),
    pytest.param(
        [[Send(stream_head() + chunk(HI)), Stall()]], {"timeouts": {"idle": 0.1}}, "failed", id="silent"
    ),
    pytest.param(
        [[Send(stream_head() + chunk(ROLE)), Stall()]],
        {"timeouts": {"first_content": 0.1}},
        "failed",
        id="no-content",
    ),
    pytest.param([[Stall()]], {"timeouts": {"total": 0.1}}, "failed", id="total-head"),
    pytest.param(
        [[Send(stream_head() + chunk(HI)), Stall()]],
        {"timeouts": {"total": 0.1}},
        "failed",
        id="total-stream",
    ),
    pytest.param(
        [failed(b"503 No", b"retry-after: 5")], {"timeouts": {"total": 0.1}}, "failed", id="total-no-wait"
    ),
    pytest.param([[Send(json_answer({"error": {"message": "no"}}))]], {}, "failed", id="error-under-200"),
    pytest.param([[Send(stream_head() + chunk(SORRY) + LAST_CHUNK)]], {}, "failed", id="error-in-stream"),
]


@pytest.mark.parametrize(("scripts", "settings", "word"), ENDS)
@pytest_twisted.ensureDeferred
async def test_each_end_tells_the_breaker_once(
    bench: Bench,
    upstream: FakeUpstream,
    permits: Permits,
    scripts: list[Script],
    settings: dict[str, Any],
    word: str,
) -> None:
    upstream.scripts = list(scripts)
    proxy = bench.proxy(**policy(breaker=BREAKER | {"failure_threshold": 9}), **settings)
    await ask(bench, proxy)
    await until(lambda: not proxy.daemon.pipeline.active, "the end")
    assert (permits.admitted, permits.words) == (1, [word])


UNDER_WAY: list[Any] = [
    pytest.param([Stall()], None, "abandoned", id="before-the-head"),
    pytest.param([Send(stream_head() + chunk(ROLE)), Stall()], None, "abandoned", id="held"),
    pytest.param([Send(stream_head() + chunk(HI)), Stall()], HI, "abandoned", id="streaming"),
    pytest.param(
        [Send(head(b"content-length: 9", status=b"503 No")), Stall()], None, "abandoned", id="error"
    ),
    pytest.param(failed(b"503 No", b"retry-after: 20"), None, "failed", id="waiting"),
]


@pytest.mark.parametrize(("script", "seen", "word"), UNDER_WAY)
@pytest.mark.parametrize("cut", [leave, stop])
@pytest_twisted.ensureDeferred
async def test_who_breaks_off_blames_nobody(
    bench: Bench,
    upstream: FakeUpstream,
    permits: Permits,
    script: Script,
    seen: bytes | None,
    word: str,
    cut: Cut,
) -> None:
    upstream.scripts = [script]
    proxy = bench.proxy(**policy(breaker=BREAKER | {"failure_threshold": 9}))
    client = await bench.client(proxy)
    client.send(request(CHAT, body=ASKED))
    await until(lambda: upstream.requests, "the request")
    if seen is not None:
        await client.has(seen)
    await pause(0.05)
    assert not permits.words
    cut(proxy, client)
    await until(lambda: not proxy.daemon.pipeline.active, "the end")
    assert (permits.admitted, permits.words) == (1, [word])
    await until(lambda: len(upstream.open) <= (word == "failed"), "the upstream's connection to end")
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("cut", [leave, stop])
@pytest_twisted.ensureDeferred
async def test_a_probe_that_is_broken_off_leaves_its_place_to_another(
    bench: Bench, upstream: FakeUpstream, permits: Permits, cut: Cut
) -> None:
    upstream.scripts = [failed(), [Stall()], WORKS]
    proxy = bench.proxy(**policy(retry={"max_retries": 0}, breaker=BREAKER))
    await ask(bench, proxy)
    await pause(0.25)
    client = await bench.client(proxy)
    client.send(request(CHAT, body=ASKED))
    await until(lambda: len(upstream.requests) == 2, "the probe")
    cut(proxy, client)
    await until(lambda: not proxy.daemon.pipeline.active, "the end")
    assert [one.after for one in told(proxy, BreakerChanged)] == ["open", "half-open"]
    assert (await ask(bench, proxy)).status == 200
    assert [one.after for one in told(proxy, BreakerChanged)] == ["open", "half-open", "closed"]
    assert permits.words == ["failed", "abandoned", "succeeded"]


@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_while_its_body_comes_was_never_let_through(
    bench: Bench, upstream: FakeUpstream, permits: Permits
) -> None:
    proxy = bench.proxy(**policy(breaker=BREAKER))
    client = await bench.client(proxy)
    client.send(request(CHAT, b"content-length: 1000000", body=None) + b"x" * 300_000)
    await until(lambda: proxy.daemon.pipeline.active, "the request")
    client.transport.abortConnection()
    await until(lambda: proxy.finished, "the end")
    assert (permits.admitted, proxy.finished[0].status, upstream.connections) == (0, 499, [])


@pytest_twisted.ensureDeferred
async def test_a_breaker_that_opens_while_many_are_under_way_is_told_of_each(
    bench: Bench, upstream: FakeUpstream, permits: Permits
) -> None:
    hold = Gate()
    upstream.scripts = [[hold, *failed()]]
    proxy = bench.proxy(**policy(retry={"max_retries": 1}, breaker=BREAKER | {"failure_threshold": 3}))
    clients = [await bench.client(proxy) for _ in range(20)]
    for client in clients:
        client.send(request(CHAT, body=ASKED))
    await until(lambda: len(upstream.requests) == 20, "all of them")
    hold.open()
    assert {(await client.answer()).status for client in clients} == {503}
    assert (permits.admitted, permits.words) == (20, ["failed"] * 20)
    assert [one.after for one in told(proxy, BreakerChanged)] == ["open"]


PLACES: list[Any] = [
    pytest.param(judge, "kind_of", WORKS, id="begun"),
    pytest.param(judge, "judged", STREAMS, id="judged"),
    pytest.param(attempts, "decide", failed(), id="decide"),
    pytest.param(gate.Gate, "pass_on", STREAMS, id="pass-on"),
    pytest.param(ending, "pass_whole", WORKS, id="begin-whole"),
    pytest.param(commit, "relayed", WORKS, id="commit-whole"),
    pytest.param(relay.Relay, "begin", IN_PARTS, id="begin"),
    pytest.param(relay.Relay, "makeConnection", IN_PARTS, id="made"),
    pytest.param(relay.Relay, "dataReceived", IN_PARTS, id="data"),
    pytest.param(relay.Relay, "connectionLost", IN_PARTS, id="lost"),
    pytest.param(sending.Sender, "send", WORKS, id="send"),
    pytest.param(
        judge, "judged", [Send(stream_head()), Wait(0.05), Send(chunk(HI)), Stall()], id="judged-later"
    ),
    pytest.param(
        gate.Gate, "pass_on", [Send(stream_head()), Wait(0.05), Send(chunk(HI)), Stall()], id="pass-on-later"
    ),
    pytest.param(
        relay.Relay,
        "dataReceived",
        [Send(stream_head()), Wait(0.05), Send(chunk(HI)), Stall()],
        id="data-later",
    ),
    pytest.param(attempts, "decide", [Send(head(status=b"503 No")), Wait(0.05), Close()], id="decide-later"),
]


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the pipeline logs of faults of its own, which the bench would fail the test for."""
    seen: list[Any] = []
    monkeypatch.setattr(Pipeline, "log", Logger(observer=seen.append))
    return seen


@pytest.mark.parametrize(("place", "name", "script"), PLACES)
@pytest_twisted.ensureDeferred
async def test_a_fault_of_our_own_ends_the_request_and_leaves_nothing(
    bench: Bench,
    upstream: FakeUpstream,
    permits: Permits,
    faults: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    place: Any,
    name: str,
    script: Script,
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a fault of our own")

    monkeypatch.setattr(place, name, broken)
    upstream.scripts = [script]
    proxy = bench.proxy(**policy(breaker=BREAKER, hold={"time": 5}), timeouts={"total": 5})
    client = await bench.client(proxy)
    client.send(request(CHAT, body=ASKED))
    await until(lambda: proxy.finished, "the end")
    got = await client.answer()
    if got.status == 500:
        assert got.json["error"]["code"] == "internal_error"
    else:
        assert not got.whole or (name == "connectionLost" and got.json == REPLY)
    assert len(faults) == 1
    # What the upstream did before counts all the same.
    accepted = dict.fromkeys(("begin", "pass_whole", "relayed"), "succeeded")
    word = ({"decide": "failed"} | accepted).get(name, "abandoned")
    assert (permits.admitted, permits.words) == (1, [word])
    monkeypatch.undo()
    await until(lambda: len(upstream.open) <= (Stall() not in script), "the upstream's connection to end")


@pytest_twisted.ensureDeferred
async def test_a_fault_of_our_own_after_a_wait_ends_the_request(
    bench: Bench, upstream: FakeUpstream, faults: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.scripts = [failed(b"503 No", b"retry-after-ms: 200")]
    proxy = bench.proxy(**policy())
    client = await bench.client(proxy)
    client.send(request(CHAT, body=ASKED))
    await until(lambda: told(proxy, Retrying), "the wait")

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a fault of our own")

    monkeypatch.setattr(sending.Sender, "send", broken)
    got = await client.answer()
    assert (got.status, len(faults)) == (500, 1)


# Who is to blame, where there are several upstreams and keys.


@pytest.mark.parametrize(
    ("status", "word"), [(b"401 No", "succeeded"), (b"429 Slow", "succeeded"), (b"500 No", "failed")]
)
@pytest_twisted.ensureDeferred
async def test_an_upstream_that_was_left_is_blamed_for_what_it_did_alone(
    bench: Bench, upstream: FakeUpstream, permits: Permits, status: bytes, word: str
) -> None:
    upstream.scripts = [failed(status), WORKS]
    proxy = bench.proxy(
        upstreams={
            "openai": {"fallbacks": [{"upstream": "spare"}]},
            "spare": {"provider": "openai", "base_url": upstream.url},
        },
        **policy(retry={"max_retries": 0}, breaker=BREAKER | {"failure_threshold": 9}),
    )
    got = await ask(bench, proxy)
    assert (got.status, permits.admitted, permits.words) == (200, 2, [word, "succeeded"])


@pytest_twisted.ensureDeferred
async def test_a_probe_for_which_no_key_is_awake_closes_nothing(
    bench: Bench, upstream: FakeUpstream, permits: Permits
) -> None:
    keys = ["first-key-1", "second-key-2"]
    upstream.scripts = [failed(b"401 No"), failed(b"401 No"), WORKS]
    proxy = bench.proxy(upstreams={"openai": {"api_keys": keys}}, **policy(breaker=BREAKER))
    assert (await ask(bench, proxy)).status == 401
    assert proxy.daemon.control.run("breaker trip openai").ok
    breaker = proxy.daemon.live.breakers.find("openai")
    assert breaker is not None
    await pause(0.3)
    got = await ask(bench, proxy)
    assert (got.status, got.json["error"]["code"]) == (429, "credentials_at_rest")
    assert breaker.state == "half-open"
    assert permits.words == ["succeeded", "abandoned"]


@pytest_twisted.ensureDeferred
async def test_a_probe_elsewhere_for_which_no_key_is_awake_closes_nothing(
    bench: Bench, upstream: FakeUpstream, permits: Permits
) -> None:
    keys = ["first-key-1", "second-key-2"]
    upstream.scripts = [failed(b"401 No"), failed(b"401 No"), failed()]
    proxy = bench.proxy(
        upstreams={
            "openai": {"fallbacks": [{"upstream": "spare"}]},
            "spare": {"provider": "openai", "base_url": upstream.url, "api_keys": keys},
        },
        **policy(retry={"max_retries": 0}, breaker=BREAKER | {"failure_threshold": 9}),
    )
    client = await bench.client(proxy)
    assert (await client.ask(request(b"/to/spare" + CHAT, body=ASKED))).status == 401
    got = await ask(bench, proxy)
    assert (got.status, got.json["error"]["code"], len(upstream.requests)) == (429, "credentials_at_rest", 3)
    assert permits.words == ["succeeded", "failed", "abandoned"]


@pytest_twisted.ensureDeferred
async def test_retries_with_one_key_do_not_use_up_the_others(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [failed(), failed(), failed(b"401 No"), WORKS]
    proxy = bench.proxy(upstreams={"openai": {"api_keys": ["first-key-1", "second-key-2"]}}, **policy())
    assert (await ask(bench, proxy)).status == 200
    used = [one.all(b"authorization")[0][-1:] for one in upstream.requests]
    assert used == [b"1", b"1", b"1", b"2"]


@pytest_twisted.ensureDeferred
async def test_many_keys_are_tried_once_each(bench: Bench, upstream: FakeUpstream) -> None:
    keys = [f"key-number-{number}" for number in range(40)]
    upstream.scripts = [failed(b"429 Slow", b"retry-after: 60")]
    proxy = bench.proxy(upstreams={"openai": {"api_keys": keys}}, **policy(retry={"max_retries": 0}))
    assert (await ask(bench, proxy)).status == 429
    assert len(upstream.requests) == 40
    assert len({one.all(b"authorization")[0] for one in upstream.requests}) == 40
    assert len(told(proxy, CredentialRested)) == 40


@pytest_twisted.ensureDeferred
async def test_all_keys_at_rest_send_requests_elsewhere(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [failed(b"401 No"), failed(b"401 No"), WORKS, WORKS]
    keyed = {"api_keys": ["first-key-1", "second-key-2"], "fallbacks": [{"upstream": "spare"}]}
    proxy = bench.proxy(
        upstreams={"openai": keyed, "spare": {"provider": "openai", "base_url": upstream.url}}
    )
    assert [(await ask(bench, proxy)).status for _ in range(2)] == [200, 200]
    assert [one.upstream for one in proxy.finished] == ["spare", "spare"]
    assert len(upstream.requests) == 4


@pytest_twisted.ensureDeferred
async def test_fallbacks_are_gone_through_in_order_past_open_breakers(
    bench: Bench, upstream: FakeUpstream
) -> None:
    fallbacks = [{"upstream": name} for name in ("one", "two", "three")]
    proxy = bench.proxy(
        upstreams={
            "openai": {"fallbacks": fallbacks},
            "one": {"provider": "openai", "base_url": upstream.url + "/one"},
            "two": {"provider": "openai", "base_url": upstream.url + "/two"},
            "three": {"provider": "openai", "base_url": upstream.url + "/three/deep"},
        },
        **policy(retry={"max_retries": 0}, breaker=BREAKER | {"recovery_timeout": 60}),
    )
    upstream.scripts = [failed(), failed(), failed(), WORKS, failed(), failed()]
    assert (await ask(bench, proxy)).status == 200
    assert [one.target for one in upstream.requests] == [
        CHAT,
        b"/one" + CHAT,
        b"/two" + CHAT,
        b"/three/deep" + CHAT,
    ]
    got = await ask(bench, proxy)
    assert (got.status, got.json, len(upstream.requests)) == (503, OVERLOADED, 5)
    got = await ask(bench, proxy)
    assert (got.status, got.json["error"]["code"], len(upstream.requests)) == (503, "circuit_open", 5)
    assert 55 <= int(got.get(b"retry-after") or 0) <= 60


# Bodies of requests.

SIZES = [0, 1, 65535, 65536, 65537, 262143, 262144, 262145]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("way", ["at once", "in two", "chunked", "expecting"])
@pytest_twisted.ensureDeferred
async def test_a_body_of_any_size_and_way_goes_out_again_whole(
    bench: Bench, upstream: FakeUpstream, size: int, way: str
) -> None:
    upstream.scripts = [failed(), [Close()], WORKS]
    body = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    client = await bench.client(bench.proxy(**policy()))
    length = b"content-length: %d" % size
    if way == "chunked":
        client.send(request(CHAT, b"transfer-encoding: chunked", body=None))
        client.send((chunk(body) if body else b"") + LAST_CHUNK)
    elif way == "in two":
        client.send(request(CHAT, length, body=None) + body[: size // 2])
        await pause(0.02)
        client.send(body[size // 2 :])
    elif way == "expecting":
        client.send(request(CHAT, b"expect: 100-continue", length, body=None))
        if size:
            await client.has(b"HTTP/1.1 100 Continue\r\n\r\n")
            client.send(body)
    else:
        client.send(request(CHAT, body=body))
    got = await client.answer()
    assert (got.status, [one.body == body for one in upstream.requests]) == (200, [True, True, True])
    assert client.received == b""


@pytest.mark.parametrize("chunked", [True, False])
@pytest_twisted.ensureDeferred
async def test_a_body_that_is_too_large_never_leaves(
    bench: Bench, upstream: FakeUpstream, permits: Permits, chunked: bool
) -> None:
    proxy = bench.proxy(server={"max_body": 300_000}, **policy(breaker=BREAKER))
    client = await bench.client(proxy)
    if chunked:
        client.send(request(CHAT, b"transfer-encoding: chunked", body=None))
        for _ in range(5):
            client.send(chunk(b"x" * 65536))
    else:
        client.send(request(CHAT, body=b"x" * 300_001))
    got = await client.answer()
    assert (got.status, got.json["error"]["code"]) == (413, "body_too_large")
    assert (upstream.connections, permits.admitted) == ([], 0)


@pytest.mark.parametrize("way", ["fault", "drained"])
@pytest_twisted.ensureDeferred
async def test_what_an_operator_wants_comes_before_all_attempts(
    bench: Bench, upstream: FakeUpstream, permits: Permits, way: str
) -> None:
    upstream.scripts = [WORKS]
    proxy = bench.proxy(**policy(breaker=BREAKER))
    client = await bench.client(proxy)
    assert (await client.ask(request(CHAT, body=ASKED))).status == 200
    if way == "fault":
        set_fault(proxy, ErrorKind.RATE_LIMIT)
    else:
        proxy.daemon.works.live.drained.add("openai")
    got = await client.ask(request(CHAT, body=ASKED))
    assert got.status == (429 if way == "fault" else 503)
    assert (len(upstream.requests), permits.words) == (1, ["succeeded"])


@pytest_twisted.ensureDeferred
async def test_what_the_path_tells_is_on_record(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [WORKS]
    proxy = bench.proxy(**policy())
    client = await bench.client(proxy)
    await client.ask(request(b"/v1beta/models/gemini-x:generateContent", body=b"{}"))
    assert proxy.finished[0].model == "gemini-x"


class Early(FakeUpstream):
    """Answers its first request before it has the body."""

    def next_script(self) -> Script:
        self.at_head = False
        return super().next_script()


@pytest.mark.parametrize("size", [2_000, 200_000, 10_000_000])
@pytest.mark.parametrize("unfinished", [True, False])
@pytest_twisted.ensureDeferred
async def test_an_answer_before_the_body_was_sent_is_followed_by_a_whole_one(
    bench: Bench, size: int, unfinished: bool
) -> None:
    body = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    endless: Script = [Send(head(b"content-length: 1000000", status=b"503 No") + b"x" * 70000), Stall()]
    early = Early(endless if unfinished else failed(), WORKS, at_head=True).listen(reactor)
    try:
        proxy = bench.proxy(base_url=early.url, **policy(retry={"base_delay": 0}))
        got = await ask(bench, proxy, body=body)
        assert (got.status, len(early.requests), early.requests[1].body == body) == (200, 2, True)
    finally:
        await early.stop()


@pytest.mark.parametrize("status", [b"401 No", b"413 Too Large"])
@pytest_twisted.ensureDeferred
async def test_an_early_refusal_is_handed_on(bench: Bench, status: bytes) -> None:
    early = Early(failed(status), at_head=True).listen(reactor)
    try:
        got = await ask(bench, bench.proxy(base_url=early.url, **policy()), body=b"x" * 10_000_000)
        assert (got.status, got.json, len(early.requests)) == (int(status[:3]), OVERLOADED, 1)
    finally:
        await early.stop()


# Answers of every kind pass unchanged through a policy that looks at them.

CHUNKED_JSON = head(b"content-type: application/json", b"transfer-encoding: chunked")
PLAIN: list[Any] = [
    pytest.param(b"POST", head(status=b"204 No Content"), b"", id="204"),
    pytest.param(b"POST", head(b"etag: x", status=b"304 Not Modified"), b"", id="304"),
    pytest.param(b"POST", head(b"content-length: 0", status=b"205 Reset Content"), b"", id="205"),
    pytest.param(b"POST", head(b"location: /x", b"content-length: 2", status=b"302 Found") + b"{}", b"{}", id="302"),
    pytest.param(
        b"POST",
        head(b"content-type: application/json", b"content-length: 2", status=b"206 Partial") + b'{"',
        b'{"',
        id="206",
    ),
    pytest.param(b"HEAD", head(b"content-type: application/json", b"content-length: 90"), b"", id="head"),
    pytest.param(b"HEAD", head(b"content-length: 90", status=b"404 Not Found"), b"", id="head-404"),
    pytest.param(b"POST", CHUNKED_JSON + b"".join(chunk(b"%c" % one) for one in b'{"a":1}') + LAST_CHUNK, b'{"a":1}', id="dribbled"),
    pytest.param(b"POST", CHUNKED_JSON + chunk(b'["' + b"x" * 99_999 + b'"]') + LAST_CHUNK, b'["' + b"x" * 99_999 + b'"]', id="large"),
    pytest.param(b"POST", answer(b'["' + b"x" * 99_999 + b'"]', b"content-type: application/json"), b'["' + b"x" * 99_999 + b'"]', id="large-length"),
    pytest.param(b"POST", answer(b"x" * 200_000, status=b"400 Bad Request"), b"x" * 200_000, id="large-400"),
    pytest.param(b"POST", stream_head() + chunk(HI + DONE) + LAST_CHUNK, HI + DONE, id="stream-in-one"),
    pytest.param(b"POST", stream_head() + chunk(HI[:-1]) + LAST_CHUNK, HI[:-1], id="stream-without-its-end"),
    pytest.param(b"POST", stream_head(b"text/event-stream", b"content-encoding: br") + chunk(b"\x0b\x02") + LAST_CHUNK, b"\x0b\x02", id="br"),
    pytest.param(b"POST", stream_head(b"text/event-stream", b"content-encoding: gzip") + chunk(b"garbage") + LAST_CHUNK, b"garbage", id="no-gzip"),
    pytest.param(b"POST", answer(b"garbage", b"content-type: application/json", b"content-encoding: gzip"), b"garbage", id="json-no-gzip"),
    pytest.param(b"POST", answer(packed(b"[1,")  + packed(b"2]"), b"content-type: application/json", b"content-encoding: gzip"), packed(b"[1,")  + packed(b"2]"), id="gzip-members"),
    pytest.param(b"POST", answer(zlib.compress(b"[1]"), b"content-type: application/json", b"content-encoding: deflate"), zlib.compress(b"[1]"), id="deflate"),
    pytest.param(b"POST", answer(packed(b" " * 50_000_000), b"content-type: application/json", b"content-encoding: gzip"), packed(b" " * 50_000_000), id="bomb"),
    pytest.param(b"POST", stream_head(b"text/event-stream", b"content-encoding: gzip") + chunk(packed(b":" * 50_000_000)) + LAST_CHUNK, packed(b":" * 50_000_000), id="stream-bomb"),
    pytest.param(b"POST", stream_head(b"text/event-stream", b"content-encoding: deflate") + chunk(zlib.compress(HI + DONE)) + LAST_CHUNK, zlib.compress(HI + DONE), id="deflated-stream"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "sent", "body"), PLAIN)
@pytest_twisted.ensureDeferred
async def test_what_is_no_failure_passes_as_it_is(
    bench: Bench, upstream: FakeUpstream, method: bytes, sent: bytes, body: bytes
) -> None:
    upstream.scripts = [[Send(sent)]]
    rules = {"recategorize": [{"pattern": "never said", "new_status": 503}]}
    for settings in (policy(retry={"retry_empty": True}), policy(**rules)):
        proxy = bench.proxy(**settings)
        client = await bench.client(proxy)
        got = await client.ask(request(CHAT, method=method, body=ASKED if method == b"POST" else None))
        assert (got.status, got.body == body, got.whole) == (int(sent[9:12]), True, True)
        assert not told(proxy, Retrying)


BROKEN: list[Any] = [
    pytest.param([Send(stream_head() + chunk(HI[:-3])), Close()], id="within-the-first-event"),
    pytest.param([Send(stream_head() + chunk(HI[:-2])), Close()], id="before-the-first-event-ends"),
    pytest.param([Send(stream_head() + chunk(b": hello\n\n")), Reset()], id="after-a-comment"),
    pytest.param([Send(stream_head() + chunk(ROLE) + b"zz\r\n")], id="bad-chunk"),
    pytest.param([Send(CHUNKED_JSON + chunk(json.dumps(REPLY).encode())), Close()], id="json-without-last-chunk"),
    pytest.param(
        [Send(answer(packed(b'{"error":{"message":"no"}}'), b"content-type: application/json", b"content-encoding: gzip"))],
        id="gzip-error",
    ),
    pytest.param([Send(stream_head() + chunk(SORRY[:-2])), Close()], id="half-an-error"),
    pytest.param([Send(head(b"content-length: 70", status=b"503 No")), Close()], id="error-without-body"),
    pytest.param([Send(head(status=b"503 No") + b"x" * 100_000), Stall()], id="endless-error"),
    pytest.param([Send(head(status=b"503 No") + b"x"), Stall()], id="slow-error"),
    pytest.param([Send(b"HTTP/1.0 503 No\r\n\r\nno"), Close()], id="http-1.0"),
    pytest.param([Send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"), Close()], id="hints"),
    pytest.param([Send(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"), *failed()], id="hints-and-503"),
    pytest.param([Send(head(b"content-type: text/html", status=b"524 A Timeout")), Close()], id="524"),
]  # fmt: skip


@pytest.mark.parametrize("script", BROKEN)
@pytest_twisted.ensureDeferred
async def test_nothing_of_what_was_thrown_away_is_seen(
    bench: Bench, upstream: FakeUpstream, script: Script
) -> None:
    upstream.scripts = [script, STREAMS]
    client = await bench.client(bench.proxy(**policy(hold={"time": 0.2})))
    client.send(request(CHAT, body=ASKED) + get(b"/v1/models") + request(CHAT, body=ASKED))
    got = [await client.answer() for _ in range(3)]
    assert got[0].raw.startswith(b"HTTP/1.1 200 OK\r\n")
    assert [(one.body, one.whole) for one in got] == [(HI + DONE, True)] * 3
    assert len(upstream.requests) == 4


@pytest_twisted.ensureDeferred
async def test_hints_are_relayed_only_where_nothing_can_be_retried(
    bench: Bench, upstream: FakeUpstream
) -> None:
    upstream.scripts = [[Send(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"), *WORKS]]
    for settings, hinted in ((policy(), False), ({"resilience": {"default": {"breaker": BREAKER}}}, True)):
        client = await bench.client(bench.proxy(**settings))
        client.send(request(CHAT, body=ASKED))
        await client.has(b"chat.completion")
        assert (b"HTTP/1.1 103" in client.received) is hinted


@pytest_twisted.ensureDeferred
async def test_a_whole_answer_that_was_thrown_away_leaves_its_connection_to_the_next(
    bench: Bench, upstream: FakeUpstream
) -> None:
    upstream.scripts = [failed(), failed(), failed(), WORKS]
    proxy = bench.proxy(**policy())
    assert [(await ask(bench, proxy)).status for _ in range(3)] == [200] * 3
    assert len(upstream.connections) == 1


@pytest.mark.parametrize("early", [True, False])
@pytest_twisted.ensureDeferred
async def test_http_1_0_on_both_sides(bench: Bench, upstream: FakeUpstream, early: bool) -> None:
    said = HI + DONE
    broken: Script = [Send(b"HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + (b"" if early else HI)), Wait(0.05), Reset()]  # fmt: skip
    whole: Script = [Send(b"HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + said), Close()]
    upstream.scripts = [broken, whole]
    client = await bench.client(bench.proxy(**policy()))
    client.send(request(CHAT, version=b"HTTP/1.0", body=ASKED))
    await client.closed()
    assert client.reset is not early
    if early:
        assert client.received.endswith(b"\r\n\r\n" + said)
        assert len(upstream.requests) == 2
    else:
        assert len(upstream.requests) == 1


@pytest_twisted.ensureDeferred
async def test_codings_are_asked_for_as_the_client_did_unless_answers_are_read(
    bench: Bench, upstream: FakeUpstream
) -> None:
    upstream.scripts = [WORKS]
    wanted = (b"Accept-Encoding: br;q=1.0, gzip;q=0.5, *;q=0", b"accept-encoding: zstd")
    await ask(bench, bench.proxy(), *wanted)
    await ask(bench, bench.proxy(**policy()), *wanted)
    plain, read = upstream.requests
    assert plain.all(b"accept-encoding") == [b"br;q=1.0, gzip;q=0.5, *;q=0", b"zstd"]
    assert read.all(b"accept-encoding") == [b"gzip;q=0.5", b"identity"]


@pytest_twisted.ensureDeferred
async def test_a_client_that_does_not_read_holds_up_what_was_held(
    bench: Bench, upstream: FakeUpstream
) -> None:
    piece = event(b"x" * 65_000)
    poured = Pour(chunk(piece), 300)
    upstream.scripts = [failed(), [Send(stream_head() + chunk(ROLE)), poured, Send(LAST_CHUNK)]]
    proxy = bench.proxy(timeouts={"idle": 0.3}, **policy())
    client = await bench.client(proxy)
    client.transport.pauseProducing()
    client.send(request(CHAT, body=ASKED))
    before = -1
    while poured.poured != before or not before:
        before = poured.poured
        await pause(0.5)
    assert poured.poured < 15_000_000
    client.transport.resumeProducing()
    got = await client.answer()
    assert (got.whole, got.body == ROLE + piece * 300) == (True, True)


# Clocks.


@pytest.mark.parametrize(
    "value", [b"", b"x", b"nan", b"inf", b"-inf", b"-1", b"0", b"1e400", b"9" * 400, b"\xff", b"1,2", b"0x10"]
)
@pytest_twisted.ensureDeferred
async def test_nonsense_for_patience_is_none(bench: Bench, upstream: FakeUpstream, value: bytes) -> None:
    upstream.scripts = [[Wait(0.3), *WORKS]]
    got = await ask(bench, bench.proxy(**policy()), b"x-stainless-read-timeout: " + value)
    assert got.status == 200


PHASES: list[Any] = [
    pytest.param([Stall()], id="head"),
    pytest.param([Send(stream_head() + chunk(ROLE)), Stall()], id="held"),
    pytest.param([Send(head(status=b"503 No") + b"no"), Stall()], id="error"),
]


@pytest.mark.parametrize("script", PHASES)
@pytest.mark.parametrize("patience", [True, False])
@pytest_twisted.ensureDeferred
async def test_the_deadline_comes_in_every_phase(
    bench: Bench, upstream: FakeUpstream, script: Script, patience: bool
) -> None:
    upstream.scripts = [script]
    retry = {"max_retries": 1000, "base_delay": 0}
    settings = {} if patience else {"timeouts": {"total": 0.5}}
    proxy = bench.proxy(**policy(retry=retry), **settings)
    got = await ask(bench, proxy, *([b"x-stainless-read-timeout: 0.5"] * patience))
    assert (got.status, got.json["error"]["code"]) == (504, "total_timeout")
    assert proxy.finished[0].duration < 2
    await until(lambda: not upstream.open, "the connection to end")


@pytest.mark.parametrize("script", PHASES[1:])
@pytest_twisted.ensureDeferred
async def test_a_client_as_patient_as_we_are_has_a_deadline_once_the_head_is_here(
    bench: Bench, upstream: FakeUpstream, script: Script
) -> None:
    """As long as the head is waited for, the timeout for that does as well."""
    upstream.scripts = [script]
    proxy = bench.proxy(**policy(), timeouts={"headers": 0.5})
    got = await ask(bench, proxy, b"x-stainless-read-timeout: 0.5")
    assert (got.status, got.json["error"]["code"]) == (504, "total_timeout")
    assert proxy.finished[0].duration < 2


@pytest_twisted.ensureDeferred
async def test_a_client_as_patient_as_we_are_has_a_deadline_in_a_further_attempt(
    bench: Bench, upstream: FakeUpstream
) -> None:
    upstream.scripts = [[Wait(0.6), *failed()], [Stall()]]
    proxy = bench.proxy(**policy(retry={"base_delay": 0}), timeouts={"headers": 1.2})
    got = await ask(bench, proxy, b"x-stainless-read-timeout: 1.2")
    assert (got.status, got.json["error"]["code"]) == (504, "total_timeout")
    assert len(upstream.requests) == 2


@pytest_twisted.ensureDeferred
async def test_the_deadline_ends_attempts_without_end(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Wait(0.1), *failed()]]
    retry = {"max_retries": 1000, "base_delay": 0}
    proxy = bench.proxy(**policy(retry=retry), timeouts={"total": 0.5})
    # The last word is the deadline's or, where it comes between two attempts, the upstream's.
    assert (await ask(bench, proxy)).status in (503, 504)
    assert 4 <= len(upstream.requests) <= 8


@pytest_twisted.ensureDeferred
async def test_a_body_that_took_all_the_time_is_not_sent(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [WORKS]
    client = await bench.client(bench.proxy(**policy(), timeouts={"total": 0.2}))
    client.send(request(CHAT, b"content-length: 10", body=None) + b"01234")
    await pause(0.3)
    client.send(b"56789")
    got = await client.answer()
    assert (got.status, got.json["error"]["code"], upstream.connections) == (504, "total_timeout", [])


@pytest.mark.parametrize(("ahead", "status", "requests"), [(-3600, 200, 2), (0, 200, 2), (3600, 429, 1)])
@pytest_twisted.ensureDeferred
async def test_a_wall_clock_that_is_wrong_stops_nothing(
    bench: Bench, upstream: FakeUpstream, ahead: int, status: int, requests: int
) -> None:
    when = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + ahead)).encode()
    upstream.scripts = [failed(b"429 Slow", b"Retry-After: " + when), WORKS]
    got = await ask(bench, bench.proxy(**policy()))
    assert (got.status, len(upstream.requests)) == (status, requests)


# Many at a time.


@pytest_twisted.ensureDeferred
async def test_the_budget_holds_under_many_clients(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Wait(0.05), *failed()]]
    budget = {"ratio": 0.5, "min_per_second": 1, "window": 60}
    retry = {"max_retries": 1000, "base_delay": 0, "budget": budget}
    proxy = bench.proxy(**policy(retry=retry))
    clients = [await bench.client(proxy) for _ in range(50)]
    for client in clients:
        client.send(request(CHAT, body=ASKED))
    got = [await client.answer() for client in clients]
    assert {one.status for one in got} == {503}
    assert {one.get(b"x-should-retry") for one in got} == {b"false"}
    assert len(upstream.requests) == 50 + 25 + 60


@pytest_twisted.ensureDeferred
async def test_thousands_of_retries_without_a_wait(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [failed()]
    budget = {"min_per_second": 1000}
    proxy = bench.proxy(**policy(retry={"max_retries": 1500, "base_delay": 0, "budget": budget}))
    assert (await ask(bench, proxy)).status == 503
    assert (len(upstream.requests), len(upstream.connections)) == (1501, 1)


@pytest_twisted.ensureDeferred
async def test_thousands_of_connections_refused_without_a_wait(bench: Bench, closed_port: int) -> None:
    budget = {"min_per_second": 1000}
    retry = {"max_retries": 1500, "base_delay": 0, "budget": budget}
    proxy = bench.proxy(base_url=f"http://127.0.0.1:{closed_port}", **policy(retry=retry))
    got = await ask(bench, proxy)
    assert (got.status, got.get(b"x-should-retry")) == (502, b"false")
    assert len(told(proxy, Retrying)) == 1500


# What is rehearsed, and what operators and their files say.


@pytest_twisted.ensureDeferred
async def test_what_is_injected_is_neither_retried_nor_counted_nor_held(
    bench: Bench, upstream: FakeUpstream, permits: Permits
) -> None:
    proxy = bench.proxy(faults={"mode": "u *", "header": True}, **policy(breaker=BREAKER))
    assert [(await ask(bench, proxy)).status >= 500 for _ in range(3)] == [True] * 3
    proxy.daemon.control.run("n")
    got = await ask(bench, proxy, b"x-llmproxyd-fault: server_error")
    assert (got.status >= 500, got.get(b"x-llmproxyd-error")) == (True, b"injected")
    assert (permits.admitted, upstream.connections, told(proxy, Retrying)) == (0, [], [])


@pytest_twisted.ensureDeferred
async def test_a_request_goes_by_the_policy_under_which_it_came(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [failed(b"503 No", b"retry-after-ms: 300"), WORKS, failed()]
    proxy = bench.proxy(**policy(breaker=BREAKER))
    other = bench.proxy()
    client = await bench.client(proxy)
    client.send(request(CHAT, body=ASKED))
    await until(lambda: told(proxy, Retrying), "the wait")
    proxy.daemon.pipeline.policy = other.daemon.pipeline.policy
    proxy.daemon.live.breakers.reload({})
    assert (await client.answer()).status == 200
    assert (await ask(bench, proxy)).status == 503
    assert list(proxy.daemon.live.breakers) == []


@pytest.mark.parametrize("content", [HI, SORRY])
@pytest_twisted.ensureDeferred
async def test_a_hard_stop_is_found_in_a_stream(bench: Bench, upstream: FakeUpstream, content: bytes) -> None:
    said = content.replace(b"Hi", b"pozzed").replace(b"sorry", b"pozzed")
    upstream.scripts = [[Send(stream_head() + chunk(ROLE) + chunk(said)), Stall()]]
    rule = {"pattern": "pozzed", "user_message": "Come back tomorrow."}
    proxy = bench.proxy(**policy(hard_stop=[rule], breaker=BREAKER))
    got = await ask(bench, proxy)
    assert (got.status, got.json["error"]["code"], len(upstream.requests)) == (502, "hard_stop", 1)
    await until(lambda: not upstream.open, "the connection to end")


@pytest_twisted.ensureDeferred
async def test_a_hard_stop_is_found_in_a_stream_without_content(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Send(stream_head() + chunk(b": pozzed\n\n" + DONE) + LAST_CHUNK)]]
    rule = {"pattern": "pozzed", "user_message": "Come back tomorrow."}
    got = await ask(bench, bench.proxy(**policy(hard_stop=[rule])))
    assert (got.status, got.json["error"]["code"]) == (502, "hard_stop")


@pytest_twisted.ensureDeferred
async def test_a_rule_knows_an_error_by_the_status_that_it_came_with(
    bench: Bench, upstream: FakeUpstream
) -> None:
    said = {"error": {"message": "The model is overloaded", "code": 500}}
    upstream.scripts = [[Send(json_answer(said))], WORKS]
    rule = {"pattern": "is overloaded", "original_status": 200, "new_status": 429}
    proxy = bench.proxy(**policy(retry={"rate_limit_wait": 0.02}, recategorize=[rule]))
    assert (await ask(bench, proxy)).status == 200
    (retrying,) = told(proxy, Retrying)
    assert (retrying.failed, retrying.delay) == ("limited the rate (429)", 0.02)


@pytest_twisted.ensureDeferred
async def test_a_stream_of_an_unknown_kind_is_not_held_up_by_rules(
    bench: Bench, upstream: FakeUpstream
) -> None:
    upstream.scripts = [[Send(stream_head() + chunk(HI)), Stall()]]
    rule = {"pattern": "pozzed", "user_message": "Come back tomorrow."}
    client = await bench.client(bench.proxy(**policy(hard_stop=[rule])))
    client.send(request(b"/v1/something/new", body=ASKED))
    await client.has(HI)


@pytest.mark.parametrize("script", [failed(b"404 No"), failed(), [Close()], failed(b"401 No")])
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST"])
@pytest_twisted.ensureDeferred
async def test_models_are_listed_for_those_who_ask_for_a_list(
    bench: Bench, upstream: FakeUpstream, permits: Permits, script: Script, method: bytes
) -> None:
    if method == b"HEAD":
        sent = [one.data.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" for one in script if isinstance(one, Send)]
        script = [*map(Send, sent), Close()]
    upstream.scripts = [script]
    proxy = bench.proxy(upstreams={"openai": {"models_fallback": ["one"]}}, **policy(breaker=BREAKER))
    client = await bench.client(proxy)
    got = await client.ask(request(b"/v1/models", method=method, body=None))
    listed = method != b"POST" and b"401" not in getattr(script[0], "data", b"")
    assert (got.get(b"x-llmproxyd-models") == b"fallback") is listed
    assert (got.status == 200) is listed
    assert len(permits.words) == permits.admitted == 1
    assert proxy.finished[0].end is End.COMPLETE


@pytest_twisted.ensureDeferred
async def test_files_of_large_bodies_are_closed_with_their_requests(
    bench: Bench, upstream: FakeUpstream
) -> None:
    def files() -> list[str]:
        links = (os.path.realpath(f"/dev/fd/{one}") for one in os.listdir("/dev/fd"))
        return [one for one in links if "deleted" in one or "/tmp" in one]

    upstream.scripts = [failed(), WORKS, failed(), failed(b"400 No"), [Close()], [Stall()]]
    proxy = bench.proxy(timeouts={"headers": 0.2}, **policy(breaker=BREAKER | {"failure_threshold": 9}))
    before = files()
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            await ask(bench, proxy, body=b"x" * 600_000)
        await pause(0.05)
        assert len(upstream.requests) == 6
        assert files() == before
    finally:
        gc.enable()

"""An upstream that fails is left alone for a while, and then asked again by one request at first."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from bench import Bench
from wireclient import Answer, pause, request, until

from llmproxyd.model import BreakerChanged, ErrorNoted
from llmproxyd.testing.proxy import ProxyUnderTest
from llmproxyd.testing.upstream import (
    LAST_CHUNK,
    Action,
    Close,
    FakeUpstream,
    Gate,
    Reset,
    Send,
    Stall,
    chunk,
    event,
    json_answer,
    stream_head,
)

CHAT = b"/v1/chat/completions"
HI = event(b'{"choices":[{"index":0,"delta":{"content":"Hi"}}]}')
WORKS: list[Action] = [Send(json_answer({"choices": []}))]


def status(code: int) -> list[Action]:
    return [Send(json_answer({"error": {"message": "no"}}, status=b"%d No" % code))]


def breaker(**more: Any) -> dict[str, Any]:
    settings = {"enabled": True, "failure_threshold": 2, "recovery_timeout": 0.3} | more
    return {"resilience": {"default": {"breaker": settings}}}


def changes(proxy: ProxyUnderTest) -> list[tuple[str, str]]:
    return [(one.before, one.after) for one in proxy.sink.events if isinstance(one, BreakerChanged)]


async def ask(bench: Bench, proxy: ProxyUnderTest, body: bytes = b'{"model":"m"}') -> Answer:
    client = await bench.client(proxy)
    return await client.ask(request(CHAT, body=body))


BAD: list[Any] = [
    pytest.param(status(500), id="500"),
    pytest.param(status(529), id="529"),
    pytest.param([Close()], id="closed"),
    pytest.param([Reset()], id="reset"),
    pytest.param([Send(b"nonsense\r\n\r\n"), Close()], id="no-http"),
    pytest.param([Send(stream_head() + chunk(HI)), Close()], id="broken-stream"),
    pytest.param([Send(stream_head() + chunk(HI)), Stall()], id="silent-stream"),
    pytest.param([Stall()], id="no-answer"),
]


@pytest.mark.parametrize("script", BAD)
@pytest_twisted.ensureDeferred
async def test_failures_in_a_row_open_it_and_a_probe_closes_it(
    bench: Bench, upstream: FakeUpstream, script: list[Action]
) -> None:
    upstream.scripts = [script, script, WORKS]
    proxy = bench.proxy(timeouts={"headers": 0.2, "idle": 0.2}, **breaker())
    await ask(bench, proxy)
    await ask(bench, proxy)
    got = await ask(bench, proxy)
    assert (got.status, got.json["error"]["code"]) == (503, "circuit_open")
    assert got.get(b"retry-after") == b"1"
    assert got.get(b"x-llmproxyd-error") == b"proxy"
    assert (len(upstream.requests) or 2) == 2
    await pause(0.35)
    assert (await ask(bench, proxy)).status == 200
    assert changes(proxy) == [("closed", "open"), ("open", "half-open"), ("half-open", "closed")]


@pytest.mark.parametrize("code", [400, 401, 404, 429])
@pytest_twisted.ensureDeferred
async def test_a_clients_own_faults_do_not_open_it(bench: Bench, upstream: FakeUpstream, code: int) -> None:
    upstream.scripts = [status(code)]
    proxy = bench.proxy(**breaker())
    assert [(await ask(bench, proxy)).status for _ in range(4)] == [code] * 4
    assert not changes(proxy)


@pytest_twisted.ensureDeferred
async def test_injected_errors_do_not_open_it(bench: Bench, upstream: FakeUpstream) -> None:
    proxy = bench.proxy(faults={"mode": "u *"}, **breaker())
    assert [(await ask(bench, proxy)).status >= 500 for _ in range(4)] == [True] * 4
    assert not changes(proxy)
    assert not upstream.requests


@pytest_twisted.ensureDeferred
async def test_one_stubborn_request_counts_once(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [status(503)]
    settings = breaker()
    settings["resilience"]["default"]["retry"] = {"max_retries": 4, "base_delay": 0.01}
    proxy = bench.proxy(**settings)
    assert (await ask(bench, proxy)).status == 503
    assert (len(upstream.requests), changes(proxy)) == (5, [])
    assert (await ask(bench, proxy)).status == 503
    assert (len(upstream.requests), changes(proxy)) == (10, [("closed", "open")])


@pytest_twisted.ensureDeferred
async def test_a_probe_closes_it_when_its_stream_begins_and_not_when_that_ends(
    bench: Bench, upstream: FakeUpstream
) -> None:
    gate = Gate()
    running = [Send(stream_head() + chunk(HI)), gate, Send(chunk(event(b"[DONE]")) + LAST_CHUNK)]
    upstream.scripts = [status(500), status(500), running, WORKS]
    proxy = bench.proxy(**breaker())
    await ask(bench, proxy)
    await ask(bench, proxy)
    await pause(0.35)
    probe = await bench.client(proxy)
    probe.send(request(CHAT))
    await until(lambda: gate.reached, "the stream to begin")
    assert (await ask(bench, proxy)).status == 200
    assert changes(proxy)[-1] == ("half-open", "closed")
    gate.open()
    assert (await probe.answer()).whole


@pytest_twisted.ensureDeferred
async def test_a_probe_abandoned_by_its_client_hands_its_place_on(
    bench: Bench, upstream: FakeUpstream
) -> None:
    gate = Gate()
    upstream.scripts = [status(500), status(500), [gate, *WORKS], WORKS]
    proxy = bench.proxy(**breaker())
    await ask(bench, proxy)
    await ask(bench, proxy)
    await pause(0.35)
    probe = await bench.client(proxy)
    probe.send(request(CHAT))
    await until(lambda: len(upstream.requests) == 3, "the probe")
    assert (await ask(bench, proxy)).status == 503
    probe.transport.abortConnection()
    await until(lambda: len(proxy.finished) == 4, "the probe to end")
    assert (await ask(bench, proxy)).status == 200
    assert changes(proxy)[-1] == ("half-open", "closed")


@pytest_twisted.ensureDeferred
async def test_each_model_can_have_one_of_its_own(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [status(500), status(500), WORKS]
    proxy = bench.proxy(**breaker(key=["upstream", "model"]))
    bad, good = b'{"model":"bad"}', b'{"model":"good"}'
    await ask(bench, proxy, bad)
    await ask(bench, proxy, bad)
    assert (await ask(bench, proxy, bad)).status == 503
    assert (await ask(bench, proxy, good)).status == 200
    assert [one.name for one in proxy.daemon.live.breakers] == ["openai/bad", "openai/good"]


@pytest_twisted.ensureDeferred
async def test_the_operator_can_trip_and_reset_it(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [WORKS]
    proxy = bench.proxy(**breaker())
    run = proxy.daemon.control.run
    assert "No breaker yet" in run("breaker").text
    assert not run("breaker trip openai").ok
    await ask(bench, proxy)
    assert run("breaker").text == "openai  closed\n"
    assert run("breaker trip openai").ok
    assert (await ask(bench, proxy)).status == 503
    assert "open, " in run("breaker show").text
    assert run("breaker reset openai").ok
    assert (await ask(bench, proxy)).status == 200
    bad = run("breaker trip opnai")
    assert not bad.ok
    assert "openai" in bad.text


@pytest_twisted.ensureDeferred
async def test_an_open_one_sends_requests_to_the_fallback(bench: Bench, upstream: FakeUpstream) -> None:
    proxy = bench.proxy(
        upstreams={"openai": {"fallbacks": [{"upstream": "vllm"}]}, "vllm": {"provider": "openai"}},
        **breaker(),
    )
    upstream.scripts = [status(500), WORKS, status(500), WORKS, WORKS]
    assert [(await ask(bench, proxy)).status for _ in range(3)] == [200] * 3
    assert [one.upstream for one in proxy.finished] == ["vllm"] * 3
    assert len(upstream.requests) == 5
    assert changes(proxy) == [("closed", "open")]


@pytest_twisted.ensureDeferred
async def test_a_stop_while_a_stream_runs_does_not_count(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Send(stream_head() + chunk(HI)), Gate()]]
    proxy = bench.proxy(**breaker(failure_threshold=1))
    client = await bench.client(proxy)
    client.send(request(CHAT))
    await client.has(HI)
    proxy.daemon.pipeline.cut_all()
    assert not (await client.answer()).whole
    assert not changes(proxy)


@pytest_twisted.ensureDeferred
async def test_health_tells_how_upstreams_did(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [WORKS, status(500), status(400)]
    proxy = bench.proxy()

    def told() -> Any:
        return proxy.daemon.works.targets.status("openai")

    seen = [told()]
    for _ in range(3):
        await ask(bench, proxy)
        seen.append(told())
    assert seen == ["unknown", "ok", "failing", "ok"]


@pytest_twisted.ensureDeferred
async def test_every_failure_is_noted_once(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [
        status(503),
        status(503),
        WORKS,
        status(400),
        [Close()],
        [Send(stream_head() + chunk(HI) + LAST_CHUNK)],
    ]
    settings = {"resilience": {"default": {"retry": {"max_retries": 3, "base_delay": 0.01}}}}
    proxy = bench.proxy(error_logging={"enabled": True, "folder": "/nonexistent/never"}, **settings)
    for _ in range(2):
        await ask(bench, proxy)
    noted = [one for one in proxy.sink.events if isinstance(one, ErrorNoted)]
    assert [(one.code, one.attempt, one.final) for one in noted] == [
        ("503", 1, False),
        ("503", 2, False),
        ("400", 1, True),
    ]
    assert noted[0].body is not None
    assert b'"no"' in noted[0].body.data

"""Each request finds its upstream, or learns why there is none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from bench import Bench, reactor
from wireclient import Answer, get, request

from llmproxyd.testing.proxy import ProxyUnderTest
from llmproxyd.testing.upstream import FakeUpstream, Send, json_answer

CHAT = b"/v1/chat/completions"
ANTHROPIC = (b"anthropic-version: 2023-06-01", b"x-api-key: sk-ant-x")


@pytest.fixture
def other(_nothing_left: None) -> Iterator[FakeUpstream]:
    """A second upstream, named ``mine``, beside the one of all providers."""
    made = FakeUpstream([Send(json_answer({"from": "mine"}))]).listen(reactor)
    yield made
    pytest_twisted.blockon(made.stop())


async def sent(
    bench: Bench, upstream: FakeUpstream, other: FakeUpstream, data: bytes, **settings: Any
) -> Answer:
    upstream.scripts = [[Send(json_answer({"from": "all"}))]]
    mine = {"provider": "openai", "base_url": other.url + "/base"}
    settings["upstreams"] = settings.get("upstreams", {}) | {"mine": mine}
    client = await bench.client(bench.proxy(**settings))
    return await client.ask(data)


@pytest.mark.parametrize(
    ("target", "arrived"),
    [
        (b"/to/mine/v1/chat/completions", b"/base/v1/chat/completions"),
        (b"/to/mine/a%2Fb;c?x=1&x=2", b"/base/a%2Fb;c?x=1&x=2"),
        (b"/to/mine//v1", b"/base//v1"),
        (b"/to/mine/", b"/base/"),
        (b"/to/mine", b"/base/"),
        (b"/to/mine?", b"/base/?"),
        (b"/to/mine?a=/b", b"/base/?a=/b"),
        (b"/to/mine/to/openai/v1", b"/base/to/openai/v1"),
        (b"/to/mine/health", b"/base/health"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_to_name(
    bench: Bench, upstream: FakeUpstream, other: FakeUpstream, target: bytes, arrived: bytes
) -> None:
    got = await sent(bench, upstream, other, get(target))
    assert got.json == {"from": "mine"}
    assert [one.target for one in other.requests] == [arrived]


@pytest.mark.parametrize(
    "target", [b"/to/yours/v1/models", b"/to//v1/models", b"/to/", b"/to/Mine/v1", b"/to/m%69ne/v1"]
)
@pytest_twisted.ensureDeferred
async def test_an_unknown_name(
    bench: Bench, upstream: FakeUpstream, other: FakeUpstream, target: bytes
) -> None:
    got = await sent(bench, upstream, other, get(target))
    assert (got.status, got.json["error"]["code"]) == (404, "upstream_unknown")
    assert got.get(b"x-llmproxyd-error") == b"proxy"
    assert "mine" in got.json["error"]["message"]
    assert "anthropic" in got.json["error"]["message"]
    assert not upstream.requests
    assert not other.requests


@pytest_twisted.ensureDeferred
async def test_an_unknown_name_is_told_in_the_clients_dialect(
    bench: Bench, upstream: FakeUpstream, other: FakeUpstream
) -> None:
    got = await sent(bench, upstream, other, request(b"/to/yours/v1/messages", *ANTHROPIC))
    assert (got.status, got.json["error"]["details"]["error_code"]) == (404, "upstream_unknown")


ROUTES: list[Any] = [
    pytest.param({"path_prefix": "/team"}, request(b"/team/v1/x?q"), b"/base/team/v1/x?q", id="prefix"),
    pytest.param(
        {"path_prefix": "/team", "strip": True}, request(b"/team/v1/x?q"), b"/base/v1/x?q", id="strip"
    ),
    pytest.param(
        {"path_prefix": "/team/", "strip": True}, request(b"/team/v1/x?q"), b"/base/v1/x?q", id="strip-slash"
    ),
    pytest.param({"path_prefix": "/team", "strip": True}, request(b"/team"), b"/base/", id="strip-all"),
    pytest.param({"path_prefix": "/team", "strip": True}, request(b"/team?a"), b"/base/?a", id="strip-query"),
    pytest.param(
        {"path_prefix": "/team", "strip": True}, request(b"/team//x"), b"/base//x", id="strip-double"
    ),
    pytest.param({"host": "mine.test"}, request(CHAT, host=b"Mine.Test:8888"), b"/base" + CHAT, id="host"),
    pytest.param({"header": "x-team"}, request(CHAT, b"X-Team: any"), b"/base" + CHAT, id="header"),
    pytest.param({"header": "x-team: a"}, request(CHAT, b"X-Team: a"), b"/base" + CHAT, id="header-value"),
]


@pytest.mark.parametrize(("route", "data", "arrived"), ROUTES)
@pytest_twisted.ensureDeferred
async def test_a_route(
    bench: Bench, upstream: FakeUpstream, other: FakeUpstream, route: Any, data: bytes, arrived: bytes
) -> None:
    got = await sent(bench, upstream, other, data, routes=[{"upstream": "mine", **route}])
    assert got.json == {"from": "mine"}
    assert [one.target for one in other.requests] == [arrived]


@pytest.mark.parametrize(
    ("route", "data"),
    [
        ({"path_prefix": "/team"}, request(b"/teams/v1/x")),
        ({"path_prefix": "/team"}, request(b"/a/team/v1/x")),
        ({"host": "mine.test"}, request(CHAT)),
        ({"header": "x-team: a"}, request(CHAT, b"X-Team: b")),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_route_that_does_not_match(
    bench: Bench, upstream: FakeUpstream, other: FakeUpstream, route: Any, data: bytes
) -> None:
    got = await sent(bench, upstream, other, data, routes=[{"upstream": "mine", **route}])
    assert got.json == {"from": "all"}


@pytest_twisted.ensureDeferred
async def test_the_first_route_wins_and_the_name_before_all(
    bench: Bench, upstream: FakeUpstream, other: FakeUpstream
) -> None:
    routes = [{"path_prefix": "/", "upstream": "mine"}, {"path_prefix": "/v1", "upstream": "openai"}]
    assert (await sent(bench, upstream, other, request(CHAT), routes=routes)).json == {"from": "mine"}
    got = await sent(bench, upstream, other, request(b"/to/openai" + CHAT), routes=routes)
    assert got.json == {"from": "all"}


@pytest.mark.parametrize("data", [request(CHAT), request(b"/v1/messages", *ANTHROPIC), get(b"/anything")])
@pytest_twisted.ensureDeferred
async def test_a_single_upstream_takes_everything(
    bench: Bench, upstream: FakeUpstream, other: FakeUpstream, data: bytes
) -> None:
    got = await sent(bench, upstream, other, data, server={"single_upstream": "mine"})
    assert got.json == {"from": "mine"}


@pytest_twisted.ensureDeferred
async def test_what_nobody_recognises_goes_to_the_default(
    bench: Bench, upstream: FakeUpstream, other: FakeUpstream
) -> None:
    got = await sent(bench, upstream, other, get(b"/anything"), default_upstream="mine")
    assert got.json == {"from": "mine"}


@pytest.fixture
def bare(_nothing_left: None) -> Iterator[ProxyUnderTest]:
    """A proxy that was told nothing."""
    made = ProxyUnderTest(reactor, {}).start()
    yield made
    pytest_twisted.blockon(made.stop())


@pytest_twisted.ensureDeferred
async def test_databricks_without_a_workspace(bench: Bench, bare: ProxyUnderTest) -> None:
    client = await bench.client(bare)
    got = await client.ask(request(b"/serving-endpoints/chat/invocations"))
    assert (got.status, got.json["error_code"]) == (404, "upstream_not_configured")
    assert "DATABRICKS_REAL_HOST" in got.json["message"]
    assert "upstreams.databricks.base_url" in got.json["message"]
    assert got.get(b"x-llmproxyd-code") == b"upstream_not_configured"
    assert bare.finished[0].code == "upstream_not_configured"


@pytest_twisted.ensureDeferred
async def test_databricks_with_a_workspace(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Send(json_answer({}))]]
    proxy = ProxyUnderTest(reactor, {}, environ={"DATABRICKS_REAL_HOST": upstream.url}).start()
    try:
        client = await bench.client(proxy)
        assert (await client.ask(request(b"/serving-endpoints/chat/invocations"))).status == 200
    finally:
        stopping = proxy.stop()
        if stopping is not None:
            await stopping
    assert upstream.requests[0].target == b"/serving-endpoints/chat/invocations"


@pytest.mark.parametrize(
    "target",
    [
        b"@evil.example/v1/models",
        b"evil.example:80",
        b"v1/models",
        b"?x",
        b":8000/v1",
        b".evil.example/",
        b"\\evil.example",
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_target_that_does_not_begin_with_a_slash(
    bench: Bench, upstream: FakeUpstream, other: FakeUpstream, target: bytes
) -> None:
    """Glued to a base URL it would name another host."""
    got = await sent(bench, upstream, other, get(target))
    assert (got.status, got.json["error"]["code"]) == (400, "bad_target")
    assert got.get(b"x-llmproxyd-error") == b"proxy"
    assert not upstream.connections
    assert not other.connections


@pytest.mark.parametrize("target", [b"http://evil.example/v1/models", b"HTTP://evil.example"])
@pytest_twisted.ensureDeferred
async def test_a_target_that_names_another_host(
    bench: Bench, upstream: FakeUpstream, other: FakeUpstream, target: bytes
) -> None:
    """It must be the one of the Host field (RFC 9112 §3.2.2)."""
    got = await sent(bench, upstream, other, get(target))
    assert (got.status, got.json["error"]["code"]) == (400, "bad_host")
    assert not upstream.connections
    assert not other.connections


@pytest_twisted.ensureDeferred
async def test_connect_is_no_way_out(bench: Bench, upstream: FakeUpstream, other: FakeUpstream) -> None:
    got = await sent(bench, upstream, other, get(b"evil.example:443", method=b"CONNECT"))
    assert got.status == 501
    assert not upstream.connections

"""An upstream that is reached through an HTTP proxy of the operator's."""

from __future__ import annotations

from typing import Any

import pytest_twisted
from bench import Bench
from wireclient import get

from llmproxyd.testing.upstream import FakeUpstream, Send, head, json_answer


def through(upstream: FakeUpstream, secret: str) -> Any:
    place = f"me:{secret}@127.0.0.1:{upstream.port}"
    return {"openai": {"base_url": "http://api.example:81", "proxy": f"http://{place}"}}


@pytest_twisted.ensureDeferred
async def test_a_tunnel_is_asked_for_and_the_request_goes_through_it(
    bench: Bench, upstream: FakeUpstream
) -> None:
    upstream.scripts = [[Send(head(status=b"200 Connected"))], [Send(json_answer({"ok": True}))]]
    client = await bench.client(bench.proxy(upstreams=through(upstream, "secret")))
    got = await client.ask(get(b"/v1/models"))
    assert (got.status, got.json) == (200, {"ok": True})
    tunnel, request = upstream.requests
    assert (tunnel.method, tunnel.target) == (b"CONNECT", b"api.example:81")
    assert tunnel.all(b"proxy-authorization") == [b"Basic bWU6c2VjcmV0"]
    assert (request.method, request.target, request.connection) == (b"GET", b"/v1/models", tunnel.connection)
    assert request.all(b"host") == [b"api.example:81"]
    assert request.all(b"proxy-authorization") == []


@pytest_twisted.ensureDeferred
async def test_a_refusal_is_told_without_the_password(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Send(head(b"content-length: 0", status=b"407 Proxy Authentication Required"))]]
    proxy = bench.proxy(upstreams=through(upstream, "hidden-word"))
    client = await bench.client(proxy)
    got = await client.ask(get(b"/v1/models"))
    assert (got.status, got.get(b"x-llmproxyd-code")) == (502, b"upstream_unreachable")
    proxy.daemon._requests.flush()
    for told in (got.raw, proxy.log.getvalue().encode(), repr(proxy.daemon.config).encode()):
        assert b"hidden-word" not in told

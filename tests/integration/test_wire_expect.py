"""``Expect: 100-continue``: a client sends its body when it is welcome, RFC 9110 §10.1.1."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from bench import Bench
from rawhttp import (
    CHAT,
    MODELS,
    NEXT,
    OK,
    accepted,
    answered,
    code_of,
    ended,
    models,
    post,
    refused,
    send_all,
    settled,
    turns,
)
from wireclient import until

from llmproxyd.testing.upstream import LAST_CHUNK, FakeUpstream, Gate, Send, answer, chunk, json_answer

EXPECT = b"Expect: 100-continue"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked"

BODIES: list[Any] = [
    pytest.param(b"Content-Length: 5", b"hello", id="length"),
    pytest.param(CHUNKED, chunk(b"he") + chunk(b"llo") + LAST_CHUNK, id="chunked"),
]


@pytest.mark.parametrize(("framing", "body"), BODIES)
@pytest.mark.parametrize("expect", [EXPECT, b"expect:100-CONTINUE"])
@pytest_twisted.ensureDeferred
async def test_the_body_is_asked_for(
    bench: Bench, upstream: FakeUpstream, framing: bytes, body: bytes, expect: bytes
) -> None:
    """Once, however the head comes; the field itself ends here."""
    upstream.scripts = [[OK]]
    data = post(expect, framing)
    proxy = bench.proxy()
    clients = await send_all(bench, proxy, [(data,), *((data[:at], data[at:]) for at in range(1, len(data)))])
    await settled(clients, lambda one: one.received or ended(one))
    assert {one.received for one in clients} == {CONTINUE}
    assert not upstream.requests
    for client in clients:
        client.send(body + NEXT)
    await settled(clients, lambda one: len(answered(one, 2)) == 2 or ended(one))
    for client in clients:
        assert [got.status for got in answered(client, 2)] == [200, 200]
        assert client.received.count(b" 100 ") == 1
    arrived = [one for one in upstream.requests if one.body]
    assert {one.body for one in arrived} == {b"hello"}
    assert len(arrived) == len(clients)
    assert not [one for one in arrived if one.all(b"expect")]


@pytest.mark.parametrize(("framing", "body"), BODIES)
@pytest_twisted.ensureDeferred
async def test_a_body_that_comes_along(
    bench: Bench, upstream: FakeUpstream, framing: bytes, body: bytes
) -> None:
    """Nobody need be asked any more; either way it is in order."""
    for one in await accepted(bench, upstream, post(EXPECT, framing, body=body)):
        assert one.body == b"hello"
        assert one.all(b"expect") == []


@pytest_twisted.ensureDeferred
async def test_no_body_to_ask_for(bench: Bench, upstream: FakeUpstream) -> None:
    await accepted(bench, upstream, models(EXPECT))
    await accepted(bench, upstream, post(EXPECT, b"Content-Length: 0"))


@pytest.mark.parametrize(
    ("data", "status", "codes", "settings"),
    [
        pytest.param(
            post(EXPECT, b"Content-Length: 5", target=b"/to/nosuch/x"),
            404,
            ["upstream_unknown"],
            {},
            id="404",
        ),
        pytest.param(
            post(EXPECT, b"Content-Length: 1001"),
            413,
            ["body_too_large"],
            {"server": {"max_body": 1000}},
            id="413",
        ),
        pytest.param(post(EXPECT, b"Content-Length: 5", b"Host: x"), 400, ["bad_host"], {}, id="400"),
        pytest.param(
            post(EXPECT, b"Content-Length: 5", target=b"foo"), 400, ["bad_target"], {}, id="400-target"
        ),
        pytest.param(post(b"Expect: foo", b"Content-Length: 5"), 417, [], {}, id="417"),
        pytest.param(post(b"Expect: 100-continue, foo", b"Content-Length: 5"), 417, [], {}, id="417-list"),
        pytest.param(post(b"Expect: 200-ok", b"Content-Length: 5"), 417, [], {}, id="417-ok"),
        pytest.param(post(b"Expect: 100-continue=1", b"Content-Length: 5"), 417, [], {}, id="417-value"),
        pytest.param(post(EXPECT, b"Expect: foo", b"Content-Length: 5"), 417, [], {}, id="417-second"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_the_final_status_comes_instead(
    bench: Bench, upstream: FakeUpstream, data: bytes, status: int, codes: list[str], settings: Any
) -> None:
    upstream.scripts = [[OK]]
    proxy = await refused(bench, upstream, data, status, *codes, behind=b"", closes=False, **settings)
    client = await bench.client(proxy)
    client.send(data)
    await client.has(b"}}")
    assert client.received.startswith(b"HTTP/1.1 %d " % status)
    assert b" 100 " not in client.received
    assert not upstream.connections


@pytest_twisted.ensureDeferred
async def test_an_injected_fault_comes_instead(bench: Bench, upstream: FakeUpstream) -> None:
    proxy = bench.proxy(faults={"header": True})
    client = await bench.client(proxy)
    client.send(post(EXPECT, b"Content-Length: 5", b"X-LLMProxyd-Fault: rate_limit", target=CHAT))
    await client.has(b"\r\n\r\n")
    assert client.received.startswith(b"HTTP/1.1 429 ")
    assert not upstream.connections
    assert (await client.answer()).get(b"x-llmproxyd-error") == b"injected"


@pytest_twisted.ensureDeferred
async def test_the_mode_comes_instead(bench: Bench, upstream: FakeUpstream) -> None:
    """Of the operator, as long as no rule need read the body."""
    proxy = bench.proxy(faults={"mode": "r"})
    client = await bench.client(proxy)
    client.send(post(EXPECT, b"Content-Length: 5", target=CHAT))
    await client.has(b"\r\n\r\n")
    assert client.received.startswith(b"HTTP/1.1 429 ")


@pytest_twisted.ensureDeferred
async def test_a_refused_expectation_and_the_next_request(bench: Bench, upstream: FakeUpstream) -> None:
    """The body that was not asked for is never taken for a request, nor a request for that body.

    The client may send it all the same (RFC 9110 §10.1.1) or go on; only closing serves both,
    or else reading on as Content-Length said.
    """
    upstream.scripts = [[OK]]
    inner = models(b"X-Smuggled: 1")
    proxy = bench.proxy()
    client = await bench.client(proxy)
    client.send(post(EXPECT, b"Content-Length: %d" % len(inner), target=b"/to/nosuch/x"))
    got = await client.answer()
    assert got.status == 404
    client.send(inner + NEXT)
    await settled([client], lambda one: ended(one) or answered(one), 2)
    await turns(20)
    assert MODELS not in [one.target for one in upstream.requests]


@pytest.mark.parametrize("expect", [EXPECT, b"Expect: foo"])
@pytest_twisted.ensureDeferred
async def test_http_1_0_expects_nothing(bench: Bench, upstream: FakeUpstream, expect: bytes) -> None:
    """Its clients do not know of 100: ignored."""
    upstream.scripts = [[OK]]
    client = await bench.client(bench.proxy())
    client.send(post(expect, b"Content-Length: 5", version=b"HTTP/1.0"))
    await turns(20)
    assert not client.received
    client.send(b"hello")
    await client.closed()
    assert client.received.startswith(b"HTTP/1.1 200 ") or client.received.startswith(b"HTTP/1.0 200 ")
    assert [one.body for one in upstream.requests] == [b"hello"]
    assert upstream.requests[0].all(b"expect") == []


@pytest_twisted.ensureDeferred
async def test_behind_another_request(bench: Bench, upstream: FakeUpstream) -> None:
    """100 does not run ahead of the answer before it."""
    gate = Gate()
    upstream.scripts = [[gate, Send(answer(b"first"))], [Send(json_answer("second"))]]
    client = await bench.client(bench.proxy())
    client.send(models() + post(EXPECT, b"Content-Length: 5"))
    await until(lambda: gate.reached, "the first request")
    await turns(20)
    assert not client.received
    gate.open()
    await client.has(CONTINUE)
    client.send(b"hello")
    assert (await client.answer()).body == b"first"
    assert client.received.startswith(CONTINUE)
    assert (await client.answer()).json == "second"


@pytest_twisted.ensureDeferred
async def test_bad_framing_comes_before(bench: Bench, upstream: FakeUpstream) -> None:
    await refused(bench, upstream, post(EXPECT, b"Content-Length: 5", CHUNKED), 400, code=code_of)

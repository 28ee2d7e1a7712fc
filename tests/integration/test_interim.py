"""Interim answers: those that help the client pass, those between us and the upstream stay."""

from __future__ import annotations

import pytest
import pytest_twisted
from bench import Ask, Bench
from wireclient import get, parse, until

from llmproxyd.testing.upstream import FakeUpstream, Gate, Send, head, json_answer

OK = Send(json_answer({"ok": True}))
HINTS = head(b"Link: </a.css>; rel=preload", b"Connection: x-hop", b"X-Hop: 1", status=b"103 Early Hints")


def whole(data: bytes) -> bool:
    return b"\r\n\r\n" in data and parse(data, bodiless=False, ended=False) is not None


@pytest_twisted.ensureDeferred
async def test_early_hints_come_before_the_answer_begins(bench: Bench, upstream: FakeUpstream) -> None:
    gate = Gate()
    upstream.scripts = [[Send(HINTS), gate, OK]]
    client = await bench.client(bench.proxy())
    client.send(get(b"/v1/models"))
    await until(lambda: client.received.endswith(b"\r\n\r\n"), "the hints")
    assert client.received == b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"
    gate.open()
    await until(lambda: whole(client.received), "the answer")
    assert client.received.count(b"HTTP/1.1 ") == 2
    assert b"\r\n\r\nHTTP/1.1 200 OK\r\n" in client.received


@pytest_twisted.ensureDeferred
async def test_http_1_0_knows_none(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Send(HINTS), OK]]
    client = await bench.client(bench.proxy())
    client.send(b"GET /v1/models HTTP/1.0\r\n\r\n")
    await client.closed()
    assert client.received.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("count", [1, 9])
@pytest_twisted.ensureDeferred
async def test_continue_is_between_us_and_the_upstream(ask: Ask, count: int) -> None:
    got = await ask(get(b"/v1/models"), Send(head(status=b"100 Continue") * count), OK)
    assert (got.status, got.json) == (200, {"ok": True})
    assert got.raw.startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize(
    "interim", [head(status=b"100 Continue") * 11, HINTS * 11, head(b"Upgrade: x", status=b"101 Switching")]
)
@pytest_twisted.ensureDeferred
async def test_too_many_or_another_protocol_is_a_failure(ask: Ask, interim: bytes) -> None:
    got = await ask(get(b"/v1/models"), Send(interim), OK)
    assert (got.status, got.get(b"x-llmproxyd-code")) == (502, b"upstream_protocol_error")

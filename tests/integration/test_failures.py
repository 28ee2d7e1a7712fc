"""What a client is told when its upstream cannot be reached, or does not answer as it should."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from bench import Ask, Bench
from wireclient import Answer, get, request, until

from llmproxyd.model import End
from llmproxyd.testing.upstream import (
    Action,
    Close,
    FakeUpstream,
    Reset,
    Send,
    Stall,
    Wait,
    head,
    json_answer,
)

CHAT = b"/v1/chat/completions"
OK = Send(json_answer({"ok": True}))
ANTHROPIC = request(b"/v1/messages", b"anthropic-version: 2023-06-01", b"x-api-key: sk-ant-x")
GEMINI = b"/v1beta/models/gemini-2.5-flash:"
DATABRICKS = request(b"/serving-endpoints/chat/invocations")
OPENROUTER = request(b"/to/openrouter/api/v1/chat/completions")

UNREACHABLE = "upstream_unreachable"
PROTOCOL = "upstream_protocol_error"
HEADERS_TIMEOUT = "headers_timeout"


def check(got: Answer, status: int, code: str, *, shown: bool = True) -> None:
    assert got.status == status
    assert got.whole
    assert (got.get(b"x-llmproxyd-error"), got.get(b"x-llmproxyd-code")) == (
        (b"upstream", code.encode()) if shown else (None, None)
    )
    assert got.get(b"x-llmproxyd-request-id")
    assert got.get(b"content-type") == b"application/json"
    assert got.names.isdisjoint({b"retry-after", b"x-request-id", b"request-id"})


async def asked(bench: Bench, data: bytes, **settings: Any) -> tuple[Answer, Any]:
    proxy = bench.proxy(**settings)
    client = await bench.client(proxy)
    got = await client.ask(data)
    (finished,) = proxy.finished
    assert finished.end is End.COMPLETE
    assert (finished.status, finished.fault) == (got.status, None)
    return got, finished


@pytest_twisted.ensureDeferred
async def test_nobody_listens(bench: Bench, closed_port: int) -> None:
    got, finished = await asked(bench, request(CHAT), base_url=f"http://127.0.0.1:{closed_port}")
    check(got, 502, UNREACHABLE)
    assert "refused" in got.json["error"]["message"]
    assert finished.code == UNREACHABLE


@pytest_twisted.ensureDeferred
async def test_a_name_that_does_not_resolve(bench: Bench) -> None:
    got, _ = await asked(bench, request(CHAT), base_url="http://no-such-host.invalid")
    check(got, 502, UNREACHABLE)
    assert "does not resolve" in got.json["error"]["message"]


@pytest_twisted.ensureDeferred
async def test_a_connection_that_does_not_come_about(bench: Bench, deaf_port: int) -> None:
    got, _ = await asked(
        bench, request(CHAT), base_url=f"http://127.0.0.1:{deaf_port}", timeouts={"connect": 0.2}
    )
    check(got, 504, "connect_timeout")
    assert "timeouts.connect" in got.json["error"]["message"]


@pytest.mark.parametrize("script", [[Stall()], [Send(b"HTTP/1.1 200 OK\r\ncontent-type: a/b\r\n"), Stall()]])
@pytest_twisted.ensureDeferred
async def test_an_answer_that_does_not_begin(
    bench: Bench, upstream: FakeUpstream, script: list[Action]
) -> None:
    upstream.scripts = [script]
    got, _ = await asked(bench, request(CHAT), timeouts={"headers": 0.15})
    check(got, 504, HEADERS_TIMEOUT)
    assert "timeouts.headers" in got.json["error"]["message"]
    await until(lambda: not upstream.open, "the upstream's connection to be closed")


@pytest_twisted.ensureDeferred
async def test_a_timeout_while_the_body_is_still_sent(bench: Bench, upstream: FakeUpstream) -> None:
    """The upstream takes nothing in: neither the body nor the deadline may hang."""
    upstream.scripts = [[Stall()]]
    upstream.at_head = True
    proxy = bench.proxy(timeouts={"headers": 0.3})
    client = await bench.client(proxy)
    client.send(request(CHAT, body=b"x" * 20_000_000))
    await until(lambda: upstream.requests, "the head of the request")
    upstream.connections[0].transport.pauseProducing()
    check(await client.answer(), 504, HEADERS_TIMEOUT)


EARLY: list[Any] = [
    pytest.param([Close()], id="closed"),
    pytest.param([Reset()], id="reset"),
    pytest.param([Send(b"HTTP/1.1 200 OK\r\ncontent-"), Close()], id="closed-in-head"),
    pytest.param([Send(b"HTTP/1.1 200 OK\r\ncontent-"), Wait(0.03), Reset()], id="reset-in-head"),
    pytest.param([Send(b"SSH-2.0-OpenSSH_9\r\n"), Stall()], id="ssh"),
    pytest.param([Send(b"<html>\r\n\r\n"), Stall()], id="html"),
    pytest.param([Send(b"\0\0\r\n\r\n"), Stall()], id="zeros"),
    pytest.param([Send(b"HTTP/1.1 OK\r\n\r\n"), Stall()], id="no-status"),
    pytest.param([Send(b"HTTP/1.1 abc OK\r\n\r\n"), Stall()], id="letters"),
    pytest.param([Send(b"HTTP/x.y 200 OK\r\n\r\n"), Stall()], id="version"),
    pytest.param([Send(head(status=b"99 Low", version=b"HTTP/1.1")), Stall()], id="status-99"),
    pytest.param([Send(head(status=b"-200 Low")), Stall()], id="status-negative"),
    pytest.param([Send(head(status=b"1000 High")), Stall()], id="status-1000"),
    pytest.param([Send(head(b"no colon here")), Stall()], id="field"),
    pytest.param([Send(head(b"content-length: x")), Stall()], id="length-x"),
    pytest.param([Send(head(b"content-length: -1")), Stall()], id="length-negative"),
    pytest.param([Send(head(b"content-length: 1", b"content-length: 2")), Stall()], id="lengths"),
    pytest.param([Send(head(b"transfer-encoding: gzip")), Stall()], id="coding"),
    pytest.param([Send(b"x" * 100_000), Stall()], id="long-line"),
    pytest.param([Send(head(status=b"100 Continue")), Close()], id="interim-alone"),
]


@pytest.mark.parametrize("script", EARLY)
@pytest_twisted.ensureDeferred
async def test_no_answer_of_http(bench: Bench, upstream: FakeUpstream, script: list[Action]) -> None:
    upstream.scripts = [script]
    got, finished = await asked(bench, request(CHAT))
    check(got, 502, PROTOCOL)
    assert finished.code == PROTOCOL
    assert len(upstream.requests) == 1
    assert "127.0.0.1" not in got.json["error"]["message"]


@pytest_twisted.ensureDeferred
async def test_the_connection_to_the_client_lives_on(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Close()], [OK]]
    client = await bench.client(bench.proxy())
    check(await client.ask(request(CHAT)), 502, PROTOCOL)
    assert (await client.ask(request(CHAT))).json == {"ok": True}


@pytest_twisted.ensureDeferred
async def test_an_answer_before_the_body_was_read(bench: Bench, upstream: FakeUpstream) -> None:
    """An upstream that refuses early is heard, although it does not take the rest."""
    upstream.scripts = [
        [Send(json_answer({"error": "too large"}, b"connection: close", status=b"413 Too Large")), Stall()]
    ]
    upstream.at_head = True
    client = await bench.client(bench.proxy())
    got = await client.ask(request(CHAT, body=b"x" * 3_000_000))
    assert (got.status, got.json) == (413, {"error": "too large"})
    assert got.get(b"x-llmproxyd-error") is None


# In the words of each provider.

SHAPES: list[Any] = [
    pytest.param(request(CHAT), lambda v: (v["error"]["code"], v["error"]["message"]), id="openai"),
    pytest.param(
        ANTHROPIC, lambda v: (v["error"]["details"]["error_code"], v["error"]["message"]), id="anthropic"
    ),
    pytest.param(
        request(GEMINI + b"generateContent"),
        lambda v: (v["error"]["details"][0]["reason"], v["error"]["message"]),
        id="google",
    ),
    pytest.param(
        request(GEMINI + b"streamGenerateContent?alt=sse"),
        lambda v: (v["error"]["details"][0]["reason"], v["error"]["message"]),
        id="google-sse",
    ),
    pytest.param(
        request(GEMINI + b"streamGenerateContent"),
        lambda v: (v[0]["error"]["details"][0]["reason"], v[0]["error"]["message"]) if len(v) == 1 else None,
        id="google-array",
    ),
    pytest.param(
        OPENROUTER, lambda v: (v["error"]["metadata"]["error_code"], v["error"]["message"]), id="openrouter"
    ),
    pytest.param(DATABRICKS, lambda v: (v["error_code"], v["message"]), id="databricks"),
]


@pytest.mark.parametrize(("data", "read"), SHAPES)
@pytest_twisted.ensureDeferred
async def test_every_failure_in_each_shape(
    bench: Bench, upstream: FakeUpstream, closed_port: int, data: bytes, read: Any
) -> None:
    got, _ = await asked(bench, data, base_url=f"http://127.0.0.1:{closed_port}")
    check(got, 502, UNREACHABLE)
    assert read(got.json)[0] == UNREACHABLE
    upstream.scripts = [[Close()], [Stall()]]
    proxy = bench.proxy(timeouts={"headers": 0.1})
    client = await bench.client(proxy)
    for status, code in ((502, PROTOCOL), (504, HEADERS_TIMEOUT)):
        got = await client.ask(data)
        check(got, status, code)
        assert read(got.json)[0] == code
        assert read(got.json)[1].endswith(".")


@pytest_twisted.ensureDeferred
async def test_the_fields_that_tell_can_be_hidden(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Close()]]
    got, _ = await asked(bench, request(CHAT), server={"error_headers": False})
    check(got, 502, PROTOCOL, shown=False)
    assert got.json["error"]["code"] == PROTOCOL


@pytest_twisted.ensureDeferred
async def test_an_answer_to_head_has_no_body(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Close()]]
    client = await bench.client(bench.proxy())
    got = await client.ask(get(b"/v1/models", method=b"HEAD"))
    assert (got.status, got.get(b"x-llmproxyd-code")) == (502, PROTOCOL.encode())
    upstream.scripts = [[OK]]
    assert (await client.ask(get(b"/v1/models"))).json == {"ok": True}


# Connections that are kept.


@pytest_twisted.ensureDeferred
async def test_connections_are_used_again(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[OK]]
    proxy = bench.proxy()
    for _ in range(3):
        client = await bench.client(proxy)
        for _ in range(3):
            assert (await client.ask(request(CHAT))).status == 200
    assert {one.connection for one in upstream.requests} == {0}


@pytest.mark.parametrize("field", [b"connection: close", b"Connection: Close", b"connection: x-a, close"])
@pytest_twisted.ensureDeferred
async def test_not_where_the_upstream_does_not_want_it(
    bench: Bench, upstream: FakeUpstream, field: bytes
) -> None:
    """Although it leaves the connection open for a while."""
    upstream.scripts = [[Send(json_answer({}, field))]]
    client = await bench.client(bench.proxy())
    for _ in range(3):
        assert (await client.ask(request(CHAT))).status == 200
    assert [one.connection for one in upstream.requests] == [0, 1, 2]


@pytest.mark.parametrize("end", [Close(), Reset()], ids=["closed", "reset"])
@pytest_twisted.ensureDeferred
async def test_a_kept_connection_that_was_closed_meanwhile(
    bench: Bench, upstream: FakeUpstream, end: Action
) -> None:
    upstream.scripts = [[OK, Wait(0.03), end], [OK]]
    client = await bench.client(bench.proxy())
    assert (await client.ask(request(CHAT))).status == 200
    await until(lambda: not upstream.open, "the upstream to close")
    assert (await client.ask(request(CHAT))).json == {"ok": True}
    assert [one.connection for one in upstream.requests] == [0, 1]


@pytest_twisted.ensureDeferred
async def test_idle_connections_are_closed_in_time(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[OK]]
    client = await bench.client(bench.proxy(upstreams={"openai": {"pool": {"idle": 0.05}}}))
    await client.ask(request(CHAT))
    await until(lambda: not upstream.open, "the proxy to close")


@pytest_twisted.ensureDeferred
async def test_a_request_is_never_sent_twice(ask: Ask, upstream: FakeUpstream) -> None:
    check(await ask(request(CHAT), Close()), 502, PROTOCOL)
    assert len(upstream.requests) == 1

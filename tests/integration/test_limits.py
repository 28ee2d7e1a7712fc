"""A body beyond ``server.max_body`` is refused in the provider's own words."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from bench import Bench
from wireclient import request

from llmproxyd.testing.upstream import LAST_CHUNK, FakeUpstream, Send, chunk, json_answer

LIMIT = 1000
CHAT = b"/v1/chat/completions"
ANTHROPIC = (b"anthropic-version: 2023-06-01", b"x-api-key: sk-ant-x")

SHAPES: list[Any] = [
    pytest.param(
        CHAT,
        (),
        lambda v: (v["error"]["code"], v["error"]["type"]),
        ("body_too_large", "invalid_request_error"),
        id="openai",
    ),
    pytest.param(
        b"/v1/messages",
        ANTHROPIC,
        lambda v: (v["error"]["details"]["error_code"], v["error"]["type"]),
        ("body_too_large", "request_too_large"),
        id="anthropic",
    ),
    pytest.param(
        b"/v1beta/models/gemini-2.5-flash:generateContent",
        (),
        lambda v: (v["error"]["details"][0]["reason"], v["error"]["code"], v["error"]["status"]),
        ("body_too_large", 413, "INVALID_ARGUMENT"),
        id="google",
    ),
    pytest.param(
        b"/v1beta/models/gemini-2.5-flash:streamGenerateContent",
        (),
        lambda v: (v[0]["error"]["details"][0]["reason"], len(v)),
        ("body_too_large", 1),
        id="google-array",
    ),
]


@pytest.mark.parametrize(("target", "fields", "read", "told"), SHAPES)
@pytest.mark.parametrize("chunked", [False, True])
@pytest_twisted.ensureDeferred
async def test_too_large(
    bench: Bench, upstream: FakeUpstream, target: bytes, fields: Any, read: Any, told: Any, chunked: bool
) -> None:
    upstream.scripts = [[Send(json_answer({}))]]
    proxy = bench.proxy(server={"max_body": LIMIT})
    client = await bench.client(proxy)
    body = b"x" * (LIMIT + 1)
    if chunked:
        data = request(target, *fields, b"Transfer-Encoding: chunked", body=None) + chunk(body) + LAST_CHUNK
    else:
        data = request(target, *fields, body=body)
    got = await client.ask(data)
    assert (got.status, read(got.json)) == (413, told)
    assert got.get(b"x-llmproxyd-error") == b"proxy"
    assert got.get(b"x-llmproxyd-code") == b"body_too_large"
    assert got.get(b"x-llmproxyd-request-id")
    assert b"server.max_body" in got.body
    assert proxy.finished[0].code == "body_too_large"
    assert not upstream.requests


@pytest_twisted.ensureDeferred
async def test_just_not_too_large(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Send(json_answer({}))]]
    client = await bench.client(bench.proxy(server={"max_body": LIMIT}))
    assert (await client.ask(request(CHAT, body=b"x" * LIMIT))).status == 200
    assert (await client.ask(request(CHAT, body=b"x" * (LIMIT + 1)))).status == 413
    # The connection is still good.
    assert (await client.ask(request(CHAT))).status == 200
    assert len(upstream.requests) == 2


@pytest_twisted.ensureDeferred
async def test_nothing_limits_an_answer(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Send(json_answer("x" * 100_000))]]
    client = await bench.client(bench.proxy(server={"max_body": LIMIT}))
    assert len((await client.ask(request(CHAT))).body) > 100_000

"""A stored key replaces the client's credential; web pages may not spend it."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from bench import Ask, Bench
from wireclient import get, request

from llmproxyd.testing.upstream import FakeUpstream, Send, json_answer

KEY = "sk-the-stored-one"
OK = Send(json_answer({}))
CHAT = b"/v1/chat/completions"
CREDENTIALS = (
    b"Authorization: Bearer sk-mine",
    b"X-Api-Key: sk-mine",
    b"x-goog-api-key: sk-mine",
    b"Api-Key: sk-mine",
)
FIELDS = (b"authorization", b"x-api-key", b"x-goog-api-key", b"api-key")
ANTHROPIC = b"anthropic-version: 2023-06-01"

PLACES: list[Any] = [
    pytest.param("openai", b"/to/openai/v1/chat/completions", b"authorization", "Bearer ", id="openai"),
    pytest.param("anthropic", b"/to/anthropic/v1/messages", b"x-api-key", "", id="anthropic"),
    pytest.param("google", b"/to/google/v1beta/models/x:generateContent", b"x-goog-api-key", "", id="google"),
    pytest.param("azure", b"/to/azure/openai/deployments/x/chat/completions", b"api-key", "", id="azure"),
    pytest.param(
        "openrouter", b"/to/openrouter/api/v1/chat/completions", b"authorization", "Bearer ", id="openrouter"
    ),
]


def stored(name: str = "openai", **more: Any) -> dict[str, Any]:
    return {"upstreams": {name: {"api_key": KEY, **more}}}


@pytest.mark.parametrize(("name", "target", "field", "prefix"), PLACES)
@pytest.mark.parametrize("presented", [CREDENTIALS, ()], ids=["presented", "absent"])
@pytest_twisted.ensureDeferred
async def test_it_takes_the_place_of_the_clients_own(
    ask: Ask, upstream: FakeUpstream, name: str, target: bytes, field: bytes, prefix: str, presented: Any
) -> None:
    got = await ask(request(target, *presented, b"X-Kept: 1"), OK, **stored(name))
    assert got.status == 200
    (arrived,) = upstream.requests
    for one in FIELDS:
        assert arrived.all(one) == ([f"{prefix}{KEY}".encode()] if one == field else [])
    assert arrived.all(b"x-kept") == [b"1"]
    assert b"sk-mine" not in arrived.raw


@pytest.mark.parametrize(
    ("query", "arrived"),
    [
        (b"?key=sk-mine", b""),
        (b"?key=sk-mine&alt=sse", b"?alt=sse"),
        (b"?alt=sse&key=sk-mine", b"?alt=sse"),
        (b"?a=%2F&key=sk-mine&b=;&&c", b"?a=%2F&b=;&&c"),
        (b"?monkey=1", b"?monkey=1"),
        (b"?", b"?"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_geminis_key_in_the_query(
    ask: Ask, upstream: FakeUpstream, query: bytes, arrived: bytes
) -> None:
    path = b"/v1beta/models/x:generateContent"
    assert (await ask(request(b"/to/google" + path + query), OK, **stored("google"))).status == 200
    assert upstream.requests[0].target == path + arrived


@pytest_twisted.ensureDeferred
async def test_without_one_the_clients_own_passes(ask: Ask, upstream: FakeUpstream) -> None:
    await ask(request(CHAT + b"?key=sk-mine", *CREDENTIALS), OK)
    (arrived,) = upstream.requests
    assert arrived.all(b"authorization") == [b"Bearer sk-mine"]
    assert [arrived.all(one) for one in FIELDS[1:]] == [[b"sk-mine"]] * 3
    assert arrived.target == CHAT + b"?key=sk-mine"


@pytest_twisted.ensureDeferred
async def test_the_key_shows_nowhere(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[OK]]
    proxy = bench.proxy(**stored())
    client = await bench.client(proxy)
    got = await client.ask(request(CHAT, *CREDENTIALS))
    proxy.daemon._requests.flush()
    for text in (got.raw.decode(), proxy.log.getvalue(), repr(proxy.finished), repr(proxy.daemon.config)):
        assert KEY not in text
        assert "sk-mine" not in text


@pytest_twisted.ensureDeferred
async def test_configured_fields_replace_the_clients(ask: Ask, upstream: FakeUpstream) -> None:
    settings = {"upstreams": {"openai": {"headers": {"X-Org": "ours", "authorization": "Basic eDp5"}}}}
    await ask(request(CHAT, b"x-org: theirs", b"x-org: more", CREDENTIALS[0]), OK, **settings)
    (arrived,) = upstream.requests
    assert (arrived.all(b"x-org"), arrived.all(b"authorization")) == ([b"ours"], [b"Basic eDp5"])


# Browsers.


@pytest.mark.parametrize(
    "host",
    [b"evil.example", b"evil.example:8888", b"localhost.evil.example", b"192.168.0.7", b"127.0.0.1.nip.io"],
)
@pytest_twisted.ensureDeferred
async def test_a_foreign_host_is_refused(ask: Ask, upstream: FakeUpstream, host: bytes) -> None:
    got = await ask(request(CHAT, host=host), OK, **stored())
    assert (got.status, got.json["error"]["code"]) == (403, "host_not_allowed")
    assert got.get(b"x-llmproxyd-error") == b"proxy"
    assert not upstream.connections


@pytest.mark.parametrize(
    "host", [b"localhost", b"LOCALHOST:1", b"127.0.0.1:8888", b"127.1.2.3", b"[::1]:8888", b"x.localhost"]
)
@pytest_twisted.ensureDeferred
async def test_a_name_of_this_machine_is_not(ask: Ask, host: bytes) -> None:
    assert (await ask(request(CHAT, host=host), OK, **stored())).status == 200


@pytest.mark.parametrize("origin", [b"https://evil.example", b"null", b"http://localhost:3000", b""])
@pytest_twisted.ensureDeferred
async def test_an_origin_that_is_not_listed_is_refused(
    ask: Ask, upstream: FakeUpstream, origin: bytes
) -> None:
    got = await ask(request(CHAT, b"Origin: " + origin), OK, **stored())
    assert (got.status, got.json["error"]["code"]) == (403, "origin_not_allowed")
    assert "upstreams.openai.allow.origins" in got.json["error"]["message"]
    assert not upstream.connections


@pytest_twisted.ensureDeferred
async def test_a_listed_one_passes(ask: Ask, upstream: FakeUpstream) -> None:
    settings = stored(allow={"origins": ["http://localhost:3000"]})
    got = await ask(request(CHAT, b"Origin: http://localhost:3000"), OK, **settings)
    assert got.status == 200
    assert upstream.requests[0].all(b"origin") == [b"http://localhost:3000"]


@pytest_twisted.ensureDeferred
async def test_it_is_told_in_the_clients_dialect(ask: Ask) -> None:
    got = await ask(request(b"/v1/messages", ANTHROPIC, host=b"evil.example"), OK, **stored("anthropic"))
    assert got.json["error"]["details"]["error_code"] == "host_not_allowed"
    assert got.json["error"]["type"] == "permission_error"


@pytest_twisted.ensureDeferred
async def test_without_a_stored_key_nothing_is_refused(ask: Ask) -> None:
    data = request(CHAT, b"Origin: https://a.example", host=b"a.example")
    assert (await ask(data, OK, **stored("anthropic"))).status == 200


@pytest_twisted.ensureDeferred
async def test_health_is_local(ask: Ask, upstream: FakeUpstream) -> None:
    got = await ask(get(b"/health"), OK)
    assert got.json["status"] == "healthy"
    assert not upstream.connections

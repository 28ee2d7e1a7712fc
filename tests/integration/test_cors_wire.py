"""What browsers are told of web pages: exactly what is allowed, and errors that pages can read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from doorbench import CHAT, DoorBench, bearer, chat, check_refused, denied
from twisted.internet.defer import ensureDeferred
from wireclient import get, request

from llmproxyd.access.allowlist import Allow
from llmproxyd.access.projects import Limits
from llmproxyd.testing.upstream import FakeUpstream, Send, head, json_answer

test = pytest_twisted.ensureDeferred

PAGE = b"Origin: https://app.example"
EVIL = b"Origin: https://evil.example"
LISTED: dict[str, Any] = {
    "openai": {"allow": {"origins": ["https://app.example"], "methods": ["GET", "POST"]}}
}


@pytest.fixture
def door(upstream: FakeUpstream) -> Iterator[DoorBench]:
    made = DoorBench(upstream)
    yield made
    pytest_twisted.blockon(ensureDeferred(made.close()))


def preflight(*fields: bytes, origin: bytes = PAGE, method: bytes = b"POST") -> bytes:
    asked = b"Access-Control-Request-Method: " + method
    return get(CHAT, origin, asked, *fields, method=b"OPTIONS")


async def proxy_of(door: DoorBench, access: bool, **settings: Any) -> Any:
    return await door.gateway(**settings) if access else door.proxy(**settings)


@pytest.mark.parametrize("access", [True, False])
@test
async def test_preflight_is_answered_here_with_what_is_allowed(
    door: DoorBench, upstream: FakeUpstream, access: bool
) -> None:
    proxy = await proxy_of(door, access, upstreams=LISTED)
    client = await door.client(proxy)
    got = await client.ask(preflight(b"Access-Control-Request-Headers: authorization, Content-Type, cookie"))
    assert got.status == 204
    assert got.get(b"access-control-allow-origin") == b"https://app.example"
    assert got.get(b"access-control-allow-methods") == b"GET, POST"
    assert got.get(b"access-control-allow-headers") == b"authorization, content-type"
    assert got.get(b"access-control-allow-credentials") is None
    assert b"Origin" in (got.get(b"vary") or b"")
    assert got.get(b"content-length") is None
    assert not upstream.requests
    assert not denied(proxy)
    assert proxy.finished[0].status == 204
    # The connection goes on.
    refused = await client.ask(preflight(method=b"DELETE"))
    check_refused(refused, 405, "method_not_allowed")
    assert refused.get(b"allow") == b"GET, POST"
    refused = await client.ask(preflight(origin=EVIL))
    check_refused(refused, 403, "origin_not_allowed")
    assert refused.get(b"access-control-allow-origin") is None
    assert not upstream.requests


@test
async def test_preflight_for_nobody_is_refused_where_tokens_are_presented(
    door: DoorBench, upstream: FakeUpstream
) -> None:
    proxy = await door.gateway()
    client = await door.client(proxy)
    check_refused(await client.ask(preflight()), 403, "origin_not_allowed")
    assert not upstream.requests


@test
async def test_options_passes_untouched_where_nothing_is_listed_and_access_is_off(
    door: DoorBench, upstream: FakeUpstream
) -> None:
    theirs = [b"Access-Control-Allow-Origin: *", b"Access-Control-Allow-Headers: x", b"Vary: Accept"]
    upstream.scripts = [[Send(head(*theirs, status=b"204 No Content"))]]
    proxy = door.proxy()
    client = await door.client(proxy)
    asked = preflight(b"Access-Control-Request-Headers: a")
    got = await client.ask(asked)
    assert got.status == 204
    assert [
        b"%s: %s" % pair for pair in got.headers if pair[0] in (b"Vary",) or b"Access" in pair[0]
    ] == theirs
    sent = upstream.requests[0]
    assert sent.method == b"OPTIONS"
    assert sent.all(b"access-control-request-headers") == [b"a"]


@test
async def test_options_that_is_no_preflight_goes_upstream(door: DoorBench, upstream: FakeUpstream) -> None:
    proxy = await door.gateway()
    token = await door.token()
    client = await door.client(proxy)
    assert (await client.ask(get(CHAT, bearer(token), method=b"OPTIONS"))).status == 200
    assert upstream.requests[0].method == b"OPTIONS"


@pytest.mark.parametrize("access", [True, False])
@test
async def test_listed_page_may_read_the_answer(door: DoorBench, upstream: FakeUpstream, access: bool) -> None:
    theirs = [b"Access-Control-Allow-Origin: *", b"Vary: Accept-Encoding", b"Vary: Origin"]
    upstream.scripts = [[Send(json_answer({"ok": True}, *theirs))]]
    proxy = await proxy_of(door, access, upstreams=LISTED)
    token = await door.token() if access else None
    client = await door.client(proxy)
    got = await client.ask(chat(token, PAGE))
    assert got.status == 200
    assert got.all(b"access-control-allow-origin") == [b"https://app.example"]
    assert b"Accept-Encoding" in got.all(b"vary")
    assert b"Origin" in got.all(b"vary")
    assert upstream.requests[0].all(b"origin") == [b"https://app.example"]
    # A program that is no page sees nothing of it.
    plain = await client.ask(chat(token))
    assert plain.status == 200
    assert plain.all(b"access-control-allow-origin") == [b"*"]


@pytest.mark.parametrize("access", [True, False])
@test
async def test_unlisted_page_is_refused(door: DoorBench, upstream: FakeUpstream, access: bool) -> None:
    proxy = await proxy_of(door, access, upstreams=LISTED)
    token = await door.token() if access else None
    client = await door.client(proxy)
    for origin in (EVIL, b"Origin: null", b"Origin: https://app.example.evil", b"Origin: http://app.example"):
        got = await client.ask(chat(token, origin))
        check_refused(got, 403, "origin_not_allowed")
        assert got.get(b"access-control-allow-origin") is None
    assert not upstream.requests


@test
async def test_errors_can_be_read_by_the_page(door: DoorBench, upstream: FakeUpstream) -> None:
    """Else all that its author sees is a CORS error."""
    proxy = await door.gateway(upstreams=LISTED)
    token = await door.token(await door.project(limits=Limits(rpm=1)))
    narrow = await door.token(await door.project(allow=Allow(endpoints=("/v1/models",))))
    elsewhere = await door.token(await door.project(credentials={}))
    client = await door.client(proxy)
    checks = await door.token(await door.project(allow=Allow(params={"model": ("a",)})))
    assert (await client.ask(chat(token, PAGE))).status == 200
    cases = [
        (chat(None, PAGE), 401),
        (chat("sk-unknown", PAGE), 401),
        (chat(token, PAGE, bearer(narrow)), 401),
        (chat(token, PAGE), 429),
        (chat(narrow, PAGE), 403),
        (chat(elsewhere, PAGE), 403),
        (chat(checks, PAGE), 403),
    ]
    for data, status in cases:
        got = await client.ask(data)
        assert got.status == status
        assert got.all(b"access-control-allow-origin") == [b"https://app.example"], got.raw
        assert got.get(b"access-control-expose-headers") == b"*"
    upstream.scripts = [[Send(json_answer({"error": {}}, status=b"500 No"))]]
    got = await client.ask(chat(await door.token(), PAGE))
    assert got.status == 500
    assert got.get(b"access-control-allow-origin") == b"https://app.example"


@test
async def test_page_must_be_listed_by_the_project_too(door: DoorBench, upstream: FakeUpstream) -> None:
    origins = ["https://app.example", "https://other.example"]
    proxy = await door.gateway(upstreams={"openai": {"allow": {"origins": origins}}})
    token = await door.token(await door.project(allow=Allow(origins=("https://other.example",))))
    client = await door.client(proxy)
    got = await client.ask(chat(token, PAGE))
    check_refused(got, 403, "origin_not_allowed")
    assert got.get(b"access-control-allow-origin") == b"https://app.example"
    assert (await client.ask(chat(token, b"Origin: https://other.example"))).status == 200
    assert len(upstream.requests) == 1


@test
async def test_any_page_where_all_are_listed(door: DoorBench, upstream: FakeUpstream) -> None:
    proxy = await door.gateway(upstreams={"openai": {"allow": {"origins": ["*"]}}})
    token = await door.token()
    client = await door.client(proxy)
    for origin in (b"https://a.example", b"null", b"http://localhost:3000"):
        got = await client.ask(chat(token, b"Origin: " + origin))
        assert got.status == 200
        assert got.get(b"access-control-allow-origin") == origin
    got = await client.ask(preflight(method=b"PUT"))
    assert got.status == 204
    assert got.get(b"access-control-allow-methods") == b"PUT"


@test
async def test_page_and_key_without_access(door: DoorBench, upstream: FakeUpstream) -> None:
    """A stored key is for programs, and for the pages that are listed."""
    keyed = {"openai": {**LISTED["openai"], "api_key": "sk-stored"}}
    proxy = door.proxy(upstreams=keyed)
    client = await door.client(proxy)
    assert (await client.ask(request(CHAT, PAGE))).status == 200
    check_refused(await client.ask(request(CHAT, EVIL)), 403, "origin_not_allowed")
    got = await client.ask(request(CHAT, host=b"evil.example"))
    check_refused(got, 403, "host_not_allowed")
    assert len(upstream.requests) == 1

"""Allowlists on real sockets: what was checked is what the upstream receives, and nothing else is."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from bench import reactor
from doorbench import (
    BODY,
    CHAT,
    GEMINI,
    MODELS,
    OK,
    DoorBench,
    bearer,
    chat,
    check_refused,
    key_for,
    models,
    nowhere,
)
from twisted.internet.defer import ensureDeferred
from wireclient import Client, get, pause, request, until

from llmproxyd.access.allowlist import Allow
from llmproxyd.testing.upstream import FakeUpstream, Gate, Send, answer

test = pytest_twisted.ensureDeferred

JSON = b"Content-Type: application/json"
ONLY_GPT = {"allow": {"params": {"model": ["gpt-4o", "gpt-4o-*"]}}}


@pytest.fixture
def door(upstream: FakeUpstream) -> Iterator[DoorBench]:
    made = DoorBench(upstream)
    yield made
    pytest_twisted.blockon(ensureDeferred(made.close()))


# Without access.


@test
async def test_upstreams_allowlist_holds_without_access(door: DoorBench, upstream: FakeUpstream) -> None:
    allow = {"endpoints": ["/v1/chat/completions", "/v1/files/"], "methods": ["POST", "GET"]}
    proxy = door.proxy(upstreams={"openai": {"allow": allow}})
    client = await door.client(proxy)
    assert (await client.ask(request(CHAT))).status == 200
    assert (await client.ask(get(b"/v1/files/a/b?x=1"))).status == 200
    check_refused(await client.ask(get(MODELS)), 403, "endpoint_not_allowed")
    got = await client.ask(get(b"/v1/files/a", method=b"DELETE"))
    check_refused(got, 405, "method_not_allowed")
    assert got.get(b"allow") == b"POST, GET"
    # Another upstream has no list.
    assert (await client.ask(request(b"/v1/messages"))).status == 200
    assert [one.target for one in upstream.requests] == [CHAT, b"/v1/files/a/b?x=1", b"/v1/messages"]


@test
async def test_required_fields_hold(door: DoorBench, upstream: FakeUpstream) -> None:
    allow = {"required_headers": ["x-team: a", "x-any"]}
    proxy = door.proxy(upstreams={"openai": {"allow": allow}})
    client = await door.client(proxy)
    check_refused(await client.ask(request(CHAT)), 400, "required_header_missing")
    check_refused(await client.ask(request(CHAT, b"X-Team: b", b"X-Any: 1")), 400, "required_header_missing")
    assert (await client.ask(request(CHAT, b"X-Team: a", b"X-Any: 1"))).status == 200
    assert len(upstream.requests) == 1


# With access: both lists.

PAIRS = [
    (["/v1/chat/completions"], ["/v1/chat/completions"], 200),
    (["/v1/chat/completions"], [], 200),
    ([], ["/v1/chat/completions"], 200),
    (["/v1/chat/completions"], ["/v1/models"], 403),
    (["/v1/models"], ["/v1/chat/completions"], 403),
    (["/v1/models"], ["/v1/models"], 403),
]


@pytest.mark.parametrize(("upstreams", "projects", "status"), PAIRS)
@test
async def test_upstream_and_project_must_both_allow(
    door: DoorBench, upstream: FakeUpstream, upstreams: list[str], projects: list[str], status: int
) -> None:
    proxy = await door.gateway(upstreams={"openai": {"allow": {"endpoints": upstreams}}})
    token = await door.token(await door.project(allow=Allow(endpoints=tuple(projects))))
    client = await door.client(proxy)
    got = await client.ask(chat(token))
    assert got.status == status
    if status == 403:
        check_refused(got, 403, "endpoint_not_allowed")
    assert len(upstream.requests) == (status == 200)


@test
async def test_models_must_be_allowed_by_both(door: DoorBench, upstream: FakeUpstream) -> None:
    proxy = await door.gateway(upstreams={"openai": ONLY_GPT})
    token = await door.token(await door.project(allow=Allow(params={"model": ("gpt-4o-mini", "o3")})))
    client = await door.client(proxy)
    for model, status in [("gpt-4o-mini", 200), ("gpt-4o", 403), ("o3", 403), ("other", 403)]:
        got = await client.ask(chat(token, body=json.dumps({"model": model}).encode()))
        assert got.status == status, model
    assert len(upstream.requests) == 1


@test
async def test_what_an_upstream_allows_is_not_told_without_a_token(door: DoorBench) -> None:
    proxy = await door.gateway(upstreams={"openai": {"allow": {"methods": ["GET"]}}})
    client = await door.client(proxy)
    got = await client.ask(chat(None))
    check_refused(got, 401, "token_missing")
    assert got.get(b"allow") is None


# Bodies.


def body_cases() -> list[tuple[str, list[bytes], bytes, int, str]]:
    good, bad = b'{"model":"gpt-4o"}', b'{"model":"evil"}'
    twice = b'{"model":"evil","model":"gpt-4o"}'
    return [
        ("good", [JSON], good, 200, ""),
        ("glob", [JSON], b'{"model":"gpt-4o-mini"}', 200, ""),
        ("charset", [JSON + b"; charset=utf-8"], bad, 403, "model_not_allowed"),
        ("vendor", [b"Content-Type: application/vnd.api+json"], bad, 403, "model_not_allowed"),
        ("no type", [], bad, 403, "model_not_allowed"),
        ("plain", [b"Content-Type: text/plain"], bad, 403, "model_not_allowed"),
        ("escaped", [JSON], b'{"mod\\u0065l":"evil"}', 403, "model_not_allowed"),
        ("case", [JSON], b'{"model":"gpt-4o","Model":"evil"}', 400, "malformed_body"),
        ("twice", [JSON], twice, 400, "malformed_body"),
        ("broken", [JSON], b'{"model":"gpt-4o"', 400, "malformed_body"),
        ("absent", [JSON], b'{"messages":[]}', 403, "model_not_allowed"),
        ("empty", [JSON], b"", 403, "model_not_allowed"),
        ("null", [JSON], b'{"model":null}', 403, "model_not_allowed"),
        ("list", [JSON], b'{"model":["gpt-4o"]}', 403, "model_not_allowed"),
        ("gzip", [JSON, b"Content-Encoding: gzip"], gzip.compress(bad), 415, "content_encoding_not_allowed"),
        ("gzip of a good one", [JSON, b"Content-Encoding: gzip"], gzip.compress(good), 415, ""),
        ("query", [JSON], good, 403, "model_not_allowed"),
    ]


CASES = body_cases()


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize(("name", "fields", "body", "status", "code"), CASES, ids=[one[0] for one in CASES])
@pytest.mark.parametrize("access", [True, False])
@test
async def test_models_in_bodies_cannot_be_hidden(
    door: DoorBench,
    upstream: FakeUpstream,
    name: str,
    fields: list[bytes],
    body: bytes,
    status: int,
    code: str,
    framing: str,
    access: bool,
) -> None:
    if access:
        proxy = await door.gateway()
        token = await door.token(await door.project(allow=Allow(params={"model": ("gpt-4o", "gpt-4o-*")})))
        fields = [*fields, bearer(token)]
    else:
        proxy = door.proxy(upstreams={"openai": ONLY_GPT})
    client = await door.client(proxy)
    target = CHAT + b"?model=evil" if name == "query" else CHAT
    if framing == "length":
        data = request(target, *fields, body=body)
    else:
        pieces = [b"%x\r\n%s\r\n" % (len(one), one) for one in (body[:7], body[7:]) if one]
        data = (
            request(target, *fields, b"Transfer-Encoding: chunked", body=None)
            + b"".join(pieces)
            + b"0\r\n\r\n"
        )
    got = await client.ask(data)
    assert got.status == status, got.raw
    if code:
        check_refused(got, status, code)
    assert [one.body for one in upstream.requests] == ([body] if status == 200 else [])


@pytest.mark.parametrize("coding", ["utf-16", "utf-16-le", "utf-32"])
@test
async def test_body_in_another_unicode_is_read_or_refused(
    door: DoorBench, upstream: FakeUpstream, coding: str
) -> None:
    proxy = door.proxy(upstreams={"openai": ONLY_GPT})
    client = await door.client(proxy)
    charset = b"; charset=" + coding.encode()
    got = await client.ask(request(CHAT, JSON + charset, body='{"model":"evil"}'.encode(coding)))
    assert got.status in (400, 403), got.raw
    assert not upstream.requests


@test
async def test_model_in_the_path_is_held_against_the_list(door: DoorBench, upstream: FakeUpstream) -> None:
    proxy = await door.gateway()
    token = await door.token(await door.project(allow=Allow(params={"model": ("gemini-2.5-flash",)})))
    client = await door.client(proxy)
    assert (await client.ask(request(GEMINI, bearer(token), JSON))).status == 200
    for path in (b"gemini-2.5-pro", b"gemini-2%2E5-pro", b"gemini-2.5-flash%2F..%2Fgemini-2.5-pro"):
        got = await client.ask(request(b"/v1beta/models/" + path + b":generateContent", bearer(token), JSON))
        assert got.status == 403, path
    assert len(upstream.requests) == 1


@test
async def test_body_that_is_checked_goes_on_unchanged(door: DoorBench, upstream: FakeUpstream) -> None:
    proxy = await door.gateway()
    token = await door.token(await door.project(allow=Allow(params={"model": ("gpt-4o",)})))
    client = await door.client(proxy)
    body = b' {"messages" : ["' + "ä".encode() * 100_000 + b'"],\n"model":"gpt-4o" }'
    assert (await client.ask(chat(token, body=body))).status == 200
    assert upstream.requests[0].body == body


@test
async def test_body_of_a_request_that_nobody_reads_streams_through(door: DoorBench) -> None:
    """A list of endpoints does not make anybody wait for a body."""
    early = FakeUpstream([OK], at_head=True).listen(reactor)
    try:
        proxy = await door.gateway(upstreams={"openai": {"base_url": early.url}})
        token = await door.token(await door.project(allow=Allow(endpoints=("/v1/chat/completions",))))
        client = await door.client(proxy)
        client.send(chat(token, body=b"x" * 1000)[:-900])
        await until(lambda: early.requests)
        checked = await door.token(await door.project(allow=Allow(params={"model": ("a",)})))
        other = await door.client(proxy)
        other.send(chat(checked, body=b"x" * 1000)[:-900])
        await pause(0.1)
        assert len(early.requests) == 1
    finally:
        client.transport.abortConnection()
        other.transport.abortConnection()
        await until(lambda: not proxy.daemon.pipeline.active)
        await early.stop()


@test
async def test_expect_continue_is_asked_for_only_by_what_is_let_in(
    door: DoorBench, upstream: FakeUpstream
) -> None:
    proxy = await door.gateway()
    token = await door.token(await door.project(allow=Allow(params={"model": ("gpt-4o",)})))
    refused = await door.client(proxy)
    refused.send(chat(None, b"Expect: 100-continue")[: -len(BODY)])
    await refused.has(b"token_missing")
    assert b"100 Continue" not in refused.received
    client = await door.client(proxy)
    client.send(chat(token, b"Expect: 100-continue")[: -len(BODY)])
    await client.has(b"100 Continue")
    client.send(BODY)
    assert (await client.answer()).status == 200
    assert upstream.requests[0].body == BODY


# Paths.

ALLOWED = ["/v1/models/*", "/v1/chat/completions", "/v1/files/"]
TRICKS = [
    b"/v1/models/../admin",
    b"/v1/models/%2e%2e/admin",
    b"/v1/models/%252e%252e/admin",
    b"/v1/models/a%2f..%2f..%2fadmin",
    b"/v1/models/a%2Fb",
    b"/v1/models//admin",
    b"//v1/models/a",
    b"/v1/models/a;/../../admin",
    b"/v1/models/a\\..\\admin",
    b"/v1/models/a%5c..%5cadmin",
    b"/v1/models/a%00",
    b"/v1/models/.",
    b"/v1/models/..",
    b"/v1/models/%2e",
    b"/v1/models/a/b",
    b"/v1/files/../models",
    b"/v1/files/a/%2e%2e/%2e%2e/admin",
    b"/V1/models/a",
    b"/v1/admin",
    b"/to/openai/v1/admin",
    b"/to/openai/../openai/v1/models/a",
    b"/to/openai//v1/models/a",
    b"/v1/models/%c0%ae%c0%ae/admin",
    b"/v1/models/\xff",
    b"/v1/chat/completions%3f",
    b"/v1/chat/completions%23",
    b"/v1/chat/completions.",
    b"/v1/chat/completions;x",
]


@pytest.mark.parametrize("path", TRICKS)
@pytest.mark.parametrize("access", [True, False])
@test
async def test_path_that_may_be_read_otherwise_does_not_slip_by(
    door: DoorBench, upstream: FakeUpstream, path: bytes, access: bool
) -> None:
    if access:
        proxy = await door.gateway(server={"single_upstream": "openai"})
        fields = [bearer(await door.token(await door.project(allow=Allow(endpoints=tuple(ALLOWED)))))]
    else:
        allow = {"allow": {"endpoints": ALLOWED}}
        proxy = door.proxy(upstreams={"openai": allow}, server={"single_upstream": "openai"})
        fields = []
    client = await door.client(proxy)
    got = await client.ask(get(path, *fields))
    assert got.status in (400, 403), got.raw
    assert got.get(b"x-llmproxyd-error") == b"proxy"
    assert not upstream.requests


PASS = [
    b"/v1/models/gpt-4o",
    b"/v1/models/gpt%2d4o",
    b"/v1/models/gpt-4o?x=%2F..%2F&&a",
    b"/v1/models/ft:gpt-4o:org::abc",
    b"/v1/models/%C3%A4",
    b"/v1/files/a/b/c",
    b"/v1/files/a%20b/content?",
]


@pytest.mark.parametrize("path", PASS)
@test
async def test_bytes_of_an_allowed_path_are_those_that_were_checked(
    door: DoorBench, upstream: FakeUpstream, path: bytes
) -> None:
    proxy = await door.gateway(upstreams={"openai": {"base_url": upstream.url + "/base"}})
    token = await door.token(await door.project(allow=Allow(endpoints=tuple(ALLOWED))))
    client = await door.client(proxy)
    assert (await client.ask(models(token, target=b"/to/openai" + path))).status == 200
    assert upstream.requests[0].target == b"/base" + path


@pytest.mark.parametrize(
    "field", [b"X-Original-URL: /admin", b"x-rewrite-url: /admin", b"X-HTTP-Method-Override: DELETE"]
)
@test
async def test_fields_that_name_another_path_or_method_do_not_slip_by(
    door: DoorBench, upstream: FakeUpstream, field: bytes
) -> None:
    proxy = await door.gateway()
    allow = Allow(endpoints=("/v1/models",), methods=("GET",))
    token = await door.token(await door.project(allow=allow))
    client = await door.client(proxy)
    assert (await client.ask(models(token, field))).status in (403, 405)
    assert (await client.ask(models(token))).status == 200
    assert len(upstream.requests) == 1


@test
async def test_list_holds_on_the_clients_path_where_paths_are_rewritten(
    door: DoorBench, upstream: FakeUpstream
) -> None:
    rewrite = [{"paths": [{"match": "/v1/old", "to": "/v2/new"}]}]
    proxy = await door.gateway(
        upstreams={"openai": {"transform": rewrite, "allow": {"endpoints": ["/v1/old"]}}}
    )
    token = await door.token()
    client = await door.client(proxy)
    assert (await client.ask(models(token, target=b"/to/openai/v1/old?a=1"))).status == 200
    assert upstream.requests[0].target == b"/v2/new?a=1"
    check_refused(await client.ask(models(token, target=b"/to/openai/v2/new")), 403, "endpoint_not_allowed")


@test
async def test_absolute_form_is_held_against_the_list_too(door: DoorBench, upstream: FakeUpstream) -> None:
    proxy = await door.gateway()
    token = await door.token(await door.project(allow=Allow(endpoints=("/v1/models",))))
    client: Client = await door.client(proxy)
    got = await client.ask(get(b"http://localhost/v1/admin", bearer(token)))
    assert got.status in (400, 403), got.raw
    assert not upstream.requests


# Attempts.


def absorbing(**more: Any) -> dict[str, Any]:
    retry = {"max_retries": 2, "base_delay": 0.01, "jitter": "none"}
    return {"resilience": {"default": {"retry": retry, **more}}}


@test
async def test_credential_of_the_project_goes_with_every_attempt(
    door: DoorBench, upstream: FakeUpstream
) -> None:
    bad = Send(answer(b'{"error":{"message":"x"}}', b"content-type: application/json", status=b"503 No"))
    upstream.scripts = [[bad], [bad], [OK]]
    proxy = await door.gateway(**absorbing(breaker={"enabled": True}))
    token = await door.token()
    client = await door.client(proxy)
    where = CHAT + b"?key=" + token.encode() + b"&a=1&k%65y=" + token.encode()
    got = await client.ask(chat(token, b"X-Mine: " + token.encode(), target=where))
    assert got.status == 200, got.raw
    assert len(upstream.requests) == 3
    for sent in upstream.requests:
        assert sent.all(b"authorization") == [b"Bearer " + key_for("openai").encode()]
        assert sent.target == CHAT + b"?a=1"
        nowhere(sent, token)
    assert await door.counted(proxy, token) == 1


class Three:
    """Upstreams of one provider: the first fails, and the others stand in for it."""

    def __init__(self) -> None:
        self.first, self.second, self.third = (FakeUpstream([OK]).listen(reactor) for _ in range(3))
        bad = answer(b'{"error":{"message":"x"}}', b"content-type: application/json", status=b"503 No")
        self.first.scripts = [[Send(bad)]]

    def settings(self, second: dict[str, Any] | None = None, **fallback: Any) -> dict[str, Any]:
        others = [{"upstream": "second", **fallback}, {"upstream": "third"}]
        place = {"provider": "openai"}
        return {
            "openai": {"base_url": self.first.url, "fallbacks": others},
            "second": {**place, "base_url": self.second.url, **(second or {})},
            "third": {**place, "base_url": self.third.url},
        }

    @property
    def asked(self) -> tuple[int, int, int]:
        return len(self.first.requests), len(self.second.requests), len(self.third.requests)

    async def stop(self) -> None:
        for one in (self.first, self.second, self.third):
            await one.stop()


@pytest.fixture
def three(_nothing_left: None) -> Iterator[Three]:
    made = Three()
    yield made
    pytest_twisted.blockon(ensureDeferred(made.stop()))


def keys(*names: str) -> dict[str, str]:
    return {name: key_for(name) for name in names}


@test
async def test_fallback_gets_its_own_credential_and_is_skipped_without_one(
    three: Three, door: DoorBench
) -> None:
    proxy = await door.gateway(upstreams=three.settings())
    all_ = await door.token(await door.project(credentials=keys("openai", "second", "third")))
    some = await door.token(await door.project(credentials=keys("openai", "third")))
    none = await door.token(await door.project(credentials=keys("openai")))
    client = await door.client(proxy)
    assert (await client.ask(chat(all_, b"X-Mine: " + all_.encode()))).status == 200
    assert three.asked == (1, 1, 0)
    assert three.second.requests[0].all(b"authorization") == [b"Bearer " + key_for("second").encode()]
    assert (await client.ask(chat(some))).status == 200
    assert three.asked == (2, 1, 1)
    assert three.third.requests[0].all(b"authorization") == [b"Bearer " + key_for("third").encode()]
    assert (await client.ask(chat(none))).status == 503
    assert three.asked == (3, 1, 1)
    for sent in (*three.first.requests, *three.second.requests, *three.third.requests):
        nowhere(sent, all_)
        nowhere(sent, some)


@test
async def test_fallback_on_the_same_host_gets_nothing_of_the_token(
    door: DoorBench, upstream: FakeUpstream
) -> None:
    bad = Send(answer(b"{}", b"content-type: application/json", status=b"503 No"))
    upstream.scripts = [[bad], [OK]]
    second = {"provider": "openai", "base_url": upstream.url + "/second"}
    first = {"fallbacks": [{"upstream": "second"}]}
    proxy = await door.gateway(upstreams={"openai": first, "second": second})
    token = await door.token(await door.project(credentials={"openai": key_for("openai"), "second": ""}))
    client = await door.client(proxy)
    where = CHAT + b"?a=1&k%65y=" + token.encode()
    assert (
        await client.ask(chat(token, b"X-Mine: " + token.encode(), b"Cookie: a=b", target=where))
    ).status == 200
    sent = upstream.requests[1]
    assert sent.target == b"/second" + CHAT + b"?a=1"
    assert sent.all(b"authorization") == []
    assert sent.all(b"cookie") == [b"a=b"]
    nowhere(sent, token)
    nowhere(sent, key_for("openai"))


LISTS: list[tuple[dict[str, Any], tuple[int, int, int]]] = [
    ({"endpoints": ["/v1/chat/completions"]}, (1, 1, 0)),
    ({"endpoints": ["/v1/models"]}, (1, 0, 1)),
    ({"methods": ["GET"]}, (1, 0, 1)),
    ({"params": {"model": ["local"]}}, (1, 1, 0)),
    ({"params": {"model": ["gpt-4o"]}}, (1, 0, 1)),
]


@pytest.mark.parametrize(("allow", "asked"), LISTS)
@pytest.mark.parametrize("access", [True, False])
@test
async def test_fallback_gets_nothing_that_its_own_list_is_against(
    three: Three, door: DoorBench, allow: dict[str, Any], asked: tuple[int, int, int], access: bool
) -> None:
    """The request is held against it as it would be there: with the model's name there."""
    settings = three.settings({"allow": allow}, models={"gpt-4o": "local"})
    token = None
    if access:
        proxy = await door.gateway(upstreams=settings)
        token = await door.token(await door.project(credentials=keys("openai", "second", "third")))
    else:
        proxy = door.proxy(upstreams=settings)
    client = await door.client(proxy)
    assert (await client.ask(chat(token))).status == 200
    assert three.asked == asked


@test
async def test_revoked_while_it_is_tried_again_it_is_still_the_same_request(
    door: DoorBench, upstream: FakeUpstream
) -> None:
    gate = Gate()
    bad = Send(answer(b"{}", b"content-type: application/json", status=b"503 No"))
    upstream.scripts = [[gate, bad], [OK]]
    proxy = await door.gateway(**absorbing())
    token = await door.token()
    client = await door.client(proxy)
    client.send(chat(token))
    await until(lambda: gate.reached)
    await door.change_token(proxy, token, active=False)
    gate.open()
    assert (await client.answer()).status == 200
    assert (await client.ask(chat(token))).status == 401

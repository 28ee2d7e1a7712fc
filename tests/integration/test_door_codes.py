"""Every refusal at the door has its status, its fields and its code in the provider's shape."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from doorbench import (
    BODY,
    CHAT,
    GEMINI,
    MESSAGES,
    MODELS,
    DoorBench,
    bearer,
    chat,
    check_refused,
    code_of,
    denied,
    key_for,
    models,
)
from twisted.internet.defer import ensureDeferred
from wireclient import get, request, until

from llmproxyd.access.allowlist import Allow
from llmproxyd.access.projects import Limits
from llmproxyd.access.tokens import new_token
from llmproxyd.testing.store import MemoryStore
from llmproxyd.testing.upstream import FakeUpstream

test = pytest_twisted.ensureDeferred

DATABRICKS = b"/serving-endpoints/dbrx/invocations"
SHAPES = {"openai": CHAT, "anthropic": MESSAGES, "google": GEMINI, "databricks": DATABRICKS}

CODES: dict[str, tuple[int, tuple[bytes, ...]]] = {
    "token_missing": (401, (b"www-authenticate",)),
    "token_not_found": (401, (b"www-authenticate",)),
    "token_inactive": (401, (b"www-authenticate",)),
    "token_expired": (401, (b"www-authenticate",)),
    "token_ambiguous": (401, (b"www-authenticate",)),
    "project_inactive": (403, ()),
    "upstream_not_allowed": (403, ()),
    "endpoint_not_allowed": (403, ()),
    "model_not_allowed": (403, ()),
    "origin_not_allowed": (403, ()),
    "method_not_allowed": (405, (b"allow",)),
    "rate_limit_exceeded": (429, (b"retry-after",)),
    "store_unavailable": (503, (b"retry-after",)),
}


@pytest.fixture
def door(upstream: FakeUpstream) -> Iterator[DoorBench]:
    made = DoorBench(upstream)
    yield made
    pytest_twisted.blockon(ensureDeferred(made.close()))


async def prepared(door: DoorBench, code: str) -> tuple[Any, list[bytes]]:
    """A proxy, and the fields of a request to which it answers *code*."""
    proxy = await door.gateway()
    allow: dict[str, Allow] = {
        "endpoint_not_allowed": Allow(endpoints=("/v1/embeddings",)),
        "model_not_allowed": Allow(params={"model": ("other",)}),
        "origin_not_allowed": Allow(origins=("https://good.example",)),
        "method_not_allowed": Allow(methods=("GET", "HEAD")),
    }
    more: dict[str, Any] = {}
    if code == "project_inactive":
        more["active"] = False
    if code == "upstream_not_allowed":
        more["credentials"] = {"groq": "gsk"}
    if code == "rate_limit_exceeded":
        more["limits"] = Limits(rpm=1)
    project = await door.project(allow=allow.get(code), **more)
    about: dict[str, Any] = {
        "token_inactive": {"active": False},
        "token_expired": {"expires_at": time.time() - 1},
    }.get(code, {})
    token = await door.token(project, **about)
    fields = [bearer(token), b"Content-Type: application/json"]
    if code == "token_missing":
        fields.pop(0)
    if code == "token_not_found":
        fields[0] = bearer(new_token(b"x" * 16))
    if code == "token_ambiguous":
        fields.append(bearer(new_token(b"x" * 16)))
    if code == "origin_not_allowed":
        fields.append(b"Origin: https://evil.example")
    if code == "store_unavailable":
        door.store.down = True
    return proxy, fields


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("code", CODES)
@test
async def test_refusal_is_told_in_the_shape_of_the_provider(
    door: DoorBench, upstream: FakeUpstream, code: str, shape: str
) -> None:
    proxy, fields = await prepared(door, code)
    client = await door.client(proxy)
    ask = request(SHAPES[shape], *fields, body=BODY)
    got = await client.ask(ask)
    if code == "rate_limit_exceeded":
        assert got.status == 200
        upstream.requests.clear()
        got = await client.ask(ask)
    status, names = CODES[code]
    check_refused(got, status, code)
    assert code_of(got) == code
    for name in names:
        assert got.get(name), name
    if status == 401:
        assert got.get(b"www-authenticate") == b'Bearer realm="llmproxyd"'
    else:
        assert got.get(b"www-authenticate") is None
    value = got.json
    if shape == "openai":
        assert set(value["error"]) == {"message", "type", "param", "code"}
    elif shape == "anthropic":
        assert value["type"] == "error"
    elif shape == "google":
        assert value["error"]["code"] == status
    else:
        assert set(value) == {"error_code", "message"}
    assert not upstream.requests
    assert proxy.finished[-1].code == code
    assert [one.code for one in denied(proxy)] == ([code] if code in AUTHENTICATION else [])


AUTHENTICATION = (
    "token_missing",
    "token_not_found",
    "token_inactive",
    "token_expired",
    "token_ambiguous",
    "project_inactive",
)


@test
async def test_inactive_project_is_let_in_where_that_is_not_enforced(
    door: DoorBench, upstream: FakeUpstream
) -> None:
    proxy = await door.gateway(access={"enforce_active": False})
    token = await door.token(await door.project(active=False))
    client = await door.client(proxy)
    assert (await client.ask(chat(token))).status == 200


@pytest.mark.parametrize(
    ("shape", "names"),
    [
        (CHAT, [b"x-ratelimit-%s-requests" % one for one in (b"limit", b"remaining", b"reset")]),
        (
            MESSAGES,
            [b"anthropic-ratelimit-requests-%s" % one for one in (b"limit", b"remaining", b"reset")],
        ),
        (GEMINI, []),
    ],
)
@test
async def test_429_has_the_limits_in_the_fields_of_the_provider(
    door: DoorBench, shape: bytes, names: list[bytes]
) -> None:
    proxy = await door.gateway()
    token = await door.token(await door.project(limits=Limits(rpm=2)))
    client = await door.client(proxy)
    ask = request(shape, bearer(token), b"Content-Type: application/json", body=BODY)
    assert [(await client.ask(ask)).status for _ in range(2)] == [200, 200]
    got = await client.ask(ask)
    check_refused(got, 429, "rate_limit_exceeded")
    after = got.get(b"retry-after")
    assert after is not None
    assert 1 <= int(after) <= 30
    told = [name for name in got.names if b"ratelimit" in name]
    assert sorted(told) == sorted(names)
    if names:
        assert got.get(names[0]) == b"2"
        assert got.get(names[1]) == b"0"


ELSEWHERE = [
    get(MODELS),
    request(b"/v1/messages/count_tokens", body=b"{}"),
    request(b"/oidc/v1/token", b"Content-Type: application/x-www-form-urlencoded", body=b"a=b"),
    get(b"/nobody/knows/it"),
    get(b"/to/nowhere/v1/models"),
    get(b"/to/openai/health"),
    get(b"/v1/models", method=b"HEAD"),
    get(b"/v1/models", method=b"OPTIONS"),
]


@pytest.mark.parametrize("data", ELSEWHERE)
@test
async def test_nothing_is_told_or_sent_without_a_token(
    door: DoorBench, upstream: FakeUpstream, data: bytes
) -> None:
    """Model lists, OAuth, paths that nobody knows, upstreams that there are not."""
    proxy = await door.gateway(default_upstream="databricks")
    client = await door.client(proxy)
    got = await client.ask(data)
    assert (got.status, got.get(b"x-llmproxyd-code")) == (401, b"token_missing")
    assert b"Known" not in got.body
    assert not upstream.requests
    if data in ELSEWHERE[:3]:
        token = await door.token()
        got = await client.ask(data.replace(b"\r\nHost", b"\r\n%s\r\nHost" % bearer(token)))
        assert got.status == 200


@test
async def test_upstream_that_is_unknown_is_told_to_who_may_come_in(
    door: DoorBench, upstream: FakeUpstream
) -> None:
    proxy = await door.gateway()
    token = await door.token(max_requests=1)
    client = await door.client(proxy)
    for _ in range(3):  # such a request does not count
        got = await client.ask(get(b"/to/nowhere/v1/models", bearer(token)))
        check_refused(got, 404, "upstream_unknown")
        assert b"Known" in got.body
    check_refused(await client.ask(get(b"/to/nowhere/x", bearer("sk-none"))), 401, "token_not_found")
    assert (await client.ask(models(token))).status == 200


@pytest.mark.parametrize("page", [b"/health", b"/health/detailed", b"/metrics"])
@test
async def test_local_pages_need_no_token(door: DoorBench, page: bytes) -> None:
    proxy = await door.gateway()
    client = await door.client(proxy)
    assert (await client.ask(get(page))).status == 200
    assert not denied(proxy)


@test
async def test_refusals_are_noted_with_address_and_what_may_be_shown(door: DoorBench) -> None:
    proxy = await door.gateway()
    client = await door.client(proxy)
    unknown = new_token(b"q" * 16)
    token = await door.token(active=False)
    await client.ask(models(None))
    await client.ask(models(unknown))
    await client.ask(models("AIza-something-else-entirely"))
    await client.ask(models(token))
    told = [(one.address, one.code, one.shown) for one in denied(proxy)]
    assert told == [
        ("127.0.0.1", "token_missing", None),
        ("127.0.0.1", "token_not_found", unknown[:7] + "…"),
        ("127.0.0.1", "token_not_found", None),
        ("127.0.0.1", "token_inactive", token[:7] + "…"),
    ]
    for one in proxy.sink.events:
        assert unknown not in repr(one)
        assert token not in repr(one)


@test
async def test_one_connection_outlives_all_refusals(door: DoorBench, upstream: FakeUpstream) -> None:
    proxy = await door.gateway()
    token = await door.token()
    client = await door.client(proxy)
    for _ in range(3):
        check_refused(await client.ask(chat(None)), 401, "token_missing")
        check_refused(await client.ask(chat(new_token(b"z" * 16))), 401, "token_not_found")
        assert (await client.ask(chat(token))).status == 200
    assert len(upstream.requests) == 3


@test
async def test_store_that_is_down_lets_known_tokens_work_on(door: DoorBench, upstream: FakeUpstream) -> None:
    store = MemoryStore()
    proxy = await door.gateway(store=store)
    token, cold = await door.token(), await door.token()
    client = await door.client(proxy)
    assert (await client.ask(chat(token))).status == 200
    store.down = True
    got = await client.ask(chat(cold))
    check_refused(got, 503, "store_unavailable")
    assert got.get(b"retry-after") == b"1"
    assert (await client.ask(chat(token))).status == 200
    assert not proxy.daemon.works.gateway.ready
    store.down = False
    await until(lambda: proxy.daemon.works.gateway.ready)
    assert (await client.ask(chat(cold))).status == 200


@test
async def test_no_upstream_is_asked_with_a_key_of_another(door: DoorBench, upstream: FakeUpstream) -> None:
    proxy = await door.gateway()
    token = await door.token(await door.project(credentials={"openai": key_for("openai")}))
    client = await door.client(proxy)
    check_refused(await client.ask(request(MESSAGES, bearer(token), body=BODY)), 403, "upstream_not_allowed")
    check_refused(await client.ask(request(b"/to/groq" + CHAT, bearer(token))), 403, "upstream_not_allowed")
    assert not upstream.requests
    assert [one.status for one in proxy.finished] == [403, 403]

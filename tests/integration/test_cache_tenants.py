"""Nothing that is stored for one tenant ever reaches another, whatever a client sends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from cachebench import FRESH, KEY, MODELS, OTHER, POST_RULE, CacheBench, Doors, chat, numbered, shelf_of, told
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wireclient import Answer, get, request

from llmproxyd.cache.key import CREDENTIALS
from llmproxyd.gateway import Parts
from llmproxyd.testing.upstream import FakeUpstream, Send, answer

pytest_plugins = ["cachefixtures"]

TOKENS = {"sk-alice": "proj_a", "sk-alan": "proj_a", "sk-bob": "proj_b"}
ACCESS: dict[str, Any] = {"access": {"enabled": True, "store": "sqlite:/nonexistent/never.db"}}


def bearer(token: str) -> bytes:
    return b"Authorization: Bearer " + token.encode()


def mirror(upstream: FakeUpstream) -> None:
    """Each answer tells whose key came, for what, and its number, and may be kept."""
    count = iter(range(1, 100_000))

    def script() -> list[Any]:
        one = upstream.requests[-1]
        who = b"".join(value for name, value in one.headers if name.lower() in PLACES)
        return [Send(answer(b"%b|%b|%b|%d" % (who, one.target, one.body, next(count)), FRESH))]

    upstream.next_script = script  # type: ignore[method-assign]


PLACES = (b"authorization", b"x-api-key", b"x-goog-api-key", b"api-key")


# Access off: whoever has the same credential.


@pytest_twisted.ensureDeferred
async def test_credentials_never_share(cached: CacheBench, upstream: FakeUpstream) -> None:
    mirror(upstream)
    proxy = await cached.proxy()
    places = [KEY, OTHER, b"x-api-key: sk-alice", b"api-key: sk-carol", b"x-other: 1"]
    first = await cached.ask(proxy, *[get(b"/to/openai" + MODELS, one) for one in places])
    again = await cached.ask(proxy, *[get(b"/to/openai" + MODELS, one) for one in places])
    assert [one.body for one in first] == [one.body for one in again]
    # The same credential in another place is the same tenant.
    assert first[2].body == first[0].body
    assert len({one.body for one in first}) == 4


@pytest_twisted.ensureDeferred
async def test_a_credential_in_the_query_is_one_too(cached: CacheBench, upstream: FakeUpstream) -> None:
    numbered(upstream, FRESH)
    proxy = await cached.proxy()
    path = b"/to/google/v1beta/models"
    got = await cached.ask(
        proxy, get(path + b"?key=a"), get(path + b"?key=b"), get(path), get(path + b"?key=a"), get(path)
    )
    assert [one.body for one in got] == [b"body 1", b"body 2", b"body 3", b"body 1", b"body 3"]
    assert not any(b"key=" in one.url for entries in entries_of(proxy) for one in entries)


@pytest.mark.parametrize("name", sorted({*CREDENTIALS, b"%6bey", b"api%5Fkey"}))
@pytest_twisted.ensureDeferred
async def test_an_argument_that_belongs_to_no_key_tells_the_tenant(
    cached_here: CacheBench, upstream: FakeUpstream, name: bytes
) -> None:
    numbered(upstream, FRESH)
    proxy = await cached_here.proxy()
    path = b"/to/openai" + MODELS + b"?" + name
    asked = [get(path + b"=alice"), get(path + b"=bob"), get(path + b"=alice", KEY), get(path + b"=bob", KEY)]
    first = await cached_here.ask(proxy, *asked)
    again = await cached_here.ask(proxy, *asked)
    assert len({one.body for one in first}) == 4
    assert [one.body for one in again] == [one.body for one in first]


@pytest_twisted.ensureDeferred
async def test_who_presents_a_credential_in_the_query_needs_the_upstreams_leave(
    cached_here: CacheBench, upstream: FakeUpstream
) -> None:
    """RFC 9111 §3.5 is for requests with ``Authorization``; this stands in its place."""
    numbered(upstream, b"Cache-Control: max-age=60")
    proxy = await cached_here.proxy()
    asked = get(b"/to/openai" + MODELS + b"?access_token=alice")
    got = await cached_here.ask(proxy, asked, asked)
    assert [one.body for one in got] == [b"body 1", b"body 2"]


def entries_of(proxy: Any) -> Iterator[Any]:
    cache = shelf_of(proxy).cache
    return iter(getattr(cache, "_by_key", {}).values())


@pytest_twisted.ensureDeferred
async def test_upstreams_never_share(cached: CacheBench, upstream: FakeUpstream) -> None:
    numbered(upstream, FRESH)
    proxy = await cached.proxy(upstreams={"second": {"provider": "openai", "base_url": upstream.url}})
    targets = [b"/to/openai/v1/models", b"/to/second/v1/models", b"/v1/models"]
    got = await cached.ask(proxy, *[get(one, KEY) for one in targets])
    assert [one.body for one in got] == [b"body 1", b"body 2", b"body 1"]


# Access on: the project.


@pytest_twisted.ensureDeferred
async def test_projects_never_share_and_their_tokens_do(cached: CacheBench, upstream: FakeUpstream) -> None:
    numbered(upstream, FRESH)
    doors = Doors(TOKENS)
    proxy = await cached.proxy(parts=Parts(door=doors), **ACCESS)
    asks = [get(MODELS, bearer(one)) for one in ("sk-alice", "sk-bob", "sk-alan", "sk-nobody")]
    got = await cached.ask(proxy, *asks, get(MODELS))
    assert [one.body for one in got[:3]] == [b"body 1", b"body 2", b"body 1"]
    assert [one.status for one in got[3:]] == [401, 401]
    assert told(got[2]).startswith(b"llmproxyd; hit")
    assert doors.counted == ["sk-alice", "sk-bob", "sk-alan"]
    tokens = shelf_of(proxy).stats()["tokens"]
    assert tokens == {
        "tok_sk-alice": {"miss": 1, "store": 1},
        "tok_sk-bob": {"miss": 1, "store": 1},
        "tok_sk-alan": {"hit": 1},
    }
    assert [(one.project, one.token, one.cache) for one in proxy.finished[:3]] == [
        ("proj_a", "tok_sk-alice", "miss"),
        ("proj_b", "tok_sk-bob", "miss"),
        ("proj_a", "tok_sk-alan", "hit"),
    ]


@pytest_twisted.ensureDeferred
async def test_share_upstream_is_for_all_who_are_let_in(cached: CacheBench, upstream: FakeUpstream) -> None:
    numbered(upstream, FRESH)
    proxy = await cached.proxy(parts=Parts(door=Doors(TOKENS)), cache={"share": "upstream"}, **ACCESS)
    got = await cached.ask(proxy, *[get(MODELS, bearer(one)) for one in (*TOKENS, "sk-nobody")])
    assert [one.body for one in got[:3]] == [b"body 1"] * 3
    assert got[3].status == 401


@pytest_twisted.ensureDeferred
async def test_one_projects_change_leaves_the_others_entries(
    cached: CacheBench, upstream: FakeUpstream
) -> None:
    numbered(upstream, FRESH)
    proxy = await cached.proxy(parts=Parts(door=Doors(TOKENS)), **ACCESS)
    alice, bob = get(b"/v1/files", bearer("sk-alice")), get(b"/v1/files", bearer("sk-bob"))
    got = await cached.ask(proxy, alice, bob, request(b"/v1/files", bearer("sk-bob")), alice, bob)
    assert got[3].body == got[0].body
    assert got[4].body != got[1].body


# Poisoning.


@pytest_twisted.ensureDeferred
async def test_nothing_that_a_client_says_of_itself_is_believed(
    cached: CacheBench, upstream: FakeUpstream
) -> None:
    mirror(upstream)
    proxy = await cached.proxy(cache=POST_RULE)
    told_of = [
        b"X-Body-Hash: 1",
        b"X-Cache-Key: 1",
        b"X-Project-Id: proj_b",
        b"X-Original-URL: /v1/other",
        b"X-HTTP-Method-Override: DELETE",
        b"X-Forwarded-Host: evil",
        b"X-llmproxyd-tenant: other",
    ]
    for one in told_of:
        (poison,) = await cached.ask(proxy, chat(b"poison", KEY, one))
        (good,) = await cached.ask(proxy, chat(b"good", KEY, one))
        assert b"|poison|" in poison.body
        assert b"|good|" in good.body
    overridden = await cached.ask(proxy, get(MODELS, KEY, told_of[3]), get(MODELS, KEY))
    assert overridden[0].body != overridden[1].body
    forwarded = await cached.ask(proxy, get(MODELS, KEY, told_of[5]), get(MODELS, KEY))
    assert forwarded[0].body != forwarded[1].body
    assert forwarded[1].body == overridden[1].body


@pytest_twisted.ensureDeferred
async def test_forms_of_the_target(cached: CacheBench, upstream: FakeUpstream) -> None:
    mirror(upstream)
    proxy = await cached.proxy()
    (plain,) = await cached.ask(proxy, get(b"/v1/models?a=1&b=2", KEY))
    same = [
        get(b"/v1/models?b=2&a=1", KEY),
        request(b"/v1/models?a=1&b=2", KEY, method=b"GET", body=None, host=b"127.0.0.1"),
    ]
    others = [
        b"/v1/models?a=2&b=1",
        b"/v1//models?a=1&b=2",
        b"/v1/%6dodels?a=1&b=2",
        b"/v1/models?a=1%26b=2",
        b"/v1/models",
    ]
    for one in same:
        (got,) = await cached.ask(proxy, one)
        assert got.body == plain.body
    for target in others:
        (got,) = await cached.ask(proxy, get(target, KEY))
        assert b"|%b|" % target in got.body
    for host in (b"evil", b"api.openai.com"):
        absolute = request(b"http://%b/v1/models?a=1&b=2" % host, KEY, method=b"GET", body=None, host=host)
        (got,) = await cached.ask(proxy, absolute)
        assert got.status >= 400 or got.body == plain.body or b"|/v1/models?a=1&b=2|" in got.body


@pytest_twisted.ensureDeferred
async def test_what_one_client_varied_by_is_not_for_another(
    cached: CacheBench, upstream: FakeUpstream
) -> None:
    mirror(upstream)
    proxy = await cached.proxy()
    forms: list[tuple[bytes, ...]] = [
        (b"Anthropic-Version: 1",),
        (b"Anthropic-Version: 2",),
        (b"OpenAI-Organization: o",),
        (b"OpenAI-Project: o",),
        (),
    ]
    got: list[Answer] = []
    for fields in forms:
        got += await cached.ask(proxy, get(b"/to/openai/v1/models", KEY, *fields))
    assert len({one.body for one in got}) == len(forms)


# Everything at once.

_fields = st.lists(
    st.sampled_from(
        [
            b"Cache-Control: max-stale",
            b"Cache-Control: public, max-age=60",
            b"Cache-Control: no-cache",
            b"If-None-Match: *",
            b"Accept-Encoding: gzip",
            b"X-Body-Hash: 0",
            b"X-Forwarded-Host: a",
            b"Pragma: no-cache",
            b"Cookie: who=alice",
            b"X-Project: proj_a",
        ]
    ),
    max_size=3,
    unique=True,
)
_requests = st.tuples(
    st.sampled_from(["sk-alice", "sk-alan", "sk-bob"]),
    st.sampled_from([b"GET", b"GET", b"HEAD", b"POST", b"DELETE"]),
    st.sampled_from([b"/v1/models", b"/v1/models?a=1&b=2", b"/v1/models?b=2&a=1", b"/v1/chat/completions"]),
    _fields,
    st.sampled_from([b"{}", b'{"a":1}']),
)


def _ask(token: str, method: bytes, target: bytes, fields: list[bytes], body: bytes) -> bytes:
    return request(target, bearer(token), *fields, method=method, body=body if method == b"POST" else None)


async def play(cached: CacheBench, upstream: FakeUpstream, asked: list[Any], *, access: bool) -> None:
    """The upstream tells whose credential came; with access on, each project has its own."""
    if not cached.made:
        mirror(upstream)
        doors = Doors(TOKENS, own=True)
        more: dict[str, Any] = {"parts": Parts(door=doors), **ACCESS} if access else {}
        cached.made.append(await cached.proxy(cache=POST_RULE, **more))
        cached.made.append(await cached.client(cached.made[0]))
    proxy, client = cached.made
    for token, method, target, fields, body in asked:
        got = await client.ask(_ask(token, method, target, fields, body))
        await cached.settled(proxy)
        if got.status == 200 and method != b"HEAD":
            who, for_what, sent, _ = got.body.split(b"|")
            mine = TOKENS[token] if access else token
            assert who == b"Bearer " + mine.encode(), (token, got.body)
            assert sorted(for_what) == sorted(target)
            assert sent == (body if method == b"POST" else b"")


_settings = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
_asked = st.lists(_requests, min_size=2, max_size=12)


# They are three, as pytest-twisted and hypothesis do not go together with parameters.
@_settings
@given(asked=_asked)
@pytest_twisted.ensureDeferred
async def test_no_body_ever_reaches_another_project(
    cached_here: CacheBench, upstream: FakeUpstream, asked: list[Any]
) -> None:
    await play(cached_here, upstream, asked, access=True)


@_settings
@given(asked=_asked)
@pytest_twisted.ensureDeferred
async def test_no_body_ever_reaches_another_project_by_redis(
    cached_in_redis: CacheBench, upstream: FakeUpstream, asked: list[Any]
) -> None:
    await play(cached_in_redis, upstream, asked, access=True)


@_settings
@given(asked=_asked)
@pytest_twisted.ensureDeferred
async def test_no_body_ever_reaches_another_credential(
    cached_here: CacheBench, upstream: FakeUpstream, asked: list[Any]
) -> None:
    await play(cached_here, upstream, asked, access=False)


@pytest_twisted.ensureDeferred
async def test_that_play_does_hit(cached: CacheBench, upstream: FakeUpstream) -> None:
    mirror(upstream)
    proxy = await cached.proxy(cache=POST_RULE, parts=Parts(door=Doors(TOKENS, own=True)), **ACCESS)
    asks = [_ask(token, b"POST", MODELS, [], b"{}") for token in TOKENS]
    got = await cached.ask(proxy, *asks)
    assert got[0].body == got[1].body != got[2].body

"""The cache against those who mean harm: other tenants' entries, poison, and any bytes at all."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

sys.path.insert(0, str(Path(__file__).parents[1]))

from cacherules.harness import FROM_UPSTREAM, Proxy, Step

from llmproxyd.cache.directives import LONGEST, MOST, read, read_structured
from llmproxyd.cache.interface import Entry
from llmproxyd.cache.memory import MemoryCache
from llmproxyd.cache.policy import (
    Serve,
    confirmed,
    decide,
    invalidates,
    is_confirmed,
    may_be_kept,
    may_stand_in,
    served,
    storable,
    wants_of,
)
from llmproxyd.model import Request, Response
from llmproxyd.wire.fields import HOP_BY_HOP

NOW = 1_700_000_000.0

REQUEST_FIELDS = [
    b"Cache-Control", b"Pragma", b"If-None-Match", b"If-Modified-Since", b"Range", b"Accept", b"Authorization",
    b"Content-Length", b"Connection", b"X-Body-Hash", b"X-Forwarded-Host", b"Accept-Encoding", b"Anthropic-Version",
]  # fmt: skip
RESPONSE_FIELDS = [
    b"Cache-Control", b"CDN-Cache-Control", b"Expires", b"Date", b"Age", b"ETag", b"Last-Modified", b"Vary",
    b"Set-Cookie", b"Content-Encoding", b"Content-Length", b"Connection", b"Pragma", b"Transfer-Encoding",
]  # fmt: skip
WORDS = [
    b"no-store", b"no-cache", b"max-age=60", b"s-maxage=60", b"max-age=", b"public", b"private", b"must-revalidate",
    b"max-stale", b"min-fresh=9", b"only-if-cached", b"stale-if-error=60", b"stale-while-revalidate=60", b"=", b'"', b"\\",
    b",", b";", b" ", b"\t", b"*", b"W/", b'"a"', b"close", b"X-A", b"accept", b"gzip", b"Tue, 14 Nov 2023 22:13:20 GMT",
    b"Tuesday, 14-Nov-23 22:13:20 GMT", b"Tue Nov 14 22:13:20 2023", b"99999999999999999999", b"-1", b"0", b"\x00", b"\xff",
    b"\xb2", b"?1", b"(", b")", b":", b"a", b"Tue, 14 Nov 0000 22:13:20 GMT", b"Tue, 14 Nov 9999 23:59:60 GMT",
]  # fmt: skip
value = st.one_of(
    st.lists(st.sampled_from(WORDS), max_size=6).map(b"".join),
    st.lists(st.sampled_from(WORDS), max_size=6).map(b", ".join),
    st.binary(max_size=30),
)


def fields(names: list[bytes]) -> st.SearchStrategy[list[tuple[bytes, bytes]]]:
    return st.lists(st.tuples(st.one_of(st.sampled_from(names), st.binary(max_size=6)), value), max_size=6)


methods = st.sampled_from([b"GET", b"HEAD", b"POST", b"PUT", b"", b"\xff"])
moments = st.sampled_from([0.0, NOW, NOW - 1e6, NOW + 1e6, -1.0, 4e9, 1e12])


@settings(max_examples=200, deadline=None)
@given(methods, fields(REQUEST_FIELDS), fields(RESPONSE_FIELDS), fields(RESPONSE_FIELDS), st.sampled_from([200, 204, 304, 404, 206, 599, 0]), moments, moments, st.booleans(), st.one_of(st.none(), st.floats(0, 1e9)))  # fmt: skip
def test_no_bytes_raise_and_what_is_served_keeps_its_form(
    method: bytes,
    asked: list[tuple[bytes, bytes]],
    answered: list[tuple[bytes, bytes]],
    again: list[tuple[bytes, bytes]],
    status: int,
    requested: float,
    now: float,
    authorized: bool,
    ttl: float | None,
) -> None:
    request, response = Request(method, b"/x", asked), Response(status, b"OK", answered)
    wants = wants_of(request, authorized=authorized, ttl=ttl)
    assert not (wants.store and method not in (b"GET", b"HEAD", b"POST"))
    invalidates(request, response)
    assert not isinstance(decide((), request, wants, now), Serve)
    entry = storable(request, wants, response, requested=requested, received=requested + 1, ttl=ttl)
    if isinstance(entry, str):
        assert entry
        return
    assert 0 <= entry.lifetime <= max(MOST, ttl or 0)
    assert entry.age >= 0
    entry.body = b"body" * (method != b"HEAD")
    told = Response(304, b"", again)
    is_confirmed(entry, again, now)
    renewed = confirmed(entry, told, requested=now, received=now + 1)
    may_be_kept(renewed)
    assert renewed.body == entry.body
    for one in (entry, renewed):
        may_stand_in(one, wants, now)
        decision = decide((one,), request, wants, now)
        for serve in (served(one, request, now), *([decision] if isinstance(decision, Serve) else [])):
            names = [name.lower() for name, _ in serve.head.headers]
            assert names.count(b"age") == 1
            assert not HOP_BY_HOP & set(names)
            assert b"content-length" not in names or method == b"HEAD"
            assert serve.head.length in (None, len(one.body))
            conditional = {name.lower() for name, _ in asked} & {b"if-none-match", b"if-modified-since"}
            assert serve.head.status == one.status or (serve.head.status == 304 and conditional)


@given(st.lists(value, max_size=4))
@example([b'="' * 2000])
@example([b"a=(" + b"1 " * 2000])
@example([b"x" * (LONGEST + 1)])
def test_no_directives_raise(values: list[bytes]) -> None:
    said = read(values)
    for name in (b"max-age", b"no-store"):
        seconds = said.seconds(name)
        assert seconds is None or 0 <= seconds <= MOST
    read_structured(values)


@given(
    st.lists(st.sampled_from(WORDS), max_size=5),
    st.sampled_from([b", no-store", b",no-store;", b" no-store", b"\tNO-STORE=x", b";no-store"]),
)
def test_nothing_before_it_hides_no_store_but_a_string(before: list[bytes], last: bytes) -> None:
    text = b"".join(word for word in before if b'"' not in word and word != b"=")
    if text and text[-1:].isalnum():
        text += b","
    assert read([text + last]).has(b"no-store")


def run(coroutine: Any) -> Any:
    results: list[Any] = []
    Deferred.fromCoroutine(coroutine).addBoth(results.append)
    if hasattr(results[0], "raiseException"):
        results[0].raiseException()
    return results[0]


tenants = st.sampled_from(["a", "b", "ab", "", "a:b", "a\x00", "0"])
targets = st.sampled_from(
    ["/x", "/x?a=1", "/x?key=1", "/x?key=1&a=1", "/b/x", "/x?a=1&b=2", "/x?b=2&a=1", "//x", "/x/../x"]
)
said = st.sampled_from([
    {}, {"Cache-Control": "no-cache"}, {"Cache-Control": "public, max-age=60"}, {"If-None-Match": '"t"'}, {"Range": "bytes=0-1"},
    {"Cache-Control": "max-stale"}, {"Cache-Control": "only-if-cached"}, {"X-Body-Hash": "x"}, {"X-Tenant": "a", "X-Cache-Key": "k"},
    {"Accept": "a/b"}, {"X-Forwarded-Host": "evil"}, {"X-HTTP-Method-Override": "PUT"}, {"Content-Length": "5"},
])  # fmt: skip
replies = st.sampled_from([
    {"Cache-Control": "public, max-age=60"}, {"Cache-Control": "public, max-age=5, stale-while-revalidate=9, stale-if-error=9", "ETag": '"t"'},
    {"Cache-Control": "private, max-age=60"}, {"Cache-Control": "s-maxage=60", "Vary": "Accept"}, {"Cache-Control": "public, max-age=60", "Vary": "*"},
    {"Cache-Control": "public, max-age=60", "Vary": "Acc ept"}, {"Cache-Control": "no-store"}, {},
])  # fmt: skip
requests = st.tuples(
    tenants, targets, said, replies, st.sampled_from(["GET", "HEAD", "POST", "PUT"]),
    st.sampled_from(["", "a", "b", "a\x00b"]), st.sampled_from([200, 200, 304, 404, 500]), st.booleans(), st.floats(0, 5),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(requests, min_size=2, max_size=12))
def test_what_is_served_was_answered_to_the_same_tenant_for_the_same_request(script: list[Any]) -> None:
    proxy, at = Proxy(MemoryCache(10**6)), 0.0
    for tenant, target, req, res, method, body, status, down, later in script:
        at += later
        path, _, query = target.partition("?")
        arguments = "&".join(sorted(one for one in query.split("&") if one and not one.startswith("key=")))
        kind = "POST" if method == "POST" else "GET"
        mine = repr(
            (tenant, path, arguments, kind, body if kind == "POST" else "", req.get("X-Forwarded-Host", ""))
        )
        step = Step(
            tenant=tenant, target=target, req=req, res=res, method=method, body=body if kind == "POST" else "",
            status=status, down=down, at=at, text=mine, authorized=True, rule=60.0 if body == "a" else None, ttl=60.0,
        )  # fmt: skip
        became = run(proxy.exchange(step))
        if became.how in FROM_UPSTREAM or became.how == "unavailable":
            continue
        assert became.entry is not None
        assert became.entry.project == tenant
        if became.entry.method != b"HEAD":
            assert became.entry.body in (mine.encode(), b"")
        assert became.body in (mine.encode(), b"")
        assert method != "PUT"


@pytest.mark.parametrize(
    "poison",
    [
        {"X-HTTP-Method-Override": "DELETE"},
        {"X-Original-URL": "/admin"},
        {"X-Rewrite-URL": "/admin"},
        {"X-Forwarded-Host": "evil.example"},
        {"X-Host": "evil.example"},
        {"X-Forwarded-Proto": "nothttps"},
        {"Anthropic-Version": "1999-01-01"},
        {"OpenAI-Organization": "other"},
        {"Content-Length": "7"},
        {"Transfer-Encoding": "chunked"},
        {"Range": "bytes=0-0"},
        {"X-Method-Override": "PUT", "X-Body-Hash": "0"},
    ],
)
def test_what_a_hostile_request_was_answered_is_served_to_nobody_else(poison: dict[str, str]) -> None:
    proxy = Proxy(MemoryCache(10**6))
    run(proxy.exchange(Step(req=poison, cc="public, max-age=60", text="poison")))
    became = run(proxy.exchange(Step(cc="public, max-age=60", text="good", at=1.0)))
    assert (became.how, became.body) == ("miss", b"good")


def test_a_flood_of_variants_stays_within_bounds() -> None:
    cache = MemoryCache(100_000)
    proxy = Proxy(cache)
    for number in range(500):
        run(
            proxy.exchange(
                Step(
                    req={"X-A": str(number) * 50},
                    res={"Vary": "X-A"},
                    cc="max-age=60",
                    at=float(number) / 100,
                )
            )
        )
    assert int(str(cache.stats()["bytes"])) <= 100_000
    assert int(str(cache.stats()["entries"])) <= 32


def test_a_credential_that_selects_a_variant_stands_in_no_entry() -> None:
    headers = [
        (b"Authorization", b"Bearer sk-secret"),
        (b"Cookie", b"sk-secret"),
        (b"X-Anything", b"sk-secret"),
    ]
    request = Request(b"GET", b"/x", headers)
    response = Response(
        200, b"OK", [(b"Vary", b"Authorization, Cookie, X-Anything"), (b"Cache-Control", b"max-age=9")]
    )
    entry = storable(request, wants_of(request, authorized=False), response, requested=NOW, received=NOW)
    assert isinstance(entry, Entry)
    assert len(entry.varied) == 3
    assert b"sk-secret" not in b"".join(value or b"" for _, value in entry.varied)


def test_fields_are_stored_in_order_case_and_number() -> None:
    headers = [
        (b"X-One", b"1"),
        (b"x-ONE", b"2"),
        (b"Cache-Control", b"max-age=9"),
        (b"X-One", b"1"),
        (b"Date", b"x"),
    ]
    request = Request(b"GET", b"/x", [])
    entry = storable(
        request,
        wants_of(request, authorized=False),
        Response(200, b"OK", headers),
        requested=NOW,
        received=NOW,
    )
    assert isinstance(entry, Entry)
    assert entry.headers == headers
    assert served(entry, request, NOW + 7).head.headers == [*headers, (b"Age", b"7")]

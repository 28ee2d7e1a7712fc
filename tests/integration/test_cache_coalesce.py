"""Of equal requests that are under way at once one goes upstream."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from cachebench import (
    ASK,
    FRESH,
    KEY,
    MODELS,
    OTHER,
    POST_RULE,
    CacheBench,
    at_rest,
    chat,
    results,
    shelf_of,
    told,
)
from wireclient import Client, get, pause, until

from llmproxyd.model import End
from llmproxyd.testing.proxy import ProxyUnderTest
from llmproxyd.testing.upstream import (
    LAST_CHUNK,
    Action,
    Close,
    FakeUpstream,
    Gate,
    Send,
    Stall,
    answer,
    chunk,
    event,
    head,
    stream_head,
)

pytest_plugins = ["cachefixtures"]

GOOD = Send(answer(b"good", FRESH))
MANY = 12
POLICIES = [
    pytest.param({}, id="plain"),
    pytest.param({"default": {"retry": {"max_retries": 1, "base_delay": "1ms"}}}, id="retrying"),
]


async def waiting(proxy: ProxyUnderTest, count: int) -> None:
    """Wait until so many wait for a leader."""
    shelf = shelf_of(proxy)
    await until(lambda: sum(len(one.waiting) for one in shelf.flights.values()) == count, f"{count} who wait")


async def crowd(
    cached: CacheBench, proxy: ProxyUnderTest, count: int = MANY, data: bytes = ASK
) -> list[Client]:
    """So many clients that ask for the same: the first leads."""
    clients = []
    for _ in range(count):
        client = await cached.client(proxy)
        client.send(data)
        clients.append(client)
        if len(clients) == 1:
            await until(lambda: shelf_of(proxy).flights, "the leader")
    await waiting(proxy, count - 1)
    return clients


async def done(proxy: ProxyUnderTest) -> None:
    await until(lambda: not proxy.daemon.pipeline.active, "the end of all")
    at_rest(proxy)


@pytest_twisted.ensureDeferred
async def test_many_equal_requests_are_one_for_the_upstream(
    cached: CacheBench, upstream: FakeUpstream
) -> None:
    gate = Gate()
    upstream.scripts = [[gate, GOOD]]
    proxy = await cached.proxy()
    clients = await crowd(cached, proxy)
    await until(lambda: gate.reached, "the one request")
    gate.open()
    got = [await one.answer() for one in clients]
    assert {one.body for one in got} == {b"good"}
    assert len(upstream.requests) == 1
    assert told(got[0]) == b"llmproxyd; fwd=uri-miss; stored"
    for one in got[1:]:
        assert told(one).startswith(b"llmproxyd; fwd=uri-miss; collapsed; ttl=")
        assert one.get(b"age") == b"0"
    assert len({one.get(b"x-request-id") for one in got}) == MANY
    assert results(proxy).count("hit") == MANY - 1
    stats = shelf_of(proxy).stats()
    assert (stats["miss"], stats["hit"], stats["store"], stats["in_flight"]) == (1, MANY - 1, 1, 0)
    await done(proxy)


@pytest_twisted.ensureDeferred
async def test_others_wait_for_the_whole_stream(cached: CacheBench, upstream: FakeUpstream) -> None:
    gate = Gate()
    one = event(b'{"choices":[{"index":0,"delta":{"content":"1"}}]}')
    upstream.scripts = [[Send(stream_head()), Send(chunk(one)), gate, Send(chunk(one) + LAST_CHUNK)]]
    proxy = await cached.proxy(cache=POST_RULE)
    clients = await crowd(cached, proxy, 3, chat(b"{}", KEY))
    await clients[0].has(one)
    await pause(0.02)
    assert clients[1].received == b""
    gate.open()
    got = [await each.answer() for each in clients]
    assert [each.body for each in got] == [one + one] * 3
    assert got[2].get(b"transfer-encoding") == b"chunked"
    assert len(upstream.requests) == 1
    await done(proxy)


@pytest_twisted.ensureDeferred
async def test_others_are_answered_by_their_own_wishes(cached: CacheBench, upstream: FakeUpstream) -> None:
    gate = Gate()
    upstream.scripts = [[gate, Send(answer(b"good", FRESH, b'ETag: "a"'))]]
    proxy = await cached.proxy()
    leader, have, brief = [await cached.client(proxy) for _ in range(3)]
    leader.send(ASK)
    await until(lambda: shelf_of(proxy).flights, "the leader")
    have.send(get(MODELS, KEY, b'If-None-Match: "a"'))
    brief.send(get(MODELS, KEY, method=b"HEAD"))
    await waiting(proxy, 2)
    gate.open()
    assert (await have.answer()).status == 304
    assert (await brief.answer(bodiless=True)).get(b"content-length") == b"4"
    assert (await leader.answer()).body == b"good"
    assert len(upstream.requests) == 1
    await done(proxy)


@pytest_twisted.ensureDeferred
async def test_nobody_waits_for_an_answer_without_a_body(cached: CacheBench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Stall()], [GOOD]]
    proxy = await cached.proxy()
    brief = await cached.client(proxy)
    brief.send(get(MODELS, KEY, method=b"HEAD"))
    await cached.asked(1)
    (got,) = await cached.ask(proxy, ASK)
    assert got.body == b"good"


@pytest_twisted.ensureDeferred
async def test_those_who_insist_do_not_wait(cached: CacheBench, upstream: FakeUpstream) -> None:
    gate = Gate()
    upstream.scripts = [[gate, GOOD], [Send(answer(b"newer", FRESH))]]
    proxy = await cached.proxy()
    (leader,) = await crowd(cached, proxy, 1)
    for said in (b"no-cache", b"max-age=0"):
        (got,) = await cached.ask(proxy, get(MODELS, KEY, b"Cache-Control: " + said))
        assert got.body == b"newer"
    gate.open()
    await leader.answer()
    await done(proxy)


@pytest.mark.parametrize("policies", POLICIES)
@pytest.mark.parametrize(
    "fields",
    [(b"Cache-Control: no-store",), (FRESH, b"Vary: *"), (b"Cache-Control: public, max-age=0", b'ETag: "a"')],
)
@pytest_twisted.ensureDeferred
async def test_what_will_not_be_kept_lets_them_go_at_its_head(
    cached: CacheBench, upstream: FakeUpstream, policies: dict[str, Any], fields: tuple[bytes, ...]
) -> None:
    first, rest = Gate(), Gate()
    own = Send(answer(b"own", *fields))
    upstream.scripts = [[first, Send(head(*fields, b"Content-Length: 4") + b"so"), rest, Send(b"on")], [own]]
    proxy = await cached.proxy(resilience=policies)
    clients = await crowd(cached, proxy, 4)
    first.open()
    got = [await one.answer() for one in clients[1:]]
    assert [one.body for one in got] == [b"own"] * 3
    assert all(told(one).startswith(b"llmproxyd; fwd=uri-miss; collapsed=?0") for one in got)
    rest.open()
    assert (await clients[0].answer()).body == b"soon"
    assert len(upstream.requests) == 4
    await done(proxy)


@pytest_twisted.ensureDeferred
async def test_what_turns_out_too_large_lets_them_go(cached: CacheBench, upstream: FakeUpstream) -> None:
    rest = Gate()
    big = [Send(head(FRESH, b"Transfer-Encoding: chunked")), Send(chunk(bytes(2001)))]
    upstream.scripts = [[*big, rest, Send(LAST_CHUNK)], [Send(answer(b"own"))]]
    proxy = await cached.proxy(cache={"max_object_bytes": 2000})
    leader, *_ = [await cached.client(proxy)]
    leader.send(ASK)
    await until(lambda: leader.total > 2000, "most of it")
    (got,) = await cached.ask(proxy, ASK)
    assert got.body == b"own"
    rest.open()
    await leader.answer()
    await done(proxy)


@pytest_twisted.ensureDeferred
async def test_another_variant_goes_its_own_way(cached: CacheBench, upstream: FakeUpstream) -> None:
    gate = Gate()
    upstream.scripts = [
        [gate, Send(answer(b"en", FRESH, b"Vary: Accept-Language"))],
        [Send(answer(b"fr", FRESH))],
    ]
    proxy = await cached.proxy()
    english, french = await cached.client(proxy), await cached.client(proxy)
    english.send(get(MODELS, KEY, b"Accept-Language: en"))
    await until(lambda: shelf_of(proxy).flights, "the leader")
    french.send(get(MODELS, KEY, b"Accept-Language: fr"))
    await waiting(proxy, 1)
    gate.open()
    assert ((await english.answer()).body, (await french.answer()).body) == (b"en", b"fr")
    await done(proxy)


@pytest_twisted.ensureDeferred
async def test_who_brings_nothing_to_keep_is_done_with_the_cache_at_the_head(
    cached: CacheBench, upstream: FakeUpstream
) -> None:
    gate = Gate()
    upstream.scripts = [
        [Send(head(b"Cache-Control: no-store", b"Content-Length: 4") + b"go"), gate, Send(b"od")]
    ]
    proxy = await cached.proxy()
    client = await cached.client(proxy)
    client.send(ASK)
    await client.has(b"go")
    shelf = shelf_of(proxy)
    assert (shelf.asking, shelf.flights) == (set(), {})
    gate.open()
    assert (await client.answer()).body == b"good"
    await done(proxy)


# Those who leave.


@pytest.mark.parametrize("policies", POLICIES)
@pytest.mark.parametrize("when", ["before the head", "in the body"])
@pytest_twisted.ensureDeferred
async def test_the_leaders_client_leaves_and_the_work_goes_on(
    cached: CacheBench, upstream: FakeUpstream, policies: dict[str, Any], when: str
) -> None:
    gate = Gate()
    beginning = [Send(head(FRESH, b"Content-Length: 4") + b"go")]
    script: list[Action] = [gate, *beginning] if when == "before the head" else [*beginning, gate]
    upstream.scripts = [[*script, Send(b"od")], [Send(answer(b"second", FRESH))]]
    proxy = await cached.proxy(resilience=policies)
    leader, *others = await crowd(cached, proxy, 3)
    if when == "in the body" and not policies:
        await leader.has(b"go")
    leader.transport.abortConnection()
    await pause(0.03)
    assert not any(one.lost for one in upstream.connections)
    gate.open()
    assert [(await one.answer()).body for one in others] == [b"good"] * 2
    assert len(upstream.requests) == 1
    await done(proxy)
    (left,) = [one for one in proxy.finished if one.code == "client_gone"]
    assert left.end is End.CLIENT_GONE
    if when == "before the head":
        assert (left.status, left.sent) == (499, 0)


@pytest.mark.parametrize("policies", POLICIES)
@pytest.mark.parametrize("when", ["before the head", "in the body"])
@pytest_twisted.ensureDeferred
async def test_work_stops_at_once_when_the_last_leaves(
    cached: CacheBench, upstream: FakeUpstream, policies: dict[str, Any], when: str
) -> None:
    beginning = [Send(head(FRESH, b"Content-Length: 4") + b"go")]
    upstream.scripts = [[*([] if when == "before the head" else beginning), Stall()]]
    proxy = await cached.proxy(resilience=policies)
    leader, *others = await crowd(cached, proxy, 3)
    for one in (leader, *others):
        assert upstream.open
        one.transport.abortConnection()
        await pause(0.02)
    await until(lambda: not upstream.open, "the upstream's connection to end")
    assert {one.status for one in proxy.finished} <= {499, 200}
    await done(proxy)
    assert shelf_of(proxy).stats()["store"] == 0


@pytest_twisted.ensureDeferred
async def test_one_who_waits_leaves_alone(cached: CacheBench, upstream: FakeUpstream) -> None:
    gate = Gate()
    upstream.scripts = [[gate, GOOD]]
    proxy = await cached.proxy()
    leader, second, third = await crowd(cached, proxy, 3)
    second.transport.abortConnection()
    await waiting(proxy, 1)
    gate.open()
    assert ((await leader.answer()).body, (await third.answer()).body) == (b"good", b"good")
    assert sorted(one.status for one in proxy.finished) == [200, 200, 499]
    await done(proxy)


@pytest.mark.parametrize("policies", POLICIES)
@pytest_twisted.ensureDeferred
async def test_nobody_fetches_what_cannot_be_kept_for_a_client_that_left(
    cached: CacheBench, upstream: FakeUpstream, policies: dict[str, Any]
) -> None:
    gate = Gate()
    private = Send(head(b"Cache-Control: no-store", b"Content-Length: 4") + b"go")
    upstream.scripts = [[gate, private, Stall()], [Send(answer(b"own"))]]
    proxy = await cached.proxy(resilience=policies)
    leader, other = await crowd(cached, proxy, 2)
    leader.transport.abortConnection()
    await pause(0.02)
    gate.open()
    assert (await other.answer()).body == b"own"
    await until(lambda: len(upstream.open) == 1, "the first connection to end")
    await done(proxy)


@pytest.mark.parametrize("policies", POLICIES)
@pytest.mark.parametrize("how", ["closes", "500", "cut"])
@pytest_twisted.ensureDeferred
async def test_the_leader_fails_and_the_others_go_on(
    cached: CacheBench, upstream: FakeUpstream, policies: dict[str, Any], how: str
) -> None:
    gate = Gate()
    failures: dict[str, list[Action]] = {
        "closes": [Close()],
        "500": [Send(answer(b"bad", status=b"500 Bad"))],
        "cut": [Send(head(FRESH, b"Content-Length: 9") + b"half"), Close()],
    }
    bad = failures[how]
    tries = 2 if policies and how != "cut" else 1
    upstream.scripts = [*[[gate, *bad]] * tries, [GOOD]]
    proxy = await cached.proxy(resilience=policies)
    _, *others = await crowd(cached, proxy, 4)
    gate.open()
    assert [(await one.answer()).body for one in others] == [b"good"] * 3
    await done(proxy)


@pytest_twisted.ensureDeferred
async def test_a_failure_that_something_stands_in_for_is_one_for_all(
    cached: CacheBench, upstream: FakeUpstream
) -> None:
    gate = Gate()
    stale = b"Cache-Control: public, max-age=0, stale-if-error=60"
    upstream.scripts = [[Send(answer(b"old", stale))], [gate, Send(answer(b"bad", status=b"503 Bad"))]]
    proxy = await cached.proxy()
    await cached.ask(proxy, ASK)
    clients = await crowd(cached, proxy, 4)
    gate.open()
    assert [(await one.answer()).body for one in clients] == [b"old"] * 4
    assert len(upstream.requests) == 2
    await done(proxy)


@pytest_twisted.ensureDeferred
async def test_those_who_go_on_ask_whether_what_is_stored_still_holds(
    cached: CacheBench, upstream: FakeUpstream
) -> None:
    gate = Gate()
    renewed = Send(head(b'ETag: "a"', status=b"304 Not Modified"))
    upstream.scripts = [
        [Send(answer(b"old", b"Cache-Control: public, max-age=0", b'ETag: "a"'))],
        [gate, Send(answer(b"bad", status=b"500 Bad"))],
        [renewed],
    ]
    proxy = await cached.proxy()
    await cached.ask(proxy, ASK)
    leader, *others = await crowd(cached, proxy, 3)
    gate.open()
    assert (await leader.answer()).status == 500
    assert [(await one.answer()).body for one in others] == [b"old"] * 2
    assert upstream.requests[-1].all(b"if-none-match") == [b'"a"']
    await done(proxy)


@pytest_twisted.ensureDeferred
async def test_what_304_renewed_is_for_all(cached: CacheBench, upstream: FakeUpstream) -> None:
    gate = Gate()
    renewed = Send(head(b"Cache-Control: public, max-age=60", b'ETag: "a"', status=b"304 Not Modified"))
    upstream.scripts = [
        [Send(answer(b"old", b"Cache-Control: public, max-age=0", b'ETag: "a"'))],
        [gate, renewed],
    ]
    proxy = await cached.proxy()
    await cached.ask(proxy, ASK)
    clients = await crowd(cached, proxy, 4)
    gate.open()
    assert [(await one.answer()).body for one in clients] == [b"old"] * 4
    assert len(upstream.requests) == 2
    await done(proxy)


# Those who have nothing to do with each other.


@pytest_twisted.ensureDeferred
async def test_nobody_waits_for_another_tenant(cached: CacheBench, upstream: FakeUpstream) -> None:
    gate = Gate()
    upstream.scripts = [[gate, GOOD], [Send(answer(b"bob", FRESH))]]
    proxy = await cached.proxy()
    (alice,) = await crowd(cached, proxy, 1)
    (bob,) = await cached.ask(proxy, get(MODELS, OTHER))
    assert bob.body == b"bob"
    gate.open()
    assert (await alice.answer()).body == b"good"
    await done(proxy)


@pytest_twisted.ensureDeferred
async def test_coalesce_false_sends_each(cached: CacheBench, upstream: FakeUpstream) -> None:
    gate = Gate()
    upstream.scripts = [[gate, GOOD]]
    proxy = await cached.proxy(cache={"coalesce": False})
    clients = [await cached.client(proxy) for _ in range(3)]
    for one in clients:
        one.send(ASK)
    await cached.asked(3)
    gate.open()
    assert [(await one.answer()).body for one in clients] == [b"good"] * 3
    (hit,) = await cached.ask(proxy, ASK)
    assert told(hit).startswith(b"llmproxyd; hit")
    await done(proxy)


@pytest_twisted.ensureDeferred
async def test_the_daemon_stops_with_some_who_wait(cached: CacheBench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Stall()]]
    proxy = await cached.proxy()
    leader, *others = await crowd(cached, proxy, 4)
    others[0].transport.abortConnection()
    leader.transport.abortConnection()
    await pause(0.02)
    proxy.daemon.pipeline.cut_all()
    assert [(await one.answer()).status for one in others[1:]] == [503] * 2
    at_rest(proxy)


@pytest_twisted.ensureDeferred
async def test_the_daemon_stops_with_work_for_those_alone_who_wait(
    cached: CacheBench, upstream: FakeUpstream
) -> None:
    upstream.scripts = [[Stall()]]
    proxy = await cached.proxy()
    others = []
    for number in range(10):
        leader, other = await cached.client(proxy), await cached.client(proxy)
        leader.send(get(MODELS + b"?%d" % number, KEY))
        await cached.asked(number + 1)
        other.send(get(MODELS + b"?%d" % number, KEY))
        await waiting(proxy, number + 1)
        leader.transport.abortConnection()
        others.append(other)
    await pause(0.02)
    proxy.daemon.pipeline.cut_all()
    assert [(await one.answer()).status for one in others] == [503] * 10
    at_rest(proxy)

"""Requests and tokens of models per minute: per token, per project, on one host or on all."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from doorbench import (
    BODY,
    CHAT,
    GEMINI,
    MESSAGES,
    OK,
    DoorBench,
    bearer,
    chat,
    check_refused,
    models,
)
from twisted.internet.defer import ensureDeferred, gatherResults
from wireclient import Answer, request, until

sys.path.insert(0, str(Path(__file__).parents[1]))

from redisserver import RedisServer

from llmproxyd.access.projects import Limits
from llmproxyd.testing.upstream import (
    LAST_CHUNK,
    FakeUpstream,
    Send,
    Stall,
    chunk,
    event,
    json_answer,
    stream_head,
)

test = pytest_twisted.ensureDeferred

USAGE = {
    "model": "gpt-4o-2024",
    "choices": [],
    "usage": {"prompt_tokens": 70, "completion_tokens": 40, "total_tokens": 110},
}


@pytest.fixture
def door(upstream: FakeUpstream) -> Iterator[DoorBench]:
    made = DoorBench(upstream)
    yield made
    pytest_twisted.blockon(ensureDeferred(made.close()))


def left(got: Answer, kind: str) -> tuple[int, int]:
    """What we tell of a limit: what it is, and what is left of it."""
    limit = got.get(b"x-llmproxyd-ratelimit-limit-" + kind.encode())
    remaining = got.get(b"x-llmproxyd-ratelimit-remaining-" + kind.encode())
    assert limit is not None
    assert remaining is not None
    assert got.get(b"x-llmproxyd-ratelimit-reset-" + kind.encode()) is not None
    return int(limit), int(remaining)


@test
async def test_limits_of_a_token_and_of_its_project_hold_together(door: DoorBench) -> None:
    proxy = await door.gateway()
    project = await door.project(limits=Limits(rpm=5))
    one = await door.token(project, limits=Limits(rpm=3))
    other = await door.token(project)
    client = await door.client(proxy)
    assert [(await client.ask(chat(one))).status for _ in range(4)] == [200, 200, 200, 429]
    # The refused one has taken nothing of what all tokens of the project share.
    assert [(await client.ask(chat(other))).status for _ in range(3)] == [200, 200, 429]
    elsewhere = await door.token(limits=Limits(rpm=3))
    assert (await client.ask(chat(elsewhere))).status == 200


@test
async def test_tightest_limit_is_told_beside_the_providers_own(
    door: DoorBench, upstream: FakeUpstream
) -> None:
    theirs = [
        b"x-ratelimit-limit-requests: 9000",
        b"x-ratelimit-remaining-requests: 8999",
        b"X-RateLimit-Reset-Tokens: 6m0s",
        b"anthropic-ratelimit-requests-limit: 7",
        b"retry-after: 3",
    ]
    upstream.scripts = [[Send(json_answer({"ok": True}, *theirs))]]
    proxy = await door.gateway()
    project = await door.project(limits=Limits(rpm=100, tpm=5000))
    token = await door.token(project, limits=Limits(rpm=3))
    client = await door.client(proxy)
    got = await client.ask(chat(token))
    assert got.status == 200
    assert left(got, "requests") == (3, 2)
    assert left(got, "tokens") == (5000, 5000)
    for line in theirs:
        name, _, value = line.partition(b": ")
        assert (name, value) in got.headers
        assert len(got.all(name.lower())) == 1


@test
async def test_nothing_is_told_where_there_is_no_limit(door: DoorBench) -> None:
    proxy = await door.gateway()
    client = await door.client(proxy)
    got = await client.ask(chat(await door.token()))
    assert not [name for name in got.names if b"ratelimit" in name]


SPENDING: dict[str, tuple[bytes, list[Any]]] = {
    "json": (CHAT, [Send(json_answer(USAGE))]),
    "stream": (
        CHAT,
        [
            Send(
                stream_head()
                + chunk(event(b'{"choices":[{"delta":{"content":"a"}}]}'))
                + chunk(
                    event(
                        b'{"choices":[],"usage":{"prompt_tokens":70,"completion_tokens":40,"total_tokens":110}}'
                    )
                )
                + chunk(event(b"[DONE]"))
                + LAST_CHUNK
            )
        ],
    ),
    "anthropic": (
        MESSAGES,
        [Send(json_answer({"type": "message", "usage": {"input_tokens": 70, "output_tokens": 40}}))],
    ),
    "gemini": (
        GEMINI,
        [
            Send(
                json_answer(
                    {
                        "candidates": [],
                        "usageMetadata": {
                            "promptTokenCount": 70,
                            "candidatesTokenCount": 40,
                            "totalTokenCount": 110,
                        },
                    }
                )
            )
        ],
    ),
}


@pytest.mark.parametrize("name", SPENDING)
@test
async def test_tokens_of_models_are_spent_by_what_the_answer_tells(
    door: DoorBench, upstream: FakeUpstream, name: str
) -> None:
    target, script = SPENDING[name]
    upstream.scripts = [script]
    proxy = await door.gateway()
    project = await door.project(limits=Limits(tpm=200))
    token, other = await door.token(project), await door.token(project)
    client = await door.client(proxy)
    ask = request(target, bearer(token), b"Content-Type: application/json", body=BODY)
    first = await client.ask(ask)
    assert left(first, "tokens") == (200, 200)
    second = await client.ask(ask)
    remaining = left(second, "tokens")[1]
    assert 90 <= remaining <= 92
    got = await client.ask(ask)  # 20 are owed
    check_refused(got, 429, "rate_limit_exceeded")
    after = got.get(b"retry-after")
    assert after is not None
    assert 5 <= int(after) <= 7
    if name == "json":
        assert got.get(b"x-ratelimit-limit-tokens") == b"200"
        assert got.get(b"x-ratelimit-remaining-tokens") == b"0"
    if name == "anthropic":
        assert got.get(b"anthropic-ratelimit-tokens-remaining") == b"0"
    check_refused(await client.ask(ask.replace(token.encode(), other.encode())), 429, "rate_limit_exceeded")
    assert len(upstream.requests) == 2
    rows = await usage(door, proxy)
    assert rows == {(2, 140, 80)}


async def usage(door: DoorBench, proxy: Any) -> set[tuple[int, int, int]]:
    await proxy.daemon.works.gateway.door.stop()
    found = await door.store.usage("token", "2000-01-01")
    return {(row.requests, row.input, row.output) for row in found}


@test
async def test_client_that_leaves_a_stream_owes_what_was_told_of_it(
    door: DoorBench, upstream: FakeUpstream
) -> None:
    start = b'{"type":"message_start","message":{"usage":{"input_tokens":500,"output_tokens":1}}}'
    upstream.scripts = [
        [Send(stream_head() + chunk(b"event: message_start\ndata: " + start + b"\n\n")), Stall()]
    ]
    proxy = await door.gateway()
    token = await door.token(limits=Limits(tpm=100))
    client = await door.client(proxy)
    ask = request(MESSAGES, bearer(token), b"Content-Type: application/json", body=b'{"stream":true}')
    client.send(ask)
    await client.has(b"message_start")
    client.transport.abortConnection()
    await until(lambda: proxy.finished)
    client = await door.client(proxy)
    check_refused(await client.ask(ask), 429, "rate_limit_exceeded")


@test
async def test_failed_answers_spend_requests_and_no_tokens(door: DoorBench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Send(json_answer({"error": {"message": "no"}}, status=b"400 Bad"))]]
    proxy = await door.gateway()
    token = await door.token(limits=Limits(rpm=10, tpm=10))
    client = await door.client(proxy)
    for at in range(3):
        got = await client.ask(chat(token))
        assert got.status == 400
        assert left(got, "requests") == (10, 9 - at)
        assert left(got, "tokens") == (10, 10)


@test
async def test_limits_hold_under_concurrency(door: DoorBench, upstream: FakeUpstream) -> None:
    proxy = await door.gateway()
    token = await door.token(limits=Limits(rpm=50))
    clients = await gatherResults([ensureDeferred(door.client(proxy)) for _ in range(40)])
    for client in clients:
        client.send(models(token) * 5)
    answers = [await client.answer() for client in clients for _ in range(5)]
    assert sum(one.status == 200 for one in answers) in (50, 51, 52, 53)
    assert len(upstream.requests) == sum(one.status == 200 for one in answers)


# All hosts together.


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    made = RedisServer(tmp_path)
    yield made
    made.kill()


def shared(redis: RedisServer) -> dict[str, Any]:
    return {"access": {"limits": "redis"}, "cache": {"redis_url": redis.url.reveal()}}


def limits(proxy: Any) -> Any:
    return proxy.daemon.works.gateway.limiter.state()


@test
async def test_limit_holds_over_two_hosts(
    door: DoorBench, upstream: FakeUpstream, redis: RedisServer
) -> None:
    one = await door.gateway(**shared(redis))
    token = await door.token(limits=Limits(rpm=6, tpm=1000))
    other = await door.gateway(store=door.store, **shared(redis))
    clients = [await door.client(one), await door.client(other)]
    await until(lambda: all(proxy.daemon.works.gateway.redis.up for proxy in (one, other)))
    statuses = [(await clients[at % 2].ask(chat(token))).status for at in range(8)]
    assert statuses == [200] * 6 + [429] * 2
    got = await clients[1].ask(chat(token))
    check_refused(got, 429, "rate_limit_exceeded")
    assert got.get(b"x-ratelimit-remaining-requests") == b"0"
    assert limits(one)["shared"]
    assert len(upstream.requests) == 6


@test
async def test_while_redis_is_dead_each_host_counts_for_itself_and_all_together_afterwards(
    door: DoorBench, upstream: FakeUpstream, redis: RedisServer
) -> None:
    proxy = await door.gateway(**shared(redis))
    token = await door.token(limits=Limits(rpm=1000))
    client = await door.client(proxy)
    await until(lambda: proxy.daemon.works.gateway.redis.up)
    assert left(await client.ask(chat(token)), "requests") == (1000, 999)
    redis.kill()
    for at in range(3):
        got = await client.ask(chat(token))
        assert got.status == 200
        assert left(got, "requests") in [(1000, 998 - at), (1000, 999 - at)]
    assert not limits(proxy)["shared"]
    redis.start()
    await until(lambda: proxy.daemon.works.gateway.redis.up)
    assert (await client.ask(chat(token))).status == 200
    assert limits(proxy)["shared"]
    few = await door.token(limits=Limits(rpm=1))
    assert [(await client.ask(chat(few))).status for _ in range(2)] == [200, 429]


@test
async def test_redis_that_hangs_holds_a_request_up_for_a_moment_only(
    door: DoorBench, upstream: FakeUpstream, redis: RedisServer
) -> None:
    proxy = await door.gateway(**shared(redis))
    token = await door.token(limits=Limits(rpm=2))
    client = await door.client(proxy)
    await until(lambda: proxy.daemon.works.gateway.redis.up)
    redis.pause()
    try:
        started = proxy.daemon.reactor.seconds()
        assert [(await client.ask(chat(token))).status for _ in range(3)] == [200, 200, 429]
        assert proxy.daemon.reactor.seconds() - started < 1.5
    finally:
        redis.resume()


@test
async def test_client_that_leaves_while_redis_is_asked_leaves_nothing(
    door: DoorBench, upstream: FakeUpstream, redis: RedisServer
) -> None:
    proxy = await door.gateway(**shared(redis))
    token = await door.token(limits=Limits(rpm=2))
    client = await door.client(proxy)
    await until(lambda: proxy.daemon.works.gateway.redis.up)
    redis.pause()
    try:
        client.send(chat(token))
        await until(lambda: proxy.daemon.pipeline.active)
        client.transport.abortConnection()
        await until(lambda: proxy.finished)
    finally:
        redis.resume()
    assert proxy.finished[0].code == "client_gone"
    await until(lambda: limits(proxy)["buckets"])
    assert not upstream.requests
    assert await door.counted(proxy, token) == 0


@test
async def test_every_answer_is_marked_although_redis_answers_later(
    door: DoorBench, upstream: FakeUpstream, redis: RedisServer
) -> None:
    upstream.scripts = [[OK]]
    proxy = await door.gateway(**shared(redis))
    token = await door.token(limits=Limits(rpm=100))
    client = await door.client(proxy)
    await until(lambda: proxy.daemon.works.gateway.redis.up)
    client.send(models(token) * 20)
    found = [left(await client.answer(), "requests")[1] for _ in range(20)]
    assert found == list(range(99, 79, -1))

"""Rate limits that several hosts share through a real Redis server."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from bench import reactor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import DeferredList, ensureDeferred, maybeDeferred
from wireclient import pause, until

sys.path.insert(0, str(Path(__file__).parents[1]))

from redisserver import RedisServer

from llmproxyd.limits.interface import Taken, Want
from llmproxyd.limits.memory import MemoryLimiter
from llmproxyd.limits.redis import SCRIPT, SPEND, TAKE, RedisLimiter
from llmproxyd.redis.link import RedisLink


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    made = RedisServer(tmp_path)
    yield made
    made.kill()


@pytest.fixture
def hosts(_nothing_left: None, server: RedisServer) -> Iterator[list[RedisLimiter]]:
    """Two hosts on one server."""
    links = [RedisLink(reactor, server.url, timeout=0.2) for _ in range(2)]
    yield [RedisLimiter(link, reactor.seconds) for link in links]
    for link in links:
        pytest_twisted.blockon(link.close())


async def take(limiter: RedisLimiter, *wants: Want) -> Taken:
    taken: Taken = await maybeDeferred(limiter.take, wants)
    return taken


@pytest_twisted.ensureDeferred
async def test_limit_holds_across_hosts(hosts: list[RedisLimiter]) -> None:
    want = Want("token:a:requests", 10)
    results = await DeferredList([maybeDeferred(host.take, [want]) for host in hosts * 20])
    assert sum(taken.admitted for _, taken in results) == 10
    refused = await take(hosts[0], want)
    assert 0 < refused.wait <= 6.0
    assert refused.standings[0].remaining == 0
    assert all(host.state()["shared"] for host in hosts)


@pytest_twisted.ensureDeferred
async def test_all_are_taken_or_none(hosts: list[RedisLimiter]) -> None:
    few, many = Want("few", 1), Want("many", 6)
    assert (await take(hosts[0], few, many)).admitted
    refused = await take(hosts[1], many, few)
    assert not refused.admitted
    assert [standing.remaining for standing in refused.standings] == [5, 0]
    assert 50 < refused.wait <= 60


@pytest_twisted.ensureDeferred
async def test_tokens_spent_on_one_host_are_owed_on_the_other(hosts: list[RedisLimiter]) -> None:
    left = Want("tokens", 600, 0)
    assert (await take(hosts[0], left)).admitted
    hosts[0].spend([Want("tokens", 600, 10**6)])
    refused = await take(hosts[0], left)
    refused = await take(hosts[1], left)
    assert 59 < refused.wait <= 60.1


@pytest_twisted.ensureDeferred
async def test_bucket_flows_full_by_the_servers_clock_and_its_key_is_gone(
    hosts: list[RedisLimiter], server: RedisServer
) -> None:
    want = Want("quick", 6000)
    for _ in range(2):
        await DeferredList([maybeDeferred(hosts[0].take, [want]) for _ in range(20)])
    assert server.keys() == 1
    assert b":1" <= server.ask("PTTL", "llmproxyd:limit:quick") < b":2"
    await pause(0.5)
    assert (await take(hosts[1], want)).standings[0].remaining == 5999


@pytest_twisted.ensureDeferred
async def test_each_host_counts_for_itself_while_the_server_is_away(
    hosts: list[RedisLimiter], server: RedisServer
) -> None:
    want = Want("token:a:requests", 5)
    for _ in range(3):
        assert (await take(hosts[0], want)).admitted
    server.kill()
    results = [(await take(hosts[0], want)).admitted for _ in range(4)]
    assert results == [True, True, False, False], "three were taken before"
    assert sum([(await take(hosts[1], want)).admitted for _ in range(8)]) == 5
    assert [host.state()["shared"] for host in hosts] == [False, False]
    server.start()

    async def shared() -> None:
        for _ in range(200):
            await take(hosts[1], Want("other", 10_000))
            if hosts[1].state()["shared"]:
                return
            await pause(0.02)

    await ensureDeferred(shared())
    assert hosts[1].state()["shared"]
    assert (await take(hosts[1], want)).admitted, "the server begins anew"


@pytest_twisted.ensureDeferred
async def test_hanging_server_is_waited_for_once(hosts: list[RedisLimiter], server: RedisServer) -> None:
    await take(hosts[0], Want("a", 5))
    server.pause()
    try:
        hosts[0].spend([Want("a", 5)])
        began = reactor.seconds()
        for _ in range(10):
            await take(hosts[0], Want("a", 5))
        assert reactor.seconds() - began < 0.5
        assert not hosts[0].state()["shared"]
    finally:
        server.resume()


@pytest_twisted.ensureDeferred
async def test_foreign_value_under_a_key_is_a_full_bucket(
    hosts: list[RedisLimiter], server: RedisServer
) -> None:
    for value in (b"", b"nonsense", b"\xff \xff", b"1 2 3"):
        server.ask("SET", "llmproxyd:limit:odd", value)
        assert (await take(hosts[0], Want("odd", 60))).standings[0].remaining == 59
    server.ask("DEL", "llmproxyd:limit:odd")
    server.ask("LPUSH", "llmproxyd:limit:odd", "x")
    assert (await take(hosts[0], Want("odd", 60))).admitted
    assert not hosts[0].state()["shared"]


# The script and the arithmetic of this house come to the same.

PLAYED = SCRIPT.replace("redis.call('TIME')", "{ARGV[#ARGV - 1], ARGV[#ARGV]}")
STEP = st.tuples(
    st.integers(-5_000_000, 90_000_000),  # µs on the clock, which may go back
    st.booleans(),  # spend
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(1, 10**6), st.integers(0, 70)),
        min_size=1,
        max_size=3,
        unique_by=lambda want: want[0],
    ),
)
_numbers = count()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEP, max_size=15))
@pytest_twisted.ensureDeferred
async def test_script_and_memory_come_to_the_same(hosts: list[RedisLimiter], steps: list[Any]) -> None:
    assert PLAYED != SCRIPT
    link: Any = hosts[0]._redis
    prefix = f"same:{next(_numbers)}:"
    micros = 1_700_000_000_000_000
    memory = MemoryLimiter(lambda: micros // 1_000_000 + micros % 1_000_000 / 1_000_000)
    for step, spends, raw in steps:
        micros += step
        wants = [Want(prefix + key, per_minute, amount) for key, per_minute, amount in raw]
        keys = [want.key.encode() for want in wants]
        numbers = [number for want in wants for number in (want.per_minute, want.amount)]
        clock = [micros // 1_000_000, micros % 1_000_000]
        # A key is gone once its bucket is full: by the real clock, that none of these is.
        reply = await link.script(PLAYED, keys, [SPEND if spends else TAKE, *numbers, *clock])
        if spends:
            memory.spend(wants)
        else:
            assert bool(reply[0]) == memory.take(wants).admitted
        assert [float(level) for level in reply[1:]] == [memory._buckets[want.key][0] for want in wants]


@pytest_twisted.ensureDeferred
async def test_recovery_needs_no_new_start(hosts: list[RedisLimiter], server: RedisServer) -> None:
    link: Any = hosts[0]._redis
    await take(hosts[0], Want("a", 60))
    for _ in range(2):
        server.kill()
        await until(lambda: not link.up)
        await take(hosts[0], Want("a", 60))
        server.start()
        await until(lambda: link.up)
        await take(hosts[0], Want("a", 60))
        assert hosts[0].state()["shared"]

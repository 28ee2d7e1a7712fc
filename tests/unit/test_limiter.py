"""Rate limits of one host; and of all hosts, while their server is away."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from llmproxyd.limits.interface import Limiter, Taken, Want
from llmproxyd.limits.memory import MemoryLimiter
from llmproxyd.limits.redis import RedisLimiter
from llmproxyd.redis.interface import RedisRefused, RedisUnavailable


def requests(per_minute: int = 60, amount: int = 1, key: str = "token:a:requests") -> Want:
    return Want(key, per_minute, amount)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limiter(clock: Clock) -> MemoryLimiter:
    return MemoryLimiter(clock.seconds)


def test_minute_may_be_taken_at_once_and_then_what_flows_in(limiter: MemoryLimiter, clock: Clock) -> None:
    assert [limiter.take([requests(3)]).admitted for _ in range(4)] == [True, True, True, False]
    assert limiter.take([requests(3)]).wait == pytest.approx(20.0)
    clock.advance(19.9)
    assert not limiter.take([requests(3)]).admitted
    clock.advance(0.1)
    assert limiter.take([requests(3)]).admitted
    assert not limiter.take([requests(3)]).admitted


def test_standing_says_what_is_left_and_when_it_is_full(limiter: MemoryLimiter) -> None:
    want = requests(60)
    (standing,) = limiter.take([want]).standings
    assert (standing.want, standing.remaining, standing.reset) == (want, 59, pytest.approx(1.0))


def test_all_are_taken_or_none(limiter: MemoryLimiter) -> None:
    few, many = requests(1, key="few"), requests(100, key="many")
    assert limiter.take([few, many]).admitted
    refused = limiter.take([many, few])
    assert not refused.admitted
    assert refused.wait == pytest.approx(60.0)
    assert [standing.remaining for standing in refused.standings] == [99, 0]
    assert limiter.take([many]).standings[0].remaining == 98


def test_spent_tokens_are_owed_for_a_minute_at_most(limiter: MemoryLimiter, clock: Clock) -> None:
    tokens = requests(600, 0, "tokens")
    assert limiter.take([tokens]).admitted
    limiter.spend([requests(600, 10_000, "tokens")])
    refused = limiter.take([tokens])
    assert refused.wait == pytest.approx(60.1)
    assert refused.standings[0].remaining == 0
    clock.advance(60.1)
    assert limiter.take([tokens]).admitted


def test_buckets_are_bounded_and_the_longest_unused_goes_first(clock: Clock) -> None:
    limiter = MemoryLimiter(clock.seconds, most=3)
    for key in "abc":
        limiter.take([requests(1, key=key)])
    limiter.take([requests(1, key="a")])
    limiter.take([requests(1, key="d")])
    assert limiter.state() == {"backend": "memory", "buckets": 3}
    assert not limiter.take([requests(1, key="a")]).admitted
    assert limiter.take([requests(1, key="b")]).admitted


def test_changed_limit_holds_at_once(limiter: MemoryLimiter) -> None:
    limiter.take([requests(1000)])
    assert limiter.take([requests(2)]).standings[0].remaining == 1


# The shared backend, whose server is played here.


class FakeRedis:
    """Answers each script with what stands in *replies*, else with a failure."""

    def __init__(self) -> None:
        self.up = True
        self.replies: list[Any] = []
        self.asked: list[tuple[list[bytes], list[bytes | int | str]]] = []

    def script(self, source: str, keys: list[bytes], arguments: list[bytes | int | str]) -> Deferred[Any]:
        self.asked.append((keys, arguments))
        reply = self.replies.pop(0) if self.replies else RedisUnavailable("not connected")
        return fail(reply) if isinstance(reply, Exception) else succeed(reply)

    def call(self, *arguments: str | bytes | int) -> Deferred[Any]:
        raise AssertionError(arguments)

    def close(self) -> Deferred[None]:
        return succeed(None)


@pytest.fixture
def redis() -> FakeRedis:
    return FakeRedis()


@pytest.fixture
def shared(redis: FakeRedis, clock: Clock) -> RedisLimiter:
    return RedisLimiter(redis, clock.seconds)


def take(limiter: Limiter, *wants: Want) -> Taken:
    result = limiter.take(wants)
    if isinstance(result, Taken):
        return result
    found: list[Taken] = []
    result.addCallback(found.append)
    return found[0]


def test_one_round_trip_for_all_wants(redis: FakeRedis, shared: RedisLimiter) -> None:
    redis.replies = [[1, b"59", b"-0.5"]]
    result = take(shared, requests(key="r"), requests(600, 0, "t"))
    assert result.admitted
    assert [standing.remaining for standing in result.standings] == [59, 0]
    assert redis.asked == [([b"llmproxyd:limit:r", b"llmproxyd:limit:t"], [0, 60, 1, 600, 0])]


def test_nothing_wanted_asks_nobody(redis: FakeRedis, shared: RedisLimiter) -> None:
    assert take(shared).admitted
    shared.spend([])
    assert redis.asked == []


@pytest.mark.parametrize(
    "reply",
    [
        RedisUnavailable("no answer in time"),
        RedisRefused("OOM command not allowed"),
        None,
        b"",
        [],
        [1],
        [1, b"x"],
        [1, None],
        [1, b"3", b"3"],
    ],
)
def test_outage_and_nonsense_are_answered_by_the_hosts_own_buckets(
    redis: FakeRedis, shared: RedisLimiter, reply: Any
) -> None:
    redis.replies = [reply] * 3
    assert [take(shared, requests(2)).admitted for _ in range(3)] == [True, True, False]
    assert shared.state() == {"backend": "redis", "shared": False, "buckets": 1}


def test_outage_gives_no_fresh_allowance(redis: FakeRedis, shared: RedisLimiter) -> None:
    redis.replies = [[1, b"1"], [1, b"0"]]
    assert take(shared, requests(2)).admitted
    assert take(shared, requests(2)).admitted
    assert not take(shared, requests(2)).admitted


def test_spending_goes_on_during_an_outage(redis: FakeRedis, shared: RedisLimiter) -> None:
    shared.spend([requests(60, 100, "t")])
    assert take(shared, requests(60, 0, "t")).wait == pytest.approx(41.0)


def test_outage_and_its_end_are_said_once(redis: FakeRedis, shared: RedisLimiter) -> None:
    said: list[str] = []

    def observe(event: LogEvent) -> None:
        said.append(f"{event['log_level'].name} {formatEvent(event)}")

    globalLogPublisher.addObserver(observe)
    try:
        for _ in range(3):
            take(shared, requests())
            shared.spend([requests()])
        redis.replies = [[1, b"3"], [1, b"3"]]
        take(shared, requests())
        assert shared.state()["shared"] is True
        take(shared, requests())
    finally:
        globalLogPublisher.removeObserver(observe)
    assert [line.split()[0] for line in said] == ["warn", "info"]
    assert "not connected" in said[0]

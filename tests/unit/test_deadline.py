"""The time of a whole request runs out once, for whichever limit comes first."""

from __future__ import annotations

from math import inf
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from llmproxyd.errors import Retryable
from llmproxyd.http.body import NO_BODY
from llmproxyd.model import Request
from llmproxyd.pipeline.deadline import Deadline, comes
from llmproxyd.pipeline.exchange import Exchange
from llmproxyd.pipeline.plan import plan_of
from llmproxyd.pipeline.policy import Policy, Upstream
from llmproxyd.pipeline.roles import Responder
from llmproxyd.pipeline.route import Router
from llmproxyd.providers.registry import registry
from llmproxyd.resilience.timeouts import Timeouts
from llmproxyd.wire.wheel import Wheel

PROVIDERS = registry()


class Rig:
    """A deadline of a request that arrived *ago* seconds before."""

    def __init__(self, total: float | None, patience: bytes | None = None, ago: float = 0.0) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.told: list[Retryable] = []
        fields = [(b"Host", b"h")]
        if patience is not None:
            fields.append((b"X-Stainless-Read-Timeout", patience))
        request = Request(b"POST", b"/v1/chat/completions", fields)
        place = Upstream(
            name="openai", provider=PROVIDERS["openai"], base_url="http://u", timeouts=Timeouts(total=total)
        )
        router = Router({"openai": place}, PROVIDERS, default="openai", single="openai")
        policy = Policy(router=router, max_body=1, guard_browsers=False)
        self.arrived = 1000 - ago
        nobody: Any = cast(Responder, None)
        exchange = Exchange(1, "x", request, NO_BODY, nobody, policy, self.arrived, lambda *_: None)
        exchange.plan = plan_of(request, policy)
        self.exchange = exchange
        self.deadline = Deadline(exchange, Wheel(self.clock), self.told.append)

    def run(self, seconds: float) -> list[str]:
        self.clock.pump([0.1] * round(seconds * 10))
        return [one.message for one in self.told]

    @property
    def left(self) -> float | None:
        left = self.deadline.left(self.clock.seconds())
        return None if left is None else round(left, 6)


def test_the_total_counts_from_the_arrival() -> None:
    rig = Rig(5, ago=2)
    assert rig.left == 3
    assert rig.run(2.9) == []
    (message,) = rig.run(0.5)
    assert "5s" in message
    assert "timeouts.total" in message
    assert (rig.told[0].status, rig.told[0].code) == (504, "total_timeout")
    assert len(rig.run(20)) == 1
    assert not rig.clock.getDelayedCalls()


def test_without_any_limit_there_is_no_end_and_no_timer() -> None:
    rig = Rig(None)
    assert rig.left is None
    assert not rig.clock.getDelayedCalls()
    rig.deadline.committed()
    rig.deadline.end()


@pytest.mark.parametrize(
    ("total", "patience", "left", "name"),
    [
        (9, b"3", 3, "x-stainless-read-timeout"),
        (3, b"9", 3, "timeouts.total"),
        (None, b"2.5", 2.5, "x-stainless"),
    ],
)
def test_the_shorter_one_comes_first(total: float | None, patience: bytes, left: float, name: str) -> None:
    rig = Rig(total, patience)
    assert rig.left == left
    (message,) = rig.run(left + 0.3)
    assert name in message


def test_patience_ends_with_the_commit_and_the_total_does_not() -> None:
    rig = Rig(5, b"1")
    rig.run(0.5)
    rig.deadline.committed()
    assert rig.left == 4.5
    assert rig.run(4) == []
    assert len(rig.run(1)) == 1
    alone = Rig(None, b"1")
    alone.deadline.committed()
    assert (alone.left, alone.run(30), alone.clock.getDelayedCalls()) == (None, [], [])


def test_a_time_that_is_up_already_comes_at_once() -> None:
    rig = Rig(5, ago=60)
    assert rig.left == -55
    assert len(rig.run(0.3)) == 1


@pytest.mark.parametrize("committed", [True, False])
def test_nothing_comes_after_the_end(committed: bool) -> None:
    rig = Rig(5, b"1")
    if committed:
        rig.deadline.committed()
    rig.deadline.end()
    rig.deadline.end()
    assert not rig.clock.getDelayedCalls()
    assert rig.run(20) == []


@given(
    st.sampled_from(
        [b"", b"nan", b"NaN", b"inf", b"-inf", b"Infinity", b"-1", b"0", b"-0.0", b"1e999", b"1000000"]
    )
    | st.binary(max_size=12).filter(lambda one: not any(48 <= byte <= 57 for byte in one))
)
def test_nonsense_is_no_patience(value: bytes) -> None:
    assert Rig(None, value).left is None


@given(st.floats(0.001, 999_999, allow_nan=False))
def test_any_sensible_number_is_patience(value: float) -> None:
    left = Rig(None, repr(value).encode()).left
    assert left is not None
    assert abs(left - value) < 0.001


@pytest.mark.parametrize(
    ("total", "patience", "ago", "within", "may"),
    [
        (None, None, 0, inf, False),
        (None, b"600", 0, 600, False),
        (None, b"600", 0.15, 600, False),
        (None, b"600", 1, 600, True),
        (None, b"599", 0, 600, True),
        (None, b"600", 1, 10, False),
        (None, b"600", 0, inf, True),
        (900, None, 0, 10, True),
        (900, b"600", 0, 10, True),
    ],
)
def test_a_deadline_is_set_where_it_may_come_first(
    total: float | None, patience: bytes | None, ago: float, within: float, may: bool
) -> None:
    rig = Rig(total, patience, ago)
    assert comes(rig.exchange, 1000.0, within) is may


def test_a_clock_that_jumps_ahead_ends_it_once() -> None:
    rig = Rig(5, b"4")
    rig.clock.advance(10**6)
    assert len(rig.told) == 1
    assert not rig.clock.getDelayedCalls()

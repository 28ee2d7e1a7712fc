"""The arithmetic of token buckets."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxyd.access import buckets

RATES = st.integers(1, 10**7)
LEVELS = st.floats(-1e7, 1e7, allow_nan=False)
TIMES = st.floats(0, 4e9, allow_nan=False)
STEPS = st.lists(st.tuples(st.one_of(st.floats(0, 0.5), st.floats(0, 90)), st.integers(0, 40)), max_size=40)


class Bucket:
    """The functions, put together as the backends do."""

    def __init__(self, per_minute: int, now: float) -> None:
        self.per_minute, self.level, self.since = per_minute, float(per_minute), now

    def look(self, now: float) -> None:
        self.level = buckets.refilled(self.level, self.since, self.per_minute, now)
        self.since = now

    def take(self, now: float, amount: int) -> bool:
        self.look(now)
        if buckets.holds(self.level, amount):
            self.level -= amount
            return True
        return False


@given(RATES.map(lambda rate: rate % 50 + 1), TIMES, STEPS)
def test_no_window_admits_more_than_capacity_and_inflow(
    rate: int, start: float, steps: list[tuple[float, int]]
) -> None:
    bucket = Bucket(rate, start)
    times = list(accumulate((step for step, _ in steps), initial=start))[1:]
    admitted = [
        amount if bucket.take(now, amount) else 0 for now, (_, amount) in zip(times, steps, strict=True)
    ]
    for first in range(len(times)):
        for last in range(first, len(times)):
            inflow = (times[last] - times[first]) * rate / 60
            assert sum(admitted[first : last + 1]) <= rate + inflow + 1e-3


@given(RATES, TIMES, st.lists(st.tuples(TIMES, st.integers(1, 10**7)), max_size=20))
def test_clock_that_jumps_raises_nothing_and_fills_no_higher_than_the_brim(
    rate: int, start: float, steps: list[tuple[float, int]]
) -> None:
    bucket = Bucket(rate, start)
    for now, amount in steps:
        before = bucket.level
        back = now <= bucket.since
        took = bucket.take(now, amount)
        assert bucket.level <= rate
        assert not back or bucket.level <= before
        assert bucket.level >= -buckets.SLACK
        assert not took or amount <= rate + buckets.SLACK


def test_clock_that_went_back_does_not_stop_the_inflow() -> None:
    bucket = Bucket(60, 1_000_000.0)
    assert bucket.take(1_000_000.0, 60)
    assert not bucket.take(5.0, 1)
    assert bucket.take(6.0, 1)


@given(RATES, LEVELS, st.integers(0, 1000), TIMES)
def test_whoever_waits_as_told_is_admitted_and_a_moment_sooner_is_not(
    rate: int, level: float, amount: int, now: float
) -> None:
    level = max(-float(rate), min(level, float(rate)))
    amount = min(amount, rate)
    seconds = buckets.wait(level, amount, rate)
    assert (seconds == 0) == buckets.holds(level, amount)
    # Late in the epoch a double tells apart no less than half a microsecond.
    later = buckets.refilled(level, 0.0, rate, seconds)
    assert buckets.holds(later, amount)
    if seconds > 1e-3 and rate < 1e6:
        assert not buckets.holds(buckets.refilled(level, 0.0, rate, seconds * 0.99 - 1e-4), amount)


def test_asking_for_nothing_asks_that_one_unit_is_left() -> None:
    assert buckets.holds(1.0, 0)
    assert not buckets.holds(0.9, 0)
    assert buckets.wait(-60.0, 0, 60) == 61.0


@given(RATES, LEVELS, st.integers(0, 10**9))
def test_debt_is_bounded_by_one_minute(rate: int, level: float, amount: int) -> None:
    level = min(max(level, -float(rate)), float(rate))
    after = buckets.owing(level, amount, rate)
    assert -rate <= after <= level
    assert buckets.wait(after, 1, rate) <= 60.0 + 60.0 / rate + 1e-6
    assert buckets.until_full(after, rate) <= 120.0


@given(RATES, LEVELS)
def test_what_remains_can_be_taken(rate: int, level: float) -> None:
    level = min(level, float(rate))
    left = buckets.remaining(level)
    assert left >= 0
    assert left == 0 or buckets.holds(level, left)
    assert not buckets.holds(level, left + 1) or left + 1 - level <= 2 * buckets.SLACK
    assert left <= rate


@pytest.mark.parametrize(
    ("level", "seconds"), [(60.0, 0.0), (61.0, 0.0), (59.0, 1.0), (0.0, 60.0), (-60.0, 120.0)]
)
def test_time_until_full(level: float, seconds: float) -> None:
    assert buckets.until_full(level, 60) == seconds


def test_lowered_limit_cuts_what_was_saved_up() -> None:
    assert buckets.refilled(1000.0, 5.0, 10, 5.0) == 10.0

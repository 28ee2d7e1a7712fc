"""The circuit breaker: when it opens, whom it lets through, what closes it, and what it tells."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from llmproxyd.model import BreakerChanged
from llmproxyd.resilience.breaker import PROBE_WAIT, Breaker, BreakerPolicy, Permit
from llmproxyd.resilience.window import BUCKETS, Window
from llmproxyd.units import MAX_DURATION

POLICY = BreakerPolicy(enabled=True, failure_threshold=3, recovery_timeout=10, max_recovery_timeout=35)
WINDOWED = replace(POLICY, window=60.0, failure_rate=0.5, minimum_calls=4)


class Rig:
    """A breaker on a clock, and what it has told."""

    def __init__(self, policy: BreakerPolicy = POLICY, changed: Callable[[Any], None] | None = None) -> None:
        self.clock = Clock()
        self.clock.advance(1000.0)
        self.told: list[BreakerChanged] = []
        self.breaker = Breaker(policy, "openai", changed or self.told.append)

    @property
    def now(self) -> float:
        return self.clock.seconds()

    @property
    def state(self) -> str:
        return self.breaker.state

    @property
    def causes(self) -> list[str]:
        return [event.cause for event in self.told]

    def admitted(self) -> Permit:
        permit = self.breaker.admit(self.now)
        assert isinstance(permit, Permit)
        return permit

    def refused(self) -> float:
        wait = self.breaker.admit(self.now)
        assert isinstance(wait, float)
        assert wait > 0
        return wait

    def fail(self, times: int = 1) -> None:
        for _ in range(times):
            self.admitted().failed(self.now)

    def succeed(self, times: int = 1) -> None:
        for _ in range(times):
            self.admitted().succeeded(self.now)

    def opened(self) -> Rig:
        self.fail(self.breaker.policy.failure_threshold)
        assert self.state == "open"
        return self

    def recovering(self) -> Rig:
        """Open, with the time up."""
        self.opened()
        self.clock.advance(self.breaker.left(self.now))
        return self


# Opening.


def test_opens_at_the_failure_that_reaches_the_threshold() -> None:
    rig = Rig()
    rig.fail(2)
    assert rig.state == "closed"
    rig.fail()
    assert rig.state == "open"
    assert rig.told == [
        BreakerChanged(
            name="openai", before="closed", after="open", cause="3 failures in a row", seconds=10.0
        )
    ]


def test_a_success_begins_the_row_anew() -> None:
    rig = Rig()
    for _ in range(5):
        rig.fail(2)
        rig.succeed()
    assert rig.state == "closed"
    assert not rig.told


def test_the_row_is_that_of_outcomes_not_of_departures() -> None:
    rig = Rig()
    permits = [rig.admitted() for _ in range(5)]
    permits[4].failed(rig.now)
    permits[0].failed(rig.now)
    assert rig.state == "closed"
    permits[2].failed(rig.now)
    assert rig.state == "open"


def test_an_abandoned_request_neither_counts_nor_ends_a_row() -> None:
    rig = Rig()
    rig.fail(2)
    rig.admitted().abandoned(rig.now)
    assert rig.state == "closed"
    assert rig.breaker.snapshot(rig.now).failures == 2
    rig.fail()
    assert rig.state == "open"


def test_a_threshold_of_one_opens_at_once_and_says_so() -> None:
    rig = Rig(replace(POLICY, failure_threshold=1))
    rig.fail()
    assert rig.causes == ["a failure"]


@pytest.mark.parametrize("first", ["succeeded", "failed", "abandoned"])
@pytest.mark.parametrize("second", ["succeeded", "failed", "abandoned"])
def test_only_the_first_outcome_of_a_permit_counts(first: str, second: str) -> None:
    rig = Rig()
    rig.fail(1)
    permit = rig.admitted()
    getattr(permit, first)(rig.now)
    after = rig.breaker.snapshot(rig.now)
    for _ in range(5):
        getattr(permit, second)(rig.now)
    assert rig.breaker.snapshot(rig.now) == after


def test_a_request_at_work_goes_on_when_it_opens_and_changes_nothing() -> None:
    rig = Rig()
    at_work = [rig.admitted() for _ in range(3)]
    rig.opened()
    before = rig.breaker.snapshot(rig.now)
    at_work[0].succeeded(rig.now)
    at_work[1].failed(rig.now)
    at_work[2].abandoned(rig.now)
    assert rig.breaker.snapshot(rig.now) == before
    assert len(rig.told) == 1


# While it is open.


def test_open_tells_the_time_left_until_it_is_up() -> None:
    rig = Rig().opened()
    assert rig.refused() == 10.0
    rig.clock.advance(9.5)
    assert rig.refused() == 0.5
    rig.clock.advance(0.5)
    rig.admitted()


def test_a_clock_that_stands_still_lets_nobody_through() -> None:
    rig = Rig().opened()
    assert {rig.refused() for _ in range(100)} == {10.0}
    assert rig.breaker.snapshot(rig.now).opened == 1


def test_with_the_time_up_it_is_open_with_nothing_left_until_somebody_asks() -> None:
    rig = Rig().recovering()
    rig.clock.advance(1000.0)
    assert (rig.state, rig.breaker.left(rig.now)) == ("open", 0.0)
    snapshot = rig.breaker.snapshot(rig.now)
    assert (snapshot.state, snapshot.left) == ("open", 0.0)
    assert len(rig.told) == 1
    rig.admitted()
    assert rig.state == "half-open"
    assert rig.told[1:] == [
        BreakerChanged(name="openai", before="open", after="half-open", cause="the time is up")
    ]


def test_a_recovery_time_of_nothing_goes_on_with_probes_at_once() -> None:
    rig = Rig(replace(POLICY, recovery_timeout=0.0)).opened()
    rig.admitted()
    assert rig.state == "half-open"
    assert rig.refused() == PROBE_WAIT


# Half-open.


def test_one_probe_at_a_time_and_others_are_told_to_come_back_soon() -> None:
    rig = Rig().recovering()
    rig.admitted()
    assert rig.refused() == PROBE_WAIT
    assert rig.breaker.snapshot(rig.now).probes == 1


def test_a_permit_says_whether_it_is_for_a_probe() -> None:
    rig = Rig()
    assert not rig.admitted().probes
    rig.recovering()
    assert rig.admitted().probes


def test_a_probe_that_succeeds_closes_it() -> None:
    rig = Rig().recovering()
    rig.succeed()
    assert rig.state == "closed"
    assert rig.causes[-1] == "a probe succeeded"
    assert rig.breaker.snapshot(rig.now).failures == 0
    rig.fail(2)
    assert rig.state == "closed"


def test_a_probe_that_fails_opens_it_for_twice_the_time_up_to_the_most() -> None:
    rig = Rig().recovering()
    for seconds in (20.0, 35.0, 35.0, 35.0):
        rig.fail()
        assert rig.state == "open"
        assert rig.told[-1].cause == "a probe failed"
        assert rig.told[-1].seconds == seconds
        assert rig.refused() == seconds
        rig.clock.advance(seconds)
    assert rig.breaker.snapshot(rig.now).opened == 5


def test_a_probe_that_fails_goes_on_with_the_row() -> None:
    rig = Rig().recovering()
    rig.fail()
    assert rig.breaker.snapshot(rig.now).failures == 4


def test_the_time_is_the_first_again_after_it_closed() -> None:
    rig = Rig().recovering()
    rig.fail()
    rig.clock.advance(20.0)
    rig.succeed()
    assert rig.opened().refused() == 10.0


def test_probes_may_fail_for_ever() -> None:
    rig = Rig(replace(POLICY, recovery_timeout=1e-9, max_recovery_timeout=MAX_DURATION)).opened()
    for _ in range(2000):
        rig.clock.advance(rig.breaker.left(rig.now))
        rig.fail()
    assert 0 < rig.refused() <= MAX_DURATION


def test_half_open_probe_abandoned_hands_its_place_on() -> None:
    rig = Rig().recovering()
    for _ in range(3):
        rig.admitted().abandoned(rig.now)
        assert rig.state == "half-open"
    rig.succeed()
    assert rig.state == "closed"


def test_several_probes_at_a_time_must_all_succeed() -> None:
    rig = Rig(replace(POLICY, half_open_requests=3)).recovering()
    probes = [rig.admitted() for _ in range(3)]
    rig.refused()
    probes[0].succeeded(rig.now)
    probes[2].succeeded(rig.now)
    assert rig.state == "half-open"
    probes[1].succeeded(rig.now)
    assert rig.state == "closed"
    assert rig.causes[-1] == "3 probes succeeded"


def test_a_slow_probe_does_not_keep_it_from_closing() -> None:
    rig = Rig(replace(POLICY, half_open_requests=2)).recovering()
    slow = rig.admitted()
    rig.succeed(2)
    assert rig.state == "closed"
    slow.failed(rig.now)
    assert rig.breaker.snapshot(rig.now).failures == 0


def test_one_of_several_probes_that_fails_opens_it_and_the_others_change_nothing() -> None:
    rig = Rig(replace(POLICY, half_open_requests=3)).recovering()
    probes = [rig.admitted() for _ in range(3)]
    probes[0].succeeded(rig.now)
    probes[1].failed(rig.now)
    assert rig.state == "open"
    probes[2].failed(rig.now)
    assert rig.refused() == 20.0
    assert rig.breaker.snapshot(rig.now).probes == 0


def test_successes_of_an_earlier_recovery_do_not_count_for_the_next() -> None:
    rig = Rig(replace(POLICY, half_open_requests=2)).recovering()
    rig.succeed()
    rig.fail()
    rig.clock.advance(20.0)
    rig.succeed()
    assert rig.state == "half-open"


@pytest.mark.parametrize("outcome", ["succeeded", "failed", "abandoned"])
def test_late_outcomes_neither_close_it_nor_take_a_probes_place(outcome: str) -> None:
    rig = Rig()
    late = rig.admitted()
    rig.recovering()
    probe = rig.admitted()
    getattr(late, outcome)(rig.now)
    assert rig.state == "half-open"
    rig.refused()
    probe.succeeded(rig.now)
    assert rig.state == "closed"


def test_a_probe_of_an_earlier_recovery_does_not_close_a_later_one() -> None:
    rig = Rig(replace(POLICY, half_open_requests=2)).recovering()
    late = rig.admitted()
    rig.fail()
    rig.clock.advance(20.0)
    rig.succeed()
    late.succeeded(rig.now)
    assert rig.state == "half-open"


# The window.


def test_opens_at_the_share_of_failures_with_enough_calls() -> None:
    rig = Rig(replace(WINDOWED, minimum_calls=20, failure_rate=0.6))
    rig.succeed(8)
    rig.fail(11)
    assert rig.state == "closed"
    rig.fail()
    assert rig.state == "open"
    assert rig.causes == ["12 of 20 failed within 60 s"]


def test_a_long_row_of_failures_does_not_open_it_where_a_window_is_set() -> None:
    rig = Rig(replace(WINDOWED, minimum_calls=100))
    rig.fail(99)
    assert rig.state == "closed"


def test_a_success_never_opens_it() -> None:
    rig = Rig(WINDOWED)
    rig.fail(3)
    rig.succeed()
    assert rig.state == "closed"
    rig.fail()
    assert rig.causes == ["4 of 5 failed within 60 s"]


@pytest.mark.parametrize(
    ("rate", "failures", "calls"), [(0.7, 7, 10), (0.07, 7, 100), (0.3, 3, 10), (0.29, 29, 100), (1.0, 9, 9)]
)
def test_the_share_as_written_is_enough(rate: float, failures: int, calls: int) -> None:
    rig = Rig(replace(WINDOWED, failure_rate=rate, minimum_calls=calls))
    rig.succeed(calls - failures)
    rig.fail(failures)
    assert rig.state == "open"


def test_failures_leave_the_window() -> None:
    rig = Rig(WINDOWED)
    rig.fail(3)
    rig.clock.advance(60.0)
    rig.fail(3)
    assert rig.state == "closed"
    snapshot = rig.breaker.snapshot(rig.now)
    assert (snapshot.window_calls, snapshot.window_failures) == (3, 3)


def test_what_the_window_holds_is_told_without_a_further_call() -> None:
    rig = Rig(WINDOWED)
    rig.succeed(3)
    rig.fail(2)
    rig.clock.advance(30.0)
    rig.succeed()
    rig.clock.advance(30.0)
    snapshot = rig.breaker.snapshot(rig.now)
    assert (snapshot.window_calls, snapshot.window_failures) == (1, 0)


def test_the_window_is_empty_after_it_closed() -> None:
    rig = Rig(WINDOWED)
    rig.fail(4)
    rig.clock.advance(10.0)
    rig.succeed()
    assert rig.breaker.snapshot(rig.now).window_calls == 0
    rig.fail(3)
    assert rig.state == "closed"


def test_no_window_no_counts_of_one() -> None:
    rig = Rig()
    rig.fail()
    snapshot = rig.breaker.snapshot(rig.now)
    assert snapshot.window_calls is None
    assert snapshot.window_failures is None


STEPS = st.floats(0, 200) | st.sampled_from([0.0, 6.0, 59.999, 60.0, 1e6])


@given(st.floats(0, 1e7), st.lists(st.tuples(STEPS, st.booleans()), max_size=50), STEPS)
def test_window_is_right_to_a_part_of_it(
    begin: float, outcomes: list[tuple[float, bool]], last: float
) -> None:
    window, part, now = Window(60.0), 60.0 / BUCKETS, begin
    seen = []
    for step, failed in outcomes:
        now += step
        window.add(now, failed)
        seen.append((now, failed))
    now += last
    window.age(now)
    young = [failed for when, failed in seen if now - when < 60.0 - part - 1e-6]
    all_of_it = [failed for when, failed in seen if now - when < 60.0 + 1e-6]
    assert len(young) <= window.calls <= len(all_of_it)
    assert sum(young) <= window.failures <= sum(all_of_it)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.booleans()), max_size=50))
def test_window_bears_a_clock_that_jumps(outcomes: list[tuple[float, bool]]) -> None:
    window = Window(1.0)
    for now, failed in outcomes:
        window.add(now, failed)
        assert 1 <= window.calls <= len(outcomes)
        assert failed <= window.failures <= window.calls
    window.age(2e6)
    assert (window.calls, window.failures) == (0, 0)


def test_window_is_left_part_by_part() -> None:
    window = Window(60.0)
    for number in range(100):
        window.add(6.0 * number, True)
        assert window.calls == window.failures == min(number + 1, BUCKETS)


def test_where_the_clock_goes_back_nothing_is_lost() -> None:
    window = Window(60.0)
    window.add(100.0, True)
    window.add(50.0, False)
    window.age(101.0)
    assert (window.calls, window.failures) == (2, 1)


@pytest.mark.parametrize("seconds", [5e-324, 1e-9, MAX_DURATION])
def test_window_of_any_length_counts(seconds: float) -> None:
    window = Window(seconds)
    window.add(1e9, True)
    window.add(1e9, False)
    assert (window.calls, window.failures) == (2, 1)


# The operator.


def test_trip_opens_it_for_the_time_asked_for() -> None:
    rig = Rig()
    rig.breaker.trip(rig.now, 90.0)
    assert rig.refused() == 90.0
    assert rig.causes == ["tripped by the operator"]
    assert rig.told[0].seconds == 90.0
    rig.clock.advance(90.0)
    rig.succeed()
    assert rig.state == "closed"


def test_trip_without_a_time_takes_that_of_the_policy() -> None:
    rig = Rig()
    rig.breaker.trip(rig.now, cause="by a test")
    assert rig.refused() == 10.0
    assert rig.causes == ["by a test"]


def test_trip_of_an_open_one_begins_its_time_anew_and_is_no_change() -> None:
    rig = Rig().opened()
    rig.clock.advance(4.0)
    rig.breaker.trip(rig.now)
    assert rig.refused() == 10.0
    rig.breaker.trip(rig.now, 2.0)
    assert rig.refused() == 2.0
    assert len(rig.told) == 1
    assert rig.breaker.snapshot(rig.now).opened == 1


def test_trip_while_probes_are_under_way_makes_their_outcome_late() -> None:
    rig = Rig().recovering()
    probe = rig.admitted()
    rig.breaker.trip(rig.now)
    probe.succeeded(rig.now)
    assert rig.state == "open"
    assert rig.refused() == 10.0


@pytest.mark.parametrize(
    ("asked", "given"),
    [(float("inf"), MAX_DURATION), (1e300, MAX_DURATION), (-5.0, 0.0), (float("nan"), 0.0)],
)
def test_trip_for_an_impossible_time_is_brought_within_bounds(asked: float, given: float) -> None:
    rig = Rig()
    rig.breaker.trip(rig.now, asked)
    assert rig.state == "open"
    assert rig.breaker.left(rig.now) == given


def test_reset_closes_it_and_forgets() -> None:
    rig = Rig().recovering()
    rig.fail()
    rig.breaker.reset(rig.now)
    assert rig.state == "closed"
    assert rig.causes[-1] == "reset by the operator"
    rig.fail(2)
    assert rig.state == "closed"
    rig.fail()
    assert rig.refused() == 10.0


def test_reset_of_a_closed_one_forgets_what_it_counted_and_what_is_under_way() -> None:
    rig = Rig()
    rig.fail(2)
    late = rig.admitted()
    rig.breaker.reset(rig.now)
    late.failed(rig.now)
    assert rig.breaker.snapshot(rig.now).failures == 0
    assert not rig.told


def test_reset_while_probes_are_under_way_makes_their_outcome_late() -> None:
    rig = Rig().recovering()
    probe = rig.admitted()
    rig.breaker.reset(rig.now)
    probe.failed(rig.now)
    assert rig.state == "closed"
    assert rig.breaker.snapshot(rig.now).failures == 0


# Another policy.


def test_another_policy_keeps_the_state_and_the_time_left() -> None:
    rig = Rig().opened()
    rig.clock.advance(3.0)
    rig.breaker.adopt(replace(POLICY, recovery_timeout=1.0))
    assert rig.refused() == 7.0
    rig.clock.advance(7.0)
    rig.fail()
    assert rig.refused() == 2.0


def test_another_threshold_counts_from_what_was_counted() -> None:
    rig = Rig()
    rig.fail(2)
    rig.breaker.adopt(replace(POLICY, failure_threshold=5))
    rig.fail(2)
    assert rig.state == "closed"
    rig.breaker.adopt(replace(POLICY, failure_threshold=2))
    assert rig.state == "closed"
    rig.fail()
    assert rig.causes == ["5 failures in a row"]


def test_another_policy_with_the_same_window_keeps_what_is_in_it() -> None:
    rig = Rig(WINDOWED)
    rig.fail(3)
    rig.breaker.adopt(replace(WINDOWED, failure_threshold=99))
    rig.fail()
    assert rig.state == "open"


def test_another_window_is_empty() -> None:
    rig = Rig(WINDOWED)
    rig.fail(3)
    rig.breaker.adopt(replace(WINDOWED, window=30.0))
    assert rig.breaker.snapshot(rig.now).window_calls == 0
    rig.breaker.adopt(POLICY)
    rig.fail(1)
    assert rig.causes == ["4 failures in a row"]


def test_a_retired_one_is_closed_and_deaf() -> None:
    rig = Rig().recovering()
    probe = rig.admitted()
    rig.breaker.retire("gone")
    assert rig.causes[-1] == "gone"
    probe.failed(rig.now)
    assert rig.state == "closed"


# Telling.


def test_who_is_told_may_fail() -> None:
    def fail(event: BreakerChanged) -> None:
        raise RuntimeError(event.cause)

    rig = Rig(changed=fail)
    rig.recovering()
    rig.succeed()
    assert rig.state == "closed"
    rig.breaker.trip(rig.now)
    assert rig.state == "open"
    rig.breaker.reset(rig.now)
    assert rig.state == "closed"


def test_who_is_told_may_use_the_breaker() -> None:
    told: list[tuple[str, str, object]] = []

    def use(event: BreakerChanged) -> None:
        told.append((event.after, rig.state, rig.breaker.admit(rig.now)))

    rig = Rig(changed=use)
    rig.recovering()
    rig.succeed()
    (first, second, third) = told
    assert first == ("open", "open", 10.0)
    assert second == ("half-open", "half-open", PROBE_WAIT)
    assert third[:2] == ("closed", "closed")
    assert isinstance(third[2], Permit)


@pytest.mark.parametrize("outcome", ["succeeded", "failed", "abandoned"])
def test_who_is_told_of_a_probe_may_trip_and_the_probe_is_late(outcome: str) -> None:
    def trip(event: BreakerChanged) -> None:
        if event.after == "half-open":
            rig.breaker.trip(rig.now)

    rig = Rig(changed=trip)
    rig.recovering()
    getattr(rig.admitted(), outcome)(rig.now)
    assert rig.state == "open"
    assert rig.refused() == 10.0


def test_changes_within_changes_are_told_in_order() -> None:
    def reset(event: BreakerChanged) -> None:
        told.append(f"{event.before} → {event.after}")
        if event.after == "open":
            rig.breaker.reset(rig.now)

    told: list[str] = []
    rig = Rig(changed=reset)
    rig.fail(3)
    assert told == ["closed → open", "open → closed"]


def test_snapshot_can_be_told_as_json() -> None:
    rig = Rig(WINDOWED)
    rig.fail(4)
    rig.clock.advance(1 / 3)
    assert json.loads(json.dumps(rig.breaker.snapshot(rig.now).told())) == {
        "name": "openai",
        "state": "open",
        "failures": 4,
        "window_calls": 4,
        "window_failures": 4,
        "left": 9.667,
        "opened": 1,
        "probes": 0,
    }
    assert "window_calls" not in Rig().breaker.snapshot(rig.now).told()


# The policy.


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({}, []),
        ({"failure_threshold": 0}, ["failure_threshold"]),
        ({"half_open_requests": -1}, ["half_open_requests"]),
        ({"minimum_calls": 0}, ["minimum_calls"]),
        ({"failure_rate": 0.0}, ["failure_rate"]),
        ({"failure_rate": 1.01}, ["failure_rate"]),
        ({"failure_rate": float("nan")}, ["failure_rate"]),
        ({"failure_rate": 1.0}, []),
        ({"recovery_timeout": 601.0}, ["recovery_timeout"]),
        ({"recovery_timeout": 600.0}, []),
        ({"window": 0.0}, ["window"]),
        ({"window": 1.0}, []),
        ({"key": ()}, ["key"]),
        ({"key": ("upstream", "model")}, []),
        ({"failure_threshold": 0, "key": ()}, ["failure_threshold", "key"]),
    ],
)
@pytest.mark.parametrize("enabled", [False, True])
def test_impossible_policies_are_named(enabled: bool, keys: dict[str, Any], named: list[str]) -> None:
    assert [name for name, _ in BreakerPolicy(enabled=enabled, **keys).problems()] == named


def test_problems_say_what_is_accepted() -> None:
    policy = BreakerPolicy(failure_threshold=0, recovery_timeout=1200, failure_rate=2)
    assert dict(policy.problems()) == {
        "failure_threshold": "found 0; accepted: 1 at least",
        "recovery_timeout": "found 20m; accepted: max_recovery_timeout (10m) at most",
        "failure_rate": "found 2; accepted: above 0, and 1 at most",
    }

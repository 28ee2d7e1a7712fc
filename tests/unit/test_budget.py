"""The share of retries: never more than granted over any window, never much less, on any clock."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxyd.resilience.budget import Budget, BudgetPolicy

SLACK = 1e-6


def taken(budget: Budget, now: float, tries: int = 1000) -> int:
    """How many of *tries* are granted."""
    return sum(budget.take(now) for _ in range(tries))


def test_a_share_of_the_requests_is_granted_beside_what_always_is() -> None:
    budget = Budget(BudgetPolicy(ratio=0.2, min_per_second=1, window=10), 0.0)
    for _ in range(100):
        budget.requests(5.0)
    assert taken(budget, 5.0) == 20 + 10


def test_without_any_request_what_is_always_granted_is() -> None:
    assert taken(Budget(BudgetPolicy(ratio=0.2, min_per_second=0.5, window=10), 7.0), 7.0) == 5


def test_a_budget_of_nothing_grants_nothing() -> None:
    budget = Budget(BudgetPolicy(ratio=0, min_per_second=0), 0.0)
    for now in range(100):
        budget.requests(now)
        assert not budget.take(now)


@pytest.mark.parametrize(
    ("ratio", "requests", "granted"), [(0.29, 100, 29), (0.1, 30, 3), (0.7, 10, 7), (1 / 3, 9, 3)]
)
def test_rounding_takes_no_retry_away(ratio: float, requests: int, granted: int) -> None:
    budget = Budget(BudgetPolicy(ratio=ratio, min_per_second=0), 0.0)
    for _ in range(requests):
        budget.requests(0.0)
    assert taken(budget, 0.0) == granted


def test_on_a_clock_that_stands_still_the_grants_stay_spent() -> None:
    budget = Budget(BudgetPolicy(ratio=0, min_per_second=1, window=10), 3.0)
    assert taken(budget, 3.0) == 10
    assert taken(budget, 3.0) == 0


def test_what_was_granted_comes_back_after_the_window_and_not_before() -> None:
    budget = Budget(BudgetPolicy(ratio=0, min_per_second=1, window=10), 0.0)
    assert taken(budget, 0.99) == 10
    assert taken(budget, 10.99) == 0
    assert taken(budget, 11.0) == 10


def test_requests_are_forgotten_after_the_window() -> None:
    budget = Budget(BudgetPolicy(ratio=1, min_per_second=0, window=10), 0.0)
    for _ in range(10):
        budget.requests(0.0)
    assert budget.take(9.5)
    assert not budget.take(10.0)


def test_unused_grants_are_not_saved_up() -> None:
    budget = Budget(BudgetPolicy(ratio=0, min_per_second=1, window=10), 0.0)
    assert taken(budget, 10_000.0) == 10


@pytest.mark.parametrize("jump", [11.0, 1e3, 1e9, 1e15, 1e300])
def test_a_clock_that_jumps_far_ahead_starts_afresh(jump: float) -> None:
    budget = Budget(BudgetPolicy(ratio=1, min_per_second=1, window=10), 0.0)
    budget.requests(0.0)
    assert taken(budget, 0.0) == 11
    assert taken(budget, jump) == 10
    assert taken(budget, jump) == 0


def test_a_clock_that_goes_back_is_as_if_it_stood_still() -> None:
    budget = Budget(BudgetPolicy(ratio=0, min_per_second=1, window=10), 100.0)
    assert taken(budget, 150.0) == 10
    assert taken(budget, 90.0) == 0
    assert taken(budget, 159.0) == 0
    assert taken(budget, 161.0) == 10


def test_state_tells_what_was_granted_and_what_is_left() -> None:
    budget = Budget(BudgetPolicy(ratio=0.5, min_per_second=0.1, window=10), 0.0)
    assert budget.state(0.0) == {"granted": 0, "requests": 0, "left": 1}
    for _ in range(5):
        budget.requests(0.0)
    assert budget.take(1.0)
    assert budget.state(1.0) == {"granted": 1, "requests": 5, "left": 2}
    assert budget.state(10.0) == {"granted": 1, "requests": 0, "left": 0}
    assert budget.state(1000.0) == {"granted": 0, "requests": 0, "left": 1}


def test_memory_is_the_same_after_any_number_of_requests() -> None:
    budget = Budget(BudgetPolicy(), 0.0)
    size = sys.getsizeof(budget._requests)
    for number in range(10_000):
        budget.requests(number / 7)
        budget.take(number / 7)
    assert sys.getsizeof(budget._requests) == size


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["request", "request", "take"]),
        st.one_of(
            st.just(0.0), st.floats(0, 0.5), st.floats(0, 12), st.sampled_from([0.1, 1.0, 10.0, 11.0, 1e6])
        ),
        st.integers(1, 12),
    ),
    max_size=60,
)


@given(
    STEPS,
    st.sampled_from([0.0, 0.1, 0.2, 0.5, 1.0, 3.0]),
    st.sampled_from([0.0, 0.1, 0.3, 1.0, 10.0]),
    st.sampled_from([0.5, 1.0, 3.0, 10.0]),
    st.sampled_from([0.0, 12345.678, -5.5]),
)
def test_the_bound_holds_at_every_grant_and_nothing_more_than_a_tenth_is_withheld(
    steps: list[tuple[str, float, int]], ratio: float, least: float, window: float, start: float
) -> None:
    """Against lists of all that ever happened."""
    budget = Budget(BudgetPolicy(ratio=ratio, min_per_second=least, window=window), start)
    now = start
    requests: list[float] = []
    grants: list[float] = []

    def within(times: list[float], seconds: float) -> int:
        return sum(now - when < seconds for when in times)

    for what, ahead, count in steps:
        now += ahead
        for _ in range(count):
            if what == "request":
                budget.requests(now)
                requests.append(now)
            elif budget.take(now):
                grants.append(now)
                allowed = ratio * within(requests, window + SLACK) + least * window
                assert within(grants, window - SLACK) <= allowed + SLACK
            else:
                tight = ratio * within(requests, 0.9 * window - SLACK) + least * window
                assert within(grants, 1.1 * window + SLACK) + 1 > tight - SLACK


@pytest.mark.parametrize(
    ("policy", "keys"),
    [
        (BudgetPolicy(), []),
        (BudgetPolicy(ratio=0, min_per_second=0), []),
        (BudgetPolicy(ratio=-0.1), ["ratio"]),
        (BudgetPolicy(min_per_second=-1), ["min_per_second"]),
        (BudgetPolicy(window=0), ["window"]),
        (BudgetPolicy(ratio=-1, min_per_second=-1, window=-1), ["ratio", "min_per_second", "window"]),
    ],
)
def test_impossible_policies_are_told(policy: BudgetPolicy, keys: list[str]) -> None:
    found = list(policy.problems())
    assert [key for key, _ in found] == keys
    assert all("found" in message and "accepted" in message for _, message in found)

"""Several keys of one upstream: one is kept until it fails, and none is ever shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxyd.redaction import Secret
from llmproxyd.resilience.credentials import LIMITED, LONGEST, REFUSED, Ring, rest_for

KEYS = [Secret(f"sk-one-of-{number}") for number in range(3)]


def used(ring: Ring, now: float) -> int | None:
    taken = ring.take(now)
    return None if taken is None else taken.index


def test_one_key_is_kept_while_it_works() -> None:
    ring = Ring(KEYS)
    assert [used(ring, now) for now in range(5)] == [0] * 5
    taken = ring.take(0)
    assert taken is not None
    assert taken.key is KEYS[0]


def test_the_next_key_takes_over_and_stays_when_the_first_has_woken() -> None:
    ring = Ring(KEYS)
    ring.rest(0, 30, now=0)
    assert [used(ring, now) for now in (0, 29, 30, 1000)] == [1] * 4


def test_after_the_last_key_comes_the_first() -> None:
    ring = Ring(KEYS)
    for index in range(3):
        assert used(ring, 0) == index
        ring.rest(index, 10 + index, now=0)
    assert used(ring, 0) is None
    assert used(ring, 10) == 0


def test_a_key_at_rest_is_passed_over() -> None:
    ring = Ring(KEYS)
    ring.rest(1, 30, now=0)
    ring.rest(0, 30, now=0)
    assert used(ring, 1) == 2


def test_a_key_wakes_when_its_time_has_come_and_not_before() -> None:
    ring = Ring(KEYS[:1])
    ring.rest(0, 30, now=100)
    assert used(ring, 129.999) is None
    assert ring.soonest(100) == 30
    assert ring.soonest(129) == 1
    assert used(ring, 130) == 0
    assert ring.soonest(130) == 0
    assert ring.soonest(999) == 0


def test_soonest_is_the_first_of_all_to_wake() -> None:
    ring = Ring(KEYS)
    for index, seconds in enumerate((30, 5, 60)):
        ring.rest(index, seconds, now=0)
    assert ring.soonest(1) == 4
    assert used(ring, 5) == 1


def test_a_longer_rest_replaces_a_shorter_one_and_never_the_reverse() -> None:
    ring = Ring(KEYS[:1])
    ring.rest(0, 30, now=0)
    ring.rest(0, 5, now=10)
    assert ring.soonest(10) == 20
    ring.rest(0, 60, now=10)
    assert ring.soonest(10) == 60


@pytest.mark.parametrize("seconds", [0, -1, float("-inf"), float("nan")])
def test_no_time_is_no_rest(seconds: float) -> None:
    ring = Ring(KEYS)
    ring.rest(0, seconds, now=0)
    assert used(ring, 0) == 0


def test_no_rest_is_longer_than_a_day() -> None:
    ring = Ring(KEYS[:1])
    ring.rest(0, float("inf"), now=0)
    assert ring.soonest(0) == LONGEST


def test_a_ring_of_no_keys_is_none() -> None:
    with pytest.raises(ValueError, match="no keys"):
        Ring([])


def test_state_counts_and_shows_no_part_of_a_key() -> None:
    ring = Ring(KEYS)
    ring.rest(0, 30, now=0)
    taken = ring.take(10)
    assert ring.awake(10) == 2
    assert ring.state(10) == {"keys": 3, "awake": 2, "current": 2, "rests": [20, 0, 0]}
    for shown in (repr(taken), str(taken), repr(ring), repr(ring.state(10))):
        assert "sk-" not in shown
        assert "one-of" not in shown


@pytest.mark.parametrize(
    ("status", "asked", "seconds"),
    [
        (429, None, LIMITED),
        (429, 12.5, 12.5),
        (429, 0.0, LIMITED),
        (401, None, REFUSED),
        (402, None, REFUSED),
        (403, None, REFUSED),
        (403, 60.0, 60.0),
        (429, 1e9, LONGEST),
        (200, None, None),
        (400, 5.0, None),
        (500, 5.0, None),
        (503, 5.0, None),
        (529, None, None),
        (None, None, None),
    ],
)
def test_a_key_rests_for_what_is_its_own_fault(
    status: int | None, asked: float | None, seconds: float | None
) -> None:
    assert rest_for(status, asked) == seconds


@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.integers(0, 4), st.floats(-5, 100), st.floats(0, 50)), max_size=30),
)
def test_a_key_is_given_exactly_while_one_is_awake(count: int, rests: list[tuple[int, float, float]]) -> None:
    ring = Ring([Secret(str(number)) for number in range(count)])
    until = [0.0] * count
    now = 0.0
    previous = 0
    for index, seconds, ahead in rests:
        now += ahead
        index %= count
        ring.rest(index, seconds, now)
        if seconds > 0:
            until[index] = max(until[index], now + seconds)
        taken = ring.take(now)
        assert (taken is not None) == (ring.awake(now) > 0) == (ring.soonest(now) == 0)
        assert ring.awake(now) == sum(one <= now for one in until)
        if taken is not None:
            assert until[taken.index] <= now
            assert taken.index == previous or until[previous] > now
            previous = taken.index

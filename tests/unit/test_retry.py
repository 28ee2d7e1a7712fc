"""Whether a failed attempt is made again, and when: what went wrong, lists, hints, waits, limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxyd.resilience.policy import Hold, Resilience
from llmproxyd.resilience.retry import BROKEN, NATIVE, Decision, Failed, Jitter, Retry, Tries, backoff, decide
from llmproxyd.resilience.timeouts import TimeoutOverrides, Timeouts

WALL = 1795000000.0
TEN = Retry(max_retries=10, jitter="none")
SEED = replace(
    TEN,
    retry_codes=(429, 502, 503, 504, 505, 507, 508, 511, 408, 409, 410, 423, 424, 425, 426, 428, 431, 451),
    fail_codes=(400, 401, 403, 405, 406, 407, 411, 412, 413, 414, 415, 416, 417, 418, 421, 422),
    conditional_retry_codes=(404, 411, 412, 413, 414, 416, 417, 418, 421, 423, 424, 425, 426, 428, 431, 451),
)
"""As the example file of the SillyTavern middleware has it."""

RETRY_INFO = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "26s"}
QUOTA = {
    "error": {"code": 429, "message": "You exceeded your current quota.", "status": "RESOURCE_EXHAUSTED"}
}


def half() -> float:
    return 0.5


def answered(status: int | None, code: str | None = None, **more: Any) -> Failed:
    told = more.pop("told", {})
    headers = [(name.replace("_", "-").encode(), value.encode()) for name, value in told.items()]
    return Failed(status=status, code=code, headers=headers, **more)


def after(
    policy: Retry,
    failed: Failed,
    retries: int = 0,
    conditional: int = 0,
    left: float | None = None,
    draw: Callable[[], float] = half,
) -> Decision:
    return decide(policy, failed, Tries(retries, conditional), left=left, wall=WALL, draw=draw)


def told(decision: Decision) -> tuple[float | None, str, bool]:
    """All but whether another upstream may be asked."""
    return decision[:3]


def again(policy: Retry, failed: Failed) -> bool:
    return after(policy, failed).delay is not None


def total(policy: Retry, failed: Failed) -> int:
    """How many retries *failed* gets when every attempt fails in this way."""
    tries = Tries()
    while decide(policy, failed, tries, left=None, wall=WALL, draw=half).delay is not None:
        assert tries.retries <= policy.max_retries
    return tries.retries


# What went wrong.


@pytest.mark.parametrize("code", sorted(BROKEN))
@pytest.mark.parametrize("status", [None, 200])
@pytest.mark.parametrize("sent", [False, True])
def test_an_attempt_that_brought_no_content_is_made_again(code: str, status: int | None, sent: bool) -> None:
    assert told(after(TEN, answered(status, code, sent=sent))) == (1.0, code, False)


def test_what_fails_in_the_same_way_again_is_never_retried() -> None:
    policy = replace(TEN, retry_codes=(503,))
    for failed in (answered(None, "upstream_unreachable", permanent=True), answered(503, permanent=True)):
        assert told(after(policy, failed)) == (None, "it would fail in the same way again", False)


def test_missing_head_of_a_request_that_went_out_is_retried_on_request_alone() -> None:
    failed = answered(None, "headers_timeout")
    assert told(after(TEN, failed)) == (None, "it may be billed twice (retry_timeouts)", False)
    assert again(replace(TEN, retry_timeouts=True), failed)
    assert again(TEN, answered(None, "headers_timeout", sent=False))


def test_empty_stream_is_retried_on_request_alone() -> None:
    failed = answered(200, "empty_stream")
    assert told(after(TEN, failed)) == (None, "an empty stream is not retried (retry_empty)", False)
    assert again(replace(TEN, retry_empty=True), failed)


@pytest.mark.parametrize("code", [None, "access_denied", "max_body"])
def test_failure_that_nobody_knows_is_not_retried(code: str | None) -> None:
    assert not again(TEN, answered(None, code))


@pytest.mark.parametrize("code", ["headers_timeout", "empty_stream"])
def test_codes_of_ours_beside_a_status_are_those_of_another_proxy(code: str) -> None:
    assert again(TEN, answered(504, code))
    assert not again(TEN, answered(400, code))


@pytest.mark.parametrize("code", ["overloaded_error", None, "429"])
def test_success_is_no_failure_unless_its_stream_failed(code: str | None) -> None:
    assert not again(TEN, answered(200, code))


@pytest.mark.parametrize("status", range(100, 600))
def test_native_statuses_are_retried_and_all_others_are_final(status: int) -> None:
    assert again(TEN, answered(status)) is (status in NATIVE)


def test_status_that_is_final_says_so() -> None:
    assert told(after(TEN, answered(400))) == (None, "status 400 is not retried", False)


def test_without_retries_nothing_is_retried_and_the_client_is_told_nothing() -> None:
    assert told(after(Retry(), answered(503))) == (None, "retries are off", False)


FINAL: list[Failed] = [
    answered(429, "insufficient_quota"),
    answered(429, body={"error": {"type": "insufficient_quota"}}),
    answered(429, "credit_balance_exhausted"),
    answered(
        429, "rate_limit_error", body={"error": {"details": {"error_code": "enforced_spend_limit_reached"}}}
    ),
    answered(429, "rate_limit_exceeded", body={"error": {"message": "Request too large for gpt-x on TPM"}}),
    answered(400, "context_length_exceeded"),
    answered(503, "context_length_exceeded"),
    answered(500, body={"error": {"message": "prompt is too long: 9 tokens > 8 maximum"}}),
    answered(429, "RESOURCE_EXHAUSTED", body=QUOTA),
    answered(429, "RESOURCE_EXHAUSTED", body=[QUOTA]),
]


@pytest.mark.parametrize("failed", FINAL, ids=repr)
@pytest.mark.parametrize(
    "policy",
    [TEN, SEED, replace(TEN, retry_codes=(400, 429, 500, 503)), replace(TEN, conditional_retry_codes=(429,))],
)
def test_the_hopeless_is_final_whatever_lists_and_upstream_say(failed: Failed, policy: Retry) -> None:
    told = replace(failed, headers=[(b"x-should-retry", b"true"), (b"retry-after", b"1")])
    for one in (failed, told):
        decision = after(policy, one)
        assert decision.delay is None
        assert not decision.spent
        assert decision.reason.endswith("is never retried")


def test_gemini_quota_is_retried_if_it_names_a_time() -> None:
    body = {"error": {**QUOTA["error"], "details": [{"@type": "x/google.rpc.QuotaFailure"}, RETRY_INFO]}}
    assert after(TEN, answered(429, body=body)).delay == 26.0


@pytest.mark.parametrize(
    "failed",
    [
        answered(401),
        answered(402),
        answered(403),
        answered(407),
        answered(500, "authentication_error"),
        answered(429, "PERMISSION_DENIED"),
    ],
    ids=repr,
)
def test_denied_access_is_retried_if_the_file_lists_the_status_and_else_never(failed: Failed) -> None:
    told = replace(failed, headers=[(b"x-should-retry", b"true")])
    assert not again(TEN, failed)
    assert not again(TEN, told)
    assert failed.status is not None
    assert again(replace(TEN, retry_codes=(failed.status,)), failed)


def test_openrouters_402_for_requests_under_way_is_retried() -> None:
    body = {"error": {"code": 402, "metadata": {"limit_source": "openrouter_in_flight_budget"}}}
    assert after(TEN, answered(402, "402", body=body, told={"retry_after": "3"})).delay == 3.0
    assert not again(replace(TEN, fail_codes=(402,)), answered(402, "402", body=body))


@pytest.mark.parametrize("policy", [TEN, Retry()])
def test_what_would_fail_at_any_upstream_is_told_as_hopeless_with_and_without_retries(policy: Retry) -> None:
    long = answered(400, "context_length_exceeded")
    for failed in (answered(400), long, answered(None, "headers_timeout")):
        assert after(policy, failed).hopeless
    for failed in (answered(503), answered(None, "upstream_unreachable")):
        assert not after(policy, failed, retries=10).hopeless


@pytest.mark.parametrize("status", [401, 403, 402])
def test_what_is_for_who_asks_may_succeed_elsewhere(status: int) -> None:
    for failed in (answered(status), answered(429, "insufficient_quota")):
        assert after(TEN, failed).delay is None
        assert not after(TEN, failed).hopeless


# The file's lists.


def test_lists_are_obeyed_and_what_is_on_none_is_native() -> None:
    policy = replace(TEN, retry_codes=(418,), fail_codes=(503,))
    assert again(policy, answered(418))
    assert told(after(policy, answered(503))) == (None, "status 503 is not retried (fail_codes)", False)
    assert again(policy, answered(502))
    assert not again(policy, answered(404))


def test_retry_goes_before_conditional_and_that_before_fail() -> None:
    policy = replace(TEN, retry_codes=(430,), conditional_retry_codes=(430, 431), fail_codes=(430, 431, 432))
    assert [total(policy, answered(status)) for status in (430, 431, 432)] == [10, 2, 0]


@pytest.mark.parametrize(
    ("status", "metadata", "retries"),
    [
        (404, True, 2),
        (404, False, 1),
        (411, False, 1),
        (412, True, 1),
        (413, False, 1),
        (418, False, 1),
        (421, False, 1),
        (400, False, 0),
        (422, False, 0),
        (410, False, 10),
        (429, False, 10),
        (423, False, 10),
        (451, False, 10),
        (500, False, 10),
        (529, False, 10),
        (501, False, 0),
        (401, False, 0),
    ],
)
def test_the_lists_of_the_seed_give_so_many_retries(status: int, metadata: bool, retries: int) -> None:
    assert total(SEED, answered(status, metadata=metadata)) == retries


@pytest.mark.parametrize(
    ("status", "most", "retries"),
    [
        (404, 5, 1),
        (411, 5, 1),
        (421, 5, 1),
        (422, 5, 5),
        (423, 5, 2),
        (451, 5, 2),
        (500, 3, 3),
        (423, 1, 1),
        (423, 0, 0),
        (404, 0, 0),
    ],
)
def test_conditional_retries_are_bounded_by_status_and_by_the_file(
    status: int, most: int, retries: int
) -> None:
    policy = replace(TEN, conditional_retry_codes=(status,), conditional_retry_max_attempts=most)
    assert total(policy, answered(status)) == retries
    assert after(policy, answered(status), conditional=most).spent is (most > 0)


def test_conditional_retries_count_among_all() -> None:
    policy = replace(TEN, max_retries=1, conditional_retry_codes=(423,))
    assert total(policy, answered(423)) == 1


def test_conditional_retries_are_spent_apart_from_others() -> None:
    policy = replace(TEN, conditional_retry_codes=(404,))
    tries = Tries(retries=5)
    assert decide(policy, answered(404), tries, left=None, wall=WALL, draw=half).delay is not None
    assert (tries.retries, tries.conditional) == (6, 1)
    last = decide(policy, answered(404), tries, left=None, wall=WALL, draw=half)
    assert told(last) == (None, "the only conditional retry is spent", True)
    assert decide(policy, answered(503), tries, left=None, wall=WALL, draw=half).delay is not None
    assert (tries.retries, tries.conditional) == (7, 1)


def test_conditional_statuses_are_final_where_that_is_switched_off() -> None:
    policy = replace(TEN, conditional_retry_codes=(404, 503), conditional_retry_enabled=False)
    for status in (404, 503):
        decision = after(policy, answered(status))
        assert told(decision) == (
            None,
            f"status {status} is not retried (conditional retries are off)",
            False,
        )


def test_conditional_retry_waits_a_part_of_the_time() -> None:
    policy = replace(TEN, conditional_retry_codes=(423,), conditional_retry_delay_multiplier=0.25)
    assert after(policy, answered(423), retries=3).delay == 2.0
    assert after(policy, answered(423, told={"retry_after": "3"})).delay == 3.0


# How many.


def test_the_first_attempt_is_no_retry_and_the_last_is_told_as_spent() -> None:
    assert total(TEN, answered(503)) == 10
    assert after(TEN, answered(503), retries=9).delay is not None
    assert told(after(TEN, answered(503), retries=10)) == (None, "all 10 retries are spent", True)
    assert after(replace(TEN, max_retries=1), answered(503), retries=1).reason == "the only retry is spent"


def test_final_failures_are_not_told_as_spent() -> None:
    assert told(after(TEN, answered(400), retries=10)) == (None, "status 400 is not retried", False)


def test_only_an_attempt_that_follows_is_counted() -> None:
    tries = Tries()
    for failed, left in (
        (answered(400), None),
        (answered(503), 0.5),
        (answered(503, told={"retry_after": "99"}), None),
    ):
        assert decide(TEN, failed, tries, left=left, wall=WALL, draw=half).delay is None
    assert tries == Tries(0, 0)
    decide(TEN, answered(503), tries, left=None, wall=WALL, draw=half)
    assert tries == Tries(1, 0)


# What the upstream says.


def test_what_the_upstream_says_decides_against_native_and_retry_list() -> None:
    no = answered(503, told={"x_should_retry": "false"})
    for policy in (TEN, replace(TEN, retry_codes=(503,))):
        assert told(after(policy, no)) == (None, "the upstream asks for no retry (x-should-retry)", False)
    assert again(replace(TEN, respect_retry_after=False), no)


def test_upstream_can_ask_for_a_retry_but_not_against_the_fail_list() -> None:
    yes = answered(400, told={"x_should_retry": "true"})
    assert again(TEN, yes)
    assert not again(replace(TEN, fail_codes=(400,)), yes)
    assert not again(replace(TEN, respect_retry_after=False), yes)


@pytest.mark.parametrize("draw", [0.0, 0.3, 0.999999])
@pytest.mark.parametrize("jitter", ["full", "equal", "quarter", "none"])
def test_the_time_asked_for_is_waited_and_at_most_a_tenth_more(jitter: Jitter, draw: float) -> None:
    policy = Retry(max_retries=3, jitter=jitter)
    decision = after(policy, answered(429, told={"retry_after": "20"}), draw=lambda: draw)
    assert decision.delay is not None
    assert 20 <= decision.delay < 22
    assert decision.delay == (20 if jitter == "none" else pytest.approx(20 * (1 + draw / 10)))
    assert decision.reason == "status 429; it asks for 20 s"


def test_time_asked_for_counts_after_every_status_and_rate_limits_after_some() -> None:
    assert after(TEN, answered(500, told={"retry_after": "5"})).delay == 5.0
    assert after(TEN, answered(429, told={"x_ratelimit_reset_tokens": "7s"})).delay == 7.0
    assert after(TEN, answered(500, told={"x_ratelimit_reset_tokens": "7s"})).delay == 1.0


def test_rate_limits_beside_a_stream_that_failed_say_nothing() -> None:
    told = {"x_ratelimit_reset_tokens": "7s", "x_ratelimit_remaining_tokens": "0"}
    assert after(TEN, answered(503, "overloaded", told=told)).delay == 7.0
    assert after(TEN, answered(200, "first_content_timeout", told=told)).delay == 1.0


def test_no_time_at_all_is_no_invitation_to_hammer() -> None:
    policy = replace(TEN, rate_limit_wait=30)
    assert [after(policy, answered(429, told={"retry_after": "0"}), retries=n).delay for n in range(3)] == [
        1,
        2,
        4,
    ]


def test_longer_wait_than_max_wait_is_not_begun() -> None:
    decision = after(TEN, answered(429, told={"retry_after": "90"}))
    assert told(decision) == (None, "the wait of 90 s that it asks for is over max_wait (60 s)", False)
    assert after(TEN, answered(429, told={"retry_after": "60"}), draw=lambda: 0.9).delay == 60.0
    assert (
        after(replace(TEN, respect_retry_after=False), answered(429, told={"retry_after": "90"})).delay == 1.0
    )


def test_rate_limit_that_names_no_time_has_a_wait_of_its_own() -> None:
    policy = replace(TEN, rate_limit_wait=30)
    assert after(policy, answered(429), retries=4).delay == 30.0
    assert after(policy, answered(429, told={"retry_after": "2"})).delay == 2.0
    assert after(policy, answered(503)).delay == 1.0
    ignoring = replace(policy, respect_retry_after=False)
    assert after(ignoring, answered(429, told={"retry_after": "2"})).delay == 30.0


# Deadline.


@pytest.mark.parametrize(
    ("left", "again"), [(None, True), (1.001, True), (1.0, False), (0.5, False), (0.0, False), (-3.0, False)]
)
def test_wait_that_ends_at_the_deadline_or_later_is_not_begun(left: float | None, again: bool) -> None:
    decision = after(TEN, answered(503), left=left)
    assert (decision.delay is not None) is again
    assert again or told(decision) == (None, "the deadline comes first", False)


def test_nothing_follows_a_deadline_that_is_past_even_without_a_wait() -> None:
    assert after(replace(TEN, base_delay=0), answered(503), left=0.0).delay is None


# Our own waits.


def test_waits_double_up_to_the_longest() -> None:
    delays = [after(TEN, answered(503), retries=n).delay for n in range(9)]
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60]


@pytest.mark.parametrize(
    ("jitter", "least", "most"),
    [("full", 0.0, 8.0), ("equal", 4.0, 8.0), ("quarter", 6.0, 10.0), ("none", 8.0, 8.0)],
)
def test_jitter_spreads_a_wait(jitter: Jitter, least: float, most: float) -> None:
    policy = Retry(max_retries=9, jitter=jitter)
    assert backoff(policy, 3, lambda: 0.0) == least
    assert backoff(policy, 3, lambda: 1 - 2**-53) == pytest.approx(most)
    assert backoff(policy, 3, half) == pytest.approx((least + most) / 2)


@given(
    st.integers(0, 10**30),
    st.floats(0, 1e300),
    st.floats(0, 1e300),
    st.sampled_from(["full", "equal", "quarter", "none"]),
    st.floats(0, 1, exclude_max=True),
)
def test_no_number_of_retries_makes_a_wait_too_long(
    made: int, base: float, longest: float, jitter: Jitter, draw: float
) -> None:
    policy = Retry(max_retries=1, base_delay=base, max_delay=longest, jitter=jitter)
    assert 0 <= backoff(policy, made, lambda: draw) <= longest * 1.25


FAILURES = st.builds(
    Failed,
    status=st.none() | st.integers(100, 599),
    code=st.none()
    | st.sampled_from([*sorted(BROKEN), "headers_timeout", "empty_stream", "429", "server_error"]),
    permanent=st.booleans(),
    sent=st.booleans(),
    headers=st.lists(
        st.tuples(
            st.sampled_from([b"retry-after", b"x-should-retry", b"x-ratelimit-reset"]),
            st.sampled_from([b"true", b"false", b"0", b"1", b"70", b"nan", b"-1", b"1m"]),
        ),
        max_size=3,
    ),
    metadata=st.booleans(),
)
STATUSES = st.none() | st.lists(st.sampled_from([400, 404, 411, 423, 429, 500, 503]), max_size=5).map(tuple)
POLICIES = st.builds(
    Retry,
    max_retries=st.integers(0, 4),
    jitter=st.sampled_from(["full", "equal", "quarter", "none"]),
    respect_retry_after=st.booleans(),
    rate_limit_wait=st.none() | st.floats(0, 100),
    retry_codes=STATUSES,
    fail_codes=STATUSES,
    conditional_retry_codes=STATUSES,
    conditional_retry_enabled=st.booleans(),
    conditional_retry_max_attempts=st.integers(0, 4),
    retry_timeouts=st.booleans(),
    retry_empty=st.booleans(),
)


@given(
    POLICIES,
    st.lists(FAILURES, max_size=12),
    st.none() | st.floats(-1, 100),
    st.floats(0, 1, exclude_max=True),
)
def test_no_run_of_failures_gets_more_than_the_policy_grants(
    policy: Retry, failures: list[Failed], left: float | None, draw: float
) -> None:
    tries = Tries()
    made = 0
    for failed in failures:
        before = replace(tries)
        decision = decide(policy, failed, tries, left=left, wall=WALL, draw=lambda: draw)
        if decision.delay is None:
            assert tries == before
            assert not decision.spent or policy.max_retries
        else:
            made += 1
            assert not failed.permanent
            assert decision.delay >= 0
            assert left is None or decision.delay < left
            assert not decision.spent
        assert decision.reason
        assert tries.retries == made <= policy.max_retries
        assert tries.conditional <= policy.conditional_retry_max_attempts


# What is shown, and what is impossible.


def test_reasons_and_reprs_hold_nothing_that_the_upstream_wrote() -> None:
    secret = "sk-very-secret"
    for status in (None, 200, 400, 401, 429, 503):
        body = {"error": {"message": f"Incorrect API key: {secret}. prompt is too long", "code": secret}}
        failed = answered(status, secret, body=body, told={"retry_after": secret, "x_key": secret})
        assert secret not in after(TEN, failed).reason
        assert secret not in repr(replace(failed, code=None))


@pytest.mark.parametrize(
    ("policy", "keys"),
    [
        (Retry(), []),
        (SEED, []),
        (Retry(max_retries=-1), ["max_retries"]),
        (Retry(base_delay=-1), ["base_delay"]),
        (Retry(max_delay=-1), ["max_delay"]),
        (Retry(max_wait=-1), ["max_wait"]),
        (Retry(rate_limit_wait=-1), ["rate_limit_wait"]),
        (Retry(base_delay=61), ["base_delay"]),
        (Retry(base_delay=0, max_delay=0), []),
        (Retry(conditional_retry_max_attempts=-1), ["conditional_retry_max_attempts"]),
        (Retry(conditional_retry_delay_multiplier=-0.5), ["conditional_retry_delay_multiplier"]),
        (Retry(retry_codes=(99, 429, 600)), ["retry_codes"]),
        (Retry(fail_codes=(0,), conditional_retry_codes=(1000,)), ["fail_codes", "conditional_retry_codes"]),
        (Retry(retry_codes=(), fail_codes=(100, 599)), []),
    ],
)
def test_impossible_policies_are_told(policy: Retry, keys: list[str]) -> None:
    found = list(policy.problems())
    assert [key for key, _ in found] == keys
    assert all("found" in message and "accepted" in message for _, message in found)


def test_impossible_statuses_are_named() -> None:
    ((_, message),) = Retry(retry_codes=(99, 429, 600)).problems()
    assert "found 99, 600;" in message


def test_impossible_policies_around_it_are_told() -> None:
    assert [key for key, _ in Timeouts(headers=0, total=0).problems()] == ["headers", "total"]
    assert [key for key, _ in TimeoutOverrides(first_content=0, idle=-1).problems()] == [
        "first_content",
        "idle",
    ]
    assert [key for key, _ in Hold(bytes=-1, time=-1).problems()] == ["bytes", "time"]
    assert [key for key, _ in Resilience(stream_keepalive=0).problems()] == ["stream_keepalive"]
    for fine in (
        Timeouts(),
        TimeoutOverrides(),
        TimeoutOverrides(idle=0.1),
        Hold(),
        Hold(0, 0),
        Resilience(),
    ):
        assert list(fine.problems()) == []

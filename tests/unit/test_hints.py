"""How long an upstream asks to wait: every form that providers use, and all the nonsense."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmproxyd.resilience.hints import LONGEST, error_of, names_retry_info, should_retry, wait_asked

WALL = datetime(2026, 11, 21, 8, 49, 37, tzinfo=UTC).timestamp()
RETRY_INFO = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "26s"}


def fields(*pairs: tuple[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in pairs]


def asked(*pairs: tuple[str, str], status: int = 429, body: object = None) -> float | None:
    return wait_asked(fields(*pairs), body, WALL, status)


RETRY_AFTER = [
    ("20", 20.0),
    ("0", 0.0),
    ("1.5", 1.5),
    (".5", 0.5),
    ("  7 ", 7.0),
    ("1000000000", LONGEST),
    ("Sat, 21 Nov 2026 08:50:07 GMT", 30.0),
    ("sat, 21 nov 2026 08:50:07 gmt", 30.0),
    ("Saturday, 21-Nov-26 08:50:07 GMT", 30.0),
    ("Sat Nov 21 08:50:07 2026", 30.0),
    ("Tue Dec  1 08:49:37 2026", 864000.0),
    ("Sat, 21 Nov 2026 08:49:60 GMT", 23.0),
    ("Sat, 21 Nov 2026 08:49:00 GMT", 0.0),
    ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0),
    ("Sunday, 06-Nov-94 08:49:37 GMT", 0.0),
]
NONSENSE = [
    "",
    "soon",
    "-1",
    "+1",
    "1e3",
    "0x10",
    "1_0",
    "١",
    "nan",
    "inf",
    "-inf",
    "Infinity",
    "1000000000001",
    "9" * 64,
    "9" * 100_000,
    "1" + "." * 64,
    ".",
    "5, 10",
    "5 s",
    "Sat, 21 Foo 2026 08:50:07 GMT",
    "Sat, 31 Nov 2026 08:50:07 GMT",
    "Sat, 00 Nov 2026 08:50:07 GMT",
    "Sat, 21 Nov 0000 08:50:07 GMT",
    "Sat, 21 Nov 2026 24:50:07 GMT",
    "Sat, 21 Nov 2026 08:60:07 GMT",
    "Sat, 21 Nov 2026 08:50:61 GMT",
    "Sat, 21 Nov 2026 08:50:07 +0100",
    "Sat, 21 Nov 9999 08:50:07 GMT",
    "Sat, 21 Nov 2026",
    "2026-11-21",
]


@pytest.mark.parametrize(("text", "seconds"), RETRY_AFTER)
def test_retry_after_is_seconds_or_a_date_in_any_of_the_three_forms(text: str, seconds: float) -> None:
    assert asked(("Retry-After", text), status=500) == pytest.approx(seconds)


@pytest.mark.parametrize("text", NONSENSE)
@pytest.mark.parametrize("name", ["retry-after", "retry-after-ms"])
def test_nonsense_is_as_if_it_were_absent(name: str, text: str) -> None:
    assert asked((name, text)) is None
    assert asked((name, text), body={"error": {"details": [RETRY_INFO]}}) == 26.0


def test_who_asks_for_more_than_is_sane_is_not_believed() -> None:
    assert asked(("retry-after", "1000000001")) is None
    assert asked(("retry-after-ms", "1000000001")) == 1000000.001


def test_bytes_that_are_no_text_are_nonsense() -> None:
    assert (
        wait_asked([(b"retry-after", b"\xff\xfe"), (b"\xffretry-after\x00", b"5")], None, WALL, 429) is None
    )


def test_two_digit_year_is_the_one_not_more_than_fifty_years_ahead() -> None:
    assert asked(("retry-after", "Saturday, 21-Nov-27 08:49:37 GMT")) == 365 * 86400.0
    assert asked(("retry-after", "Saturday, 21-Nov-77 08:49:37 GMT")) == 0.0


def test_milliseconds_come_before_seconds() -> None:
    assert asked(("retry-after", "20"), ("Retry-After-Ms", "1500")) == 1.5
    assert asked(("retry-after", "20"), ("retry-after-ms", "soon")) == 20.0


def test_longest_of_several_fields_counts_and_nonsense_among_them_does_not() -> None:
    assert asked(("retry-after", "3"), ("Retry-After", "nan"), ("RETRY-AFTER", "8")) == 8.0


@given(st.integers(1, 10**8), st.integers(-14, 14))
def test_retry_after_takes_the_dates_that_mail_libraries_write(ahead: int, hours: int) -> None:
    when = datetime.fromtimestamp(WALL, UTC) + timedelta(seconds=ahead)
    assert asked(("retry-after", format_datetime(when, usegmt=True))) == pytest.approx(ahead)
    local = when.astimezone(timezone(timedelta(hours=hours)))
    assert asked(("anthropic-ratelimit-tokens-reset", local.isoformat())) == pytest.approx(ahead)


RESETS = [
    ("6m0s", 360.0),
    ("17ms", 0.017),
    ("1h2m3.5s", 3723.5),
    ("2m59.56s", 179.56),
    ("850µs", 0.00085),
    ("12us", 0.000012),
    ("5ns", 5e-9),
    ("1d", 86400.0),
    ("0s", 0.0),
    ("12", 12.0),
    ("0.25", 0.25),
    ("2026-11-21T08:50:37Z", 60.0),
    ("2026-11-21t08:50:37z", 60.0),
    ("2026-11-21T08:50:37.5+00:00", 60.5),
    ("2026-11-21T09:50:37.250000000+01:00", 60.25),
    ("2026-11-21T08:00:00Z", 0.0),
    (f"{WALL + 90:.0f}", 90.0),
    (f"{WALL * 1000 + 90_500:.0f}", 90.5),
    (f"{WALL - 90:.0f}", 0.0),
    (f"{WALL + 86400:.0f}", 86400.0),
    # What may mean anything means nothing.
    ("3600", None),
    ("30000", None),
    ("500000000", None),
    (f"{WALL + 90000:.0f}", None),
    (f"{WALL * 1000 + 90_000_000:.0f}", None),
    (f"{WALL * 1e6:.0f}", None),
    ("2026-11-21T08:50:37", None),
    ("2026-11-21T08:50:61Z", None),
    ("2026-13-21T08:50:37Z", None),
    ("2026-11-21T08:50:37+99:00", None),
    ("20261121T085037Z", None),
    ("1m-5s", None),
    ("5 m", None),
    ("m", None),
    ("-5s", None),
    ("99999999999h", None),
    ("nan", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "seconds"), RESETS)
@pytest.mark.parametrize(
    "name",
    [
        "x-ratelimit-reset",
        "X-RateLimit-Reset-Tokens",
        "x-ratelimit-reset-requests-day",
        "anthropic-ratelimit-input-tokens-reset",
    ],
)
def test_reset_is_a_duration_a_time_or_a_number_that_can_mean_one_thing(
    name: str, text: str, seconds: float | None
) -> None:
    expected = seconds if seconds is None else pytest.approx(seconds, abs=1e-5)
    assert asked((name, text)) == expected


@pytest.mark.parametrize("status", [200, 400, 500, 502, 529])
def test_rate_limits_say_nothing_about_other_statuses(status: int) -> None:
    assert asked(("x-ratelimit-reset", "5"), ("x-ratelimit-remaining", "0"), status=status) is None


FAMILIES = [
    ({"x-ratelimit-reset-requests": "2s", "x-ratelimit-reset-tokens": "9s"}, 9.0),
    (
        {
            "x-ratelimit-reset-requests": "2s",
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-tokens": "9s",
            "x-ratelimit-remaining-tokens": "500",
        },
        2.0,
    ),
    (
        {
            "x-ratelimit-reset-requests": "2s",
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-tokens": "9s",
        },
        2.0,
    ),
    (
        {
            "x-ratelimit-reset-requests": "2s",
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-tokens": "9s",
            "x-ratelimit-remaining-tokens": "-3",
        },
        9.0,
    ),
    (
        {
            "x-ratelimit-reset-requests": "2s",
            "x-ratelimit-remaining-requests": "7",
            "x-ratelimit-reset-tokens": "9s",
        },
        9.0,
    ),
    ({"x-ratelimit-reset-tokens": "9s", "x-ratelimit-remaining-tokens": "12"}, None),
    ({"x-ratelimit-reset-tokens": "9s", "x-ratelimit-remaining-tokens": "lots"}, 9.0),
    ({"x-ratelimit-reset-tokens": "lots", "x-ratelimit-remaining-tokens": "0"}, None),
    (
        {
            "anthropic-ratelimit-requests-reset": "2026-11-21T08:49:40Z",
            "anthropic-ratelimit-requests-remaining": "3",
            "anthropic-ratelimit-input-tokens-reset": "2026-11-21T08:50:07Z",
            "anthropic-ratelimit-input-tokens-remaining": "0",
            "anthropic-ratelimit-output-tokens-reset": "2026-11-21T09:50:07Z",
            "anthropic-ratelimit-output-tokens-remaining": "800",
        },
        30.0,
    ),
    ({"x-ratelimit-reset": "4", "x-ratelimit-remaining": "0", "x-ratelimit-limit": "60"}, 4.0),
    ({"x-ratelimit-remaining": "0"}, None),
]


@pytest.mark.parametrize(("told", "seconds"), FAMILIES)
def test_the_family_that_is_spent_tells_the_wait(told: dict[str, str], seconds: float | None) -> None:
    assert asked(*told.items()) == (seconds if seconds is None else pytest.approx(seconds))
    assert asked(*reversed(told.items())) == (seconds if seconds is None else pytest.approx(seconds))


def test_limit_that_is_spent_in_one_of_several_fields_is_spent() -> None:
    reset = ("x-ratelimit-reset-tokens", "9s")
    told = [("x-ratelimit-remaining-tokens", "5"), ("X-RateLimit-Remaining-Tokens", "0")]
    assert asked(reset, *told) == asked(*reversed(told), reset) == 9.0


def test_retry_after_comes_before_the_rate_limits_and_these_before_the_body() -> None:
    limits = ("x-ratelimit-reset", "4")
    body = {"error": {"details": [RETRY_INFO]}}
    assert asked(("retry-after", "2"), limits, body=body) == 2.0
    assert asked(limits, body=body) == 4.0
    assert asked(body=body) == 26.0


def retry_info(delay: object) -> dict[str, Any]:
    return {
        "error": {
            "code": 429,
            "details": [{"@type": "x/google.rpc.QuotaFailure"}, {**RETRY_INFO, "retryDelay": delay}],
        }
    }


@pytest.mark.parametrize("array", [False, True])
@pytest.mark.parametrize(
    ("delay", "seconds"),
    [
        ("26s", 26.0),
        ("3.5s", 3.5),
        ("0.123456789s", 0.123456789),
        ("0s", 0.0),
        ("-1s", None),
        ("soon", None),
        ("", None),
        ("9" * 99 + "s", None),
        ("9000000000s", None),
        (None, None),
        ([], None),
        ({}, None),
        (True, None),
        (float("nan"), None),
    ],
)
def test_google_tells_the_wait_in_the_body(delay: object, seconds: float | None, array: bool) -> None:
    body = retry_info(delay)
    assert asked(body=[body] if array else body, status=500) == seconds
    assert names_retry_info(body) is (seconds is not None)


@pytest.mark.parametrize(
    ("metadata", "seconds"),
    [
        ({"retry_after_seconds": 12}, 12.0),
        ({"retry_after_seconds": 0.5}, 0.5),
        ({"retry_after_seconds": "12.5"}, 12.5),
        ({"retry_after_seconds": True}, None),
        ({"retry_after_seconds": -1}, None),
        ({"retry_after_seconds": float("nan")}, None),
        ({"retry_after_seconds": float("inf")}, None),
        ({"retry_after_seconds": 10**400}, None),
        ({"retry_after_seconds": 2 * 10**9}, None),
        ({"headers": {"Retry-After": "9"}}, 9.0),
        ({"headers": {"retry-after": 9}}, 9.0),
        ({"headers": {"X-RateLimit-Reset": f"{WALL * 1000 + 5000:.0f}"}}, 5.0),
        ({"headers": {"X-RateLimit-Reset": int(WALL * 1000 + 5000), "X-RateLimit-Remaining": 0}}, 5.0),
        ({"headers": {"X-RateLimit-Reset": int(WALL * 1000 + 5000), "X-RateLimit-Remaining": "3"}}, None),
        ({"headers": {"X-RateLimit-Reset": 10**400, "Retry-After": None, "x": []}}, None),
        ({"headers": ["Retry-After", "9"]}, None),
        ({"retry_after_seconds": "soon", "headers": {"Retry-After": "9"}}, 9.0),
        ([], None),
    ],
)
def test_openrouter_tells_the_wait_in_the_metadata(metadata: object, seconds: float | None) -> None:
    expected = seconds if seconds is None else pytest.approx(seconds)
    assert asked(body={"error": {"code": 429, "metadata": metadata}}) == expected


@pytest.mark.parametrize(
    "body", [None, [], {}, "x", 3, [[]], {"error": "x"}, {"error": None}, [{"error": []}]]
)
def test_body_without_an_error_object_says_nothing(body: object) -> None:
    assert asked(body=body) is None
    assert error_of(body) == {}


def test_only_the_array_of_one_element_is_an_envelope() -> None:
    body = {"error": {"details": [RETRY_INFO]}}
    assert asked(body=[body, body]) is None


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["true"], True),
        (["false"], False),
        ([" False "], False),
        (["TRUE"], True),
        (["false", "false"], False),
        (["true", "false"], None),
        (["1"], None),
        ([""], None),
        ([], None),
    ],
)
def test_x_should_retry_is_true_or_false(values: list[str], said: bool | None) -> None:
    assert should_retry(fields(*(("X-Should-Retry", value) for value in values))) is said


NAMES = [
    "retry-after",
    "Retry-After-Ms",
    "x-ratelimit-reset",
    "x-ratelimit-reset-tokens",
    "x-ratelimit-remaining-tokens",
]
NAMES += [
    "anthropic-ratelimit-tokens-reset",
    "anthropic-ratelimit-tokens-remaining",
    "x-ratelimit-",
    "ratelimit",
]
TEXTS = st.one_of(
    st.binary(max_size=40),
    st.from_regex(rb"[-+]?[0-9.]{1,30}(ms|s|m|h|d|Z)?", fullmatch=True),
    st.from_regex(
        rb"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}(\.[0-9]{1,12})?(Z|[-+][0-9]{2}:[0-9]{2})", fullmatch=True
    ),
    st.from_regex(
        rb"[A-Z][a-z]{2}, [0-9]{2} (Jan|Feb|Nov) [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT", fullmatch=True
    ),
    st.from_regex(rb"Friday, [0-9]{2}-Feb-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT", fullmatch=True),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("26s"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "error",
                    "details",
                    "metadata",
                    "headers",
                    "retry_after_seconds",
                    "@type",
                    "retryDelay",
                    "Retry-After",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    st.lists(st.tuples(st.sampled_from(NAMES).map(str.encode), TEXTS), max_size=6),
    JSON,
    st.floats(-1e12, 1e12),
    st.sampled_from([0, 200, 400, 429, 503]),
)
@example([(b"retry-after", b"Friday, 29-Feb-00 00:00:00 GMT")], None, -1e12, 429)
@example([(b"retry-after", b"Friday, 28-Feb-00 00:00:00 GMT")], None, 2.5e11, 429)
@example([(b"anthropic-ratelimit-tokens-reset", b"0001-01-01T00:00:00+23:59")], None, 0.0, 429)
@example([(b"anthropic-ratelimit-tokens-reset", b"9999-12-31T23:59:59-23:59")], None, 0.0, 429)
def test_whatever_an_upstream_sends_nothing_is_raised_and_any_wait_is_sane(
    headers: list[tuple[bytes, bytes]], body: object, wall: float, status: int
) -> None:
    wait = wait_asked(headers, body, wall, status)
    assert wait is None or 0 <= wait <= LONGEST
    assert should_retry(headers) is None

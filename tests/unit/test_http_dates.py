"""HTTP dates: three forms, read strictly where something is made fresh, leniently where somebody waits."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llmproxyd.http.dates import seconds_meant, seconds_of

WHEN = 784111777.0
NOW = 1_700_000_000.0

Read = Callable[[bytes, float], float | None]


@pytest.mark.parametrize("read", [seconds_of, seconds_meant])
@pytest.mark.parametrize(
    "date", [b"Sun, 06 Nov 1994 08:49:37 GMT", b"Sunday, 06-Nov-94 08:49:37 GMT", b"Sun Nov  6 08:49:37 1994"]
)
def test_all_three_forms_are_read(read: Read, date: bytes) -> None:
    assert read(date, NOW) == WHEN


@pytest.mark.parametrize(
    "date",
    [
        b"sun, 06 nov 1994 08:49:37 gmt",
        b"SUN, 06 NOV 1994 08:49:37 GMT",
        b"Soon, 06 Nov 1994 08:49:37 GMT",
        b"x, 06-Nov-94 08:49:37 GMT",
        b"Sunday Nov  6 08:49:37 1994",
    ],
)
def test_case_and_weekday_count_only_where_it_is_read_strictly(date: bytes) -> None:
    assert seconds_of(date, NOW) is None
    assert seconds_meant(date, NOW) == WHEN


@pytest.mark.parametrize("read", [seconds_of, seconds_meant])
@pytest.mark.parametrize(
    "date",
    [
        b"",
        b"0",
        b"Sun, 06 Nov 1994 08:49:37",
        b"Sun, 06 Nov 1994 08:49:37 UTC",
        b"Sun, 06 Nov 1994 08:49:37 +0100",
        b"Sun, 06 Nov 94 08:49:37 GMT",
        b"Sun, 6 Nov 1994 08:49:37 GMT",
        b"Sun, 31 Nov 1994 08:49:37 GMT",
        b"Sun, 06 Foo 1994 08:49:37 GMT",
        b"Sun, 06 Nov 0000 08:49:37 GMT",
        b"Sun, 06 Nov 1994 24:00:00 GMT",
        b"Sun, 06 Nov 1994 08:60:37 GMT",
        b"Sun, 06 Nov 1994 08:49:61 GMT",
        b"Sun, 06 Nov 1994 08:49:37 GMT" + b" " * 64 + b"x",
    ],
)
def test_what_is_no_date_is_none(read: Read, date: bytes) -> None:
    assert read(date, NOW) is None


@pytest.mark.parametrize("read", [seconds_of, seconds_meant])
def test_a_year_of_two_digits_is_never_more_than_50_ahead(read: Read) -> None:
    ahead, past = (read(b"Sunday, 06-Nov-%d 08:49:37 GMT" % year, NOW) for year in (73, 74))
    assert ahead is not None
    assert past is not None
    assert past < WHEN < NOW < ahead


@pytest.mark.parametrize("read", [seconds_of, seconds_meant])
def test_a_clock_that_is_beyond_all_years_makes_no_date(read: Read) -> None:
    assert read(b"Sunday, 06-Nov-94 08:49:37 GMT", 1e18) is None

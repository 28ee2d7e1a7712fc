"""Moments as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxyd.control.moments import day, parse_moment, stamp

NOW = 1_750_000_000.0


@pytest.mark.parametrize(
    ("text", "ahead"),
    [
        ("30d", NOW + 30 * 86400),
        ("12h", NOW + 12 * 3600),
        ("2w", NOW + 14 * 86400),
        ("1h30m", NOW + 5400),
        ("2030-01-01", 1893456000.0),
        ("2030-01-01T00:00:00Z", 1893456000.0),
        ("2030-01-01t02:00:00+02:00", 1893456000.0),
        ("2030-01-01T00:00:00.5Z", 1893456000.5),
        ("2016-12-31T23:59:60Z", 1483228799.0),
        ("0001-01-01T00:00:00+23:59", 0.0),
    ],
)
def test_moment_is_understood(text: str, ahead: float) -> None:
    assert parse_moment(text).ahead(NOW) == ahead


@pytest.mark.parametrize(
    "text", ["", "30", "2030", "tomorrow", "2030-13-01", "2030-01-01T00:00:00", "-1d", "9999d"]
)
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_moment(text)


@given(st.datetimes(), st.sampled_from(["Z", "+23:59", "-23:59"]))
def test_every_time_of_rfc_3339_can_be_read_and_told(when: object, zone: str) -> None:
    text = str(when).replace(" ", "T")[:19] + zone
    seconds = parse_moment(text).ahead(NOW)
    told = stamp(seconds)
    assert told is not None
    assert parse_moment(told).ahead(NOW) == int(seconds)


@given(st.text(max_size=40))
def test_no_text_does_more_than_be_refused(text: str) -> None:
    try:
        moment = parse_moment(text)
    except ValueError:
        return
    assert stamp(moment.ahead(NOW))


def test_day_is_that_of_utc() -> None:
    assert day(NOW) == "2025-06-15"
    assert parse_moment("1d").back(NOW) == NOW - 86400

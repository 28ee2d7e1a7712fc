"""Durations and sizes as people write them, and as they are shown again."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmproxyd.units import (
    MAX_DURATION,
    MAX_SIZE,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)

DURATIONS = [
    ("0", 0.0),
    ("0s", 0.0),
    ("5", 5.0),
    ("1.5", 1.5),
    ("250ms", 0.25),
    ("30s", 30.0),
    ("0.5s", 0.5),
    ("1m30s", 90.0),
    ("2h", 7200.0),
    ("1d2h3m4s5ms", 93784.005),
    (" 5m ", 300.0),
    ("366d", MAX_DURATION),
]
NO_DURATIONS = [
    "",
    " ",
    "s",
    "-1",
    "-1s",
    "+1",
    "1 s",
    "1s 2",
    "1m30",
    "1x",
    "1S",
    "1e3",
    "nan",
    "inf",
    ".5",
    "1.",
    "1,5",
    "367d",
    "9" * 400,
    "9" * 400 + "d",
]
SIZES = [
    ("0", 0),
    ("17", 17),
    ("17b", 17),
    ("64KiB", 65536),
    ("64kib", 65536),
    ("64 KiB", 65536),
    ("1Ki", 1024),
    ("2MB", 2_000_000),
    ("2M", 2_000_000),
    ("1.5MiB", 1_572_864),
    ("3G", 3_000_000_000),
    ("1GiB", 1 << 30),
    ("9007199254740993", 9007199254740993),
]
NO_SIZES = ["", "-1", "1TB", "KiB", "1.", "1 2", "1e6", "0x10", "nan", "9" * 400, "9" * 400 + "GiB", "9" * 30]


@pytest.mark.parametrize(("text", "seconds"), DURATIONS)
def test_duration_is_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds, abs=1e-9)


@pytest.mark.parametrize("text", NO_DURATIONS)
def test_what_is_no_duration_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match='"1m30s"'):
        parse_duration(text)


def test_duration_of_more_than_a_year_says_so() -> None:
    with pytest.raises(ValueError, match="a year at most"):
        parse_duration("367d")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.25, "250ms"), (30, "30s"), (90, "1m30s"), (3600, "1h"), (86461.5, "1d1m1s500ms")],
)
def test_duration_is_shown_in_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@settings(deadline=None)
@given(st.one_of(st.integers(0, int(MAX_DURATION)), st.floats(0, MAX_DURATION, allow_subnormal=False)))
@example(59.9999)
@example(1e-9)
def test_duration_shown_is_read_back(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=1e-6, rel=1e-12)


@pytest.mark.parametrize(("text", "size"), SIZES)
def test_size_is_read_exactly(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", NO_SIZES)
def test_what_is_no_size_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match='"64KiB"'):
        parse_size(text)


@settings(deadline=None)
@given(st.integers(0, MAX_SIZE))
def test_size_shown_is_read_back(size: int) -> None:
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0"), (1023, "1023"), (1024, "1KiB"), (1536, "1536"), (3 << 20, "3MiB"), (1 << 30, "1GiB")],
)
def test_size_is_shown_in_the_largest_unit_that_divides_it(size: int, text: str) -> None:
    assert format_size(size) == text


@settings(deadline=None)
@given(st.text(max_size=60) | st.from_regex(r"[0-9.]{1,8} ?[a-zA-Z]{0,4}", fullmatch=True))
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (parse_duration, parse_size):
        with contextlib.suppress(ValueError):
            assert parse(text) >= 0

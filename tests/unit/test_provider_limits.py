"""Limits of ours in the header fields of each provider."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxyd.providers.limits import Meter, anthropic_fields, go_duration, no_fields, openai_fields
from llmproxyd.providers.registry import registry

METERS = [Meter("requests", 60, 3, 57.25), Meter("tokens", 10_000, 0, 60.0)]
WALL = 1_756_500_000.25


def test_openai_tells_durations() -> None:
    assert openai_fields(METERS, WALL) == [
        (b"x-ratelimit-limit-requests", b"60"),
        (b"x-ratelimit-remaining-requests", b"3"),
        (b"x-ratelimit-reset-requests", b"57.25s"),
        (b"x-ratelimit-limit-tokens", b"10000"),
        (b"x-ratelimit-remaining-tokens", b"0"),
        (b"x-ratelimit-reset-tokens", b"1m0s"),
    ]


def test_anthropic_tells_times_that_are_not_too_early() -> None:
    fields = dict(anthropic_fields(METERS, WALL))
    assert fields[b"anthropic-ratelimit-requests-limit"] == b"60"
    assert fields[b"anthropic-ratelimit-requests-remaining"] == b"3"
    assert fields[b"anthropic-ratelimit-requests-reset"] == b"2025-08-29T20:40:58Z"
    assert len(fields) == 6
    for meter in METERS:
        text = fields[b"anthropic-ratelimit-%s-reset" % meter.kind.encode()].decode()
        assert 0 <= datetime.fromisoformat(text).timestamp() - (WALL + meter.reset) < 1


def test_some_tell_nothing() -> None:
    assert no_fields(METERS, WALL) == []


@pytest.mark.parametrize("name", registry())
def test_every_provider_has_a_way(name: str) -> None:
    for field, value in registry()[name].dialect.limits(METERS, WALL):
        assert re.fullmatch(rb"[a-z-]+", field)
        assert re.fullmatch(rb"[0-9A-Za-z.:-]+", value)


WRITTEN = [
    (0.0, "0ms"),
    (-1.0, "0ms"),
    (0.12, "120ms"),
    (0.9996, "1s"),
    (1.0, "1s"),
    (59.9996, "1m0s"),
    (60.0, "1m0s"),
    (360.0, "6m0s"),
    (61.5, "1m1.5s"),
    (10.0, "10s"),
    (3600.0, "1h0m0s"),
    (3661.25, "1h1m1.25s"),
]


@pytest.mark.parametrize(("seconds", "text"), WRITTEN)
def test_durations_are_written_as_go_does(seconds: float, text: str) -> None:
    assert go_duration(seconds) == text


@given(st.floats(0, 100_000))
def test_durations_say_what_they_mean(seconds: float) -> None:
    text = go_duration(seconds)
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    found = re.findall(r"([0-9.]+)(ms|h|m|s)", text)
    assert "".join(number + unit for number, unit in found) == text
    assert sum(float(number) * units[unit] for number, unit in found) == pytest.approx(seconds, abs=0.00051)
    assert all(float(number) < 60 for number, unit in found if unit in ("m", "s"))


def test_times_are_in_utc() -> None:
    (_, _, (_, at)) = anthropic_fields([Meter("requests", 1, 0, 0.0)], 0.0)
    assert at == datetime(1970, 1, 1, tzinfo=UTC).strftime("%Y-%m-%dT%H:%M:%SZ").encode()

"""What ``llmproxyctl top`` makes of the daemon's answers: rates, latencies, and a screen that fits."""

from __future__ import annotations

import re
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxyd.admin.looks import WINDOW, Figures, Look, Past, breakers, figures, sorted_upstreams
from llmproxyd.admin.scrape import Samples, differences, quantile
from llmproxyd.admin.screen import clipped, screen

PAGE = """\
# HELP llmproxyd_requests_total Requests.
# TYPE llmproxyd_requests_total counter
llmproxyd_requests_total{{upstream="openai",status="200"}} {good}
llmproxyd_requests_total{{upstream="openai",status="503"}} {bad}
llmproxyd_requests_total{{upstream="b\\\\a\\"c",status="429"}} 0.0
llmproxyd_request_duration_seconds_bucket{{upstream="openai",le="0.1"}} {good}
llmproxyd_request_duration_seconds_bucket{{upstream="openai",le="+Inf"}} {good}
llmproxyd_cache_requests_total{{result="hit"}} 1.0
llmproxyd_cache_requests_total{{result="miss"}} 3.0
llmproxyd_cache_requests_total{{result="bypass"}} 90.0
llmproxyd_connections_open 4.0
nonsense
llmproxyd_odd x
"""


def at(seconds: float, good: int, bad: int = 0, **more: Any) -> Look:
    status = {"requests": good + bad, "uptime": 100 + seconds, "mode": "No error", "version": "1", **more}
    upstreams = [{"name": name, "state": "enabled", "active": 0} for name in ("anthropic", "openai")]
    return Look(seconds, status, Samples(PAGE.format(good=float(good), bad=float(bad))), upstreams, ())


def test_page_is_read() -> None:
    samples = Samples(PAGE.format(good=8.0, bad=2.0))
    assert samples.total("llmproxyd_requests_total") == 10
    assert samples.by("upstream", "llmproxyd_requests_total") == {"openai": 10, 'b\\a"c': 0}
    assert samples.total("llmproxyd_requests_total", status="503") == 2
    assert samples.total("llmproxyd_odd") == 0
    assert samples.buckets("llmproxyd_request_duration_seconds") == {0.1: 8, inf: 8}


@given(st.text())
def test_any_page_is_read(page: str) -> None:
    Samples(page).buckets("x")


def test_rates_are_of_what_happened_in_between() -> None:
    told = figures(at(10, 60, 20), at(0, 20, 10))
    assert told.rate == 5
    assert told.rates == {"openai": 5, 'b\\a"c': 0}
    assert told.errors == 0.2
    assert told.failing == {"openai": 0.2}
    assert told.median == pytest.approx(0.05)
    assert told.late == pytest.approx(0.095)
    assert told.cache_share == 0.25
    assert told.connections == 4


def test_one_look_alone_tells_no_rates() -> None:
    told = Past().add(at(0, 5))
    assert (told.rate, told.rates, told.median) == (None, None, None)
    assert told.connections == 4


def test_looks_that_are_old_are_left_out() -> None:
    past = Past()
    for second in range(60):
        told = past.add(at(second, 0 if second < 30 else 100))
    assert told.rate == 0
    assert len(past._looks) <= WINDOW + 2


def test_daemon_that_started_again_is_counted_anew() -> None:
    past = Past()
    past.add(at(0, 1000))
    assert past.add(at(1, 5)).rate is None
    assert past.add(at(2, 7)).rate == 2
    assert past.add(at(3, 9, uptime=0.5)).rate is None


def test_without_metrics_the_status_tells_what_it_can() -> None:
    one, two = (Look(float(n), {"requests": 3 * n, "uptime": n}, None, (), ()) for n in (0, 1))
    past = Past()
    past.add(one)
    told = past.add(two)
    assert told.rate == 3
    assert (told.median, told.connections, told.cache_share) == (None, None, None)


@pytest.mark.parametrize(
    ("share", "counts", "value"),
    [
        (0.5, {}, None),
        (0.5, {1.0: 0, inf: 0}, None),
        (0.5, {1.0: 10, inf: 10}, 0.5),
        (0.95, {1.0: 50, 2.0: 100, inf: 100}, 1.9),
        (0.5, {1.0: 0, inf: 10}, 1.0),
        (1.0, {1.0: 10, 2.0: 10, inf: 10}, 1.0),
    ],
)
def test_quantile(share: float, counts: dict[float, float], value: float | None) -> None:
    assert quantile(share, counts) == (value if value is None else pytest.approx(value))


@given(
    st.lists(st.integers(0, 1000), min_size=1, max_size=8),
    st.floats(0, 1),
    st.lists(st.integers(0, 1000), max_size=8),
)
def test_quantile_lies_within_the_bounds(new: list[int], share: float, old: list[int]) -> None:
    counts, total = {}, 0
    for bound, count in enumerate(new):
        total += count
        counts[float(bound)] = float(total)
    value = quantile(share, counts)
    assert value is None or 0 <= value <= len(new)
    # A histogram that went backwards tells something wrong at worst, and never fails.
    quantile(share, differences(counts, {float(bound): float(count) for bound, count in enumerate(old)}))


def test_breaker_that_is_worst_off_is_told() -> None:
    rows = [
        {"name": "a/one", "state": "closed", "left": 0},
        {"name": "a/two", "state": "open", "left": 12.4},
        {"name": "b", "state": "half-open", "left": 0},
    ]
    assert breakers({"upstreams": {"breakers": rows}}) == {"a": "open, 12 s", "b": "half-open"}
    assert breakers({}) == {}


def test_upstreams_that_are_used_come_first() -> None:
    now = at(0, 1)
    assert [row["name"] for row in sorted_upstreams(now, Figures())] == ["anthropic", "openai"]
    used = Figures(used=frozenset({"openai"}))
    assert [row["name"] for row in sorted_upstreams(now, used)] == ["openai", "anthropic"]


def test_reason_why_it_is_not_ready_is_shown() -> None:
    now = at(0, 1, serving={"ready": False, "reason": "it stops"})
    lines = screen(now, Figures(), width=80, height=20, selected=None, colour=False)
    assert "not ready: it stops" in lines


names = st.text(min_size=1, max_size=40)
rows = st.lists(
    st.fixed_dictionaries(
        {"name": names, "state": st.sampled_from(["enabled", "drained"]), "active": st.integers(0, 9)}
    ),
    max_size=30,
    unique_by=lambda row: row["name"],
)
requests = st.lists(
    st.fixed_dictionaries({"id": names, "path": names, "status": st.integers(100, 599)}), max_size=9
)


@given(
    rows, requests, st.integers(1, 120), st.integers(1, 50), st.booleans(), st.text(max_size=200), st.data()
)
def test_screen_fits_any_terminal_and_moves_nothing_else(
    upstreams: list[dict[str, Any]],
    last: list[dict[str, Any]],
    width: int,
    height: int,
    colour: bool,
    message: str,
    data: st.DataObject,
) -> None:
    status = {"requests": 1, "mode": message, "version": message, "uptime": 5.0}
    now = Look(0.0, status, None, upstreams, last)
    chosen = data.draw(st.sampled_from([row["name"] for row in upstreams])) if upstreams else None
    lines = screen(
        now, Figures(), width=width, height=height, selected=chosen, message=message, colour=colour
    )
    assert len(lines) == height
    for line in lines:
        bare = re.sub(r"\x1b\[[0-9;]*m", "", line)
        assert bare.isprintable()
        assert len(bare) <= width
        assert colour or bare == line


@given(st.integers(7, 40), st.integers(0, 29))
def test_upstream_that_is_selected_is_always_shown(height: int, number: int) -> None:
    upstreams = [{"name": f"up-{n:02}", "state": "enabled", "active": 0} for n in range(30)]
    now = Look(0.0, {"requests": 1, "mode": "No error"}, None, upstreams, ())
    lines = screen(now, Figures(), width=80, height=height + 3, selected=f"up-{number:02}", colour=False)
    assert any(line.startswith(f"> up-{number:02}") for line in lines)


def test_wide_characters_take_two_columns() -> None:
    assert clipped("日本語", 5) == "日本"
    assert clipped("\x1b[31mred and more\x1b[0m", 3) == "\x1b[31mred\x1b[0m"
    assert clipped("short", 10) == "short"
